"""The plan of a call as text: what would be sent, what it would cost, and what happens if it fails.

Stage: display. Comes in: a `Plan`, how long it will take, the budget. Goes out: text. Must not: send
anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from nbimg.display import words
from nbimg.errors import NbimgError
from nbimg.planning.plan import Planned

__all__ = ["render_plan"]

SHOWN = 20


class _Plan(Protocol):
    @property
    def tasks(self) -> Sequence[Planned]: ...
    @property
    def refused(self) -> Mapping[int, NbimgError]: ...
    @property
    def note(self) -> str | None: ...
    @property
    def chains(self) -> Mapping[str, tuple[str, ...]]: ...
    @property
    def cost_usd(self) -> float | None: ...


def render_plan(plan: _Plan, forecast: str = "", budget_usd: float | None = None) -> str:
    """Return what a call would do, a line a task, at most the first 20.

    Args:
        plan: The plan.
        forecast: How long it will take, in words; empty: not known.
        budget_usd: The most that the call may cost; None: no budget.
    """
    calls = sum(task.number for task in plan.tasks)
    images = sum(task.request.n for task in plan.tasks)
    cost = "price unknown" if plan.cost_usd is None else f"about {words.money(plan.cost_usd)}"
    counts = words.count(len(plan.tasks), "task"), words.count(images, "image")
    sent = words.count(calls, "request")
    lines = [f"Dry run: {', '.join(counts)}, {sent}, {cost}. Nothing was sent."]
    lines += [forecast] if forecast else []
    lines += [_budget(plan.cost_usd, budget_usd)] if budget_usd is not None else []
    lines += _models(plan)
    for task in plan.tasks[:SHOWN]:
        call = task.calls()[0]
        values = json.dumps(dict(call.arguments), ensure_ascii=False, default=str)
        prompt = words.shorten(task.request.prompt, 60)
        lines.append(f"{task.index + 1:4}  {task.ref}  × {task.request.n}  {prompt!r}  {values}")
        lines += [f"      {notice}" for notice in task.notices]
    if len(plan.tasks) > SHOWN:
        lines.append(f"      … and {len(plan.tasks) - SHOWN} more")
    lines += [f"{index + 1:4}  cannot be sent: {error}" for index, error in plan.refused.items()]
    if plan.note:
        lines.append(plan.note)
    return "\n".join(lines)


def _budget(cost_usd: float | None, budget_usd: float) -> str:
    limit = f"the budget of {words.money(budget_usd)}"
    if cost_usd is None:
        return f"A price is unknown: under {limit} this would be refused."
    if cost_usd > budget_usd + 1e-9:
        return f"Over {limit}: this would be refused."
    return f"Within {limit}."


def _models(plan: _Plan) -> Iterator[str]:
    """A line a model: its price, the day it was read, and what stands in for it."""
    for task in {task.ref.full: task for task in plan.tasks}.values():
        price = "price unknown"
        if task.can.price_usd is not None:
            read = f" (read {task.can.price_at})" if task.can.price_at else ""
            price = f"{words.money(task.can.price_usd)} an image{read}"
        chain = ", ".join(plan.chains.get(task.ref.full, ()))
        yield f"{task.ref}: {price}" + (f"; if it fails: {chain}" if chain else "")

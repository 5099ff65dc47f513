"""The plan of a call as text: what would be sent, and what it would cost.

Stage: display. Comes in: a `Plan`. Goes out: text. Must not: send anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Protocol

from nbimg.display import words
from nbimg.errors import NbimgError
from nbimg.plan import Planned

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
    def cost_usd(self) -> float | None: ...


def render_plan(plan: _Plan) -> str:
    """Return what a call would do, a line a task, at most the first 20."""
    calls = sum(len(task.calls) for task in plan.tasks)
    images = sum(task.request.n for task in plan.tasks)
    cost = "price unknown" if plan.cost_usd is None else f"about {words.money(plan.cost_usd)}"
    counts = words.count(len(plan.tasks), "task"), words.count(images, "image")
    sent = words.count(calls, "request")
    lines = [f"Dry run: {', '.join(counts)}, {sent}, {cost}. Nothing was sent."]
    for task in plan.tasks[:SHOWN]:
        call = task.calls[0]
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

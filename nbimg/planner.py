"""Plan a call: choose the model of each request, ask what it takes, draw the seeds, and fit.

Stage: below the session. Comes in: requests whose images are read. Goes out: a `Plan`: what will be sent
and what cannot be. Must not: create a job; a model's schema is all that is asked for.
"""

from __future__ import annotations

import functools
import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nbimg import catalog
from nbimg.backends.registry import Registry
from nbimg.choose import Choice, choose
from nbimg.config import Settings
from nbimg.engine.retry import Policy, retrying
from nbimg.errors import NbimgError
from nbimg.keys import Keys
from nbimg.plan import Planned, plan
from nbimg.types import Capabilities, ModelRef, Request

__all__ = ["Plan", "Planner"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a call will do.

    Attributes:
        tasks: What will be sent, in order.
        refused: Index → why a task cannot be sent; it costs no other task.
        note: The line about the model that was chosen.
    """

    tasks: tuple[Planned, ...]
    refused: Mapping[int, NbimgError]
    note: str | None = None

    @property
    def cost_usd(self) -> float | None:
        """Of all tasks; None when any price is unknown."""
        costs = [task.cost_usd for task in self.tasks]
        return None if None in costs else sum(cost for cost in costs if cost is not None)


class Planner:
    """Plans calls for a session.

    Args:
        settings: Where the user's own model is.
        keys: Which providers have a credential.
        registry: The backends.
    """

    def __init__(self, settings: Settings, keys: Keys, registry: Registry) -> None:
        self._settings = settings
        self._keys = keys
        self._registry = registry

    async def plan(
        self,
        requests: Sequence[Request],
        unread: Mapping[int, NbimgError],
        *,
        task: str,
        groups: Sequence[int],
        policy: Policy,
    ) -> Plan:
        """Fit every request that can be sent.

        Args:
            requests: In order.
            unread: Index → why its images cannot be read.
            task: `generate` or `edit`; a request with an image is always an edit.
            groups: A number a request; those with the same one share the base seed that is drawn, so
                that only what they fan out over differs. Empty: each has its own.
            policy: How often a provider is asked.
        """
        chosen: dict[tuple[str | None, str], Choice] = {}
        can: dict[ModelRef, Capabilities | NbimgError] = {}
        seeds: dict[int, int] = defaultdict(lambda: secrets.randbelow(2**31))
        tasks, refused = [], dict(unread)
        for index, request in enumerate(requests):
            if index in refused:
                continue
            kind = (request.model, "edit" if request.image else task)
            seed = seeds[groups[index] if groups else index]
            try:
                choice = chosen.get(kind) or self._choice(*kind)
                chosen[kind] = choice
                takes = can.get(choice.ref) or await self._takes(choice.ref, policy)
                can[choice.ref] = takes
                if isinstance(takes, NbimgError):
                    refused[index] = takes
                else:
                    tasks.append(plan(index, request, choice.ref, takes, seed=seed))
            except NbimgError as error:
                refused[index] = error
        note = next((choice.note for choice in chosen.values() if choice.note), None)
        return Plan(tuple(tasks), refused, note)

    def _choice(self, model: str | None, task: str) -> Choice:
        return choose(model, task, self._settings, self._keys, self._registry)

    async def _takes(self, ref: ModelRef, policy: Policy) -> Capabilities | NbimgError:
        """Ask what a model takes; an error is kept, so that it is asked once a call."""
        try:
            ask = functools.partial(self._registry.get(ref.provider).capabilities, ref.model)
            can = await retrying("schema", ask, policy, lambda *_: None)
        except NbimgError as error:
            return error
        entry = catalog.entries().get(ref.alias or "")
        if entry is None or can.price_usd is not None:
            return can
        return replace(can, price_usd=entry.price_usd, price_at=entry.price_at)

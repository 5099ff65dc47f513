"""Plan a call: choose the model of each request, ask what it takes, draw the seeds, and fit.

Stage: below the session. Comes in: requests whose images are read. Goes out: a `Plan`: what will be sent
and what cannot be; and, when a model fails for good, its task planned for the next of its chain. Must
not: create a job; a model's schema is all that is asked for.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from nbimg.backends.registry import Registry
from nbimg.config import Settings
from nbimg.credentials.keys import Keys
from nbimg.engine.retry import Policy, retrying
from nbimg.errors import InputError, NbimgError
from nbimg.planning import catalog
from nbimg.planning.choose import Choice, choose
from nbimg.planning.fallback import condition_of
from nbimg.planning.plan import Planned, lacks, plan
from nbimg.planning.standin import StandIns
from nbimg.types import Capabilities, ModelRef, Request

__all__ = ["Plan", "Planner"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a call will do.

    Attributes:
        tasks: What will be sent, in order.
        refused: Index → why a task cannot be sent; it costs no other task.
        note: The line about the model that was chosen.
        chains: Full name of a model → the names of those that stand in for it when it fails.
    """

    tasks: tuple[Planned, ...]
    refused: Mapping[int, NbimgError]
    note: str | None = None
    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def cost_usd(self) -> float | None:
        """Of all tasks; None when any price is unknown."""
        costs = [task.cost_usd for task in self.tasks]
        return None if None in costs else sum(cost for cost in costs if cost is not None)


class Planner:
    """Plans calls for a session.

    Args:
        settings: Where the user's own model and rules are.
        keys: Which providers have a credential.
        registry: The backends.
    """

    def __init__(self, settings: Settings, keys: Keys, registry: Registry) -> None:
        self._settings = settings
        self._keys = keys
        self._registry = registry
        self._stand_ins = StandIns(settings, keys, registry)

    async def plan(
        self,
        requests: Sequence[Request],
        unread: Mapping[int, NbimgError],
        *,
        task: str,
        groups: Sequence[int],
        policy: Policy,
        fallback: tuple[str, ...] | None = None,
        choices: Mapping[int, ModelRef] | None = None,
    ) -> Plan:
        """Fit every request that can be sent.

        Args:
            requests: In order.
            unread: Index → why its images cannot be read.
            task: `generate` or `edit`; a request with an image is always an edit.
            groups: A number a request; those with the same one share the base seed that is drawn, so
                that only what they fan out over differs. Empty: each has its own.
            policy: How often a provider is asked.
            fallback: The models that stand in for one that fails or lacks something; empty: none;
                None: the rules decide.
            choices: Index → the model to use, whatever the request names.

        Raises:
            UnknownNameError: When a model of `fallback` does not exist.
            SettingError: When a rule of the user's names what does not exist.
        """
        self._stand_ins.refresh(fallback)
        known: dict[ModelRef, Capabilities | NbimgError] = {}
        chosen: dict[tuple[str | None, str], Choice] = {}
        seeds: dict[int, int] = defaultdict(lambda: secrets.randbelow(2**31))
        tasks: list[Planned] = []
        refused = dict(unread)
        for index, request in enumerate(requests):
            if index % 500 == 499:
                await asyncio.sleep(0)  # 50,000 tasks take seconds, and other calls are under way
            if index in refused:
                continue
            kind = (request.model, "edit" if request.image else task)
            seed = request.seed
            if seed is None:
                seed = seeds[groups[index] if groups else index]
            try:
                ref = choices.get(index) if choices else None
                if ref is None:
                    chosen[kind] = chosen.get(kind) or self._choice(*kind)
                    ref = chosen[kind].ref
                if ref not in known:
                    known[ref] = await self._takes(ref, policy)
                bare = Planned(index, request, ref, _NOTHING, seed, chain=fallback)
                fitted: Planned | NbimgError = await self._fitted(bare, known[ref], policy)
            except NbimgError as error:
                fitted = error
            if isinstance(fitted, NbimgError):
                refused[index] = fitted
            else:
                tasks.append(fitted)
        note = next((choice.note for choice in chosen.values() if choice.note), None)
        refs = dict.fromkeys(one.ref for one in tasks)
        chains = {ref.full: self._stand_ins.names(ref, fallback) for ref in refs}
        return Plan(tuple(tasks), refused, note, chains)

    async def alternative(
        self, planned: Planned, error: NbimgError, tried: Collection[str], policy: Policy
    ) -> Planned | None:
        """Plan a task for the next model of its chain.

        Args:
            planned: The task as it failed.
            error: Why.
            tried: Full names of the models that are not to be used.
            policy: How often a provider is asked what a model takes.

        Returns:
            The same task for another model, with the same seed and one more notice; None where there
            is no such model, or the error is not one that another model answers.
        """
        condition = condition_of(error)
        if condition is None:
            return None
        takes = functools.partial(self._takes, policy=policy)
        return await self._stand_ins.find(planned, condition, error, tried, takes)

    async def _fitted(
        self, bare: Planned, takes: Capabilities | NbimgError, policy: Policy
    ) -> Planned | NbimgError:
        """Fit a task to its model, or to one that stands in for it; or return why none does."""
        if isinstance(takes, NbimgError):
            why, condition = takes, condition_of(takes)
        else:
            try:
                return plan(
                    bare.index, bare.request, bare.ref, takes, seed=bare.seed, chain=bare.chain
                )
            except InputError as error:
                why, condition = error, lacks(bare.request, takes)
            bare = replace(bare, can=takes)
        if condition is None:
            return why
        ask = functools.partial(self._takes, policy=policy)
        return await self._stand_ins.find(bare, condition, why, (), ask) or why

    def _choice(self, model: str | None, task: str) -> Choice:
        return choose(model, task, self._settings, self._keys, self._registry)

    async def _takes(self, ref: ModelRef, policy: Policy) -> Capabilities | NbimgError:
        """Ask what a model takes, or return why nobody can tell."""
        try:
            ask = functools.partial(self._registry.get(ref.provider).capabilities, ref.model)
            can = await retrying("schema", ask, policy, lambda *_: None)
        except NbimgError as error:
            return error
        entry = catalog.entries().get(ref.alias or "")
        if entry is None or can.price_usd is not None:
            return can
        return replace(can, price_usd=entry.price_usd, price_at=entry.price_at)


_NOTHING = Capabilities()

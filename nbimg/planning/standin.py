"""Find the model that stands in for another one: rules and credentials in, a task planned anew out.

Stage: the part of planning that follows the fallback rules. Comes in: a task as it was planned for a
model that lacks something or failed. Goes out: the task for the first model of the chain that can be used
and can do it. Must not: create a job, or decide that a model has failed; that is the engine's business.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import replace

from nbimg.backends.registry import Registry
from nbimg.config import Settings
from nbimg.credentials.keys import PROVIDER_KEYS, Keys
from nbimg.errors import InputError, KeyRejectedError, NbimgError, QuotaExceededError
from nbimg.planning import catalog, fallback
from nbimg.planning.fallback import Rule, Rules
from nbimg.planning.plan import Origin, Planned, plan
from nbimg.types import Capabilities, ModelRef

log = logging.getLogger("nbimg")

__all__ = ["StandIns", "Takes"]

#: How long a model whose schema cannot be read is not asked again, in seconds.
UNREAD_S = 60.0

Takes = Callable[[ModelRef], Awaitable[Capabilities | NbimgError]]


class StandIns:
    """The rules of a session, followed.

    Args:
        settings: Where the user's rules are.
        keys: Which providers have a credential.
        registry: The backends.
    """

    def __init__(self, settings: Settings, keys: Keys, registry: Registry) -> None:
        self._settings = settings
        self._keys = keys
        self._registry = registry
        self._read: Rules | None = None
        self._unread: dict[str, float] = {}

    def refresh(self, named: Sequence[str] | None) -> None:
        """Read the rules as they are now; those of a call hold until it ends.

        Args:
            named: The models that the call names.

        Raises:
            UnknownNameError: When a model of `named` does not exist.
            SettingError: When a rule of the user's names what does not exist.
        """
        tables, source = self._settings.find("fallbacks")
        providers = self._registry.names()
        self._read = Rules(
            fallback.read(tables, source, providers),
            fallback.read(catalog.fallbacks(), "the catalogue", providers),
        )
        for name in named or ():
            ref = catalog.resolve(name, providers)
            if ref.provider in PROVIDER_KEYS:
                self._keys.need(ref.provider)  # one that is named must be there when it is needed

    def names(self, ref: ModelRef, named: tuple[str, ...] | None) -> tuple[str, ...]:
        """Return the names of the models that stand in for `ref` when it fails, in order."""
        rules = self._chain((ref,), "api_error", named)
        return tuple(str(other) for rule in rules for other in self._usable(rule, {ref.full}))

    async def find(
        self,
        old: Planned,
        condition: str,
        why: NbimgError,
        tried: Collection[str],
        takes: Takes,
    ) -> Planned | None:
        """Plan a task for the first model that stands in, or return None.

        Args:
            old: The task as it was planned.
            condition: Which rules are followed.
            why: What the model lacks, or how it failed.
            tried: Full names of models that are not to be used.
            takes: Asks what a model takes.
        """
        origin = old.origin or Origin(old.ref, old.can)
        account = isinstance(why, KeyRejectedError | QuotaExceededError)
        for rule in self._chain((origin.ref, old.ref), condition, old.chain):
            for ref in self._usable(rule, {*tried, old.ref.full}):
                if account and ref.provider == old.ref.provider:
                    continue
                can = await self._known(ref, takes)
                if can is None:
                    continue
                try:
                    return plan(
                        old.index,
                        old.request,
                        ref,
                        can,
                        seed=old.seed,
                        chain=old.chain,
                        origin=replace(origin, names=rule.parameters),
                        notices=(*old.notices, _replaced(old.ref, ref, why)),
                    )
                except InputError:  # it cannot do this either
                    continue
        return None

    def _chain(
        self, refs: Sequence[ModelRef], condition: str, named: tuple[str, ...] | None
    ) -> list[Rule]:
        """The rules for a task: what its call names, or those of its first and its present model."""
        if named is not None:
            # a prompt that was refused is not shown around because of a list for failures
            return [] if condition == "refused" else [Rule(condition, "*", named)]
        if self._read is None:
            self.refresh(None)
        assert self._read is not None
        found = [self._read.of(ref, condition) for ref in dict.fromkeys(refs)]
        return [rule for rule in found if rule is not None]

    def _usable(self, rule: Rule, tried: Collection[str]) -> Iterator[ModelRef]:
        """The models of a rule that were not tried, and need no credential or have one."""
        for name in rule.use:
            ref = catalog.resolve(name, self._registry.names())
            keyless = ref.provider not in PROVIDER_KEYS
            if ref.full not in tried and (keyless or self._keys.find(ref.provider) is not None):
                yield ref

    async def _known(self, ref: ModelRef, takes: Takes) -> Capabilities | None:
        """What a model takes; one that cannot be asked is not asked again by every task of a batch."""
        if time.monotonic() < self._unread.get(ref.full, 0.0):
            return None
        can = await takes(ref)
        if isinstance(can, NbimgError):
            self._unread[ref.full] = time.monotonic() + UNREAD_S
            log.warning("%s cannot stand in: %s", ref, can)
            return None
        return can


def _replaced(old: ModelRef, new: ModelRef, why: NbimgError) -> str:
    """One line: `qwen-image replaces flux-dev: the job failed: CUDA out of memory`."""
    own = f"{old} "
    if why.message.startswith(own):
        return f"{new} replaces {old}, which {why.message.removeprefix(own)}"
    return f"{new} replaces {old}: {why.message}"

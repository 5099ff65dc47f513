"""One create at a time while a provider wants us slow: those that wait use up no attempt.

Stage: below the limits. Comes in: "slow down", and which creates succeeded. Goes out: who may go.
Must not: know a clock or a window.

An account with little credit takes one create every ten seconds: the first success after a 429 does not
mean that all who wait fit. Only when creates succeed in a row, with no 429 between them, is it over. When
the one that follows a success at once is refused, twice in a row or with the word that the account takes no
more, creates keep the distance that the provider told; a shorter one is tried now and then. Once may be
chance: somebody else has used up a window of the account.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

__all__ = ["Gate", "Passage"]

#: So many creates, one after the other, must go through before all may go at once again.
IN_A_ROW = 2

#: A shorter distance than this, in seconds, is none.
SHORTEST_S = 0.1

#: What is left of the distance when a shorter one is tried.
SHORTER = 0.7

#: A shorter one is tried after so many times `IN_A_ROW` successes at the most: it doubles with each try
#: that was refused.
PATIENCE = 8


class Gate:
    """The gate of one account: wide until it is told to be narrow.

    Attributes:
        wide: Whether all may go at once.
        one: Held by the one create that may go while it is narrow.
        spacing_s: Seconds between a create that went through and the next.
    """

    def __init__(self) -> None:
        self.wide = True
        self.one = asyncio.Lock()
        self.spacing_s = 0.0
        self._held_s = 0.0  # a longer distance, at which creates went through in a row
        self._worked = False  # whether one went through since the last refusal
        self._missed = False  # whether the one after the last success before that was refused, too
        self._row = 0
        self._patience = 1

    def narrow(self, seconds: float = 0.0, *, sparse: bool = False) -> None:
        """The provider asked to slow down.

        Args:
            seconds: When to come back.
            sparse: Whether it said that the account takes creates one at a time, seconds apart.
        """
        if self._worked and not self.wide:
            self._too_soon(seconds, sparse=sparse)
        self.wide, self._worked, self._row = False, False, 0

    def _too_soon(self, seconds: float, *, sparse: bool) -> None:
        """One went through, and the next was refused."""
        if self._held_s:
            self._patience = min(2 * self._patience, PATIENCE)
        if self._held_s or self.spacing_s or self._missed or sparse:
            self.spacing_s, self._held_s = self._held_s or seconds, 0.0
        self._missed = True

    def passed(self) -> None:
        """The one create that may go went through."""
        self._worked = True
        self._row += 1
        if self._row < IN_A_ROW * self._patience:
            return
        self._row, self._missed = 0, False
        self._held_s, self.spacing_s = self.spacing_s, self.spacing_s * SHORTER
        if self.spacing_s < SHORTEST_S:
            self.wide, self.spacing_s, self._held_s, self._patience = True, 0.0, 0.0, 1


class Passage:
    """One create on its way, with all its tries; as a context it ends when that is left.

    A create that was told to come back keeps the gate while it waits, so that nobody else is refused.

    Args:
        gate: That of its account.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._alone = False

    @property
    def free(self) -> bool:
        """Whether it may go now."""
        return self._alone or self._gate.wide

    async def enter(self) -> None:
        """Wait until it may go, first come, first served."""
        while not self.free:
            await self._gate.one.acquire()
            self._alone = True
            if self._gate.wide:
                self._leave()

    async def claim(self) -> None:
        """Be the one that may go, unless another is: for a create that was just refused."""
        if not self._alone and not self._gate.one.locked():
            await self._gate.one.acquire()
            self._alone = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._alone:
            if error is None:
                self._gate.passed()
            self._leave()

    def _leave(self) -> None:
        self._alone = False
        self._gate.one.release()

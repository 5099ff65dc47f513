"""What a kernel has spent, what is set aside, and that no call goes over its budget.

Stage: between planning and the engine. Comes in: planned tasks and the budgets. Goes out: an `Allowance`,
or a `BudgetError` before anything is sent. Prices are estimates in US dollars; what has none counts as
nothing, and is refused under a budget. Must not: know what a model costs; that is in its `Planned`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from nbimg.display import words
from nbimg.errors import BudgetError
from nbimg.planning.plan import Planned

__all__ = ["Allowance", "Ledger"]

_ROUNDING_USD = 1e-9


class Ledger:
    """The money of one kernel; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spent_usd = 0.0
        self._reserved_usd = 0.0

    @property
    def spent_usd(self) -> float:
        """What has been spent, as far as prices are known."""
        return self._spent_usd

    @property
    def reserved_usd(self) -> float:
        """What is set aside for calls that are under way."""
        return max(0.0, self._reserved_usd)

    def reserve(
        self,
        tasks: Sequence[Planned],
        *,
        call_usd: float | None = None,
        kernel_usd: float | None = None,
    ) -> Allowance:
        """Set the cost of a call aside.

        Args:
            tasks: What will be sent; not what is in the store already.
            call_usd: The budget of this call; None: none.
            kernel_usd: The budget of the whole kernel; None: none.

        Raises:
            BudgetError: When it would go over a budget, or a price is unknown under one.
        """
        unknown = dict.fromkeys(str(task.ref) for task in tasks if task.cost_usd is None)
        cost = sum(task.cost_usd or 0.0 for task in tasks)
        if unknown and not (call_usd is None and kernel_usd is None):
            raise BudgetError(
                f"the price of {words.listed(unknown)} is unknown, and a budget is set.",
                hint="Name a model with a known price, or leave the budget away.",
            )
        images = sum(task.request.n for task in tasks)
        what = f"{words.count(images, 'image')} cost{'s' * (images == 1)} about"
        if call_usd is not None and cost > call_usd + _ROUNDING_USD:
            raise BudgetError(
                f"{what} {words.money(cost)}, over the budget of {words.money(call_usd)}.",
                hint="Ask for fewer images or a cheaper model, or raise the budget.",
            )
        allowance = Allowance(self, call_usd, kernel_usd)
        if not allowance.take(cost):
            assert kernel_usd is not None
            left = max(0.0, kernel_usd - self._spent_usd - self._reserved_usd)
            raise BudgetError(
                f"{what} {words.money(cost)}; of this kernel's budget of {words.money(kernel_usd)} "
                f"{words.money(left)} is left.",
                hint="Raise NbImg.budget, or ask for fewer images.",
            )
        return allowance

    def _book(self, reserved: float, spent: float, most: float | None) -> bool:
        """Change what is set aside and spent, both at once, unless that would be more than `most`."""
        with self._lock:
            total = self._spent_usd + self._reserved_usd + reserved + spent
            if most is not None and reserved > 0 and total > most + _ROUNDING_USD:
                return False
            self._reserved_usd += reserved
            self._spent_usd += spent
            return True


class Allowance:
    """What one call may spend; made by `Ledger.reserve`.

    Args:
        ledger: Whose money it is.
        call_usd: The budget of the call.
        kernel_usd: The budget of the kernel.
    """

    def __init__(self, ledger: Ledger, call_usd: float | None, kernel_usd: float | None) -> None:
        self._ledger = ledger
        self._call_usd = call_usd
        self._kernel_usd = kernel_usd
        self._mine_usd = 0.0

    def take(self, usd: float) -> bool:
        """Set more aside, or less when it is negative; whether the budgets allow it."""
        total = self._mine_usd + usd
        if self._call_usd is not None and usd > 0 and total > self._call_usd + _ROUNDING_USD:
            return False
        if not self._ledger._book(usd, 0.0, self._kernel_usd):  # noqa: SLF001  # one module
            return False
        self._mine_usd = total
        return True

    def covers(self, old_usd: float | None, new_usd: float | None) -> bool:
        """Whether a task may cost `new_usd` in place of `old_usd`; if so, that is set aside.

        An unknown price is never covered under a budget.
        """
        if new_usd is None and not (self._call_usd is None and self._kernel_usd is None):
            return False
        return self.take((new_usd or 0.0) - (old_usd or 0.0))

    def close(self, spent_usd: float) -> None:
        """The call has ended: write down what it cost and give the rest back."""
        self._ledger._book(-self._mine_usd, spent_usd, None)  # noqa: SLF001  # one module
        self._mine_usd = 0.0

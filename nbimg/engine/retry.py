"""Try again what can pass, by tenacity: at most so many attempts a stage, never a second payment.

Stage: below the engine's run. Comes in: a stage and something to await. Goes out: its value, or the
last error. Whether a create may be sent again is data on the error's class, read here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from nbimg.errors import BackendError, JobFailedError

if TYPE_CHECKING:
    import tenacity

__all__ = ["Policy", "may_retry", "retrying"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Policy:
    """How often and how long apart.

    Attributes:
        attempts: At most, a stage.
        min_s: Shortest wait, in seconds.
        max_s: Longest wait, in seconds; a provider's own word may be longer.
    """

    attempts: int = 3
    min_s: float = 2.0
    max_s: float = 10.0


def may_retry(stage: str, error: BaseException) -> bool:
    """Whether `stage` may be tried again after `error`.

    A create only when it was provably not accepted; a job only when it failed there for a reason that
    its provider calls passing; a read whenever the fault can pass.
    """
    if not isinstance(error, BackendError):
        return False
    if stage == "create":
        return error.resubmit
    return error.transient and (stage != "run" or isinstance(error, JobFailedError))


async def retrying(
    stage: str,
    work: Callable[[], Awaitable[T]],
    policy: Policy,
    on_wait: Callable[[int, float, BackendError], None],
) -> T:
    """Await `work()` until it succeeds, fails for good, or has used up its attempts.

    Args:
        stage: `run` (a whole job), `create`, `find`, `poll`, `cancel` or `download`.
        work: Called anew for each attempt.
        policy: How often.
        on_wait: Told before each wait: number of the next attempt, seconds, the error.

    Raises:
        BackendError: The last one.
    """
    try:
        return await work()  # most succeed at once: tenacity is for those that do not
    except BackendError as error:
        if policy.attempts <= 1 or not may_retry(stage, error):
            raise
        first: BackendError | None = error
    import tenacity  # `%load_ext nbimg` stays light

    backoff = tenacity.wait_exponential(
        multiplier=policy.min_s, min=policy.min_s, max=policy.max_s
    ) + tenacity.wait_random(0, policy.min_s / 4)

    def wait(state: tenacity.RetryCallState) -> float:
        asked = getattr(_error(state), "retry_after_s", None)
        return backoff(state) if asked is None else max(0.0, float(asked))

    def before_sleep(state: tenacity.RetryCallState) -> None:
        error = _error(state)
        if isinstance(error, BackendError) and state.next_action is not None:
            on_wait(state.attempt_number + 1, state.next_action.sleep, error)

    async for attempt in tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(policy.attempts),
        wait=wait,
        retry=tenacity.retry_if_exception(lambda error: may_retry(stage, error)),
        before_sleep=before_sleep,
        reraise=True,
    ):
        with attempt:
            if first is not None:
                known, first = first, None
                raise known
            return await work()
    raise AssertionError("unreachable: tenacity re-raises")


def _error(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None

"""The jobs of the local Replicate: states worked out from a clock, and what was paid for.

Stage: tests. In: times and an ``Outcome``. Out: the state a job is in now. No HTTP, no thread here.
Source: https://replicate.com/docs/reference/http, read 2026-11-22.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from nbimg.testing.replicate_models import OutputShape

__all__ = ["FAILURES", "TERMINAL", "Delivery", "Job", "Outcome", "Status"]

Delivery = Literal["ok", "truncated", "empty", "wrong_type", "html", "missing"]

FAILURES: Mapping[str, str] = {
    "E005": (
        "The input or output was flagged as sensitive."
        " Please try again with different inputs. (E005)"
    ),
    "nsfw": "NSFW content detected",
    "all_nsfw": "All generated images contained NSFW content. Try running it again.",
    "E1000": "Unknown error (E1000)",
    "E1001": "Prediction failed: out of memory (E1001)",
    "interrupted": "Prediction interrupted; please retry (code: PA)",
}
"""Texts of ``error`` in failed jobs, by a short name; for ``Outcome(error=FAILURES["E005"])``.

E005 and the two about NSFW are quoted from users' reports; of the others, the code is documented
and the wording assumed.
"""

Status = Literal["starting", "processing", "succeeded", "failed", "canceled", "aborted"]
TERMINAL = frozenset({"succeeded", "failed", "canceled", "aborted"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """How jobs that match will go; used up like a ``Fault``, by the jobs it applies to.

    Attributes:
        error: Text of a failure, see ``FAILURES``; None: the job succeeds.
        status: The state it ends in; None: ``failed`` with an error and ``succeeded`` without.
        starting_s: Seconds (server's clock) in the queue; None: as the server's default.
        running_s: Seconds (server's clock) of work; None: as the server's default.
        output: Shape of the output; None: as the model's.
        delivery: What the file host does with the job's files: ``ok``, ``truncated`` (half of the
            image), ``empty`` (zero bytes), ``wrong_type`` (right bytes called text/plain), ``html``
            (a page with status 200), ``missing`` (404).
        model: Applies to jobs of models whose name starts with this.
        prompt_has: Applies to jobs whose prompt contains this.
        times: How many matching jobs it applies to; None: all of them.
    """

    error: str | None = None
    status: Status | None = None
    starting_s: float | None = None
    running_s: float | None = None
    output: OutputShape | None = None
    delivery: Delivery = "ok"
    model: str = ""
    prompt_has: str = ""
    times: int | None = 1

    def matches(self, model: str, inputs: Mapping[str, Any]) -> bool:
        """Tell whether a job for ``model`` with ``inputs`` goes this way."""
        return model.startswith(self.model) and self.prompt_has in str(inputs.get("prompt", ""))


@dataclass(slots=True, eq=False)
class Job:
    """One accepted prediction, as the ledger has it.

    Its state is worked out from the clock whenever somebody looks, so nothing runs for it.

    Attributes:
        id: 26 characters.
        model: ``owner/name``.
        version: What the API shows: 64 hex digits, or ``hidden``.
        input: As the client sent it.
        created_at: UTC, ISO 8601.
        created_s: The same on the server's clock, like all other ``_s``.
        starting_s: Seconds in the queue.
        running_s: Seconds of work.
        outcome: What it comes to if nobody stops it.
        seed: The one sent, or the one drawn for it.
        clock: The server's clock.
        shape: Shape of its output.
        count: How many pictures it makes, where the shape is a list.
        deadline_s: When ``Cancel-After`` stops it, if ever.
        canceled_s: When the client stopped it, if ever.
        finished_body: How the API shows it, once it will not change any more.
    """

    id: str
    model: str
    version: str
    input: dict[str, Any]
    created_at: str
    created_s: float
    starting_s: float
    running_s: float
    outcome: Outcome
    seed: int
    clock: Callable[[], float]
    shape: OutputShape = "list"
    count: int = 1
    deadline_s: float | None = None
    canceled_s: float | None = None
    finished_body: bytes | None = None

    @property
    def started_s(self) -> float:
        """When work begins, unless it is stopped before."""
        return self.created_s + self.starting_s

    @property
    def stopped_s(self) -> float | None:
        """When it is stopped before its end, by its client or by its deadline; None if never."""
        stops = [at for at in (self.deadline_s, self.canceled_s) if at is not None]
        end_s = self.started_s + self.running_s
        return min(stops) if stops and min(stops) < end_s else None

    @property
    def completed_s(self) -> float:
        """When it is or will be over."""
        stopped_s = self.stopped_s
        return self.started_s + self.running_s if stopped_s is None else stopped_s

    @property
    def status(self) -> Status:
        """Its state now."""
        now_s = self.clock()
        if now_s < self.completed_s:
            return "starting" if now_s < self.started_s else "processing"
        stopped_s = self.stopped_s
        if stopped_s is None:
            return self.outcome.status or ("succeeded" if self.outcome.error is None else "failed")
        # Only a deadline that passes before the start aborts; a client always cancels.
        by_client = stopped_s == self.canceled_s
        return "canceled" if by_client or stopped_s >= self.started_s else "aborted"

    @property
    def finished(self) -> bool:
        """Whether its state will not change any more."""
        return self.status in TERMINAL

    @property
    def billed(self) -> bool:
        """Whether it costs money: work on it began and it did not fail.

        Replicate does not charge for what was aborted or canceled in the queue, and does for what
        was canceled while running. That a failed job is free is true of official models; assumed
        for the others.
        """
        status = self.status
        if status == "canceled":
            return self.completed_s >= self.started_s
        return status in {"processing", "succeeded"}

    @property
    def fingerprint(self) -> str:
        """The same for two jobs that were asked for with the same model and input."""
        text = json.dumps([self.model, self.input], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

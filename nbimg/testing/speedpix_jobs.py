"""The workflows and the jobs of the local SpeedPix: states worked out from a clock, and what was paid.

Stage: tests. In: times, a workflow and an `Outcome`. Out: how a job stands now. No HTTP, no thread here.
Source: https://help.aliyun.com/en/document_detail/2844525.html to 2844527, read 2026-11-22.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["WORKFLOWS", "SpeedPixJob", "SpeedPixOutcome", "Workflow"]

Outputs = Literal["images", "result", "both", "none"]
Word = Literal["waiting", "running", "succeeded", "failed", "canceled"]


@dataclass(frozen=True, slots=True)
class Workflow:
    """A workflow that somebody has published.

    Attributes:
        id: As it is named in requests.
        file_format: Of what it makes: `png`, `jpg`, `webp`, `mp4` or `webm`.
        outputs: Where its outputs stand: in the default list, in the object of chosen ones, or both.
        files: The inputs that take a file: an address or base64.
        required: The inputs without which it fails.
        aliases: Alias → version.
        versions: Those that there are.
        cover: Whether its outputs name a picture that stands for them; no page tells of any: assumed.
    """

    id: str
    file_format: str = "png"
    outputs: Outputs = "result"
    files: tuple[str, ...] = ()
    required: tuple[str, ...] = ("prompt",)
    aliases: Mapping[str, str] = field(default_factory=lambda: {"main": "v1", "test": "v2"})
    versions: tuple[str, ...] = ("v1", "v2")
    cover: bool = False


WORKFLOWS = (
    Workflow("1001"),
    Workflow("1002", outputs="images", files=("image", "mask"), required=("image",)),
    Workflow("1003", "jpg", "both", ("person", "garment"), ("text",)),
    Workflow("2001", "mp4"),
    Workflow("2002", "webm", files=("image",), required=("image",)),
)
"""Text to image; an edit; one with names of its own and two images; text and image to video."""


@dataclass(frozen=True, slots=True)
class SpeedPixOutcome:
    """How jobs that match will go; used up like a `Fault`, by the jobs it applies to.

    Attributes:
        error: Why it fails; None: it succeeds.
        told: Where the reason of a failure is found: in an envelope of its own kind (`envelope`, status
            20), in the data of a good one (`data`), or nowhere.
        status: The state it ends in; None: as `error` says.
        waiting_s: Seconds of the server's clock in the queue; None: as the server's default.
        running_s: Seconds of work; None: as the server's default.
        prompt_has: Applies to jobs whose inputs contain this.
        times: How many matching jobs it applies to; None: all of them.
    """

    error: str | None = None
    told: Literal["envelope", "data", "nowhere"] = "envelope"
    status: Word | None = None
    waiting_s: float | None = None
    running_s: float | None = None
    prompt_has: str = ""
    times: int | None = 1

    def matches(self, inputs: Mapping[str, Any]) -> bool:
        """Tell whether a job with these inputs goes this way."""
        return self.prompt_has in json.dumps(inputs, ensure_ascii=False)


@dataclass(slots=True, eq=False)
class SpeedPixJob:
    """One accepted task, as the ledger has it.

    Attributes:
        id: What `taskId` says.
        workflow: What runs.
        version: Which version of it.
        resource: The pool of machines: `default`, or a dedicated one.
        inputs: As the client sent them.
        randomise: Whether it was told to draw new seeds.
        key: What its pictures are drawn from: the same for the same inputs, unless seeds are drawn.
        created_s: On the server's clock.
        waiting_s: Seconds in the queue.
        running_s: Seconds of work.
        outcome: What it comes to.
        clock: The server's clock.
    """

    id: str
    workflow: Workflow
    version: str
    resource: str
    inputs: dict[str, Any]
    randomise: bool
    key: str
    created_s: float
    waiting_s: float
    running_s: float
    outcome: SpeedPixOutcome
    clock: Callable[[], float]

    @property
    def started_s(self) -> float:
        """When work begins."""
        return self.created_s + self.waiting_s

    @property
    def completed_s(self) -> float:
        """When it is or will be over."""
        return self.started_s + self.running_s

    @property
    def status(self) -> Word:
        """Its state now."""
        now_s = self.clock()
        if now_s < self.started_s:
            return "waiting"
        if now_s < self.completed_s:
            return "running"
        return self.outcome.status or ("succeeded" if self.outcome.error is None else "failed")

    @property
    def progress(self) -> float:
        """How much of it is done, 0 to 1."""
        passed = self.clock() - self.started_s
        return min(1.0, max(0.0, passed / self.running_s)) if self.running_s else 1.0

    @property
    def count(self) -> int:
        """How many outputs it makes."""
        asked = self.inputs.get("batch_size")
        return asked if isinstance(asked, int) else 1

    @property
    def billed(self) -> bool:
        """Whether it costs money; that a failed task is free is assumed."""
        return self.status in {"running", "succeeded"}

    @property
    def fingerprint(self) -> str:
        """The same for two jobs that were asked for with the same workflow and inputs."""
        return json.dumps([self.workflow.id, self.version, self.inputs], sort_keys=True)

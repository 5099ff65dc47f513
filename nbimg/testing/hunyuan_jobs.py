"""The jobs of the local Hunyuan: states worked out from a clock, and what was paid for.

Stage: tests. In: times and an ``Outcome``. Out: the state a job is in now, and its picture. No HTTP, no
thread here. Source: the official client ``tencentcloud-sdk-python-aiart`` 3.1.82 and
https://cloud.tencent.com/document/api/1668/104584, read 2026-11-22.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from nbimg.testing.pictures import render_picture

__all__ = ["MESSAGES", "HunyuanJob", "HunyuanOutcome"]

Delivery = Literal["ok", "truncated", "empty", "wrong_type", "html", "missing"]

#: Texts of the error codes, where there is more to say than the code; the wording is assumed.
MESSAGES: Mapping[str, str] = {
    "AuthFailure.SecretIdNotFound": "The SecretId is not found, please ensure that your SecretId is correct.",
    "AuthFailure.SignatureExpire": "The signature has expired; timestamp must be within five minutes.",
    "AuthFailure.SignatureFailure": "The provided credentials could not be validated.",
    "FailedOperation.GenerateImageFailed": "The generated image failed the audit, please retry.",
    "FailedOperation.JobNotExist": "The job does not exist.",
    "FailedOperation.ServerError": "The server is abnormal.",
    "InvalidParameterValue.TextLengthExceed": "The text is too long.",
    "OperationDenied.ImageIllegalDetected": "The image contains illegal content.",
    "OperationDenied.TextIllegalDetected": "The text contains illegal content.",
    "RequestLimitExceeded": "Your current request times exceed the limit.",
    "RequestLimitExceeded.JobNumExceed": "Too many tasks are being processed, please retry later.",
    "ResourceUnavailable.InArrears": "The account is in arrears.",
}


@dataclass(frozen=True, slots=True)
class HunyuanOutcome:
    """How jobs that match will go; used up like a ``Fault``, by the jobs it applies to.

    Attributes:
        code: Error code of a failure, with what stands before its dot or without, as both are seen; of
            TokenHub's numbers for its one call; None: the job succeeds.
        message: What goes with the code; empty: what is usual.
        detail: What a job that is done says of its image in place of ``Success``; it has no image then.
        waiting_s: Seconds (server's clock) in the queue; None: as the server's default.
        running_s: Seconds (server's clock) of work; None: as the server's default.
        delivery: What the file host does with its image: ``ok``, ``truncated``, ``empty``,
            ``wrong_type`` (right bytes called text/plain), ``html`` (a page with status 200) or
            ``missing`` (404).
        prompt_has: Applies to jobs whose prompt contains this.
        times: How many matching jobs it applies to; None: all of them.
    """

    code: str | None = None
    message: str = ""
    detail: str | None = None
    waiting_s: float | None = None
    running_s: float | None = None
    delivery: Delivery = "ok"
    prompt_has: str = ""
    times: int | None = 1

    def matches(self, prompt: str) -> bool:
        """Tell whether a job with this prompt goes this way."""
        return self.prompt_has in prompt

    @property
    def text(self) -> str:
        """What goes with the code."""
        code = str(self.code)
        return self.message or MESSAGES.get(code) or MESSAGES.get(f"FailedOperation.{code}", code)


@dataclass(slots=True, eq=False)
class HunyuanJob:
    """One accepted order, as the ledger has it.

    Attributes:
        id: Of the form that the service uses.
        api: Which of its APIs it came by: ``signed``, ``jobs``, ``tokenhub-jobs`` or ``tokenhub``.
        input: What was ordered, in the words of the job gateway, defaults filled in.
        sent: The body as it was sent.
        created_s: On the server's clock, like all other ``_s``.
        started_s: When work begins.
        running_s: Seconds of work.
        outcome: What it comes to.
        clock: The server's clock.
        drawn: The seed that is used when none takes effect.
    """

    id: str
    api: str
    input: dict[str, Any]
    sent: dict[str, Any]
    created_s: float
    started_s: float
    running_s: float
    outcome: HunyuanOutcome
    clock: Callable[[], float]
    drawn: int = field(default=0)

    @property
    def completed_s(self) -> float:
        """When it is or will be over; there is no way to stop it."""
        return self.started_s + self.running_s

    @property
    def code(self) -> str:
        """``JobStatusCode`` now: "1" waiting, "2" running, "4" failed, "5" done."""
        now_s = self.clock()
        if now_s < self.completed_s:
            return "1" if now_s < self.started_s else "2"
        return "5" if self.outcome.code is None else "4"

    @property
    def finished(self) -> bool:
        """Whether its state will not change any more."""
        return self.code in {"4", "5"}

    @property
    def billed(self) -> bool:
        """Whether it costs money: an order that was taken and did not fail; assumed."""
        return self.outcome.code is None

    @property
    def seed(self) -> int:
        """The seed that takes effect: the one sent only while the prompt is not rewritten."""
        sent = self.input.get("seed")
        return self.drawn if self.input["revise"] or not sent else int(sent)

    @property
    def fingerprint(self) -> str:
        """The same for two jobs that were ordered with the same words."""
        text = json.dumps([self.api, self.sent], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def picture(self, shrink: int) -> bytes:
        """Return its JPEG: the same words and the same seed in effect give the same one."""
        across, down = map(int, self.input["resolution"].split(":"))
        marked = bool(self.input.get("footnote") or self.input["logo_add"])
        words = {**self.input, "seed": self.seed}
        key = json.dumps(words, sort_keys=True)
        data = render_picture(key, "png", across // shrink, down // shrink)
        return _finished(data, marked)


@lru_cache(maxsize=256)
def _finished(data: bytes, marked: bool) -> bytes:
    """Return a JPEG, with a white corner below on the right when it is marked, else a black one."""
    from PIL import Image  # late: a server that delivers no picture works without Pillow

    picture = Image.open(io.BytesIO(data))
    width, height = picture.size
    corner = (width - max(1, width // 8), height - max(1, height // 8), width, height)
    picture.paste((255, 255, 255) if marked else (0, 0, 0), corner)
    target = io.BytesIO()
    picture.save(target, "JPEG", quality=90)
    return target.getvalue()

"""What goes to Replicate and what its answers mean: pure, dict in and values out.

Stage: below the Replicate backend. Comes in: the name of a model, the API's prediction object. Goes out:
where a model is run, a `Prediction`, whether a prediction was made of a call. Must not: send anything.

Source: https://replicate.com/docs/reference/http and https://replicate.com/docs/topics/predictions
(read 2026-11-22). The traps handled here: states besides `succeeded` and `failed` (`canceled`, `aborted`);
outputs of any shape; success with no output; data that was purged after an hour.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from nbimg.backends.base import Call, Output, Prediction, State
from nbimg.credentials.keys import redact
from nbimg.errors import (
    BackendError,
    ContentRefusedError,
    InputError,
    JobFailedError,
    ReplyError,
)

__all__ = ["VERSION", "ahead_s", "created_utc", "likeness", "listed", "prediction", "target"]

VERSION = re.compile(r"[0-9a-f]{64}")
_STATES = {
    "starting": State.QUEUED,
    "processing": State.RUNNING,
    "succeeded": State.DONE,
    "failed": State.FAILED,
    "canceled": State.CANCELLED,
    "aborted": State.CANCELLED,
}
_REFUSED = re.compile(
    r"\bE005\b|NSFW|flagged as sensitive|safety (check|filter|policy|system)|content policy",
    re.IGNORECASE,
)
_TRANSIENT = re.compile(
    r"E1000\b|E6716|E8765|E9243|interrupted; please retry|\(code: PA\)", re.IGNORECASE
)


def target(model: str) -> tuple[str, dict[str, Any]]:
    """Return path and body of the create of a model.

    >>> target("black-forest-labs/flux-dev")
    ('/v1/models/black-forest-labs/flux-dev/predictions', {})

    Raises:
        InputError: When the name has no known form.
    """
    name, _, version = model.partition(":")
    if VERSION.fullmatch(version or name):
        return "/v1/predictions", {"version": version or name}
    owner, _, short = name.partition("/")
    if owner == "deployments" and short.count("/") == 1:
        return f"/v1/{name}/predictions", {}
    if owner not in ("", "deployments") and short and "/" not in short and not version:
        return f"/v1/models/{name}/predictions", {}
    raise InputError(
        f"replicate has no model named {model!r}.",
        hint="Names are OWNER/NAME or OWNER/NAME:VERSION.",
    )


def prediction(data: Any) -> Prediction:
    """Read the API's prediction object.

    Raises:
        ReplyError: When it is not one.
    """
    if not isinstance(data, Mapping) or not isinstance(data.get("id"), str):
        raise ReplyError("replicate's reply holds no prediction.", backend="replicate")
    state = _STATES.get(str(data.get("status")))
    if state is None:
        raise ReplyError(
            f"replicate's prediction has an unknown status {redact(str(data.get('status')))[:80]!r}.",
            backend="replicate",
            job_id=data["id"],
        )
    outputs = tuple(Output(url=url) for url in _urls(data.get("output")))
    error = None
    if state is State.FAILED:
        error = _job_error(str(data.get("error") or "no reason given"), data["id"])
    elif state is State.DONE and not outputs:
        state, error = State.FAILED, _empty(data)
    metrics = data.get("metrics") or {}
    return Prediction(data["id"], state, outputs, error, seconds=metrics.get("predict_time"))


def _urls(output: Any) -> Iterator[str]:
    """The addresses in an output of any shape: text, list, dict, nested."""
    if isinstance(output, str):
        if output.startswith(("http://", "https://", "data:")):
            yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _urls(value)
    elif isinstance(output, list):
        for value in output:
            yield from _urls(value)


def _job_error(text: str, job_id: str) -> BackendError:
    text = redact(" ".join(text.split()))[:500]
    if _REFUSED.search(text):
        return ContentRefusedError(f"refused: {text}", backend="replicate", job_id=job_id)
    return JobFailedError(
        f"the job failed: {text}",
        backend="replicate",
        job_id=job_id,
        transient=bool(_TRANSIENT.search(text)),
    )


def _empty(data: Mapping[str, Any]) -> BackendError:
    """Why a success has no output: purged, filtered, or lost by the provider."""
    if data.get("data_removed"):
        return JobFailedError(
            "the images are gone: replicate keeps outputs for an hour.",
            backend="replicate",
            job_id=data["id"],
        )
    if data.get("output") == []:
        return ContentRefusedError(
            "every image was filtered out by the model's safety check.",
            backend="replicate",
            job_id=data["id"],
        )
    return JobFailedError(
        "the job succeeded without an image.", backend="replicate", job_id=data["id"]
    )


def created_utc(row: Mapping[str, Any]) -> float:
    """Return when a prediction was made; now, where it does not tell."""
    try:
        return datetime.fromisoformat(str(row["created_at"])).timestamp()
    except (KeyError, ValueError):
        return time.time()


def ahead_s(headers: Mapping[str, str]) -> float:
    """Return how far this machine's clock is ahead of the one that an answer carries; 0 without one."""
    try:
        there = parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, TypeError):
        return 0.0
    return time.time() - there.timestamp()


def likeness(row: Mapping[str, Any], call: Call) -> bool | None:
    """Whether a prediction of the list was made of `call`, but for its files; None: it does not tell.

    What the service may have added to the input counts for nothing; what it has purged tells nothing.
    """
    name, _, version = call.ref.model.partition(":")
    if name.count("/") == 1 and row.get("model") not in (None, name):
        return False
    if VERSION.fullmatch(version or name) and row.get("version") not in (
        None, "hidden", version or name,
    ):  # fmt: skip
        return False
    sent = row.get("input")
    if row.get("data_removed") or not isinstance(sent, Mapping):
        return None
    wanted = {"prompt": call.prompt, **call.arguments}
    if any(name not in sent or sent[name] != value for name, value in wanted.items()):
        return False
    if len(listed(sent.get(call.image_field))) != len(call.images) and call.images:
        return False
    return call.mask is None or isinstance(sent.get(call.mask_field), str)


def listed(files: Any) -> list[str]:
    """Return the addresses in a file field."""
    return [str(one) for one in files] if isinstance(files, list) else [str(files)] * bool(files)

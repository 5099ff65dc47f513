"""What the journal's rows hold, as the values of nbimg and as JSON.

Stage: beside the journal. Comes in: requests, calls, results; or rows of the file. Goes out: the other of
the two. Pure. Paths of images inside the output folder are written relative to it, so that a folder may be
moved with its journal.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from nbimg.backends.base import Call
from nbimg.errors import InputError
from nbimg.types import ImageRecord, ModelRef, Request, Result

__all__ = ["Claimed", "ClaimedTask", "Form", "Row", "SentCall"]


@dataclass(frozen=True, slots=True)
class Row:
    """A task as it is begun.

    Attributes:
        index: 0-based place in its batch.
        request: What was asked.
        model: Full name of the model it was planned for.
        seed: The base seed, for a request that has none.
        calls: How many calls it takes.
        slot: What a later request must have equal to be shown the same images; None: nothing may.
    """

    index: int
    request: Request
    model: str
    seed: int
    calls: int
    slot: str | None = None


@dataclass(frozen=True, slots=True)
class SentCall:
    """A call that was begun.

    Attributes:
        number: Of the call in the journal.
        variant: 0-based number of the call in its task.
        call: What was sent, or was about to be.
        state: `intended`, `submitted`, `done`, `failed`, `cancelled`, `unknown` or `absent`.
        job_id: The provider's id; None when the create's answer never arrived.
        at_utc: Unix time in seconds when it was begun.
        images: What was saved of it.
    """

    number: int
    variant: int
    call: Call
    state: str
    job_id: str | None
    at_utc: float
    images: tuple[ImageRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class ClaimedTask:
    """A task of a batch that was taken over: its `Row`, its result, and its calls, oldest first."""

    index: int
    request: Request
    model: str
    seed: int
    calls: int
    result: Result | None
    sent: tuple[SentCall, ...]


@dataclass(frozen=True, slots=True)
class Claimed:
    """A batch that was taken over.

    Attributes:
        id: Its name.
        about: What `begin` was told about the call.
        at_utc: Unix time in seconds when it began.
        state: How it stood: `running` (its kernel died), `cancelled`, `done` or `open`.
        tasks: In order.
    """

    id: str
    about: Mapping[str, Any]
    at_utc: float
    state: str
    tasks: tuple[ClaimedTask, ...]


class Form:
    """Writes values as JSON and reads them back.

    Args:
        root: The output folder.
    """

    def __init__(self, root: Path) -> None:
        self._prefix = str(root) + os.sep
        self.encode = json.JSONEncoder(default=self._plain, separators=(",", ":")).encode

    def _plain(self, value: Any) -> Any:
        """What the encoder does not know by itself."""
        if isinstance(value, Path):
            return str(value).removeprefix(self._prefix)
        if is_dataclass(value) and not isinstance(value, type):
            return {name: getattr(value, name) for name in _names(type(value))}
        if isinstance(value, Mapping):
            return dict(value)
        if isinstance(value, set | frozenset):
            return sorted(value)
        raise InputError(f"a {type(value).__name__} cannot be written as JSON.")

    def request(self, request: Request) -> str:
        """Return a request as JSON."""
        return json.dumps(request.to_dict())

    def result(self, result: Result) -> str:
        """Return a result as JSON, but for its request and its index, which stand in its row."""
        return self.encode({name: getattr(result, name) for name in _names(Result)[2:]})

    def read_about(self, text: str) -> dict[str, Any]:
        """Return what was said about a batch."""
        about: dict[str, Any] = json.loads(text)
        return about

    def read_request(self, text: str) -> Request:
        """Return what `request` wrote."""
        return Request.from_dict(json.loads(text))

    def read_result(self, text: str, index: int, request: str) -> Result:
        """Return what `result` wrote.

        Args:
            text: The result.
            index: Of its task.
            request: As JSON.
        """
        data = json.loads(text)
        data["images"] = self._placed(data["images"])
        return Result.from_dict({**data, "index": index, "request": json.loads(request)})

    def read_images(self, text: str | None) -> tuple[ImageRecord, ...]:
        """Return image records; None: none."""
        placed = self._placed(json.loads(text)) if text else ()
        return tuple(
            ImageRecord(**{**image, "path": Path(image["path"]) if image["path"] else None})
            for image in placed
        )

    def read_call(self, row: tuple[Any, ...], request: Request) -> SentCall:
        """Return a call as it stands in the columns of `_CALL`; prompt and images are its request's."""
        number, variant, provider, model, alias, seed, count, arguments, *rest = row
        image_field, mask_field, state, job_id, at_utc, images = rest
        call = Call(
            ref=ModelRef(provider, model, alias),
            prompt=request.prompt,
            arguments=json.loads(arguments),
            images=request.image,
            image_field=image_field,
            mask=request.mask,
            mask_field=mask_field,
            seed=seed,
            count=count,
        )
        return SentCall(number, variant, call, state, job_id, at_utc, self.read_images(images))

    def _placed(self, images: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        # os.path.join lets an absolute path stand, as `/` of a Path does, in a quarter of the time
        return [
            {**image, "path": image["path"] and os.path.join(self._prefix, image["path"])}  # noqa: PTH118
            for image in images
        ]


@functools.cache
def _names(kind: type) -> tuple[str, ...]:
    """The fields of a dataclass; `index` and `request` are the first two of a `Result`."""
    return tuple(spec.name for spec in fields(kind))

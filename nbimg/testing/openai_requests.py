"""What a client of the OpenAI images API asks for, as JSON or as a form, and how each dialect refuses.

Stage: tests. In: a recorded request. Out: its fields and images, or the refusal of the dialect.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tornado.httputil import HTTPFile, HTTPInputError, parse_body_arguments

from nbimg.testing.server import Recorded, Reply

__all__ = ["OPENAI_FIELDS", "Asked", "Dialect", "RefusedError", "error_body", "read"]

Dialect = Literal["openai", "relay", "vllm", "sglang", "localai"]

OPENAI_FIELDS = frozenset(
    [
        "prompt",
        "model",
        "n",
        "size",
        "quality",
        "background",
        "moderation",
        "output_format",
        "output_compression",
        "stream",
        "user",
        "partial_images",
        "safety_identifier",
        "input_fidelity",
        "complexity",
    ]
)
"""What GPT image models take: neither ``response_format`` nor ``seed``."""

_QUALITIES = frozenset({"auto", "low", "medium", "high", "xhigh", "max"})
_MOST = 10


class RefusedError(Exception):
    """Ends the handling of a call with an error reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for.

    Attributes:
        fields: Parameters; numbers and booleans of a form are read.
        images: Undecoded.
        mask: Undecoded.
        image_fields: Under which names the images came.
    """

    fields: Mapping[str, Any]
    images: tuple[bytes, ...] = ()
    mask: bytes | None = None
    image_fields: tuple[str, ...] = field(default=(), compare=False)


def error_body(dialect: Dialect, status: int, text: str, code: str, kind: str) -> dict[str, Any]:
    """Return an error as the dialect writes it."""
    if dialect in {"vllm", "sglang"}:
        return {"detail": text}
    if dialect == "localai":
        return {"error": {"code": status, "message": text, "type": ""}}
    return {"error": {"message": text, "type": kind, "param": None, "code": code or None}}


def _refusal(dialect: Dialect, place: str, text: str) -> RefusedError:
    """Return what a wrong value of one field is answered with."""
    if dialect in {"vllm", "sglang"}:
        rows = [{"loc": ["body", place], "msg": text, "type": "value_error"}]
        return RefusedError(Reply.of({"detail": rows}, 422))
    status = 500 if dialect == "localai" else 400
    body = error_body(
        dialect, status, f"{text}: '{place}'.", "invalid_value", "invalid_request_error"
    )
    return RefusedError(Reply.of(body, status))


def read(dialect: Dialect, call: Recorded, kind: str) -> Asked:
    """Read a request for pictures.

    Args:
        dialect: Who is asked.
        call: The request.
        kind: ``generations`` (JSON) or ``edits`` (a form).

    Raises:
        RefusedError: When it is none that the dialect takes.
    """
    if kind == "edits" and dialect == "localai":
        raise RefusedError(Reply.of(error_body(dialect, 404, "Not Found", "", ""), 404))
    asked = _form(dialect, call) if kind == "edits" else _json(dialect, call)
    fields = asked.fields
    if not isinstance(fields.get("prompt"), str) or not fields["prompt"]:
        raise _refusal(dialect, "prompt", "Missing required parameter")
    n = fields.get("n", 1)
    if not isinstance(n, int) or not 1 <= n <= _MOST:
        raise _refusal(dialect, "n", "Expected a whole number from 1 to 10")
    if fields.get("quality", "auto") not in _QUALITIES:
        raise _refusal(dialect, "quality", "Invalid value")
    size = str(fields.get("size", "auto"))
    if size != "auto" and not _fits(dialect, size):
        raise _refusal(dialect, "size", "Invalid size")
    if dialect == "vllm" and fields.get("response_format", "file") not in {"b64_json", "file"}:
        text = "Value error, Only 'b64_json' or 'file' response format is supported"
        raise _refusal(dialect, "response_format", text)
    return asked


def _fits(dialect: Dialect, size: str) -> bool:
    width, _, height = size.partition("x")
    if not (width.isdigit() and height.isdigit()):
        return False
    sides = int(width), int(height)
    if dialect != "openai":
        return all(sides)
    ratio = max(sides) / max(1, min(sides))
    return all(side % 16 == 0 for side in sides) and ratio <= 3 and max(sides) <= 3840


def _json(dialect: Dialect, call: Recorded) -> Asked:
    try:
        body = call.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise _refusal(dialect, "body", "We could not parse the JSON body of your request")
    images: list[bytes] = []
    if dialect == "localai":  # its way to take images
        body = dict(body)
        given = [body.pop("file", None), *body.pop("files", []), *body.pop("ref_images", [])]
        try:
            images = [base64.b64decode(one, validate=True) for one in given if one]
        except binascii.Error:
            raise _refusal(dialect, "file", "illegal base64 data") from None
    return Asked(body, tuple(images))


def _form(dialect: Dialect, call: Recorded) -> Asked:
    arguments: dict[str, list[bytes]] = {}
    files: dict[str, list[HTTPFile]] = {}
    try:
        parse_body_arguments(call.headers.get("Content-Type", ""), call.body, arguments, files)
    except HTTPInputError:
        raise _refusal(dialect, "body", "Could not parse multipart form") from None
    fields = {name: _value(name, values[-1].decode()) for name, values in arguments.items()}
    images = [(name, one.body) for name in ("image", "image[]") for one in files.get(name, [])]
    if not images:
        raise _refusal(dialect, "image", "Field 'image' or 'url' is required")
    masks = files.get("mask_image" if dialect == "vllm" else "mask", [])
    return Asked(
        fields,
        tuple(body for _, body in images),
        masks[0].body if masks else None,
        tuple(name for name, _ in images),
    )


def _value(name: str, text: str) -> Any:
    if name in {"prompt", "model", "user", "size"}:
        return text
    if text in {"true", "false"}:
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text

"""How an image was made, as the text that is stored in it.

Stage: beside the store. Comes in: the request and the call that made the image. Goes out: text chunks:
`parameters`, the form that Automatic1111 and Civitai read, and `nbimg`, our own JSON, from which the
request can be made again. Pure. Must not: hold a credential; parameters and prompts only.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping

from nbimg.backends.base import Call
from nbimg.types import InputImage, ModelRef, Request, placeless

__all__ = ["describe", "embed"]

_PNG = b"\x89PNG\r\n\x1a\n"


def describe(request: Request, ref: ModelRef, call: Call, seed: int | None) -> Mapping[str, str]:
    """Return the text chunks of one image.

    Args:
        request: What was asked.
        ref: The model that made it.
        call: What was sent.
        seed: The seed of this very image.
    """
    made = request.but(n=1, seed=seed, model=ref.full, output=None, image=(), mask=None)
    own = {
        "request": placeless(made.to_dict()),
        "inputs": [image.sha256 for image in call.images],
        "arguments": dict(call.arguments),
    }
    return {
        "parameters": _parameters(request, ref, call, seed),
        "nbimg": json.dumps(own, ensure_ascii=False, default=_shown),
    }


def _shown(value: object) -> object:
    """What JSON does not know: an image by its content, never by its place on this machine."""
    return {"sha256": value.sha256} if isinstance(value, InputImage) else str(value)


def _parameters(request: Request, ref: ModelRef, call: Call, seed: int | None) -> str:
    """The prompt, the negative prompt and one line of `Name: value` pairs."""
    pairs = {
        "Steps": request.steps,
        "Sampler": request.scheduler,
        "CFG scale": request.guidance,
        "Seed": seed,
        "Size": request.size,
        "Model": ref.full,
    }
    lines = [call.prompt]
    if request.negative:
        lines.append(f"Negative prompt: {request.negative}")
    lines.append(
        ", ".join(f"{name}: {value}" for name, value in pairs.items() if value is not None)
    )
    return "\n".join(lines)


def embed(data: bytes, text: Mapping[str, str]) -> bytes:
    """Put text chunks into a PNG without touching its pixels; other formats come back as they are.

    A file that carries a signature of its own (a C2PA `caBX` chunk) is left alone: any change would
    break it. Layout: PNG specification, third edition, 11.3.3.4 iTXt
    (https://www.w3.org/TR/png-3/#11iTXt, from memory, checked against Pillow by a test).
    """
    if not text or not data.startswith(_PNG) or b"caBX" in data:
        return data
    chunks = b"".join(_chunk(key, value) for key, value in text.items())
    header_end = len(_PNG) + 12 + struct.unpack(">I", data[8:12])[0]
    return data[:header_end] + chunks + data[header_end:]


def _chunk(key: str, value: str) -> bytes:
    """One iTXt chunk: keyword, no compression, no language, UTF-8 text."""
    clean = value.encode("utf-8", "replace").replace(b"\0", b"")
    body = b"iTXt" + key.encode("latin-1") + b"\0\0\0\0\0" + clean
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))

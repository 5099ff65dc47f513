"""Small real pictures for the local servers: same key, same bytes.

Stage: tests. In: a text that stands for a request. Out: encoded PNG, JPEG or WebP. It loads
Pillow on the first picture and not before.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

__all__ = ["MEDIA_TYPES", "data_uri", "data_uri_size_bytes", "render_picture", "size_px"]


MEDIA_TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
_PILLOW_NAMES = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}
_TILES = 4  # a side; few enough to compress well, enough to tell two pictures apart by eye


@lru_cache(maxsize=4096)
def render_picture(key: str, file_format: str, width_px: int, height_px: int) -> bytes:
    """Draw the picture that ``key`` stands for: same key and format, same bytes."""
    from PIL import Image  # late: a server that delivers no picture works without Pillow

    colours = hashlib.shake_256(key.encode()).digest(_TILES * _TILES * 3)
    tiles = Image.frombytes("RGB", (_TILES, _TILES), colours)
    picture = tiles.resize((width_px, height_px), Image.Resampling.NEAREST)
    target = io.BytesIO()
    options: dict[str, Any] = {"png": {"compress_level": 1}, "webp": {"method": 0}}
    picture.save(target, _PILLOW_NAMES[file_format], **options.get(file_format, {}))
    return target.getvalue()


def size_px(inputs: Mapping[str, Any], side_px: int) -> tuple[int, int]:
    """Return (width, height): the pixels asked for, or the ratio, with long side ``side_px``."""
    if isinstance(inputs.get("width"), int) and isinstance(inputs.get("height"), int):
        return inputs["width"], inputs["height"]
    ratio = re.fullmatch(r"(\d+):(\d+)", str(inputs.get("aspect_ratio", "1:1")))
    across, down = (int(ratio[1]), int(ratio[2])) if ratio else (1, 1)
    longest = max(across, down)
    return max(1, side_px * across // longest), max(1, side_px * down // longest)


def data_uri(data: bytes, media_type: str) -> str:
    """Return ``data`` as a base64 data URI."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def data_uri_size_bytes(uri: str) -> int:
    """Return the size of what a data URI carries, without decoding it; 0 for other text."""
    if not uri.startswith("data:"):
        return 0
    head, _, payload = uri.partition(",")
    return len(payload) * 3 // 4 if head.endswith(";base64") else len(payload)

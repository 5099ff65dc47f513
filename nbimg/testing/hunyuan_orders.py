"""What the local Hunyuan takes: the orders of each of its APIs, checked and in the same words.

Stage: tests. In: a body as it was sent. Out: the order in the words of the job gateway, or the error code
that the service gives for it. No HTTP, no clock here. Sources: as for ``hunyuan_jobs``; TokenHub's:
https://cloud.tencent.com/document/product/1823/135745, read 2026-11-22.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["OrderError", "read_order"]

MAX_PROMPT = 8192
MAX_IMAGES = 3
MAX_SEED = 4294967295
_SIDES_PX = (512, 2048)
_MAX_PIXELS = 1024 * 1024
_IMAGE_SIDES_PX = (50, 5000)

_JOB_KEYS = ("prompt", "images", "resolution", "seed", "revise", "logo_add", "logo_param")
_KEYS: Mapping[str, Mapping[str, str]] = {
    "signed": {"".join(p.title() for p in key.split("_")): key for key in _JOB_KEYS},
    "jobs": {key: key for key in _JOB_KEYS if key != "resolution"} | {"size": "resolution"},
    "tokenhub-jobs": {key: key for key in _JOB_KEYS},
    "tokenhub": {
        **{key: key for key in ("prompt", "images", "seed", "revise", "footnote")},
        "size": "resolution",
    },
}
_MODELS: Mapping[str, str] = {
    "jobs": "HY-Image-V3.0",
    "tokenhub-jobs": "hy-image-v3.0",
    "tokenhub": "hy-image-v3",
}
_IMAGE_BYTES = {"tokenhub": 10_000_000}
_FORMATS = {"tokenhub": {"JPEG", "PNG"}}


class OrderError(Exception):
    """An order that is not taken.

    Attributes:
        code: As the signed API says it.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def read_order(api: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return an order in the words of the job gateway, with the defaults filled in.

    Args:
        api: ``signed``, ``jobs``, ``tokenhub-jobs`` or ``tokenhub``.
        body: As it was sent.

    Raises:
        OrderError: When the service would not take it.
    """
    flat = {**body}
    if api == "jobs":
        inner = flat.pop("extra_body", {})
        if not isinstance(inner, dict) or not inner.keys() <= {
            "seed",
            "revise",
            "logo_add",
            "logo_param",
        }:
            raise OrderError("UnknownParameter", "The parameter `extra_body` is not recognized.")
        flat |= inner
    if api != "signed":
        model = str(flat.pop("model", None))
        if model.lower() != _MODELS[api].lower():
            raise OrderError("InvalidParameterValue.ParameterValueError", f"no model {model}")
    order: dict[str, Any] = {}
    for key, value in flat.items():
        if key not in _KEYS[api]:
            raise OrderError("UnknownParameter", f"The parameter `{key}` is not recognized.")
        order[_KEYS[api][key]] = value
    _check_prompt(order.get("prompt"))
    order["images"] = [_image(api, image) for image in _images(order.get("images") or [])]
    order["resolution"] = _resolution(api, order.get("resolution"))
    _check_seed(api, order.get("seed"))
    order["revise"] = bool(order.get("revise", 1))
    # TokenHub has a footnote where the others have a logo
    order["logo_add"] = api != "tokenhub" and order.get("logo_add", 1) != 0
    if len(str(order.get("footnote") or "")) > 16:
        raise OrderError("InvalidParameterValue.TextLengthExceed", "footnote is too long")
    return order


def _check_prompt(prompt: Any) -> None:
    if prompt is None:
        raise OrderError("MissingParameter", "The request is missing a parameter `Prompt`.")
    if not isinstance(prompt, str) or not prompt.strip():
        raise OrderError("InvalidParameter.InvalidParameter", "Prompt is empty.")
    if len(prompt) > MAX_PROMPT:
        raise OrderError("InvalidParameterValue.TextLengthExceed", "The text is too long.")


def _check_seed(api: str, seed: Any) -> None:
    lowest = 0 if api == "tokenhub" else 1
    if seed is not None and (
        not isinstance(seed, int) or isinstance(seed, bool) or not lowest <= seed <= MAX_SEED
    ):
        raise OrderError("InvalidParameterValue.ParameterValueError", "Seed is out of range.")


def _images(images: Any) -> list[str]:
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise OrderError("InvalidParameter.InvalidParameter", "Images is not a list of texts.")
    if len(images) > MAX_IMAGES:
        raise OrderError("InvalidParameterValue.ParameterValueError", "Images has more than 3.")
    return images


def _image(api: str, image: str) -> str:
    """Return an address as it is, and of a file its digest, after the checks of the service."""
    if re.match(r"https?://", image):
        return image
    head, comma, payload = image.rpartition(",")
    if comma and (api in {"signed", "jobs"} or not head.startswith("data:image/")):
        raise OrderError("InvalidParameterValue.UrlIllegal", "The URL is illegal.")
    if len(payload) >= _IMAGE_BYTES.get(api, 6_000_000) * (1 if api != "tokenhub" else 4 / 3):
        raise OrderError("FailedOperation.ImageSizeExceed", "The image is too large.")
    try:
        data = base64.b64decode(payload, validate=True)
    except ValueError:
        raise OrderError("FailedOperation.ImageDecodeFailed", "not base64") from None
    if not data:
        raise OrderError("InvalidParameterValue.ImageEmpty", "The image is empty.")
    _check_picture(api, data)
    return hashlib.sha256(data).hexdigest()


def _check_picture(api: str, data: bytes) -> None:
    import io

    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as picture:
            form, size = picture.format, picture.size
    except (UnidentifiedImageError, OSError):
        raise OrderError("FailedOperation.ImageDecodeFailed", "not an image") from None
    if form not in _FORMATS.get(api, {"JPEG", "PNG", "BMP", "TIFF", "WEBP"}):
        raise OrderError("FailedOperation.ImageDecodeFailed", f"{form} is not supported.")
    if min(size) < _IMAGE_SIDES_PX[0] or max(size) > _IMAGE_SIDES_PX[1]:
        raise OrderError("FailedOperation.ImageResolutionExceed", f"{size} is out of range.")


def _resolution(api: str, text: Any) -> str:
    """Return ``W:H``; TokenHub's one call writes an x, all others a colon."""
    if text is None:
        return "1024:1024"
    mark = "x" if api == "tokenhub" else ":"
    match = re.fullmatch(rf"(\d+){mark}(\d+)", str(text))
    width, height = (int(match[1]), int(match[2])) if match else (0, 0)
    low, high = _SIDES_PX
    if not (low <= width <= high and low <= height <= high and width * height <= _MAX_PIXELS):
        raise OrderError(
            "InvalidParameterValue.ParameterValueError", f"Resolution {text} is not allowed."
        )
    return f"{width}:{height}"

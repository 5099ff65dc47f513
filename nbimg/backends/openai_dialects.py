"""The dialects of the OpenAI images API: who speaks which, what each takes, and under which names.

Stage: below the backend. Comes in: the list of models that a server gives, a model, a call. Goes out: its
`Dialect`, the model's `Capabilities`, the fields of the request. Pure: dict in, dict out.

Sources, read 2026-11-22 to 25: the types of the official client openai 3.57.0 (sizes, qualities, parameters);
https://docs.vllm.ai/projects/vllm-omni/en/latest/serving/image_edit_api/ and `protocol/images.py` of
vllm-omni; https://github.com/sgl-project/sglang/blob/main/docs/diffusion/openai_api.md and `image_api.py`
of sglang; `core/http/endpoints/openai/image.go` and `list.go` of LocalAI.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from nbimg.backends.base import Call
from nbimg.media.attachments import refuse
from nbimg.types import Capabilities, Field, Size

__all__ = ["Dialect", "Served", "capabilities", "fields", "local", "recognise"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one kind of server speaks.

    Attributes:
        name: Who speaks it.
        asks_base64: Whether `response_format=b64_json` is sent: OpenAI refuses it, others need it.
        several: Form field of input images when there are several; one is `image`.
        mask: Form field of the mask; None: it takes none.
        cuts: Whether the mask is transparent where the picture is to change, rather than white.
        inline: Whether input images go as base64 into the body of a generation.
        lists_all: Whether a model that is not in its list is not there.
        own: Whether people run it themselves: one GPU, and its error is its last word.
    """

    name: str
    asks_base64: bool = True
    several: str = "image[]"
    mask: str | None = "mask"
    cuts: bool = True
    inline: bool = False
    lists_all: bool = False
    own: bool = False


OPENAI = Dialect("OpenAI", asks_base64=False)
RELAY = Dialect("an unknown server")
VLLM = Dialect(
    "vLLM-Omni", several="image", mask="mask_image", cuts=False, lists_all=True, own=True
)
SGLANG = Dialect("SGLang", several="image", mask=None, lists_all=True, own=True)
LOCALAI = Dialect("LocalAI", mask=None, inline=True, own=True)

_GPT = re.compile(r"(?:^|/)(?:chatgpt-image|gpt-image-(\d+(?:\.\d+)?))")
#: What GPT image models before the second take, by ratio.
_SIZES = {"1:1": "1024x1024", "3:2": "1536x1024", "2:3": "1024x1536"}
_SEED = Field("seed", "integer", minimum=0, maximum=2**32 - 1)
_IMAGES = Field("image", "files", maximum=16)
_MASK = Field("mask", "file")


@dataclass(frozen=True, slots=True)
class Served:
    """A server as it shows itself.

    Attributes:
        dialect: What it speaks.
        models: Model → what the server tells of it.
    """

    dialect: Dialect
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def of(self, model: str) -> Dialect:
        """Return the dialect for one model: OpenAI's own are passed on to OpenAI by a relay."""
        return OPENAI if self.dialect is RELAY and _GPT.search(model) else self.dialect


def recognise(listing: Any) -> Served:
    """Tell the server by its list of models.

    Args:
        listing: The JSON of `GET /v1/models`, or of SGLang's own `GET /models`.

    >>> recognise({"object": "list", "data": [{"id": "m", "owned_by": "vllm"}]}).dialect.name
    'vLLM-Omni'
    """
    if not isinstance(listing, Mapping):
        return Served(RELAY)
    if "task_type" in listing:
        return Served(SGLANG, {str(listing.get("model_path")): listing})
    data = listing.get("data")
    rows = [row for row in data if isinstance(row, Mapping)] if isinstance(data, list) else []
    models = {str(row["id"]): row for row in rows if "id" in row}
    owners = {row.get("owned_by") for row in rows}
    if "sglang" in owners or any("task_type" in row for row in rows):
        return Served(SGLANG, models)
    if "vllm" in owners:
        return Served(VLLM, models)
    if rows and owners == {None} and not any("created" in row for row in rows):
        return Served(LOCALAI, models)  # its rows have nothing but `id` and `object`
    return Served(RELAY, models)


def local(url: str) -> bool:
    """Whether an address is on this machine or in this network.

    >>> local("http://127.0.0.1:8000/v1"), local("http://gpu-box:8000"), local("https://api.example.com")
    (True, True, False)
    """
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".lan", ".internal"))


def capabilities(served: Served, model: str) -> Capabilities:
    """Return what a model takes, as far as its server and its name tell."""
    dialect = served.of(model)
    if dialect is OPENAI:
        return _gpt(model)
    if dialect is RELAY:
        options = {**_sides(8), "image": _IMAGES, "mask": _MASK}
        return Capabilities(options, composes=True, open=True)
    if dialect is LOCALAI:
        names = {"negative": Field("negative_prompt"), "steps": Field("step", "integer", minimum=1)}
        options = {**_sides(8), **names, "seed": _SEED, "image": _IMAGES}
        return Capabilities(options, default_size=Size(512, 512), composes=True, open=True)
    return _diffusion(dialect, model, served.models.get(model, {}))


def _gpt(model: str) -> Capabilities:
    """OpenAI's own models; they take no seed."""
    found = _GPT.search(model)
    number = float((found and found[1]) or 1)
    qualities = ("auto", "low", "medium", "high", *(("xhigh", "max") if number >= 2.5 else ()))
    if number >= 2:
        shape = _sides(16, 3840)
    else:
        sizes = ("auto", *_SIZES.values())
        shape = {
            "size": Field("size", allowed=sizes),
            "ar": Field("aspect_ratio", allowed=tuple(_SIZES)),
        }
    extra = [
        Field("quality", allowed=qualities),
        Field("background", allowed=("auto", "transparent", "opaque")),
        Field("moderation", allowed=("auto", "low")),
        Field("complexity", allowed=("low", "medium", "high")),
        Field("output_compression", "integer", minimum=0, maximum=100),
        Field("partial_images", "integer", minimum=0, maximum=3),
        Field("safety_identifier"),
        Field("user"),
    ]
    if number >= 2:
        extra.append(Field("size"))
    if number < 2:
        extra.append(Field("input_fidelity", allowed=("low", "high")))
    return Capabilities(
        options={
            **shape,
            "n": Field("n", "integer", minimum=1, maximum=10),
            "format": Field("output_format", allowed=("png", "jpeg", "webp")),
            "image": _IMAGES,
            "mask": _MASK,
        },
        extra={one.name: one for one in extra},
        default_size=Size(1024, 1024),
        composes=True,
    )


def _diffusion(dialect: Dialect, model: str, card: Mapping[str, Any]) -> Capabilities:
    """vLLM-Omni and SGLang: parameters of a diffusers pipeline, passed on to the model."""
    # Qwen-Image is not distilled: its `guidance_scale` has no effect, `true_cfg_scale` has
    strong = "true_cfg_scale" if "qwen-image" in model.lower() else "guidance_scale"
    task = str(card.get("task_type") or "")  # SGLang: T2I, I2I, TI2I
    options = {
        **_sides(16),
        "negative": Field("negative_prompt"),
        "steps": Field("num_inference_steps", "integer", minimum=1, maximum=200),
        "guidance": Field(strong, "number", minimum=0, maximum=20),
        "seed": _SEED,
        "format": Field("output_format", allowed=("png", "jpeg", "webp")),
    }
    if task != "T2I":
        options["image"] = _IMAGES
        if dialect.mask is not None:
            options["mask"] = _MASK
    return Capabilities(options, composes="image" in options, makes=task != "I2I", open=True)


def _sides(multiple: int, maximum: int = 8192) -> dict[str, Field]:
    return {
        side: Field(side, "integer", minimum=multiple, maximum=maximum, multiple=multiple)
        for side in ("width", "height")
    }


def fields(dialect: Dialect, call: Call, *, asks_base64: bool) -> dict[str, Any]:
    """Return the body of a request, but for its images.

    Args:
        dialect: Of the server.
        call: What to make; `width` and `height`, or `aspect_ratio`, become `size`.
        asks_base64: Whether `response_format` is sent.
    """
    values = dict(refuse(call.arguments, str(call.ref)))
    width, height = values.pop("width", None), values.pop("height", None)
    if width and height:
        values.setdefault("size", f"{width}x{height}")
    if dialect is OPENAI and (ratio := values.pop("aspect_ratio", None)):
        values.setdefault("size", _SIZES[ratio])
    if not values.get("partial_images", True):
        del values["partial_images"]
    if "partial_images" in values:
        values.setdefault("stream", True)
    prompt = call.prompt
    if dialect is LOCALAI:  # it cuts the prompt at a bar: what follows is the negative prompt
        prompt = prompt.replace("|", ",")
        if negative := values.pop("negative_prompt", None):
            prompt = f"{prompt}|{negative}"
    if asks_base64:
        values.setdefault("response_format", "b64_json")
    return {"model": call.ref.model, "prompt": prompt, **values}

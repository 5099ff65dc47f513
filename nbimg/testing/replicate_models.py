"""The models of the local Replicate: what they take, how their schema is published, refusals.

Stage: tests. In: the ``input`` of a create. Out: the ``invalid_fields`` of a 422. No HTTP here.
Source: model pages, https://replicate.com/<owner>/<name>, as of 2026-04.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

__all__ = ["BUILTIN_MODELS", "COMMUNITY_MODEL", "OutputShape", "ReplicateModel"]

OutputShape = Literal["list", "str", "dict", "empty", "null", "data_uri"]

Schema = Mapping[str, Any]
"""JSON Schema of one input; an ``enum`` is written in place and moved out by ``openapi_schema``."""

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
}


@dataclass(frozen=True)
class ReplicateModel:
    """A model as the service describes it.

    Attributes:
        name: ``owner/name``.
        inputs: JSON Schema per input, in the order shown to people (``x-order``).
        required: Names of the inputs without which nothing runs.
        output: Shape of ``output`` when a job succeeds.
        official: Official models run by name and have no addressable versions; the others run by
            version only.
        hides_version: Whether jobs say ``"version": "hidden"``.
        rejects_extensionless: Whether an image URL without a file extension makes the job fail, as
            with some real models that look at the extension (replicate-python issue 475).
    """

    name: str
    inputs: Mapping[str, Schema]
    required: tuple[str, ...] = ("prompt",)
    output: OutputShape = "list"
    official: bool = True
    hides_version: bool = False
    rejects_extensionless: bool = False

    @cached_property
    def version(self) -> str:
        """The 64 hex digits of the latest version."""
        return hashlib.sha256(self.name.encode()).hexdigest()

    @cached_property
    def image_inputs(self) -> tuple[str, ...]:
        """Names of the inputs that take an image or a list of images."""
        single = {name: schema.get("items", schema) for name, schema in self.inputs.items()}
        return tuple(name for name, schema in single.items() if schema.get("format") == "uri")

    @cached_property
    def openapi_schema(self) -> dict[str, Any]:
        """What the API publishes: enums in named schemas of their own, reached by allOf/$ref."""
        schemas: dict[str, Any] = {}
        properties: dict[str, Any] = {}
        for order, (name, schema) in enumerate(self.inputs.items()):
            shown = {"title": name.replace("_", " ").capitalize(), **schema, "x-order": order}
            if "enum" in shown:
                title = {"title": name, "description": "An enumeration."}
                schemas[name] = {**title, "type": shown.pop("type"), "enum": shown.pop("enum")}
                shown["allOf"] = [{"$ref": f"#/components/schemas/{name}"}]
                del shown["title"]
            properties[name] = shown
        uri = {"type": "string", "format": "uri"}
        outputs: dict[str, dict[str, Any]] = {
            "list": {"type": "array", "items": uri, "title": "Output"},
            "str": {**uri, "title": "Output"},
            "dict": {"type": "object", "title": "Output"},
        }
        outputs["empty"] = outputs["list"]
        schemas["Input"] = {
            "type": "object", "title": "Input", "required": list(self.required),
            "properties": properties,
        }  # fmt: skip
        schemas["Output"] = outputs.get(self.output, outputs["str"])
        info = {"title": "Cog", "version": "0.1.0"}
        return {"openapi": "3.0.2", "info": info, "paths": {}, "components": {"schemas": schemas}}

    def find_problems(self, inputs: Mapping[str, Any], *, closed: bool) -> list[dict[str, str]]:
        """Return the ``invalid_fields`` of a 422, empty if ``inputs`` are fine.

        Args:
            inputs: What the client sent as ``input``.
            closed: Whether names that the model does not have are a problem; the real service
                differs by model.
        """
        found = [
            {"type": "required", "field": "input", "description": f"{name} is required"}
            for name in self.required
            if name not in inputs
        ]
        for name, value in inputs.items():
            schema = self.inputs.get(name)
            if schema is not None:
                found += _find_problems(f"input.{name}", value, schema)
            elif closed:
                text = f"Additional property {name} is not allowed"
                kind = "additional_property_not_allowed"
                found.append({"type": kind, "field": "input", "description": text})
        return found


def _find_problems(place: str, value: object, schema: Schema) -> list[dict[str, str]]:
    def problem(kind: str, text: str) -> list[dict[str, str]]:
        return [{"type": kind, "field": place, "description": text}]

    if value is None and schema.get("nullable"):
        return []
    wanted = schema["type"]
    # In Python a bool is an int; in JSON it is not.
    if not isinstance(value, _TYPES[wanted]) or (wanted != "boolean" and isinstance(value, bool)):
        names = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array"}
        given = names.get(type(value), "null" if value is None else "object")
        return problem("invalid_type", f"Invalid type. Expected: {wanted}, given: {given}")
    if isinstance(value, list):
        inner = [_find_problems(f"{place}.{i}", v, schema["items"]) for i, v in enumerate(value)]
        return [one for several in inner for one in several]
    if "enum" in schema and value not in schema["enum"]:
        options = ", ".join(json.dumps(option) for option in schema["enum"])
        return problem("enum", f"{place} must be one of the following: {options}")
    if isinstance(value, int | float):
        low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
        if value < low:
            return problem("number_gte", f"Must be greater than or equal to {low}")
        if value > high:
            return problem("number_lte", f"Must be less than or equal to {high}")
    uri = isinstance(value, str) and schema.get("format") == "uri"
    if uri and not str(value).startswith(("http://", "https://", "data:")):
        return problem("format", "Does not match format 'uri'")
    return []


_PROMPT: Schema = {"type": "string", "description": "What the picture shows."}
_SEED: Schema = {"type": "integer", "nullable": True, "description": "Random seed."}
_IMAGE: Schema = {"type": "string", "format": "uri", "nullable": True}
_IMAGES: Schema = {"type": "array", "items": {"type": "string", "format": "uri"}, "default": []}


def _choice(options: str) -> Schema:
    """Make an enum of the words of ``options``, the default first."""
    return {"type": "string", "enum": options.split(), "default": options.split(maxsplit=1)[0]}


def _integer(minimum: int, maximum: int, default: int) -> Schema:
    return {"type": "integer", "minimum": minimum, "maximum": maximum, "default": default}


def _number(minimum: float, maximum: float, default: float) -> Schema:
    return {"type": "number", "minimum": minimum, "maximum": maximum, "default": default}


def _flag(default: bool) -> Schema:
    return {"type": "boolean", "default": default}


_FLUX_DEV = ReplicateModel(
    "black-forest-labs/flux-dev",
    {
        "prompt": _PROMPT,
        "aspect_ratio": _choice("1:1 16:9 21:9 3:2 2:3 4:5 5:4 3:4 4:3 9:16 9:21"),
        "image": _IMAGE,
        "prompt_strength": _number(0, 1, 0.8),
        "num_outputs": _integer(1, 4, 1),
        "num_inference_steps": _integer(1, 50, 28),
        "guidance": _number(0, 10, 3),
        "seed": _SEED,
        "output_format": _choice("webp jpg png"),
        "output_quality": _integer(0, 100, 80),
        "disable_safety_checker": _flag(False),
        "go_fast": _flag(True),
        "megapixels": _choice("1 0.25"),
    },
)
_FLUX_KONTEXT_MAX = ReplicateModel(
    "black-forest-labs/flux-kontext-max",
    {
        "prompt": _PROMPT,
        "input_image": _IMAGE,
        "aspect_ratio": _choice(
            "match_input_image 1:1 16:9 9:16 4:3 3:4 3:2 2:3 4:5 5:4 21:9 9:21 2:1 1:2"
        ),
        "seed": _SEED,
        "output_format": _choice("png jpg"),
        "safety_tolerance": _integer(0, 6, 2),
        "prompt_upsampling": _flag(False),
    },
    output="str",
)
_QWEN_IMAGE = ReplicateModel(
    "qwen/qwen-image",
    {
        "prompt": _PROMPT,
        "enhance_prompt": _flag(False),
        "aspect_ratio": _choice("16:9 1:1 9:16 4:3 3:4 3:2 2:3"),
        "image_size": _choice("optimize_for_quality optimize_for_speed"),
        "image": _IMAGE,
        "strength": _number(0, 1, 0.9),
        "negative_prompt": {"type": "string", "default": " "},
        "num_inference_steps": _integer(1, 50, 30),
        "guidance": _number(0, 10, 3),
        "seed": _SEED,
        "output_format": _choice("webp jpg png"),
        "output_quality": _integer(0, 100, 80),
        "go_fast": _flag(True),
    },
)
_QWEN_IMAGE_EDIT_PLUS = ReplicateModel(
    "qwen/qwen-image-edit-plus",
    {
        "prompt": _PROMPT,
        "image": {k: v for k, v in _IMAGES.items() if k != "default"},
        "aspect_ratio": _choice("match_input_image 1:1 16:9 9:16 4:3 3:4"),
        "seed": _SEED,
        "output_format": _choice("webp jpg png"),
        "output_quality": _integer(0, 100, 95),
        "go_fast": _flag(True),
    },
    required=("prompt", "image"),
)
_IMAGEN = ReplicateModel(
    "google/imagen-4-ultra",
    {
        "prompt": _PROMPT,
        "aspect_ratio": _choice("1:1 9:16 16:9 3:4 4:3"),
        "output_format": _choice("jpg png"),
        "safety_filter_level": _choice(
            "block_only_high block_medium_and_above block_low_and_above"
        ),
    },
    output="str",
    hides_version=True,
)
_NANO_BANANA = ReplicateModel(
    "google/nano-banana",
    {
        "prompt": _PROMPT,
        "image_input": _IMAGES,
        "aspect_ratio": _choice("match_input_image 1:1 2:3 3:2 3:4 4:3 4:5 5:4 9:16 16:9 21:9"),
        "output_format": _choice("jpg png"),
    },
    output="str",
    hides_version=True,
)
COMMUNITY_MODEL = ReplicateModel(
    "example-artist/ink-sketch",
    {
        "prompt": _PROMPT,
        "negative_prompt": {"type": "string", "default": ""},
        "image": _IMAGE,
        "width": _integer(64, 1440, 64),
        "height": _integer(64, 1440, 64),
        "num_outputs": _integer(1, 4, 1),
        "num_inference_steps": _integer(1, 500, 50),
        "guidance_scale": _number(1, 50, 7.5),
        "seed": _SEED,
    },
    official=False,
    rejects_extensionless=True,
)
"""Invented; runs by its 64-digit ``version`` only, and rejects image URLs without an extension."""

BUILTIN_MODELS: tuple[ReplicateModel, ...] = (
    _FLUX_DEV,
    _FLUX_KONTEXT_MAX,
    _QWEN_IMAGE,
    _QWEN_IMAGE_EDIT_PLUS,
    _IMAGEN,
    _NANO_BANANA,
    COMMUNITY_MODEL,
)
"""Names, limits and defaults of 2026-04 as on replicate.com/<owner>/<name>; real ones drift.

Assumed: that flux-kontext-max is as flux-kontext-pro, the ratios of qwen-image-edit-plus after its
first, and that it needs an image.
"""

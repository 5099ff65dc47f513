"""Read a provider's JSON schema of a model's input into `Capabilities`.

Stage: below the backends that offer a schema. Comes in: the `components.schemas` of an OpenAPI
document. Goes out: which of our options the model takes, under which names and in which ranges. Pure.

Source of the layout: a model's `latest_version.openapi_schema` in the Replicate HTTP API
(https://replicate.com/docs/reference/http#models.get, read 2026-11-22): enumerations are indirect
(`allOf: [{"$ref": …}]`), files are `format: uri` strings or arrays of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbimg.types import Capabilities, Field

__all__ = ["capabilities"]

#: Our option → the names that models give it, most usual first.
NAMES: Mapping[str, tuple[str, ...]] = {
    "ar": ("aspect_ratio",),
    "width": ("width",),
    "height": ("height",),
    "n": ("num_outputs", "num_images", "n", "number_of_images"),
    "seed": ("seed",),
    "negative": ("negative_prompt",),
    "steps": ("num_inference_steps", "steps", "num_steps"),
    "guidance": ("guidance", "guidance_scale", "cfg_scale", "cfg", "true_cfg_scale"),
    "strength": ("prompt_strength", "strength", "image_prompt_strength"),
    "scheduler": ("scheduler",),
    "format": ("output_format",),
}
#: Files that are not pictures to work on.
_NOT_IMAGES = ("mask", "lora", "weights", "video", "audio")


def capabilities(schemas: Mapping[str, Any]) -> Capabilities:
    """Return what a model takes.

    Args:
        schemas: Name → JSON schema; `Input` is the one of the model's input.
    """
    spec = schemas.get("Input", {})
    required = set(spec.get("required", ()))
    fields = {
        name: _field(name, prop, schemas, name in required)
        for name, prop in sorted(
            spec.get("properties", {}).items(), key=lambda item: item[1].get("x-order", 1000)
        )
        if name != "prompt"
    }
    options: dict[str, Field] = {}
    for option, names in NAMES.items():
        found = next((fields[name] for name in names if name in fields), None)
        if found is not None and found.type not in ("file", "files"):
            options[option] = found
    for field in fields.values():
        if field.type not in ("file", "files"):
            continue
        if "mask" in field.name:
            options.setdefault("mask", field)
        elif not any(word in field.name for word in _NOT_IMAGES):
            options.setdefault("image", field)
    used = {field.name for field in options.values()}
    image = options.get("image")
    return Capabilities(
        options=options,
        extra={name: field for name, field in fields.items() if name not in used},
        composes=image is not None and image.type == "files",
        makes=image is None or not image.required,
        open=not fields,
    )


def _field(name: str, prop: Mapping[str, Any], schemas: Mapping[str, Any], required: bool) -> Field:
    merged = dict(prop)
    for part in (*prop.get("allOf", ()), *prop.get("anyOf", ())):
        target = part
        if "$ref" in part:
            target = schemas.get(part["$ref"].rpartition("/")[2], {})
        if target.get("type") != "null":
            merged = {**target, **merged}
    kind = merged.get("type", "string")
    if kind == "string" and merged.get("format") == "uri":
        kind = "file"
    elif kind == "array":
        items = merged.get("items", {})
        kind = "files" if items.get("format") == "uri" else "array"
    return Field(
        name=name,
        type=kind,
        default=merged.get("default"),
        allowed=tuple(merged.get("enum", ())),
        minimum=merged.get("minItems" if kind == "files" else "minimum"),
        maximum=merged.get("maxItems" if kind == "files" else "maximum"),
        multiple=merged.get("multipleOf") if kind == "integer" else None,
        help=str(merged.get("description", "")),
        required=required,
    )

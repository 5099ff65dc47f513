"""What the panel's form holds ↔ the cell that does the same; and what a model's form looks like.

Stage: the front end. Comes in: the values of the form, or what a model takes. Goes out: the line and the body of
a `%%imggen` cell, or the fields of the form. Pure. The panel runs what stands here, so that the cell it gives is
the cell that it has run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from nbimg.notebook.ascell import near
from nbimg.text import cell
from nbimg.text.cell import CellSpec
from nbimg.text.expand import escape
from nbimg.text.options import OPTIONS
from nbimg.types import Capabilities, Field, Request

__all__ = ["EMPTY", "fields", "form_of", "line_of"]

#: A form that nobody has filled in.
EMPTY: Mapping[str, Any] = {
    "model": "",
    "prompt": "",
    "negative": "",
    "n": 1,
    "seed": None,
    "locked": False,
    "options": {},
    "params": {},
    "refs": [],
}
#: Our options that are fields of the form, in their order → what stands before them.
_OURS = {
    "ar": "Aspect ratio",
    "size": "Size",
    "steps": "Steps",
    "guidance": "Guidance",
    "strength": "Strength",
    "scheduler": "Sampler",
}
_ALSO = {row.name for row in OPTIONS}
_LONG = 60
#: What schemas say of a choice that nobody has described.
_NO_HELP = "An enumeration."


def line_of(form: Mapping[str, Any]) -> str:
    """Return what stands on the line of the cell.

    >>> line_of({"model": "demo", "n": 2, "seed": 5, "locked": True})
    '-m demo -n 2 --seed 5'

    Args:
        form: Values of the form; what is missing or empty is left to the model.
    """
    form = {**EMPTY, **form}
    options: dict[str, Any] = {}
    if models := _models(form["model"]):
        options["model"] = models
    if int(form["n"] or 1) != 1:
        options["n"] = int(form["n"])
    if form["locked"] and form["seed"] is not None:
        options["seed"] = int(form["seed"])
    options |= {
        name: form["options"][name]
        for name in _OURS
        if name in _ALSO and form["options"].get(name) not in (None, "")
    }
    if form["negative"].strip():
        options["negative"] = form["negative"].strip()
    if form["refs"]:
        options["image"] = tuple(near(ref["path"]) for ref in form["refs"])
    params = {name: value for name, value in form["params"].items() if value not in (None, "")}
    if params:
        options["params"] = params
    return cell.format(CellSpec(options=options))[0]


def form_of(request: Request, model: str, seed: int | None) -> dict[str, Any]:
    """Return a form that asks for a request again; its images are left to whoever has their files.

    Args:
        request: What was asked.
        model: The model that made it.
        seed: The seed that made it.
    """
    options = {
        name: value if isinstance(value, int | float | str) else str(value)
        for name in _OURS
        if (value := getattr(request, name)) not in (None, ())
    }
    return {
        **EMPTY,
        "model": request.model or model,
        "prompt": escape(request.prompt),
        "negative": escape(request.negative or ""),
        "n": request.n,
        "seed": seed,
        "options": options,
        "params": dict(request.params),
    }


def _models(text: str) -> tuple[str, ...]:
    return tuple(name for part in text.split(",") if (name := part.strip()))


def fields(can: Capabilities) -> list[dict[str, Any]]:
    """Return the fields of a model's form: our options first, then the model's own.

    Each has `name`, `label`, `kind` (`choice`, `number`, `integer`, `boolean`, `text`, `json`, `size`), `own`
    (whether it is a parameter by the model's own name), `help`, and where they are known `min`, `max`, `step`,
    `default`, `allowed`.
    """
    return [*_ours(can), *_own(can)]


def _ours(can: Capabilities) -> Iterator[dict[str, Any]]:
    for name, label in _OURS.items():
        if name not in _ALSO:
            continue
        if name == "size" and "size" not in can.options:
            if {"width", "height"} <= can.options.keys():
                yield _size(can)
        elif name in can.options:
            yield _field(can.options[name], name, label, own=False)


def _size(can: Capabilities) -> dict[str, Any]:
    width, height = can.options["width"], can.options["height"]
    default = str(can.default_size or "")
    if not default and width.default and height.default:
        default = f"{width.default}x{height.default}"
    return {
        "name": "size",
        "label": "Size",
        "kind": "size",
        "own": False,
        "help": "Width × height in pixels.",
        "default": default,
        "min": width.minimum,
        "max": width.maximum,
        "step": width.multiple,
    }


def _own(can: Capabilities) -> Iterator[dict[str, Any]]:
    for name, field in can.extra.items():
        if field.type not in ("file", "files"):
            yield _field(field, name, name.replace("_", " ").capitalize(), own=True)


def _field(field: Field, name: str, label: str, *, own: bool) -> dict[str, Any]:
    plain = {"string": "text", "array": "json", "object": "json"}
    whole = all(isinstance(value, int) for value in (field.minimum, field.maximum) if value)
    return {
        "name": name,
        "label": label,
        "kind": "choice" if field.allowed else plain.get(field.type, field.type),
        "own": own,
        "help": "" if field.help == _NO_HELP else " ".join(field.help.split()),
        "default": _plain(field.default),
        "allowed": [_plain(value) for value in field.allowed],
        "min": field.minimum,
        "max": field.maximum,
        "step": field.multiple or (1 if field.type == "integer" else None if whole else 0.01),
        "long": field.type == "string" and len(str(field.default or "")) > _LONG,
    }


def _plain(value: Any) -> Any:
    """What JSON holds."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)

"""A workflow's name, and under which names it knows our options.

Stage: beside the SpeedPix backend. Comes in: the model's name and the user's setting. Goes out: what the
workflow takes. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nbimg.errors import InputError, SettingError, closest
from nbimg.types import Capabilities, Field

__all__ = ["OWN", "Mapped", "mapped", "target"]

OWN = (
    "alias_id",
    "version_id",
    "resource_config_id",
    "randomise_seeds",
    "return_temp_files",
    "file_encoding_strategy",
)
"""Parameters that are none of the workflow's inputs: they say how it is run."""

#: Our option → what it is; what a workflow calls it is the user's to say.
_OPTIONS: Mapping[str, str] = {
    "prompt": "string",
    "image": "file",
    "mask": "file",
    "seed": "integer",
    "negative": "string",
    "steps": "integer",
    "guidance": "number",
    "strength": "number",
    "scheduler": "string",
    "lora": "string",
    "width": "integer",
    "height": "integer",
    "size": "string",
    "ar": "string",
    "n": "integer",
    "format": "string",
}
_USUAL: Mapping[str, Any] = {"prompt": "prompt", "image": "image", "mask": "mask"}
_VERSION = re.compile(r"v?\d+")


@dataclass(frozen=True, slots=True)
class Mapped:
    """What a workflow calls our options.

    Attributes:
        names: Option → the workflow's inputs: one, but for several images.
    """

    names: Mapping[str, tuple[str, ...]]

    def of(self, option: str) -> str | None:
        """Return the input of an option; None: the workflow has none."""
        return next(iter(self.names.get(option, ())), None)

    @property
    def files(self) -> frozenset[str]:
        """The inputs that take files."""
        return frozenset((*self.names.get("image", ()), *self.names.get("mask", ())))

    @property
    def texts(self) -> frozenset[str]:
        """The inputs that take a text of ours, which is never the name of a file."""
        return frozenset(self.names.get("prompt", ()) + self.names.get("negative", ()))

    def capabilities(self) -> Capabilities:
        """Return what the workflow takes; open, as it may take anything besides."""
        options = {}
        for option, names in self.names.items():
            if option == "prompt":
                continue
            kind = _OPTIONS[option]
            several = len(names) > 1
            most = float(len(names)) if several else None
            options[option] = Field(names[0], "files" if several else kind, maximum=most)
        own = {name: Field(name, help="How the workflow is run.") for name in OWN}
        own |= {
            name: Field(name, "boolean", default=False)
            for name in ("randomise_seeds", "return_temp_files")
        }
        return Capabilities(options=options, extra=own, open=True)


def target(model: str) -> tuple[str, dict[str, str]]:
    """Return the workflow's id, and what chooses among its versions.

    >>> target("12345"), target("12345@test"), target("12345@v3")
    (('12345', {'alias_id': 'main'}), ('12345', {'alias_id': 'test'}), ('12345', {'version_id': 'v3'}))

    Raises:
        InputError: When it names no workflow.
    """
    workflow, separator, pointer = model.strip().partition("@")
    if not workflow or (separator and not pointer) or "@" in pointer:
        raise InputError(
            f"speedpix has no workflow named {model!r}.",
            hint="Names are WORKFLOW_ID, WORKFLOW_ID@ALIAS or WORKFLOW_ID@VERSION.",
        )
    if _VERSION.fullmatch(pointer):
        return workflow, {"version_id": pointer}
    return workflow, {"alias_id": pointer or "main"}


def mapped(setting: Any, workflow: str) -> Mapped:
    """Read the setting `inputs` for one workflow.

    >>> mapped("prompt=text seed=seed", "12345").of("prompt")
    'text'

    Args:
        setting: Option → input, with a table of its own for each workflow that differs; or
            `OPTION=INPUT` pairs, as in an environment variable. An empty name: not sent.
        workflow: Its id.

    Raises:
        SettingError: When there is no such option.
    """
    values = _pairs(setting) if isinstance(setting, str) else dict(setting or {})
    general = {name: value for name, value in values.items() if not isinstance(value, Mapping)}
    own = values.get(workflow)
    found: dict[str, tuple[str, ...]] = {}
    for option, value in {**_USUAL, **general, **(own if isinstance(own, Mapping) else {})}.items():
        if option not in _OPTIONS:
            near = closest(option, _OPTIONS)
            raise SettingError(
                f"providers.speedpix.inputs has no option {option!r}.",
                hint=f"Did you mean {' or '.join(near)}?" if near else f"There are {_LISTED}.",
            )
        names = tuple(map(str, value)) if isinstance(value, list | tuple) else (str(value or ""),)
        if len(names) > 1 and option != "image":
            raise SettingError(
                f"providers.speedpix.inputs: {option} has several inputs.",
                hint="Only image may have a list.",
            )
        if all(names) and names:
            found[option] = names
    return Mapped(found)


_LISTED = ", ".join(_OPTIONS)


def _pairs(text: str) -> dict[str, Any]:
    """`prompt=text image=person,garment` → option → input."""
    found: dict[str, Any] = {}
    for word in text.split():
        option, separator, name = word.partition("=")
        if not separator:
            raise SettingError(
                f"NBIMG_SPEEDPIX_INPUTS: {word!r} is not OPTION=INPUT.",
                hint="Write it like: prompt=text seed=seed",
            )
        found[option] = name.split(",") if "," in name else name
    return found

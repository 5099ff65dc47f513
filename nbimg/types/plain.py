"""JSON data out of the vocabulary's values.

Stage: below the vocabulary (`nbimg.types`). Comes in: a value. Goes out: dicts, lists, texts and numbers.
Must not: know the values, but for how they are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from nbimg.errors import InputError
from nbimg.types.size import Size

__all__ = ["NOTHING", "plain", "plain_fields", "put"]

#: The empty mapping; one for all: a batch may have 50,000 requests.
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


def put(target: Any, name: str, value: Any) -> None:
    """Set a field of a frozen value while it is made."""
    object.__setattr__(target, name, value)


def plain_fields(value: Any) -> dict[str, Any]:
    """Return every field of a dataclass as JSON data."""
    return {spec.name: plain(getattr(value, spec.name)) for spec in fields(value)}


def plain(value: Any) -> Any:
    """Return a value as JSON data.

    Raises:
        InputError: When it cannot be written as JSON.
    """
    if isinstance(value, Size | Path | StrEnum):
        return str(value)
    if type(value).__module__.startswith(f"{__package__}."):  # a value of the vocabulary
        written = getattr(value, "to_dict", None)
        return plain_fields(value) if written is None else written()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise InputError(
        f"a {type(value).__name__} cannot be written as JSON.", hint="Save it to a file first."
    )

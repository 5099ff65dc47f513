"""The models that nbimg knows by a short name: data in `catalog.toml`, read once.

Stage: below planning. Comes in: a name that a user typed. Goes out: a `ModelRef` and what the
catalogue says of it. Must not: ask a network; what a model takes is read from its provider's schema.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from nbimg.errors import UnknownNameError
from nbimg.types import ModelRef

__all__ = ["Entry", "Order", "entries", "fallbacks", "order", "resolve"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the catalogue.

    Attributes:
        ref: Provider, model and alias.
        about: One line.
        makes: Whether it works from a prompt alone.
        edits: Whether it takes an input image.
        price_usd: Per image; None: unknown.
        price_at: The day the price was read, `YYYY-MM-DD`.
    """

    ref: ModelRef
    about: str
    makes: bool = True
    edits: bool = False
    price_usd: float | None = None
    price_at: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """A provider's place in the order of preference, with its default models."""

    provider: str
    generate: str
    edit: str


@functools.cache
def _data() -> Mapping[str, list[dict[str, Any]]]:
    import tomllib
    from importlib import resources

    text = resources.files("nbimg.planning").joinpath("catalog.toml").read_text("utf-8")
    return tomllib.loads(text)


@functools.cache
def entries() -> Mapping[str, Entry]:
    """Return alias → entry, in the catalogue's order."""
    found = {}
    for row in _data()["model"]:
        values = dict(row)
        ref = ModelRef(values.pop("provider"), values.pop("model", ""), values.pop("alias"))
        found[str(ref.alias)] = Entry(ref, **values)
    return MappingProxyType(found)


@functools.cache
def order() -> tuple[Order, ...]:
    """Return the providers in the order in which one is chosen when none is named."""
    return tuple(Order(**row) for row in _data()["default"])


def fallbacks() -> tuple[Mapping[str, Any], ...]:
    """Return the tables of the fallback rules that ship; `nbimg.planning.fallback` reads them."""
    return tuple(_data()["fallback"])


def resolve(name: str, providers: Collection[str]) -> ModelRef:
    """Turn what a user typed into a model.

    Args:
        name: An alias, `provider:model`, or a provider that has only one model.
        providers: The names of the backends that exist.

    Raises:
        UnknownNameError: When it is none of these; it names the nearest.
    """
    name = name.strip()
    if name in entries():
        return entries()[name].ref
    provider, separator, model = name.partition(":")
    if separator and provider in providers and model:
        for entry in entries().values():
            if entry.ref.provider == provider and entry.ref.model == model:
                return entry.ref
        return ModelRef(provider, model)
    if separator and provider not in providers:
        raise UnknownNameError("provider", provider, known=providers)
    raise UnknownNameError(
        "model", name, known=[*entries(), *providers], hint="%imgmodels lists all."
    )

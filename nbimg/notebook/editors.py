"""Which models edit a picture, and which of them only where a mask says.

Stage: the front end, behind the gallery. Comes in: the session. Goes out: names, and the model for a mask. Must
not: ask a provider whose key is missing, or load a local model to learn what it takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from nbimg.credentials.given import PROVIDER_KEYS
from nbimg.errors import InputError
from nbimg.local import shelf
from nbimg.local.families import FAMILIES, tasks_of
from nbimg.planning import catalog
from nbimg.session import Session
from nbimg.types import Capabilities, ModelRef

__all__ = ["Editor", "editors", "masking"]


@dataclass(frozen=True, slots=True)
class Editor:
    """A model that edits.

    Attributes:
        name: What it is called in a cell.
        masks: Whether it takes a mask.
        price: US dollars an image; None: not known.
    """

    name: str
    masks: bool
    price: float | None = None


def editors(session: Session) -> list[Editor]:
    """Return the models that edit and can be used now: the configured one, the catalogue's, those on disk."""
    found = {
        alias: entry.price_usd
        for alias, entry in catalog.entries().items()
        if entry.edits and _ready(entry.ref.provider, session)
    }
    if named := session.settings.get("edit_model"):
        found = {str(named): found.pop(str(named), None), **found}
    known = session.registry.names()
    refs = [catalog.resolve(name, known) for name in found]
    takes = session.portal.call(_takes_masks, session, refs)
    remote = [
        Editor(name, masks, price)
        for (name, price), masks in zip(found.items(), takes, strict=True)
    ]
    return [*remote, *(one for one in _on_disk() if one.name not in found)]


def masking(session: Session, model: str = "") -> str:
    """Return the model that is to change only what a mask says.

    Args:
        session: Where models, keys and settings are.
        model: The one that was picked; empty: the first that takes a mask.

    Raises:
        InputError: When it takes none, or none does; it says which does.
    """
    known = editors(session)
    able = [one.name for one in known if one.masks]
    if not able:
        raise InputError(
            f"{model or 'no model that can be used now'} takes {'no' if model else 'a'} mask.",
            hint="Clear the mask to change the whole picture, or name a model in NbImg.edit_model.",
        )
    if model in {one.name for one in known} - set(able):
        raise InputError(f"{model} takes no mask.", hint=f"{able[0]} does.")
    return model or able[0]


def _ready(provider: str, session: Session) -> bool:
    return provider not in PROVIDER_KEYS or session.keys.find(provider) is not None


def _on_disk() -> list[Editor]:
    """The pipelines of the hub's cache that are known to edit."""
    found = []
    for one in shelf.scan():
        tasks = tasks_of(one.pipeline, ()) if one.pipeline in FAMILIES else frozenset()
        if tasks & {"edit", "inpaint"}:
            found.append(Editor(f"local:{one.model}", "inpaint" in tasks, 0.0))
    return found


async def _takes_masks(session: Session, refs: Sequence[ModelRef]) -> list[bool]:
    """Ask what the models take; one that cannot be asked counts as one that takes none."""
    asked = [session.registry.get(ref.provider).capabilities(ref.model) for ref in refs]
    found = await asyncio.gather(*asked, return_exceptions=True)
    return [isinstance(can, Capabilities) and "mask" in can.options for can in found]

"""Hold the catalogue against what a provider says now: what changed, what is gone, which price is old.

Stage: above the session, for the command line. Comes in: a provider, the text of the catalogue. Goes out:
a line for each difference, and the text with them mended. What a model takes is never stored: that is read
live at each call. Names, descriptions and prices are written by hand, with the day on which they were read.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass

from nbimg.errors import InputError, NbimgError, UnknownNameError
from nbimg.planning import catalog
from nbimg.planning.catalog import Entry
from nbimg.session import Session
from nbimg.types import Capabilities

__all__ = ["OLD_DAYS", "Change", "changes", "mended"]

#: A price that was read longer ago is to be read again.
OLD_DAYS = 90
_DEFAULTS = {"makes": True, "edits": False}


@dataclass(frozen=True, slots=True)
class Change:
    """A difference between the catalogue and the provider.

    Attributes:
        alias: The model's short name.
        key: `makes`, `edits`, or empty for one that a person has to mend.
        value: What the provider says now.
        text: One line for a person.
    """

    alias: str
    key: str
    value: bool
    text: str


def changes(provider: str, session: Session, today: dt.date | None = None) -> tuple[Change, ...]:
    """Ask a provider for the models of the catalogue, and return what is different.

    Args:
        provider: Whose models.
        session: Where its key is.
        today: For the age of prices; None: the day of this machine.

    Raises:
        InputError: When the catalogue has no model of that provider.
        NbimgError: When the provider cannot be asked.
    """
    entries = {
        alias: entry for alias, entry in catalog.entries().items() if entry.ref.provider == provider
    }
    if not entries:
        raise InputError(f"the catalogue has no model of {provider!r}.")
    found = session.portal.call(_asked, tuple(entries.values()), session)
    day = today or dt.datetime.now(dt.UTC).date()
    return tuple(
        change
        for (alias, entry), can in zip(entries.items(), found, strict=True)
        for change in _compared(alias, entry, can, day)
    )


async def _asked(
    entries: Sequence[Entry], session: Session
) -> list[Capabilities | UnknownNameError]:
    async def ask(entry: Entry) -> Capabilities | UnknownNameError:
        try:
            return await session.registry.get(entry.ref.provider).capabilities(entry.ref.model)
        except UnknownNameError as error:
            return error

    return list(await asyncio.gather(*map(ask, entries)))


def _compared(
    alias: str, entry: Entry, can: Capabilities | NbimgError, today: dt.date
) -> list[Change]:
    if not isinstance(can, Capabilities):
        return [Change(alias, "", False, f"{alias}: {entry.ref.full} is gone.")]
    found = []
    for key, stored, live in (
        ("makes", entry.makes, can.makes),
        ("edits", entry.edits, "image" in can.options),
    ):
        if stored != live and not can.open:
            words = {"makes": "works from a prompt alone", "edits": "takes an input image"}[key]
            said = f"{alias}: {'now' if live else 'no longer'} {words}."
            found.append(Change(alias, key, live, said))
    if entry.price_at:
        days = (today - dt.date.fromisoformat(entry.price_at)).days
        if days > OLD_DAYS:
            text = f"{alias}: its price was read on {entry.price_at}, {days} days ago."
            found.append(Change(alias, "", False, text))
    return found


def mended(text: str, found: Sequence[Change]) -> str:
    """Return the text of the catalogue with what can be mended by a machine; all else stays as it is.

    Args:
        text: Of `catalog.toml`.
        found: What `changes` returned.
    """
    for change in found:
        if change.key:
            text = _set(text, change)
    return text


def _set(text: str, change: Change) -> str:
    pattern = rf'^\[\[model\]\]\nalias = "{re.escape(change.alias)}"\n(?:(?!\[\[).*\n?)*'
    block = re.search(pattern, text, re.MULTILINE)
    if block is None:
        raise InputError(f"the catalogue has no model {change.alias!r}.")
    lines = [
        line for line in block[0].rstrip("\n").split("\n") if not line.startswith(f"{change.key} =")
    ]
    if change.value != _DEFAULTS[change.key]:
        after = next(place for place, line in enumerate(lines) if line.startswith("about ="))
        lines.insert(after + 1, f"{change.key} = {str(change.value).lower()}")
    tail = block[0][len(block[0].rstrip("\n")) :]
    return text[: block.start()] + "\n".join(lines) + tail + text[block.end() :]

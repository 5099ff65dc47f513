"""Say in one line what was left behind in a folder, by whichever kernel.

Stage: the front end, part of what `%load_ext` imports. Comes in: the output folder, or counts. Goes out: a
line, or nothing. Must not: import what is heavy, write, or make a folder.
"""

from __future__ import annotations

import logging
from pathlib import Path

from nbimg.config import Settings
from nbimg.display import words
from nbimg.errors import NbimgError
from nbimg.store.left import Left, left

__all__ = ["render_left", "say_left"]

log = logging.getLogger("nbimg")


def say_left(settings: Settings) -> None:
    """Print a line when paid work waits in the output folder; loading goes on whatever is there."""
    try:
        folder = Path(settings.get("output_dir")).expanduser()
        line = render_left(left(folder / ".nbimg" / "journal.sqlite3"))
    except (NbimgError, OSError, RuntimeError) as error:  # a setting, a disk, a home that is none
        log.debug("what was left behind cannot be read: %s", error)
        return
    if line:
        print(f"nbimg: {line}")


def render_left(found: Left, batch: str | None = None) -> str:
    """Return what was left and how to take it up; empty when nothing was.

    Args:
        found: What was left.
        batch: Where; None: in the whole folder.
    """
    resume = f"%imgresume {batch}" if batch else "%imgresume"
    unsent = words.count(found.unsent, "task")
    it, was = ("it", "was") if found.unsent == 1 else ("them", "were")
    if not found.paid:
        sends = f"never sent. {resume} --remaining sends {it}."
        return f"{unsent} {was} {sends}" if found.unsent else ""
    them, were = ("it", "was") if found.paid == 1 else ("them", "were")
    what = words.count(found.paid, "image")
    line = f"{what} may be paid for and {were} not fetched. {resume} fetches {them}."
    return f"{line} {unsent} {was} never sent: --remaining." if found.unsent else line

"""Which local models are in memory, and how one is loaded or let go: a part of `%imgmodels`.

Stage: the front end, behind the magics. Comes in: the line of the magic. Goes out: text. Must not: import
torch to say that nothing is loaded.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from nbimg.errors import OptionError
from nbimg.planning import catalog
from nbimg.session import Session

__all__ = ["answer", "render_loaded"]


def answer(line: str, session: Session) -> str | None:
    """Do what `--load` or `--unload` asks for.

    Args:
        line: What follows `%imgmodels`.
        session: Where settings and backends are.

    Returns:
        What was done; None where the line asks for neither.

    Raises:
        NbimgError: When there is no such model, or it cannot be loaded.
    """
    flag, _, name = line.strip().partition(" ")
    name = name.strip()
    if flag == "--load":
        return _load(name, session)
    if flag == "--unload":
        return _unload(None if name in ("", "all") else name)
    return None


def render_loaded(pattern: str = "") -> str:
    """Return a line a model that is in memory and has the pattern in its name; empty where none is."""
    if "nbimg.backends.local" not in sys.modules:
        return ""
    every = sys.modules["nbimg.backends.local"].loaded()
    rows = [_line(row) for row in every if pattern.lower() in row.name.lower()]
    return "\n".join(["", "In memory (%imgmodels --unload lets go):", *rows]) if rows else ""


def _load(name: str, session: Session) -> str:
    if not name:
        raise OptionError("--load needs the name of a local model.", hint="--load local:OWNER/NAME")
    from nbimg.backends.local import DiffusersBackend

    ref = catalog.resolve(name, session.registry.names())
    backend = session.registry.get(ref.provider)
    if not isinstance(backend, DiffusersBackend):
        raise OptionError(f"{ref} does not run on this machine.", hint="Only local models load.")
    return _line(backend.load(ref.model, print))


def _unload(name: str | None) -> str:
    from nbimg.backends import local

    gone = local.unload(name)
    return "\n".join(f"let go: {_line(row)}" for row in gone) or "nothing is in memory."


def _line(row: Any) -> str:
    from nbimg.local.pipelines import readable_size

    ago = max(0, round(time.time() - row.used_utc))
    used = f"used {ago} s ago" if ago < 120 else f"used {ago // 60} min ago"
    tasks = " ".join(row.tasks) or "not used yet"
    placing = "" if row.placing == "whole" else f", {row.placing} in main memory"
    return f"{row.name:30} {tasks:20} {readable_size(row.size_bytes):>8} on {row.device}{placing}, {used}"

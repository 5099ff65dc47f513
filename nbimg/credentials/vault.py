"""Where other software keeps keys: the system's keyring, and Colab's secrets.

Stage: below the credentials. Comes in: the name of a variable. Goes out: its value, or None. Must not: raise
when there is no such place, or import one that is not there.

Both are asked in the caller's thread, never on the loop: a keyring may show a window, and Colab answers
the main thread only. Source for Colab: `google.colab.userdata` (read 2026-11-22), which raises errors of its
own for a secret that is not there, that the notebook may not read, or when no front end is open.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["COLAB", "KEYRING", "SERVICE", "forget", "keep", "keyring", "places"]

KEYRING = "the keyring"
COLAB = "Colab's secrets"
#: Under which name the keyring lists what nbimg keeps.
SERVICE = "nbimg"


def places() -> Mapping[str, Callable[[str], str | None]]:
    """Return the places that can be asked in this thread: name → variable → value."""
    found: dict[str, Callable[[str], str | None]] = {}
    if keyring() is not None:
        found[KEYRING] = _of_keyring
    main = threading.current_thread() is threading.main_thread()
    if main and "google.colab" in sys.modules:
        found[COLAB] = _of_colab
    return found


def keyring() -> Any:
    """Return the package `keyring` where it is installed and has a place to keep things; else None."""
    if "keyring" not in sys.modules and importlib.util.find_spec("keyring") is None:
        return None
    try:
        package = importlib.import_module("keyring")
        usable = package.get_keyring().priority > 0
    except Exception:  # each system has errors of its own for what it lacks
        return None
    return package if usable else None


def keep(variable: str, value: str) -> None:
    """Put a value into the keyring; raises whatever the keyring does."""
    keyring().set_password(SERVICE, variable, value)


def forget(variable: str) -> None:
    """Take a value out of the keyring, where it is in there; raises whatever the keyring does."""
    if _of_keyring(variable) is not None:
        keyring().delete_password(SERVICE, variable)


def _of_keyring(variable: str) -> str | None:
    try:
        found = keyring().get_password(SERVICE, variable)
    except Exception:  # locked, refused, no bus: as good as not there
        return None
    return str(found) if found else None


def _of_colab(variable: str) -> str | None:
    try:
        found = importlib.import_module("google.colab.userdata").get(variable)
    except Exception:  # not there, not granted, no front end
        return None
    return str(found) if found else None

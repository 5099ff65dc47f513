"""Load and unload the extension.

Stage: the front end. Comes in: IPython's shell. Goes out: our magics and completion in it, or not. Loading
twice, or again after unloading, leaves one of each.
"""

from __future__ import annotations

from typing import Any

from nbimg.notebook.complete import option_matcher
from nbimg.notebook.magics import NbImg

__all__ = ["load", "unload"]

_NAMES = ("imggen", "imgedit", "imgmodels")


def load(shell: Any) -> None:
    """Register the magics and the completion."""
    unload(shell)
    shell.register_magics(NbImg(shell))
    if shell.Completer is not None:
        shell.Completer.custom_matchers.append(option_matcher)


def unload(shell: Any) -> None:
    """Take them out again; images, journal and running jobs are not touched."""
    for kind in ("line", "cell"):
        for name in _NAMES:
            shell.magics_manager.magics[kind].pop(name, None)
    shell.configurables[:] = [c for c in shell.configurables if not isinstance(c, NbImg)]
    if shell.Completer is not None and option_matcher in shell.Completer.custom_matchers:
        shell.Completer.custom_matchers.remove(option_matcher)

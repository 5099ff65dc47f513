"""Load and unload the extension.

Stage: the front end. Comes in: IPython's shell. Goes out: our magics and completion in it, or not. Loading
twice, or again after unloading, leaves one of each. What an earlier kernel left behind is said in one line.
"""

from __future__ import annotations

import re
from typing import Any

from nbimg import config
from nbimg.notebook.awaited import Awaited
from nbimg.notebook.complete import option_matcher
from nbimg.notebook.left import say_left
from nbimg.notebook.magics import NbImg
from nbimg.text.options import MAGICS

__all__ = ["load", "unload"]

_NAMES = (
    *MAGICS,
    "imgmodels",
    "imgjobs",
    "imgcancel",
    "imgresume",
    "imgsetup",
    "imgpanel",
    "imggallery",
)
_FIRST_LINE = re.compile(rf"%%(?:{'|'.join(MAGICS)})\s")


def _with_body(lines: list[str]) -> list[str]:
    """Give a cell of one line a body, which IPython demands: `%%imggen --help` needs none."""
    return [*lines, "\n"] if len(lines) == 1 and _FIRST_LINE.match(lines[0]) else lines


# it would make a cell that is being typed look complete; IPython leaves such transforms out there
_with_body.has_side_effects = True  # type: ignore[attr-defined]


def load(shell: Any) -> None:
    """Register the magics and the completion; say what was left behind."""
    unload(shell)
    shell.register_magics(NbImg(shell))
    shell.input_transformers_cleanup.append(_with_body)
    shell.input_transformers_post.append(Awaited(shell))
    if shell.Completer is not None:
        shell.Completer.custom_matchers.append(option_matcher)
    say_left(config.kernel())


def unload(shell: Any) -> None:
    """Take them out again; images, journal and running jobs are not touched."""
    for kind in ("line", "cell"):
        for name in _NAMES:
            shell.magics_manager.magics[kind].pop(name, None)
    shell.magics_manager.registry.pop(NbImg.__name__, None)
    if _with_body in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.remove(_with_body)
    post = shell.input_transformers_post
    post[:] = [transform for transform in post if not isinstance(transform, Awaited)]
    shell.configurables[:] = [c for c in shell.configurables if not isinstance(c, NbImg)]
    if shell.Completer is not None and option_matcher in shell.Completer.custom_matchers:
        shell.Completer.custom_matchers.remove(option_matcher)

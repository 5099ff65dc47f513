"""Which cell asks: what the front end calls it, and the number of its execution.

Stage: the front end. Comes in: nothing; IPython is asked. Goes out: a `Cell`, or None outside of notebooks.
Must not: import IPython where it is not loaded already.
"""

from __future__ import annotations

import sys
from typing import Any

from nbimg.calls.cache import Cell

__all__ = ["cell"]


def cell() -> Cell | None:
    """Return the cell that runs now; None in a terminal or a plain program.

    JupyterLab, Notebook and VS Code send the cell's id with each execution (`metadata.cellId`); where a
    front end does not, the id is empty.
    """
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython is not None else None
    if getattr(shell, "kernel", None) is None:
        return None
    try:
        told = shell.get_parent().get("metadata", {}).get("cellId", "")
    except (AttributeError, LookupError):  # a thread that no cell has started
        told = ""
    return Cell(str(told or ""), int(shell.execution_count))

"""Turn a cell of ours into one that the kernel awaits, where it can.

Stage: the front end, between IPython's reading of a cell and its running. Comes in: the lines of a cell as
Python, its magics read. Goes out: the same, or the same awaited: then the notebook's other tasks and the
clicks on its widgets go on while it runs. Must not: touch a cell that someone else runs (`%%capture`,
`%%time`, `run_cell`): there nobody awaits.
"""

from __future__ import annotations

import re
import sys
from types import FrameType
from typing import Any

from nbimg.text.options import MAGICS

__all__ = ["Awaited"]

_CALL = re.compile(rf"get_ipython\(\)\.run_cell_magic\((?=['\"](?:{'|'.join(MAGICS)})['\"],)")
_AWAIT = "await get_ipython().magics_manager.registry['NbImg'].attend("
#: Who else runs cells; within these, nothing can be awaited.
_RUNNERS = frozenset(("_run_cell", "run_cell", "run_cell_async", "run_cell_magic", "run_code"))


class Awaited:
    """An input transformer of one shell; it comes last, when magics are calls.

    Args:
        shell: IPython's.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell

    def __call__(self, lines: list[str]) -> list[str]:
        """Return the lines of a cell, awaited where it is ours and the kernel itself runs it."""
        if len(lines) != 1 or not _CALL.match(lines[0]) or not self._can_await():
            return lines
        return [_CALL.sub(_AWAIT, lines[0], count=1)]

    def _can_await(self) -> bool:
        from IPython.core.interactiveshell import _asyncio_runner

        return (
            self._shell.autoawait
            and self._shell.loop_runner is _asyncio_runner
            and _kernel_asks(sys._getframe(2))  # noqa: SLF001  # nothing public tells who calls
        )


def _kernel_asks(frame: FrameType | None) -> bool:
    """Whether ipykernel has the cell read in order to run it itself."""
    while frame is not None and frame.f_code.co_name not in _RUNNERS:
        if frame.f_code.co_name == "do_execute":
            return str(frame.f_globals.get("__name__", "")).startswith("ipykernel.")
        frame = frame.f_back
    return False

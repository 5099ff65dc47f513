"""The live grid as a widget: one for a job, with a trait for each place and one for each picture.

Stage: the front end, below `live`. Comes in: the places of a board, pictures as bytes, numbers as text.
Goes out: one message whenever something has changed; what a press on Stop calls. Must not: know a job.

A picture is sent once. With a trait each, a page that is loaded again gets all of them from the kernel;
in one list, each new one would send all others again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from nbimg.display.board import Place
from nbimg.display.frame import Frame

__all__ = ["Screen"]

_HERE = Path(__file__).parent
_KERNEL = re.compile(r"kernel-([\w-]+)\.json\Z")


class Screen(anywidget.AnyWidget):
    """The live grid of one job.

    Args:
        stand: Where the pictures stand.
        size: How many places there are.
        feed: Whether the newest come first.
        pressed: Called when somebody presses Stop, in whatever thread the press arrives: it must only
            set a flag.

    Attributes:
        pages: The pages that have shown it; a second one was loaded while the job ran.
    """

    _esm = _HERE / "grid.js"
    _css = _HERE / "grid.css"
    frame = traitlets.Dict().tag(sync=True)
    header = traitlets.Dict().tag(sync=True)
    kernel = traitlets.Unicode().tag(sync=True)
    id = traitlets.Unicode().tag(sync=True)
    final = traitlets.Dict().tag(sync=True)
    final_metadata = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        stand: Frame,
        header: Mapping[str, Any],
        *,
        size: int,
        feed: bool,
        pressed: Callable[[], None],
    ) -> None:
        told = asdict(stand)
        frame = {
            "width": told["width_px"],
            "perRow": told["per_row"],
            **{name: told[name] for name in ("aspect", "rows", "columns", "across", "cells")},
            "feed": feed,
            "size": size,
        }
        self._pressed = pressed
        self._ending: tuple[dict[str, Any], dict[str, Any]] | None = None
        self.pages: set[str] = set()
        places = {f"t{k}": traitlets.Dict(None, allow_none=True) for k in range(size)}
        pictures = {f"p{k}": traitlets.Bytes(None, allow_none=True) for k in range(size)}
        # before there is anybody to tell: later each trait would be a message
        self.add_traits(**{n: trait.tag(sync=True) for n, trait in (places | pictures).items()})
        super().__init__(frame=frame, header=dict(header), kernel=_kernel_id())
        self.id = self.model_id
        self.on_msg(self._hear)
        _answer_beside(self.comm)

    def say(self, header: Mapping[str, Any]) -> None:
        """Renew what stands above the pictures."""
        if self.header != header:
            self.header = dict(header)

    def show(self, places: Mapping[int, Place], pictures: Mapping[int, bytes]) -> None:
        """Renew places and pictures, in one message."""
        with self.hold_sync():
            for slot, data in pictures.items():
                setattr(self, f"p{slot}", data)
            for slot, place in places.items():
                setattr(self, f"t{slot}", _told(place))

    def keep(self, data: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        """Have what the cell shows at its end ready for pages whose cell cannot be renewed any more.

        Those are pages that were loaded while the job ran, or later from a file that was saved meanwhile.
        """
        self._ending = dict(data), dict(metadata)
        with self.hold_sync():
            for name in self.trait_names(sync=True):
                if re.fullmatch(r"[tp]\d+", name):
                    setattr(self, name, None)
        if len(self.pages) > 1:
            self._end()

    def _end(self) -> None:
        assert self._ending is not None
        with self.hold_sync():
            self.final, self.final_metadata = self._ending

    def bundle(self, html: str, text: str) -> dict[str, Any]:
        """Return what is displayed: the widget, and for those who do not know widgets a line."""
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        return {
            "application/vnd.jupyter.widget-view+json": view,
            "text/html": html,
            "text/plain": text,
        }

    def _hear(self, _widget: Any, message: Any, _buffers: Any) -> None:
        if not isinstance(message, dict):
            return
        if message.get("kind") == "ready":
            self.pages.add(str(message.get("page")))
            if self._ending is not None:
                self._end()
        elif message.get("kind") == "stop":
            self._pressed()


def _told(place: Place) -> dict[str, Any]:
    return {
        "s": place.state,
        "w": place.word,
        "t": place.said,
        "c": place.caption,
        "p": place.share,
        "a": place.aspect,
        "n": place.turn,
        "v": isinstance(place.picture, bytes),
    }


def _answer_beside(comm: Any) -> None:
    """Let a press be heard while the cell blocks.

    ipykernel 7.4 sends what a page says to the thread that last said something to it, which is the one
    that a cell blocks; the page itself asks for one beside it.
    """
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda _data, default: default  # noqa: SLF001


def _kernel_id() -> str:
    """Return the id that a Jupyter server knows this kernel by; empty where there is none."""
    from ipykernel.connect import get_connection_file

    try:
        found = _KERNEL.search(os.fspath(get_connection_file()))
    except RuntimeError:  # not in a kernel
        return ""
    return found[1] if found else ""

"""Between a job and its screen: hears what happens, draws what has changed, gives the place up at the end.

Stage: the front end, below `live`. Comes in: events in the engine's thread, and now and then a turn to draw
in the thread that may. Goes out: what has changed, to the screen. Must not: wait for anything.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nbimg.display.board import Board
from nbimg.display.frame import Frame, frame
from nbimg.events import Event
from nbimg.notebook.pictures import Pictures, Thumb
from nbimg.notebook.screen import Screen
from nbimg.types import Request

__all__ = ["LiveGrid"]

#: A job that ran longer may be in a file that was saved meanwhile, with the widget in it.
KEPT_AFTER_S = 20.0
#: How many screens are kept after their end, for pages that are loaded again.
KEPT = 8

_kept: deque[Screen] = deque()


class LiveGrid:
    """The live grid of one job.

    Args:
        requests: What was asked for; empty: not known.
        thumb: Gives the small WebP of an image; None: it is made from the file.
        rows: Labels of the rows of a fan-out.
        columns_labels: Labels of its columns.
        columns: Tiles in a row, for a grid without axes.
        pressed: Called when Stop was pressed, in any thread.
    """

    def __init__(
        self,
        requests: Sequence[Request] = (),
        *,
        pressed: Callable[[], None],
        thumb: Thumb | None = None,
        rows: Sequence[str] = (),
        columns_labels: Sequence[str] = (),
        columns: int | None = None,
    ) -> None:
        self._board = Board(requests)
        self._pictures = Pictures(self._board, thumb)
        self._frame: Frame = frame(
            requests,
            rows=rows,
            columns_labels=columns_labels,
            columns=columns,
            flows=self._board.feed,
        )
        self._pressed = pressed
        self._screen: Screen | None = None
        self._begun_s = time.monotonic()

    def hear(self, event: Event) -> None:
        """Take in what has happened; in any thread, and at once."""
        self._pictures.hear(event)

    @property
    def pages(self) -> list[str]:
        """The pages that show it, or have shown it."""
        return sorted(self._screen.pages) if self._screen is not None else []

    @property
    def seen(self) -> bool:
        """Whether a page shows it."""
        return bool(self.pages)

    def bundle(self, header: Mapping[str, Any], html: str, text: str) -> dict[str, Any]:
        """Return what is displayed; a frontend without widgets takes the line of `html` or `text`."""
        if self._screen is None:
            self._screen = Screen(
                self._frame,
                header,
                size=self._board.size,
                feed=self._board.feed,
                pressed=self._pressed,
            )
        return self._screen.bundle(html, text)

    def draw(self, header: Mapping[str, Any], *, all_of_it: bool) -> None:
        """Bring the screen up to date; with `all_of_it` the pictures, too."""
        self._pictures.read()
        if self._screen is None:
            return
        self._screen.say(header)
        if all_of_it:
            places, pictures = self._pictures.changes()
            if places:
                self._screen.show(places, pictures)

    def end(self, data: Mapping[str, Any] | None, metadata: Mapping[str, Any]) -> None:
        """Give the place up to what is shown in the end; None: nothing is."""
        self._pictures.close()
        screen, self._screen = self._screen, None
        if screen is None:
            return
        long = time.monotonic() - self._begun_s > KEPT_AFTER_S
        if data is None or not (long or len(screen.pages) > 1):
            screen.close()
            return
        screen.keep(data, metadata)
        _kept.append(screen)
        while len(_kept) > KEPT:
            _kept.popleft().close()

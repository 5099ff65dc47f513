"""Between a job and its screen: hears what happens, keeps the board, makes the small pictures.

Stage: the front end, below `live`. Comes in: events in the engine's thread, and now and then a turn to draw
in the thread that may. Goes out: what has changed, to the screen. Must not: wait for anything: pictures are
made small in threads of their own, where they lie ready for the grid at the end, too.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any

from nbimg.display.board import Board
from nbimg.display.frame import Frame, frame
from nbimg.errors import NbimgError
from nbimg.events import Event
from nbimg.media import pixels
from nbimg.notebook.screen import Screen
from nbimg.types import ImageRecord, Request

__all__ = ["LiveGrid", "Thumb"]

log = logging.getLogger("nbimg")

Thumb = Callable[[ImageRecord, int], "bytes | None"]

#: Threads that make pictures small.
THREADS = 2
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
        self._frame: Frame = frame(
            requests,
            rows=rows,
            columns_labels=columns_labels,
            columns=columns,
            flows=self._board.feed,
        )
        self._thumb = thumb or _made
        self._pressed = pressed
        self._heard: SimpleQueue[Event] = SimpleQueue()
        self._small: dict[int, Future[bytes]] = {}  # pictures that are being made small
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="nbimg-thumb")
        self._screen: Screen | None = None
        self._begun_s = time.monotonic()

    def hear(self, event: Event) -> None:
        """Take in what has happened; in any thread, and at once."""
        self._heard.put(event)

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
        while True:
            try:
                self._board.add(self._heard.get_nowait())
            except Empty:
                break
        if self._screen is None:
            return
        self._screen.say(header)
        if not all_of_it:
            return
        changed = self._board.changes()
        pictures: dict[int, bytes] = {}
        for slot, place in changed.items():
            self._small.pop(slot, None)
            if isinstance(place.picture, ImageRecord):
                self._small[slot] = self._pool.submit(self._made_small, place.picture)
            else:
                pictures[slot] = place.picture or b""
        for slot in [slot for slot, made in self._small.items() if made.done()]:
            pictures[slot] = self._small.pop(slot).result()
        # a place changes when its picture is there: not done first, and a picture later
        places = self._board.places
        shown = {k: places[k] for k in {*changed, *pictures} if k not in self._small}
        if shown:
            self._screen.show(shown, pictures)

    def end(self, data: Mapping[str, Any] | None, metadata: Mapping[str, Any]) -> None:
        """Give the place up to what is shown in the end; None: nothing is."""
        self._pool.shutdown(wait=False, cancel_futures=True)
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

    def _made_small(self, image: ImageRecord) -> bytes:
        try:
            return self._thumb(image, pixels.THUMB_SIDE_PX) or b""
        except NbimgError:  # the grid at the end says so in its tile
            return b""
        except Exception:  # one picture that cannot be shown is not the end of the others
            log.debug("no small picture of %s", image.path, exc_info=True)
            return b""


def _made(image: ImageRecord, side_px: int) -> bytes | None:
    if image.kind != "image" or image.path is None:
        return None
    return pixels.thumbnail(image.read(), side_px=side_px)

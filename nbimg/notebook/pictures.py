"""The places of a job with their small pictures, as they change: the live grid and the panel show the same.

Stage: the front end, below live grid and panel. Comes in: events in the engine's thread, and now and then a
turn in the thread that shows them. Goes out: what has changed. Must not: wait for a picture while the job
runs: they are made small in threads of their own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue

from nbimg.display.board import Board, Place
from nbimg.errors import NbimgError
from nbimg.events import Event
from nbimg.media import pixels
from nbimg.types import ImageRecord

__all__ = ["Pictures", "Thumb"]

log = logging.getLogger("nbimg")

Thumb = Callable[[ImageRecord, int], "bytes | None"]

#: Threads that make pictures small.
THREADS = 2


class Pictures:
    """The pictures of one job.

    Args:
        board: The places.
        thumb: Gives the small WebP of an image; None: it is made from the file.
    """

    def __init__(self, board: Board, thumb: Thumb | None = None) -> None:
        self.board = board
        self._thumb = thumb or _made
        self._heard: SimpleQueue[Event] = SimpleQueue()
        self._small: dict[int, Future[bytes]] = {}  # pictures that are being made small
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="nbimg-thumb")

    def hear(self, event: Event) -> None:
        """Take in what has happened; in any thread, and at once."""
        self._heard.put(event)

    def read(self) -> None:
        """Put what was heard on the board."""
        while True:
            try:
                self.board.add(self._heard.get_nowait())
            except Empty:
                return

    def changes(self, *, all_of_it: bool = False) -> tuple[dict[int, Place], dict[int, bytes]]:
        """Return the places that have changed since the last call, and the pictures that are new.

        A place changes when its picture is there: it is not done first, and has a picture later. An empty
        picture is one that is gone.

        Args:
            all_of_it: Wait for the pictures that are being made small.
        """
        changed = self.board.changes()
        pictures: dict[int, bytes] = {}
        for slot, place in changed.items():
            self._small.pop(slot, None)
            if isinstance(place.picture, ImageRecord):
                self._small[slot] = self._pool.submit(self._made_small, place.picture)
            else:
                pictures[slot] = place.picture or b""
        for slot in [slot for slot, made in self._small.items() if all_of_it or made.done()]:
            pictures[slot] = self._small.pop(slot).result()
        places = self.board.places
        return {k: places[k] for k in {*changed, *pictures} if k not in self._small}, pictures

    def close(self) -> None:
        """Make no more pictures small."""
        self._pool.shutdown(wait=False, cancel_futures=True)

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

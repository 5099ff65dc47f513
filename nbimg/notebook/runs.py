"""The runs of a panel: what is being made, tile by tile, and what was made before.

Stage: the front end, behind the panel. Comes in: jobs. Goes out: messages with tiles as they change, previews
too, and the whole picture of it for a page that was loaded again. Any thread may ask.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nbimg.calls.jobs import Job
from nbimg.display.board import Board, Place
from nbimg.events import Finished
from nbimg.notebook.browse import Browse
from nbimg.notebook.pictures import Pictures, Thumb
from nbimg.notebook.watch import Tell, Watch
from nbimg.notebook.widget import Answer
from nbimg.results import ResultSet
from nbimg.store.index import key_of
from nbimg.types import ImageRecord, Request

__all__ = ["Runs"]

_KEPT = 30
#: Of so many images a run has a tile each; of a larger one it shows the latest.
TILES = 1000


class _Run:
    """One run: a tile for each image that was asked for."""

    def __init__(
        self, job: Job, requests: Sequence[Request], form: Mapping[str, Any], thumb: Thumb
    ) -> None:
        self.id, self.form, self.at_utc = job.id, form, time.time()
        self.pictures = Pictures(Board(requests, most=TILES), thumb)
        size = self.pictures.board.size
        self.tiles = [_tile(Place()) for _ in range(size)]
        self.thumbs = [b""] * size
        self.changes()

    def changes(self, *, all_of_it: bool = False) -> tuple[dict[str, Any], list[bytes]] | None:
        """Take in what has happened; return which tiles are other now, and the new pictures."""
        self.pictures.read()
        places, pictures = self.pictures.changes(all_of_it=all_of_it)
        for slot, data in pictures.items():
            self.thumbs[slot] = data
        for slot, place in places.items():
            self.tiles[slot] = {**_tile(place), "number": self.tiles[slot].get("number")}
        if not places:
            return None
        told = {"tiles": {slot: self.tiles[slot] for slot in places}, "pictures": list(pictures)}
        return told, list(pictures.values())


class Runs:
    """All runs of a panel, the newest first.

    Args:
        tell: Sends a message.
        browse: Knows the number of an image.
        thumb: Gives the small picture of an image.

    Attributes:
        last: The results of the run that has ended last.
    """

    def __init__(self, tell: Tell, browse: Browse, thumb: Thumb) -> None:
        self.last: ResultSet | None = None
        self._tell, self._browse, self._thumb = tell, browse, thumb
        self._watch = Watch(tell)
        self._runs: list[_Run] = []
        self._lock = threading.Lock()

    def begin(
        self,
        job: Job,
        requests: Sequence[Request],
        form: Mapping[str, Any],
        keep: Callable[[ResultSet], None],
    ) -> None:
        """Show a job; at its end `keep` gets the results."""
        run = _Run(job, requests, form, self._thumb)
        with self._lock:
            self._runs.insert(0, run)
            del self._runs[_KEPT:]
        self._tell({"event": "run", **_head(run), "tiles": run.tiles})
        job.listen(run.pictures.hear)

        def end(results: ResultSet) -> None:
            self.last = results
            keep(results)
            self._end(run, results)

        self._watch.begin(job, look=lambda _: self._look(run), end=end)

    def cancel(self, job: str) -> None:
        """Stop a run; what has finished is kept."""
        self._watch.cancel(job)

    def drop(self, job: str) -> None:
        """Take a run off the panel; its images stay in the folder."""
        with self._lock:
            self._runs = [run for run in self._runs if run.id != job]

    def told(self) -> Answer:
        """Return all runs as they stand; beside it their small pictures, in order."""
        with self._lock:
            runs = list(self._runs)
        about = [{**_head(run), "tiles": run.tiles, **self._watch.said(run.id)} for run in runs]
        return about, [thumb for run in runs for thumb in run.thumbs]

    def _look(self, run: _Run, *, all_of_it: bool = False) -> None:
        """Tell what has changed since."""
        changed = run.changes(all_of_it=all_of_it)
        if changed is not None:
            told, pictures = changed
            self._tell({"event": "tiles", "id": run.id, **told}, pictures)

    def _end(self, run: _Run, results: ResultSet) -> None:
        """Every tile now has its last word, and its number in the folder."""
        for result in results:  # also those of which nothing was heard
            run.pictures.hear(Finished(task=result.index, result=result))
        self._look(run, all_of_it=True)
        run.pictures.close()
        numbers = self._browse.numbers(tile.get("key") for tile in run.tiles)
        for tile, number in zip(run.tiles, numbers, strict=True):
            tile["number"] = number
        self._tell({"event": "numbers", "id": run.id, "numbers": numbers})


def _head(run: _Run) -> dict[str, Any]:
    return {"id": run.id, "form": run.form, "at": run.at_utc}


def _tile(place: Place) -> dict[str, Any]:
    """What the page is told of a place."""
    image = place.picture
    tile: dict[str, Any] = {
        "state": place.state,
        "word": place.word,
        "said": place.said,
        "caption": place.caption,
        "share": place.share,
        "preview": isinstance(image, bytes),
    }
    if isinstance(image, ImageRecord):
        size = {"width": image.width, "height": image.height, "seed": image.seed}
        tile |= {**size, "key": key_of(image), "kind": image.kind}
    return tile

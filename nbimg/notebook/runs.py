"""The runs of a panel: what is being made, tile by tile, and what was made before.

Stage: the front end, behind the panel. Comes in: jobs. Goes out: messages with tiles as they are there, and the
whole picture of it for a page that was loaded again. Any thread may ask.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nbimg.calls.jobs import Job
from nbimg.display import tile as tiles
from nbimg.display import words
from nbimg.display.grid import Thumb
from nbimg.events import Finished, Saved
from nbimg.media import pixels
from nbimg.notebook.browse import Browse
from nbimg.notebook.watch import Tell, Watch
from nbimg.notebook.widget import Answer
from nbimg.results import ResultSet
from nbimg.store.index import key_of
from nbimg.types import ImageRecord, Request, Status

__all__ = ["Runs"]

_KEPT = 30
_WAITING = {"state": "waiting", "label": ""}


class _Run:
    """One run: a tile for each image that was asked for."""

    def __init__(self, job: Job, requests: Sequence[Request], form: Mapping[str, Any]) -> None:
        self.id, self.form, self.at_utc = job.id, form, time.time()
        self.tiles: list[dict[str, Any]] = []
        self.thumbs: list[bytes] = []
        self.first: list[int] = []
        self.counts: list[int] = []
        for request in requests:
            self.first.append(len(self.tiles))
            self.counts.append(0)
            for _ in range(request.n):
                self.tiles.append({**_WAITING, "prompt": request.prompt})
                self.thumbs.append(b"")
        self.ended: set[int] = set()


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
        run = _Run(job, requests, form)
        with self._lock:
            self._runs.insert(0, run)
            del self._runs[_KEPT:]
        self._tell({"event": "run", **_head(run), "tiles": run.tiles})

        def end(results: ResultSet) -> None:
            self.last = results
            keep(results)
            self._end(run, results)

        self._watch.begin(job, look=lambda one: self._look(run, one), end=end)

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

    def _look(self, run: _Run, job: Job) -> None:
        """Take in what has happened since."""
        for event in tuple(job.events.copy()):
            if event.task is None or event.task >= len(run.first):
                continue
            if isinstance(event, Saved):
                self._saved(run, event.task, event.image)
            elif isinstance(event, Finished) and event.task not in run.ended:
                run.ended.add(event.task)
                self._finished(run, event)

    def _saved(self, run: _Run, task: int, image: ImageRecord) -> None:
        known = {tile.get("key") for tile in run.tiles[self._span(run, task)]}
        if key_of(image) not in known and task not in run.ended:
            place = run.first[task] + run.counts[task]
            run.counts[task] += 1
            self._show(run, place, image, {"state": "done"})

    def _finished(self, run: _Run, event: Finished) -> None:
        result = event.result
        span = self._span(run, event.task or 0)
        for place, image in zip(range(span.start, span.stop), result.images, strict=False):
            self._show(run, place, image, {"state": "done", "star": False})
        sign, word = tiles.STATUS[result.status]
        reason = words.shorten(tiles.reason_of(result), 200)
        for place in range(span.start + len(result.images), span.stop):
            state = "cancelled" if result.status is Status.CANCELLED else "failed"
            run.tiles[place] |= {"state": state, "label": f"{sign} {word}", "reason": reason}
            self._tell({"event": "tile", "id": run.id, "place": place, "tile": run.tiles[place]})

    def _show(self, run: _Run, place: int, image: ImageRecord, about: Mapping[str, Any]) -> None:
        if run.tiles[place].get("key") == key_of(image):
            return
        thumb = self._thumb(image, pixels.THUMB_SIDE_PX) or b""
        size = {"width": image.width, "height": image.height, "seed": image.seed}
        run.tiles[place] |= {**about, **size, "key": key_of(image), "kind": image.kind, "label": ""}
        run.thumbs[place] = thumb
        told = {"event": "tile", "id": run.id, "place": place, "tile": run.tiles[place]}
        self._tell(told, [thumb])

    def _end(self, run: _Run, results: ResultSet) -> None:
        """Every tile now has its last word, and its number in the folder."""
        for result in results:
            if result.index not in run.ended and result.index < len(run.first):
                run.ended.add(result.index)
                self._finished(run, Finished(task=result.index, result=result))
        numbers = self._browse.numbers(tile.get("key") for tile in run.tiles)
        for tile, number in zip(run.tiles, numbers, strict=True):
            tile["number"] = number
        self._tell({"event": "numbers", "id": run.id, "numbers": numbers})

    @staticmethod
    def _span(run: _Run, task: int) -> slice:
        ends = [*run.first[1:], len(run.tiles)]
        return slice(run.first[task], ends[task])


def _head(run: _Run) -> dict[str, Any]:
    return {"id": run.id, "form": run.form, "at": run.at_utc}

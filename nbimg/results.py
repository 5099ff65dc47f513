"""A set of results: what every call returns, and how it shows itself.

Stage: above display, below the session. Comes in: results in task order. Goes out: images, paths,
tables, a grid. Must not: make images; what it needs from a session is handed in.
"""

from __future__ import annotations

import importlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from nbimg import config
from nbimg.calls.again import Rerun, Sent, retried
from nbimg.display.bundle import bundle, render_text
from nbimg.display.grid import Thumb
from nbimg.store.index import key_of
from nbimg.store.marks import starred
from nbimg.types import ImageRecord, Result, Status

if TYPE_CHECKING:
    import pandas as pd
    import PIL.Image

__all__ = ["Rerun", "ResultSet", "Sent", "Usage"]

#: What shows a set as a gallery stands above; it is named here as the backends are in their registry.
_GALLERY = "nbimg.notebook.gallery"


@dataclass(frozen=True, slots=True)
class Usage:
    """What a call took.

    Attributes:
        processing_time_seconds: Of all tasks added up, in seconds; what was made on this machine counts
            for what its device took, once for all that shared a call.
        input_images: Images that were given.
        generated_images: Images that came back.
        succeeded: Tasks that are whole.
        failed: Tasks that are not.
        retries: Attempts beyond the first of their stage.
        rate_limited: Attempts that were told to slow down.
        cost_usd: In US dollars; None when any price is unknown.
        input_tokens: That the providers counted, where they do.
        output_tokens: The same for what they made.
        peak_memory_bytes: The most memory that a call took on this machine's device; 0: nobody counted.
    """

    processing_time_seconds: float = 0.0
    input_images: int = 0
    generated_images: int = 0
    succeeded: int = 0
    failed: int = 0
    retries: int = 0
    rate_limited: int = 0
    cost_usd: float | None = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    peak_memory_bytes: int = 0

    def __add__(self, other: Usage) -> Usage:
        costs = self.cost_usd, other.cost_usd
        sums = {
            name: getattr(self, name) + getattr(other, name)
            for name in (f.name for f in fields(self))
            if name not in ("cost_usd", "peak_memory_bytes")
        }
        return Usage(
            **sums,
            cost_usd=None if None in costs else sum(c or 0.0 for c in costs),
            peak_memory_bytes=max(self.peak_memory_bytes, other.peak_memory_bytes),
        )


class ResultSet(Sequence[Result]):
    """The results of a call, one a task, in the order of the tasks.

    Args:
        results: In order.
        thumb: Gives the small WebP of an image, with the longer side that is wanted in pixels.
        rows: Labels of the grid's rows, for a fan-out.
        columns_labels: Labels of its columns.
        columns: How many columns, when there are no labels.
        note: A line under the grid.
        rerun: What the session does for `retry_failed`.
        sent: The batches of the journal that the results are of.

    Attributes:
        sent: As given.
    """

    def __init__(
        self,
        results: Sequence[Result],
        *,
        thumb: Thumb = lambda _record, _side_px: None,
        rows: Sequence[str] = (),
        columns_labels: Sequence[str] = (),
        columns: int | None = None,
        note: str | None = None,
        rerun: Rerun | None = None,
        sent: Sequence[Sent] = (),
    ) -> None:
        self._results = tuple(results)
        self._thumb = thumb
        self._rows, self._columns_labels = tuple(rows), tuple(columns_labels)
        self._columns, self._note, self._rerun = columns, note, rerun
        self.sent = tuple(sent)

    def _subset(self, results: Sequence[Result]) -> ResultSet:
        return ResultSet(
            results, thumb=self._thumb, columns=self._columns, rerun=self._rerun, sent=self.sent
        )

    @overload
    def __getitem__(self, index: int) -> Result: ...
    @overload
    def __getitem__(self, index: slice) -> ResultSet: ...
    def __getitem__(self, index: int | slice) -> Result | ResultSet:
        if isinstance(index, slice):
            return self._subset(self._results[index])
        return self._results[index]

    def __len__(self) -> int:
        return len(self._results)

    def __iter__(self) -> Iterator[Result]:
        return iter(self._results)

    @property
    def ok(self) -> ResultSet:
        """The results that are whole."""
        return self._subset([result for result in self if result.status is Status.OK])

    @property
    def failed(self) -> ResultSet:
        """The results that are not; a partial one is here and keeps its images."""
        return self._subset([result for result in self if result.status is not Status.OK])

    @property
    def records(self) -> tuple[ImageRecord, ...]:
        """Every image record, flat and in order."""
        return tuple(image for result in self for image in result.images)

    @property
    def images(self) -> Sequence[PIL.Image.Image]:
        """Every image decoded, flat and in order; each is read when it is asked for."""
        return _Pictures([record for record in self.records if record.kind == "image"])

    @property
    def videos(self) -> tuple[ImageRecord, ...]:
        """The records of every video."""
        return tuple(record for record in self.records if record.kind == "video")

    @property
    def paths(self) -> list[Path]:
        """The path of every file, flat and in order."""
        return [record.path for record in self.records if record.path is not None]

    @property
    def urls(self) -> list[str]:
        """The provider's address of every image, flat and in order."""
        return [record.url for record in self.records if record.url is not None]

    def pick(self, *numbers: int) -> list[ImageRecord]:
        """Return images by their number, 0 for the first, as references for the next call."""
        return [self.records[number] for number in numbers]

    @property
    def starred(self) -> list[ImageRecord]:
        """The images that have a star in the gallery, as references for the next call."""
        folders = [Path(config.kernel().get("output_dir")).expanduser().absolute()]
        folders += [path.parent.absolute() for path in self.paths]
        keys = starred(folders)
        return [record for record in self.records if key_of(record) in keys]

    def gallery(self) -> Any:
        """Return a gallery of these images, a widget: large, to be compared, starred, edited."""
        return importlib.import_module(_GALLERY).of_results(self)

    def save(self, folder: str | Path) -> list[Path]:
        """Copy every file into a folder, under its own name or, where that is taken, with a number.

        Returns:
            Where the copies are, in order.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        return [r.save(_free(target / r.path.name)) for r in self.records if r.path is not None]

    def retry_failed(self, *, unknown: bool = False) -> ResultSet:
        """Fetch what is paid for and was not fetched, and make what is missing then.

        Nothing is paid twice: what may have been made, and can be neither fetched nor told, stays as it
        is and says so. What was sent with a seed is made with that seed.

        Args:
            unknown: Make anew also what may have been made and charged already.

        Returns:
            The whole set, in order.
        """
        if self._rerun is None or not self.failed:
            return self
        anew, sent = retried(self, self.sent, self._rerun, unknown=unknown)
        return ResultSet(
            [anew.get(result.index, result) for result in self],
            thumb=self._thumb,
            rows=self._rows,
            columns_labels=self._columns_labels,
            columns=self._columns,
            rerun=self._rerun,
            sent=sent,
        )

    @property
    def usage(self) -> Usage:
        """What the call took, added up over its tasks."""
        attempts = [attempt for result in self for attempt in result.attempts]
        costs = [result.cost_usd for result in self if result.images or result.cost_usd]
        known = [cost for cost in costs if cost is not None]
        return Usage(
            round(sum(map(_processing_s, self)), 3),
            sum(len(result.request.image) for result in self),
            len(self.records),
            len(self.ok),
            len(self.failed),
            sum(map(_retries, self)),
            sum(attempt.outcome == "BusyError" for attempt in attempts),
            sum(known) if len(known) == len(costs) else None,
            sum(result.usage.get("input_tokens", 0) for result in self),
            sum(result.usage.get("output_tokens", 0) for result in self),
            max((attempt.peak_memory_bytes for attempt in attempts), default=0),
        )

    def to_dicts(self) -> dict[str, Any]:
        """Return JSON data: what was made and what failed, a row a task."""
        return {
            "total_tasks": len(self),
            "successful_results": [_row(result) for result in self.ok],
            "failed_results": [_row(result) for result in self.failed],
        }

    def to_pandas(self) -> pd.DataFrame:
        """Return a table, a row an image (or a failed task)."""
        import pandas as pd

        rows = [
            {
                "task": result.index,
                "prompt": result.request.prompt,
                "model": result.model,
                "status": result.status.value,
                "seed": record.seed if record else None,
                "path": str(record.path) if record and record.path else None,
                "width": record.width if record else None,
                "height": record.height if record else None,
                "cost_usd": result.cost_usd,
                "error": str(result.error) if result.error else None,
            }
            for result in self
            for record in (result.images or (None,))
        ]
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        return render_text(self._results, note=self._note)

    def _repr_mimebundle_(
        self,
        include: Any = None,  # noqa: ARG002  # IPython's names
        exclude: Any = None,  # noqa: ARG002
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        return bundle(
            self._results,
            thumb=self._thumb,
            rows=self._rows,
            columns_labels=self._columns_labels,
            columns=self._columns,
            note=self._note,
        )


class _Pictures(Sequence["PIL.Image.Image"]):
    """Decoded images, each read from its file when it is asked for."""

    def __init__(self, records: Sequence[ImageRecord]) -> None:
        self._records = records

    @overload
    def __getitem__(self, index: int) -> PIL.Image.Image: ...
    @overload
    def __getitem__(self, index: slice) -> _Pictures: ...
    def __getitem__(self, index: int | slice) -> PIL.Image.Image | _Pictures:
        if isinstance(index, slice):
            return _Pictures(self._records[index])
        return self._records[index].pil()

    def __len__(self) -> int:
        return len(self._records)


def _row(result: Result) -> dict[str, Any]:
    row: dict[str, Any] = {
        "task_index": result.index,
        "prompt": result.request.prompt,
        "output_filename": result.request.output,
    }
    if result.images:
        row["generated_files"] = [
            {"url": image.url, "filename": os.fspath(image.path) if image.path else None}
            for image in result.images
        ]
    if result.status is not Status.OK:
        row["error"] = str(result.error or f"the task was {result.status}.")
    return row


def _processing_s(result: Result) -> float:
    """How long a task took: of the device where it was this machine's, which tasks share."""
    here = [attempt.seconds for attempt in result.attempts if attempt.stage == "local"]
    return sum(here) if here else result.seconds.running + result.seconds.download


def _retries(result: Result) -> int:
    """How many attempts failed and were followed by another one of their stage."""
    wrong = [a.stage for a in result.attempts if a.outcome not in ("ok", "CancelledError")]
    failed = sum(stage not in ("find", "run") for stage in wrong)
    again = wrong.count("run")
    last = 0 if result.error is None else max(1, result.request.n - len(result.images))
    return max(0, failed + again - last)


def _free(path: Path) -> Path:
    """The path, or the first one with a number that is not taken."""
    numbered = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))
    return next(
        candidate for candidate in itertools.chain([path], numbered) if not candidate.exists()
    )

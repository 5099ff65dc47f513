"""Folds events into counts that add up, and shows them in one or two lines.

Stage: while a cell runs. Comes in: events, in any order, some of them twice. Goes out: numbers,
HTML, terminal text. Must not: look at the clock; whoever draws says what time it is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from nbimg.display import words
from nbimg.display.html import Markup, clean, element
from nbimg.events import (
    Event,
    Finished,
    Notice,
    Planned,
    Preview,
    Retrying,
    Saved,
    Started,
    Step,
    Submitted,
    Waiting,
)
from nbimg.types import ImageRecord, Result, Status

__all__ = ["Fold", "Hold", "render_html", "render_text"]

RECENT_IMAGES = 20  # the rate is that of the last so many
KNOWN_FRACTION = 0.1  # of the first picture, before its steps foretell the rest
STOP_AFTER_S = 3.0  # what is over sooner needs no word about stopping
_SIGNS = (
    (Status.PARTIAL, "◐"),
    (Status.FAILED, "✕"),
    (Status.REFUSED, "⊘"),
    (Status.UNKNOWN, "?"),
    (Status.CANCELLED, "■"),
)
_RUNNING = (Started, Submitted, Step, Preview, Saved)
_HELD = (Waiting, Retrying)
_RANK = {Waiting: 0, Started: 1, Retrying: 2, Submitted: 3, Step: 4, Preview: 4, Saved: 5}


@dataclass(frozen=True, slots=True)
class Hold:
    """Why something waits.

    Attributes:
        reason: As whoever waits has put it.
        until_utc: Unix time; None: not known.
        retried: The task that is tried again then; None where that is not the point.
    """

    reason: str
    until_utc: float | None = None
    retried: int | None = None


@dataclass
class Fold:
    """What is known about a batch so far.

    Any order of the same events gives the same numbers, and at any time
    `done + running + waiting + queued == total` and `succeeded + failed + cancelled == done`.
    """

    _planned_tasks: int = 0
    _planned_images: int = 0
    _latest: dict[int, Event] = field(default_factory=dict)
    _steps: dict[int, Step] = field(default_factory=dict)
    _waits: dict[int, Waiting] = field(default_factory=dict)
    _saved: dict[int, dict[ImageRecord, float]] = field(default_factory=dict)
    _results: dict[int, Finished] = field(default_factory=dict)
    _retries: dict[tuple[int | None, str, int], Retrying] = field(default_factory=dict)
    _notices: dict[str, float] = field(default_factory=dict)
    _batch_hold: Waiting | None = None
    _first_utc: float | None = None
    _started_utc: float | None = None
    _moved_utc: float = 0.0

    def add(self, event: Event) -> None:
        """Take in one event."""
        self._first_utc = _earlier(event.at_utc, self._first_utc)
        if isinstance(event, Planned):
            self._planned_tasks = max(self._planned_tasks, event.tasks)
            self._planned_images = max(self._planned_images, event.images)
        elif isinstance(event, Notice):
            self._notices[event.text] = max(event.at_utc, self._notices.get(event.text, 0.0))
        elif isinstance(event, Finished):
            self._finish(event)
        elif isinstance(event, Waiting) and event.task is None:
            self._batch_hold = _later(event, self._batch_hold)
        elif isinstance(event, _RUNNING + _HELD):
            self._move(event)

    def _finish(self, event: Finished) -> None:
        task = event.result.index if event.task is None else event.task
        known = self._results.get(task)
        if known is None or (known.at_utc, repr(known)) <= (event.at_utc, repr(event)):
            self._results[task] = event
        self._moved_utc = max(self._moved_utc, event.at_utc)

    def _move(self, event: Event) -> None:
        if isinstance(event, Retrying):
            self._retries[event.task, event.stage, event.attempt] = event
        if event.task is None:
            return
        self._latest[event.task] = _later(event, self._latest.get(event.task))
        if isinstance(event, Step):
            self._steps[event.task] = _later(event, self._steps.get(event.task))
        if isinstance(event, Waiting):
            self._waits[event.task] = _later(event, self._waits.get(event.task))
        if isinstance(event, Saved):
            times = self._saved.setdefault(event.task, {})
            times[event.image] = _earlier(event.at_utc, times.get(event.image))
        if isinstance(event, _RUNNING):
            self._moved_utc = max(self._moved_utc, event.at_utc)
            if not isinstance(event, Saved):
                self._started_utc = _earlier(event.at_utc, self._started_utc)

    @property
    def total(self) -> int:
        """Tasks: those planned, or those seen where more were seen."""
        return max(self._planned_tasks, len(self._latest.keys() | self._results.keys()))

    @property
    def done(self) -> int:
        """Tasks that have ended, whichever way."""
        return len(self._results)

    @property
    def succeeded(self) -> int:
        """Tasks that gave all their images."""
        return sum(result.status is Status.OK for result in self.results)

    @property
    def cancelled(self) -> int:
        """Tasks that were stopped."""
        return sum(result.status is Status.CANCELLED for result in self.results)

    @property
    def failed(self) -> int:
        """Tasks that ended without all their images: failed, refused, partial or unknown."""
        return self.done - self.succeeded - self.cancelled

    @property
    def cached(self) -> int:
        """Tasks that came from the store."""
        return sum(result.cached for result in self.results)

    @property
    def running(self) -> int:
        """Tasks on their way."""
        return sum(isinstance(event, _RUNNING) for event in self._open().values())

    @property
    def waiting(self) -> int:
        """Tasks that wait for a limit or for their next try."""
        return sum(isinstance(event, _HELD) for event in self._open().values())

    @property
    def queued(self) -> int:
        """Tasks of which nothing was heard yet."""
        return self.total - self.done - self.running - self.waiting

    @property
    def retries(self) -> int:
        """Tries beyond the first."""
        return len(self._retries)

    @property
    def images(self) -> int:
        """Images that are there: as each result says, and before it as they are saved."""
        return sum(len(result.images) for result in self.results) + self._saved_early()

    @property
    def images_total(self) -> int:
        """Images that were planned, or made where more were made."""
        return max(self._planned_images, self.total, self.images)

    @property
    def cost_usd(self) -> float:
        """Money so far, as far as prices are known; what was cached cost nothing."""
        return sum(result.cost_usd or 0.0 for result in self.results if not result.cached)

    @property
    def results(self) -> tuple[Result, ...]:
        """What has ended, in task order."""
        return tuple(self._results[task].result for task in sorted(self._results))

    @property
    def last_notice(self) -> str | None:
        """The line that came last."""
        return max(self._notices, key=lambda text: (self._notices[text], text), default=None)

    def step(self) -> Step | None:
        """Return the step of the only running task, if it tells steps."""
        told = [task for task, event in self._open().items() if isinstance(event, _RUNNING)]
        return self._steps.get(told[0]) if len(told) == 1 else None

    def hold(self, now_utc: float) -> Hold | None:
        """Return what is waited for now, the longest wait first."""
        holds = [
            self._hold(task, event, now_utc)
            for task, event in self._open().items()
            if isinstance(event, _HELD)
        ]
        batch = self._batch_hold
        if batch and self.done < self.total and _still(batch, self._moved_utc):
            holds.append(Hold(batch.reason, batch.until_utc))
        current = [hold for hold in holds if hold.until_utc is None or hold.until_utc > now_utc]
        return max(current, key=_length, default=None)

    def elapsed_s(self, now_utc: float) -> float:
        """Return the time since the first event; after the last task, how long it all took."""
        end = self._moved_utc if self.total and self.done >= self.total else now_utc
        return max(0.0, end - self._first_utc) if self._first_utc is not None else 0.0

    def rate(self, now_utc: float) -> float | None:
        """Return images per second over the last that were made, not cached; None: unknown."""
        times = sorted(self._made_utc())
        begin = self._started_utc if self._started_utc is not None else self._first_utc
        if not times or begin is None:
            return None
        made = len(times)
        if made > RECENT_IMAGES:
            anchor = times[-RECENT_IMAGES - 1]
            recent = sum(time > anchor for time in times)
            begin, made = (anchor, recent) if recent else (begin, made)
        end = times[-1] if self.done >= self.total else max(now_utc, times[-1])
        return made / (end - begin) if end - begin > 0.05 else None

    def left_s(self, now_utc: float) -> float | None:
        """Return the seconds that the rest will take; None while that would be a guess."""
        if self.total and self.done >= self.total:
            return 0.0
        rate, begun = self.rate(now_utc), self._images_begun()
        rest = max(self._images_left() - begun, 0.0)
        if rate is not None:
            left = rest / rate
        elif self._started_utc is not None and begun >= KNOWN_FRACTION:
            left = (now_utc - self._started_utc) / begun * rest
        else:
            return None
        hold = self.hold(now_utc)
        return max(left, (hold.until_utc or 0.0) - now_utc if hold else 0.0, 0.0)

    def share(self) -> float:
        """Return how much is done, 0 to 1, steps of running tasks included."""
        if not self.total:
            return 0.0
        each = self.images_total / self.total
        parts = math.fsum(min(1.0, self._begun(task) / each) for task in self._open())
        return min(1.0, (self.done + parts) / self.total)

    def _open(self) -> dict[int, Event]:
        """The latest of each task that goes on."""
        return {task: self._latest[task] for task in self._latest.keys() - self._results.keys()}

    def _hold(self, task: int, event: Waiting | Retrying, now_utc: float) -> Hold:
        """Return what a task waits for; the wish of its provider says more than the next try."""
        if isinstance(event, Waiting):
            return Hold(event.reason, event.until_utc)
        wish = self._waits.get(task)
        if wish is not None and (wish.until_utc or 0.0) > now_utc:
            return Hold(wish.reason, wish.until_utc)
        return Hold(event.reason, event.at_utc + event.in_s, retried=task)

    def _saved_early(self) -> int:
        """Images on disk whose tasks go on."""
        return sum(len(self._saved.get(task, ())) for task in self._open())

    def _made_utc(self) -> Iterator[float]:
        """When each image was made: when it was saved, or else when its task had ended."""
        for task in self._open():
            yield from self._saved.get(task, {}).values()
        for task, ended in self._results.items():
            number = len(ended.result.images)
            if not ended.result.cached:
                known = sorted(self._saved.get(task, {}).values())[:number]
                yield from known + [ended.at_utc] * (number - len(known))

    def _begun(self, task: int) -> float:
        """Return what an open task amounts to, in images: those saved, and its steps since."""
        saved, step = self._saved.get(task, {}), self._steps.get(task)
        if step is None or step.total <= 0 or step.at_utc <= max(saved.values(), default=-math.inf):
            return float(len(saved))
        return len(saved) + min(1.0, step.done / step.total)

    def _images_left(self) -> float:
        """Images that are not on disk, those in the making included."""
        asked = sum(result.request.n for result in self.results)
        left = max(self.images_total - asked, self.total - self.done)
        return float(max(left - self._saved_early(), 0))

    def _images_begun(self) -> float:
        """What the steps of running tasks amount to, in images."""
        return math.fsum(map(self._begun, self._open())) - self._saved_early()


def render_html(fold: Fold, now_utc: float) -> Markup:
    """Return one line of numbers with a bar, and one of words where there is something to say."""
    bar = element(
        "progress",
        f"{fold.share():.0%}",
        value=f"{fold.share():.3f}",
        max=1,
        style={"width": "160px", "height": "8px", "vertical-align": "middle"},
    )
    numbers = element("span", " " + " · ".join(_numbers(fold, now_utc)))
    going = fold.done < fold.total and fold.elapsed_s(now_utc) >= STOP_AFTER_S
    stop = element("span", " · ■ Stop keeps what is done", style={"opacity": "0.66"})
    said = _said(fold, now_utc)
    second = (
        element("div", " · ".join(said), dir="auto", style={"opacity": "0.75"}) if said else None
    )
    style = {"font-size": "13px", "line-height": "1.5", "text-align": "left", "padding": "4px 0"}
    return element(
        "div", element("div", bar, numbers, stop if going else None), second, style=style
    )


def render_text(fold: Fold, now_utc: float, *, width: int = 20) -> str:
    """Return one line for a terminal, without a line end.

    Args:
        fold: What is known.
        now_utc: Unix time in seconds.
        width: Characters of the bar.
    """
    full = round(fold.share() * width)
    bar = "█" * full + "░" * (width - full)
    return clean(f"{bar} " + " · ".join([*_numbers(fold, now_utc), *_said(fold, now_utc)]))


def _numbers(fold: Fold, now_utc: float) -> list[str]:
    goal = words.count(fold.images_total, "image")
    parts = [f"{fold.images:,} of {goal}", *_pace(fold, now_utc)]
    if fold.cost_usd > 0:
        parts.append(words.money(fold.cost_usd))
    if fold.cached:
        parts.append(f"↺ {fold.cached} cached")
    endings = Counter(result.status for result in fold.results)
    parts += [f"{sign} {endings[status]} {status}" for status, sign in _SIGNS if endings[status]]
    return parts


def _pace(fold: Fold, now_utc: float) -> list[str]:
    """How fast it goes and how long it takes yet."""
    if fold.total == 0:
        return []
    parts = []
    step, rate, left = fold.step(), fold.rate(now_utc), fold.left_s(now_utc)
    if step is not None and fold.done < fold.total:
        parts.append(f"step {step.done} / {step.total}")
    if rate is not None and fold.images_total > 1:
        parts.append(words.rate(rate))
    elapsed = words.duration(fold.elapsed_s(now_utc))
    if fold.done >= fold.total:
        return [*parts, elapsed]
    known = f"{words.duration(_rounded(left))} left" if left is not None else f"{elapsed} so far"
    return [*parts, known]


def _said(fold: Fold, now_utc: float) -> list[str]:
    """What a person should know beyond numbers: waits, retries, the last notice."""
    parts = []
    if fold.done < fold.total:
        hold = fold.hold(now_utc)
        if hold is not None:
            parts.append(_wait(hold, now_utc, alone=fold.total == 1))
    if fold.retries:
        parts.append(words.count(fold.retries, "retry", "retries"))
    if fold.last_notice:
        parts.append(words.shorten(fold.last_notice, 160))
    return parts


def _wait(hold: Hold, now_utc: float, *, alone: bool) -> str:
    """Say a wait; a reason's details after the first colon are for the result, not for a line."""
    reason = words.shorten(hold.reason.partition(": ")[0], 100).removesuffix(".")
    if hold.until_utc is None:
        return f"waiting: {reason}" if reason else "waiting"
    left = words.duration(_rounded(hold.until_utc - now_utc))
    if hold.retried is not None:
        what = "" if alone else f"task {hold.retried + 1} "
        return f"trying {what}again in {left}" + (f" ({reason})" if reason else "")
    return f"{reason}, next try in {left}" if reason else f"next try in {left}"


def _rounded(seconds: float) -> float:
    """Return whole seconds, at least 1: a foretold tenth would be a lie."""
    return float(max(1, round(seconds)))


def _earlier(time_utc: float, known_utc: float | None) -> float:
    return time_utc if known_utc is None else min(time_utc, known_utc)


def _later(event: Any, known: Any) -> Any:
    """Return the event that happened later; at the same time, the one that is further on."""
    if known is None:
        return event
    old, new = ((one.at_utc, _RANK[type(one)]) for one in (known, event))
    if old != new:
        return event if new > old else known
    return max(known, event, key=repr)  # whichever, but the same in any order


def _length(hold: Hold) -> tuple[float, str, int]:
    return (hold.until_utc or 0.0, hold.reason, -1 if hold.retried is None else hold.retried)


def _still(batch: Waiting, moved_utc: float) -> bool:
    """Whether a wait of the whole batch may go on: one without an end ends when something moves."""
    return batch.until_utc is not None or batch.at_utc >= moved_utc

"""Folds events into counts that add up: what a job keeps about itself while it runs.

Stage: between the engine, whose thread adds events, and whoever draws, in any thread. Comes in: events, in
any order until a task has Finished, some of them twice. Goes out: numbers. Must not: look at the clock
(whoever draws says what time it is), or keep anything of a task that has ended but that it has: a batch of
fifty thousand that nobody watches must stay small.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

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
from nbimg.types import ImageRecord, Status

__all__ = ["Fold", "Hold"]

RECENT_IMAGES = 20  # the rate is that of the last so many
KNOWN_FRACTION = 0.1  # of the first picture, before its steps foretell the rest
_NANO = 1_000_000_000  # money is added up in whole billionths, which no order of adding changes
_RUNNING = (Started, Submitted, Step, Preview, Saved)
_HELD = (Waiting, Retrying)
_OF_TASKS = (*_RUNNING, *_HELD)
_RANK = {Waiting: 0, Started: 1, Retrying: 2, Submitted: 3, Step: 4, Preview: 5, Saved: 6}


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


@dataclass(slots=True)
class _Course:
    """What is known of a task that goes on; it is dropped when the task ends."""

    latest: Event
    step: Step | None = None
    steps: dict[int, tuple[Step, Step | None]] = field(default_factory=dict)  # variant: last, first
    previews: dict[int, Preview] = field(default_factory=dict)
    wait: Waiting | None = None
    saved: dict[ImageRecord, float] = field(default_factory=dict)
    tries: set[tuple[str, int]] = field(default_factory=set)

    def copy(self) -> _Course:
        return replace(self, steps=dict(self.steps), saved=dict(self.saved), tries=set(self.tries))

    def add(self, event: Event) -> None:
        self.latest = _later(event, self.latest)
        if isinstance(event, Step):
            self._add_step(event)
        elif isinstance(event, Preview):
            known = self.previews.get(event.variant, event)
            self.previews[event.variant] = max(known, event, key=lambda one: (one.at_utc, one.data))
        elif isinstance(event, Waiting):
            self.wait = _later(event, self.wait)
        elif isinstance(event, Saved):
            self.saved[event.image] = _earlier(event.at_utc, self.saved.get(event.image))
        elif isinstance(event, Retrying):
            self.tries.add((event.stage, event.attempt))

    def _add_step(self, event: Step) -> None:
        self.step = _later(event, self.step)
        last, first = self.steps.get(event.variant, (None, None))
        if event.done > 0 and (first is None or _moment(event) < _moment(first)):
            first = event
        self.steps[event.variant] = _later(event, last), first

    def begun(self) -> float:
        """Return what it amounts to, in images: those saved, and the steps since of those that are not."""
        return len(self.saved) + math.fsum(_share(last) for last, _ in self._going())

    def moved(self) -> tuple[float, float]:
        """Return what the steps after the first amount to, in images, and when the first had ended.

        The first step of an image warms up, and says little of the others.
        """
        known = [(last, first) for last, first in self._going() if first is not None]
        images = math.fsum(max(0.0, _share(last) - _share(first)) for last, first in known)
        return images, min((first.at_utc for _, first in known), default=math.inf)

    def _going(self) -> list[tuple[Step, Step | None]]:
        """The last and the first step of each image that is not there."""
        there_utc = max(self.saved.values(), default=-math.inf)
        return [pair for pair in self.steps.values() if pair[0].at_utc > there_utc]


@dataclass
class Fold:
    """What is known about a batch so far.

    Any order of the same events gives the same numbers, as long as the end of a task is its last and comes
    once; what is heard of a task after its end is ignored. At any time
    `done + running + waiting + queued == total` and `succeeded + failed + cancelled == done`.

    One thread adds while others read: a reader that wants numbers of one moment takes a `copy()`.
    """

    _planned_tasks: int = 0
    _planned_images: int = 0
    _open: dict[int, _Course] = field(default_factory=dict)
    _ended: bytearray = field(default_factory=bytearray)  # 1 where the task of that index has ended
    _done: int = 0
    _endings: Counter[Status] = field(default_factory=Counter)
    _images: int = 0
    _asked: int = 0
    _made: int = 0
    _recent_utc: list[float] = field(default_factory=list)
    _cached: int = 0
    _cost: int = 0
    _retries: int = 0
    _notice: tuple[float, str] | None = None
    _batch_hold: Waiting | None = None
    _first_utc: float | None = None
    _started_utc: float | None = None
    _stepped_utc: float | None = None
    _moved_utc: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, event: Event) -> None:
        """Take in one event."""
        with self._lock:
            self._first_utc = _earlier(event.at_utc, self._first_utc)
            if isinstance(event, Finished):
                self._finish(event)
            elif isinstance(event, Waiting) and event.task is None:
                self._batch_hold = _later(event, self._batch_hold)
            elif isinstance(event, _OF_TASKS):
                self._move(event)
            elif isinstance(event, Planned):
                self._planned_tasks = max(self._planned_tasks, event.tasks)
                self._planned_images = max(self._planned_images, event.images)
            elif isinstance(event, Notice):
                self._notice = max(self._notice or (0.0, ""), (event.at_utc, event.text))

    def copy(self) -> Fold:
        """Return the numbers of this moment, which nobody adds to."""
        with self._lock:
            return replace(
                self,
                _open={task: course.copy() for task, course in self._open.items()},
                _ended=bytearray(self._ended),
                _endings=self._endings.copy(),
                _recent_utc=self._recent_utc.copy(),
                _lock=threading.Lock(),
            )

    def _move(self, event: Event) -> None:
        if event.task is not None and self._has_ended(event.task):
            return
        if isinstance(event, _RUNNING):
            self._moved_utc = max(self._moved_utc, event.at_utc)
            if not isinstance(event, Saved):
                self._started_utc = _earlier(event.at_utc, self._started_utc)
            if isinstance(event, Step):
                self._stepped_utc = _earlier(event.at_utc, self._stepped_utc)
        if event.task is None:
            return
        course = self._open.get(event.task)
        if course is None:
            course = self._open[event.task] = _Course(event)
        course.add(event)

    def _finish(self, event: Finished) -> None:
        result = event.result
        task = result.index if event.task is None else event.task
        if self._has_ended(task):
            return
        self._ended.extend(bytes(max(0, task + 1 - len(self._ended))))
        self._ended[task] = 1
        self._done += 1
        self._moved_utc = max(self._moved_utc, event.at_utc)
        course = self._open.pop(task, None)
        if course is not None:
            self._retries += len(course.tries)
        self._endings[result.status] += 1
        self._images += len(result.images)
        self._asked += result.request.n
        if result.cached:
            self._cached += 1
        else:
            self._cost += round((result.cost_usd or 0.0) * _NANO)
            self._remember(event, course)

    def _has_ended(self, task: int) -> bool:
        return task < len(self._ended) and self._ended[task] == 1

    def _remember(self, ended: Finished, course: _Course | None) -> None:
        """When its images were made: when they were saved, or else when the task had ended."""
        number = len(ended.result.images)
        known = sorted(course.saved.values())[:number] if course is not None else []
        self._made += number
        for at_utc in (*known, *[ended.at_utc] * min(number - len(known), RECENT_IMAGES + 1)):
            heapq.heappush(self._recent_utc, at_utc)
            if len(self._recent_utc) > RECENT_IMAGES + 1:
                heapq.heappop(self._recent_utc)

    # ------------------------------------------------------------ counts

    @property
    def total(self) -> int:
        """Tasks: those planned, or those seen where more were seen."""
        return max(self._planned_tasks, len(self._open) + self._done)

    @property
    def done(self) -> int:
        """Tasks that have ended, whichever way."""
        return self._done

    @property
    def endings(self) -> Counter[Status]:
        """How many have ended in which way."""
        return self._endings

    @property
    def succeeded(self) -> int:
        """Tasks that gave all their images."""
        return self._endings[Status.OK]

    @property
    def cancelled(self) -> int:
        """Tasks that were stopped."""
        return self._endings[Status.CANCELLED]

    @property
    def failed(self) -> int:
        """Tasks that ended without all their images: failed, refused, partial or unknown."""
        return self.done - self.succeeded - self.cancelled

    @property
    def cached(self) -> int:
        """Tasks that came from the store."""
        return self._cached

    @property
    def running(self) -> int:
        """Tasks on their way."""
        return sum(isinstance(course.latest, _RUNNING) for course in self._open.values())

    @property
    def waiting(self) -> int:
        """Tasks that wait for a limit or for their next try."""
        return len(self._open) - self.running

    @property
    def queued(self) -> int:
        """Tasks of which nothing was heard yet."""
        return self.total - self.done - len(self._open)

    @property
    def retries(self) -> int:
        """Tries beyond the first."""
        return self._retries + sum(len(course.tries) for course in self._open.values())

    @property
    def images(self) -> int:
        """Images that are there: as each result says, and before it as they are saved."""
        return self._images + self._saved_early()

    @property
    def images_total(self) -> int:
        """Images that were planned, or made where more were made."""
        return max(self._planned_images, self.total, self.images)

    @property
    def cost_usd(self) -> float:
        """Money so far, as far as prices are known; what was cached cost nothing."""
        return self._cost / _NANO

    @property
    def last_notice(self) -> str | None:
        """The line that came last; one that ends in … says what goes on, and holds until something moves."""
        if self._notice is None:
            return None
        at_utc, text = self._notice
        return None if text.endswith("…") and self._moved_utc > at_utc else text

    # ------------------------------------------------------------ what goes on now

    def step(self) -> Step | None:
        """Return the step of the only running task, if it tells steps."""
        told = [course for course in self._open.values() if isinstance(course.latest, _RUNNING)]
        return told[0].step if len(told) == 1 else None

    def previews(self, most: int) -> list[bytes]:
        """Return what the first pictures of running tasks look like so far, as small image files."""
        shown = (
            course.previews[variant].data
            for _, course in sorted(self._open.items())
            for variant in sorted(course.previews)
        )
        return list(itertools.islice(shown, most))

    def hold(self, now_utc: float) -> Hold | None:
        """Return what is waited for now, the longest wait first."""
        holds = [
            _hold(task, course, now_utc)
            for task, course in self._open.items()
            if isinstance(course.latest, _HELD)
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
        times = sorted(heapq.nlargest(RECENT_IMAGES + 1, self._made_utc()))
        begin = self._started_utc if self._started_utc is not None else self._first_utc
        if not times or begin is None:
            return None
        if self._stepped_utc is not None and self._stepped_utc < times[0]:
            begin = self._stepped_utc  # what was loaded before is loaded
        made = self._made + self._saved_early()
        if made > RECENT_IMAGES:
            recent = sum(time > times[0] for time in times)
            begin, made = (times[0], recent) if recent else (begin, made)
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
        elif (pace := self._pace(now_utc)) is not None:
            left = rest / pace
        else:
            return None
        hold = self.hold(now_utc)
        return max(left, (hold.until_utc or 0.0) - now_utc if hold else 0.0, 0.0)

    def _pace(self, now_utc: float) -> float | None:
        """Return images per second by the steps of the first ones; loading and warming up are over."""
        moves = [course.moved() for course in self._open.values()]
        images = math.fsum(moved for moved, _ in moves)
        begin = min((begin for moved, begin in moves if moved > 0), default=math.inf)
        return images / (now_utc - begin) if images >= KNOWN_FRACTION and now_utc > begin else None

    def share(self) -> float:
        """Return how much is done, 0 to 1, steps of running tasks included."""
        if not self.total:
            return 0.0
        each = self.images_total / self.total
        parts = math.fsum(min(1.0, course.begun() / each) for course in self._open.values())
        return min(1.0, (self.done + parts) / self.total)

    def _saved_early(self) -> int:
        """Images on disk whose tasks go on."""
        return sum(len(course.saved) for course in self._open.values())

    def _made_utc(self) -> Iterator[float]:
        """When the last images were made: as they were saved, or else when their tasks had ended."""
        yield from self._recent_utc
        for course in self._open.values():
            yield from course.saved.values()

    def _images_left(self) -> float:
        """Images that are not on disk, those in the making included."""
        left = max(self.images_total - self._asked, self.total - self.done)
        return float(max(left - self._saved_early(), 0))

    def _images_begun(self) -> float:
        """What the steps of running tasks amount to, in images."""
        return math.fsum(c.begun() for c in self._open.values()) - self._saved_early()


def _hold(task: int, course: _Course, now_utc: float) -> Hold:
    """Return what a task waits for; the wish of its provider says more than the next try."""
    event, wish = course.latest, course.wait
    if isinstance(event, Waiting):
        return Hold(event.reason, event.until_utc)
    assert isinstance(event, Retrying)
    if wish is not None and (wish.until_utc or 0.0) > now_utc:
        return Hold(wish.reason, wish.until_utc)
    return Hold(event.reason, event.at_utc + event.in_s, retried=task)


def _share(step: Step) -> float:
    return min(1.0, step.done / step.total) if step.total > 0 else 0.0


def _moment(step: Step) -> tuple[float, int, int]:
    return step.at_utc, step.done, step.total


def _earlier(time_utc: float, known_utc: float | None) -> float:
    return time_utc if known_utc is None else min(time_utc, known_utc)


def _later(event: Any, known: Any) -> Any:
    """Return the event that happened later; at the same time, the one that is further on."""
    if known is None:
        return event
    old, new = ((one.at_utc, _RANK[type(one)]) for one in (known, event))
    if old != new:
        return event if new > old else known
    if event is known or isinstance(event, Preview):  # a picture, which makes no number
        return known
    return max(known, event, key=repr)  # whichever, but the same in any order


def _length(hold: Hold) -> tuple[float, str, int]:
    return (hold.until_utc or 0.0, hold.reason, -1 if hold.retried is None else hold.retried)


def _still(batch: Waiting, moved_utc: float) -> bool:
    """Whether a wait of the whole batch may go on: one without an end ends when something moves."""
    return batch.until_utc is not None or batch.at_utc >= moved_utc

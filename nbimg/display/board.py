"""What the live grid shows: a place for each picture to come, and what is known of it.

Stage: while a job runs. Comes in: what was asked for, then events, in any order and some of them twice.
Goes out: the places that have changed since somebody last asked. Must not: look at the clock, open a file,
know how it is drawn.

A few pictures have places of their own, in the order of the tasks, where the grid will have them. Of many,
or where nobody has said what is to come, the board shows the latest: the newest takes the oldest's place.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nbimg.display import tile as tiles
from nbimg.display import words
from nbimg.events import (
    Event,
    Finished,
    Preview,
    Retrying,
    Saved,
    Started,
    Step,
    Submitted,
    Waiting,
)
from nbimg.types import ImageRecord, Request, Result, Status

__all__ = ["PLACES", "Board", "Place"]

PLACES = 120
REASON_CHARACTERS = 160
WAIT_CHARACTERS = 60

_SIGNS = {status.value: f"{sign} {word}" for status, (sign, word) in tiles.STATUS.items()}
_UNDER_WAY = {"queued": "queued", "running": "making", "waiting": "waiting"}
_OF_TASKS = (Started, Submitted, Waiting, Retrying, Step, Preview, Saved)


@dataclass(frozen=True, slots=True)
class Place:
    """What one place shows.

    Attributes:
        state: `queued`, `running`, `waiting`, or how it has ended: a value of `Status`.
        word: The state as a person reads it, with a sign where it has ended.
        said: One more line: the step, what it waits for, why it failed, seed and model.
        caption: The beginning of the prompt.
        share: How much of it is made, 0 to 1; None: not known.
        aspect: Width through height of the picture; None: not known.
        turn: The how-manieth the picture is in the order of their coming; newer ones have higher ones.
        picture: The image that was made, the bytes of a preview, or nothing yet.
    """

    state: str = "queued"
    word: str = "queued"
    said: str = ""
    caption: str = ""
    share: float | None = None
    aspect: float | None = None
    turn: int = 0
    picture: ImageRecord | bytes | None = None


class Board:
    """The places of one job.

    Args:
        requests: What was asked for, in the order of the tasks; empty: that is not known.
        most: Of so many pictures each has a place of its own; of more, the latest have.

    Attributes:
        feed: Whether the newest pictures take the places of the oldest.
        size: How many places there are.
    """

    def __init__(self, requests: Sequence[Request] = (), *, most: int = PLACES) -> None:
        ends = list(itertools.accumulate(request.n for request in requests))
        self.feed = not requests or ends[-1] > most
        self.size = most if self.feed else ends[-1]
        self._first = [] if self.feed else [0, *ends]
        self._requests = requests
        self._places: dict[int, Place] = {}
        self._changed: set[int] = set()
        self._at: dict[tuple[int, int], int] = {}  # of a feed: whose place it is
        self._whose: dict[int, tuple[int, int]] = {}
        self._saved: dict[int, list[ImageRecord]] = {}
        self._ended = bytearray()
        self._turns = itertools.count(1)
        if not self.feed:
            for task, (begin, end) in enumerate(itertools.pairwise(self._first)):
                for slot in range(begin, end):
                    self._put(slot, Place(caption=self._caption(task)))

    def add(self, event: Event) -> None:
        """Take in one event."""
        if isinstance(event, Finished):
            task = event.result.index if event.task is None else event.task
            if not self._has_ended(task):
                self._finish(task, event.result)
        elif isinstance(event, _OF_TASKS) and event.task is not None:
            self._move(event.task, event)

    def changes(self) -> dict[int, Place]:
        """Return the places that have changed since the last call."""
        changed = {slot: self._places[slot] for slot in sorted(self._changed)}
        self._changed.clear()
        return changed

    @property
    def places(self) -> dict[int, Place]:
        """All places that show something."""
        return dict(self._places)

    def _move(self, task: int, event: Event) -> None:
        if self._has_ended(task):
            return
        if isinstance(event, Saved):
            self._save(task, event.image)
            return
        if isinstance(event, Preview):
            self._preview(task, event)
            return
        if isinstance(event, Step):
            self._step(task, event)
            return
        for slot in self._open(task):
            place = self._places[slot]
            if isinstance(event, Started | Submitted):
                place = replace(_state(place, "running"), said="", share=None)
            elif isinstance(event, Waiting):
                place = replace(_state(place, "waiting"), said=_why(event.reason))
            elif isinstance(event, Retrying):
                place = replace(_state(place, "waiting"), said=f"tries again: {_why(event.reason)}")
            self._put(slot, place)

    def _preview(self, task: int, event: Preview) -> None:
        slot = self._unmade(task, event.variant)
        if slot is not None:
            self._put(slot, replace(_state(self._places[slot], "running"), picture=event.data))

    def _step(self, task: int, event: Step) -> None:
        slot = self._unmade(task, event.variant)
        if slot is not None:
            said = (
                f"step {event.done} / {event.total}" if event.total != 100 else ""
            )  # a percentage
            share = min(1.0, event.done / event.total) if event.total > 0 else None
            self._put(slot, replace(_state(self._places[slot], "running"), said=said, share=share))

    def _unmade(self, task: int, variant: int) -> int | None:
        """The place of an image that is under way; None where it has none, or is there."""
        slot = self._slot(task, max(variant, len(self._saved.get(task, ()))))
        made = slot is not None and isinstance(self._places[slot].picture, ImageRecord)
        return None if made else slot

    def _save(self, task: int, image: ImageRecord, *, result: Result | None = None) -> None:
        known = self._saved.setdefault(task, [])
        if image not in known:
            known.append(image)
            slot = self._slot(task, len(known) - 1)
            if slot is not None:
                self._put(slot, self._with_image(self._places[slot], image, result))

    def _finish(self, task: int, result: Result) -> None:
        caption = self._caption(task, result.request)
        for image in result.images:
            self._save(task, image, result=result)
        made = len(self._saved.pop(task, ()))
        wanted = 1 if self.feed else self._first[task + 1] - self._first[task]
        for variant in range(made):
            slot = self._slot(task, variant, make=False)
            if slot is not None:
                place = replace(self._places[slot], caption=caption)
                if result.cached:
                    place = replace(place, word="↺ cached")
                self._put(slot, place)
        for variant in range(made, wanted):
            slot = self._slot(task, variant)
            if slot is not None:
                self._put(slot, self._without(replace(self._places[slot], caption=caption), result))
        self._ended.extend(bytes(max(0, task + 1 - len(self._ended))))
        self._ended[task] = 1
        for variant in range(max(made, wanted)):
            self._at.pop((task, variant), None)

    def _has_ended(self, task: int) -> bool:
        return task < len(self._ended) and self._ended[task] == 1

    def _with_image(self, place: Place, image: ImageRecord, result: Result | None) -> Place:
        aspect = image.width / image.height if image.width and image.height else place.aspect
        seed = "" if image.seed is None else f"seed {image.seed}"
        model = tiles.model_name(result.model) if result else ""
        return replace(
            _state(place, Status.OK.value),
            said=" · ".join(part for part in (seed, model) if part),
            share=None,
            aspect=aspect,
            turn=next(self._turns),
            picture=image,
        )

    def _without(self, place: Place, result: Result) -> Place:
        status = result.status if result.status is not Status.OK else Status.PARTIAL
        why = words.shorten(tiles.reason_of(result), REASON_CHARACTERS)
        ended = replace(_state(place, status.value), said=why, share=None, picture=None)
        return replace(ended, turn=next(self._turns))

    def _open(self, task: int) -> list[int]:
        """The places of a task that have no image yet; a task of a feed gets one."""
        made = len(self._saved.get(task, ()))
        if self.feed:
            slot = self._slot(task, made)
            return [] if slot is None else [slot]
        if task + 1 >= len(self._first):
            return []
        return list(range(self._first[task] + made, self._first[task + 1]))

    def _slot(self, task: int, variant: int, *, make: bool = True) -> int | None:
        """The place of a picture; None where there is none for it."""
        if not self.feed:
            begin, end = self._first[task : task + 2] if task + 1 < len(self._first) else (0, 0)
            return begin + variant if begin + variant < end else None
        key = (task, variant)
        if key not in self._at and make:
            slot = len(self._places) if len(self._places) < self.size else self._oldest()
            self._at.pop(self._whose.get(slot, key), None)
            self._at[key], self._whose[slot] = slot, key
            self._put(slot, Place(caption=self._caption(task), turn=next(self._turns)))
        return self._at.get(key)

    def _oldest(self) -> int:
        """The place that a new picture takes: the oldest that has ended, if any has."""
        order = {slot: (p.state in _UNDER_WAY, p.turn) for slot, p in self._places.items()}
        return min(order, key=order.__getitem__)

    def _caption(self, task: int, request: Request | None = None) -> str:
        """The beginning of the prompt, as it was asked for or else as the result has it."""
        known = self._requests[task] if task < len(self._requests) else request
        if known is None:
            return ""
        return words.shorten(known.prompt, tiles.CAPTION_CHARACTERS) or "(no prompt)"

    def _put(self, slot: int, place: Place) -> None:
        if self._places.get(slot) != place:
            self._places[slot] = place
            self._changed.add(slot)


def _state(place: Place, state: str) -> Place:
    """Return the place in a state, said as a person reads it."""
    return replace(place, state=state, word=_UNDER_WAY.get(state) or _SIGNS[state])


def _why(reason: str) -> str:
    return words.shorten(reason.partition(": ")[0], WAIT_CHARACTERS).removesuffix(".")

"""How many images at once: learned from memory and time; and what to do when memory runs out.

Stage: beside batching, on the worker thread. Comes in: how long each micro-batch took and what it needed.
Goes out: the size of the next one. Must not: call a pipeline, or keep a reference into a call that failed.
"""

from __future__ import annotations

import math
import statistics
import traceback
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from nbimg.local.device import Device, needed

__all__ = ["MOST", "Relief", "Sizes", "first_guess", "first_line", "forget", "out_of_memory"]

#: Most images in one call: beyond, nothing is gained, and the first picture comes late.
MOST = 32
#: A larger micro-batch has to make an image in at most this share of the time.
GAIN = 0.97
#: A smaller one than the first guess has to make an image in at most this share of its time: less than that
#: is what a machine that others use differs by from minute to minute.
CLEAR = 0.9
#: Of so many calls of a size the middle one counts: a machine is busy now and then, or for once is not.
COUNTED = 5
#: How much of the memory that is free a micro-batch may be expected to take.
SHARE = 0.9
#: Weights × pixels that keep a processor, or a graphics card, busy with one image.
_BUSY = {"cpu": 1e12}
_BUSY_CARD = 8e15

_WORDS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def first_guess(device: Device, weights: int, pixels: int) -> int:
    """Return how many images at once to begin with, before anything was measured.

    Batching helps while one image leaves the device idle: small networks, small images. At a megapixel
    on a large transformer it gains nothing and the first picture comes later.

    Args:
        device: Where.
        weights: Parameters of the network that denoises.
        pixels: Of one image.
    """
    busy = _BUSY.get(device.kind, _BUSY_CARD)
    exponent = round(math.log2(max(1.0, busy / max(1, weights * pixels))))
    return int(2 ** min(3, exponent))


@dataclass(slots=True)
class _Tried:
    """What is known of micro-batches of one size."""

    calls: int = 0
    took_s: deque[float] = field(default_factory=lambda: deque(maxlen=COUNTED))

    @property
    def each_s(self) -> float:
        """Seconds that an image takes."""
        return statistics.median(self.took_s)

    def add(self, each_s: float) -> None:
        """Write down one more."""
        if self.calls == 1 and each_s < self.took_s[0]:
            self.took_s.clear()  # the first one had to prepare things
        self.calls += 1
        self.took_s.append(each_s)


@dataclass(slots=True)
class _Known:
    """What is known of one model at one resolution."""

    limit: int
    tried: dict[int, _Tried] = field(default_factory=dict)
    each_bytes: float = 0.0


class Sizes:
    """The best size of a micro-batch for each model and resolution, as far as is known.

    Args:
        most: No micro-batch is larger.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: dict[Hashable, _Known] = {}

    def size(self, key: Hashable, left: int, first: int, room_bytes: int | None = None) -> int:
        """Return how many images to make in the next call.

        It begins with a guess, doubles while that makes an image faster and is expected to fit, and
        stays with the best; below the guess it goes where that is clearly faster. A size is tried twice
        before it counts as slower: the first call of a size may have to prepare things, and a machine is
        busy now and then.

        Args:
            key: The model and the resolution.
            left: How many images are still to be made.
            first: The guess to begin with.
            room_bytes: What is free; None: nobody knows.
        """
        known = self._of(key)
        want = first
        largest = max(known.tried, default=0)
        if largest >= max(1, min(first, known.limit)):
            best = min(known.tried, key=lambda size: (known.tried[size].each_s, size))
            if best < first and not self._clear(known, best, first):
                best = first
            doubtful = [size for size, one in known.tried.items() if one.calls == 1 and size > best]
            want = max(doubtful, default=best)
            if best == largest and self._gains(known, best):
                want = 2 * best
        if room_bytes is not None and known.each_bytes:
            want = min(want, int(SHARE * room_bytes / known.each_bytes))
        return max(1, min(want, known.limit, left))

    def worked(self, key: Hashable, size: int, seconds: float, used_bytes: int) -> None:
        """Write down a micro-batch that was made.

        Args:
            key: The model and the resolution.
            size: Of the micro-batch.
            seconds: How long a step of it took.
            used_bytes: What it took beyond the weights.
        """
        known = self._of(key)
        known.tried.setdefault(size, _Tried()).add(seconds / size)
        known.each_bytes = max(known.each_bytes, used_bytes / size)

    def failed(self, key: Hashable, size: int) -> None:
        """Write down that so many at once do not fit; from now on at most half are tried."""
        known = self._of(key)
        known.limit = max(1, size // 2)
        known.tried = {s: one for s, one in known.tried.items() if s <= known.limit}

    def limit(self, key: Hashable) -> int:
        """Return the most that may be tried at once."""
        return self._of(key).limit

    def _of(self, key: Hashable) -> _Known:
        return self._known.setdefault(key, _Known(self._most))

    @staticmethod
    def _clear(known: _Known, smaller: int, guess: int) -> bool:
        tried = known.tried.get(guess)
        return tried is None or known.tried[smaller].each_s <= CLEAR * tried.each_s

    @staticmethod
    def _gains(known: _Known, largest: int) -> bool:
        smaller = max((size for size in known.tried if size < largest), default=None)
        return smaller is None or known.tried[largest].each_s <= GAIN * known.tried[smaller].each_s


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device, or the machine, has no memory left."""
    torch, _ = needed()
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


def first_line(error: BaseException) -> str:
    """Return the first line of an error that says something, else its class."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)


def forget(error: BaseException | None) -> None:
    """Let go of all that the frames of an error hold, which a notebook would keep: tensors, pictures."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        following = error.__cause__ or error.__context__
        error.__traceback__ = error.__cause__ = error.__context__ = None
        error = following


class Relief:
    """What can be done for one loaded model when a single image does not fit.

    Args:
        device: Where it runs.
        place: Moves the model: `parts` keeps in the card's memory what works, `layers` one layer at
            a time.
        at: How it is placed now: `whole`, `parts` or `layers`.
    """

    def __init__(self, device: Device, place: Callable[[str], None], at: str = "whole") -> None:
        self._device, self._place = device, place
        self._tiled = False
        self._at = at

    def next(self, pipe: Any) -> str | None:
        """Do the next thing that makes it smaller.

        Returns:
            What was done, in words; None where nothing is left to do.
        """
        vae = getattr(pipe, "vae", None)
        tiny = type(vae).__name__ == "AutoencoderTiny"  # needs little; its tiles fit one scale only
        if not self._tiled and vae is not None and not tiny:
            self._tiled = True
            done = [_enabled(vae, "enable_slicing"), _enabled(vae, "enable_tiling")]
            if any(done):
                return "the picture is decoded in tiles"
        ways = {
            "whole": ("parts", "parts that wait are kept in main memory"),
            "parts": ("layers", "the card holds one layer at a time"),
        }
        if self._device.kind == "cpu" or self._at not in ways:
            return None
        self._at, words = ways[self._at]
        self._place(self._at)
        return words


def _enabled(vae: Any, name: str) -> bool:
    """Call a switch of a decoder, where it has it: some raise instead."""
    try:
        getattr(vae, name)()
    except (AttributeError, NotImplementedError):
        return False
    return True

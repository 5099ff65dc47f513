"""Diffusers pipelines, loaded once and kept.

Stage: below the local backend. Comes in: a model's card, a task, a device. Goes out: a pipeline that is
ready to be called. The only place that keeps weights, and that lets them go. Must not: ask a network.
Loading, running and unloading happen on the one worker thread of a device.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from nbimg.errors import JobFailedError
from nbimg.local import shelf
from nbimg.local.device import Device, best_device, installed, needed, quiet
from nbimg.local.families import Task
from nbimg.local.loading import Tell, derive, load, move
from nbimg.local.manifest import Manifest
from nbimg.local.memory import Relief

__all__ = [
    "Loaded",
    "Pipelines",
    "Row",
    "best_device",
    "installed",
    "needed",
    "quiet",
    "readable_size",
]

#: What a call needs beside the weights, at least, in bytes.
MARGIN_BYTES = {"cpu": 500_000_000}
_MARGIN_CARD = 2_000_000_000

_Key = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Row:
    """What `%imgmodels` says of a loaded model.

    Attributes:
        name: As the user knows it.
        tasks: What it was used for, in order.
        size_bytes: Of its weights, which its tasks share.
        device: Where it is.
        placing: `whole`, or `parts` or `layers` where the card is too small for all of it.
        used_utc: When it was used last, Unix time in seconds.
    """

    name: str
    tasks: tuple[str, ...]
    size_bytes: int
    device: str
    placing: str
    used_utc: float


@dataclass(eq=False)
class Loaded:
    """The weights of one model on one device, and the pipelines that share them.

    Attributes:
        name: As the user knows it.
        base: The pipeline as its folder describes it.
        device: Where it runs.
        size_bytes: Of its weights.
        relief: What can be done when memory runs out.
        pipes: Task → pipeline.
        placing: `whole`, `parts` or `layers`.
        hooked: The pipeline whose parts are moved to and fro.
        used_utc: When it was used last.
    """

    name: str
    base: Any
    device: Device
    size_bytes: int
    placing: str
    relief: Relief = field(init=False)
    pipes: dict[str, Any] = field(default_factory=dict)
    hooked: Any = None
    used_utc: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self.relief = Relief(self.device, self.place, self.placing)

    def place(self, placing: str) -> None:
        """Keep only what works, or only the layer that works, in the memory of the card."""
        self.placing, self.hooked = placing, None
        for pipe in {id(pipe): pipe for pipe in (self.base, *self.pipes.values())}.values():
            pipe.remove_all_hooks()
        self.base.to("cpu", silence_dtype_warnings=True)

    def ready(self, pipe: Any) -> Any:
        """Return the pipeline with its parts where they have to be."""
        if self.placing == "whole" or self.hooked is pipe:
            return pipe
        if self.placing == "parts":
            try:
                pipe.enable_model_cpu_offload(
                    device=self.device.name
                )  # takes other hooks off first
            except ValueError:  # a class that does not tell in which order its parts work
                self.placing = "layers"
        if self.placing == "layers":
            pipe.remove_all_hooks()
            pipe.enable_sequential_cpu_offload(device=self.device.name)
        self.hooked = pipe
        return pipe


class Pipelines:
    """The models of a kernel, by folder, state of the folder, device and number format."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loaded: dict[_Key, Loaded] = {}

    def has(self, card: Manifest) -> bool:
        """Whether the weights of a model are loaded, as its folder is now."""
        start = (str(card.folder.resolve()), shelf.stamp(card.folder))
        with self._lock:
            return any(key[:2] == start for key in self._loaded)

    def get(
        self,
        card: Manifest,
        task: Task,
        device: str,
        dtype: str | None,
        tell: Tell = lambda _: None,
    ) -> Any:
        """Return the pipeline of a model for a task, see `load`."""
        return self.take(card, task, device, dtype, tell)[1]

    def take(
        self,
        card: Manifest,
        task: Task,
        device: str,
        dtype: str | None,
        tell: Tell = lambda _: None,
    ) -> tuple[Loaded, Any]:
        """Return a model and its pipeline for a task; the weights are loaded once for all its tasks.

        What was used least recently leaves when memory is short.

        Args:
            card: The model.
            task: What it is to do.
            device: `cpu`, `cuda` …
            dtype: `float32`, `bfloat16`, `float16`; None: what is right for the device.
            tell: Told in words how loading goes.

        Raises:
            JobFailedError: When it cannot be loaded, or does not do the task.
        """
        loaded = self.load(card, device, dtype, tell)
        if task not in loaded.pipes:
            loaded.pipes[task] = derive(card, loaded.base, task)
        loaded.used_utc = time.time()
        return loaded, loaded.ready(loaded.pipes[task])

    def load(
        self, card: Manifest, device: str, dtype: str | None, tell: Tell = lambda _: None
    ) -> Loaded:
        """Return the weights of a model, loaded if they are not.

        Raises:
            SetupError: When this diffusers does not have its class.
            JobFailedError: When it cannot be loaded, or main memory does not hold it.
        """
        where = Device(device)
        number = dtype or where.number_format()
        folder = str(card.folder.resolve())
        key = (folder, shelf.stamp(card.folder), device, number)
        with self._lock:
            found = self._loaded.get(key)
            stale = [k for k in self._loaded if k[0] == folder and k[1] != key[1]]
        if found is not None:
            return found
        for old in stale:  # its files have changed
            self._drop(old)
        weights = shelf.weigh(card.folder, number)
        placing = self._make_room(where, weights)
        size = sum(weights.values())
        if where.kind == "cpu" and size > (free := where.free_bytes()):
            raise JobFailedError(  # the kernel would be killed while it loads
                f"{card.name} needs {readable_size(size)} of main memory; {readable_size(free)} are free.",
                hint="Take a smaller model, or free memory: other kernels, %reset.",
                backend="local",
            )
        tell(f"loading {card.name} ({readable_size(size)}) on {device} …")
        base = load(card, number, tell)
        if placing == "whole" and not move(card, base, where):
            placing = "parts"  # others have taken memory meanwhile, or it is in pieces
        loaded = Loaded(card.name, base, where, size, placing)
        if placing != "whole":
            tell(
                f"{card.name} is larger than the card's memory: its {placing} are moved as they work."
            )
        with self._lock:
            self._loaded[key] = loaded
        return loaded

    def rows(self) -> tuple[Row, ...]:
        """Return what is loaded, the last used first."""
        with self._lock:
            some = sorted(self._loaded.values(), key=lambda one: -one.used_utc)
        return tuple(
            Row(
                one.name,
                tuple(one.pipes),
                one.size_bytes,
                one.device.name,
                one.placing,
                one.used_utc,
            )
            for one in some
        )

    def names_on(self, device: str) -> tuple[str, ...]:
        """Return the names of what is on a device."""
        return tuple(row.name for row in self.rows() if row.device == device)

    def unload(self, name: str | None = None, *, device: str | None = None) -> tuple[Row, ...]:
        """Let models go, and give their memory back.

        Args:
            name: As the user knows it; None: all.
            device: Only what is there; None: anywhere.

        Returns:
            What was let go.
        """
        rows = self.rows()
        with self._lock:
            keys = [
                key
                for key, one in self._loaded.items()
                if name in (None, one.name) and device in (None, one.device.name)
            ]
            gone = {self._loaded[key].name for key in keys}
        for key in keys:
            self._drop(key)
        return tuple(row for row in rows if row.name in gone and device in (None, row.device))

    def clear_others(self, keep: Loaded) -> tuple[str, ...]:
        """Let every other model of a device go; return their names."""
        with self._lock:
            keys = [
                key
                for key, one in self._loaded.items()
                if one is not keep and one.device == keep.device
            ]
            names = tuple(self._loaded[key].name for key in keys)
        for key in keys:
            self._drop(key)
        return names

    def _make_room(self, device: Device, weights: dict[str, int]) -> str:
        """Let go what was used least recently until the weights fit; return how they are placed."""
        margin = MARGIN_BYTES.get(device.kind, _MARGIN_CARD)
        total, largest = sum(weights.values()), max(weights.values(), default=0)
        while device.free_bytes() < total + margin:
            with self._lock:
                here = [
                    (one.used_utc, key) for key, one in self._loaded.items() if one.device == device
                ]
            if not here:
                break
            self._drop(min(here)[1])
        if device.kind == "cpu" or (free := device.free_bytes()) >= total + margin:
            return "whole"
        return "parts" if free >= largest + margin else "layers"

    def _drop(self, key: _Key) -> None:
        with self._lock:
            one = self._loaded.pop(key, None)
        if one is None:
            return
        device = one.device
        for pipe in (one.base, *one.pipes.values()):
            with contextlib.suppress(AttributeError, ValueError):
                pipe.remove_all_hooks()
        one.pipes.clear()
        one.base = one.hooked = one = pipe = None  # or this frame keeps what it should free
        device.release()


def readable_size(size_bytes: float) -> str:
    """Write a size for a person.

    >>> readable_size(6_900_000_000)
    '6.9 GB'
    """
    for unit in ("kB", "MB"):
        size_bytes /= 1000
        if size_bytes < 999.5:
            return f"{size_bytes:.3g} {unit}"
    return f"{size_bytes / 1000:.3g} GB"

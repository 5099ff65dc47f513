"""The machine that local models run on: which device there is, what is free on it, what is left behind.

Stage: below everything that loads or runs a model. Comes in: the name of a device. Goes out: bytes, torch
itself. The only place that asks torch about memory. Must not: import torch before a model is used.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import logging
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbimg.errors import DependencyMissingError, SettingError
from nbimg.local import ram
from nbimg.local.threads import gentle

__all__ = ["Device", "accelerator", "best_device", "find_device", "installed", "needed", "quiet"]

#: Files that are there when a driver is: NVIDIA's on Linux, under WSL and on Windows, and AMD's.
_DRIVERS = (
    "/dev/nvidiactl",
    "/proc/driver/nvidia/version",
    "/dev/dxg",
    "/dev/kfd",
    "C:/Windows/System32/nvcuda.dll",
)


def needed() -> tuple[Any, Any]:
    """Import torch and diffusers.

    Raises:
        DependencyMissingError: When one is not installed.
    """
    installed()
    with gentle():
        torch = importlib.import_module("torch")
    return torch, importlib.import_module("diffusers")


def installed() -> None:
    """Look for torch and diffusers without importing them, which takes seconds.

    Raises:
        DependencyMissingError: When one is not installed.
    """
    for name in ("torch", "diffusers", "transformers"):
        if importlib.util.find_spec(name) is None:
            raise DependencyMissingError(
                f"models on this machine need {name}, which is not installed.",
                hint="pip install 'nbimg[local]'",
            )


def best_device() -> str:
    """Return `cuda`, `mps` or `cpu`."""
    torch, _ = needed()
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def find_device(asked: str | None) -> str:
    """Return the device that a setting names, always by the same name; empty: the best.

    Raises:
        SettingError: When it means nothing, or torch does not find it here.
    """
    if not asked or not asked.strip():
        return best_device()
    name = asked.strip().lower()
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not number.isdecimal()):
        raise SettingError(f"device = {asked!r} is not one of cpu, cuda, mps; cuda:1 …")
    torch, _ = needed()
    there = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if kind in there and not there[kind]():
        raise SettingError(
            f"device = {asked!r}: torch finds none here.",
            hint="Leave it empty for the best one that there is.",
        )
    if kind != "cuda" or int(number or 0) == 0:
        return kind  # one card has one name: one worker, one model in its memory
    if int(number) >= (count := torch.cuda.device_count()):
        cards = ["cuda", *(f"cuda:{place}" for place in range(1, count))]
        raise SettingError(f"device = {asked!r}: there are {count} cards, {' and '.join(cards)}.")
    return f"cuda:{int(number)}"


def accelerator() -> str | None:
    """Return `cuda` or `mps` where there is one that torch can use, without importing torch; else None."""
    if "torch" in sys.modules and "diffusers" in sys.modules:
        found = best_device()
        return None if found == "cpu" else found
    try:
        installed()
    except DependencyMissingError:
        return None
    if sys.platform == "darwin":
        return "mps" if platform.machine() == "arm64" else None
    return "cuda" if _torch_has_cuda() and any(Path(path).exists() for path in _DRIVERS) else None


def _torch_has_cuda() -> bool:
    """Whether torch was built for a GPU, which its `version.py` says."""
    spec = importlib.util.find_spec("torch")
    places = (spec.submodule_search_locations if spec is not None else None) or ()
    for place in places:
        with contextlib.suppress(OSError):
            text = (Path(place) / "version.py").read_text("utf-8")
            return re.search(r"^(cuda|hip)\b[^=\n]*= *['\"]", text, re.MULTILINE) is not None
    return False


@dataclass(frozen=True, slots=True)
class Device:
    """Where a model runs.

    Attributes:
        name: `cpu`, `cuda`, `cuda:1`, `mps`.
    """

    name: str

    @property
    def kind(self) -> str:
        """The name without its number."""
        return self.name.partition(":")[0]

    def number_format(self) -> str:
        """Return the number format that is right here when none is asked for."""
        if self.kind == "cpu":
            return "float32"
        torch, _ = needed()
        old = self.kind == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
        return "float16" if old else "bfloat16"

    def free_bytes(self) -> int:
        """Return what can still be taken, what torch holds in reserve included."""
        torch, _ = needed()
        if self.kind == "cuda":
            reserve = torch.cuda.memory_reserved(self.name) - torch.cuda.memory_allocated(self.name)
            return int(torch.cuda.mem_get_info(self.name)[0] + reserve)
        if self.kind == "mps":
            used = torch.mps.driver_allocated_memory()
            return int(max(0, torch.mps.recommended_max_memory() - used))
        return ram.free_bytes()

    def used_bytes(self) -> int:
        """Return what is taken now: on a CPU the resident memory of this process."""
        torch, _ = needed()
        if self.kind == "cuda":
            return int(torch.cuda.memory_allocated(self.name))
        if self.kind == "mps":
            return int(torch.mps.current_allocated_memory())
        return ram.used_bytes()

    def begin_peak(self) -> None:
        """Forget the largest use so far."""
        if self.kind == "cuda":
            needed()[0].cuda.reset_peak_memory_stats(self.name)
        elif self.kind == "cpu":
            ram.begin_peak()

    def peak_bytes(self) -> int:
        """Return the largest use since `begin_peak`; what is used now, where nobody counts."""
        if self.kind == "cuda":
            return int(needed()[0].cuda.max_memory_allocated(self.name))
        return ram.peak_bytes() if self.kind == "cpu" else self.used_bytes()

    def release(self) -> None:
        """Give back what nothing refers to any more."""
        gc.collect()
        torch, _ = needed()
        if self.kind == "cuda":
            torch.cuda.empty_cache()
        elif self.kind == "mps":
            torch.mps.empty_cache()

    def finish(self) -> None:
        """Wait until the device has done what it was given, so that a clock tells the truth."""
        if self.kind == "cuda":
            needed()[0].cuda.synchronize(self.name)
        elif self.kind == "mps":
            needed()[0].mps.synchronize()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what the libraries say while they load out of the notebook, errors excepted."""
    names = ("diffusers", "transformers")
    for name in names:  # each sets its own level when it is first imported
        importlib.import_module(f"{name}.utils.logging")
    levels = {name: logging.getLogger(name).level for name in names}
    bars = [
        module
        for name in (f"{package}.utils.logging" for package in names)
        if (module := sys.modules.get(name)) is not None and module.is_progress_bar_enabled()
    ]
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        for module in bars:
            module.disable_progress_bar()
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for module in bars:
            module.enable_progress_bar()

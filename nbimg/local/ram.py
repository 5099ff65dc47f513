"""Main memory: what this process may still take, what it takes, and the most that it took.

Stage: below the device. Comes in: nothing. Goes out: bytes. Must not: import torch, or fail where a system
does not tell.

A processor has no allocator that raises in time: a process that takes more than there is is killed, and a
notebook's kernel with it. So what is free has to be known before, in a container as well.
"""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path

__all__ = ["begin_peak", "free_bytes", "peak_bytes", "used_bytes"]

_PROC = Path("/proc/self")
_GROUPS = Path("/sys/fs/cgroup")
#: Files of a control group: the most it may take, what it takes, and what of it can be given back at once.
_LIMITS = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def free_bytes() -> int:
    """Return what can still be taken, by the machine and by the container that this process is in."""
    import psutil

    left = _left_in_groups()
    free = psutil.virtual_memory().available
    return int(free if left is None else min(free, left))


def used_bytes() -> int:
    """Return the memory that is resident now."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def begin_peak() -> None:
    """Forget the largest use so far, where the system can (Linux)."""
    if _counts():
        _forget()


def peak_bytes() -> int:
    """Return the largest use since `begin_peak`; what is used now, where nobody counts."""
    return (_highest() if _counts() else None) or used_bytes()


def _forget() -> None:
    (_PROC / "clear_refs").write_text("5")


def _highest() -> int | None:
    """Return the most that was ever resident, or since it was forgotten."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = (_PROC / "status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    return None


@functools.cache
def _counts() -> bool:
    """Whether the system keeps the largest use, and forgets it when asked to; some sandboxes do not."""
    try:
        _forget()
    except OSError:
        return False
    return _highest() is not None


def _left_in_groups() -> int | None:
    """Return what the tightest control group of this process leaves; None: there is no limit."""
    left: list[int] = []
    with contextlib.suppress(OSError):
        for line in (_PROC / "cgroup").read_text().splitlines():
            _, kind, path = line.split(":", 2)
            if kind in _LIMITS:
                place = _GROUPS / kind / path.lstrip("/")
                while place.is_relative_to(_GROUPS / kind):
                    left += _left(place, *_LIMITS[kind])
                    place = place.parent
    return min(left, default=None)


def _left(place: Path, most: str, taken: str, cached: str) -> list[int]:
    """Return what one group leaves, if it says so."""
    with contextlib.suppress(OSError, ValueError):
        limit, now = (int((place / name).read_text()) for name in (most, taken))
        stat = dict(line.split() for line in (place / "memory.stat").read_text().splitlines())
        return [max(0, limit - now + int(stat.get(cached, 0)))]
    return []  # "max" is no number: no limit

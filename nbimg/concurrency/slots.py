"""The permits that all kernels of a machine share: one lock file each, which dies with its holder.

Stage: below the semaphores. Comes in: a name, and how many are wanted. Goes out: whether they are held.
Must not: wait, or know who waits.

The operating system takes a lock away when its process ends, however it ends, so a killed kernel's permits
are free at once. Kernels take turns by one more file: who finds all permits taken keeps the turn until one
is free, and then steps aside for longer than the others sleep, so that none is starved by a busier one.
"""

from __future__ import annotations

import hashlib
import os
import random
import tempfile
import time
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING

from nbimg.errors import SettingError

if TYPE_CHECKING:
    import filelock

__all__ = ["Slots", "nap_s"]

#: Who waits for another kernel looks again after so many seconds, between the two.
NAP_S = (0.03, 0.06)


def nap_s() -> float:
    """Return how long to sleep before another look: never in step with another kernel."""
    return random.uniform(*NAP_S)  # noqa: S311  # nothing secret


class Slots:
    """The permits of one name that this process holds.

    Kernels share them when they run under one user and see the same temporary folder.

    Args:
        name: Of the semaphore.

    Raises:
        SettingError: When lock files cannot be made in the temporary folder.
    """

    def __init__(self, name: str) -> None:
        plain = urllib.parse.quote(name, safe="")[:40]
        # names that differ only in case, or are long, are different files on every file system
        self._stem = f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
        self._held: dict[int, filelock.BaseFileLock] = {}
        self._turn: filelock.BaseFileLock | None = None
        self._aside_until = 0.0
        self._file("turn")

    def fill(self, count: int, limit: int) -> bool:
        """Hold at least `count` of the first `limit`; False when others hold too many of them now.

        It may be called again after it was interrupted anywhere.

        Raises:
            SettingError: When lock files cannot be made in the temporary folder.
        """
        while len(self._held) < count:
            if not self._take(limit):
                return False
        return True

    def trim(self, count: int) -> None:
        """Hold at most `count`."""
        while len(self._held) > count:
            number = next(reversed(self._held))
            self._held[number].release()
            self._held.pop(number, None)

    def rest(self) -> None:
        """Nobody here waits any longer: the turn is another kernel's."""
        if self._turn is not None:
            self._turn.release()
            self._turn = None

    def forget(self) -> None:
        """In a forked child: all of it is the parent's."""
        self._held, self._turn = {}, None

    def _take(self, limit: int) -> bool:
        waited = self._turn is not None
        if self._turn is None:
            if time.monotonic() < self._aside_until:
                return False
            self._turn = self._locked("turn")
        if self._turn is None:
            return False
        for number in range(limit):
            if number not in self._held and (lock := self._locked(str(number))) is not None:
                self._held[number] = lock
                break
        else:
            return False
        self.rest()
        if waited:
            self._aside_until = time.monotonic() + NAP_S[1]
        return True

    def _locked(self, what: str) -> filelock.BaseFileLock | None:
        """Return the lock of a file, or None while another process holds it."""
        import filelock  # 50 ms, for those who share only

        # not of one thread: a permit may be taken in one and given back in another
        lock = filelock.FileLock(self._file(what), blocking=False, thread_local=False)
        try:
            lock.acquire()
        except filelock.Timeout:
            return None
        except OSError as error:
            raise _unusable(error) from error
        return lock

    def _file(self, what: str) -> Path:
        try:
            return _folder() / f"{self._stem}.{what}.lock"
        except OSError as error:
            raise _unusable(error) from error


def _unusable(error: OSError) -> SettingError:
    return SettingError(
        f"permits cannot be shared with other kernels: {error}.",
        hint='scope="kernel" needs no files.',
    )


def _folder() -> Path:
    """Return the folder of this user, which nobody else can write to."""
    user = os.getuid() if hasattr(os, "getuid") else None
    folder = Path(tempfile.gettempdir(), "nbimg" if user is None else f"nbimg-{user}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if user is not None and folder.lstat().st_uid != user:
        raise PermissionError(f"{folder} belongs to somebody else")
    return folder

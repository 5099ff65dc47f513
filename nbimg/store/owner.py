"""Who runs a batch, and whether it still lives.

Stage: below the journal. Every process that writes a journal holds a lock file, named by a token, until it
ends; the token stands beside its batches. The system takes the lock back the moment a process dies, however
it dies, so that a reused process number, another clock or another host name cannot make a dead owner look
alive. Must not: wait for a lock.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import secrets
import socket
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock

__all__ = ["Owner", "alive"]

#: How long `alive` tries where another process may be asking the same for an instant.
PATIENCE_S = 0.03


class Owner:
    """This process, as the owner of its batches in one folder.

    Args:
        folder: Where the lock files are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._token = ""
        self._lock: BaseFileLock | None = None

    def hold(self) -> str:
        """Return the token whose lock this process holds; the first call takes it.

        Raises:
            OSError: When the folder cannot be written.
        """
        # somebody may have emptied the folder: whoever finds no file would take us for dead
        if self._lock is None or not _file(self._folder, self._token).exists():
            self._take()
        return self._token

    def release(self) -> None:
        """Let go: what is still open here is nobody's now."""
        lock, self._lock = self._lock, None
        if lock is not None:
            _held.discard(self._token)
            _drop(lock, _file(self._folder, self._token))

    def _take(self) -> None:
        from filelock import FileLock

        _guard_forks()
        self.release()
        self._folder.mkdir(parents=True, exist_ok=True)
        token = "-".join((*_machine(), str(os.getpid()), secrets.token_hex(6)))
        lock = FileLock(_file(self._folder, token), timeout=0, thread_local=False)
        try:
            lock.acquire()
        except (OSError, NotImplementedError):  # a drive without locks: the file says who we are
            _file(self._folder, token).touch()
        self._token, self._lock = token, lock
        _held.add(token)
        _owners.add(self)

    def _forget(self) -> None:
        """In a forked child: the lock is the parent's, and must neither be released nor kept here."""
        lock, self._lock = self._lock, None
        if lock is None:
            return
        _left_alone.append(lock)  # an end of it would be a release
        context = lock._context  # noqa: SLF001  # older versions of filelock do not know of forks
        descriptor = getattr(context, "lock_file_fd", None)
        if descriptor is not None:
            context.lock_file_fd = None
            os.close(descriptor)


def alive(folder: Path, token: str, *, patience_s: float = 0.0) -> bool:
    """Return whether the process that holds a token lives; a dead one's lock file is removed.

    Args:
        folder: Where the lock files are.
        token: What `hold` gave.
        patience_s: How long to try, where another process may be asking at the same instant.
    """
    if token in _held:
        return True
    path = _file(folder, token)
    if not token or not path.exists():
        return False
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=patience_s, thread_local=False)
    try:
        lock.acquire(poll_interval=PATIENCE_S / 10)
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return _runs(token)
    _drop(lock, path)
    return False


def _drop(lock: BaseFileLock, path: Path) -> None:
    """Release a lock and remove its file; a token is never used again, so nobody else can want it."""
    with contextlib.suppress(OSError):
        lock.release(force=True)
    with contextlib.suppress(OSError):  # who asks for it at this instant has it open, on Windows
        path.unlink()


def _file(folder: Path, token: str) -> Path:
    return folder / f"{token}.lock"


def _runs(token: str) -> bool:
    """Without locks: whether the process is there. Of another machine nobody here can tell: yes."""
    import psutil

    host, boot, pid, *_ = [*token.split("-"), "", "", "0"]
    here, this_boot = _machine()
    if host != here:
        return True
    number = int(pid) if pid.isdecimal() else 0
    return boot == this_boot and number != os.getpid() and bool(psutil.pid_exists(number))


@functools.cache
def _machine() -> tuple[str, str]:
    """A short name of this host, and of this run of it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
    except OSError:
        boot = ""  # elsewhere a process number is all there is
    return _short(socket.gethostname()), _short(boot)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:8]


#: Tokens that this process holds.
_held: set[str] = set()
_owners: weakref.WeakSet[Owner] = weakref.WeakSet()
_left_alone: list[BaseFileLock] = []


@functools.cache
def _guard_forks() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork)


def _after_fork() -> None:
    _held.clear()
    for owner in list(_owners):
        owner._forget()  # noqa: SLF001  # of this module

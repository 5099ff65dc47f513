"""What kind of drive a folder is on, and whether SQLite's write-ahead log is safe there.

Stage: below the journal. Comes in: a path. Goes out: a yes or no. A write-ahead log needs memory that all
who use the file share; over a network, or through most file systems in user space, each machine has its
own, and the file breaks (https://www.sqlite.org/wal.html, read 2025-11-20). Must not: write.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

__all__ = ["file_system", "keeps_wal"]

#: File systems that several machines share, or that reach this one from outside of it.
# fmt: off
_SHARED = frozenset((
    "9p", "afpfs", "afs", "beegfs", "ceph", "cifs", "davfs", "drvfs", "fakeowner", "gfs2",
    "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "prl_fs", "remote", "smb",
    "smb2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs", "webdav",
))
# fmt: on
#: File systems in user space: sshfs, Google Drive, buckets. `fuseblk` is a local NTFS disk.
_IN_USER_SPACE = ("fuse", "macfuse", "osxfuse")


class Mount(Protocol):
    """A row of the table of mounts, as psutil gives it."""

    @property
    def mountpoint(self) -> str: ...
    @property
    def fstype(self) -> str: ...
    @property
    def opts(self) -> str: ...


def keeps_wal(path: Path) -> bool:
    """Return whether a write-ahead log is safe at `path`, which need not exist; unknown: no."""
    kind = file_system(path)
    if kind is None or kind in _SHARED:
        return False
    return kind == "fuseblk" or not kind.startswith(_IN_USER_SPACE)


def file_system(path: Path, mounts: Iterable[Mount] | None = None) -> str | None:
    """Return the name of the file system at `path` in lower case; None: unknown.

    Args:
        path: A file or folder, which need not exist; links are followed.
        mounts: The table of mounts; None: this system's.
    """
    real = os.path.realpath(path)
    if real.startswith("\\\\"):  # Windows: \\server\share
        return "remote"
    found, length = None, -1
    for mount in _mounts() if mounts is None else mounts:
        point = mount.mountpoint
        # of two mounts on one place the later one hides the other
        if len(point) >= length and _holds(point, real):
            remote = "remote" in mount.opts.split(",")  # a network drive with a letter, on Windows
            found, length = "remote" if remote else mount.fstype.lower(), len(point)
    return found or None


def _holds(point: str, path: str) -> bool:
    point, path = os.path.normcase(point), os.path.normcase(path)
    return path == point or path.startswith(point.rstrip(os.sep) + os.sep)


def _mounts() -> Iterable[Mount]:
    import psutil

    try:
        mounts: Iterable[Mount] = psutil.disk_partitions(all=True)
    except (OSError, psutil.Error):  # a sandbox that does not tell
        return ()
    return mounts

from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from nbimg.store import drive


class Mount(NamedTuple):
    mountpoint: str
    fstype: str
    opts: str = "rw"


@pytest.fixture
def mounts(monkeypatch):
    """A table of mounts instead of the system's."""
    table = [Mount("/", "ext4")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: table)
    return table


@pytest.mark.parametrize(
    ("kind", "safe"),
    [
        *((name, True) for name in ("ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "APFS")),
        *((name, True) for name in ("NTFS", "fuseblk", "exfat")),
        *((name, False) for name in ("nfs", "nfs4", "cifs", "smb3", "9p", "afs", "SMBFS")),
        *(
            (name, False)
            for name in ("fuse.sshfs", "fuse.drive", "fuse", "fuse.gcsfuse", "macfuse")
        ),
        ("", False),
    ],
)
def test_a_drive_that_machines_share_keeps_no_write_ahead_log(mounts, kind, safe):
    mounts.append(Mount("/data", kind))
    assert drive.keeps_wal(Path("/data/deep/not/there/journal.sqlite3")) is safe
    assert drive.keeps_wal(Path("/data2/journal.sqlite3"))


def test_the_nearest_mount_counts_and_of_two_in_one_place_the_later(mounts):
    mounts += [Mount("/data/local", "xfs"), Mount("/data", "nfs"), Mount("/mnt", "nfs")]
    mounts += [Mount("/mnt", "ext4")]
    assert drive.file_system(Path("/data/x")) == "nfs"
    assert drive.file_system(Path("/data/local/x")) == "xfs"
    assert drive.file_system(Path("/data/localx")) == "nfs"
    assert drive.file_system(Path("/data")) == "nfs"
    assert drive.file_system(Path("/mnt/x")) == "ext4"


def test_a_link_leads_to_the_drive_it_points_to(mounts, tmp_path):
    mounts.append(Mount(str(tmp_path / "remote"), "nfs"))
    (tmp_path / "remote").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "remote")
    assert not drive.keeps_wal(tmp_path / "link" / "journal.sqlite3")


def test_a_network_drive_of_windows_and_what_nobody_knows_are_not_safe(mounts, monkeypatch):
    mounts[:] = [Mount("/", "NTFS", "rw,remote")]
    assert drive.file_system(Path("/x")) == "remote"
    monkeypatch.setattr(drive.os.path, "realpath", lambda path: r"\\server\share\x")
    assert drive.file_system(Path("x")) == "remote"
    monkeypatch.undo()
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: [])
    assert drive.file_system(Path("/x")) is None
    assert not drive.keeps_wal(Path("/x"))

    def refused(**_):
        raise PermissionError

    monkeypatch.setattr(psutil, "disk_partitions", refused)
    assert not drive.keeps_wal(Path("/x"))


def test_this_systems_own_table_is_read(tmp_path):
    assert drive.file_system(tmp_path)
    assert isinstance(drive.keeps_wal(tmp_path), bool)

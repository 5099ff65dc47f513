"""Real full and read-only drives, in a mount namespace of the test's own; elsewhere reported as not run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

UNSHARE = ("unshare", "-m") if os.name == "posix" and os.getuid() == 0 else ("unshare", "-Urm")


def _possible():
    try:
        trial = subprocess.run(
            [*UNSHARE, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
        )
    except OSError:
        return False
    return trial.returncode == 0


pytestmark = pytest.mark.skipif(not _possible(), reason="not run: needs a mount namespace (Linux)")

SETUP = """
import asyncio, errno, json, os, sqlite3, subprocess, sys
from pathlib import Path
from nbimg.backends.base import Call
from nbimg.errors import StoreWriteError
from nbimg.store import drive
from nbimg.store.journal import Journal, Row, left
from nbimg.types import ImageRecord, ModelRef, Request, Result
CALL = Call(ModelRef("p", "m"), "x", arguments={"text": "y" * 300})
ROWS = [Row(k, Request(f"x{k}"), "p:m", 1, 1, f"slot{k}") for k in range(20)]
PATH = Path("drive/out/.nbimg/journal.sqlite3").absolute()
def mount(*words):
    subprocess.run(["mount", *words], check=True)
def fill():
    with open("drive/filler", "ab", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError as error:
                assert error.errno == errno.ENOSPC
Path("drive").mkdir()
"""


def inside(script):
    """Run a script in a namespace of its own; return what it printed as JSON."""
    done = subprocess.run(
        [*UNSHARE, sys.executable, "-c", SETUP + script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


FILLS_UP = """
mount("-t", "tmpfs", "-o", "size=1m", "none", "drive")
async def go():
    journal = Journal(PATH)
    await journal.begin("b", ROWS, about={})
    told, errors = [], set()
    for k in range(5):
        told.append(await journal.intend("b", k, 0, CALL))
    fill()
    for k in range(5, 5 + 300):  # what is left of the last page and of the log fills up as well
        try:
            told.append(await journal.intend("b", k % 20, 0, CALL))
        except StoreWriteError as error:
            errors.add(str(error))
    os.remove("drive/filler")
    for number in told:
        await journal.submitted(number, f"job{number}")
    journal.close()
    after = Journal(PATH)
    (claimed,) = await after.claim()
    after.close()
    found = {sent.number: sent.job_id for task in claimed.tasks for sent in task.sent}
    whole = sqlite3.connect(PATH).execute("PRAGMA integrity_check").fetchall()
    print(json.dumps([sorted(errors), found == {n: f"job{n}" for n in told}, whole]))
asyncio.run(go())
"""


def test_a_disk_that_fills_up_is_one_clear_error_and_what_was_told_is_kept():
    errors, kept, whole = inside(FILLS_UP)
    assert len(errors) == 1
    assert "disk is full" in errors[0]
    assert "Free some room" in errors[0]
    assert "\n" not in errors[0]
    assert kept
    assert whole == [["ok"]]


FULL = """
mount("-t", "tmpfs", "-o", "size=64k", "none", "drive")
fill()
async def go():
    journal = Journal(PATH)
    try:
        await journal.begin("b", ROWS, about={})
    except StoreWriteError as error:
        print(json.dumps([str(error), list(left(PATH))]))
    journal.close()
asyncio.run(go())
"""


def test_a_disk_that_is_full_from_the_start_is_one_clear_error():
    error, found = inside(FULL)
    assert "the disk is full" in error
    assert found == [0, 0, 0]


FULL_WHEN_OPENED = """
mount("-t", "tmpfs", "-o", "size=1m", "none", "drive")
async def go():
    journal = Journal(PATH)
    await journal.begin("b", ROWS, about={})
    await journal.submitted(await journal.intend("b", 0, 0, CALL), "job")
    journal.close()
    fill()
    errors = set()
    for room in range(0, 80, 4):  # kB
        journal = Journal(PATH)
        try:
            await journal.intend("b", 1, 0, CALL)
        except StoreWriteError as error:
            errors.add(str(error))
        journal.close()
        found = list(left(PATH))
        assert found[1] >= 1, found
        os.truncate("drive/filler", os.path.getsize("drive/filler") - 4096)
    print(json.dumps(sorted(errors)))
asyncio.run(go())
"""


def test_a_disk_that_is_full_when_the_journal_is_opened_again_is_one_clear_error():
    errors = inside(FULL_WHEN_OPENED)
    assert errors
    assert all("the disk is full" in error for error in errors), errors


READ_ONLY = """
async def go():
    journal = Journal(PATH)
    await journal.begin("b", ROWS, about={})
    await journal.intend("b", 0, 0, CALL)
    image = ImageRecord(PATH.parents[1] / "red.png")
    number = await journal.intend("b", 1, 0, CALL)
    await journal.ended(number, [image], "b", Result(1, ROWS[1].request, "p:m", images=(image,)))
    if CRASH:
        journal._owner.release()
    else:
        journal.close()
    before = sorted(os.listdir(PATH.parent))
    mount("--bind", "drive", "drive")
    mount("-o", "remount,ro,bind", "drive")
    locked = Journal(PATH)
    errors = []
    for work in (lambda: locked.begin("c", ROWS, about={}), locked.claim):
        try:
            await work()
        except StoreWriteError as error:
            errors.append(str(error))
    found = await locked.find(["slot1"])
    path = str(found["slot1"].images[0].path)
    same = sorted(os.listdir(PATH.parent)) == before
    print(json.dumps([errors, path == str(image.path), list(left(PATH)), same]))
asyncio.run(go())
os._exit(0)
"""


@pytest.mark.parametrize("crash", [False, True])
def test_a_folder_that_is_read_only_can_still_be_read(crash):
    errors, found, remains, same = inside(READ_ONLY.replace("CRASH", str(crash)))
    assert len(errors) == 2
    assert all("cannot be written" in error and "output_dir" in error for error in errors)
    assert found
    assert remains == [1, 1, 18]
    assert same


OTHER_DRIVE = """
mount("-t", "tmpfs", "none", "drive")
Path("drive/deep").mkdir()
mount("-t", "ramfs", "none", "drive/deep")
print(json.dumps([drive.file_system(Path(p)) for p in ("drive/x", "drive/deep/not/there", "drive/deeper")]))
"""


def test_the_kind_of_a_real_mount_is_seen():
    assert inside(OTHER_DRIVE) == ["tmpfs", "ramfs", "tmpfs"]


def test_nothing_of_it_is_seen_outside():
    inside('mount("-t", "tmpfs", "none", "drive"); Path("drive/x").touch(); print("[]")')
    assert list(Path("drive").iterdir()) == []

import asyncio
import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from nbimg.backends.base import Call
from nbimg.errors import StoreWriteError
from nbimg.store import schema
from nbimg.store.database import Database, read
from nbimg.store.journal import Journal, Left, Row, left
from nbimg.types import ModelRef, Request

PATH = Path("nbimg-images/.nbimg/journal.sqlite3")
CALL = Call(ModelRef("p", "m"), "x")


@pytest.fixture
def database():
    one = Database(PATH.absolute())
    yield one
    one.close()


def value(database, statement):
    ((found, error),) = database.transact([lambda db: db.execute(statement).fetchone()])
    if error:
        raise error
    return found[0]


def header():
    return PATH.read_bytes()[18]


def traces():
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in Path().rglob("*")
        if path.is_file()
    }


def remote(monkeypatch):
    mount = SimpleNamespace(mountpoint="/", fstype="nfs4", opts="rw")
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: [mount])


def interrupted(ended=False):
    """A journal with one call that was intended, of a kernel that is gone."""

    async def go():
        journal = Journal(PATH.absolute())
        await journal.begin("b", [Row(0, Request("x"), "p:m", 1, 1)], about={})
        await journal.intend("b", 0, 0, CALL)
        journal.close()

    asyncio.run(go())


# ---------------------------------------------------------------- how it is written


def test_a_local_drive_has_a_write_ahead_log_that_is_flushed_at_every_commit(database):
    assert value(database, "PRAGMA journal_mode") == "wal"
    assert value(database, "PRAGMA synchronous") == 2  # FULL
    assert header() == 2


def test_a_network_drive_has_none_and_flushes_the_folder_as_well(database, monkeypatch):
    remote(monkeypatch)
    assert value(database, "PRAGMA journal_mode") == "delete"
    assert value(database, "PRAGMA synchronous") == 3  # EXTRA
    assert header() == 1
    assert [path.name for path in PATH.parent.iterdir()] == ["journal.sqlite3"]


def test_a_file_that_moves_to_a_network_drive_and_back_is_switched_and_loses_nothing(monkeypatch):
    interrupted()
    assert header() == 2
    with monkeypatch.context() as patch:
        remote(patch)
        journal = Journal(PATH.absolute())
        (claimed,) = asyncio.run(journal.claim())
        assert header() == 1
        names = {path.name for path in PATH.parent.iterdir()}
        assert names == {"journal.sqlite3", "owners"}
        assert len(claimed.tasks[0].sent) == 1
        other = Journal(PATH.absolute())  # the lock that the switch needed is not kept
        asyncio.run(asyncio.wait_for(other.begin("c", [], about={}), 5))
        other.close()
        journal.close()
        assert left(PATH.absolute()).paid == 1
    journal = Journal(PATH.absolute())
    assert len(asyncio.run(journal.claim())) == 1
    assert header() == 2
    journal.close()


CRASHING = """
import sqlite3, sys, os
from pathlib import Path
from nbimg.store.database import Database
database = Database(Path("nbimg-images/.nbimg/journal.sqlite3").absolute())
row = "INSERT INTO batch (id, at_utc, owner, state, about) VALUES ('b', 0, '', 'running', '{}')"
assert database.transact([lambda db: db.execute(row).rowcount])[0].value == 1
os._exit(0)
"""


def test_a_log_that_a_dead_process_left_is_read_on_a_network_drive(database, monkeypatch):
    """… without shared memory, which would not be shared there: its file is made impossible."""
    subprocess.run([sys.executable, "-c", CRASHING], check=True)
    assert PATH.with_name("journal.sqlite3-wal").exists()
    PATH.with_name("journal.sqlite3-shm").unlink()
    PATH.with_name("journal.sqlite3-shm").mkdir()
    remote(monkeypatch)
    assert value(database, "SELECT id FROM batch") == "b"
    assert value(database, "PRAGMA journal_mode") == "delete"


def test_where_the_log_is_refused_there_is_none(database, monkeypatch):
    real = schema._journal_mode

    def refusing(db, mode):
        return real(db, "PERSIST" if mode == "WAL" else mode)

    monkeypatch.setattr(schema, "_journal_mode", refusing)
    assert value(database, "PRAGMA journal_mode") == "delete"
    assert value(database, "PRAGMA synchronous") == 3


# ---------------------------------------------------------------- what is not ours, or broken


@pytest.mark.parametrize("garbage", [b"no database at all", os.urandom(5000), b"SQLite format 3\0"])
def test_a_file_that_is_no_database_is_named_and_left_as_it_is(database, garbage):
    PATH.parent.mkdir(parents=True)
    PATH.write_bytes(garbage)
    with pytest.raises(StoreWriteError, match=r"journal\.sqlite3 is damaged.*Move it away"):
        value(database, "SELECT 1")
    assert PATH.read_bytes() == garbage
    assert left(PATH.absolute()) == Left(0, 0, 0)
    with pytest.raises(StoreWriteError, match="damaged"):
        read(PATH, lambda db: db.execute("SELECT * FROM batch").fetchall(), None)


def test_a_truncated_journal_is_named_and_left_as_it_is():
    interrupted()
    whole = PATH.read_bytes()
    PATH.write_bytes(whole[: len(whole) // 2])
    journal = Journal(PATH.absolute())
    with pytest.raises(StoreWriteError, match=r"journal\.sqlite3 is damaged"):
        asyncio.run(journal.claim())
    with pytest.raises(StoreWriteError):
        asyncio.run(journal.begin("c", [Row(0, Request("x"), "p:m", 1, 1)], about={}))
    journal.close()
    assert PATH.read_bytes() == whole[: len(whole) // 2]
    assert left(PATH.absolute()) == Left(0, 0, 0)
    PATH.unlink()  # what the hint says
    interrupted()
    assert left(PATH.absolute()).paid == 1


def make_database(*statements):
    PATH.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(PATH)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


def test_a_database_of_something_else_is_left_as_it_is(database):
    make_database("CREATE TABLE batch (name TEXT)")
    before = traces()
    with pytest.raises(StoreWriteError, match="something else"):
        value(database, "SELECT 1")
    assert left(PATH.absolute()) == Left(0, 0, 0)
    assert traces() == before


def test_a_journal_of_a_newer_version_is_left_as_it_is(database):
    make_database("CREATE TABLE batch (name TEXT)", "PRAGMA user_version = 99")
    before = traces()
    with pytest.raises(StoreWriteError, match=r"newer nbimg.*Upgrade"):
        value(database, "SELECT 1")
    assert left(PATH.absolute()) == Left(0, 0, 0)
    assert traces() == before


OLD = (
    "CREATE TABLE batch (id TEXT PRIMARY KEY)",
    "CREATE TABLE task (batch TEXT, task INTEGER)",
    "CREATE TABLE call (id INTEGER PRIMARY KEY, state TEXT)",
    "CREATE INDEX open_calls ON call(state) WHERE state IN ('intended', 'submitted')",
    "INSERT INTO call (state) VALUES ('done')",
    "PRAGMA user_version = 1",
)


def test_an_older_journal_without_unfinished_work_is_begun_anew(database):
    make_database(*OLD)
    assert value(database, "PRAGMA user_version") == schema.VERSION
    assert value(database, "SELECT count(*) FROM call") == 0
    assert left(PATH.absolute()) == Left(0, 0, 0)


def test_an_older_journal_with_unfinished_work_is_left_as_it_is(database):
    make_database(*OLD, "INSERT INTO call (state) VALUES ('submitted')")
    before = traces()
    with pytest.raises(StoreWriteError, match="older nbimg and holds unfinished work"):
        value(database, "SELECT 1")
    assert left(PATH.absolute()) == Left(0, 0, 0)
    assert traces() == before


def test_a_folder_that_cannot_be_made_is_a_store_error():
    Path("file").write_text("")
    broken = Database(Path("file/journal.sqlite3").absolute())
    with pytest.raises(StoreWriteError, match="journal"):
        value(broken, "SELECT 1")


def test_a_folder_that_is_deleted_while_it_is_in_use_is_noticed():
    async def go():
        journal = Journal(PATH.absolute())
        await journal.begin("b", [Row(0, Request("x"), "p:m", 1, 1)], about={})
        number = await journal.intend("b", 0, 0, CALL)
        shutil.rmtree("nbimg-images")
        with pytest.raises(StoreWriteError, match="deleted meanwhile"):
            await journal.submitted(number, "job")
        await journal.begin("c", [Row(0, Request("x"), "p:m", 1, 1)], about={})
        await journal.submitted(await journal.intend("c", 0, 0, CALL), "job")
        journal.close()

    asyncio.run(go())
    assert left(PATH.absolute()) == Left(1, 1, 0)


def test_a_file_that_is_replaced_while_it_is_in_use_is_noticed(database):
    value(database, "SELECT 1")
    shutil.copytree("nbimg-images", "copy")
    for path in (PATH.parents[1], Path("copy")):
        for name in ("journal.sqlite3-wal", "journal.sqlite3-shm"):
            (path / ".nbimg" / name).unlink(missing_ok=True)
    Path("copy/.nbimg/journal.sqlite3").replace(PATH)
    row = "INSERT INTO batch (id, at_utc, owner, state, about) VALUES ('b', 0, '', 'done', '{}')"
    database.transact([lambda db: db.execute(row)])
    database.close()
    assert read(PATH, lambda db: db.execute("SELECT id FROM batch").fetchall(), None) == [("b",)]


# ---------------------------------------------------------------- several at once


def test_the_mode_is_changed_when_another_kernel_lets_go_of_the_file(database, monkeypatch):
    with monkeypatch.context() as patch:
        remote(patch)
        value(database, "SELECT 1")
        database.close()
    blocker = sqlite3.connect(PATH, isolation_level=None, check_same_thread=False)
    blocker.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.3, lambda: blocker.execute("COMMIT"))
    timer.start()
    assert value(database, "PRAGMA journal_mode") == "wal"
    timer.join()
    blocker.close()


def test_another_kernels_transaction_is_waited_for(database):
    value(database, "SELECT 1")
    blocker = sqlite3.connect(PATH, isolation_level=None, check_same_thread=False)
    blocker.execute("BEGIN IMMEDIATE")
    threading.Timer(0.3, lambda: blocker.execute("COMMIT")).start()
    began = time.monotonic()
    row = "INSERT INTO batch (id, at_utc, owner, state, about) VALUES ('b', 0, '', 'done', '{}')"
    outcomes = database.transact([lambda db: db.execute(row), lambda db: None])
    assert [error for _, error in outcomes] == [None, None]
    assert time.monotonic() - began > 0.2
    blocker.close()


def test_one_that_is_never_given_back_is_a_store_error_for_all_after_one_wait(monkeypatch):
    monkeypatch.setattr("nbimg.store.database.BUSY_S", 0.2)
    database = Database(PATH.absolute())
    value(database, "SELECT 1")
    blocker = sqlite3.connect(PATH, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    outcomes = database.transact([lambda db: 1] * 50)
    assert time.monotonic() - began < 5
    assert all(isinstance(error, StoreWriteError) for _, error in outcomes)
    assert "held by another program" in str(outcomes[0].error)
    blocker.close()
    assert value(database, "SELECT 5") == 5
    database.close()


# ---------------------------------------------------------------- reading


def test_reading_leaves_no_trace():
    assert left(PATH.absolute()) == Left(0, 0, 0)
    assert list(Path().iterdir()) == []
    interrupted()
    before = traces()
    assert left(PATH.absolute()) == Left(1, 1, 0)
    assert traces() == before


def test_reading_after_a_crash_and_beside_a_writer_leaves_no_trace(database):
    subprocess.run([sys.executable, "-c", CRASHING], check=True)
    before = traces()
    found = lambda: read(PATH, lambda db: db.execute("SELECT id FROM batch").fetchall(), None)  # noqa: E731
    assert found() == [("b",)]
    assert traces() == before
    value(database, "SELECT 1")
    before = traces()
    assert found() == [("b",)]
    assert traces() == before


def test_an_empty_file_has_nothing_and_becomes_a_journal(database):
    PATH.parent.mkdir(parents=True)
    PATH.touch()
    assert left(PATH.absolute()) == Left(0, 0, 0)
    assert value(database, "PRAGMA user_version") == schema.VERSION


def test_what_was_left_is_counted_in_a_few_milliseconds():
    """A millisecond or two; the bound leaves room for a busy machine."""

    async def go():
        journal = Journal(PATH.absolute())
        for name in range(20):
            rows = [Row(k, Request(f"x{k}"), "p:m", 1, 1) for k in range(100)]
            await journal.begin(f"b{name}", rows, about={})
            await asyncio.gather(*(journal.intend(f"b{name}", k, 0, CALL) for k in range(50)))
        journal.close()

    asyncio.run(go())
    best = 9.0
    for _ in range(5):
        began = time.process_time()
        assert left(PATH.absolute()) == Left(20, 1000, 1000)
        best = min(best, time.process_time() - began)
    assert best < 0.01


def test_asking_what_was_left_imports_nothing_heavy():
    script = (
        "import sys; from pathlib import Path; from nbimg.store.left import left;"
        "left(Path('nbimg-images/.nbimg/journal.sqlite3').absolute());"
        "print({'sqlite3', 'filelock', 'psutil', 'nbimg.types'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"

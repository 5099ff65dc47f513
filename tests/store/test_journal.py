import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nbimg.errors import StoreWriteError
from nbimg.store.journal import Journal, Left
from nbimg.testing import ReplicateServer
from nbimg.types import ModelRef, Request, Result

PATH = Path("journal.sqlite3")
REF = ModelRef("p", "m")


@pytest.fixture
def journal():
    one = Journal(PATH.absolute())
    yield one
    one.close()


def rows(statement):
    with sqlite3.connect(PATH) as db:
        found = db.execute(statement).fetchall()
    db.close()
    return found


def test_a_call_goes_from_intended_over_submitted_to_its_end(journal):
    async def go():
        await journal.begin("b", {0: Request("x")})
        number = await journal.intend("b", 0, 1, ModelRef("replicate", "m"), 7)
        steps = [await journal.left()]
        await journal.submitted(number, "job")
        steps.append(await journal.left())
        await journal.settled(number, "done")
        steps.append(await journal.left())
        return steps

    first, second, third = asyncio.run(go())
    assert first == (Left("b", 0, 1, "replicate", "m", None, "intended"),)
    assert second == (Left("b", 0, 1, "replicate", "m", "job", "submitted"),)
    assert third == ()


def test_what_is_awaited_is_on_disk_for_any_other_process(journal):
    async def go():
        await journal.begin("b", {0: Request("x", seed=3), 2: Request("y")})
        assert rows("SELECT task, request FROM task ORDER BY task") == [
            (0, '{"prompt": "x", "seed": 3}'),
            (2, '{"prompt": "y"}'),
        ]
        await journal.finished("b", Result(2, Request("y"), "m"))
        assert rows("SELECT task FROM task WHERE result IS NOT NULL") == [(2,)]
        await journal.end("b", "done")
        assert rows("SELECT id, pid, state FROM batch") == [("b", os.getpid(), "done")]

    asyncio.run(go())


def test_many_writers_share_few_transactions(journal, monkeypatch):
    groups = []
    real = Journal._transaction
    monkeypatch.setattr(
        Journal, "_transaction", staticmethod(lambda db, w: groups.append(len(w)) or real(db, w))
    )

    async def go():
        await journal.begin("b", {0: Request("x")})
        return await asyncio.gather(*(journal.intend("b", 0, k, REF, None) for k in range(1000)))

    numbers = asyncio.run(go())
    assert len(set(numbers)) == 1000
    assert sum(groups) == 1001
    assert len(groups) < 100
    assert [variant for (variant,) in rows("SELECT variant FROM call ORDER BY id")] == list(
        range(1000)
    )


def test_a_write_that_cannot_be_done_costs_no_other_of_its_group(journal):
    async def go():
        await journal.begin("b", {0: Request("x")})
        return await asyncio.gather(
            journal.intend("b", 0, 0, REF, None),
            journal.begin("b", {0: Request("x")}),  # the same batch twice
            journal.intend("b", 0, 1, REF, 2**70),  # no number of SQLite
            journal.intend("b", 0, 2, ModelRef("p", "\ud800"), None),  # no text of SQLite
            journal.intend("b", 0, 3, REF, None),
            return_exceptions=True,
        )

    outcomes = asyncio.run(go())
    assert [type(outcome) for outcome in outcomes] == [int, *[StoreWriteError] * 3, int]
    assert rows("SELECT variant FROM call ORDER BY id") == [(0,), (3,)]


WRITER = """
import asyncio, sys
from pathlib import Path
from nbimg.store.journal import Journal
from nbimg.types import ModelRef, Request
REF = ModelRef("p", "m")
async def go(name):
    journal = Journal(Path("journal.sqlite3").absolute())
    await journal.begin(name, {0: Request("x")})
    async def one(k):
        number = await journal.intend(name, 0, k, REF, None)
        await journal.submitted(number, f"{name}-{k}")
    await asyncio.gather(*(one(k) for k in range(200)))
    journal.close()
asyncio.run(go(sys.argv[1]))
"""


def test_two_kernels_write_at_the_same_time_and_lose_nothing():
    both = [subprocess.Popen([sys.executable, "-c", WRITER, name]) for name in ("a", "b")]
    assert [one.wait(30) for one in both] == [0, 0]
    assert len(rows("SELECT id FROM call WHERE job_id IS NOT NULL")) == 400
    assert rows("PRAGMA integrity_check") == [("ok",)]


def test_a_full_disk_is_a_store_error(journal, monkeypatch):
    def full(db, writes):
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_transaction", staticmethod(full))
        with pytest.raises(StoreWriteError, match="disk is full"):
            asyncio.run(journal.begin("b", {}))
    asyncio.run(journal.begin("b", {}))  # there is room again
    assert rows("SELECT id FROM batch") == [("b",)]


def test_a_real_limit_on_the_size_of_the_database_is_a_store_error(journal):
    async def go():
        await journal.begin("b", {0: Request("x")})
        await journal._do(lambda db: db.execute("PRAGMA max_page_count = 1").fetchall())
        with pytest.raises(StoreWriteError, match="full"):
            await journal.begin("c", {k: Request("y" * 5000) for k in range(50)})

    asyncio.run(go())
    assert rows("SELECT id FROM batch") == [("b",)]


def test_a_folder_that_cannot_be_made_is_a_store_error():
    Path("file").write_text("")
    broken = Journal(Path("file/journal.sqlite3").absolute())
    with pytest.raises(StoreWriteError, match="journal"):
        asyncio.run(broken.begin("b", {}))
    broken.close()


def test_close_writes_what_is_waiting_and_a_closed_journal_opens_again(journal):
    async def go():
        await journal.begin("b", {0: Request("x")})
        writing = asyncio.ensure_future(journal.intend("b", 0, 0, REF, None))
        await asyncio.sleep(0)
        await asyncio.to_thread(journal.close)
        await writing
        await journal.intend("b", 0, 1, REF, None)

    asyncio.run(go())
    assert len(rows("SELECT id FROM call")) == 2


KERNEL = """
import nbimg
nbimg.batch([f"p{k}" for k in range(6)], model="flux-dev")
"""


def test_a_kernel_that_is_killed_leaves_the_ids_of_its_jobs_behind():
    with ReplicateServer(running_s=60) as server:
        environ = {
            **os.environ,
            "NBIMG_REPLICATE_BASE_URL": server.base_url,
            "REPLICATE_API_TOKEN": server.token,
        }
        kernel = subprocess.Popen([sys.executable, "-c", KERNEL], env=environ)
        until = time.monotonic() + 20
        while server.count("GET", "/v1/predictions/*") < 6 and time.monotonic() < until:
            time.sleep(0.01)
        kernel.send_signal(signal.SIGKILL)
        kernel.wait(10)
        after = Journal(Path("nbimg-images/.nbimg/journal.sqlite3").absolute())
        left = asyncio.run(after.left())
        after.close()
        assert {one.job_id for one in left} == {job.id for job in server.jobs}
        assert sorted(one.task for one in left) == list(range(6))
        assert {one.state for one in left} == {"submitted"}

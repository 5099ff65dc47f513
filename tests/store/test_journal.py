import asyncio
import gc
import multiprocessing
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import psutil
import pytest

from nbimg.backends.base import Call
from nbimg.errors import StoreWriteError
from nbimg.store.database import Database
from nbimg.store.journal import Journal, Row, left
from nbimg.types import (
    Attempt,
    ErrorRecord,
    ImageRecord,
    InputImage,
    ModelRef,
    Request,
    Result,
    Seconds,
    Status,
)

PATH = Path("nbimg-images/.nbimg/journal.sqlite3")
REF = ModelRef("p", "m")
CALL = Call(REF, "x")
#: Python 3.12 warns that a child of a process with threads may dead-lock; that it does not is the test.
FORKS = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.fixture
def journal():
    one = Journal(PATH.absolute())
    yield one
    one.close()


def row(index=0, prompt="x", **values):
    return Row(index, Request(prompt, **values), "p:m", 7, 1, None)


def rows(statement):
    with sqlite3.connect(PATH) as db:
        found = db.execute(statement).fetchall()
    db.close()
    return found


@pytest.mark.parametrize("state", ["unknown", "absent"])
def test_a_call_that_was_given_up_and_arrived_after_all_is_paid_work(journal, state):
    async def go():
        await journal.begin("b", [row(0)], about={})
        number = await journal.intend("b", 0, 0, CALL)
        await journal.settled(number, state)
        await journal.submitted(number, "job")
        assert rows("SELECT state, job_id FROM call") == [("submitted", "job")]
        await journal.settled(number, "cancelled")
        await journal.submitted(number, "job")
        assert rows("SELECT state FROM call") == [("cancelled",)]

    asyncio.run(go())


def test_what_is_awaited_is_on_disk_for_any_other_process(journal):
    async def go():
        await journal.begin("b", [row(0, "x", seed=3), row(2, "y")], about={"task": "edit"})
        assert rows("SELECT id & 0xffffff, request FROM task ORDER BY id") == [
            (0, '{"prompt": "x", "seed": 3}'),
            (2, '{"prompt": "y"}'),
        ]
        number = await journal.intend("b", 2, 1, CALL)
        assert rows("SELECT number, state, job_id FROM call") == [(number, "intended", None)]
        await journal.submitted(number, "job")
        assert rows("SELECT state, job_id FROM call") == [("submitted", "job")]
        await journal.settled(number, "done")
        assert rows("SELECT state FROM call") == [("done",)]
        await journal.finished("b", Result(2, Request("y"), "m"))
        assert rows("SELECT id & 0xffffff FROM task WHERE result IS NOT NULL") == [(2,)]
        await journal.end("b", "done")
        assert rows("SELECT id, state, about FROM batch") == [("b", "done", '{"task":"edit"}')]

    asyncio.run(go())


def test_a_claimed_batch_comes_back_with_all_that_was_written(journal):
    picture = InputImage("ab" * 32, "image/png", 4, 5, "/in.png", "in.png")
    request = Request("a 人\ud800", image=picture, mask=picture, params={"k": [1, {"x": None}]})
    call = Call(
        ModelRef("replicate", "a/b", "short"),
        request.prompt,
        arguments={"steps": 3, "deep": {"a": [1.5]}},
        images=request.image,
        image_field="input_image",
        mask=picture,
        mask_field="the_mask",
        seed=2**32 - 1,
        count=4,
    )
    inside = PATH.absolute().parents[1] / "red.png"
    images = (
        ImageRecord(inside, "https://x/1", width=3, height=4, sha256="cd" * 32, seed=5),
        ImageRecord(Path("/elsewhere/b.png"), kind="video", mime="video/mp4"),
        ImageRecord(None, url="https://x/2"),
    )
    result = Result(
        3,
        request,
        "replicate:a/b",
        "short",
        Status.PARTIAL,
        images,
        ErrorRecord("JobFailedError", "no", "hint", 500, "job"),
        (Attempt("m", "create", 1.5, 0.25, "ok", 201, "job"),),
        ("translated",),
        Seconds(1, 2, 3),
        0.25,
    )

    async def go():
        about = {"rows": ["r"], "url_only": True, "deep": {"a": None}}
        await journal.begin("b", [Row(3, request, "replicate:a/b", 9, 2, "s"), row(4)], about=about)
        one = await journal.intend("b", 3, 0, call)
        await journal.submitted(one, "job-1")
        await journal.ended(one, images, "b", result)
        two = await journal.intend("b", 3, 1, call)
        await journal.settled(two, "unknown")
        three = await journal.intend("b", 4, 0, CALL)
        await journal.end("b", "cancelled")
        return about, (one, two, three), await journal.claim("b")

    about, (one, two, three), (claimed,) = asyncio.run(go())
    assert (claimed.id, claimed.about, claimed.state) == ("b", about, "cancelled")
    assert abs(claimed.at_utc - time.time()) < 60
    task, other = claimed.tasks
    assert (task.index, task.request, task.model, task.seed, task.calls) == (
        *(3, request, "replicate:a/b", 9),
        2,
    )
    assert task.result == result
    assert [(s.number, s.variant, s.state, s.job_id, s.images) for s in task.sent] == [
        (one, 0, "done", "job-1", images),
        (two, 1, "unknown", None, ()),
    ]
    assert [sent.call for sent in task.sent] == [call, call]
    assert other.result is None
    assert [(s.number, s.state) for s in other.sent] == [(three, "intended")]


def test_a_folder_that_is_moved_takes_its_paths_along(journal):
    async def made():
        image = ImageRecord(PATH.absolute().parents[1] / "red.png")
        await journal.begin("b", [Row(0, Request("x"), "p:m", 1, 1, "slot")], about={})
        number = await journal.intend("b", 0, 0, CALL)
        await journal.ended(number, [image], "b", Result(0, Request("x"), "p:m", images=(image,)))

    asyncio.run(made())
    journal.close()
    Path("nbimg-images").rename("moved")
    moved = Journal(Path("moved/.nbimg/journal.sqlite3").absolute())
    found = asyncio.run(moved.find(["slot"]))
    moved.close()
    assert found["slot"].images[0].path == Path("moved/red.png").absolute()


# ---------------------------------------------------------------- many at once


def test_many_writers_share_few_transactions(journal, monkeypatch):
    groups = []
    real = Database.transact
    monkeypatch.setattr(Database, "transact", lambda db, w: groups.append(len(w)) or real(db, w))

    async def worker(numbers):
        for k in numbers:
            number = await journal.intend("b", 0, k, CALL)
            await journal.submitted(number, f"job-{k}")
            await journal.settled(number, "done")

    async def go():
        await journal.begin("b", [row()], about={})
        numbers = iter(range(1000))
        await asyncio.gather(*(worker(numbers) for _ in range(32)))

    asyncio.run(go())
    assert sum(groups) == 3001
    assert len(groups) < 200
    assert rows("SELECT variant FROM call WHERE job_id = 'job-' || variant ORDER BY variant") == [
        (k,) for k in range(1000)
    ]


def test_a_write_that_cannot_be_done_costs_no_other_of_its_group(journal):
    async def go():
        await journal.begin("b", [row()], about={})
        return await asyncio.gather(
            journal.intend("b", 0, 0, CALL),
            journal.begin("b", [row()], about={}),  # the same batch twice
            journal.intend("b", 0, 1, Call(REF, "x", seed=2**70)),  # no number of SQLite
            journal.intend("b", 0, 2, Call(ModelRef("p", "\ud800"), "x")),  # no text of SQLite
            journal.intend("nobody", 0, 2, CALL),  # no such batch
            journal.submitted(12345, "job"),  # no such call
            journal.intend("b", 0, 3, CALL),
            return_exceptions=True,
        )

    outcomes = asyncio.run(go())
    assert [type(outcome) for outcome in outcomes] == [int, *[StoreWriteError] * 5, int]
    assert rows("SELECT variant FROM call ORDER BY number") == [(0,), (3,)]


def test_who_is_cancelled_while_waiting_loses_no_write(journal):
    async def go():
        await journal.begin("b", [row()], about={})
        waiting = [asyncio.create_task(journal.intend("b", 0, k, CALL)) for k in range(20)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert all(task.cancelled() for task in waiting)
        await journal.intend("b", 0, 99, CALL)

    asyncio.run(go())
    assert len(rows("SELECT * FROM call")) == 21


def test_an_id_that_arrives_after_its_call_was_settled_does_not_open_it_again(journal):
    async def go():
        await journal.begin("b", [row()], about={})
        number = await journal.intend("b", 0, 0, CALL)
        await journal.settled(number, "cancelled")
        await journal.submitted(number, "job")

    asyncio.run(go())
    assert rows("SELECT state, job_id FROM call") == [("cancelled", "job")]


def test_two_loops_write_at_once_and_one_that_is_closed_holds_up_nobody(journal):
    asyncio.run(journal.begin("b", [row()], about={}))
    dead, writing = asyncio.new_event_loop(), []

    async def leave_behind():
        writing.extend(
            asyncio.ensure_future(journal.intend("b", 0, 1000 + k, CALL)) for k in range(5)
        )
        await asyncio.sleep(0)
        dead.stop()

    writing.append(dead.create_task(leave_behind()))
    dead.run_forever()  # stopped with its writes still waiting
    for task in asyncio.all_tasks(dead):
        task._log_destroy_pending = False
    dead.close()

    async def go(start):
        await asyncio.wait_for(
            asyncio.gather(*(journal.intend("b", 0, start + k, CALL) for k in range(100))), 20
        )

    threads = [threading.Thread(target=lambda s=s: asyncio.run(go(s))) for s in (0, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    journal.close()
    gc.collect()
    variants = {variant for (variant,) in rows("SELECT variant FROM call")}
    assert variants == {*range(200), *range(1000, 1005)}


def test_a_loop_that_is_held_up_holds_up_no_other(journal, monkeypatch):
    asyncio.run(journal.begin("b", [row()], about={}))
    real, running, go_on, done = Database.transact, *(threading.Event() for _ in range(3))

    def slow(database, works):
        running.set()
        go_on.wait(20)
        return real(database, works)

    monkeypatch.setattr(Database, "transact", slow)

    async def first():
        writing = asyncio.ensure_future(journal.intend("b", 0, 0, CALL))
        await asyncio.to_thread(running.wait, 20)
        done.wait(20)  # a cell that computes
        await writing

    async def second():
        running.wait(20)
        writing = asyncio.ensure_future(journal.intend("b", 0, 1, CALL))
        await asyncio.sleep(0.01)
        go_on.set()
        await asyncio.wait_for(writing, 10)

    held_up = threading.Thread(target=lambda: asyncio.run(first()))
    held_up.start()
    asyncio.run(second())
    assert held_up.is_alive()
    done.set()
    held_up.join(20)
    assert len(rows("SELECT * FROM call")) == 2


def test_close_writes_what_is_waiting_and_a_closed_journal_opens_again(journal):
    async def go():
        await journal.begin("b", [row()], about={})
        writing = asyncio.ensure_future(journal.intend("b", 0, 0, CALL))
        await asyncio.sleep(0)
        await asyncio.to_thread(journal.close)
        await writing
        writing = asyncio.ensure_future(journal.intend("b", 0, 1, CALL))
        await asyncio.sleep(0)
        journal.close()  # in the loop's own thread
        assert len(rows("SELECT number FROM call")) == 2
        await writing
        await journal.intend("b", 0, 2, CALL)

    asyncio.run(go())
    assert len(rows("SELECT number FROM call")) == 3


# ---------------------------------------------------------------- several processes

WRITER = """
import asyncio, sys
from pathlib import Path
from nbimg.backends.base import Call
from nbimg.store.journal import Journal, Row
from nbimg.types import ModelRef, Request
CALL = Call(ModelRef("p", "m"), "x")
async def go(name):
    journal = Journal(Path("nbimg-images/.nbimg/journal.sqlite3").absolute())
    await journal.begin(name, [Row(0, Request("x"), "p:m", 1, 200, None)], about={})
    async def one(k):
        number = await journal.intend(name, 0, k, CALL)
        await journal.submitted(number, f"{name}-{k}")
    await asyncio.gather(*(one(k) for k in range(200)))
    journal.close()
asyncio.run(go(sys.argv[1]))
"""


def test_several_kernels_begin_a_journal_together_and_lose_nothing():
    names = ("a", "b", "c", "d")
    all_of_them = [subprocess.Popen([sys.executable, "-c", WRITER, name]) for name in names]
    assert [one.wait(60) for one in all_of_them] == [0] * 4
    assert rows(
        "SELECT count(*), count(DISTINCT call.number) FROM call "
        "JOIN batch ON task >> 24 = batch.number WHERE job_id = id || '-' || variant"
    ) == [(800, 800)]
    assert rows("PRAGMA integrity_check") == [("ok",)]


def _in_child(journal, answer):
    inherited = [f.path for f in psutil.Process().open_files() if ".nbimg" in f.path]

    async def go():
        assert inherited == []
        await asyncio.wait_for(journal.begin("child", [row()], about={}), 10)
        await asyncio.wait_for(journal.intend("child", 0, 0, CALL), 10)
        return await journal.claim()

    try:
        answer.put([claimed.id for claimed in asyncio.run(go())])
    except BaseException as error:
        answer.put(repr(error))
        raise


@FORKS
def test_a_forked_child_has_a_connection_and_batches_of_its_own(journal):
    context = multiprocessing.get_context("fork")
    answer = context.SimpleQueue()

    async def go():
        await journal.begin("b", [row()], about={})
        number = await journal.intend("b", 0, 0, CALL)
        writing = [asyncio.ensure_future(journal.intend("b", 0, k, CALL)) for k in range(1, 50)]
        await asyncio.sleep(0)  # the fork comes in the middle of a transaction
        child = context.Process(target=_in_child, args=(journal, answer))
        child.start()
        await asyncio.gather(*writing)
        claimed_there = await asyncio.to_thread(answer.get)
        await asyncio.to_thread(child.join, 20)
        assert child.exitcode == 0
        await journal.submitted(number, "job")
        return claimed_there

    assert asyncio.run(go()) == []  # the parent's batch is alive
    assert rows("SELECT id FROM batch ORDER BY id") == [("b",), ("child",)]
    assert len(rows("SELECT * FROM call")) == 51
    # the child's end took nothing from the parent, and its own batch is now free
    (claimed,) = asyncio.run(journal.claim())
    assert claimed.id == "child"
    assert rows("PRAGMA integrity_check") == [("ok",)]


KILLED = """
import asyncio, os, sys
from pathlib import Path
from nbimg.backends.base import Call
from nbimg.store.journal import Journal, Row
from nbimg.types import ImageRecord, ModelRef, Request, Result
CALL = Call(ModelRef("p", "m"), "x")
async def go():
    journal = Journal(Path("nbimg-images/.nbimg/journal.sqlite3").absolute())
    rows = [Row(k, Request(f"x{k}"), "p:m", k, 1, f"slot{k}") for k in range(200)]
    await journal.begin("b", rows, about={})
    def say(*words):
        os.write(1, (" ".join(map(str, words)) + "\\n").encode())
    say("begun")
    tasks = iter(range(200))
    async def worker():
        for k in tasks:
            number = await journal.intend("b", k, 0, CALL)
            say("intended", k, number)
            await journal.submitted(number, f"job{k}")
            say("submitted", k, number)
            image = ImageRecord(None, url=f"u{k}")
            await journal.ended(number, [image], "b", Result(k, Request(f"x{k}"), "p:m", images=(image,)))
            say("ended", k, number)
    await asyncio.gather(*(worker() for _ in range(4)))
asyncio.run(go())
"""


@pytest.mark.parametrize("lines", [1, 2, 3, *range(5, 600, 31)])
def test_whatever_a_killed_process_was_told_is_written_is_there(lines):
    process = subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True)
    said = [process.stdout.readline().split() for _ in range(lines)]
    process.send_signal(signal.SIGKILL)
    said += [line.split() for line in process.stdout if line.endswith("\n")]
    process.wait(10)
    process.stdout.close()
    before = left(PATH.absolute())
    journal = Journal(PATH.absolute())
    (claimed,) = asyncio.run(journal.claim(remaining=True)) or ((None,))
    if claimed is None:
        assert before == (0, 0, 0)
        assert len([words for words in said if words[0] == "ended"]) > 190
        journal.close()
        return
    assert claimed.state == "running"
    assert [task.request.prompt for task in claimed.tasks] == [f"x{k}" for k in range(200)]
    known = {sent.number: sent for task in claimed.tasks for sent in task.sent}
    for words in said:
        if words[0] == "begun":
            continue
        task, sent = claimed.tasks[int(words[1])], known[int(words[2])]
        assert sent in task.sent
        if words[0] != "intended":
            assert sent.job_id == f"job{words[1]}"
        if words[0] == "ended":
            assert sent.state == "done"
            assert task.result.images[0].url == sent.images[0].url == f"u{words[1]}"
    # ended calls have their result: both were one write
    assert all(
        (t.result is not None) == any(sent.state == "done" for sent in t.sent)
        for t in claimed.tasks
    )
    assert before.paid == sum(t.result is None and len(t.sent) for t in claimed.tasks)
    assert before.unsent == sum(not t.sent for t in claimed.tasks)
    assert asyncio.run(journal.claim(remaining=True)) == ()
    found = asyncio.run(journal.find([f"slot{k}" for k in range(200)]))
    assert set(found) == {f"slot{t.index}" for t in claimed.tasks if t.result}
    journal.close()


# ---------------------------------------------------------------- what was made


def test_the_newest_whole_result_of_a_slot_is_found(journal, monkeypatch):
    async def make(batch, status, url):
        await journal.begin(batch, [Row(5, Request("x"), "p:m", 1, 1, "slot")], about={})
        images = (ImageRecord(None, url=url),)
        result = Result(5, Request("x"), "p:m", status=status, images=images)
        await journal.finished(batch, result)

    async def go():
        assert await journal.find(["slot"]) == {}
        assert not PATH.exists()  # a question leaves no trace
        await make("a", Status.OK, "first")
        monkeypatch.setattr(time, "time", lambda: 1.0)  # the clock jumps back
        await make("b", Status.OK, "second")
        await make("c", Status.PARTIAL, "third")
        found = await journal.find(["slot", "other"])
        assert set(found) == {"slot"}
        assert found["slot"].images[0].url == "second"
        assert found["slot"].request == Request("x")
        assert await journal.find([]) == {}

    asyncio.run(go())


def test_a_job_leads_to_its_batch(journal):
    async def go():
        assert await journal.batch_of_job("job") is None
        await journal.begin("b", [row()], about={})
        await journal.submitted(await journal.intend("b", 0, 0, CALL), "job")
        assert await journal.batch_of_job("job") == "b"
        assert await journal.batch_of_job("jo") is None

    asyncio.run(go())


def test_a_thousand_slots_are_found_at_once(journal):
    """The bound is three times what it takes on a machine that does nothing else."""

    async def go():
        some = [Row(k, Request(f"x{k}"), "p:m", k, 1, f"{k:064x}") for k in range(3000)]
        await journal.begin("b", some, about={})
        images = (ImageRecord(Path("a.png").absolute(), sha256="ab" * 32),)
        await asyncio.gather(
            *(journal.finished("b", Result(t.index, t.request, "p:m", images=images)) for t in some)
        )
        best = 9.0
        for _ in range(5):
            began = time.process_time()
            assert len(await journal.find([f"{k:064x}" for k in range(1000)])) == 1000
            best = min(best, time.process_time() - began)
        return best

    assert asyncio.run(go()) < 0.1


def test_the_journal_costs_a_task_little(journal):
    """Three writes a task, 32 tasks at once; the bound is four times what it takes."""

    async def worker(tasks):
        for k in tasks:
            number = await journal.intend("b", k, 0, CALL)
            await journal.submitted(number, "job")
            images = (ImageRecord(None, url="u"),)
            await journal.ended(number, images, "b", Result(k, Request("x"), "p:m", images=images))

    async def go():
        await journal.begin("b", [row(k) for k in range(1000)], about={})
        tasks, began = iter(range(1000)), time.process_time()
        await asyncio.gather(*(worker(tasks) for _ in range(32)))
        return (time.process_time() - began) / 1000

    assert asyncio.run(go()) < 480e-6
    assert PATH.stat().st_size < 2_500_000


def test_slots_are_looked_for_some_at_a_time(journal):
    slots = [f"{k:064x}" for k in range(20_000)]

    async def go():
        await journal.begin("b", [row()], about={})
        tracemalloc.start()
        assert await journal.find(slots) == {}
        return tracemalloc.get_traced_memory()[1]

    try:
        assert asyncio.run(go()) < 500_000  # their texts alone are 1.3 megabytes
    finally:
        tracemalloc.stop()

import sqlite3
import time
from pathlib import Path

import pytest

import nbimg
from nbimg.testing import Fault, Outcome
from nbimg.types import Request, Status

JOURNAL = Path("nbimg-images/.nbimg/journal.sqlite3")
FILES = {"path": "/xezq/*"}
LIST = {"method": "GET", "path": "/v1/predictions"}
CREATE = {"method": "POST", "path": "*/predictions"}


def generate(*prompts, **options):
    return nbimg.generate(list(prompts), **{"model": "flux-dev", "fallback": (), **options})


def test_what_could_not_be_fetched_is_fetched_and_not_made_again(server):
    server.inject(Fault("html", **FILES, status=503, times=1))
    first = generate("a", "b", concurrency=1, retries=1)
    (bad,), (good,) = first.failed, first.ok
    again = first.retry_failed()
    assert [r.status for r in again] == [Status.OK] * 2
    assert len(server.jobs) == 2
    assert again[good.index] == good
    fetched = again[bad.index]
    assert fetched.error is None
    assert fetched.cost_usd == pytest.approx(0.025)
    assert fetched.attempts[: len(bad.attempts)] == bad.attempts
    assert again.retry_failed() is again


def test_only_what_is_missing_of_a_task_is_made_and_the_rest_fetched(server):
    server.inject(Fault("html", **FILES, status=503, times=1))
    server.expect(Outcome(status="failed", error="broken"))
    first = generate("a", n=3, retries=1, concurrency=1)
    assert len(first.records) == 1
    (again,) = first.retry_failed()
    assert again.status is Status.OK
    assert len(server.jobs) == 4
    seeds = [image.seed for image in again.images]
    assert seeds == [seeds[0], seeds[0] + 1, seeds[0] + 2]


def test_a_seed_that_was_drawn_is_used_again(server):
    server.expect(Outcome(status="failed", error="broken"))
    first = generate("a")
    assert first.retry_failed()[0].status is Status.OK
    assert server.jobs[0].input["seed"] == server.jobs[1].input["seed"]


def test_what_cannot_be_fetched_yet_is_not_paid_again_unless_asked_for(server):
    server.inject(Fault("html", **FILES, status=503, times=None))
    first = generate("a", retries=1)
    (again,) = first.retry_failed()
    assert again.status is Status.FAILED
    assert len(server.jobs) == 1
    assert "retry_failed(unknown=True)" in again.notices[-1]
    assert len(first.retry_failed().retry_failed()[0].notices) == 1
    server._faults.clear()
    assert first.retry_failed()[0].status is Status.OK
    assert len(server.jobs) == 1


def test_what_a_retry_has_made_is_not_made_by_the_next_retry(server):
    server.expect(Outcome(status="failed", error="broken"))
    first = generate("a", "b", concurrency=1)
    server.inject(Fault("html", **FILES, status=503, times=3))
    second = first.retry_failed()
    assert second[0].status is Status.FAILED
    third = second.retry_failed()
    assert [r.status for r in third] == [Status.OK] * 2
    assert len(server.jobs) == 3


def test_what_cannot_be_looked_up_yet_is_taken_up_when_it_can_be_and_not_made_again(server):
    server.inject(Fault("drop", **CREATE, when="after"))
    server.inject(Fault("html", **LIST, status=502, times=None))
    first = generate("a", retries=1)
    assert first[0].status is Status.UNKNOWN
    made = len(server.jobs)
    (again,) = first.retry_failed()
    assert again.status is Status.UNKNOWN
    assert len(server.jobs) == made
    assert "could not be fetched yet" in again.notices[-1]
    server._faults.clear()
    assert first.retry_failed()[0].status is Status.OK
    assert len(server.jobs) == made


def test_a_call_that_was_stopped_while_it_was_fetched_is_fetched(server):
    server.inject(Fault("hang", **FILES, times=None))
    job = nbimg.submit("a", model="flux-dev", fallback=())
    while not server.count(**FILES):
        time.sleep(0.01)
    job.cancel()
    first = job.wait()
    assert first[0].status is Status.CANCELLED
    server._faults.clear()
    assert first.retry_failed()[0].status is Status.OK
    assert len(server.jobs) == 1


def test_tasks_that_were_never_in_the_journal_shift_nothing(server):
    known = Request("known", model="flux-dev", seed=3)
    generate(known)
    server.inject(Fault("html", **FILES, status=503, times=3))
    bad = Request("x", model="flux-dev", params={"frobnicate": 1})
    first = nbimg.batch([known, bad, Request("b", model="flux-dev", seed=4)], fallback=())
    assert [r.status for r in first] == [Status.OK, Status.FAILED, Status.FAILED]
    again = first.retry_failed()
    assert [r.status for r in again] == [Status.OK, Status.FAILED, Status.OK]
    assert again[2].request.prompt == "b"
    assert again[1].request.prompt == "x"
    assert len(server.jobs) == 2
    part = first.failed.retry_failed()
    assert [r.request.prompt for r in part] == ["x", "b"]


def test_a_journal_that_is_gone_hinders_no_retry(server):
    server.expect(Outcome(status="failed", error="broken"))
    first = generate("a")
    with sqlite3.connect(JOURNAL) as db:
        for table in ("batch", "task", "call"):
            db.execute(f"DELETE FROM {table}")
    db.close()
    assert first.retry_failed()[0].status is Status.OK


def test_what_nobody_can_look_up_is_made_again_only_when_asked_for(server):
    server.inject(Fault("drop", **CREATE, when="after"))
    (first,) = results = generate("x", "y", model="imagen-4-ultra", concurrency=1).failed
    assert first.status is Status.UNKNOWN
    (again,) = results.retry_failed()
    assert (again.status, len(server.jobs)) == (Status.UNKNOWN, 2)
    assert "Nobody can tell" in again.notices[-1]
    (anew,) = results.retry_failed(unknown=True)
    assert (anew.status, len(server.jobs)) == (Status.OK, 3)


def test_a_job_that_outlived_its_time_out_is_fetched_where_it_could_not_be_cancelled(server):
    server.running_s = 0.6
    server.inject(Fault("error", method="POST", path="*/cancel", status=500, times=None))
    first = generate("a", timeout=0.3)
    assert first[0].status is Status.FAILED
    server._faults.clear()
    time.sleep(0.5)
    assert first.retry_failed()[0].status is Status.OK
    assert len(server.jobs) == 1


def test_a_job_that_was_cancelled_when_its_time_was_over_is_made_again(server):
    server.running_s = 0.6
    first = generate("a", timeout=0.3)
    assert first[0].status is Status.FAILED
    server.running_s = 0.005
    assert first.retry_failed()[0].status is Status.OK
    assert len(server.jobs) == 2

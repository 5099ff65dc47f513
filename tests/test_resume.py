import asyncio
import sqlite3
from pathlib import Path

import pytest

import nbimg
from nbimg.errors import UnknownNameError
from nbimg.testing import Fault
from nbimg.types import Request, Status

JOURNAL = Path("nbimg-images/.nbimg/journal.sqlite3")


def states():
    with sqlite3.connect(JOURNAL) as db:
        rows = db.execute("SELECT state FROM call ORDER BY id").fetchall()
    db.close()
    return [state for (state,) in rows]


def test_with_nothing_left_there_is_nothing_to_do(server):
    assert len(nbimg.resume()) == 0
    nbimg.generate("a cat", model="flux-dev")
    assert len(nbimg.resume()) == 0
    assert len(server.jobs) == 1


def test_an_image_that_could_not_be_fetched_is_fetched_later_and_not_paid_again(server):
    server.inject(Fault("html", path="/xezq/*", status=503, times=3))
    (failed,) = nbimg.generate(["a cat"], model="flux-dev", fallback=())
    assert failed.status is Status.FAILED
    (again,) = nbimg.resume()
    assert again.status is Status.OK
    assert again.images[0].path.is_file()
    assert len(server.jobs) == 1
    assert len(nbimg.resume()) == 0


def test_the_results_of_a_batch_come_back_whole_and_in_order(server):
    server.inject(Fault("html", path="/xezq/*", status=503, skip=1))
    first = nbimg.generate(["a", "b", "c"], model="flux-dev", retries=1)
    assert len(first.failed) == 1
    again = nbimg.resume()
    assert [r.request.prompt for r in again] == ["a", "b", "c"]
    assert [r.index for r in again] == [0, 1, 2]
    assert all(r.status is Status.OK for r in again)
    kept = [r for r in first if r.status is Status.OK]
    assert all(r.images in [a.images for a in again] for r in kept)
    assert len(server.jobs) == 3


def test_a_batch_that_has_ended_is_given_back_by_its_name(server):
    job = nbimg.submit(["a", "b"], model="flux-dev")
    made = job.wait()
    again = nbimg.resume(job.id)
    assert list(again) == list(made)
    assert len(server.jobs) == 2
    with pytest.raises(UnknownNameError, match="no unfinished job 'nobody'"):
        nbimg.resume("nobody")


def test_a_job_of_the_kernel_is_found_by_its_id_and_by_the_providers(server):
    job = nbimg.submit("a cat", model="flux-dev")
    job.wait()
    assert nbimg.job(job.id) is job
    assert nbimg.job(server.jobs[0].id) is job
    with pytest.raises(UnknownNameError, match="no job"):
        nbimg.job("20990101-000000-abcdef")


def test_resume_can_be_awaited(server):
    server.inject(Fault("html", path="/xezq/*", status=503, times=3))
    nbimg.generate(["a cat"], model="flux-dev", fallback=())

    async def go():
        return await nbimg.aresume()

    assert [r.status for r in asyncio.run(go())] == [Status.OK]


def test_stats_count_what_the_kernel_has_made(server):
    nbimg.generate(["a", "b"], model="flux-dev")
    usage = nbimg.stats()
    assert (usage.generated_images, usage.succeeded, usage.failed) == (2, 2, 0)
    assert usage.cost_usd == pytest.approx(0.05)


def test_requests_of_a_stopped_batch_are_not_sent_unless_it_is_named(server):
    server.running_s = 5
    job = nbimg.submit([Request(f"cat {n}") for n in range(20)], model="flux-dev", concurrency=2)
    while not server.jobs:
        pass
    job.cancel()
    job.wait()
    server.running_s = 0.005
    before = len(server.jobs)
    assert len(nbimg.resume(remaining=True)) == 0
    assert len(server.jobs) == before
    again = nbimg.resume(job.id, remaining=True)
    assert len(again) == 20
    assert all(r.status is Status.OK for r in again)

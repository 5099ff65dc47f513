import asyncio
import sqlite3
import threading
import time
from pathlib import Path

import pytest

import nbimg
from nbimg import session
from nbimg.calls import resuming
from nbimg.errors import BudgetError, UnknownNameError
from nbimg.store.files import Store
from nbimg.testing import Fault
from nbimg.testing.openai import OpenAIServer
from nbimg.types import Request, Status

JOURNAL = Path("nbimg-images/.nbimg/journal.sqlite3")


def states():
    with sqlite3.connect(JOURNAL) as db:
        rows = db.execute("SELECT state FROM call ORDER BY number").fetchall()
    db.close()
    return [state for (state,) in rows]


@pytest.fixture
def saving(monkeypatch):
    """A disk that takes its time; the event is set when it begins to write."""
    began, real = threading.Event(), Store.put

    def put(*args, **options):
        began.set()
        time.sleep(0.5)
        return real(*args, **options)

    monkeypatch.setattr(Store, "put", put)
    return began


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


def leave(server, prompts, *, fetched=0, **options):
    """A batch of which all was paid and only some fetched."""
    server.inject(Fault("html", path="/xezq/*", status=503, skip=fetched, times=None))
    results = nbimg.generate(prompts, model="flux-dev", retries=1, concurrency=1, **options)
    server._faults.clear()
    return results


def test_a_budget_that_forbids_the_rest_leaves_it_to_be_taken_up_another_time(server):
    leave(server, ["a", "b"])
    before = session.default().left()
    assert before.paid == 2
    own = session.default()
    real, own._shop.ledger.reserve = own._shop.ledger.reserve, refuse
    with pytest.raises(nbimg.NbimgError, match="no money"):
        nbimg.resume()
    assert own.left().paid == 2
    own._shop.ledger.reserve = real
    assert [r.status for r in nbimg.resume()] == [Status.OK] * 2


def refuse(*args, **options):
    raise BudgetError("no money")


def test_a_batch_of_a_plug_in_that_is_gone_costs_the_other_batches_nothing(server):
    leave(server, ["a"])
    leave(server, ["b"])
    with sqlite3.connect(JOURNAL) as db:
        db.execute("UPDATE task SET model = 'plug:x' WHERE id >> 24 = 1")
        db.execute("UPDATE call SET provider = 'plug' WHERE task >> 24 = 1")
    db.close()
    results = nbimg.resume()
    assert sorted(r.status for r in results) == [Status.FAILED, Status.OK]
    (bad,) = results.failed
    assert "plug" in bad.error.message
    assert session.default().left().paid == 1  # for the day on which the plug-in is back


def test_giving_a_batch_back_is_not_counted_again(server):
    job = nbimg.submit("a", model="flux-dev")
    job.wait()
    nbimg.resume(job.id)
    nbimg.resume(job.id)
    assert nbimg.stats().generated_images == 1
    assert nbimg.stats().cost_usd == pytest.approx(0.025)


def test_what_is_resumed_keeps_the_options_of_its_call(server):
    options = nbimg.session.CallOptions(fallback=(), budget=0.5, retries=1, timeout=9.0)
    job = session.default().submit([Request("a", model="flux-dev")], options)
    job.wait()
    shop = session.default()._shop
    (claimed,) = session.default().portal.call(shop.place().journal.claim, job.id)
    kept = resuming._options(claimed.about)
    assert (kept.fallback, kept.budget, kept.retries, kept.timeout) == ((), 0.5, 1, 9.0)


def test_a_create_that_stop_has_left_on_its_way_is_waited_for_by_resume(server, monkeypatch):
    monkeypatch.setattr("nbimg.engine.batch.CLEANUP_S", 0.1)
    slow = {"method": "POST", "path": "*/predictions"}
    server.inject(Fault("delay", **slow, when="before", delay_s=5))  # longer than it is looked for
    job = nbimg.submit(["race"], model="flux-dev", seed=1)
    while not server.count(**slow):
        time.sleep(0.01)
    job.cancel()
    assert job.wait()[0].status is Status.UNKNOWN
    nbimg.resume(job.id, remaining=True)
    assert len(server.jobs) == server.count(**slow) == 1


def test_what_a_provider_without_jobs_answers_after_stop_is_kept(monkeypatch):
    with OpenAIServer() as openai:
        monkeypatch.setenv("NBIMG_OPENAI_BASE_URL", openai.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", openai.key)
        openai.inject(Fault("delay", method="POST", when="after", delay_s=0.5))
        job = nbimg.submit(["x"], model="openai:gpt-image-1-mini")
        while not openai.count(method="POST"):
            time.sleep(0.01)
        job.cancel()
        (result,) = job.wait()
        assert result.status is Status.OK
        assert result.images[0].path.is_file()
        assert len(openai.jobs) == 1


def test_what_is_being_saved_when_stop_comes_is_kept_where_no_job_can_be_asked_again(
    monkeypatch, saving
):
    with OpenAIServer() as openai:
        monkeypatch.setenv("NBIMG_OPENAI_BASE_URL", openai.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", openai.key)
        job = nbimg.submit(["x"], model="openai:gpt-image-1-mini")
        assert saving.wait(20)
        job.cancel()
        (result,) = job.wait()
        assert result.status is Status.OK
        assert result.images[0].path.is_file()
        assert states() == ["done"]


def test_the_time_out_does_not_cut_what_only_has_to_be_saved(monkeypatch, saving):
    with OpenAIServer() as openai:
        monkeypatch.setenv("NBIMG_OPENAI_BASE_URL", openai.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", openai.key)
        job = nbimg.submit(["x"], model="openai:gpt-image-1-mini", timeout=15)
        assert saving.wait(20)
        monkeypatch.setattr(time, "monotonic", lambda real=time.monotonic: real() + 60)
        assert job.wait()[0].status is Status.OK


def test_a_job_that_was_taken_up_again_is_found_by_its_id_as_it_is_now(server):
    server.inject(Fault("html", path="/xezq/*", status=503, times=3))
    first = nbimg.submit(["a cat"], model="flux-dev", fallback=())
    assert first.wait()[0].status is Status.FAILED
    (fetched,) = nbimg.resume(first.id)
    assert fetched.status is Status.OK
    again = nbimg.job(first.id)
    assert again is not first
    assert again.results[0].status is Status.OK
    assert nbimg.job(server.jobs[0].id) is again


def test_a_taking_up_that_was_refused_hides_no_job(server):
    first = nbimg.submit(["a cat"], model="flux-dev")
    first.wait()
    refused = session.default()._job("x", _refuses, "")
    refused.batches.add(first.id)
    with pytest.raises(UnknownNameError):
        refused.wait()
    assert nbimg.job(first.id) is first


async def _refuses(emit, stop):
    raise UnknownNameError("unfinished job", "x")


def test_a_file_that_never_decodes_is_tried_again_until_it_is_gone(server):
    server.inject(Fault("html", path="/xezq/*", status=200, times=None))
    (failed,) = nbimg.generate(["a cat"], model="flux-dev", fallback=(), retries=1)
    assert failed.status is Status.FAILED
    before = server.count(path="/xezq/*")
    (again,) = nbimg.resume()
    assert again.status is Status.FAILED
    assert "did not arrive whole" in again.error.message
    assert server.count(path="/xezq/*") > before
    assert session.default().left().paid == 1
    server._faults.clear()
    server.inject(Fault("error", path="/xezq/*", status=404, times=None))
    (gone,) = nbimg.resume()
    assert gone.status is Status.FAILED
    assert session.default().left().paid == 0
    assert len(nbimg.resume()) == 0
    assert len(server.jobs) == 1


def test_what_is_forgotten_is_not_fetched_and_not_made_again_unasked(server):
    leave(server, ["a", "b"], fetched=1)
    own = session.default()
    ((batch, count),) = own.forget().items()
    assert count == 1
    assert own.left().paid == 0
    assert len(nbimg.resume(remaining=True)) == 0
    one, other = nbimg.resume(batch, remaining=True)
    assert one.status is Status.OK
    assert other.status is Status.FAILED
    assert len(server.jobs) == 2


def test_every_call_of_a_model_that_stood_in_is_taken_up(server, monkeypatch):
    with OpenAIServer() as openai:
        monkeypatch.setenv("NBIMG_OPENAI_BASE_URL", openai.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", openai.key)
        openai.inject(Fault("error", method="POST", status=400, times=None))
        server.inject(Fault("html", path="/xezq/*", status=503, skip=2, times=None))
        three = Request("x", model="openai:gpt-image-1-mini", n=3)
        (first,) = nbimg.generate([three], fallback=("flux-dev",), retries=1)
    assert (first.status, len(first.images)) == (Status.PARTIAL, 2)
    assert session.default().left().paid == 1
    server._faults.clear()
    (whole,) = nbimg.resume()
    assert (whole.status, len(whole.images)) == (Status.OK, 3)
    assert len({image.path for image in whole.images}) == 3
    assert whole.images[:2] == first.images
    assert session.default().left().paid == 0
    assert len(server.jobs) == 3


def test_stop_keeps_what_a_model_that_stood_in_has_made_so_far(server, monkeypatch):
    with OpenAIServer() as openai:
        monkeypatch.setenv("NBIMG_OPENAI_BASE_URL", openai.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", openai.key)
        openai.inject(Fault("error", method="POST", status=400, times=None))
        three = Request("x", model="openai:gpt-image-1-mini", n=3)
        job = nbimg.submit([three], fallback=("flux-dev",))
        while not server.jobs:
            time.sleep(0.001)
        server.running_s = 30.0
        while len(server.jobs) < 2 or server.jobs[-1].status != "processing":
            time.sleep(0.01)
        job.cancel()
        (result,) = job.wait()
    assert result.status is Status.PARTIAL
    done = [job for job in server.jobs if job.status == "succeeded"]
    assert len(result.images) == len(done) > 0
    assert session.default().left().paid == 0

import errno
import gc
import logging
import sqlite3
import time
from pathlib import Path

import pytest

import nbimg
from nbimg import session
from nbimg.backends import registry
from nbimg.backends.base import LocalBackend, Prediction, RemoteBackend, State
from nbimg.backends.replicate import ReplicateBackend
from nbimg.engine import batch, run
from nbimg.engine.chain import Chain
from nbimg.engine.order import Order
from nbimg.engine.remote import RemoteCall
from nbimg.errors import JobFailedError, OutcomeUnknownError, StoreWriteError
from nbimg.events import Finished, Retrying, Saved, Started, Submitted, Waiting
from nbimg.results import ResultSet
from nbimg.session import CallOptions
from nbimg.store.journal import Journal
from nbimg.testing import FAILURES, Fault, Outcome
from nbimg.types import Capabilities, EncodedImage, Request, Result, Status

CREATE = {"method": "POST", "path": "*/predictions"}
POLL = {"method": "GET", "path": "/v1/predictions/*"}
LIST = {"method": "GET", "path": "/v1/predictions"}


def generate(*prompts, **options):
    """The results of a list of prompts: never raises for one of them."""
    return nbimg.generate(list(prompts), **{"model": "flux-dev", "fallback": (), **options})


def journal_rows(columns="state, job_id", where="true"):
    path = Path("nbimg-images/.nbimg/journal.sqlite3")
    with sqlite3.connect(path) as db:
        rows = db.execute(f"SELECT {columns} FROM call WHERE {where} ORDER BY number").fetchall()
    db.close()
    return rows


def left():
    """The calls that are paid for, or may be, and were not fetched: (state, job id)."""
    return journal_rows(where="state IN ('intended', 'submitted')")


def wait_for(condition, seconds=5.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.005)


def events_of(job):
    return list(job.events)


# ------------------------------------------------------------------ in order, whole, told


def test_every_result_is_in_the_order_of_its_task_whoever_is_quicker(server):
    server.expect(Outcome(running_s=0.3, prompt_has="slow"))
    results = generate("slow one", "second", "third")
    assert [r.request.prompt for r in results] == ["slow one", "second", "third"]
    assert [r.index for r in results] == [0, 1, 2]
    assert all(r.status is Status.OK for r in results)


def test_each_variant_has_the_next_seed_and_a_job_of_its_own(server):
    (result,) = generate("a cat", n=3, seed=41)
    assert [image.seed for image in result.images] == [41, 42, 43]
    assert sorted(job.input["seed"] for job in server.jobs) == [41, 42, 43]


def test_a_call_that_is_over_leaves_nothing_for_the_garbage_collector(server):
    generate("a cat")
    gc.collect()
    gc.disable()
    try:
        generate("one", "two", "three")
        kinds = [type(one) for one in gc.get_objects()]
    finally:
        gc.enable()
    assert not {Order, RemoteCall, Chain} & {*kinds}
    assert Result in kinds


def test_files_are_on_disk_before_a_task_is_said_to_be_finished(server):
    seen = []
    own = session.default()
    plan = own.plan([Request("a cat", model="flux-dev")])[0]

    def emit(event):
        if isinstance(event, Finished):
            seen.extend(image.path.read_bytes() for image in event.result.images)

    own.portal.call(own._workshop().place().engine.run, run.Batch("b", plan.tasks), emit)
    assert [len(data) > 50 for data in seen] == [True]


def test_the_events_of_a_task_come_in_the_order_in_which_things_happen(server):
    job = nbimg.submit("a cat", model="flux-dev")
    job.wait()
    kinds = [type(event) for event in events_of(job)]
    assert kinds.index(Started) < kinds.index(Submitted) < kinds.index(Finished)


def saved_and_finished(job):
    """The images told as saved before the task was told as finished, and its result."""
    events = events_of(job)
    (end,) = [place for place, event in enumerate(events) if isinstance(event, Finished)]
    saved = [place for place, event in enumerate(events) if isinstance(event, Saved)]
    assert all(place < end for place in saved)
    assert all(events[place].task == events[end].task for place in saved)
    return [events[place].image for place in saved], events[end].result


def by_path(images):
    return sorted(images, key=lambda image: image.path)


def test_every_image_is_told_as_saved_before_its_task_is_told_as_finished(server):
    job = nbimg.submit("a cat", model="flux-dev", n=4)
    job.wait()
    saved, result = saved_and_finished(job)
    assert len(saved) == 4
    assert by_path(saved) == by_path(result.images)


def test_every_local_image_is_told_as_saved_before_its_task_is_told_as_finished():
    with_backend("here", Here)
    job = nbimg.submit("a cat", model="here:m", n=4)
    job.wait()
    saved, result = saved_and_finished(job)
    assert len(saved) == 4
    assert by_path(saved) == by_path(result.images)


def test_with_url_only_nothing_is_told_as_saved(server):
    job = nbimg.submit("a cat", model="flux-dev", url_only=True)
    job.wait()
    assert saved_and_finished(job)[0] == []


def test_several_outputs_of_one_call_are_numbered_and_all_kept(server):
    (result,) = generate("a cat", output="pic.png", params={"num_outputs": 3})
    assert [image.path.name for image in result.images] == ["pic_1.png", "pic_2.png", "pic_3.png"]
    assert len(server.jobs) == 1


def test_variants_of_one_task_are_numbered_in_order(server):
    (result,) = generate("a cat", output="pic.png", n=3, seed=1)
    assert [image.path.name for image in result.images] == ["pic_1.png", "pic_2.png", "pic_3.png"]


def test_fewer_images_than_asked_is_partial_and_keeps_what_came(server):
    class Stingy(Instant):
        async def capabilities(self, model):
            return Capabilities(options={"n": registry_field("count")})

    with_backend("stingy", Stingy)
    (result,) = generate("x", model="stingy:m", n=3)
    assert result.status is Status.PARTIAL
    assert len(result.images) == 1
    assert "1 of 3" in str(result.error)


# ------------------------------------------------------------------ one does not cost the others


def test_one_failed_task_of_several_costs_no_other(server):
    server.expect(Outcome(error="Prediction failed: out of memory (E1001)", prompt_has="bad"))
    results = generate("good", "bad", "fine")
    assert [r.status for r in results] == [Status.OK, Status.FAILED, Status.OK]
    assert "E1001" in results[1].error.message
    assert len(server.jobs) == 3


def test_a_refused_parameter_of_one_task_costs_no_other(server):
    results = nbimg.batch(
        [
            {"prompt": "a", "model": "flux-dev"},
            {"prompt": "b", "model": "flux-dev", "params": {"no_such": 1}},
            {"prompt": "c", "model": "flux-dve"},
            {"prompt": "d", "model": "replicate:nobody/nothing"},
            {"prompt": "e", "model": "flux-kontext-max", "image": "missing.png"},
            {"prompt": "f", "model": "flux-dev", "image": f"{server.base_url}/no/image.png"},
        ]
    )
    assert [r.status for r in results] == [Status.OK] + [Status.FAILED] * 5
    assert [r.error.kind for r in results.failed] == [
        "UnknownNameError",
        "UnknownNameError",
        "UnknownNameError",
        "UnknownNameError",
        "ImageInputError",
    ]
    assert len(server.jobs) == 1


def test_the_journal_names_the_right_task_when_an_earlier_one_was_refused(server):
    nbimg.batch(
        [
            {"prompt": "b", "model": "flux-dev", "params": {"no_such": 1}},
            {"prompt": "a", "model": "flux-dev"},
        ]
    )
    with sqlite3.connect("nbimg-images/.nbimg/journal.sqlite3") as db:
        rows = db.execute("SELECT id & 0xffffff, result IS NOT NULL FROM task").fetchall()
    db.close()
    assert rows == [(1, 1)]


@pytest.mark.parametrize(("status", "rest"), [(503, ["submitted"]), (404, [])])
def test_one_bad_download_of_several_keeps_the_others(server, status, rest):
    server.inject(Fault("error", method="GET", path="/xezq/*/out-1.*", status=status, times=None))
    (result,) = generate("a cat", params={"num_outputs": 3})
    assert result.status is Status.PARTIAL
    assert len(result.images) == 2
    assert [state for state, _ in left()] == rest  # still to be fetched, unless it is gone


# ------------------------------------------------------------------ errors of the provider


@pytest.mark.parametrize("name", ["E005", "nsfw", "all_nsfw"])
def test_a_refused_prompt_is_refused_and_not_sent_again(server, name):
    server.expect(Outcome(error=FAILURES[name]))
    (result,) = generate("x")
    assert result.status is Status.REFUSED
    assert len(server.jobs) == 1


@pytest.mark.parametrize("name", ["E1000", "interrupted"])
def test_a_failure_that_its_provider_calls_passing_is_run_again(server, name):
    server.expect(Outcome(error=FAILURES[name]))
    job = nbimg.submit(["x"], model="flux-dev")
    (result,) = job.wait()
    assert result.status is Status.OK
    assert len(server.jobs) == 2
    assert len(server.billed_jobs) == 1
    assert [event.stage for event in events_of(job) if isinstance(event, Retrying)] == ["run"]
    assert [state for state, _ in journal_rows()] == ["failed", "done"]


def test_a_passing_failure_that_does_not_pass_ends_after_the_attempts(server):
    server.expect(Outcome(error=FAILURES["interrupted"], times=None))
    (result,) = generate("x", retries=2)
    assert result.status is Status.FAILED
    assert len(server.jobs) == 2


@pytest.mark.parametrize(
    ("output", "status"),
    [
        ("list", Status.OK),
        ("str", Status.OK),
        ("dict", Status.OK),
        ("data_uri", Status.OK),
        ("empty", Status.REFUSED),
        ("null", Status.FAILED),
    ],
)
def test_every_shape_of_an_output_is_understood(server, output, status):
    server.expect(Outcome(output=output))
    (result,) = generate("x")
    assert result.status is status
    assert len(result.images) == (status is Status.OK)
    assert len(server.jobs) == 1


@pytest.mark.parametrize("status", ["canceled", "aborted"])
def test_a_job_that_somebody_else_stopped_is_a_failure_and_not_a_picture(server, status):
    server.expect(Outcome(status=status))
    (result,) = generate("x")
    assert result.status is Status.FAILED
    assert "cancelled at the provider" in str(result.error)


@pytest.mark.parametrize(
    ("code", "variant", "kind"),
    [
        (401, "", "KeyRejectedError"),
        (402, "", "QuotaExceededError"),
        (404, "", "RejectedError"),
        (422, "input", "RejectedError"),
        (422, "version", "RejectedError"),
    ],
)
def test_what_can_not_pass_is_never_sent_again(server, code, variant, kind):
    server.inject(Fault("error", **CREATE, status=code, variant=variant, times=None))
    (result,) = generate("x")
    assert result.error.kind == kind
    assert result.error.http_status == code
    assert server.count(**CREATE) == 1
    assert result.status is Status.FAILED


@pytest.mark.parametrize("hint", ["header", "body", "text"])
def test_a_429_is_obeyed_for_the_whole_account_wherever_it_says_so(server, hint):
    server.hints = frozenset([hint])
    server.inject(Fault("error", **CREATE, status=429, retry_after_s=1))
    job = nbimg.submit(["a", "b", "c"], model="flux-dev", concurrency=1)
    results = job.wait()
    assert [r.status for r in results] == [Status.OK] * 3
    creates = server.matching(**CREATE)
    assert len(creates) == 4
    assert min(call.at_s for call in creates[1:]) - creates[0].at_s > 0.95
    assert [event.reason for event in events_of(job) if isinstance(event, Waiting)] != []
    assert results.usage.rate_limited == 1
    assert results.usage.retries == 1


def test_a_429_of_one_task_holds_back_the_others_too(server):
    server.inject(Fault("error", **CREATE, status=429, retry_after_s=1))
    generate("a", "b", "c", concurrency=2)
    first, *others = server.matching(**CREATE)
    late = [call.at_s - first.at_s for call in others]
    assert sum(delay < 0.9 for delay in late) <= 1  # the one that was on its way already


def low_credit(server, monkeypatch, speed):
    """6 creates a minute, in a quick minute; what the server says in its seconds is said in ours."""
    server.credit, server.speed = "low", speed
    real = server._throttled
    monkeypatch.setattr(server, "_throttled", lambda wait_s, low: real(wait_s / speed, low))


def test_an_account_with_little_credit_finishes_a_batch_of_five(server, monkeypatch):
    low_credit(server, monkeypatch, speed=20)
    results = generate(*"abcde", retries=3)
    assert [r.status for r in results] == [Status.OK] * 5
    assert len(server.jobs) == 5
    refused = [sum(a.outcome == "BusyError" for a in r.attempts) for r in results]
    assert max(refused) <= 2  # the first rush, and the probe that came too early


def test_no_create_follows_a_success_faster_than_an_account_with_little_credit_takes_them(
    server, monkeypatch
):
    low_credit(server, monkeypatch, speed=15)
    results = generate(*"abcdef", retries=3, concurrency=1)
    assert [r.status for r in results] == [Status.OK] * 6
    assert server.count(**CREATE) - 6 <= 2  # else each but the first waits for a refusal to end


def test_a_create_that_its_time_out_has_left_on_its_way_keeps_its_permit(server):
    server.inject(Fault("delay", **CREATE, when="after", delay_s=1.5, times=1))
    first, second = generate("a", "b", concurrency=1, timeout=0.5)
    assert first.status is Status.UNKNOWN
    assert second.status is Status.OK
    one, other = server.matching(**CREATE)
    assert other.at_s - one.at_s >= 1.5


def test_who_waits_while_another_is_refused_loses_no_attempt(server):
    server.inject(Fault("error", **CREATE, status=429, retry_after_s=1))
    first = nbimg.submit("first", model="flux-dev", retries=4)
    wait_for(lambda: server.count(**CREATE) == 1)
    server.inject(Fault("error", **CREATE, status=429, retry_after_s=1))
    time.sleep(0.1)
    others = generate("a", "b", "c", retries=1)  # they come while the account is held back
    results = [*first.wait(), *others]
    assert [r.status for r in results] == [Status.OK] * 4
    assert server.count(**CREATE) == 6


def test_a_500_on_a_poll_is_asked_again_and_nothing_is_made_twice(server):
    server.inject(Fault("error", **POLL, status=500, times=2))
    (result,) = generate("x")
    assert result.status is Status.OK
    assert len(server.jobs) == 1


def test_a_poll_that_never_succeeds_leaves_the_job_in_the_journal(server):
    server.inject(Fault("html", **POLL, status=503, times=None))
    (result,) = generate("x")
    assert result.status is Status.FAILED
    assert [job_id for _, job_id in left()] == [job.id for job in server.jobs]


def test_the_schema_is_asked_for_again_when_the_first_answer_is_lost(server):
    server.inject(Fault("html", method="GET", path="/v1/models/*", status=502, times=2))
    (result,) = generate("x")
    assert result.status is Status.OK


# ------------------------------------------------------------------ downloads


@pytest.mark.parametrize("kind", ["truncate", "cut", "html", "drop"])
def test_a_spoilt_download_is_fetched_again_and_never_paid_again(server, kind):
    server.inject(Fault(kind, method="GET", path="/xezq/*"))
    (result,) = generate("x")
    assert result.status is Status.OK
    assert server.count("GET", "/xezq/*") == 2
    assert len(server.jobs) == 1


def test_a_page_instead_of_an_image_is_a_failure_that_can_still_be_fetched(server):
    server.expect(Outcome(delivery="html"))
    (result,) = generate("x")
    assert result.status is Status.FAILED
    assert "HTML" in str(result.error)
    assert len(server.jobs) == 1
    assert [job_id for _, job_id in left()] == [server.jobs[0].id]


def test_an_image_called_text_is_still_an_image(server):
    server.expect(Outcome(delivery="wrong_type"))
    assert generate("x")[0].status is Status.OK


def test_url_only_downloads_nothing(server):
    (result,) = generate("x", url_only=True)
    assert result.images[0].path is None
    assert result.images[0].url.startswith(server.files_url)
    assert server.count("GET", "/xezq/*") == 0


# ------------------------------------------------------------------ money


@pytest.mark.parametrize("reset", [False, True])
def test_a_create_lost_before_acceptance_is_sent_again_and_paid_once(server, reset):
    server.inject(Fault("drop", **CREATE, when="before", reset=reset))
    (result,) = generate("x")
    assert result.status is Status.OK
    assert len(server.jobs) == 1
    assert server.count(**CREATE) == 2


@pytest.mark.parametrize("kind", ["drop", "html", "truncate", "cut"])
def test_a_create_lost_after_acceptance_is_found_and_paid_once(server, kind):
    server.inject(Fault(kind, **CREATE, when="after"))
    (result,) = generate("x")
    assert result.status is Status.OK
    assert len(server.jobs) == 1
    assert server.count(**CREATE) == 1
    assert journal_rows() == [("done", server.jobs[0].id)]


def test_a_lost_create_is_found_although_our_clock_runs_ahead(server, monkeypatch):
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 600)
    server.inject(Fault("drop", **CREATE, when="after"))
    assert generate("x")[0].status is Status.OK
    assert len(server.jobs) == 1


def test_a_list_that_lags_behind_is_asked_again_before_paying_again(server, monkeypatch):
    server.inject(Fault("drop", **CREATE, when="after"))
    listed, real = [], server._list

    def lagging(query):
        listed.append(query)
        if len(listed) == 1:
            from nbimg.testing import Reply

            return Reply.of({"next": None, "previous": None, "results": []})
        return real(query)

    monkeypatch.setattr(server, "_list", lagging)
    assert generate("x")[0].status is Status.OK
    assert len(server.jobs) == 1
    assert len(listed) == 2


def test_a_lookup_that_fails_is_asked_again_and_never_taken_for_absence(server):
    server.inject(Fault("drop", **CREATE, when="after"))
    server.inject(Fault("html", **LIST, status=502, times=1))
    assert generate("x")[0].status is Status.OK
    assert len(server.jobs) == 1


def test_a_lookup_that_always_fails_leaves_the_task_unknown_until_it_can_be_looked_up(server):
    server.inject(Fault("drop", **CREATE, when="after"))
    server.inject(Fault("html", **LIST, status=502, times=3))
    (result,) = generate("x")
    assert result.status is Status.UNKNOWN
    assert server.count(**CREATE) == 1
    assert left() == [("intended", None)]
    (again,) = nbimg.resume()
    assert again.status is Status.OK
    assert server.count(**CREATE) == 1
    assert left() == []


def test_a_lookup_goes_through_the_pages_of_the_list(server):
    server.page_size = 2
    server.inject(Fault("drop", **CREATE, when="after"))
    results = generate("a", "b", "c", "d", "e", "f", concurrency=6)
    assert all(result.status is Status.OK for result in results)
    assert len(server.jobs) == 6


def test_a_lost_twin_is_not_mistaken_for_the_one_that_has_an_owner(server):
    server.inject(Fault("drop", **CREATE, when="before", skip=1))
    results = generate("same", "same", seed=5, concurrency=1)
    assert [r.status for r in results] == [Status.OK, Status.OK]
    assert len({job_id for _, job_id in journal_rows()}) == 2
    assert len(server.jobs) == 2


def test_two_lost_twins_are_both_found_and_paid_once_each(server):
    server.inject(Fault("drop", **CREATE, when="after", times=2))
    results = generate("same", "same", seed=5, concurrency=2)
    assert [r.status for r in results] == [Status.OK, Status.OK]
    assert len(server.jobs) == 2
    assert {job_id for _, job_id in journal_rows()} == {job.id for job in server.jobs}


def test_a_lost_create_that_cannot_be_looked_up_is_unknown_and_never_sent_again(server):
    server.inject(Fault("drop", **CREATE, when="after"))
    (result,) = generate("x", model="imagen-4-ultra")
    assert result.status is Status.UNKNOWN
    assert result.error.kind == "OutcomeUnknownError"
    assert server.count(**CREATE) == 1
    assert len(server.jobs) == 1


def test_a_500_on_a_create_without_seed_is_unknown_too(server):
    server.inject(Fault("error", **CREATE, when="after", status=500))
    (result,) = generate("x", model="imagen-4-ultra")
    assert result.status is Status.UNKNOWN
    assert server.count(**CREATE) == 1


def test_the_intent_is_on_disk_before_the_create_arrives_and_the_id_before_the_first_poll(server):
    seen = {}

    def look(call):
        if call.method == "POST":
            seen.setdefault("create", journal_rows())
        elif call.path.startswith("/v1/predictions/"):
            seen.setdefault("poll", journal_rows())
        return 0.0

    server.latency_s = look
    generate("x")
    assert seen["create"] == [("intended", None)]
    assert seen["poll"] == [("submitted", server.jobs[0].id)]
    assert journal_rows() == [("done", server.jobs[0].id)]


def test_nothing_is_sent_when_the_journal_cannot_take_the_intent(server, monkeypatch):
    async def full(*args):
        raise StoreWriteError("the journal is full.")

    monkeypatch.setattr(Journal, "intend", full)
    (result,) = generate("x")
    assert result.error.kind == "StoreWriteError"
    assert server.jobs == []


@pytest.mark.parametrize("method", ["submitted", "ended", "end"])
def test_a_journal_that_fills_up_later_costs_no_image(server, monkeypatch, method, caplog):
    async def full(*args):
        raise StoreWriteError("the journal is full.")

    monkeypatch.setattr(Journal, method, full)
    with caplog.at_level(logging.WARNING, "nbimg"):
        (result,) = generate("x")
    assert result.status is Status.OK
    assert result.images[0].path.exists()
    assert "full" in caplog.text


def test_nothing_is_sent_when_the_folder_cannot_be_written(server):
    Path("nbimg-images").write_text("in the way")
    with pytest.raises(StoreWriteError, match="nbimg-images"):
        generate("x")
    assert server.jobs == []


def test_nothing_is_sent_when_the_disk_is_full_before_the_start(server, monkeypatch):
    generate("x")  # the journal is open and has room of its own

    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("nbimg.store.files.tempfile.TemporaryFile", full)
    with pytest.raises(StoreWriteError, match="is full"):
        generate("y")
    assert len(server.jobs) == 1


def test_an_image_that_cannot_be_saved_can_still_be_fetched_later(server, monkeypatch):
    def full(*args, **options):
        raise StoreWriteError("the disk is full.")

    monkeypatch.setattr("nbimg.store.files.Store.put", full)
    (result,) = generate("x")
    assert result.error.kind == "StoreWriteError"
    assert [job_id for _, job_id in left()] == [server.jobs[0].id]
    assert server.count("GET", "/xezq/*") == 1


# ------------------------------------------------------------------ Stop


def test_stop_cancels_remote_jobs_keeps_finished_ones_and_is_quick(server):
    server.expect(Outcome(running_s=60, prompt_has="slow", times=None))
    job = nbimg.submit(["quick", "slow 1", "slow 2"], model="flux-dev")
    wait_for(lambda: len(server.jobs) == 3 and server.count("GET", "/xezq/*") == 1)
    time.sleep(0.2)
    began = time.monotonic()
    job.cancel()
    results = job.wait()
    assert time.monotonic() - began < 4
    assert [r.status for r in results] == [Status.OK, Status.CANCELLED, Status.CANCELLED]
    assert results[0].images[0].path.exists()
    by_prompt = {one.input["prompt"]: one.status for one in server.jobs}
    assert by_prompt == {"quick": "succeeded", "slow 1": "canceled", "slow 2": "canceled"}
    assert left() == []
    assert results.to_dicts()["successful_results"][0]["prompt"] == "quick"
    assert len(results.to_dicts()["failed_results"]) == 2


def test_stop_sends_none_of_the_tasks_that_still_wait(server):
    server.running_s = 60
    job = nbimg.submit([f"p{k}" for k in range(20)], model="flux-dev", concurrency=2)
    wait_for(lambda: len(server.jobs) == 2)
    job.cancel()
    assert [r.status for r in job.wait()] == [Status.CANCELLED] * 20
    time.sleep(0.1)
    assert len(server.jobs) == 2
    assert [one.status for one in server.jobs] == ["canceled"] * 2


def test_stop_sends_none_of_the_creates_that_wait_for_the_window(server, sessions):
    server.running_s = 60
    own = sessions(NBIMG_REPLICATE_RATE="2/1s")
    job = own.submit([Request(f"p{k}", model="flux-dev") for k in range(6)])
    wait_for(lambda: len(server.jobs) == 2)
    job.cancel()
    job.wait()
    time.sleep(1.3)
    assert len(server.jobs) == 2
    assert left() == []


def test_stop_during_a_back_off_sends_nothing_more(server):
    server.inject(Fault("error", **CREATE, status=429, retry_after_s=1))
    job = nbimg.submit("x", model="flux-dev")
    wait_for(lambda: server.count(**CREATE) == 1)
    time.sleep(0.1)
    job.cancel()
    (result,) = job.wait()
    assert result.status is Status.CANCELLED
    time.sleep(1.2)
    assert server.jobs == []
    assert left() == []


def test_stop_while_a_create_is_in_flight_cancels_the_job_when_its_id_arrives(server):
    server.running_s = 60
    server.inject(Fault("delay", **CREATE, when="after", delay_s=0.5))
    job = nbimg.submit("x", model="flux-dev")
    wait_for(lambda: len(server.jobs) == 1)
    job.cancel()
    (result,) = job.wait()
    assert result.status is Status.CANCELLED
    assert [one.status for one in server.jobs] == ["canceled"]
    assert journal_rows() == [("cancelled", server.jobs[0].id)]


def stopped_while_creates_hang(server, monkeypatch, when, model="flux-dev"):
    monkeypatch.setattr(batch, "CLEANUP_S", 0.3)
    monkeypatch.setattr(ReplicateBackend, "create_s", 3.0)  # a resume waits for it
    server.inject(Fault("hang", **CREATE, when=when))
    job = nbimg.submit(["x"], model=model)
    wait_for(lambda: server.count(**CREATE) == 1)
    time.sleep(0.05)
    began = time.monotonic()
    job.cancel()
    (result,) = job.wait()
    assert 0.25 < time.monotonic() - began < 2
    return result


@pytest.mark.parametrize("when", ["before", "after"])
def test_stop_during_a_create_that_never_answers_is_unknown(server, monkeypatch, when):
    result = stopped_while_creates_hang(server, monkeypatch, when)
    assert result.status is Status.UNKNOWN
    assert result.error.kind == "OutcomeUnknownError"
    assert journal_rows() == [("intended", None)]  # resume looks it up
    (again,) = nbimg.resume()
    assert again.status is (Status.OK if when == "after" else Status.CANCELLED)
    assert server.count(**CREATE) == 1


def test_a_create_that_is_lost_after_stop_is_unknown(server):
    server.inject(Fault("html", **CREATE, when="after", status=502))
    server.latency_s = lambda call: 0.3 if call.method == "POST" else 0.0
    job = nbimg.submit(["x"], model="imagen-4-ultra")  # has no seed: cannot be looked for
    wait_for(lambda: server.count(**CREATE) == 1)
    job.cancel()
    (result,) = job.wait()
    assert result.status is Status.UNKNOWN
    assert journal_rows() == [("unknown", None)]


def test_stop_while_the_model_is_looked_up_returns_at_once(server):
    server.inject(Fault("hang", method="GET", path="/v1/models/*"))
    job = nbimg.submit(["x", "y"], model="flux-dev")
    wait_for(lambda: server.count("GET", "/v1/models/*") == 1)
    began = time.monotonic()
    job.cancel()
    assert [r.status for r in job.wait()] == [Status.CANCELLED] * 2
    assert time.monotonic() - began < 1


def test_a_cancel_that_is_lost_is_sent_again(server):
    server.running_s = 60
    server.inject(Fault("drop", method="POST", path="*/cancel"))
    job = nbimg.submit("x", model="flux-dev")
    wait_for(lambda: server.count(**POLL) >= 1)
    job.cancel()
    job.wait()
    assert [one.status for one in server.jobs] == ["canceled"]


def test_a_job_that_finished_before_the_cancel_came_is_paid_and_stays_in_the_journal(server):
    server.running_s = 0.4
    server.inject(Fault("delay", method="POST", path="*/cancel", when="before", delay_s=0.6))
    job = nbimg.submit("x", model="flux-dev")
    wait_for(lambda: server.count(**POLL) >= 1)
    job.cancel()
    job.wait()
    assert [one.status for one in server.jobs] == ["succeeded"]
    assert [job_id for _, job_id in left()] == [server.jobs[0].id]


def test_stop_in_the_waiting_thread_cancels_and_passes_through(server):
    server.expect(Outcome(running_s=60, prompt_has="slow"))
    job = nbimg.submit(["slow", "quick"], model="flux-dev")

    def tick():
        if server.count("GET", "/xezq/*"):
            time.sleep(0.2)
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        job.wait(tick)
    assert time.monotonic() - began < 5
    assert [r.status for r in job.results] == [Status.CANCELLED, Status.OK]
    assert sorted(one.status for one in server.jobs) == ["canceled", "succeeded"]


def test_the_time_out_bounds_a_task_and_cancels_its_job(server):
    server.expect(Outcome(running_s=60, prompt_has="slow"))
    results = generate("slow", "quick", timeout=0.7)
    assert [r.status for r in results] == [Status.FAILED, Status.OK]
    assert "0.7 s" in str(results[0].error)
    assert {one.input["prompt"]: one.status for one in server.jobs}["slow"] == "canceled"


def test_the_time_out_does_not_count_the_time_in_our_own_queue(server):
    server.running_s = 0.25
    results = generate(*"abcdef", timeout=1.0, concurrency=1)
    assert [r.status for r in results] == [Status.OK] * 6


# ------------------------------------------------------------------ limits, as the server sees them


def test_never_more_jobs_at_once_than_the_limit(server):
    most = []

    def count(call):
        most.append(sum(not job.finished for job in server.jobs))
        return 0.0

    server.latency_s = count
    server.running_s = 0.05
    generate(*(f"p{k}" for k in range(12)), concurrency=3)
    assert len(server.jobs) == 12
    assert 2 <= max(most) <= 3


def test_two_calls_at_a_time_share_the_limit_of_the_account(server, sessions):
    most = []
    server.latency_s = lambda call: most.append(sum(not j.finished for j in server.jobs)) or 0.0
    server.running_s = 0.05
    own = sessions(NBIMG_REPLICATE_CONCURRENCY="2")
    requests = [Request(f"p{k}", model="flux-dev") for k in range(5)]
    jobs = [own.submit(requests, CallOptions(concurrency=asked)) for asked in (1, 9)]
    for job in jobs:
        job.wait()
    assert len(server.jobs) == 10
    assert max(most) <= 2


# ------------------------------------------------------------------ backends of others


class Instant(RemoteBackend):
    """A provider that answers at once and has no job ids."""

    name = "instant"

    async def capabilities(self, model):
        return Capabilities()

    async def create(self, call):
        from nbimg.backends.base import Output
        from nbimg.testing.pictures import render_picture

        return Prediction(
            None, State.DONE, (Output(data=render_picture(call.prompt, "png", 8, 8)),)
        )

    async def poll(self, job_id):
        raise AssertionError

    async def fetch(self, url):
        raise AssertionError


class Here(LocalBackend):
    """Models on this machine that need no weights."""

    name = "here"

    async def capabilities(self, model):
        return Capabilities()

    def share_key(self, call):
        return call.ref.model

    async def generate(self, calls, report):
        from nbimg.testing.pictures import render_picture

        for place, call in enumerate(calls):
            yield place, EncodedImage(render_picture(f"{call.prompt} {place}", "png", 8, 8))


def registry_field(name):
    from nbimg.types import Field

    return Field(name, "integer", minimum=1, maximum=10)


@pytest.fixture(autouse=True)
def no_backends_left(monkeypatch):
    monkeypatch.setattr(registry, "_added", {})


def with_backend(name, kind):
    kind.name = name
    registry.register_backend(name, kind)


def test_a_provider_without_job_ids_works_and_is_settled():
    with_backend("instant", Instant)
    results = generate("x", "y", model="instant:m")
    assert [r.status for r in results] == [Status.OK] * 2
    assert journal_rows() == [("done", None)] * 2


def test_a_success_without_images_is_a_failure():
    class Empty(Instant):
        async def create(self, call):
            return Prediction("1", State.DONE)

    with_backend("empty", Empty)
    (result,) = generate("x", model="empty:m")
    assert result.status is Status.FAILED
    assert "without an image" in str(result.error)


def test_a_defect_in_a_plug_in_costs_its_own_task_only(server, caplog):
    class Broken(Instant):
        async def create(self, call):
            raise ZeroDivisionError("oops")

    with_backend("broken", Broken)
    results = nbimg.batch(
        [{"prompt": "a", "model": "broken:m"}, {"prompt": "b", "model": "flux-dev"}]
    )
    assert [r.status for r in results] == [Status.FAILED, Status.OK]
    assert results[0].error.kind == "ZeroDivisionError"


def test_a_provider_without_a_list_is_unknown_after_a_lost_create():
    class Lossy(Instant):
        sent = 0

        async def create(self, call):
            type(self).sent += 1
            raise OutcomeUnknownError("lost.")

    with_backend("lossy", Lossy)
    (result,) = generate("x", model="lossy:m")
    assert result.status is Status.UNKNOWN
    assert Lossy.sent == 1


def test_a_job_that_fails_for_good_is_not_run_again():
    class Failing(Instant):
        sent = 0

        async def create(self, call):
            type(self).sent += 1
            return Prediction("1", State.FAILED, error=JobFailedError("broke."))

    with_backend("failing", Failing)
    (result,) = generate("x", model="failing:m")
    assert result.status is Status.FAILED
    assert Failing.sent == 1
    assert isinstance(generate("x", model="failing:m"), ResultSet)

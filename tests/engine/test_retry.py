import asyncio
import time

import pytest

from nbimg import errors
from nbimg.engine.retry import Policy, may_retry, retrying
from nbimg.errors import (
    BusyError,
    JobFailedError,
    KeyRejectedError,
    OutcomeUnknownError,
    RejectedError,
    ReplyError,
    UnreachableError,
)

QUICK = Policy(3, 0.01, 0.02)


def run(stage, failures, policy=QUICK):
    """Raise the failures one after the other, then succeed; return what happened."""
    left, waits = list(failures), []

    async def work():
        if left:
            raise left.pop(0)
        return "done"

    async def go():
        return await retrying(stage, work, policy, lambda *told: waits.append(told))

    try:
        return asyncio.run(go()), waits, left
    except errors.NbimgError as error:
        return error, waits, left


@pytest.mark.parametrize("kind", [UnreachableError, BusyError])
@pytest.mark.parametrize("stage", ["create", "poll", "download", "find", "cancel"])
def test_what_can_pass_is_tried_again(stage, kind):
    value, waits, _ = run(stage, [kind("no"), kind("no")])
    assert value == "done"
    assert [number for number, _, _ in waits] == [2, 3]


def test_a_stage_has_at_most_so_many_attempts_and_raises_the_last_error():
    failures = [UnreachableError(str(number)) for number in range(5)]
    error, waits, left = run("create", failures)
    assert error is failures[2]
    assert len(waits) == 2
    assert len(left) == 2


@pytest.mark.parametrize(
    "kind", [RejectedError, KeyRejectedError, OutcomeUnknownError, ReplyError, JobFailedError]
)
def test_a_create_that_may_have_been_accepted_or_was_refused_is_never_sent_again(kind):
    failure = kind("no", transient=True)
    error, waits, _ = run("create", [failure])
    assert error is failure
    assert waits == []


def test_a_download_that_came_damaged_is_fetched_again():
    assert run("download", [ReplyError("cut", transient=True)])[0] == "done"
    assert isinstance(run("download", [ReplyError("html")])[0], ReplyError)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (JobFailedError("x", transient=True), True),
        (JobFailedError("x"), False),
        (UnreachableError("x"), False),  # its own stage has tried it already
        (BusyError("x"), False),
        (ValueError("x"), False),
    ],
)
def test_a_whole_job_is_run_again_only_when_it_failed_there_for_a_passing_reason(error, again):
    assert may_retry("run", error) is again


def test_only_two_classes_say_that_a_create_may_be_sent_again():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    said = {k for k in kinds if issubclass(k, errors.BackendError) and k.resubmit}
    assert said == {UnreachableError, BusyError}


def test_the_word_of_the_provider_on_when_to_come_back_wins():
    began = time.monotonic()
    _, waits, _ = run("create", [BusyError("slow", retry_after_s=0.15)])
    assert 0.15 <= time.monotonic() - began < 1
    assert waits[0][1] == 0.15


def test_waits_grow_and_stay_within_the_bounds():
    _, waits, _ = run("poll", [UnreachableError("x")] * 5, Policy(6, 0.01, 0.03))
    seconds = [wait for _, wait, _ in waits]
    assert all(0.01 <= wait <= 0.03 + 0.0025 for wait in seconds)
    assert seconds[-1] >= 0.03


def test_what_is_not_ours_passes_through_at_once():
    async def work():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(retrying("poll", work, QUICK, lambda *_: None))


def test_a_cancellation_passes_through_while_it_waits():
    async def work():
        raise UnreachableError("x")

    async def go():
        task = asyncio.create_task(retrying("poll", work, Policy(9, 5, 5), lambda *_: None))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    began = time.monotonic()
    asyncio.run(go())
    assert time.monotonic() - began < 1

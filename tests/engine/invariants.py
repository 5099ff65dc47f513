"""What must hold after every schedule, whatever went wrong in it.

Stage: below the property test. Comes in: a `World` in which nothing happens any more. Goes out: one line
for everything that is not as it must be.
"""

import asyncio
from collections import Counter

from nbimg.backends.base import State
from nbimg.engine import batch as engine_batch
from nbimg.errors import StoreError
from nbimg.types import Status
from tests.engine.scripted import PASSING

__all__ = ["wrongs"]

#: Writes to disk and journal that may lie between Stop and the end of a batch, in seconds.
WRITES_S = 1.0


def wrongs(world):
    """Return what is wrong, one line each; empty: all is well."""
    found = list(world.server.wrongs)
    found += [f"asyncio complains: {complaint}" for complaint in world.complaints]
    found += [f"still running: {task}" for task in world.left_running]
    found += [f"never given back: {permits}" for permits in world.left_held]
    for asked in world.schedule.batches:
        outcome = world.outcomes.get(asked.name)
        if outcome is None or outcome.ended is None:  # the kernel was killed
            continue
        found += [f"{asked.name}: {text}" for text in _ended(world, asked, outcome)]
        for result in outcome.results or ():
            found += [f"{asked.name}/{result.index}: {t}" for t in _status(world, asked, result)]
            found += [f"{asked.name}/{result.index}: {t}" for t in _luck(world, asked, result)]
    found += _paid(world)
    found += _stopped(world)
    found += _width(world)
    if world.schedule.resume:
        found += _resumed(world)
    if world.schedule.probe:
        found += _probe(world)
    return found


def _ended(world, asked, outcome):
    """Each task ends once, in order, and in time."""
    counts = Counter(result.index for result in outcome.finished)
    yield from (f"task {index} ended {n} times" for index, n in counts.items() if n > 1)
    if outcome.error is not None:
        yield from _raised(world, asked, outcome.error)
    else:
        yield from _returned(world, asked, outcome)
    stops = [at for at in (asked.stop_at, asked.cancel_at) if at is not None]
    if stops and (stopped := world.start + min(stops)) >= outcome.began:
        late = outcome.ended - stopped - engine_batch.CLEANUP_S - WRITES_S
        if late > 0:
            yield f"ended {late:.1f} s too late after Stop"
    elif asked.timeout_s is not None and not world.schedule.full:
        for index, at in outcome.starts.items():
            late = outcome.ends.get(index, 0.0) - at - asked.timeout_s - WRITES_S
            if asked.counts[index] == 1 and late > 0:
                yield f"task {index} ended {late:.1f} s after its time-out"


def _raised(world, asked, error):
    """Only two things may come out of it in place of results."""
    cancelled = isinstance(error, asyncio.CancelledError) and asked.cancel_at is not None
    unwritten = isinstance(error, StoreError) and world.schedule.full is not None
    if not cancelled and not unwritten:
        yield f"raised {error!r}"
    if unwritten and any(row.batch == asked.name for row in world.disk.rows):
        yield "raised that nothing can be written after something was sent"


def _returned(world, asked, outcome):
    """One result a task, in order, the same that was told."""
    if [result.index for result in outcome.results] != list(range(len(asked.counts))):
        yield "the results are not in the order of the tasks"
    by_index = {result.index: result for result in outcome.finished}
    for planned, result in zip(outcome.planned, outcome.results, strict=True):
        if result.request is not planned.request:
            yield f"result {result.index} belongs to another task"
        if by_index.get(result.index) is not result:
            yield f"what was told of task {result.index} is not what was returned"
    if world.schedule.full is None:
        yield from _written(world, asked, outcome)


def _written(world, asked, outcome):
    """The journal has the result of each task that had begun, and the end of the batch."""
    for result in outcome.results:
        kept = world.journal.result(asked.name, result.index)
        if kept not in (None, result) and world.resumed is None:
            yield f"the journal has another result of task {result.index}: {kept}, not {result}"
        if kept is None and result.status is not Status.CANCELLED:
            yield f"the journal has no result of task {result.index}, which is {result.status}"
    state = world.disk.batches().get(asked.name)
    if state not in ("done", "cancelled", "open"):
        yield f"the journal calls the batch {state}"


def _status(world, asked, result):
    """The status says what happened."""
    wanted, status = result.request.n, result.status
    if status is Status.OK and (len(result.images) != wanted or result.error):
        yield f"ok with {len(result.images)} of {wanted} images, error {result.error}"
    if status is not Status.OK and len(result.images) == wanted and result.error is None:
        yield f"{status} with all images"
    if status is Status.PARTIAL and not result.images:
        yield "partial without an image"
    if status in (Status.FAILED, Status.REFUSED, Status.UNKNOWN) and result.error is None:
        yield f"{status} without a reason"
    if status is Status.CANCELLED and asked.stop_at is None:
        yield "cancelled, and nobody stopped it"
    if len(set(result.images)) != len(result.images):
        yield "the same image twice"
    for image in result.images:
        if (image.path is None) != asked.url_only or not (
            image.path is None or image.path in world.disk.images
        ):
            yield f"image {image.path} is not on disk"
    rows = [r for r in world.disk.rows if (r.batch, r.task) == (asked.name, result.index)]
    lost = any(row.state == "unknown" for row in rows)
    # the provider's list could not be read: another day it can
    asked_in_vain = ("find_error", "busy")
    unread = any(
        row.state == "intended" and any(world.server.faults[row.key][why] for why in asked_in_vain)
        for row in rows
        if row.key in world.server.faults
    )
    learned = not asked.undisturbed and not lost  # the answer came when nobody waited any more
    told = status is Status.UNKNOWN
    quiet = world.schedule.full is None and world.resumed is None  # else more was learned later
    wrong = not told if lost else told and not (learned or unread)
    if wrong and not result.images and quiet:
        yield f"{status}, and in the journal are {[row.state for row in rows]}"


def _luck(world, asked, result):
    """A task to which nothing happened that does not pass has its images."""
    if not asked.undisturbed or world.schedule.full or result.status is Status.OK:
        return
    never = world.schedule.finds == "never"
    if never and world.died_at is not None:
        return
    passing = PASSING - ({"lost", "lost_before"} if never else set())
    for variant in range(result.request.n):
        faults = world.server.faults.get((result.request.prompt, variant), Counter())
        if set(faults) - passing or sum(faults.values()) >= world.schedule.attempts:
            return
    yield f"{result.status} ({result.error}), though all that happened passes"


def _paid(world):
    """Everything that the provider accepted can be found in the journal."""
    now = world.clock.now
    open_rows = Counter(
        row.key
        for row in world.disk.rows
        if row.job_id is None and row.state in ("intended", "unknown", "done", "gone")
    )
    for job in world.server.jobs.values():
        rows = [row for row in world.disk.rows if row.job_id == job.id]
        state = job.state(now)
        if len(rows) > 1:
            yield f"{job.id} of {job.key} is in the journal {len(rows)} times"
        elif not rows:
            open_rows[job.key] -= 1
            free = job.told and (job.fate == "empty" or state is not State.DONE)
            if open_rows[job.key] < 0 and not free:
                yield f"{job.id} of {job.key} is paid for ({state}), and the journal has nothing"
        else:
            yield from _fate(job, state, rows[0], world)


def _fate(job, state, row, world):
    """What the journal says of a job is true."""
    text = f"{job.id} of {job.key} is {state} ({job.fate}), and {row.state} in the journal"
    asked = world.asked(row.batch)
    if row.state == "done" and not (
        state is State.DONE
        and (len(job.fetched) == job.outputs or (asked is not None and asked.url_only))
    ):
        yield f"{text}; fetched {job.fetched}"
    gone = world.server.faults.get(job.key, Counter())["fetch_gone"]  # nothing is left to fetch
    if row.state == "gone" and not gone:
        yield text
    if row.state == "failed" and not (state is State.FAILED or job.fate == "empty"):
        yield text
    if row.state == "cancelled" and state not in (State.CANCELLED, State.FAILED):
        yield text
    if row.state in ("intended", "absent"):
        yield text
    if row.state == "unknown" and (state, job.fate) == (State.DONE, "ok"):
        yield f"{text}, where nobody looks for it"


def _stopped(world):
    """What Stop could reach does not run on."""
    chances = world.schedule.chances
    left = (chances.cancel_error, chances.lost, chances.poll_error, chances.poll_busy)
    if world.schedule.cancels != "yes" or any(left) or chances.slow_s:  # some may have been left
        return
    for job in world.server.jobs.values():
        asked = world.asked(job.key[0].partition("/")[0])
        if asked is None or asked.stop_at is None or world.died_at is not None:
            continue
        late = world.start + asked.stop_at + engine_batch.CLEANUP_S + WRITES_S
        if job.at < late < job.ends_at and (job.cancelled_at is None or job.cancelled_at > late):
            yield f"{job.id} of {job.key} runs on after Stop"


def _width(world):
    """Never more at once than the account, or the batch, may have."""
    schedule, account, by_batch = world.schedule, [], {}
    for (kernel, (prompt, _)), (first, last) in world.server.spans.items():
        name = prompt.partition("/")[0]
        if kernel:  # what is taken up was asked for before
            continue
        account.append((first, last))
        by_batch.setdefault(name, []).append((first, last))
    asks = [asked.concurrency or 0 for asked in schedule.batches]
    ceiling = schedule.own or max(schedule.default, *asks)
    if (most := at_once(account)) > ceiling:
        yield f"{most} calls at once on an account that may have {ceiling}"
    for asked in schedule.batches:
        limits = [n for n in (schedule.own, asked.concurrency) if n is not None]
        limit = min(limits, default=schedule.default)
        if (most := at_once(by_batch.get(asked.name, ()))) > limit:
            yield f"{asked.name}: {most} calls at once, where {limit} were asked for"


def _resumed(world):
    """What was paid for is fetched; what was never sent is sent, if that was asked for."""
    now, full = world.clock.now, world.schedule.full is not None
    for row in world.disk.rows:
        asked, job = world.asked(row.batch), world.server.jobs.get(row.job_id)
        good = job is None or (job.fate == "ok" and job.state(now) is State.DONE and not job.stalls)
        if row.state in ("intended", "submitted") and asked is not None and good and not full:
            yield f"{row.batch}/{row.task}, {row.variant} is {row.state} after all was resumed"
    if world.schedule.resume != "remaining" or world.died_at is None:
        return
    for name, state in world.disk.batches().items():
        asked = world.asked(name)
        for index in range(len(asked.counts) if asked and state != "cancelled" else 0):
            kept = world.journal.result(name, index)
            if kept is None:
                yield f"{name}/{index} has no result after all was sent"
            elif asked.undisturbed and kept.status is not Status.OK:
                yield from (f"{name}/{index}: {text}" for text in _luck(world, asked, kept))


def at_once(spans):
    """Return the most that overlap; one that ends as another begins does not."""
    moments = sorted(
        moment for first, last in spans if last > first for moment in ((first, 1), (last, -1))
    )
    most = now = 0
    for _, change in moments:
        now += change
        most = max(most, now)
    return most


def _probe(world):
    """After all that, a batch has its images and all permits."""
    outcome, schedule = world.outcomes["probe"], world.schedule
    if outcome.error or any(result.status is not Status.OK for result in outcome.results):
        yield f"a batch after it failed: {outcome.error or [r.error for r in outcome.results]}"
    spans = [span for (_, key), span in world.server.spans.items() if key[0][:5] == "probe"]
    limit = schedule.own or schedule.default
    learned = schedule.most is not None or not schedule.says  # that fewer are better
    if (most := at_once(spans)) != limit and not learned:
        yield f"a batch after it has {most} permits of {limit}"
    # one that was told to slow down again after a success keeps its distance for a while
    apart = schedule.chances.busy > 0 or schedule.shared
    if world.server.most_creates < 2 <= limit - 2 and not (learned or apart):
        yield f"a batch after it, with {limit} permits, sends its creates one at a time"

"""Who takes over what: each open call exactly once, nothing finished ever again."""

import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nbimg.backends.base import Call
from nbimg.store.journal import Journal, Left, Row, left
from nbimg.types import ModelRef, Request, Result, Status

PATH = Path("nbimg-images/.nbimg/journal.sqlite3")
CALL = Call(ModelRef("p", "m"), "x")
OPEN = ("intended", "submitted")
STANDING = (*OPEN, "done", "unknown")


@pytest.fixture
def kernels():
    """Two journals on one file, as two kernels have them."""
    both = Journal(PATH.absolute()), Journal(PATH.absolute())
    yield both
    for one in both:
        one.close()


def rows(count, calls=1):
    return [Row(k, Request(f"x{k}"), "p:m", k, calls) for k in range(count)]


def ids(claimed):
    return [one.id for one in claimed]


def test_what_a_living_kernel_runs_is_never_claimed_and_what_it_left_is_once(kernels):
    one, two = kernels

    async def go():
        await one.begin("b", rows(2), about={})
        await one.intend("b", 0, 0, CALL)
        for journal in kernels:
            assert await journal.claim(remaining=True) == ()
            assert await journal.claim("b") == ()
        assert left(PATH.absolute()) == Left(0, 0, 0)
        one.close()
        assert left(PATH.absolute()) == Left(1, 1, 1)
        assert ids(await two.claim()) == ["b"]
        assert left(PATH.absolute()) == Left(0, 0, 0)
        assert await one.claim() == ()
        assert await two.claim() == ()
        await two.end("b", "open")
        assert ids(await one.claim()) == ["b"]

    asyncio.run(go())


def test_an_ended_batch_is_anybodys_while_its_kernel_lives(kernels):
    one, two = kernels

    async def go():
        for name in ("a", "b"):
            await one.begin(name, rows(1), about={})
            number = await one.intend(name, 0, 0, CALL)
            await one.submitted(number, f"job-{name}")
            await one.finished(name, Result(0, Request("x0"), "p:m", status=Status.CANCELLED))
            await one.end(name, "cancelled")
        assert left(PATH.absolute()) == Left(2, 2, 0)
        assert ids(await one.claim("a")) == ["a"]
        (claimed,) = await two.claim()
        assert (claimed.id, claimed.state) == ("b", "cancelled")
        assert claimed.tasks[0].result.status is Status.CANCELLED
        assert [sent.job_id for sent in claimed.tasks[0].sent] == ["job-b"]

    asyncio.run(go())


def test_remaining_also_gives_broken_batches_of_which_nothing_was_sent_but_no_stopped_ones(kernels):
    one, two = kernels

    async def go():
        for name in ("dead", "open", "stopped", "done"):
            await one.begin(name, rows(3), about={})
        number = await one.intend("dead", 0, 0, CALL)
        await one.settled(number, "failed")  # nothing stands for this task
        await one.end("open", "open")
        await one.end("stopped", "cancelled")
        await one.end("done", "done")
        one.close()
        assert left(PATH.absolute()) == Left(2, 0, 6)
        assert await two.claim() == ()
        assert ids(await two.claim(remaining=True)) == ["dead", "open"]
        assert ids(await two.claim("stopped", remaining=True)) == ["stopped"]
        assert ids(await two.claim("done")) == ["done"]
        assert await two.claim("nobody") == ()

    asyncio.run(go())


def test_what_is_forgotten_is_neither_claimed_nor_counted_and_never_sent_again(kernels):
    one, two = kernels

    async def go():
        for name in ("dead", "other"):
            await one.begin(name, rows(3), about={})
            await one.submitted(await one.intend(name, 0, 0, CALL), f"job of {name}")
        await one.intend("dead", 1, 0, CALL)
        assert await two.forget() == {}  # its kernel lives
        one.close()
        assert left(PATH.absolute()) == Left(2, 3, 3)
        assert await two.forget("nobody") == {}
        assert await two.forget("dead") == {"dead": 2}
        assert left(PATH.absolute()) == Left(1, 1, 2)
        (claimed,) = await two.claim("dead", remaining=True)
        assert [[sent.state for sent in task.sent] for task in claimed.tasks] == [
            ["forgotten"],
            ["forgotten"],
            [],
        ]
        assert [sent.job_id for sent in claimed.tasks[0].sent] == ["job of dead"]
        await two.end("dead", "cancelled")
        assert await two.forget() == {"other": 1}
        assert left(PATH.absolute()) == Left()
        assert await two.claim(remaining=True) == ()

    asyncio.run(go())


@pytest.mark.parametrize("state", ["done", "unknown"])
def test_a_paid_call_whose_task_has_no_result_yet_is_paid_work(kernels, state):
    one, two = kernels

    async def go():
        await one.begin("b", rows(2, calls=2), about={})
        await one.settled(await one.intend("b", 0, 0, CALL), state)
        one.close()
        assert left(PATH.absolute()) == Left(1, 1, 2)
        (claimed,) = await two.claim()
        assert [sent.state for sent in claimed.tasks[0].sent] == [state]
        await two.end(
            "b", "open"
        )  # it was given back as far as it goes: what is left is to be sent
        assert left(PATH.absolute()) == Left(1, 0, 2)
        assert await two.claim() == ()
        assert len(await two.claim(remaining=True)) == 1

    asyncio.run(go())


def test_a_batch_whose_kernel_died_after_all_was_done_is_closed_quietly(kernels):
    one, two = kernels

    async def go():
        await one.begin("b", rows(1), about={})
        number = await one.intend("b", 0, 0, CALL)
        await one.ended(number, (), "b", Result(0, Request("x0"), "p:m"))
        one.close()
        assert left(PATH.absolute()) == Left(0, 0, 0)
        assert await two.claim(remaining=True) == ()
        (claimed,) = await two.claim("b")
        assert claimed.state == "done"

    asyncio.run(go())


def test_neither_the_order_nor_the_owner_of_batches_hangs_on_the_clock(kernels, monkeypatch):
    one, two = kernels

    async def go():
        for name, now in (("a", 9e9), ("b", 5.0), ("c", -1e6)):
            monkeypatch.setattr(time, "time", lambda now=now: now)
            await one.begin(name, rows(1), about={})
            await one.intend(name, 0, 0, CALL)
        assert await two.claim() == ()
        one.close()
        found = await two.claim()
        assert ids(found) == ["a", "b", "c"]
        assert [claimed.at_utc for claimed in found] == [9e9, 5.0, -1e6]

    asyncio.run(go())


CLAIMING = """
import asyncio, sys
from pathlib import Path
from nbimg.store.journal import Journal
async def go():
    journal = Journal(Path("nbimg-images/.nbimg/journal.sqlite3").absolute())
    print("ready", flush=True)
    sys.stdin.readline()
    for claimed in await journal.claim():
        print(claimed.id, flush=True)
    print(flush=True)
    sys.stdin.readline()
asyncio.run(go())
"""


def test_kernels_that_start_at_the_same_moment_share_what_a_dead_one_left():
    async def leave(name):
        journal = Journal(PATH.absolute())
        await journal.begin(name, rows(1), about={})
        await journal.intend(name, 0, 0, CALL)
        journal.close()

    for k in range(5):
        asyncio.run(leave(f"b{k}"))
    pipe = subprocess.PIPE
    several = [
        subprocess.Popen([sys.executable, "-c", CLAIMING], stdin=pipe, stdout=pipe, text=True)
        for _ in range(4)
    ]
    for one in several:
        assert one.stdout.readline() == "ready\n"
    for one in several:
        one.stdin.write("\n")
        one.stdin.flush()
    claimed = []
    for one in several:
        while line := one.stdout.readline().strip():
            claimed.append(line)
    for one in several:
        one.communicate("\n", timeout=20)
    assert sorted(claimed) == [f"b{k}" for k in range(5)]


class Kernels(RuleBasedStateMachine):
    """Two kernels that begin, send, end, die and take over in any order; a plain model beside them."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "out" / ".nbimg" / "journal.sqlite3"
        self.loop = asyncio.new_event_loop()
        self.kernels = [Journal(self.path), Journal(self.path)]
        self.batches = {}  # name → [owner or None, state, {index: [result?, {number: state}]}]

    def do(self, work):
        return self.loop.run_until_complete(work)

    def running(self, kernel):
        return [
            n
            for n, (owner, state, _) in self.batches.items()
            if owner == kernel and state == "running"
        ]

    @rule(kernel=st.integers(0, 1), count=st.integers(1, 3))
    def begin(self, kernel, count):
        name = f"b{len(self.batches)}"
        self.do(self.kernels[kernel].begin(name, rows(count), about={"name": name}))
        self.batches[name] = [kernel, "running", {k: [False, {}] for k in range(count)}]

    def some(self, data, kernel, states):
        """A call of a batch that the kernel runs: (batch, task, number)."""
        return data.draw(
            st.sampled_from(
                [
                    (name, index, number)
                    for name in self.running(kernel)
                    for index, (_, calls) in self.batches[name][2].items()
                    for number, state in calls.items()
                    if state in states
                ]
                or [None]
            )
        )

    @rule(kernel=st.integers(0, 1), data=st.data())
    def intend(self, kernel, data):
        name = data.draw(st.sampled_from(self.running(kernel) or [None]))
        if name is not None:
            index = data.draw(st.sampled_from(sorted(self.batches[name][2])))
            number = self.do(self.kernels[kernel].intend(name, index, 0, CALL))
            self.batches[name][2][index][1][number] = "intended"

    @rule(kernel=st.integers(0, 1), data=st.data())
    def submit(self, kernel, data):
        if some := self.some(data, kernel, ["intended"]):
            self.do(self.kernels[kernel].submitted(some[2], f"job{some[2]}"))
            self.batches[some[0]][2][some[1]][1][some[2]] = "submitted"

    @rule(
        kernel=st.integers(0, 1),
        data=st.data(),
        state=st.sampled_from(["done", "failed", "cancelled", "unknown", "absent"]),
        together=st.booleans(),
    )
    def settle(self, kernel, data, state, together):
        if some := self.some(data, kernel, OPEN):
            name, index, number = some
            result = Result(index, Request(f"x{index}"), "p:m")
            if together:
                state = "done"
                self.do(self.kernels[kernel].ended(number, (), name, result))
                self.batches[name][2][index][0] = True
            else:
                self.do(self.kernels[kernel].settled(number, state))
            self.batches[name][2][index][1][number] = state

    @rule(kernel=st.integers(0, 1), data=st.data())
    def finish(self, kernel, data):
        name = data.draw(st.sampled_from(self.running(kernel) or [None]))
        if name is not None:
            index = data.draw(st.sampled_from(sorted(self.batches[name][2])))
            result = Result(index, Request(f"x{index}"), "p:m", status=Status.FAILED)
            self.do(self.kernels[kernel].finished(name, result))
            self.batches[name][2][index][0] = True

    @rule(
        kernel=st.integers(0, 1),
        data=st.data(),
        state=st.sampled_from(["done", "cancelled", "open"]),
    )
    def end(self, kernel, data, state):
        name = data.draw(st.sampled_from(self.running(kernel) or [None]))
        if name is not None:
            self.do(self.kernels[kernel].end(name, state))
            self.batches[name][1] = state

    @rule(kernel=st.integers(0, 1))
    def die(self, kernel):
        self.kernels[kernel].close()
        for batch in self.batches.values():
            if batch[0] == kernel:
                batch[0] = None

    def remains(self, name):
        """(paid, unsent) of a batch that nobody runs, or None."""
        owner, state, tasks = self.batches[name]
        if owner is not None and state == "running":
            return None
        paid = unsent = 0
        for result, calls in tasks.values():
            told = result or state != "running"  # what was fetched has been given back
            paid += sum(s in (OPEN if told else STANDING) for s in calls.values())
            unsent += not result and not any(s in STANDING for s in calls.values())
        broken = state in ("running", "open")
        return paid, unsent if broken else 0

    @rule(kernel=st.integers(0, 1), remaining=st.booleans())
    def claim(self, kernel, remaining):
        expected = []
        for name in self.batches:
            if (remains := self.remains(name)) is None:
                continue
            if remains[0] or (remaining and remains[1]):
                expected.append(name)
            elif self.batches[name][1] == "running" and not remains[1]:
                self.batches[name][1] = "done"
        claimed = self.do(self.kernels[kernel].claim(remaining=remaining))
        assert ids(claimed) == expected
        for one in claimed:
            _, state, tasks = self.batches[one.id]
            assert one.state == state
            assert one.about == {"name": one.id}
            assert {
                t.index: [t.result is not None, {s.number: s.state for s in t.sent}]
                for t in one.tasks
            } == tasks
            self.batches[one.id][:2] = [kernel, "running"]

    @precondition(lambda self: self.batches)
    @rule(kernel=st.integers(0, 1), data=st.data())
    def claim_one(self, kernel, data):
        name = data.draw(st.sampled_from(sorted(self.batches)))
        free = self.remains(name) is not None
        claimed = self.do(self.kernels[kernel].claim(name))
        assert ids(claimed) == ([name] if free else [])
        if free:
            self.batches[name][:2] = [kernel, "running"]

    @invariant()
    def what_is_left_is_what_nobody_runs(self):
        remains = [r for r in map(self.remains, self.batches) if r and any(r)]
        assert left(self.path) == (
            len(remains),
            sum(p for p, _ in remains),
            sum(u for _, u in remains),
        )

    def teardown(self):
        for one in self.kernels:
            one.close()
        self.loop.close()
        self.folder.cleanup()


TestKernels = Kernels.TestCase
TestKernels.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

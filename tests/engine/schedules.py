"""Random schedules for the engine, run in virtual time: what is asked, when Stop comes, what goes wrong.

Stage: below the property test. Comes in: a seed. Goes out: the same schedule and the same run, each time,
as a `World` in which everything that happened can be looked at.
"""

import asyncio
import contextlib
import random
import shutil
import tempfile
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from nbimg.backends import registry
from nbimg.calls.call import CallOptions
from nbimg.calls.resuming import Resuming
from nbimg.calls.workshop import Place, Workshop
from nbimg.concurrency import semaphore
from nbimg.config import Rate, Settings
from nbimg.credentials.keys import Keys
from nbimg.engine.run import Batch, Engine
from nbimg.events import Finished, Started
from nbimg.planning.plan import plan
from nbimg.types import ModelRef, Request
from tests.engine.memory import Disk, MemoryJournal, MemoryStore
from tests.engine.scripted import SEED, Chances, Scripted, Server
from tests.engine.virtual import Clock, KilledError, VirtualLoop, virtual_time

__all__ = ["Asked", "Kernel", "Outcome", "Schedule", "World", "draw", "run"]

#: Long after everything has ended: every job, wait and cleanup.
LATER_S = 50_000.0
#: From the death of a kernel until the next one looks what it left.
RESTART_S = 5.0


@dataclass(frozen=True)
class Asked:
    """A batch as it is asked for; times in seconds from the start of the schedule.

    Attributes:
        name: Its id.
        counts: n of each task.
        several: Whether one call makes all n.
        at: When it is started.
        concurrency: As the call asks for it.
        timeout_s: Of each task.
        url_only: Whether nothing is downloaded.
        stop_at: When the user stops it.
        cancel_at: When the asyncio task that runs it is cancelled.
    """

    name: str
    counts: tuple[int, ...]
    several: bool = False
    at: float = 0.0
    concurrency: int | None = None
    timeout_s: float | None = None
    url_only: bool = False
    stop_at: float | None = None
    cancel_at: float | None = None

    @property
    def undisturbed(self):
        return self.timeout_s is None and self.stop_at is None and self.cancel_at is None


@dataclass(frozen=True)
class Schedule:
    """All that is decided before the start; what comes in its course is decided by `seed`.

    Attributes:
        seed: Of everything.
        batches: What is asked.
        chances: Of faults.
        default: The backend's own number of calls at once.
        own: The user's limit, or None.
        rates: The backend's windows, which the server has as well.
        most: Jobs that the server lets run at once, where that is fewer than the client thinks.
        shared: Whether somebody else uses the account's window as well.
        finds: See `Server`.
        cancels: See `Server`.
        says: See `Server`.
        attempts: At most, a stage.
        full: From when to when the disk is full.
        dies_at: The turn of its loop at which the kernel is killed.
        resume: What is taken up at the end, by the next kernel or the same: `paid`, `remaining` or nothing.
        probe: Whether a batch runs at the end, to see that all permits came back.
    """

    seed: int
    batches: tuple[Asked, ...]
    chances: Chances = field(default_factory=Chances)
    default: int = 4
    own: int | None = None
    rates: tuple[tuple[str, Rate], ...] = ()
    most: int | None = None
    shared: bool = False
    finds: str = "at once"
    cancels: str = "yes"
    says: bool = True
    attempts: int = 3
    full: tuple[float, float] | None = None
    dies_at: int | None = None
    resume: str | None = None
    probe: bool = False

    def simpler(self):
        """Yield schedules with one thing less: for a failure that a person can read."""
        if len(self.batches) > 1:
            for asked in self.batches:
                yield replace(self, batches=tuple(b for b in self.batches if b is not asked))
        for at, asked in enumerate(self.batches):
            half = len(asked.counts) // 2
            less = (
                [{"counts": asked.counts[:half]}, {"counts": asked.counts[half:]}] if half else []
            )
            less += [{"counts": asked.counts[1:]}] if half else []
            less += [{"counts": (1,) * len(asked.counts)}] if max(asked.counts) > 1 else []
            names = ("stop_at", "cancel_at", "timeout_s", "concurrency")
            less += [{name: None} for name in names if getattr(asked, name) is not None]
            for change in less:
                changed = replace(asked, **change)
                yield replace(self, batches=(*self.batches[:at], changed, *self.batches[at + 1 :]))
        for fault in fields(Chances):
            if getattr(self.chances, fault.name):
                yield replace(self, chances=replace(self.chances, **{fault.name: 0}))
        simple = Schedule(self.seed, ())
        for item in fields(Schedule):
            unlike = getattr(self, item.name) != getattr(simple, item.name)
            if unlike and item.name not in ("seed", "batches", "chances"):
                yield replace(self, **{item.name: getattr(simple, item.name)})


def draw(seed):
    """Return the schedule of a seed."""
    rng = random.Random(seed)

    def perhaps(chance, value):
        drawn = value()
        return drawn if rng.random() < chance else None

    def batch(number):
        size = rng.choice((1, 2, 5, 8, 12)) if number else rng.choice((1, 3, 6, 10, 20))
        end = rng.choice((0.0, 0.1, 2.0, 10.0, 60.0)) * rng.random()
        at = rng.choice((0.0, 1.0, 10.0)) * rng.random()
        return Asked(
            f"b{number}",
            tuple(rng.choice((1, 1, 1, 2, 4)) for _ in range(size)),
            several=rng.random() < 0.15,
            at=at,
            concurrency=perhaps(0.3, lambda: rng.randint(1, 7)),
            timeout_s=perhaps(0.2, lambda: rng.choice((0.3, 3.0, 12.0, 60.0))),
            url_only=rng.random() < 0.1,
            stop_at=perhaps(0.25, lambda: at + end),
            cancel_at=perhaps(0.1, lambda: at + end),
        )

    mild = rng.random() < 0.5
    chance = {
        fault.name: rng.choice((0.03, 0.1, 0.3)) * (0.3 if mild else 1)
        for fault in fields(Chances)
        if fault.name != "slow_s" and rng.random() < 0.3
    }
    slow = rng.choice((0.0, 0.0, 1.0, 20.0))
    rates = {
        "create": rng.choice((Rate(600, 60), Rate(5, 10), Rate(3, 1), Rate(20, 60))),
        "read": rng.choice((Rate(3000, 60), Rate(3000, 60), Rate(20, 10))),
    }
    begins = 10 * rng.random()
    return Schedule(
        seed,
        tuple(batch(number) for number in range(rng.choice((1, 1, 1, 2, 3)))),
        Chances(slow_s=slow, **chance) if rng.random() < 0.9 else Chances(slow_s=slow),
        default=rng.randint(1, 6),
        own=perhaps(0.2, lambda: rng.randint(1, 5)),
        rates=tuple(rates.items()),
        most=perhaps(0.1, lambda: rng.randint(1, 3)),
        shared=rng.random() < 0.1,
        finds=rng.choice(("at once", "at once", "later", "never")),
        cancels=rng.choice(("yes", "yes", "yes", "later", "no", "silent")),
        says=rng.random() < 0.7,
        attempts=rng.choice((3, 3, 3, 2, 1, 5)),
        full=perhaps(0.07, lambda: (begins, begins + rng.choice((0.1, 5.0, 1000.0)))),
        dies_at=perhaps(0.25, lambda: int(10 ** rng.uniform(0.7, 3.5))),
        resume=rng.choice((None, "paid", "remaining")),
        probe=rng.random() < 0.3,
    )


@dataclass
class Outcome:
    """What became of a batch; `starts` and `ends` are the moments in which that was told of a task."""

    planned: tuple
    events: list = field(default_factory=list)
    results: tuple | None = None
    error: BaseException | None = None
    began: float = 0.0
    ended: float | None = None
    starts: dict = field(default_factory=dict)
    ends: dict = field(default_factory=dict)

    @property
    def finished(self):
        return [event.result for event in self.events if isinstance(event, Finished)]


class Kernel:
    """One kernel on the account and the output folder of a world."""

    def __init__(self, world):
        schedule = world.schedule
        self.world = world
        self.backend = Scripted(
            world.server, concurrency=schedule.default, rates=dict(schedule.rates)
        )
        set_here = {
            "NBIMG_OUTPUT_DIR": str(world.disk.folder),
            "NBIMG_RETRIES": str(schedule.attempts),
        }
        if schedule.own is not None:
            set_here["NBIMG_SCRIPTED_CONCURRENCY"] = str(schedule.own)
        semaphore._known.clear()  # each kernel has its own
        self.shop = Workshop(Settings(set_here, world.empty), Keys({}, world.empty))
        self.shop.registry._made["scripted"] = self.backend
        self.journal = world.journal = MemoryJournal(
            world.disk,
            world.clock,
            world.rng,
            lambda call: world.server.held(Scripted.key(call)),
        )
        store = MemoryStore(world.disk)
        self.engine = Engine(
            self.shop.registry, store, self.journal, self.shop._limits, self.shop.paces
        )
        self.engine._shared.breakers._clock = world.clock.monotonic
        self.place = Place(store, self.journal, self.engine, None)
        self.loop = VirtualLoop(world.clock, lambda: 0.05 * world.rng.random())

    async def run(self, asked, *, stop=None):
        """Run a batch and keep what became of it."""
        world = self.world
        planned = await world.plan(asked, self.backend)
        outcome = world.outcomes[asked.name] = Outcome(planned, began=world.clock.now)

        def emit(event):
            outcome.events.append(event)
            if isinstance(event, Started | Finished):
                moments = outcome.starts if isinstance(event, Started) else outcome.ends
                moments.setdefault(event.task, world.clock.now)

        batch = Batch(
            asked.name,
            planned,
            self.shop.policy(CallOptions()),
            timeout_s=asked.timeout_s,
            concurrency=asked.concurrency,
            url_only=asked.url_only,
        )
        results = error = None
        try:
            results = await self.engine.run(batch, emit, stop)
        except (Exception, asyncio.CancelledError) as raised:
            error = raised
        if not self.backend.dead:  # else it is not the engine that came here
            outcome.results, outcome.error, outcome.ended = results, error, world.clock.now

    async def resume(self, *, remaining):
        """Take up what is left, as the session does."""
        resuming = Resuming(self.shop, self.place, None, remaining)
        self.world.resumed = await resuming.run(lambda _: None, asyncio.Event())

    def die(self):
        """Nothing of it can have an effect any more."""
        self.backend.die()
        self.journal.die()
        for job in self.world.server.jobs.values():  # the next kernel knows what is on disk
            job.owned = self.world.disk.noted(job.id)
        self.loop.bury()


class World:
    """A schedule on its way: one server, one disk, one clock, and the kernels."""

    def __init__(self, schedule, empty):
        self.schedule, self.empty = schedule, empty
        self.clock = Clock()
        self.start = self.clock.now
        self.rng = random.Random(schedule.seed + 1)
        self.disk = Disk(Path(tempfile.mkdtemp(dir=empty)))
        if schedule.full is not None:
            begin, end = schedule.full
            self.disk.full = lambda: begin <= self.clock.now - self.start < end
        self.server = Server(
            self.clock,
            self.rng,
            schedule.chances,
            {
                stage: Rate(max(1, rate.count // (2 if schedule.shared else 1)), rate.seconds)
                for stage, rate in schedule.rates
            },
            most=schedule.most,
            finds=schedule.finds,
            cancels=schedule.cancels,
            says=schedule.says,
            strict=not schedule.shared,
            intents=self.disk.intends,
            noted=lambda job_id: self.disk.noted(job_id) or schedule.full is not None,
        )
        self.outcomes = {}
        self.journal = None  # that of the last kernel
        self.resumed = None  # the results, when anything was to be taken up
        self.died_at = None
        self.left_running = ()
        self.left_held = ()
        self.complaints = []

    def asked(self, name):
        """The batch of that name as it was asked for."""
        return next((asked for asked in self.schedule.batches if asked.name == name), None)

    async def plan(self, asked, backend):
        """Plan a batch: prompts say which task it is, seeds which variant."""
        ref = ModelRef("scripted", "several" if asked.several else "one")
        can = await backend.capabilities(ref.model)
        return tuple(
            plan(index, Request(f"{asked.name}/{index}", n=n), ref, can, seed=SEED)
            for index, n in enumerate(asked.counts)
        )

    async def play(self, kernel):
        """Run all batches as the schedule says, and wait until nothing can happen any more."""
        running = [
            asyncio.create_task(self._batch(kernel, asked)) for asked in self.schedule.batches
        ]
        await asyncio.gather(*running)
        await asyncio.sleep(LATER_S)

    async def _batch(self, kernel, asked):
        await asyncio.sleep(asked.at)
        stop = asyncio.Event()
        task = asyncio.create_task(kernel.run(asked, stop=stop))
        if asked.stop_at is not None:
            kernel.loop.call_at(self.start + asked.stop_at, stop.set)
            self.server.stops[asked.name] = self.start + asked.stop_at
        if asked.cancel_at is not None:
            kernel.loop.call_at(self.start + asked.cancel_at, task.cancel)
        await asyncio.wait({task})

    async def close(self, kernel):
        """When all is calm: take up what was left, and see whether a batch has all permits."""
        self.server.calm(dict(self.schedule.rates))
        self.server.kernel += 1
        self.server.stops.clear()
        states = self.disk.batches()
        self.server.stopped = {name for name, state in states.items() if state == "cancelled"}
        self.disk.full = lambda: False
        for _ in range(2 if self.schedule.resume else 1):  # the first may meet an unforeseen 429
            if self.schedule.resume:
                await kernel.resume(remaining=self.schedule.resume == "remaining")
            await asyncio.sleep(LATER_S)
        if self.schedule.probe:
            self.server.takes_s, self.server.most_creates = 60.0, 0
            self.server.chances = Chances(slow_s=10.0)
            await kernel.run(Asked("probe", (1,) * 24))
        own = asyncio.current_task()
        self.left_running = [task for task in asyncio.all_tasks() if task is not own]
        self.left_held = [one for one in semaphore.semaphores().values() if one.held]


@contextlib.contextmanager
def provider():
    """The provider can be named."""
    registry._added["scripted"] = None  # each kernel has one that is made already
    try:
        yield
    finally:
        del registry._added["scripted"]


def run(schedule, empty):
    """Run a schedule to its end; `empty` is an empty folder."""
    world = World(schedule, empty)
    random.seed(schedule.seed)  # the jitter of the waits
    with virtual_time(world.clock), provider():
        kernel = Kernel(world)
        kernel.loop.dies_at = schedule.dies_at
        try:
            kernel.loop.run_until_complete(world.play(kernel))
        except KilledError:
            world.died_at = world.clock.now
            kernel.die()
            world.clock.now += RESTART_S
            kernel = Kernel(world)
        kernel.loop.dies_at = None
        try:
            kernel.loop.run_until_complete(world.close(kernel))
            world.complaints = kernel.loop.complaints
        finally:
            kernel.loop.bury()
            shutil.rmtree(world.disk.folder)
    return world

"""A provider with behaviour in virtual time: it queues, loses, refuses, cuts, forgets, and keeps a ledger.

Stage: below the property test. Comes in: chances of what can go wrong. Goes out: a backend for a kernel,
and `Server`, which outlives kernels and knows what was accepted. Whatever the engine must never do is
written down in `Server.wrongs` at the moment when it does it.
"""

import asyncio
import contextlib
from collections import Counter, deque
from dataclasses import dataclass, field

from nbimg.backends.base import Output, Prediction, RemoteBackend, State
from nbimg.config import Rate
from nbimg.errors import (
    BackendError,
    BusyError,
    ContentRefusedError,
    JobFailedError,
    OutcomeUnknownError,
    RejectedError,
    ReplyError,
    UnreachableError,
)
from nbimg.types import Capabilities, Field

__all__ = ["PASSING", "SEED", "Chances", "Job", "Scripted", "Server"]

#: Base seed of every task: a call's seed tells its variant.
SEED = 100
EPSILON_S = 1e-6
#: Faults after which another try of the stage must bring the task to its end.
PASSING = frozenset(
    {"drop", "lost", "lost_before", "busy", "rerun", "poll_error", "poll_busy", "find_error"}
    | {"fetch_error", "fetch_cut"}
)


@dataclass(frozen=True)
class Chances:
    """How likely each fault is, 0 to 1, each time it could happen."""

    drop: float = 0  # the connection is refused before the create is sent
    lost: float = 0  # accepted, and the answer is lost
    lost_before: float = 0  # an error before it was accepted, which looks the same
    refused: float = 0  # a bad request
    unwanted: float = 0  # a prompt that is refused
    defect: float = 0  # the plug-in itself is broken
    busy: float = 0  # a 429 that nobody could foresee
    rerun: float = 0  # the job fails for a reason that passes
    fails: float = 0  # the job fails for good
    nsfw: float = 0  # the job's picture is refused
    empty: float = 0  # the job succeeds without an image
    few: float = 0  # the job makes one image less than it was asked for
    gone: float = 0  # the job is cancelled by the provider
    stalls: float = 0  # the job runs longer than the engine waits
    poll_error: float = 0
    poll_busy: float = 0
    find_error: float = 0
    fetch_error: float = 0
    fetch_cut: float = 0  # half an image
    fetch_gone: float = 0  # no image any more
    cancel_error: float = 0
    slow_s: float = 0  # creates and cancels take up to this long


@dataclass
class Job:
    """A job that was accepted, and is paid for unless it fails."""

    id: str
    key: tuple[str, int]  # prompt, variant
    outputs: int
    at: float
    ends_at: float
    fate: str
    find_from: float  # when the provider's list shows it
    stalls: bool = False  # runs longer than the engine waits
    cancelled_at: float | None = None
    told: State | None = None  # how it ended, once the client was told
    owned: bool = False  # whether a client knows its id
    fetched: set = field(default_factory=set)

    def state(self, now):
        """Where it stands; a job that was cancelled before its end is cancelled."""
        if self.cancelled_at is not None and self.cancelled_at <= min(now, self.ends_at):
            return State.CANCELLED
        if now < self.ends_at:
            return State.RUNNING if now > self.at + 0.2 else State.QUEUED
        if self.fate in ("ok", "empty"):
            return State.DONE
        return State.CANCELLED if self.fate == "gone" else State.FAILED


@dataclass
class Server:
    """The provider's side: jobs, windows, and what has gone wrong.

    Attributes:
        clock: Virtual.
        rng: Decides everything, in the order in which it happens.
        chances: Of each fault.
        rates: Stage → window, counted by arrival.
        most: Jobs at once; None: any number.
        finds: `at once`, `later` (its list lags a second), `never` (it has no list).
        cancels: `yes`, `later` (three seconds later, if it still runs then), `no` (jobs cannot be
            stopped), `silent` (stops them and does not say so).
        says: Whether a 429 says how long to wait.
        strict: Whether every 429 of a window could have been foreseen.
    """

    clock: object
    rng: object
    chances: Chances
    rates: dict[str, Rate]
    most: int | None = None
    finds: str = "at once"
    cancels: str = "yes"
    says: bool = True
    strict: bool = True
    jobs: dict[str, Job] = field(default_factory=dict)
    wrongs: list[str] = field(default_factory=list)
    faults: dict = field(default_factory=dict)  # key → Counter of faults
    spans: dict = field(default_factory=dict)  # (kernel, key) → [first, last] moment under a permit
    most_creates: int = 0  # on their way at once
    kernel: int = 0  # 0: the first one; higher: what was left is taken up
    stops: dict = field(default_factory=dict)  # batch → when the user stopped it
    stopped: set = field(default_factory=set)  # batches of which the journal says so
    busy: list = field(default_factory=list)  # told at, until
    takes_s: float | None = None  # each job; None: some are quick, some are slow
    intents: object = None  # called with a key: whether its create is in the journal
    noted: object = None  # called with a job's id: whether it is in the journal

    def __post_init__(self):
        self._arrived = {stage: deque() for stage in self.rates}

    @property
    def now(self):
        return self.clock.now

    def wrong(self, text):
        self.wrongs.append(f"{self.now:.3f}: {text}")

    def happens(self, fault, key):
        """Whether a fault happens now, to a call of that task."""
        if self.rng.random() >= getattr(self.chances, fault):
            return False
        self.faults.setdefault(key, Counter())[fault] += 1
        return True

    def calm(self, rates):
        """Nothing goes wrong from now on, and the windows are as told."""
        self.chances, self.most, self.rates = Chances(), None, rates

    def held(self, key):
        """The call needs its permit at this moment."""
        self.spans.setdefault((self.kernel, key), [self.now, self.now])[1] = self.now

    def departs(self, what):
        """Nothing may be sent while the account was told to wait."""
        for told, until in self.busy:
            if told < self.now < until - EPSILON_S:
                self.wrong(f"{what} sent {until - self.now:.3f} s too early after a 429")

    def arrives(self, stage, key):
        """Count a request; refuse one that is too many."""
        rate, arrived = self.rates.get(stage), self._arrived.get(stage)
        if rate is None:
            return
        while arrived and arrived[0] <= self.now - rate.seconds + EPSILON_S:
            arrived.popleft()
        if len(arrived) >= rate.count:
            if self.strict:
                self.wrong(f"{stage} of {key} is too many in the window: a 429 to be foreseen")
            self.refuse(key, arrived[0] + rate.seconds - self.now)
        arrived.append(self.now)

    def refuse(self, key, seconds, *, crowded=False):
        """Raise a 429."""
        self.faults.setdefault(key, Counter())["busy"] += 1
        wait = round(seconds + self.rng.choice([0.0, 0.5, 3.0]), 3) if self.says else None
        if wait is not None:
            self.busy.append((self.now, self.now + wait))
        raise BusyError("429", retry_after_s=wait, http_status=429, crowded=crowded)

    def full(self):
        running = sum(not job.state(self.now).terminal for job in self.jobs.values())
        return self.most is not None and running >= self.most

    def accept(self, call, key):
        """Take a job on; two for one variant only when the first one's failure was told."""
        for job in self.jobs.values():
            if job.key == key and not self._may_follow(job):
                self.wrong(f"{key} was created twice: {job.id} was {job.told}, fate {job.fate}")
        if key[0].partition("/")[0] in self.stopped:
            self.wrong(f"{key} was created after its batch was stopped")
        fates = ("rerun", "fails", "nsfw", "empty", "gone", "stalls")
        fate = next((fate for fate in fates if self.happens(fate, key)), "ok")
        takes = 2000.0 if fate == "stalls" else self.rng.choice([0.0, 0.5, 3.0, 10.0])
        takes = takes * self.rng.random() if self.takes_s is None else self.takes_s
        seen = self.now + (1.5 * self.rng.random() if self.finds == "later" else 0.0)
        job = Job(
            f"j{len(self.jobs)}",
            key,
            call.count - (call.count > 1 and self.happens("few", key)),
            self.now,
            self.now + takes + (1000.0 if fate == "stalls" else 0.0),
            "ok" if fate == "stalls" else fate,
            seen,
            stalls=fate == "stalls",
        )
        self.jobs[job.id] = job
        return job

    def _may_follow(self, job):
        if not self.kernel:
            return job.told is State.FAILED and job.fate == "rerun"
        # how the first one failed may not have come to the journal before its kernel died
        return job.fate != "ok" or job.state(self.now) is State.CANCELLED

    def tell(self, job):
        """Return how a job stands, as the client is told."""
        state = job.state(self.now)
        if state.terminal:
            job.told = state
        job.owned = True
        error, outputs = None, ()
        if state is State.DONE and job.fate == "ok":
            outputs = tuple(Output(url=f"{job.id}/{k}") for k in range(job.outputs))
        if state is State.FAILED:
            error = (
                ContentRefusedError("nsfw", job_id=job.id)
                if job.fate == "nsfw"
                else JobFailedError(job.fate, job_id=job.id, transient=job.fate == "rerun")
            )
        return Prediction(job.id, state, outputs, error)


class Scripted(RemoteBackend):
    """The backend of one kernel; it dies with its kernel."""

    name = "scripted"

    def __init__(self, server, *, concurrency, rates):
        self.server, self.dead = server, False
        self.concurrency, self.rates = concurrency, rates
        self.under_way = {}  # key → call, of creates that have left and not arrived

    async def capabilities(self, model):
        fields = {"seed": Field("seed", "integer")}
        if model == "several":
            fields = {"n": Field("count", "integer")}
        return Capabilities(options=fields, price_usd=0.01)

    @staticmethod
    def key(call):
        """Prompt and variant: who is who."""
        return call.prompt, 0 if call.seed is None else call.seed - SEED

    async def _travel(self, most_s=0.05):
        await asyncio.sleep(most_s * self.server.rng.random())

    def _alive(self):
        if self.dead:
            raise asyncio.CancelledError

    async def create(self, call):
        self._alive()
        server, key = self.server, self.key(call)
        server.held(key)
        server.departs(f"create of {key}")
        if server.now > server.stops.get(key[0].partition("/")[0], server.now) + EPSILON_S:
            server.wrong(f"create of {key} was sent after Stop")
        if not server.intents(key):
            server.wrong(f"create of {key} was sent before its intent was in the journal")
        if server.happens("defect", key):
            raise ValueError("a defect")
        self.under_way[key] = call
        server.most_creates = max(server.most_creates, len(self.under_way))
        try:
            await self._travel(max(0.05, server.chances.slow_s))
            self._alive()
            if server.happens("drop", key):
                raise UnreachableError("no route")
            job = self.arrive(call, key)
            await self._travel()
        except asyncio.CancelledError:
            if not self.dead and key in self.under_way and server.rng.random() < 0.5:
                with contextlib.suppress(BackendError):
                    self.arrive(call, key)  # torn by its client, and accepted all the same
            raise
        finally:
            self.under_way.pop(key, None)
            if not self.dead:
                server.held(key)
        if server.happens("lost", key):
            raise OutcomeUnknownError("the connection was lost after sending")
        return server.tell(job)

    def arrive(self, call, key):
        """A create comes to the server, which may take it."""
        server = self.server
        server.arrives("create", key)
        self.under_way.pop(key, None)
        if server.happens("busy", key):
            server.refuse(key, 1.0)
        if server.full():
            server.refuse(key, 1.0, crowded=True)
        if server.happens("lost_before", key):
            raise OutcomeUnknownError("500", http_status=500)
        if server.happens("refused", key):
            raise RejectedError("422", http_status=422)
        if server.happens("unwanted", key):
            raise ContentRefusedError("400", http_status=400)
        return server.accept(call, key)

    async def find(self, call, since_utc):
        self._alive()
        server, key = self.server, self.key(call)
        server.departs(f"find of {key}")
        await self._travel()
        server.held(key)
        if server.finds == "never":
            return await super().find(call, since_utc)
        server.arrives("read", key)
        if server.happens("find_error", key):
            raise BackendError("503", http_status=503, transient=True)
        for job in server.jobs.values():
            fresh = job.at + server.clock.EPOCH >= since_utc - EPSILON_S
            if job.key == key and not job.owned and fresh and job.find_from <= server.now:
                job.owned = True
                return Prediction(job.id, State.QUEUED)
        return None

    async def poll(self, job_id):
        self._alive()
        server, job = self.server, self.server.jobs[job_id]
        server.held(job.key)
        server.departs(f"poll of {job.key}")
        if not server.noted(job_id):
            server.wrong(f"{job_id} of {job.key} was waited for before its id was in the journal")
        await self._travel()
        server.held(job.key)
        server.arrives("read", job.key)
        if server.happens("poll_busy", job.key):
            server.refuse(job.key, 1.0)
        if server.happens("poll_error", job.key):
            raise BackendError("502", http_status=502, transient=True)
        return server.tell(job)

    async def fetch(self, url):
        self._alive()
        server, (job_id, _, place) = self.server, url.partition("/")
        job = server.jobs[job_id]
        await self._travel(0.3)
        if server.happens("fetch_error", job.key):
            raise UnreachableError("lost")
        if server.happens("fetch_gone", job.key):
            raise ReplyError("404", http_status=404)
        if server.happens("fetch_cut", job.key):
            return b"cut"
        job.fetched.add(int(place))
        return f"whole {url}".encode()

    async def cancel(self, job_id):
        self._alive()
        server, job = self.server, self.server.jobs[job_id]
        if server.cancels == "no":
            return None
        await self._travel(max(0.05, server.chances.slow_s))
        self._alive()
        if server.happens("cancel_error", job.key):
            raise BackendError("502", http_status=502, transient=True)
        if not job.state(server.now).terminal:
            job.cancelled_at = server.now + (3.0 if server.cancels == "later" else 0.0)
        await self._travel()
        return None if server.cancels == "silent" else server.tell(job)

    def die(self):
        """The kernel is killed: what has left may still arrive, but nobody hears the answer."""
        self.dead = True
        self.server.kernel += 1
        self.server.strict = False  # the next one knows of no window, and of no pause
        for key, call in list(self.under_way.items()):
            if self.server.rng.random() < 0.5:
                with contextlib.suppress(BackendError):
                    self.arrive(call, key)
        self.server.busy.clear()

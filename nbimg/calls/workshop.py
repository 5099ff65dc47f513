"""What all calls of a kernel share: backends, limits, planner, cache, money, and the output folders.

Stage: between the session and its calls. Comes in: settings and credentials. Goes out: what a call needs,
each as this call may use it. Must not: run a call.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nbimg.backends.base import Context, LocalBackend
from nbimg.backends.registry import Registry
from nbimg.calls.cache import Cache
from nbimg.calls.call import CallOptions
from nbimg.config import Settings
from nbimg.credentials.given import account
from nbimg.credentials.keys import Keys
from nbimg.engine.batch import Fall
from nbimg.engine.limits import Limits
from nbimg.engine.pace import Pace
from nbimg.engine.retry import Policy
from nbimg.engine.run import Engine
from nbimg.errors import NbimgError
from nbimg.media.intake import Intake
from nbimg.planning.ledger import Allowance, Ledger
from nbimg.planning.plan import Planned
from nbimg.planning.planner import Planner
from nbimg.results import Usage
from nbimg.store.files import Store
from nbimg.store.journal import Journal
from nbimg.types import ModelRef

__all__ = ["Place", "Workshop"]


@dataclass(frozen=True, slots=True)
class Place:
    """An output folder in use.

    Attributes:
        store: Its images.
        journal: What was sent.
        engine: Runs the batches.
        disk: The thread that looks things up.
    """

    store: Store
    journal: Journal
    engine: Engine
    disk: ThreadPoolExecutor


class Workshop:
    """What the calls of one kernel share.

    Args:
        settings: Read anew at each call.
        keys: The credentials.

    Attributes:
        usage: What was made so far.
        paces: Full name of a model → how long its jobs take.
    """

    def __init__(self, settings: Settings, keys: Keys) -> None:
        self.settings = settings
        self.keys = keys
        self.registry = Registry(Context(settings, keys))
        self.planner = Planner(settings, keys, self.registry)
        self.intake = Intake()
        self.cache = Cache()
        self.ledger = Ledger()
        self.usage = Usage()
        self.paces: defaultdict[str, Pace] = defaultdict(Pace)
        self._limits = Limits(settings)
        self._lock = threading.Lock()
        self._places: dict[Path, Place] = {}
        self._noted: set[str] = set()

    @property
    def folder(self) -> Path:
        """The output folder, as the settings say now."""
        return Path(self.settings.get("output_dir")).expanduser().absolute()

    def place(self) -> Place:
        """Return the output folder as it is used."""
        folder = self.folder
        with self._lock:
            if folder not in self._places:
                store = Store(folder)
                journal = Journal(store.hidden / "journal.sqlite3")
                engine = Engine(self.registry, store, journal, self._limits, self.paces)
                disk = ThreadPoolExecutor(1, thread_name_prefix="nbimg-cache")
                self._places[folder] = Place(store, journal, engine, disk)
            return self._places[folder]

    def policy(self, options: CallOptions) -> Policy:
        """Return how often a call tries a stage."""
        return Policy(
            self.settings.get("retries", options.retries),
            self.settings.get("retry_min_s"),
            self.settings.get("retry_max_s"),
        )

    def is_remote(self, ref: ModelRef) -> bool:
        """Whether a model is reached over the network."""
        return not isinstance(self.registry.get(ref.provider), LocalBackend)

    def note(self, note: str | None) -> str | None:
        """The line about a model that nbimg chose: once in a kernel, not under every cell."""
        if note is None or note in self._noted:
            return None
        self._noted.add(note)
        return note

    def forecast(self, tasks: Sequence[Planned], options: CallOptions) -> str:
        """Return the line that says how long the limits make a call take; empty where they do not."""
        by_provider: dict[str, list[Planned]] = defaultdict(list)
        for planned in tasks:
            by_provider[planned.ref.provider].append(planned)
        lines = []
        for provider, some in by_provider.items():
            backend = self.registry.get(provider)
            if isinstance(backend, LocalBackend):
                continue
            each_s = self.paces[some[0].ref.full].expected_s
            number = sum(planned.number for planned in some)
            lane = self._limits.lane(
                account(provider),
                backend.concurrency,
                backend.rates,
                options.concurrency,
                options.semaphore,
            )
            noun = "task" if number == len(some) else "request"
            lines.append(lane.forecast(number, each_s, noun).text)
        return "; ".join(filter(None, lines))

    def fall(self, allowance: Allowance, policy: Policy) -> Fall:
        """Return what gives the next model of a chain, inside the budget."""

        async def fall(
            planned: Planned, error: NbimgError, tried: Collection[str]
        ) -> Planned | None:
            following = await self.planner.alternative(planned, error, tried, policy)
            if following is None or not allowance.covers(planned.cost_usd, following.cost_usd):
                return None
            return following

        return fall

    async def close(self) -> None:
        """Close connections and journals, on the loop that used them."""
        for backend in self.registry.made():
            if getattr(backend, "loop", "own") == "own":  # one of another loop is closed there
                await backend.close()
        await self.intake.close()
        for place in self._places.values():
            place.journal.close()
            place.engine.close()
            place.disk.shutdown(wait=False)
        self._places.clear()

"""The session: settings, keys, backends, store, journal, engine and portal, wired together.

Stage: the one door. The magics, the Python API and the panel hand in `Request`s here and get a `Job`.
Must not: parse cell text, or draw.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nbimg import config
from nbimg.backends.base import Context
from nbimg.backends.registry import Registry
from nbimg.config import Settings
from nbimg.engine.limits import Limits
from nbimg.engine.retry import Policy
from nbimg.engine.run import Batch, Engine, until
from nbimg.errors import GenerationError, NbimgError
from nbimg.events import Event, Finished
from nbimg.events import Planned as PlannedEvent
from nbimg.intake import Intake
from nbimg.job import Job
from nbimg.keys import Keys
from nbimg.planner import Plan, Planner
from nbimg.portal import Portal
from nbimg.results import ResultSet
from nbimg.store.files import Store
from nbimg.store.journal import Journal
from nbimg.types import ErrorRecord, Request, Result, Status

__all__ = ["CallOptions", "Session", "default", "raised"]


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What holds for a whole call; None: the setting's value.

    Attributes:
        task: `generate`, or `edit` when every request has an image.
        rows: Labels of the grid's rows, for a fan-out.
        columns_labels: Labels of its columns.
        groups: A number a request; those with the same one share the base seed that is drawn, so that
            only what they fan out over differs. Empty: each has its own.
        concurrency: Calls at once per account.
        retries: At most this many attempts a stage.
        timeout: Bound on each call of a task, in seconds.
        url_only: Keep the provider's addresses, download nothing.
        columns: Columns of the grid.
        lenient: Whether a call of which no task can be sent returns its failures, as a list does, and
            does not raise the first of them.
    """

    task: str = "generate"
    rows: tuple[str, ...] = ()
    columns_labels: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()
    concurrency: int | None = None
    retries: int | None = None
    timeout: float | None = None
    url_only: bool = False
    columns: int | None = None
    lenient: bool = False


@dataclass(frozen=True, slots=True)
class _Place:
    store: Store
    journal: Journal
    engine: Engine


class Session:
    """Everything of one kernel.

    Args:
        settings: Read anew at each call.
        keys: The credentials.
    """

    def __init__(self, settings: Settings | None = None, keys: Keys | None = None) -> None:
        self.settings = settings or Settings()
        self.keys = keys or Keys()
        self.registry = Registry(Context(self.settings, self.keys))
        self.portal = Portal()
        self._limits = Limits(self.settings)
        self._lock = threading.Lock()
        self._places: dict[Path, _Place] = {}
        self._intake = Intake()
        self._planner = Planner(self.settings, self.keys, self.registry)
        self._noted: set[str] = set()

    def submit(self, requests: Sequence[Request], options: CallOptions = CallOptions()) -> Job:
        """Start a call; it returns at once.

        Args:
            requests: One a task.
            options: What holds for all of them.

        Raises:
            StoreError: When the output folder cannot be written.
        """
        place = self._place()
        taken, refused = self._intake.read(requests, place.store)

        async def work(emit: Callable[[Event], None], stop: asyncio.Event) -> ResultSet:
            return await self._run(job_id, taken, refused, options, place, emit=emit, stop=stop)

        job_id = time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(3)
        return Job(job_id, self.portal, work)

    def plan(self, requests: Sequence[Request], options: CallOptions = CallOptions()) -> Plan:
        """Return what a call would do; no job is created."""
        place = self._place()
        taken, refused = self._intake.read(requests, place.store)
        return self.portal.call(self._prepared, taken, refused, options, place)

    def close(self) -> None:
        """Close connections, journals and the loop."""
        for backend in self.registry.made():
            self.portal.call(backend.close)
        self.portal.call(self._intake.close)
        for place in self._places.values():
            place.journal.close()
            place.engine.close()
        self._places.clear()
        self.portal.close()

    # ------------------------------------------------------------------ inside

    def _place(self) -> _Place:
        folder = Path(self.settings.get("output_dir")).expanduser().absolute()
        with self._lock:
            if folder not in self._places:
                store = Store(folder)
                journal = Journal(store.hidden / "journal.sqlite3")
                engine = Engine(self.registry, store, journal, self._limits)
                self._places[folder] = _Place(store, journal, engine)
            return self._places[folder]

    async def _prepared(
        self,
        requests: list[Request],
        refused: dict[int, NbimgError],
        options: CallOptions,
        place: _Place,
    ) -> Plan:
        """Fetch, in place, the images that were given as addresses, and plan."""
        policy = self._policy(options)
        await self._intake.fetch(requests, refused, place.store, policy)
        return await self._planner.plan(
            requests, refused, task=options.task, groups=options.groups, policy=policy
        )

    def _note(self, note: str | None) -> str | None:
        """The line about a model that nbimg chose: once in a kernel, not under every cell."""
        if note is None or note in self._noted:
            return None
        self._noted.add(note)
        return note

    def _policy(self, options: CallOptions) -> Policy:
        return Policy(
            self.settings.get("retries", options.retries),
            self.settings.get("retry_min_s"),
            self.settings.get("retry_max_s"),
        )

    async def _run(
        self,
        job_id: str,
        requests: list[Request],
        refused: dict[int, NbimgError],
        options: CallOptions,
        place: _Place,
        *,
        emit: Callable[[Event], None],
        stop: asyncio.Event,
    ) -> ResultSet:
        planning = asyncio.ensure_future(self._prepared(requests, refused, options, place))
        if await until({planning}, stop):
            planning.cancel()
            return ResultSet([_cancelled(*item) for item in enumerate(requests)])
        planned = await planning
        if planned.refused and not planned.tasks and not options.lenient:
            raise planned.refused[min(planned.refused)]
        emit(
            PlannedEvent(
                tasks=len(requests),
                images=sum(request.n for request in requests),
                cost_usd=planned.cost_usd,
            )
        )
        results = {
            index: _refused(index, requests[index], why) for index, why in planned.refused.items()
        }
        for result in results.values():
            emit(Finished(task=result.index, result=result))
        batch = Batch(
            job_id,
            planned.tasks,
            self._policy(options),
            self.settings.get("timeout", options.timeout),
            options.concurrency,
            options.url_only,
        )
        made = await place.engine.run(batch, emit, stop)
        results |= {result.index: result for result in made}
        return ResultSet(
            [results[index] for index in range(len(requests))],
            thumb=place.store.thumb,
            rows=options.rows,
            columns_labels=options.columns_labels,
            columns=self.settings.get("columns", options.columns),
            note=self._note(planned.note),
            rerun=lambda again: self.submit(
                again, replace(options, rows=(), columns_labels=(), groups=())
            ).wait(),
        )


def _refused(index: int, request: Request, error: NbimgError) -> Result:
    return Result(
        index=index,
        request=request,
        model=request.model or "",
        model_asked=request.model,
        status=Status.FAILED,
        error=ErrorRecord.of(error),
    )


def _cancelled(index: int, request: Request) -> Result:
    asked = request.model
    return Result(index, request, asked or "", model_asked=asked, status=Status.CANCELLED)


def raised(results: ResultSet) -> ResultSet:
    """Return the results of a call with a single prompt, or raise what went wrong.

    Raises:
        GenerationError: With `.result` and, as its cause, the error itself.
    """
    result = results[0]
    if len(results) == 1 and result.error is not None and not result.images:
        error = GenerationError(result.error.message, result=result, hint=result.error.hint)
        raise error from result.error.exception()
    return results


_default: Session | None = None
_making = threading.Lock()


def default() -> Session:
    """Return the kernel's session, made at first use."""
    global _default  # noqa: PLW0603  # the one session of the kernel
    with _making:
        if _default is None:
            _default = Session(config.kernel())
        return _default

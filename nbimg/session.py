"""The session: settings, keys, backends, store, journal, engine and portal, wired together.

Stage: the one door. The magics, the Python API and the panel hand in `Request`s here and get a `Job`.
Must not: parse cell text, or draw.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nbimg import config, inputs
from nbimg.backends.base import Context
from nbimg.backends.http import Http
from nbimg.backends.registry import Registry
from nbimg.choose import Choice, choose
from nbimg.config import Settings
from nbimg.engine.limits import Limits
from nbimg.engine.retry import Policy, retrying
from nbimg.engine.run import Batch, Engine, until
from nbimg.errors import GenerationError, ImageInputError, NbimgError, StoreWriteError
from nbimg.events import Event, Finished
from nbimg.events import Planned as PlannedEvent
from nbimg.job import Job
from nbimg.keys import Keys
from nbimg.plan import Planned, plan
from nbimg.portal import Portal
from nbimg.results import ResultSet
from nbimg.store.files import Store
from nbimg.store.journal import Journal
from nbimg.types import Capabilities, ErrorRecord, ModelRef, Request, Result, Status

__all__ = ["CallOptions", "Plan", "Session", "default", "raised"]


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What holds for a whole call; None: the setting's value.

    Attributes:
        task: `generate`, or `edit` when every request has an image.
        rows: Labels of the grid's rows, for a fan-out.
        columns_labels: Labels of its columns.
        share_seed: Whether all tasks share the base seed, so that only the named axes differ.
        concurrency: Calls at once per account.
        retries: At most this many attempts a stage.
        timeout: Bound on each call of a task, in seconds.
        url_only: Keep the provider's addresses, download nothing.
        columns: Columns of the grid.
    """

    task: str = "generate"
    rows: tuple[str, ...] = ()
    columns_labels: tuple[str, ...] = ()
    share_seed: bool = False
    concurrency: int | None = None
    retries: int | None = None
    timeout: float | None = None
    url_only: bool = False
    columns: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a call will do.

    Attributes:
        tasks: What will be sent, in order.
        refused: Index → why a task cannot be sent; it costs no other task.
        note: The line about the model that was chosen.
    """

    tasks: tuple[Planned, ...]
    refused: Mapping[int, NbimgError]
    note: str | None = None

    @property
    def cost_usd(self) -> float | None:
        """Of all tasks; None when any price is unknown."""
        costs = [task.cost_usd for task in self.tasks]
        return None if None in costs else sum(cost for cost in costs if cost is not None)


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
        self._places: dict[Path, _Place] = {}
        self._http = Http("the address")

    def submit(self, requests: Sequence[Request], options: CallOptions = CallOptions()) -> Job:
        """Start a call; it returns at once.

        Args:
            requests: One a task.
            options: What holds for all of them.

        Raises:
            StoreError: When the output folder cannot be written.
        """
        place = self._place()
        taken, refused = self._taken(requests, place)

        async def work(emit: Callable[[Event], None], stop: asyncio.Event) -> ResultSet:
            return await self._run(job_id, taken, refused, options, place, emit=emit, stop=stop)

        job_id = time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(3)
        return Job(job_id, self.portal, work)

    def plan(self, requests: Sequence[Request], options: CallOptions = CallOptions()) -> Plan:
        """Return what a call would do; no job is created."""
        taken, refused = self._taken(requests, self._place())
        return self.portal.call(self._plan, taken, refused, options)

    def close(self) -> None:
        """Close connections, journals and the loop."""
        for backend in self.registry.made():
            self.portal.call(backend.close)
        self.portal.call(self._http.close)
        for place in self._places.values():
            place.journal.close()
            place.engine.close()
        self._places.clear()
        self.portal.close()

    # ------------------------------------------------------------------ inside

    def _place(self) -> _Place:
        folder = Path(self.settings.get("output_dir")).expanduser().absolute()
        if folder not in self._places:
            store = Store(folder)
            journal = Journal(store.hidden / "journal.sqlite3")
            engine = Engine(self.registry, store, journal, self._limits)
            self._places[folder] = _Place(store, journal, engine)
        return self._places[folder]

    def _taken(
        self, requests: Sequence[Request], place: _Place
    ) -> tuple[list[Request], dict[int, NbimgError]]:
        """Read every image and keep it by its content; addresses are left for the loop.

        Returns:
            The requests, and the error of each whose images cannot be read.

        Raises:
            StoreWriteError: When the output folder cannot be written.
        """
        taken, refused = list(requests), {}
        for index, request in enumerate(requests):
            try:
                taken[index] = request.but(
                    image=tuple(self._take(image, place) for image in request.image),
                    mask=None if request.mask is None else self._take(request.mask, place),
                )
            except StoreWriteError:
                raise
            except NbimgError as error:
                refused[index] = error
        return taken, refused

    @staticmethod
    def _take(image: Any, place: _Place) -> Any:
        return image if inputs.is_url(image) else place.store.take(*inputs.read(image))

    async def _fetch(self, request: Request, place: _Place, policy: Policy) -> Request:
        """Read the images that were given as addresses."""

        async def fetch(image: Any) -> Any:
            if not inputs.is_url(image):
                return image
            get = functools.partial(self._http.send, "GET", image, follow=True)
            reply = await retrying("input", get, policy, lambda *_: None)
            if not reply.ok:
                raise ImageInputError(f"{reply.url} answered {reply.status}, not with an image.")
            name = reply.url.rpartition("/")[2] or reply.url
            clean = await asyncio.to_thread(inputs.clean, reply.content, name)
            return await asyncio.to_thread(place.store.take, clean, name)

        images = await asyncio.gather(*map(fetch, request.image))
        return request.but(image=tuple(images), mask=await fetch(request.mask))

    async def _prepared(
        self,
        requests: list[Request],
        refused: dict[int, NbimgError],
        options: CallOptions,
        place: _Place,
        policy: Policy,
    ) -> Plan:
        """Fetch, in place, the images that were given as addresses, and plan."""
        for index, request in enumerate(requests):
            if any(map(inputs.is_url, (*request.image, request.mask))) and index not in refused:
                try:
                    requests[index] = await self._fetch(request, place, policy)
                except NbimgError as error:
                    refused[index] = error
        return await self._plan(requests, refused, options)

    async def _plan(
        self,
        requests: Sequence[Request],
        unread: Mapping[int, NbimgError],
        options: CallOptions,
    ) -> Plan:
        """Choose a model for each request, ask what it takes, and fit.

        Raises:
            NbimgError: When there is no task that can be sent: the first reason.
        """
        chosen: dict[tuple[str | None, str], Choice] = {}
        can: dict[ModelRef, Capabilities | NbimgError] = {}
        tasks, refused = [], dict(unread)
        shared = secrets.randbelow(2**31)
        for index, request in enumerate(requests):
            if index in refused:
                continue
            kind = (request.model, "edit" if request.image else options.task)
            seed = shared if options.share_seed else secrets.randbelow(2**31)
            try:
                choice = chosen.get(kind) or self._choice(*kind)
                chosen[kind] = choice
                takes = can.get(choice.ref) or await self._takes(choice.ref, options)
                can[choice.ref] = takes
                if isinstance(takes, NbimgError):
                    refused[index] = takes
                else:
                    tasks.append(plan(index, request, choice.ref, takes, seed=seed))
            except NbimgError as error:
                refused[index] = error
        if refused and not tasks:
            raise refused[min(refused)]
        note = next((choice.note for choice in chosen.values() if choice.note), None)
        return Plan(tuple(tasks), refused, note)

    async def _takes(self, ref: ModelRef, options: CallOptions) -> Capabilities | NbimgError:
        """Ask what a model takes; an error is kept, so that it is asked once."""
        try:
            ask = functools.partial(self.registry.get(ref.provider).capabilities, ref.model)
            return await retrying("schema", ask, self._policy(options), lambda *_: None)
        except NbimgError as error:
            return error

    def _policy(self, options: CallOptions) -> Policy:
        return Policy(
            self.settings.get("retries", options.retries),
            self.settings.get("retry_min_s"),
            self.settings.get("retry_max_s"),
        )

    def _choice(self, model: str | None, task: str) -> Choice:
        return choose(model, task, self.settings, self.keys, self.registry)

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
        policy = self._policy(options)
        planning = asyncio.ensure_future(self._prepared(requests, refused, options, place, policy))
        if await until({planning}, stop):
            planning.cancel()
            return ResultSet([_cancelled(*item) for item in enumerate(requests)])
        planned = await planning
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
            policy,
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
            note=planned.note,
            rerun=lambda again: self.submit(
                again, replace(options, rows=(), columns_labels=())
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

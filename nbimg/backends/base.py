"""What a backend is: the contract between the engine and everything that makes images.

Stage: below the engine. A remote backend translates one `Call` into its provider's protocol, stage by
stage (create, poll, fetch, cancel), so that the engine can put a journal entry, a permit and a retry
between them. A local backend makes many images in one call. Must not: write files, retry, wait for a
rate limit, or know the journal.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Literal

from nbimg.config import Rate, Settings
from nbimg.credentials.keys import Keys
from nbimg.errors import BackendError, OutcomeUnknownError
from nbimg.events import Event
from nbimg.types import Capabilities, EncodedImage, InputImage, ModelRef

__all__ = [
    "Call",
    "Context",
    "LocalBackend",
    "Output",
    "Prediction",
    "RemoteBackend",
    "Report",
    "State",
    "report",
    "reporting",
]

Report = Callable[[Event], None]

_LISTENER: ContextVar[Report | None] = ContextVar("nbimg_report", default=None)


def report(event: Event) -> None:
    """Tell what happens to the call that is being made, a `Preview` for example; for a backend.

    Whose task it is, the engine adds. Without effect where nobody listens.
    """
    if (listener := _LISTENER.get()) is not None:
        listener(event)


@contextlib.contextmanager
def reporting(listener: Report) -> Iterator[None]:
    """Have `listener` told what the backends report that are called inside; for the engine."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


@dataclass(frozen=True, slots=True)
class Context:
    """What a backend is given when it is made: settings and credentials."""

    settings: Settings
    keys: Keys


@dataclass(frozen=True)
class Call:
    """One call to one model, fitted to what it takes.

    Attributes:
        ref: Provider and model.
        prompt: The text.
        arguments: The model's own parameters but for the prompt and the images.
        images: Input images, in order; empty: make from the prompt alone.
        image_field: The model's own name for them.
        mask: Where to edit.
        mask_field: The model's own name for it.
        seed: What was sent, or None where the model takes none.
        count: How many images this one call makes.
    """

    ref: ModelRef
    prompt: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    images: tuple[InputImage, ...] = ()
    image_field: str = "image"
    mask: InputImage | None = None
    mask_field: str = "mask"
    seed: int | None = None
    count: int = 1


class State(StrEnum):
    """Where a provider's job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether it will not change any more."""
        return self in (State.DONE, State.FAILED, State.CANCELLED)


@dataclass(frozen=True, slots=True)
class Output:
    """What a finished job holds: an address to fetch, or the bytes themselves.

    Attributes:
        url: The address.
        data: The bytes.
        cover: The address of a picture that stands for a video, where the provider gives one.
    """

    url: str | None = None
    data: bytes | None = None
    cover: str | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """A provider's job as it stands.

    Attributes:
        id: The provider's job id; None where it answers at once and has none.
        state: Where it stands.
        outputs: What it made, in order.
        error: Why it failed.
        progress: 0 to 1, where the provider tells.
        seconds: How long it ran, where the provider tells.
        usage: What the provider counted, `input_tokens` for example, where it tells.
    """

    id: str | None
    state: State
    outputs: tuple[Output, ...] = ()
    error: BackendError | None = None
    progress: float | None = None
    seconds: float | None = None
    usage: Mapping[str, int] = field(default_factory=dict)


class _Backend(ABC):
    """What remote and local backends have in common.

    Attributes:
        name: The provider's name in `provider:model`.
        concurrency: Default number of calls at once per account.
        rates: Stage (`create`, `read`) → its default request window.
    """

    name: ClassVar[str]
    concurrency: ClassVar[int] = 4
    rates: ClassVar[Mapping[str, Rate]] = {}

    def __init__(self, context: Context) -> None:
        self.context = context

    @abstractmethod
    async def capabilities(self, model: str) -> Capabilities:
        """Return what `model` takes.

        Raises:
            UnknownNameError: When the provider has no such model.
            BackendError: When the provider cannot be asked.
        """

    async def close(self) -> None:
        """Give back connections and memory."""
        return


class RemoteBackend(_Backend):
    """A provider that is reached over the network.

    Attributes:
        loop: On which event loop its coroutines are called: `own`, the engine's, which is right for every
            client that is made on first use; `caller`, the one that ran where the call was submitted,
            for a client that someone made there and that works nowhere else.
    """

    loop: ClassVar[Literal["own", "caller"]] = "own"

    @abstractmethod
    async def create(self, call: Call) -> Prediction:
        """Send a job; it may be finished on return.

        Raises:
            BackendError: `resubmit` of its class says whether it may be sent again;
                `OutcomeUnknownError` when it may have been accepted all the same.
        """

    @abstractmethod
    async def poll(self, job_id: str) -> Prediction:
        """Return how a job stands.

        Raises:
            BackendError: When the provider could not be asked; the job is not affected.
        """

    @abstractmethod
    async def fetch(self, url: str) -> bytes:
        """Return the bytes of an output.

        Raises:
            BackendError: When they did not arrive whole; `transient` says if another try can help.
        """

    async def cancel(self, job_id: str) -> Prediction | None:  # noqa: ARG002  # for those who can
        """Ask the provider to stop a job.

        Returns:
            How the job stands after that (it may have been finished before); None where the provider
            cannot stop jobs or does not tell.
        """
        return None

    async def check(self) -> str:
        """Try the credential with a request that costs nothing.

        Returns:
            What the provider says of the account, in a few words; empty where nothing can be asked for
            nothing, and so nothing was tried.

        Raises:
            KeyRejectedError: When the provider does not accept the credential.
            SetupError: When there is none.
            BackendError: When the provider could not be asked.
        """
        return ""

    async def find(
        self,
        call: Call,  # noqa: ARG002  # for those who can
        since_utc: float,  # noqa: ARG002
    ) -> Prediction | None:
        """Look for a job whose create was lost.

        Returns:
            The job when it is there, None when it provably is not.

        Raises:
            OutcomeUnknownError: When the provider has no list to look in.
        """
        raise OutcomeUnknownError(
            f"{self.name} may have accepted and charged this request, and cannot be asked.",
            backend=self.name,
        )


class LocalBackend(_Backend):
    """Models on this machine, which make many images in one call."""

    concurrency: ClassVar[int] = 1

    @abstractmethod
    def share_key(self, call: Call) -> Hashable:
        """Return a value that is equal for calls that can share one call of the pipeline."""

    @abstractmethod
    def generate(
        self, calls: Sequence[Call], report: Callable[[int, Event], None]
    ) -> AsyncIterator[tuple[int, EncodedImage]]:
        """Make the images of `calls`, which all have the same `share_key`.

        Args:
            calls: One image each.
            report: Takes the position of a call and an event about it; any thread may call it.

        Yields:
            Position of the call and its image, as each one is ready.

        Raises:
            BackendError: When a model cannot be run.
        """

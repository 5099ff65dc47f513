"""A backend that lives on the caller's event loop, for an engine that lives on its own.

Stage: between the registry and the engine. Comes in: a remote backend whose client was made on a loop of
the notebook. Goes out: the same backend, each of its coroutines run on that loop and awaited on the
engine's. Must not: know what is waited for.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

from nbimg.backends.base import Call, LocalBackend, Prediction, RemoteBackend
from nbimg.concurrency.loops import CALLER, run_on
from nbimg.types import Capabilities

__all__ = ["Bridge", "bridged"]

B = TypeVar("B", bound=RemoteBackend | LocalBackend)


def bridged(backend: B) -> B | Bridge:
    """Return the backend as the engine has to call it, for the call that is under way.

    A backend with `loop = "caller"` is called on the loop that ran where the call was submitted; where
    none ran, on the engine's own.
    """
    loop = CALLER.get()
    if loop is None or not isinstance(backend, RemoteBackend) or backend.loop == "own":
        return backend
    return Bridge(backend, loop)


class Bridge(RemoteBackend):
    """A remote backend, called on another loop; a cancellation passes through both ways.

    Args:
        backend: The backend.
        loop: Where its coroutines run.
    """

    name = "bridge"  # of an instance: that of its backend

    def __init__(self, backend: RemoteBackend, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(backend.context)
        self._backend = backend
        self._loop = loop
        vars(self).update(
            name=backend.name, concurrency=backend.concurrency, rates=backend.rates
        )  # what classes have, this has of its own

    async def capabilities(self, model: str) -> Capabilities:
        """Return what `model` takes."""
        return await run_on(self._loop, self._backend.capabilities(model))

    async def create(self, call: Call) -> Prediction:
        """Send a job."""
        return await run_on(self._loop, self._backend.create(call))

    async def poll(self, job_id: str) -> Prediction:
        """Return how a job stands."""
        return await run_on(self._loop, self._backend.poll(job_id))

    async def fetch(self, url: str) -> bytes:
        """Return the bytes of an output."""
        return await run_on(self._loop, self._backend.fetch(url))

    async def cancel(self, job_id: str) -> Prediction | None:
        """Ask the provider to stop a job."""
        return await run_on(self._loop, self._backend.cancel(job_id))

    async def check(self) -> str:
        """Try the credential with a request that costs nothing."""
        return await run_on(self._loop, self._backend.check())

    async def find(self, call: Call, since_utc: float) -> Prediction | None:
        """Look for a job whose create was lost."""
        return await run_on(self._loop, self._backend.find(call, since_utc))

    async def close(self) -> None:
        """Give back connections and memory."""
        await run_on(self._loop, self._backend.close())

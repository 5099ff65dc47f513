"""Read the images of requests, and keep them by their content.

Stage: below the session. Comes in: requests with whatever a person calls an image. Goes out: requests with
`InputImage`s, and the error of each whose images cannot be read. Must not: send anything to a provider.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from typing import Any

from nbimg.backends.http import Http
from nbimg.engine.retry import Policy, retrying
from nbimg.errors import ImageInputError, NbimgError, StoreWriteError
from nbimg.media import inputs
from nbimg.media.attachments import attach
from nbimg.store.files import Store
from nbimg.types import Request

__all__ = ["Intake"]


class Intake:
    """Reads images: at once what is here, on the loop what has an address."""

    def __init__(self) -> None:
        self._http = Http("the address")

    def read(
        self, requests: Sequence[Request], store: Store
    ) -> tuple[list[Request], dict[int, NbimgError]]:
        """Read every image that is on this machine; addresses are left as they are.

        Returns:
            The requests, and index → error of each whose images cannot be read.

        Raises:
            StoreWriteError: When the output folder cannot be written.
        """
        taken, refused = list(requests), {}
        for index, request in enumerate(requests):
            if not (request.image or request.params) and request.mask is None:
                continue
            try:
                taken[index] = request.but(
                    image=tuple(_take(image, store) for image in request.image),
                    mask=None if request.mask is None else _take(request.mask, store),
                    params=attach(request.params, store.take),
                )
            except StoreWriteError:
                raise
            except NbimgError as error:
                refused[index] = error
        return taken, refused

    async def fetch(
        self, requests: list[Request], refused: dict[int, NbimgError], store: Store, policy: Policy
    ) -> None:
        """Fetch, in place, the images that were given as addresses."""
        for index, request in enumerate(requests):
            if any(map(inputs.is_url, (*request.image, request.mask))) and index not in refused:
                one = functools.partial(self._fetched, store=store, policy=policy)
                try:
                    images = await asyncio.gather(*map(one, request.image))
                    requests[index] = request.but(image=tuple(images), mask=await one(request.mask))
                except NbimgError as error:
                    refused[index] = error

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def _fetched(self, image: Any, *, store: Store, policy: Policy) -> Any:
        if not inputs.is_url(image):
            return image
        get = functools.partial(self._http.send, "GET", image, follow=True)
        reply = await retrying("input", get, policy, lambda *_: None)
        if not reply.ok:
            raise ImageInputError(f"{reply.url} answered {reply.status}, not with an image.")
        name = reply.url.rpartition("/")[2] or reply.url
        clean = await asyncio.to_thread(inputs.clean, reply.content, name)
        return await asyncio.to_thread(store.take, clean, name)


def _take(image: Any, store: Store) -> Any:
    return image if inputs.is_url(image) else store.take(*inputs.read(image))

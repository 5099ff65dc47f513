"""The one door to the network: httpx, with its errors translated at the edge.

Stage: below the remote backends. Comes in: a method, an address, headers. Goes out: a `Reply`, or an
error of `nbimg.errors` that says whether the request may have been accepted. The only user of httpx.
Must not: retry, know a provider, or send a credential anywhere but where it was told to.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from nbimg.credentials.secret import redact, veiled
from nbimg.errors import (
    BackendError,
    InputError,
    OutcomeUnknownError,
    ReplyError,
    UnreachableError,
)

if TYPE_CHECKING:
    import httpx

__all__ = ["Heard", "Http", "Reply", "origin"]

Heard = Callable[[bytes], Awaitable[None]]

CONNECT_S = 10.0
#: Requests of one pool. httpcore looks at each idle connection of a pool at each request, which with 32 of
#: them costs more than the request: several small pools keep them all at a fraction of the cost (measured by
#: benchmarks/engine.py).
POOL = 4
#: A provider has two: one for its API, one for its files. With room for one, each would put out the other.
HOSTS = 2
MAX_DOWNLOAD_BYTES = 512 * 1024 * 1024

#: What is no text in a page; the last may be cut off.
_TAG = re.compile(r"<(script|style)\b.*?(?:</\1>|$)|<[^>]*(?:>|$)", re.DOTALL | re.IGNORECASE)

_LOGGERS = ("httpx", *(f"httpcore.{part}" for part in ("connection", "http11", "http2", "proxy")))

#: httpx error → whether the request can have reached the server. Most specific first in its own tree;
#: a test fails when httpx has a transport error that is not here.
NEVER_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol")
MAYBE_SENT = (
    "ReadError",
    "ReadTimeout",
    "WriteError",
    "WriteTimeout",
    "CloseError",
    "RemoteProtocolError",
    "LocalProtocolError",
    "DecodingError",
    "TooManyRedirects",
)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered.

    Attributes:
        status: HTTP status.
        headers: Names in lower case.
        content: The body.
        url: Where it came from, without its query.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes
    url: str

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """Return the body as data.

        Raises:
            ReplyError: When it is not JSON; the message shows how it begins.
        """
        with contextlib.suppress(ValueError):  # which would hold the text, and a key that is in it
            return json.loads(self.content)
        raise ReplyError(
            f"{self.url} answered {self.status} with something that is not JSON: {self.start!r}.",
            http_status=self.status,
        )

    @property
    def start(self) -> str:
        """The first 80 characters of the body, for a message: one line, of a page what it says."""
        # a credential is taken out before anything is cut: a part of one would not be known
        text = redact(self.content[:4096].decode("utf-8", "replace").strip())
        if text.startswith("<"):
            text = _TAG.sub(" ", text)
        return " ".join(text.split())[:80]


class _Pool:
    """A few connections.

    Args:
        trust: Whom TLS trusts, as another pool has read it; None: read it, which takes 30 ms.

    Attributes:
        busy: How many requests are under way.
    """

    def __init__(self, trust: ssl.SSLContext | None) -> None:
        import httpx

        for name in _LOGGERS:  # at DEBUG they write down all that an answer says
            logging.getLogger(name).addFilter(veiled)
        self.trust = trust or httpx.create_ssl_context()
        most = HOSTS * POOL
        self.client = httpx.AsyncClient(
            limits=httpx.Limits(max_connections=most, max_keepalive_connections=most),
            headers={"user-agent": "nbimg"},
            verify=self.trust,
        )
        self.busy = 0

    def load(self) -> int:
        """How much it has to do."""
        return self.busy


class Http:
    """A client for one provider; its connections belong to the loop that first uses it.

    Args:
        name: The backend's, for error messages.
        limit: How many requests at once have a connection of their own.
    """

    def __init__(self, name: str, *, limit: int = 32) -> None:
        self._name = name
        self._limit = limit
        self._pools: list[_Pool] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def _open(self) -> _Pool:
        """Return the pool that has least to do."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._pools, self._loop = [], loop
        if self._pools:
            least = min(self._pools, key=_Pool.load)
            if least.busy < POOL or len(self._pools) * POOL >= self._limit:
                return least
        self._pools.append(_Pool(self._pools[0].trust if self._pools else None))
        return self._pools[-1]

    async def send(
        self,
        method: str,
        url: str,
        *,
        timeout_s: float = 60.0,
        headers: Mapping[str, str] | None = None,
        follow: bool = False,
        heard: Heard | None = None,
        **body: Any,
    ) -> Reply:
        """Send one request and read the whole answer.

        Args:
            method: `GET`, `POST` …
            url: Absolute address.
            timeout_s: Bound on the whole exchange, in seconds; connecting has its own on top.
            headers: Those of this request.
            follow: Whether to follow redirects.
            heard: Awaited with each part of the answer as it arrives.
            body: `json=`, `content=`, `data=`, `files=`, `params=` as httpx takes them.

        Raises:
            UnreachableError: When it was provably not sent, or is safe to repeat (GET, HEAD).
            OutcomeUnknownError: When anything else was lost after sending.
            ReplyError: When the answer is larger than any image.
        """
        import httpx

        pool = self._open()
        client = pool.client
        try:
            where = bare(url)
            request = client.build_request(
                method,
                url,
                headers=dict(headers or {}),
                timeout=httpx.Timeout(timeout_s, connect=CONNECT_S),
                **body,
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise InputError(f"{url.partition('?')[0]!r} is not an address: {error}.") from None
        pool.busy += 1
        try:
            async with asyncio.timeout(
                timeout_s + CONNECT_S
            ):  # httpx bounds each read, not their sum
                response = await client.send(request, stream=True, follow_redirects=follow)
                try:
                    content = await self._content(response, where, heard)
                finally:
                    await response.aclose()
                    del response.stream  # which holds the response: no garbage for the collector
            return Reply(response.status_code, dict(response.headers), content, where)
        except httpx.RequestError as error:
            lost = self._translated(error, method, where)
        except TimeoutError:
            slow = httpx.ReadTimeout(f"no whole answer within {timeout_s:g} s")
            lost = self._translated(slow, method, where)
        finally:
            pool.busy -= 1
        raise lost  # out here: httpx's own error holds the request, with the key in it

    async def _content(self, response: httpx.Response, where: str, heard: Heard | None) -> bytes:
        parts, size = [], 0
        async for part in response.aiter_bytes():
            parts.append(part)
            size += len(part)
            if heard is not None:
                await heard(part)
            if size > MAX_DOWNLOAD_BYTES:
                raise ReplyError(
                    f"{self._name}: {where} is larger than {MAX_DOWNLOAD_BYTES >> 20} MiB.",
                    backend=self._name,
                )
        return b"".join(parts)

    def _translated(self, error: httpx.RequestError, method: str, where: str) -> BackendError:
        kind = type(error).__name__
        reason = redact(str(error)) or kind
        if kind in NEVER_SENT:
            return UnreachableError(
                f"{self._name} cannot be reached at {origin(where)}: {reason}.",
                hint="Check the network, and the base URL if you set one.",
                backend=self._name,
            )
        if method in ("GET", "HEAD"):
            return UnreachableError(
                f"{self._name}: the answer of {where} was lost: {reason} ({kind}).",
                backend=self._name,
            )
        return OutcomeUnknownError(
            f"{self._name}: the connection was lost after sending ({kind}); "
            "the request may have been accepted and charged.",
            backend=self._name,
        )

    async def close(self) -> None:
        """Close the connections."""
        pools, self._pools = self._pools, []
        for pool in pools:
            await pool.client.aclose()


def origin(url: str) -> str:
    """Return scheme, host and port of an address: what a credential is bound to.

    >>> origin("https://api.example/v1/x?token=1")
    'https://api.example'
    """
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def bare(url: str) -> str:
    """Return an address without user, query and fragment: what may stand in a message."""
    return origin(url) + urlsplit(url).path

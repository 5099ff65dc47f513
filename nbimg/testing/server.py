"""A loopback HTTP server that misbehaves on cue: the base of every provider's local server.

Stage: tests, and a user's own trials of a provider without paying for it. Requests of one test
come in on 127.0.0.1; what the subclass answers goes out, bent by the ``Fault`` that matches.
Everything that arrived stays in ``LocalServer.requests``. It must not connect to anything, and must
not outlive its ``with`` block: sockets, tasks and the thread are gone when the block is left.

The transport is tornado's HTTP/1.1 connection, without its ``Application``: a routing table,
cookies and templates would cost more time than all that the local servers do.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from fnmatch import fnmatchcase
from http import HTTPStatus
from types import TracebackType
from typing import Any, Literal, Self

from tornado.http1connection import HTTP1Connection
from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import IOStream, StreamClosedError
from tornado.netutil import bind_sockets

__all__ = ["Fault", "FaultKind", "LocalServer", "Recorded", "Reply"]

FaultKind = Literal[
    "drop",
    "hang",
    "delay",
    "html",
    "error",
    "truncate",
    "cut",
    "content_type",
    "body",
    "drip",
    "close",
]
"""What goes wrong; each is described at ``Fault``."""

_START_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Recorded:
    """One request as it arrived.

    Attributes:
        index: Arrival order over all hosts of the server, from 0.
        host: Which listener it came to: ``"api"``, or the name of another one.
        method: Upper case.
        path: Without the query.
        query: Without the question mark; empty if there was none.
        headers: Looked up without regard to case.
        body: Undecoded.
        at_s: ``time.monotonic()`` on arrival of the last byte, seconds.
        action: What it asks for, where one path serves everything, see ``LocalServer.action``.
    """

    index: int
    host: str
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    at_s: float
    action: str = ""

    def json(self) -> Any:
        """Decode the body; raises ``ValueError`` if it is not JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back, before any fault: status, undecoded body, its type and further headers."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Self:
        """Make a JSON reply of ``value``."""
        return cls(status, json.dumps(value).encode(), headers=headers or {})


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong, once or several times, for the requests that match.

    Each fault is used up by the requests it hits; the first one that still has hits left is taken,
    and a request suffers at most one. The kinds:

    * ``drop``: close the connection without an answer. ``when="before"``: nothing was accepted;
      ``when="after"``: the request took effect, and its sender cannot know (the ambiguous case).
    * ``hang``: never answer, connection open. ``when`` as above.
    * ``delay``: answer correctly, ``delay_s`` late; ``when`` says whether it takes effect first.
    * ``html``: the error page of a proxy, with ``status``. ``when`` as above.
    * ``error``: the provider's own error body for ``status`` and ``variant``. ``when`` as above.
    * ``truncate``: promise the whole body in Content-Length, send half, close.
    * ``cut``: send half of the body and promise no more: cut JSON, cut image.
    * ``content_type``: send ``content_type`` in place of the right one.
    * ``body``: send ``body`` in place of the right one, with the right status and type.
    * ``drip``: send the body in small pieces over ``delay_s``.
    * ``close``: answer correctly, then close without having said ``Connection: close``; a client
      that is quick to reuse the connection sees its next request fail, which never arrives here.

    Attributes:
        kind: See above.
        method: Pattern for the method, in the manner of ``fnmatch``.
        path: Pattern for the path without query, or for the action where there is one; ``*`` also
            matches slashes.
        when: Whether the fault comes before or after the request took effect.
        times: How many matching requests it hits; None: all of them.
        skip: How many matching requests pass unharmed first.
        delay_s: Wall-clock seconds, for ``delay`` and ``drip``.
        status: HTTP status, for ``html`` and ``error``.
        variant: Which of several bodies for the same status, for ``error``; see the provider.
        retry_after_s: What a 429 says about coming back, seconds; None: the provider's usual.
        content_type: For ``content_type``.
        body: For ``body``.
        reset: Whether ``drop`` resets the TCP connection rather than ending it in good order.
    """

    kind: FaultKind
    method: str = "*"
    path: str = "*"
    when: Literal["before", "after"] = "before"
    times: int | None = 1
    skip: int = 0
    delay_s: float = 0.0
    status: int = 502
    variant: str = ""
    retry_after_s: int | None = None
    content_type: str = "text/plain"
    body: bytes = b""
    reset: bool = False

    def matches(self, call: Recorded) -> bool:
        """Tell whether ``call`` is one of those that this fault is meant for."""
        places = (call.action, call.path) if call.action else (call.path,)
        return fnmatchcase(call.method, self.method) and any(
            fnmatchcase(place, self.path) for place in places
        )


class LocalServer:
    """Run one or more listeners on 127.0.0.1 in a thread with an event loop of its own.

    Subclasses implement ``answer`` and, for ``Fault("error")``, ``error_reply``.

    Args:
        hosts: Names of the listeners, each on a port of its own; the first is ``base_url``.
        faults: What goes wrong, see ``Fault``; more with ``inject``.
        latency_s: Wall-clock seconds that each call takes at least, or a function that says so for
            each call, for a distribution.
        speed: How many seconds pass on the server's clock in one wall-clock second; durations that
            a provider documents in hours pass within a test that way.
    """

    def __init__(
        self,
        *,
        hosts: tuple[str, ...] = ("api",),
        faults: Iterable[Fault] = (),
        latency_s: float | Callable[[Recorded], float] = 0.0,
        speed: float = 1.0,
    ) -> None:
        """Set it up, see the class; nothing is bound before ``start``."""
        self.latency_s = latency_s
        self._speed = speed
        self._hosts = hosts
        self._ports: dict[str, int] = {}
        self._log: list[Recorded] = []
        self._faults: list[Fault] = list(faults)
        self._lock = threading.Lock()
        self._epoch_s = time.monotonic()
        self._born_utc = time.time()
        self._advanced_s = 0.0
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._crash: BaseException | None = None

    # What a subclass says.

    def answer(self, call: Recorded) -> Reply | Awaitable[Reply]:
        """Let ``call`` take effect and answer it; runs in the server's thread."""
        raise NotImplementedError

    def action(self, call: Recorded) -> str:
        """Return what ``call`` asks for, for a provider whose calls all go to one path; else "".

        A ``Fault`` and ``matching`` find it by this name as they do by a path.
        """
        return ""

    def error_reply(self, fault: Fault) -> Reply:
        """Make the provider's error body for ``fault.status`` and ``fault.variant``."""
        return Reply.of({"detail": HTTPStatus(fault.status).phrase}, fault.status)

    # What a test asks.

    @property
    def base_url(self) -> str:
        """``http://127.0.0.1:<port>`` of the first host, no slash at the end."""
        return self.url(self._hosts[0])

    def url(self, host: str) -> str:
        """Like ``base_url`` for the host of that name; KeyError if it is not running."""
        return f"http://127.0.0.1:{self._ports[host]}"

    @property
    def requests(self) -> list[Recorded]:
        """Every request so far, in order of arrival, also those that a fault hit."""
        return list(self._log)

    def matching(self, method: str = "*", path: str = "*", host: str = "*") -> list[Recorded]:
        """Return the requests that match all patterns (``fnmatch``), in order of arrival."""
        wanted = Fault("delay", method, path)
        return [c for c in self.requests if wanted.matches(c) and fnmatchcase(c.host, host)]

    def count(self, method: str = "*", path: str = "*", host: str = "*") -> int:
        """Return how many requests match all patterns."""
        return len(self.matching(method, path, host))

    def inject(self, *faults: Fault) -> None:
        """Add faults behind those that are left."""
        with self._lock:
            self._faults.extend(faults)

    @property
    def faults_left(self) -> list[Fault]:
        """The faults that have hits left, with what is left of ``times`` and ``skip``."""
        with self._lock:
            return list(self._faults)

    def utc_s(self) -> float:
        """Return the time of day that the server's answers carry, Unix seconds."""
        return self._born_utc + self.now_s()

    def now_s(self) -> float:
        """Return the server's clock: seconds since it was made, each as long as ``speed`` says."""
        return (time.monotonic() - self._epoch_s) * self._speed + self._advanced_s

    @property
    def speed(self) -> float:
        """Seconds on the server's clock per wall-clock second; a change lets no time jump."""
        return self._speed

    @speed.setter
    def speed(self, speed: float) -> None:
        now_s = self.now_s()
        self._epoch_s, self._advanced_s, self._speed = time.monotonic(), now_s, speed

    def advance(self, seconds: float) -> None:
        """Put the server's clock forward."""
        self._advanced_s += seconds

    # Start and stop.

    def start(self) -> Self:
        """Bind the ports and serve; returns when requests are welcome.

        Raises:
            RuntimeError: It was started before, or it could not start (the cause is attached).
        """
        if self._thread is not None:
            msg = "a local server starts once; make another one"
            raise RuntimeError(msg)
        ready = threading.Event()
        name = f"nbimg-{type(self).__name__}"
        self._thread = threading.Thread(target=self._run, args=(ready,), name=name, daemon=True)
        self._thread.start()
        if not ready.wait(_START_TIMEOUT_S) or self._crash is not None:
            msg = "the local server did not start"
            raise RuntimeError(msg) from self._crash
        return self

    def stop(self) -> None:
        """Close everything and wait for the thread; without effect when stopped already.

        Raises:
            RuntimeError: ``answer`` failed with an exception, which is attached: a fault of the
                server itself must not pass as a fault that was asked for.
        """
        if self._thread is None or self._loop is None:
            return
        if self._stopping is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._loop = None
        if self._crash is not None:
            msg = "the local server failed while answering"
            raise RuntimeError(msg) from self._crash

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop; an exception from within the block keeps precedence over one of the server."""
        try:
            self.stop()
        except RuntimeError:
            if error is None:
                raise

    def _run(self, ready: threading.Event) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._main(ready))
        except Exception as error:  # no free port, no loopback: reported by start()
            self._crash = error
        finally:
            ready.set()

    async def _main(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        servers = []
        for host in self._hosts:
            sockets = bind_sockets(0, "127.0.0.1", family=socket.AF_INET, backlog=1024)
            server = HTTPServer(_Listener(self, host))
            server.add_sockets(sockets)
            servers.append(server)
            self._ports[host] = sockets[0].getsockname()[1]
        ready.set()
        await self._stopping.wait()
        for server in servers:
            server.stop()
        for task in self._tasks:
            task.cancel()
        for server in servers:
            await server.close_all_connections()

    # One request.

    def _arrived(
        self, host: str, line: RequestStartLine, headers: HTTPHeaders, body: bytes, to: _Sender
    ) -> None:
        path, _, query = line.path.partition("?")
        index = len(self._log)
        call = Recorded(index, host, line.method, path, query, headers, body, time.monotonic())
        if action := self.action(call):
            call = replace(call, action=action)
        self._log.append(call)
        fault = self._take_fault(call) if self._faults else None
        try:
            latency = self.latency_s
            latency_s = latency if isinstance(latency, float | int) else latency(call)
            if fault is None and not latency_s:
                reply = self.answer(call)
                if isinstance(reply, Reply):  # the common case costs no task
                    to.send(reply)
                    return
                work = self._send_later(reply, to)
            else:
                work = self._serve(call, fault, latency_s, to)
        except Exception as error:
            self._failed(error, to)
            return
        task = asyncio.get_running_loop().create_task(self._guard(work, to))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take_fault(self, call: Recorded) -> Fault | None:
        with self._lock:
            for place, fault in enumerate(self._faults):
                if not fault.matches(call):
                    continue
                if fault.skip:
                    self._faults[place] = replace(fault, skip=fault.skip - 1)
                    continue
                if fault.times is not None:
                    if fault.times > 1:
                        self._faults[place] = replace(fault, times=fault.times - 1)
                    else:
                        del self._faults[place]
                return fault
        return None

    def _failed(self, error: Exception, to: _Sender) -> None:
        self._crash = self._crash or error
        to.send(Reply.of({"detail": f"the local server failed: {error!r}"}, 500))

    async def _guard(self, work: Awaitable[None], to: _Sender) -> None:
        try:
            await work
        except StreamClosedError:
            pass  # the client went away, as clients under test do
        except Exception as error:
            self._failed(error, to)

    async def _send_later(self, reply: Awaitable[Reply], to: _Sender) -> None:
        to.send(await reply)

    async def _serve(
        self, call: Recorded, fault: Fault | None, latency_s: float, to: _Sender
    ) -> None:
        if latency_s:
            await asyncio.sleep(latency_s)
        if fault is not None and fault.when == "before" and await self._spoil(fault, None, to):
            return
        reply = self.answer(call)
        if not isinstance(reply, Reply):
            reply = await reply
        if fault is None or not await self._spoil(fault, reply, to):
            to.send(reply)

    async def _spoil(self, fault: Fault, reply: Reply | None, to: _Sender) -> bool:
        """Carry out ``fault``; True if no other answer is to be sent.

        ``reply`` is None before the request took effect; faults that bend a reply wait for it.
        """
        match fault.kind:
            case "drop":
                to.drop(fault.reset)
            case "hang":
                pass  # the connection is closed by the client, or by stop()
            case "html":
                to.send(_proxy_page(fault.status))
            case "error":
                to.send(self.error_reply(fault))
            case "delay":
                if (reply is None) == (fault.when == "before"):
                    await asyncio.sleep(fault.delay_s)
                return False
            case _ if reply is None:
                return False
            case "truncate":
                await to.send_part(reply)
            case "cut" | "content_type" | "body":
                to.send(_bent(reply, fault))
            case "drip":
                await to.drip(reply, fault.delay_s)
            case "close":
                await to.send_and_close(reply)
        return True


def _bent(reply: Reply, fault: Fault) -> Reply:
    match fault.kind:
        case "cut":
            return replace(reply, body=reply.body[: len(reply.body) // 2])
        case "content_type":
            return replace(reply, content_type=fault.content_type)
    return replace(reply, body=fault.body)


def _proxy_page(status: int) -> Reply:
    title = f"{status} {HTTPStatus(status).phrase}"
    page = (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n"
        f"<center><h1>{title}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    )
    return Reply(status, page.encode(), "text/html")


class _Listener(HTTPServerConnectionDelegate):
    """One port; tells the server which of its hosts a request came to."""

    def __init__(self, server: LocalServer, host: str) -> None:
        self.server = server
        self.host = host

    def start_request(
        self, server_conn: object, request_conn: HTTPConnection
    ) -> HTTPMessageDelegate:
        assert isinstance(request_conn, HTTP1Connection)
        return _Exchange(self.server, self.host, request_conn)


class _Exchange(HTTPMessageDelegate):
    """Collects one request and hands it on when its last byte is there."""

    def __init__(self, server: LocalServer, host: str, connection: HTTP1Connection) -> None:
        self.server = server
        self.host = host
        self.connection = connection
        self.body: list[bytes] = []

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> None:
        assert isinstance(start_line, RequestStartLine)
        self.line = start_line
        self.headers = headers

    def data_received(self, chunk: bytes) -> None:
        self.body.append(chunk)

    def finish(self) -> None:
        to = _Sender(self.connection, self.line.method == "HEAD", self.server.utc_s)
        self.server._arrived(self.host, self.line, self.headers, b"".join(self.body), to)


class _Sender:
    """The way back of one request: sends a reply whole, in part, slowly or not at all.

    It writes the header block itself, which tornado allows and which is several times cheaper than
    ``HTTP1Connection.write_headers``; that one also would not send a wrong Content-Length.
    """

    __slots__ = ("connection", "head_only", "stream", "utc_s")

    def __init__(
        self, connection: HTTP1Connection, head_only: bool, utc_s: Callable[[], float]
    ) -> None:
        self.connection = connection
        self.stream: IOStream = connection.stream
        self.head_only = head_only
        self.utc_s = utc_s

    def _head(self, reply: Reply) -> bytes:
        lines = [
            f"HTTP/1.1 {reply.status} {_PHRASES.get(reply.status, 'Unknown')}",
            f"Content-Type: {reply.content_type}",
            f"Date: {formatdate(self.utc_s(), usegmt=True)}",
            *(f"{name}: {value}" for name, value in reply.headers.items()),
        ]
        if reply.status != HTTPStatus.NO_CONTENT:
            lines.append(f"Content-Length: {len(reply.body)}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def send(self, reply: Reply) -> None:
        if self.stream.closed():
            return
        self.connection.write(self._head(reply) + (b"" if self.head_only else reply.body))
        self.connection.finish()

    def drop(self, reset: bool = False) -> None:
        if reset and self.stream.socket is not None:
            linger = struct.pack("ii", 1, 0)  # close() then sends RST instead of FIN
            self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.stream.close()

    async def send_part(self, reply: Reply) -> None:
        await self.stream.write(self._head(reply) + reply.body[: len(reply.body) // 2])
        self.stream.close()

    async def send_and_close(self, reply: Reply) -> None:
        await self.stream.write(self._head(reply) + reply.body)
        self.stream.close()

    async def drip(self, reply: Reply, duration_s: float) -> None:
        pieces = 10
        size = max(1, -(-len(reply.body) // pieces))
        await self.connection.write(self._head(reply))
        for start in range(0, len(reply.body), size):
            await asyncio.sleep(duration_s / pieces)
            await self.connection.write(reply.body[start : start + size])
        self.connection.finish()


_PHRASES = {status.value: status.phrase for status in HTTPStatus}

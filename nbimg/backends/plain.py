"""A provider of the usual form in a few lines: JSON over HTTP, a bearer key, a job to ask after.

Stage: between a backend and the door to the network. Comes in: what a subclass says of its provider: the
request that makes a job, where a job is looked at, how its answer is read. Goes out: a backend that keeps
the engine's promises: what may have been accepted is never called a failure, what can pass is asked
again, and the key goes to the provider's own host only. Must not: know a provider, retry, or wait.
"""

from __future__ import annotations

import base64
import re
from abc import abstractmethod
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar

from nbimg.backends.base import Call, Context, Prediction, RemoteBackend
from nbimg.backends.http import Http, Reply, origin
from nbimg.credentials.given import declare
from nbimg.credentials.keys import redact
from nbimg.errors import (
    BackendError,
    BusyError,
    KeyRejectedError,
    OutcomeUnknownError,
    QuotaExceededError,
    RejectedError,
    ReplyError,
    UnknownNameError,
    UnreachableError,
)
from nbimg.types import Capabilities

__all__ = ["PlainBackend", "checked", "retry_after_s"]

#: Where the text of an error is, in the bodies of the field.
_TEXTS = ("detail", "message", "error", "title")


class PlainBackend(RemoteBackend):
    """A provider with a create, a job to look at, and outputs to fetch.

    Attributes:
        name: The provider's name in `provider:model`.
        base_url: Its API; the setting `base_url` of the provider wins.
        key: The variable that holds its key; empty: it needs none.
        models: Model → what it takes, where that does not change; else override `capabilities`.
        create_s: Bound on a create, in seconds.
        gone: What is said of an output that is not there any more.
    """

    base_url: ClassVar[str] = ""
    key: ClassVar[str] = ""
    models: ClassVar[Mapping[str, Capabilities]] = {}
    create_s: ClassVar[float] = 60.0
    gone: ClassVar[str] = "is gone"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.http = Http(self.name)
        if self.key:
            declare(self.name, (self.key,))

    # ------------------------------------------------------------ what a subclass says

    @abstractmethod
    async def order(self, call: Call) -> tuple[str, Mapping[str, Any]]:
        """Return path and JSON of the request that makes a job; send its files first."""

    @abstractmethod
    def look(self, job_id: str) -> str:
        """Return the path at which a job is looked at."""

    @abstractmethod
    def read(self, data: Any) -> Prediction:
        """Read the JSON of a job, as a create or a look answers.

        Raises:
            ReplyError: When it is not one; a missing key or a wrong type becomes one by itself.
        """

    def stop(self, job_id: str) -> tuple[str, str] | None:  # noqa: ARG002  # for those who can
        """Return method and path of the request that stops a job; None: there is none."""
        return None

    def checked(self, reply: Reply) -> Reply:
        """Return the reply of the API if it is a success, else raise what it means."""
        return checked(reply, self.name, key=self.key)

    # ------------------------------------------------------------ what it does

    async def capabilities(self, model: str) -> Capabilities:
        """Return what `models` says."""
        if model not in self.models:
            raise UnknownNameError("model", f"{self.name}:{model}", known=self.models)
        return self.models[model]

    async def create(self, call: Call) -> Prediction:
        """Send a job."""
        path, body = await self.order(call)
        reply = await self.send("POST", path, json=body, timeout_s=self.create_s)
        known: dict[str, Any] = {
            "backend": self.name, "model": call.ref.model, "http_status": reply.status,
        }  # fmt: skip
        if reply.status >= 500:
            raise OutcomeUnknownError(
                f"{self.name} answered {reply.status}; the request may have been accepted and charged.",
                **known,
            )
        try:
            return self._job(self.checked(reply))
        except ReplyError as error:
            raise OutcomeUnknownError(
                f"{self.name} accepted the request, but its answer cannot be read: {error.message}",
                **known,
            ) from error

    async def poll(self, job_id: str) -> Prediction:
        """Ask how a job stands."""
        reply = self.checked(await self.send("GET", self.look(job_id)))
        try:
            return self._job(reply)
        except ReplyError as error:  # cut, or a proxy's page: the job goes on, so look again
            error.transient = True
            raise

    async def cancel(self, job_id: str) -> Prediction | None:
        """Stop a job, where that can be done."""
        request = self.stop(job_id)
        if request is None:
            return None
        return self._job(self.checked(await self.repeatable(*request, timeout_s=10)))

    async def fetch(self, url: str) -> bytes:
        """Download an output; the key goes to the API's own host only."""
        if url.startswith("data:"):
            return self._inline(url)
        headers = self.auth() if origin(url) == origin(self.base) else {}
        reply = await self.http.send("GET", url, headers=headers, timeout_s=120, follow=True)
        if reply.ok or reply.status == 429 or reply.status >= 500:
            return self.checked(reply).content
        why = self.gone if reply.status in (404, 410) else "cannot be fetched"
        raise ReplyError(
            f"{reply.url} {why} ({reply.status}).", backend=self.name, http_status=reply.status
        )

    async def close(self) -> None:
        """Close the connections."""
        await self.http.close()

    # ------------------------------------------------------------ for subclasses

    @property
    def base(self) -> str:
        """The address of the API, without a slash at its end."""
        return str(self.context.settings.provider(self.name, "base_url") or self.base_url).rstrip(
            "/"
        )

    def auth(self) -> dict[str, str]:
        """Return the header that carries the key."""
        if not self.key:
            return {}
        return {"authorization": f"Bearer {self.context.keys.need(self.name).reveal()}"}

    async def send(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **options: Any
    ) -> Reply:
        """Send a request to the API, with the key."""
        own = {**(headers or {}), **self.auth()}
        return await self.http.send(method, self.base + path, headers=own, **options)

    async def repeatable(self, method: str, path: str, **options: Any) -> Reply:
        """Send a request that does no harm when it is sent twice."""
        try:
            return await self.send(method, path, **options)
        except OutcomeUnknownError as error:
            raise UnreachableError(
                f"{self.name} did not answer {path.partition('?')[0]}.", backend=self.name
            ) from error

    def _job(self, reply: Reply) -> Prediction:
        data = reply.json()
        try:
            return self.read(data)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            why = f"{type(error).__name__} at {redact(str(error))[:200]}"
        raise ReplyError(  # out here: that error holds what was sent, as it came
            f"{self.name}'s reply does not fit: {why}.",
            backend=self.name,
            http_status=reply.status,
        )

    def _inline(self, url: str) -> bytes:
        head, _, payload = url.partition(",")
        try:
            return base64.b64decode(payload, validate=True) if head.endswith(";base64") else b""
        except ValueError:
            raise ReplyError(
                f"{self.name} sent an image that is not base64.", backend=self.name
            ) from None


def checked(reply: Reply, provider: str, *, key: str = "", hint: str | None = None) -> Reply:
    """Return the reply if it is a success, else raise what its status means.

    Args:
        reply: Of a provider that says with HTTP's statuses what is the matter.
        provider: Its name.
        key: The variable that holds its key.
        hint: What to do when the request itself is refused.

    Raises:
        BackendError: Of the class that the status stands for.
    """
    if reply.ok:
        return reply
    detail, body = _detail(reply)
    known: dict[str, Any] = {"backend": provider, "http_status": reply.status}
    match reply.status:
        case 401 | 403:
            error: BackendError = KeyRejectedError(
                f"{provider} does not accept the key ({reply.status}).",
                hint=f"Check {key}." if key else None,
                **known,
            )
        case 402:
            error = QuotaExceededError(f"{provider} wants payment: {detail}", **known)
        case 429:
            wait = retry_after_s(reply.headers, body, detail)
            error = BusyError(
                f"{provider} asks to slow down: {detail}", retry_after_s=wait, **known
            )
        case status if status >= 500:
            error = UnreachableError(f"{provider} answered {status}: {detail}", **known)
        case status:
            error = RejectedError(
                f"{provider} refused the request ({status}): {detail}", hint=hint, **known
            )
    raise error


def _detail(reply: Reply) -> tuple[str, Mapping[str, Any]]:
    try:
        body = reply.json()
    except ReplyError:
        return reply.start, {}
    if not isinstance(body, Mapping):
        return reply.start, {}
    found: Any = body
    while isinstance(found, Mapping):  # {"error": {"message": …}}
        found = next((found[name] for name in _TEXTS if found.get(name)), reply.start)
    return redact(" ".join(str(found).split()))[:300], body


def retry_after_s(headers: Mapping[str, str], body: Mapping[str, Any], text: str) -> float | None:
    """Return the seconds that a 429 asks to wait: header, then field, then text.

    >>> retry_after_s({}, {}, "Your rate limit resets in ~30s.")
    30.0
    """
    header = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", header):
        return float(header)
    if header:
        try:
            return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
        except (ValueError, TypeError):
            pass
    field = str(body.get("retry_after", ""))
    if re.fullmatch(r"\d+(\.\d+)?", field):
        return float(field)
    match = re.search(r"resets in ~?(\d+(?:\.\d+)?)\s*s", text)
    return float(match[1]) if match else None

"""Replicate over its HTTP API.

Stage: a remote backend. Comes in: a `Call`. Goes out: a `Prediction`. Must not: retry or wait; a create
is never held open, so that its id is known before anything waits for it.

Source: https://replicate.com/docs/reference/http and https://replicate.com/docs/topics/predictions
(read 2026-11-22). The traps handled here: official models have no versions to address; states besides
`succeeded` and `failed` (`canceled`, `aborted`); outputs of any shape; success with no output; a 429
says when to come back in a header, in a field or in its text; an upload's address has no extension.
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from nbimg.backends import schema
from nbimg.backends.base import Call, Context, Output, Prediction, RemoteBackend, State
from nbimg.backends.http import Http, Reply, origin
from nbimg.config import Rate
from nbimg.errors import (
    BackendError,
    BusyError,
    ContentRefusedError,
    InputError,
    JobFailedError,
    KeyRejectedError,
    OutcomeUnknownError,
    QuotaExceededError,
    RejectedError,
    ReplyError,
    UnknownNameError,
    UnreachableError,
)
from nbimg.keys import redact
from nbimg.types import Capabilities, InputImage

__all__ = ["ReplicateBackend"]

BASE_URL = "https://api.replicate.com"
#: Largest input sent inside the request, in bytes; larger ones are uploaded first.
MAX_INLINE_BYTES = 256_000
SCHEMA_TTL_S = 3600.0
#: How far this machine's clock may be ahead of Replicate's when a lost create is looked for.
CLOCK_S = 900.0
#: How many pages of the list are looked through; what is not found by then is not known.
MAX_PAGES = 20
_VERSION = re.compile(r"[0-9a-f]{64}")
_STATES = {
    "starting": State.QUEUED,
    "processing": State.RUNNING,
    "succeeded": State.DONE,
    "failed": State.FAILED,
    "canceled": State.CANCELLED,
    "aborted": State.CANCELLED,
}
_REFUSED = re.compile(
    r"\bE005\b|NSFW|flagged as sensitive|safety (check|filter|policy|system)|content policy",
    re.IGNORECASE,
)
_TRANSIENT = re.compile(
    r"E1000\b|E6716|E8765|E9243|interrupted; please retry|\(code: PA\)", re.IGNORECASE
)


class ReplicateBackend(RemoteBackend):
    """Official models, versioned models and deployments."""

    name = "replicate"
    concurrency = 8
    rates: ClassVar[Mapping[str, Rate]] = {"create": Rate(600, 60), "read": Rate(3000, 60)}

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._http = Http(self.name)
        self._schemas: dict[str, tuple[float, Capabilities]] = {}
        self._taken: set[str] = set()  # jobs that have an owner: a lost twin is another one

    @property
    def _base(self) -> str:
        return str(self.context.settings.provider(self.name, "base_url") or BASE_URL).rstrip("/")

    async def capabilities(self, model: str) -> Capabilities:
        """Read the model's own schema, at most once an hour."""
        if model.startswith("deployments/") or _VERSION.fullmatch(model):
            return Capabilities(open=True)  # the API tells nothing of these
        at, known = self._schemas.get(model, (0.0, None))
        if known is not None and time.monotonic() - at < SCHEMA_TTL_S:
            return known
        name, _, version = model.partition(":")
        path = f"/v1/models/{name}" + (f"/versions/{version}" if version else "")
        reply = await self._send("GET", path)
        if reply.status == 404:
            raise UnknownNameError(
                "model", f"replicate:{model}", hint="Names are OWNER/NAME, or OWNER/NAME:VERSION."
            )
        data = _checked(reply).json()
        latest = data if version else (data.get("latest_version") or {})
        schemas = (latest.get("openapi_schema") or {}).get("components", {}).get("schemas", {})
        can = schema.capabilities(schemas)
        self._schemas[model] = (time.monotonic(), can)
        return can

    async def create(self, call: Call) -> Prediction:
        """Send a prediction; its files first, so that nothing is paid before they are there."""
        values = dict(call.arguments)
        if call.images:
            can = await self.capabilities(call.ref.model)
            files = [await self._file(image) for image in call.images]
            several = can.options.get("image")
            values[call.image_field] = (
                files if several is None or several.type == "files" else files[0]
            )
        if call.mask is not None:
            values[call.mask_field] = await self._file(call.mask)
        path, body = target(call.ref.model)
        reply = await self._send(
            "POST", path, json={**body, "input": {"prompt": call.prompt, **values}}, timeout_s=60
        )
        if reply.status >= 500:
            raise OutcomeUnknownError(
                f"replicate answered {reply.status}; the request may have been accepted and charged.",
                backend=self.name,
                model=call.ref.model,
                http_status=reply.status,
            )
        try:
            made = prediction(_checked(reply).json())
        except ReplyError as error:
            raise OutcomeUnknownError(
                f"replicate accepted the request, but its answer cannot be read: {error.message}",
                backend=self.name,
                http_status=reply.status,
            ) from error
        self._taken.add(str(made.id))
        return made

    async def poll(self, job_id: str) -> Prediction:
        """Ask how a prediction stands."""
        return prediction(_checked(await self._send("GET", f"/v1/predictions/{job_id}")).json())

    async def cancel(self, job_id: str) -> Prediction | None:
        """Stop a prediction; a finished one is not changed by it."""
        try:
            reply = await self._send("POST", f"/v1/predictions/{job_id}/cancel", timeout_s=10)
        except OutcomeUnknownError as error:  # asking twice does no harm
            raise UnreachableError(error.message, backend=self.name, job_id=job_id) from error
        return prediction(_checked(reply).json())

    async def find(self, call: Call, since_utc: float) -> Prediction | None:
        """Look through the newest predictions for one with the same input that nobody owns.

        The seed that was sent makes the input its own; without one it cannot be told from its twins.
        """
        if call.seed is None or call.images or call.mask is not None:
            return await super().find(call, since_utc)
        query = ""
        for _ in range(MAX_PAGES):
            page = _checked(await self._send("GET", f"/v1/predictions{query}")).json()
            rows = page.get("results") if isinstance(page, Mapping) else None
            if not isinstance(rows, list):
                raise ReplyError("replicate's list of predictions is none.", backend=self.name)
            for row in rows:
                if _created_utc(row) < since_utc - CLOCK_S:
                    return None
                if row["id"] not in self._taken and _same_input(row.get("input"), call):
                    self._taken.add(row["id"])
                    return Prediction(row["id"], State.QUEUED)
            if not page.get("next"):
                return None
            query = "?" + urlsplit(page["next"]).query  # its host may be that of another base URL
        raise OutcomeUnknownError(
            "replicate's list of predictions is too long to look through.", backend=self.name
        )

    async def fetch(self, url: str) -> bytes:
        """Download an output; the token goes to the API's own host only."""
        if url.startswith("data:"):
            return _inline(url)
        own = origin(url) == origin(self._base)
        headers = self._auth() if own else {}
        reply = await self._http.send("GET", url, headers=headers, timeout_s=120, follow=True)
        if reply.ok or reply.status == 429 or reply.status >= 500:
            return _checked(reply).content
        gone = reply.status in (404, 410)
        why = "is gone: replicate keeps outputs for an hour" if gone else "cannot be fetched"
        raise ReplyError(
            f"{reply.url} {why} ({reply.status}).", backend=self.name, http_status=reply.status
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    def _auth(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.context.keys.need(self.name).reveal()}"}

    async def _send(self, method: str, path: str, **options: Any) -> Reply:
        url = path if path.startswith("http") else self._base + path
        return await self._http.send(method, url, headers=self._auth(), **options)

    async def _file(self, image: InputImage) -> str:
        data = await asyncio.to_thread(Path(image.path).read_bytes)
        if len(data) * 4 / 3 <= MAX_INLINE_BYTES:
            return f"data:{image.mime};base64,{base64.b64encode(data).decode('ascii')}"
        suffix = image.mime.rpartition("/")[2].replace("jpeg", "jpg")
        part = (f"{image.sha256[:16]}.{suffix}", data, image.mime)
        try:
            reply = await self._send("POST", "/v1/files", files={"content": part}, timeout_s=120)
        except OutcomeUnknownError as error:  # a file sent twice costs nothing
            raise UnreachableError("the upload of an image was lost.", backend=self.name) from error
        return str(_checked(reply).json()["urls"]["get"])


def target(model: str) -> tuple[str, dict[str, Any]]:
    """Return path and body of the create of a model.

    >>> target("black-forest-labs/flux-dev")
    ('/v1/models/black-forest-labs/flux-dev/predictions', {})

    Raises:
        InputError: When the name has no known form.
    """
    name, _, version = model.partition(":")
    if _VERSION.fullmatch(version or name):
        return "/v1/predictions", {"version": version or name}
    owner, _, short = name.partition("/")
    if owner == "deployments" and short.count("/") == 1:
        return f"/v1/{name}/predictions", {}
    if owner not in ("", "deployments") and short and "/" not in short and not version:
        return f"/v1/models/{name}/predictions", {}
    raise InputError(
        f"replicate has no model named {model!r}.",
        hint="Names are OWNER/NAME or OWNER/NAME:VERSION.",
    )


def prediction(data: Any) -> Prediction:
    """Read the API's prediction object.

    Raises:
        ReplyError: When it is not one.
    """
    if not isinstance(data, Mapping) or not isinstance(data.get("id"), str):
        raise ReplyError("replicate's reply holds no prediction.", backend="replicate")
    state = _STATES.get(str(data.get("status")))
    if state is None:
        raise ReplyError(
            f"replicate's prediction has an unknown status {data.get('status')!r}.",
            backend="replicate",
            job_id=data["id"],
        )
    outputs = tuple(Output(url=url) for url in _urls(data.get("output")))
    error = None
    if state is State.FAILED:
        error = _job_error(str(data.get("error") or "no reason given"), data["id"])
    elif state is State.DONE and not outputs:
        state, error = State.FAILED, _empty(data)
    metrics = data.get("metrics") or {}
    return Prediction(data["id"], state, outputs, error, seconds=metrics.get("predict_time"))


def _urls(output: Any) -> Iterator[str]:
    """The addresses in an output of any shape: text, list, dict, nested."""
    if isinstance(output, str):
        if output.startswith(("http://", "https://", "data:")):
            yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _urls(value)
    elif isinstance(output, list):
        for value in output:
            yield from _urls(value)


def _job_error(text: str, job_id: str) -> BackendError:
    text = redact(" ".join(text.split()))[:500]
    if _REFUSED.search(text):
        return ContentRefusedError(f"refused: {text}", backend="replicate", job_id=job_id)
    return JobFailedError(
        f"the job failed: {text}",
        backend="replicate",
        job_id=job_id,
        transient=bool(_TRANSIENT.search(text)),
    )


def _empty(data: Mapping[str, Any]) -> BackendError:
    """Why a success has no output: purged, filtered, or lost by the provider."""
    if data.get("data_removed"):
        return JobFailedError(
            "the images are gone: replicate keeps outputs for an hour.",
            backend="replicate",
            job_id=data["id"],
        )
    if data.get("output") == []:
        return ContentRefusedError(
            "every image was filtered out by the model's safety check.",
            backend="replicate",
            job_id=data["id"],
        )
    return JobFailedError(
        "the job succeeded without an image.", backend="replicate", job_id=data["id"]
    )


def _checked(reply: Reply) -> Reply:
    """Return the reply if it is a success, else raise what it means."""
    if reply.ok:
        return reply
    detail, body = _detail(reply)
    creates_by_name = reply.status == 404 and "/models/" in reply.url
    known: dict[str, Any] = {"backend": "replicate", "http_status": reply.status}
    match reply.status:
        case 401 | 403:
            raise KeyRejectedError(
                f"replicate does not accept the key ({reply.status}).",
                hint="Check REPLICATE_API_TOKEN.",
                **known,
            )
        case 402:
            raise QuotaExceededError(f"replicate wants payment: {detail}", **known)
        case 429:
            wait = retry_after_s(reply.headers, body, detail)
            raise BusyError(f"replicate asks to slow down: {detail}", retry_after_s=wait, **known)
        case status if status >= 500:
            raise UnreachableError(f"replicate answered {status}: {detail}", **known)
    raise RejectedError(
        f"replicate refused the request ({reply.status}): {detail}",
        hint="Community models need a version: OWNER/NAME:VERSION." if creates_by_name else None,
        **known,
    )


def _detail(reply: Reply) -> tuple[str, Mapping[str, Any]]:
    try:
        body = reply.json()
    except ReplyError:
        return reply.start, {}
    if not isinstance(body, Mapping):
        return reply.start, {}
    text = body.get("detail") or body.get("title") or reply.start
    return redact(" ".join(str(text).split()))[:300], body


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


def _inline(url: str) -> bytes:
    head, _, payload = url.partition(",")
    try:
        return base64.b64decode(payload, validate=True) if head.endswith(";base64") else b""
    except ValueError:
        raise ReplyError(
            "replicate sent an image that is not base64.", backend="replicate"
        ) from None


def _created_utc(row: Mapping[str, Any]) -> float:
    try:
        return datetime.fromisoformat(str(row["created_at"])).timestamp()
    except (KeyError, ValueError):
        return time.time()


def _same_input(sent: Any, call: Call) -> bool:
    return isinstance(sent, Mapping) and dict(sent) == {"prompt": call.prompt, **call.arguments}

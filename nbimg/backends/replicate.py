"""Replicate over its HTTP API.

Stage: a remote backend. Comes in: a `Call`. Goes out: a `Prediction`. Must not: retry or wait; a create
is never held open, so that its id is known before anything waits for it.

Source: https://replicate.com/docs/reference/http and https://replicate.com/docs/topics/predictions
(read 2026-11-22). The traps handled here: official models have no versions to address; an upload's address
has no extension; a lost create is looked for in a list that may lag, be purged or hold twins.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlsplit

from nbimg.backends import schema
from nbimg.backends.base import Call, Context, Prediction, State
from nbimg.backends.http import Reply
from nbimg.backends.plain import PlainBackend, checked
from nbimg.backends.replicate_answers import (
    VERSION,
    ahead_s,
    created_utc,
    likeness,
    listed,
    prediction,
    target,
)
from nbimg.backends.replicate_files import Files
from nbimg.config import Rate
from nbimg.errors import (
    BusyError,
    OutcomeUnknownError,
    RejectedError,
    ReplyError,
    UnknownNameError,
)
from nbimg.media.attachments import replaced
from nbimg.types import Capabilities

__all__ = ["Found", "ReplicateBackend"]

BASE_URL = "https://api.replicate.com"
SCHEMA_TTL_S = 3600.0
#: How far this machine's clock may have moved against Replicate's since a lost create.
CLOCK_S = 900.0
#: How many pages of the list are looked through; what is not found by then is not known.
MAX_PAGES = 20
#: More jobs than so many pages of the list show.
OWNED = 5000
#: How a model rejects an address that has no extension.
_NO_EXTENSION = re.compile(r"Invalid image format ''")
#: How the API answers when a file inside a request is too large (replicate-go issue 24).
_CUT_OFF = re.compile(r"Failed to parse request body as JSON: EOF")


@dataclass(frozen=True, slots=True)
class Found:
    """A model that a search found.

    Attributes:
        model: `owner/name`.
        about: The provider's own line about it.
        runs: How often it was run.
    """

    model: str
    about: str
    runs: int


class ReplicateBackend(PlainBackend):
    """Official models, versioned models and deployments."""

    name = "replicate"
    base_url = BASE_URL
    key = "REPLICATE_API_TOKEN"
    gone = "is gone: replicate keeps outputs for an hour"
    concurrency = 8
    rates: ClassVar[Mapping[str, Rate]] = {"create": Rate(600, 60), "read": Rate(3000, 60)}

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._files = Files(self.upload)
        self._schemas: dict[str, tuple[float, Capabilities]] = {}
        self._taken: dict[str, None] = {}  # jobs that have an owner: a lost twin is another one
        self._strict: set[str] = set()  # models that want a file's extension in its address

    async def capabilities(self, model: str) -> Capabilities:
        """Read the model's own schema, at most once an hour."""
        if VERSION.fullmatch(model):
            return Capabilities(open=True)  # the API tells nothing of a version without its model
        at, known = self._schemas.get(model, (0.0, None))
        if known is None or time.monotonic() - at >= SCHEMA_TTL_S:
            known = schema.capabilities(await self._schema(model))
            self._schemas[model] = (time.monotonic(), known)
        return known

    async def check(self) -> str:
        """Ask whose key it is."""
        who = self.checked(await self.send("GET", "/v1/account")).json()
        name = who.get("username") if isinstance(who, Mapping) else None
        return f"account {name}" if name else ""

    async def search(self, words: str, limit: int = 20) -> tuple[Found, ...]:
        """Return the public models that a search finds, best first.

        Raises:
            BackendError: When the provider cannot be asked.
        """
        reply = await self.send("GET", "/v1/search", params={"query": words, "limit": limit})
        if reply.status != 404:
            rows = [row.get("model") or {} for row in self.checked(reply).json()["models"]]
        else:  # that search is in beta; this is the older one
            reply = await self.repeatable(
                "QUERY",
                "/v1/models",
                content=words.encode(),
                headers={"content-type": "text/plain"},
            )
            rows = self.checked(reply).json()["results"]
        return tuple(
            Found(
                f"{row['owner']}/{row['name']}", str(row.get("description") or ""),
                int(row.get("run_count") or 0),
            )
            for row in rows[:limit]
        )  # fmt: skip

    async def upload(self, name: str, data: bytes, mime: str) -> str:
        """Keep a file at the provider for a day; return its address.

        Raises:
            BackendError: When it did not arrive.
        """
        part = (name, data, mime)
        reply = await self.repeatable("POST", "/v1/files", files={"content": part}, timeout_s=120)
        return str(self.checked(reply).json()["urls"]["get"])

    async def order(self, call: Call) -> tuple[str, Mapping[str, Any]]:
        """Send the files first, so that nothing is paid before they are there."""
        inside = call.ref.model.partition(":")[0] in self._strict
        text = functools.partial(self._files.text, inside=inside)
        values = await replaced(call.arguments, text)
        if call.images:
            can = await self.capabilities(call.ref.model)
            files = [await self._files.text(image, inside=inside) for image in call.images]
            several = can.options.get("image")
            values[call.image_field] = (
                files if several is None or several.type == "files" else files[0]
            )
        if call.mask is not None:
            values[call.mask_field] = await self._files.text(call.mask, inside=inside)
        path, body = target(call.ref.model)
        return path, {**body, "input": {"prompt": call.prompt, **values}}

    async def create(self, call: Call) -> Prediction:
        """Send a prediction; it is never held open, so that its id is known at once."""
        try:
            made = await super().create(call)
        except RejectedError as error:
            too_large = error.http_status == 413 or _CUT_OFF.search(error.message)
            if not too_large or not (call.images or call.mask) or not self._files.most_bytes:
                raise
            self._files.most_bytes = 0  # the limit is lower than documented: upload all
            made = await super().create(call)
        self._own(str(made.id))
        return made

    def _own(self, job_id: str) -> None:
        """A job has an owner; of so many that the list cannot reach back to them, the oldest is forgotten."""
        self._taken[job_id] = None
        if len(self._taken) > OWNED:
            del self._taken[next(iter(self._taken))]

    def look(self, job_id: str) -> str:
        """A prediction."""
        return f"/v1/predictions/{job_id}"

    def stop(self, job_id: str) -> tuple[str, str]:
        """Stop a prediction; a finished one is not changed by it."""
        return "POST", f"/v1/predictions/{job_id}/cancel"

    def read(self, data: Any) -> Prediction:
        """See `prediction`; a model that rejects an upload for its address is given none again."""
        made = prediction(data)
        model = str(data.get("model"))
        if made.error is not None and _NO_EXTENSION.search(made.error.message):
            names = {model, str(data.get("version"))}
            made.error.transient = not names <= self._strict
            self._strict |= names
        return made

    def checked(self, reply: Reply) -> Reply:
        """Return the reply if it is a success; a 404 of a model may have a reason of its own."""
        by_name = reply.status == 404 and "/models/" in reply.url
        hint = "Community models need a version: OWNER/NAME:VERSION." if by_name else None
        try:
            return checked(reply, self.name, key=self.key, hint=hint)
        except BusyError as error:
            if "credit" in error.message:  # 6 creates a minute, one at a time
                error.sparse = True
                error.hint = "More credit lifts the limit: https://replicate.com/account/billing."
            raise

    async def find(self, call: Call, since_utc: float) -> Prediction | None:
        """Look through the newest predictions for one with the same input that nobody owns.

        The seed that was sent makes the input its own; without one it cannot be told from its twins.
        """
        query, twins = "", False
        for _ in range(MAX_PAGES):
            reply = self.checked(await self.send("GET", f"/v1/predictions{query}"))
            since = since_utc - ahead_s(reply.headers) - CLOCK_S
            page = reply.json()
            rows = page.get("results") if isinstance(page, Mapping) else None
            if not isinstance(rows, list):
                raise ReplyError("replicate's list of predictions is none.", backend=self.name)
            for row in rows:
                if created_utc(row) < since:
                    return self._absent(twins)
                like = row["id"] not in self._taken and await self._is(row, call)
                if like and call.seed is not None:
                    self._own(row["id"])
                    return Prediction(row["id"], State.QUEUED)
                twins = twins or like is not False
            if not page.get("next"):
                return self._absent(twins)
            query = "?" + urlsplit(page["next"]).query  # its host may be that of another base URL
        raise OutcomeUnknownError(
            "replicate's list of predictions is too long to look through.", backend=self.name
        )

    def _absent(self, twins: bool) -> Prediction | None:
        """Nothing was found; that is a proof only where nothing looked alike."""
        if not twins:
            return None
        raise OutcomeUnknownError(
            "replicate's list holds a job that may be this request, and does not tell.",
            backend=self.name,
        )

    async def _is(self, row: Mapping[str, Any], call: Call) -> bool | None:
        """Whether a prediction of the list is what `call` asked for; None: that cannot be told."""
        alike = likeness(row, call)
        if not alike:
            return alike
        sent = row["input"]
        files = list(zip(listed(sent.get(call.image_field)), call.images, strict=False))
        if call.mask is not None:
            files.append((str(sent.get(call.mask_field)), call.mask))
        for text, image in files:
            same = await self._files.stands_for(text, image, self._content)
            if not same:
                return same
        return True

    async def _content(self, url: str) -> str | None:
        """Return the SHA-256 of an upload; None when it is none of ours, or gone."""
        if not url.startswith(f"{self.base}/v1/files/"):
            return None
        reply = await self.send("GET", url.removeprefix(self.base))
        if not reply.ok:
            return None
        content = (reply.json().get("checksums") or {}).get("sha256")
        return None if content is None else str(content)

    async def _schema(self, model: str) -> Mapping[str, Any]:
        """Return the named schemas of a model, a version of one, or a deployment."""
        name, _, version = model.partition(":")
        if name.startswith("deployments/"):
            release = (await self._described(f"/v1/{name}", model)).get("current_release") or {}
            name, version = str(release.get("model")), str(release.get("version"))
        try:
            path = f"/v1/models/{name}" + (f"/versions/{version}" if version else "")
            data = await self._described(path, model)
        except UnknownNameError:
            if not model.startswith("deployments/"):
                raise
            version, data = (
                "",
                await self._described(f"/v1/models/{name}", model),
            )  # an official one
        latest = data if version else (data.get("latest_version") or {})
        found = (latest.get("openapi_schema") or {}).get("components", {}).get("schemas", {})
        return found if isinstance(found, Mapping) else {}

    async def _described(self, path: str, model: str) -> Mapping[str, Any]:
        reply = await self.send("GET", path)
        if reply.status == 404:
            raise UnknownNameError(
                "model", f"replicate:{model}", hint="Names are OWNER/NAME, or OWNER/NAME:VERSION."
            )
        data = self.checked(reply).json()
        return data if isinstance(data, Mapping) else {}

"""The OpenAI images API (generations and edits), as OpenAI and those who copy it speak it.

Stage: a remote backend. Comes in: a `Call`. Goes out: a finished prediction: a create answers with the
pictures, there is no job to ask about, none to cancel and no list to look in. Which dialect a server speaks
is told by its list of models (`openai_dialects`), and by what it says of a field that it does not want.
Must not: retry, or send the key anywhere but to the API's own origin.

Source: https://platform.openai.com/docs/api-reference/images, and the types of the official client openai
3.57.0, read 2026-11-25. That OpenAI answers `response_format` with a 400, and others its absence, is from
memory and reports: both are handled by asking once more the other way, as neither has accepted anything.
"""

from __future__ import annotations

import asyncio
import base64
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nbimg.backends import openai_dialects as dialects
from nbimg.backends import openai_replies as replies
from nbimg.backends.base import Call, Context, Prediction, RemoteBackend, report
from nbimg.backends.http import Heard, Http, Reply, origin
from nbimg.backends.openai_dialects import Dialect, Served
from nbimg.errors import (
    ImageInputError,
    OutcomeUnknownError,
    RejectedError,
    ReplyError,
    UnknownNameError,
    UnreachableError,
)
from nbimg.events import Preview
from nbimg.media import pixels
from nbimg.types import Capabilities, InputImage

__all__ = ["OpenAIBackend"]

BASE_URL = "https://api.openai.com/v1"
#: An edit takes up to three minutes; a server that has lost a request never answers.
CREATE_S = 300.0
#: How long it is believed that the same server is behind an address.
SERVED_S = 600.0
_TAKEN = ("image/png", "image/jpeg", "image/webp")


class OpenAIBackend(RemoteBackend):
    """Any server with `/v1/images/generations`."""

    name = "openai"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._http = Http(self.name)
        self._served: dict[str, tuple[float, Served]] = {}
        self._asks: dict[tuple[str, str], bool] = {}  # who turned out to (not) want response_format
        self._single: set[tuple[str, str]] = (
            set()
        )  # who makes one image, however many are asked for

    @property
    def concurrency(self) -> int:  # type: ignore[override]  # it depends on where the server is
        """Four calls at once; one where a server has one GPU."""
        known = self._served.get(self._base)
        own = known is not None and known[1].dialect.own
        return 1 if own or dialects.local(self._base) else 4

    @property
    def _base(self) -> str:
        own = self.context.settings.provider(self.name, "base_url")
        found = own or BASE_URL
        base = str(found).rstrip("/")
        return base if urlsplit(base).path else f"{base}/v1"

    async def capabilities(self, model: str) -> Capabilities:
        """Ask the server what it is, at most every ten minutes; OpenAI itself is known."""
        served = await self._look()
        if served.of(model).lists_all and model not in served.models:
            serves = ", ".join(f"openai:{name}" for name in served.models)
            raise UnknownNameError(
                "model", f"openai:{model}", known=served.models, hint=f"{self._base} has {serves}."
            )
        can = dialects.capabilities(served, model)
        if (self._base, model) in self._single:
            return replace(can, options={k: v for k, v in can.options.items() if k != "n"})
        return can

    async def create(self, call: Call) -> Prediction:
        """Have the pictures made; their bytes or addresses are in the answer."""
        base, model = self._base, call.ref.model
        dialect = (await self._look()).of(model)
        asks = self._asks.get((base, model), dialect.asks_base64)
        reply = await self._post(call, dialect, asks)
        if not reply.ok and "response_format" not in call.arguments and _of_format(reply):
            asks = self._asks[base, model] = not asks
            reply = await self._post(call, dialect, asks)
        if not reply.ok:
            raise replies.failure(dialect, reply)
        try:
            made = await asyncio.to_thread(replies.prediction, dialect, reply)
        except ReplyError as error:
            raise OutcomeUnknownError(
                f"{dialect.name} accepted the request, but its answer cannot be read: {error.message}",
                backend=self.name,
                model=model,
                http_status=reply.status,
            ) from error
        if len(made.outputs) == 1 < call.count:
            self._single.add((base, model))
        return made

    async def check(self) -> str:
        """Ask what models there are."""
        served = await self._asked(self._base)
        number = len(served.models)
        return f"{served.dialect.name}, {number} model{'s' * (number != 1)}" if number else ""

    async def poll(self, job_id: str) -> Prediction:
        """Refuse: there are no jobs."""
        raise RejectedError("openai has no jobs to ask about.", backend=self.name, job_id=job_id)

    async def fetch(self, url: str) -> bytes:
        """Download a picture; the key goes to the API's own origin only."""
        own = origin(url) == origin(self._base)
        reply = await self._http.send(
            "GET", url, headers=self._auth() if own else {}, timeout_s=120, follow=True
        )
        if reply.ok:
            return reply.content
        passing = reply.status == 429 or reply.status >= 500
        raise ReplyError(
            f"{reply.url} cannot be fetched ({reply.status}).",
            hint=None if passing else "Pictures are kept for a limited time.",
            backend=self.name,
            http_status=reply.status,
            transient=passing,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    # ------------------------------------------------------------ who is there

    async def _look(self) -> Served:
        """Return what the server is."""
        base = self._base
        if base == BASE_URL:
            self._auth()  # nothing is sent without a key
            return Served(dialects.OPENAI)
        at, known = self._served.get(base, (0.0, None))
        if known is None or time.monotonic() - at > SERVED_S:
            known = await self._asked(base)
            self._served[base] = time.monotonic(), known
        return known

    async def _asked(self, base: str) -> Served:
        for url in (f"{base}/models", f"{origin(base)}/models"):  # the second one is SGLang's own
            reply = await self._http.send("GET", url, headers=self._auth(), timeout_s=20)
            if reply.ok:
                return dialects.recognise(_data(reply))
            if reply.status not in (400, 404, 405):
                error = replies.failure(dialects.RELAY, reply)
                if isinstance(error, OutcomeUnknownError):  # asking costs nothing
                    raise UnreachableError(
                        f"{reply.url} answered {reply.status}.",
                        backend=self.name,
                        http_status=reply.status,
                    )
                raise error
        return Served(dialects.RELAY)

    def _auth(self) -> dict[str, str]:
        keys = self.context.keys
        key = keys.need(self.name) if self._base == BASE_URL else keys.find(self.name)
        return {} if key is None else {"authorization": f"Bearer {key.reveal()}"}

    # ------------------------------------------------------------ what is sent

    async def _post(self, call: Call, dialect: Dialect, asks_base64: bool) -> Reply:
        """Send one create: JSON, or a form where images go along."""
        body = dialects.fields(dialect, call, asks_base64=asks_base64)
        path, images = "generations", [await _file(image) for image in call.images]
        content: dict[str, Any] = {"json": body}
        if images and dialect.inline:
            texts = [base64.b64encode(data).decode("ascii") for _, data, _ in images]
            body |= {"file": texts[0]} if len(texts) == 1 else {"ref_images": texts}
        elif images:
            path, field = "edits", "image" if len(images) == 1 else dialect.several
            files = [(field, image) for image in images]
            if call.mask is not None and dialect.mask is not None:
                files.append((dialect.mask, await _mask(call.mask, call.images[0], dialect)))
            content = {
                "data": {name: _plain(value) for name, value in body.items()},
                "files": files,
            }
        try:
            return await self._http.send(
                "POST",
                f"{self._base}/images/{path}",
                headers=self._auth(),
                timeout_s=CREATE_S,
                heard=_previews() if body.get("stream") else None,
                **content,
            )
        except UnreachableError:
            self._served.pop(self._base, None)  # it may come back as another one
            raise


def _previews() -> Heard:
    """Return what reports the partial images of a stream while it comes in."""
    events = replies.Events()

    async def heard(part: bytes) -> None:
        for event in events.feed(part):
            if not str(event.get("type")).endswith(".partial_image"):
                continue
            try:
                data = replies.decoded(str(event.get("b64_json")))
                small = await asyncio.to_thread(pixels.thumbnail, data)
            except ImageInputError:  # only a preview
                continue
            report(Preview(data=small))

    return heard


async def _file(image: InputImage) -> tuple[str, bytes, str]:
    """The part of a form for an input image: name, bytes, media type; PNG where it is unusual."""

    def read() -> tuple[str, bytes, str]:
        data, mime = Path(image.path).read_bytes(), image.mime
        if mime not in _TAKEN:
            data, mime = pixels.encode(pixels.decode(data), "image/png"), "image/png"
        suffix = mime.rpartition("/")[2].replace("jpeg", "jpg")
        return f"{image.sha256[:16]}.{suffix}", data, mime

    return await asyncio.to_thread(read)


async def _mask(mask: InputImage, image: InputImage, dialect: Dialect) -> tuple[str, bytes, str]:
    """The part of a form for a mask that is white where the picture is to change."""

    def read() -> tuple[str, bytes, str]:
        picture = pixels.decode(Path(mask.path).read_bytes())
        size = (image.width, image.height)
        if not dialect.cuts:
            ready = picture.convert("L").resize(size)
        else:
            ready = picture.convert("RGBA").resize(size)
            if picture.convert("RGBA").getchannel("A").getextrema()[0]:  # not cut out already
                ready.putalpha(picture.convert("L").resize(size).point(lambda grey: 255 - grey))
        return "mask.png", pixels.encode(ready, "image/png"), "image/png"

    return await asyncio.to_thread(read)


def _plain(value: Any) -> Any:
    """A value as a field of a form."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _data(reply: Reply) -> Any:
    try:
        return reply.json()
    except ReplyError:
        return None


def _of_format(reply: Reply) -> bool:
    """Whether a refusal is about `response_format`."""
    return reply.status in (400, 422, 500) and b"response_format" in reply.content

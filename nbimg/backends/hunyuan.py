"""Tencent's Hunyuan Image 3.0, by whichever of Tencent's APIs the credential is for.

Stage: a remote backend. Comes in: a `Call`. Goes out: a `Prediction`. Must not: retry or wait.

Tencent moved the model in 2026, and which API a person has depends on when they signed up
(`hunyuan_forms` lists them). The one that is used is, first wins:

    NBIMG_HUNYUAN_API         tokenhub, tokenhub-jobs, jobs or signed
    NBIMG_HUNYUAN_BASE_URL    by its host, where that is one of Tencent's
    the credential            HUNYUAN_API_KEY: tokenhub; HUNYUAN_SECRET_ID and _KEY: signed

The traps handled here: errors that come with HTTP 200; a seed that has no effect while the prompt is
rewritten; seed 0, which means any; polls that are POSTs; images of more bytes, or fewer pixels, than are
taken; no way to stop a job, or to find one whose id was lost.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from nbimg.backends import hunyuan_forms, tc3
from nbimg.backends.base import Call, Context, Prediction, RemoteBackend
from nbimg.backends.http import Http, Reply
from nbimg.backends.hunyuan_forms import FORMS, Form, Message
from nbimg.config import Rate
from nbimg.credentials.keys import Secret
from nbimg.errors import (
    JobFailedError,
    KeyMissingError,
    OutcomeUnknownError,
    RejectedError,
    ReplyError,
    SettingError,
    UnreachableError,
)
from nbimg.media import pixels
from nbimg.types import Capabilities, InputImage

__all__ = ["HunyuanBackend"]

REGION = "ap-guangzhou"
VERSION = "2022-12-29"
#: What the sides of an input image may be, in pixels, and to what a larger picture is shrunk.
SIDES_PX = 50, 5000
SHRUNK = ((2048, 95), (2048, 85), (1536, 85), (1024, 80))
#: End of a host's name → the form that it speaks.
_HOSTS: Mapping[str, str] = {
    "tencentcloudapi.com": "signed",
    "tencentmaas.com": "tokenhub",
    "cloudai.tencent.com": "jobs",
}
#: An id of the right form that no job has.
NO_JOB = "1250000000-0000000000-00000000-0000-4000-8000-000000000000-0"
T = TypeVar("T")


class HunyuanBackend(RemoteBackend):
    """Hunyuan Image 3.0, in each of its forms."""

    name = "hunyuan"
    concurrency = 2
    rates: ClassVar[Mapping[str, Rate]] = {"create": Rate(20, 1), "read": Rate(20, 1)}

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._http = Http(self.name)

    def _set(self, key: str) -> str | None:
        value = self.context.settings.provider(self.name, key)
        return None if value is None else str(value)

    def _form(self) -> tuple[Form, Mapping[str, Secret]]:
        """Return the form that is used, and its credential.

        Raises:
            SettingError: When the setting names none.
            KeyMissingError: When there is no credential, or one for another form only.
        """
        host = urlsplit(self._set("base_url") or "").hostname or ""
        found = self.context.keys.parts(self.name)
        own = "signed" if "HUNYUAN_SECRET_ID" in found else "tokenhub"
        by_host = next((form for end, form in _HOSTS.items() if host.endswith(end)), own)
        name = self._set("api") or by_host
        if name not in FORMS:
            raise SettingError(f"hunyuan has no API {name!r}.", hint=f"It has: {', '.join(FORMS)}.")
        form = FORMS[name]()
        if isinstance(form, hunyuan_forms.Signed):
            form.action = self._set("action") or form.action
        if not found:
            self.context.keys.need(self.name)  # raises, and says what to set
        if not found.keys() >= set(form.variables):
            wanted, other = " and ".join(form.variables), " and ".join(found)
            raise KeyMissingError(
                f"hunyuan's API {name} takes {wanted}, not {other}.",
                hint=f"Set {wanted} alone, or NBIMG_HUNYUAN_API to {own}.",
            )
        return form, found

    async def capabilities(self, model: str) -> Capabilities:
        """Return what the model takes in the form that is used; there is no schema to ask for."""
        form, _ = self._form()
        return form.capabilities(model)

    async def create(self, call: Call) -> Prediction:
        """Order an image; TokenHub answers when it is there, the others with a job id."""
        form, key = self._form()
        images = await asyncio.to_thread(_inline, form, call.images)
        message = form.create(call, images)
        reply = await self._send(form, key, message, form.create_s)
        try:
            return _read(reply, form.created)
        except (ReplyError, UnreachableError) as error:
            raise OutcomeUnknownError(
                "hunyuan's answer cannot be read; the request may have been accepted and charged: "
                f"{error.message}",
                backend=self.name,
                model=call.ref.model,
                http_status=reply.status,
            ) from error

    async def poll(self, job_id: str) -> Prediction:
        """Ask how a job stands."""
        form, key = self._form()
        message = form.look(job_id)
        if message is None:
            raise RejectedError(
                f"hunyuan's API {form.name} has no jobs: another one made this.",
                hint="Set NBIMG_HUNYUAN_API to the one that did.",
                backend=self.name,
                job_id=job_id,
            )
        try:
            reply = await self._send(form, key, message, 30)
            return _read(reply, lambda data, status: form.looked(data, status, job_id))
        except (OutcomeUnknownError, ReplyError) as error:  # a question costs nothing to repeat
            raise UnreachableError(
                error.message,
                backend=self.name,
                job_id=job_id,
                http_status=error.http_status,
            ) from error

    async def check(self) -> str:
        """Ask after a job that never was; TokenHub has nothing that could be asked for nothing."""
        form, _ = self._form()
        if form.look(NO_JOB) is None:
            return ""
        with contextlib.suppress(JobFailedError):  # it does not know that one, but it does the key
            await self.poll(NO_JOB)
        return f"API {form.name}"

    async def fetch(self, url: str) -> bytes:
        """Download an output; no credential goes there."""
        reply = await self._http.send("GET", url, timeout_s=120, follow=True)
        if reply.ok:
            return reply.content
        known: dict[str, Any] = {"backend": self.name, "http_status": reply.status}
        if reply.status == 429 or reply.status >= 500:
            raise UnreachableError(f"{reply.url} answered {reply.status}.", **known)
        gone = reply.status in (403, 404, 410)
        why = "is gone: hunyuan keeps images for an hour" if gone else "cannot be fetched"
        raise ReplyError(f"{reply.url} {why} ({reply.status}).", **known)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def _send(
        self, form: Form, key: Mapping[str, Secret], message: Message, timeout_s: float
    ) -> Reply:
        base = (self._set("base_url") or form.base_url).rstrip("/")
        body = json.dumps(message.body, ensure_ascii=False).encode("utf-8", "replace")
        if isinstance(form, hunyuan_forms.Signed):
            url, headers = f"{base}/", self._signed(base, key, message.target, body)
        else:
            secret = key[form.variables[0]].reveal()
            url, headers = base + message.target, {"authorization": f"{form.bearer}{secret}"}
        headers["content-type"] = tc3.CONTENT_TYPE
        return await self._http.send(
            "POST", url, headers=headers, content=body, timeout_s=timeout_s
        )

    def _signed(
        self, base: str, key: Mapping[str, Secret], action: str, body: bytes
    ) -> dict[str, str]:
        """The headers of the signed API; the time is in them, so they are made for each try."""
        host = urlsplit(base).netloc.rpartition("@")[2]
        service = host.partition(".")[0] if host.endswith("tencentcloudapi.com") else "aiart"
        at_utc = int(time.time())
        secret_id, secret_key = (key[name].reveal() for name in hunyuan_forms.Signed.variables)
        return {
            "host": host,
            "x-tc-action": action,
            "x-tc-version": self._set("version") or VERSION,
            "x-tc-region": self._set("region") or REGION,
            "x-tc-timestamp": str(at_utc),
            "x-tc-language": "en-US",
            "authorization": tc3.authorization(
                secret_id, secret_key, host=host, service=service, body=body, at_utc=at_utc
            ),
        }


def _read(reply: Reply, read: Callable[[Mapping[str, Any], int], T]) -> T:
    """Read a reply that is data, whatever its status and its type say.

    Raises:
        UnreachableError: When something before Tencent answered with an error page.
        ReplyError: When it holds nothing that can be understood.
        BackendError: What it says.
    """
    try:
        return read(_object(reply), reply.status)
    except _NoObjectError as error:
        if reply.status >= 500:
            raise UnreachableError(error.message, http_status=reply.status) from error
        if reply.status < 400:
            raise
    return read({"message": reply.start}, reply.status)


class _NoObjectError(ReplyError):
    """A page, or less."""


def _object(reply: Reply) -> Mapping[str, Any]:
    try:
        data = reply.json()
    except ReplyError as error:
        raise _NoObjectError(error.message) from error
    if not isinstance(data, Mapping):
        raise _NoObjectError(f"{reply.url} answered {reply.status} with no object.")
    return data


def _inline(form: Form, images: tuple[InputImage, ...]) -> list[str]:
    """Return the images as text, each as small as the form wants it."""
    most = min(form.image_bytes, form.body_bytes // max(1, len(images))) * 3 // 4
    return [_text(form, *_fitted(form, image, most)) for image in images]


def _text(form: Form, data: bytes, mime: str) -> str:
    text = base64.b64encode(data).decode("ascii")
    return f"data:{mime};base64,{text}" if form.data_uri else text


def _fitted(form: Form, image: InputImage, most: int) -> tuple[bytes, str]:
    """Return bytes and type of an image: its own where they are taken, else a smaller JPEG or a PNG."""
    data = Path(image.path).read_bytes()
    least_px, most_px = SIDES_PX
    low, high = sorted((image.width, image.height))
    if image.mime in form.mimes and len(data) <= most and least_px <= low and high <= most_px:
        return data, image.mime
    picture = pixels.decode(data, name=image.source or "the image")
    if low < least_px:
        factor = -(-least_px // max(low, 1))
        picture = picture.resize((image.width * factor, image.height * factor))
    picture.thumbnail((most_px, most_px))
    if image.mime != "image/jpeg":
        data = pixels.encode(picture, "image/png")
        if len(data) <= most:
            return data, "image/png"
    for side_px, quality in SHRUNK:
        picture.thumbnail((side_px, side_px))
        data = pixels.encode(picture, "image/jpeg", quality=quality)
        if len(data) <= most:
            break
    return data, "image/jpeg"

"""SpeedPix (Alibaba's AIGC Service Lab): ComfyUI workflows that somebody published, by their id.

Stage: a remote backend. Comes in: a `Call`. Goes out: a `Prediction`. Must not: retry or wait.

A model is `WORKFLOW_ID`, `WORKFLOW_ID@ALIAS` or `WORKFLOW_ID@VERSION` (`v3` or `3`); without either the
alias `main`. No page tells what a workflow takes, so that the user says under which names it knows our
options, in `[providers.speedpix.inputs]`:

    prompt = "text"                 # for every workflow; the defaults are prompt, image and mask
    seed = "seed"                   # an option that is not listed is not sent
    image = ["person", "garment"]   # one input each
    [providers.speedpix.inputs.12345]
    prompt = "positive"             # for one of them

Everything else is a parameter under the workflow's own name (`-p NAME=VALUE`), files included.

Source: https://help.aliyun.com/en/document_detail/2844525.html, 2844526, 2844527, 2844655 and the
official client 1.0.4 (read 2026-11-22). The traps handled here: the signature covers the exact bytes and
is good once; there is no cancel, no list and no idempotency key; ComfyUI gives the same picture again
when nothing has changed, unless it is told to draw new seeds.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any

from nbimg.backends.base import Call, Context, Prediction, RemoteBackend, State
from nbimg.backends.http import Http, Reply
from nbimg.backends.speedpix_files import File, Sender
from nbimg.backends.speedpix_inputs import OWN, Mapped, mapped, target
from nbimg.backends.speedpix_replies import (
    job_error,
    opened,
    prediction,
    reason,
    said,
    state_of,
    task_of,
)
from nbimg.backends.speedpix_signing import signed
from nbimg.credentials.given import account
from nbimg.errors import (
    OutcomeUnknownError,
    ReplyError,
    UnreachableError,
)
from nbimg.types import Capabilities

__all__ = ["SpeedPixBackend"]

BASE_URL = "https://openai.edu-aliyun.com"
#: An uploaded file is used again for so long, in seconds; how long it is kept is not documented.
UPLOAD_S = 600.0


class SpeedPixBackend(RemoteBackend):
    """Workflows: text to image, image to image, and those that make videos."""

    name = "speedpix"
    concurrency = 4

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._http = Http(self.name)
        self._uploads: dict[tuple[str, str], tuple[float, str]] = {}
        self._uploading: dict[tuple[str, str], asyncio.Lock] = {}

    @property
    def _base(self) -> str:
        base = str(self._setting("base_url") or BASE_URL).rstrip("/")
        return base if "://" in base else f"https://{base}"

    def _setting(self, key: str) -> Any:
        return self.context.settings.provider(self.name, key)

    def _mapped(self, workflow: str) -> Mapped:
        return mapped(self._setting("inputs"), workflow)

    async def capabilities(self, model: str) -> Capabilities:
        """Return what the user's settings say of a workflow; it takes any other input, too."""
        workflow, _ = target(model)
        return self._mapped(workflow).capabilities()

    async def create(self, call: Call) -> Prediction:
        """Submit a task; its files first, so that nothing is paid before they are there."""
        workflow, version = target(call.ref.model)
        own = {name: call.arguments[name] for name in OWN if name in call.arguments}
        body: dict[str, Any] = {"workflow_id": workflow, **version}
        if "alias_id" in own or "version_id" in own:
            body = {"workflow_id": workflow}
        body["inputs"] = await self._inputs(call, self._mapped(workflow))
        fresh = call.seed is None and not any("seed" in name.lower() for name in body["inputs"])
        body |= {"randomise_seeds": True} if fresh else {}
        for name in ("alias_id", "version_id", "randomise_seeds", "return_temp_files"):
            if name in own:
                body[name] = own[name]
        pool = own.get("resource_config_id") or self._setting("resource_config_id") or "default"
        reply = await self._post("/scc/comfy_prompt", body, {"x-sp-resource-config-id": str(pool)})
        return self._created(call, reply)

    def _created(self, call: Call, reply: Reply) -> Prediction:
        """Read the answer of a create; what cannot be read may have been accepted."""
        known: dict[str, Any] = {"backend": self.name, "model": call.ref.model}
        known["http_status"] = reply.status
        if reply.status >= 500:
            raise OutcomeUnknownError(
                f"speedpix answered {reply.status}; the request may have been accepted and charged.",
                **known,
            )
        try:
            return Prediction(task_of(reply), State.QUEUED)
        except ReplyError as error:
            raise OutcomeUnknownError(
                f"speedpix took the request, but its answer cannot be read: {error.message}",
                **known,
            ) from error

    async def poll(self, job_id: str) -> Prediction:
        """Ask how a task stands, and when it has ended what came of it."""
        asked = {"taskId": job_id}
        data = await self._look("/scc/comfy_get_progress", asked)
        match state_of(data, job_id):
            case State.DONE:
                return prediction(await self._look("/scc/comfy_get_result", asked), job_id)
            case State.FAILED:
                told = reason(await self._ask("/scc/comfy_get_result", asked)) or said(data)
                return Prediction(job_id, State.FAILED, error=job_error(told, job_id))
        return prediction(data, job_id)

    async def fetch(self, url: str) -> bytes:
        """Download an output; the credential never goes along."""
        if url.startswith("data:"):
            return _inline(url)
        reply = await self._http.send("GET", url, timeout_s=300, follow=True)
        if reply.ok:
            return reply.content
        if reply.status == 429 or reply.status >= 500:
            raise UnreachableError(
                f"{reply.url} answered {reply.status}.",
                backend=self.name,
                http_status=reply.status,
            )
        gone = reply.status in (403, 404, 410)
        why = "is gone, or its address has expired" if gone else "cannot be fetched"
        raise ReplyError(
            f"{reply.url} {why} ({reply.status}).", backend=self.name, http_status=reply.status
        )

    async def check(self) -> str:
        """Have an address for a file signed, and send none there."""
        asked = {"contentType": "text/plain", "originalFilename": "check.txt"}
        await self._look("/scc/sp_create_temp_file_upload_sign", asked)
        return "the gateway took the signature"

    async def upload(self, name: str, data: bytes, mime: str) -> str:
        """Upload a file, and return its address, which workflows take for some time.

        Raises:
            BackendError: When it did not arrive.
        """
        return await self._upload(File(name, mime, data))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    # ------------------------------------------------------------ inside

    async def _inputs(self, call: Call, names: Mapped) -> dict[str, Any]:
        """Return what the workflow is given, every file in the form in which it is sent."""
        values = {name: value for name, value in call.arguments.items() if name not in OWN}
        strategy = call.arguments.get("file_encoding_strategy") or self._setting(
            "file_encoding_strategy"
        )
        sender = Sender(str(strategy or "auto"), self._upload)
        sent = await sender.inputs(values, texts=names.texts, files=names.files)
        prompt = names.of("prompt")
        if prompt is not None and call.prompt:
            sent.setdefault(prompt, call.prompt)
        places = names.names.get("image") or (call.image_field,)
        for place, image in zip(places, call.images, strict=False):
            sent[place] = await sender.image(image)
        if call.mask is not None:
            sent[call.mask_field] = await sender.image(call.mask)
        return sent

    async def _post(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send what is signed, byte for byte; each call has a nonce of its own."""
        parts = self.context.keys.parts(self.name)
        if not parts:
            self.context.keys.need(self.name)
        key, secret = (parts[name] for name in ("SPEEDPIX_APP_KEY", "SPEEDPIX_APP_SECRET"))
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(
            "utf-8", "replace"
        )
        own = {**signed(key, secret, path, content), **(headers or {})}
        return await self._http.send("POST", self._base + path, headers=own, content=content)

    async def _ask(self, path: str, body: Mapping[str, Any]) -> Reply:
        """Send what may be sent any number of times."""
        try:
            return await self._post(path, body)
        except OutcomeUnknownError as error:
            raise UnreachableError(
                f"speedpix: the answer of {path} was lost.", backend=self.name
            ) from error

    async def _look(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the data of an answer; one that is spoilt on its way may be asked for again."""
        reply = await self._ask(path, body)
        try:
            return opened(reply, read=True)
        except ReplyError as error:
            error.transient = True
            raise

    async def _upload(self, file: File) -> str:
        """Upload a file once, however many tasks take it at the same time."""
        content = account(self.name), hashlib.sha256(file.data).hexdigest()
        async with self._uploading.setdefault(content, asyncio.Lock()):
            until, url = self._uploads.get(content, (0.0, ""))
            if time.monotonic() >= until:
                url = await self._put(file)
                self._uploads[content] = (time.monotonic() + UPLOAD_S, url)
        return url

    async def _put(self, file: File) -> str:
        """Have an address signed, and put the bytes there; the credential does not go along."""
        asked = {"contentType": file.mime, "originalFilename": file.name}
        try:
            data = await self._look("/scc/sp_create_temp_file_upload_sign", asked)
        except ReplyError as error:  # nothing is paid yet: the whole create may be tried again
            raise UnreachableError(error.message, backend=self.name) from error
        to, url = data.get("uploadUrl"), data.get("accessUrl")
        if not isinstance(to, str) or not isinstance(url, str) or not url:
            raise UnreachableError("speedpix gave no address for a file.", backend=self.name)
        headers = {"content-type": file.mime}
        try:
            reply = await self._http.send(
                "PUT", to, headers=headers, content=file.data, timeout_s=300
            )
        except OutcomeUnknownError as error:  # a file sent twice costs nothing
            raise UnreachableError("the upload of a file was lost.", backend=self.name) from error
        if not reply.ok:  # an address that has expired is signed anew
            raise UnreachableError(
                f"{reply.url} did not take {file.name} ({reply.status}).",
                backend=self.name,
                http_status=reply.status,
            )
        return url


def _inline(url: str) -> bytes:
    head, _, payload = url.partition(",")
    try:
        return base64.b64decode(payload, validate=True) if head.endswith(";base64") else b""
    except ValueError:
        raise ReplyError("speedpix sent a file that is not base64.", backend="speedpix") from None

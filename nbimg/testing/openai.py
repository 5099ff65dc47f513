"""A local server of the OpenAI images API, in the dialect of OpenAI or of those who copy it.

Stage: tests, and trials without a key. In: the requests of a client. Out: what OpenAI, a relay, vLLM-Omni,
SGLang or LocalAI answer, with real (small) pictures, and a ledger of what was accepted, so that a test can
assert that nothing was paid for twice. It connects to nothing, and fetches no input image.

Sources: the official client openai 3.57.0; the documentation and sources of vLLM-Omni, SGLang diffusion and
LocalAI, read 2026-11-25; error texts from reports of users. What none of them says is marked "assumed".
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nbimg.testing.openai_requests import (
    OPENAI_FIELDS,
    Asked,
    Dialect,
    RefusedError,
    error_body,
    read,
)
from nbimg.testing.pictures import MEDIA_TYPES, render_picture
from nbimg.testing.rates import Bucket, RateLimit
from nbimg.testing.server import Fault, LocalServer, Recorded, Reply

__all__ = ["FAKE_OPENAI_KEY", "Made", "OpenAIServer"]

FAKE_OPENAI_KEY = "fake-openai-key-314159"
"""The only key that the server accepts unless told otherwise; no real key looks like this."""

_MODELS: Mapping[Dialect, tuple[str, ...]] = {
    "openai": ("gpt-image-1-mini", "gpt-image-1.5", "gpt-image-2", "gpt-image-2.5-flare"),
    "relay": ("gpt-image-2", "some-painter"),
    "vllm": ("Qwen/Qwen-Image",),
    "sglang": ("black-forest-labs/FLUX.1-dev",),
    "localai": ("stablediffusion", "flux.1-dev-ggml"),
}
_OWNERS = {"openai": "system", "relay": "relay", "vllm": "vllm", "sglang": "sglang"}


@dataclass(frozen=True, slots=True)
class Made:
    """A request that was accepted.

    Attributes:
        id: For its addresses.
        asked: What was asked for.
        count: How many pictures it made.
        salt: What makes two requests without a seed differ.
    """

    id: str
    asked: Asked
    count: int
    salt: str = field(compare=False)

    @property
    def fields(self) -> Mapping[str, Any]:
        """The parameters, those of a form as well."""
        return self.asked.fields

    def picture(self, number: int, side_px: int, fixed: bool) -> tuple[bytes, str]:
        """Return the bytes of a picture and its format; the same seed gives the same ones."""
        fields = self.fields
        shown = {
            name: value
            for name, value in fields.items()
            if name not in {"n", "response_format", "output_format", "stream", "partial_images"}
        }
        inputs = [hashlib.sha256(image).hexdigest() for image in self.asked.images]
        salt = "" if fields.get("seed") is not None else self.salt
        key = json.dumps([shown, inputs, salt, number], sort_keys=True)
        width, _, height = str(fields.get("size", "")).partition("x")
        size = (side_px, side_px)
        if width.isdigit() and height.isdigit() and not fixed:
            size = int(width), int(height)
        form = str(fields.get("output_format", "png")).replace("jpeg", "jpg")
        return render_picture(key, form, *size), form


class OpenAIServer(LocalServer):
    """The API on ``base_url`` (``/v1/...``) and a host of files on ``files_url``, another port.

    All knobs are attributes, too, and may be turned while it runs.

    Args:
        dialect: Who it is. ``openai``: base64 only, 400 on ``response_format``, no seed, previews;
            ``relay``: addresses unless base64 is asked for, passes ``gpt-image-*`` on to OpenAI;
            ``vllm``: one model, base64 or raw bytes, errors under ``detail``; ``sglang``: one model,
            relative addresses; ``localai``: absolute addresses, integer error codes, ignores ``size``.
        key: What is accepted; None: any key, or none.
        models: What there is.
        counts: Whether ``n`` is honoured, ignored, or one picture less comes.
        money: ``none``: 429 ``insufficient_quota``.
        image_limit: Limit on requests; None: no limit.
        refuses: A prompt with this word is refused.
        old: ``sglang``: without ``b64_json`` it makes the picture and answers 400 then, and has no
            ``/v1/models``; ``localai``: 500 on any ``response_format``.
        not_ready: So many requests for pictures are answered 503 first.
        loses_above: With more than so many under way, a request is carried out and never answered.
        making_s: How long a request takes, in seconds of the wall clock.
        side_px: Side of a picture whose size was not asked for.
        faults: See ``Fault``. Variants for ``error``: ``quota`` with 429, ``refused`` with 400.
        latency_s: See ``LocalServer``.
    """

    def __init__(
        self,
        dialect: Dialect = "openai",
        *,
        key: str | None = FAKE_OPENAI_KEY,
        models: Iterable[str] | None = None,
        counts: Literal["honour", "one", "fewer"] = "honour",
        money: Literal["ok", "none"] = "ok",
        image_limit: RateLimit | None = None,
        refuses: str = "forbidden",
        old: bool = False,
        not_ready: int = 0,
        loses_above: int | None = None,
        making_s: float = 0.0,
        side_px: int = 64,
        faults: Iterable[Fault] = (),
        latency_s: float | Callable[[Recorded], float] = 0.0,
    ) -> None:
        """Set it up, see the class; nothing is bound before ``start``."""
        super().__init__(hosts=("api", "files"), faults=faults, latency_s=latency_s)
        self.dialect: Dialect = dialect
        self.key = key
        self.models = tuple(_MODELS[dialect] if models is None else models)
        self.counts = counts
        self.money = money
        self.image_limit = image_limit
        self.refuses = refuses
        self.old = old
        self.not_ready = not_ready
        self.loses_above = loses_above
        self.making_s = making_s
        self.side_px = side_px
        self._made: dict[str, Made] = {}
        self._under_way = 0
        self._bucket: Bucket | None = None

    # What a test asks.

    @property
    def files_url(self) -> str:
        """``http://127.0.0.1:<port>`` of the host of files."""
        return self.url("files")

    @property
    def jobs(self) -> list[Made]:
        """Every request that was accepted, oldest first, whether or not its client learned of it."""
        return list(self._made.values())

    def duplicates(self) -> list[Made]:
        """The requests that are equal to one before them."""
        jobs = self.jobs
        return [
            job for place, job in enumerate(jobs) if job.asked in [j.asked for j in jobs[:place]]
        ]

    @property
    def leaks(self) -> list[Recorded]:
        """Requests to the host of files that carried a credential."""
        return [call for call in self.matching(host="files") if "Authorization" in call.headers]

    # Routes.

    def answer(self, call: Recorded) -> Reply | Awaitable[Reply]:
        """Answer a call to the API or to the host of files."""
        path = tuple(call.path.strip("/").split("/"))
        try:
            if call.host == "files" or path[0] == "generated-images":
                return self._deliver(path[-1].removesuffix(".png"))
            if self.key is not None and call.headers.get("Authorization") != f"Bearer {self.key}":
                raise self._refused(
                    401, "Incorrect API key provided.", "invalid_api_key", "invalid_request_error"
                )
            match (call.method, *path):
                case ("GET", "v1", "models") if not (self.old and self.dialect == "sglang"):
                    return Reply.of(
                        {"object": "list", "data": [self._card(m) for m in self.models]}
                    )
                case ("GET", "models") if self.dialect == "sglang":
                    return Reply.of({"model_path": self.models[0], "task_type": "TI2I"})
                case ("GET", "v1", "images", job_id, "content"):
                    number = call.query.removeprefix("variant=") or "0"
                    return self._deliver(f"{job_id}-{number}")
                case ("POST", "v1", "images", "generations" | "edits"):
                    return self._create(call, path[-1])
        except RefusedError as refused:
            return refused.reply
        return Reply.of({"detail": "Not Found"}, 404)

    def error_reply(self, fault: Fault) -> Reply:
        """Make the body that the dialect sends with ``fault.status``."""
        match (fault.status, fault.variant):
            case (429, "quota"):
                return self._no_money().reply
            case (429, _):
                return self._too_fast(float(fault.retry_after_s or 1)).reply
            case (400, "refused"):
                return self._moderated().reply
        return self._refused(fault.status, "The server had an error.", "", "server_error").reply

    def _card(self, model: str) -> dict[str, Any]:
        card: dict[str, Any] = {"id": model, "object": "model"}
        if self.dialect == "localai":
            return card
        card |= {"created": 1_700_000_000, "owned_by": _OWNERS[self.dialect]}
        return card | ({"task_type": "TI2I"} if self.dialect == "sglang" else {})

    # Refusals.

    def _refused(
        self, status: int, text: str, code: str, kind: str, headers: Mapping[str, str] | None = None
    ) -> RefusedError:
        return RefusedError(
            Reply.of(error_body(self.dialect, status, text, code, kind), status, headers)
        )

    def _no_money(self) -> RefusedError:
        text = "You exceeded your current quota, please check your plan and billing details."
        return self._refused(429, text, "insufficient_quota", "insufficient_quota")

    def _moderated(self) -> RefusedError:
        text = (
            "Your request was rejected by the safety system. If you believe this is an error, contact us"
            " at help.openai.com and include the request ID. safety_violations=[violence]."
        )
        return self._refused(400, text, "moderation_blocked", "image_generation_user_error")

    def _too_fast(self, wait_s: float) -> RefusedError:
        limit = int(self.image_limit.per_minute) if self.image_limit else 5
        text = (
            f"Rate limit exceeded for images per minute in organization org-example. Limit: {limit}/1min."
            f" Please try again in {wait_s:g}s."
        )
        headers = {
            "x-ratelimit-limit-requests": str(limit),
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": f"{wait_s:g}s",
        }
        return self._refused(429, text, "rate_limit_exceeded", "requests", headers)

    def _throttle(self) -> None:
        if self.image_limit is None:
            return
        now_s = self.now_s()
        self._bucket = self._bucket or Bucket(self.image_limit, now_s)
        if wait_s := self._bucket.take(now_s):
            raise self._too_fast(round(wait_s, 3))

    # Making.

    def _create(self, call: Recorded, kind: str) -> Reply | Awaitable[Reply]:
        if self.not_ready:
            self.not_ready -= 1
            raise self._refused(503, "Diffusion engine not initialized.", "", "server_error")
        self._throttle()
        asked = read(self.dialect, call, kind)
        self._check(asked)
        count = int(asked.fields.get("n", 1))
        count = {"honour": count, "one": 1, "fewer": max(1, count - 1)}[self.counts]
        made = Made(secrets.token_hex(12), asked, count, secrets.token_hex(4))
        self._made[made.id] = made
        return self._slowly(made) if self.making_s else self._shown(made)

    async def _slowly(self, made: Made) -> Reply:
        self._under_way += 1
        lost = self.loses_above is not None and self._under_way > self.loses_above
        try:
            await asyncio.sleep(self.making_s)
        finally:
            self._under_way -= 1
        if lost:
            await asyncio.Event().wait()  # until the client or the server goes
        return self._shown(made)

    def _check(self, asked: Asked) -> None:
        model = asked.fields.get("model", self.models[0])
        if model not in self.models and self.dialect != "sglang":  # which does not look at it
            status = {"openai": 404, "relay": 404, "localai": 500}.get(self.dialect, 400)
            text = f"The model '{model}' does not exist."
            raise self._refused(status, text, "model_not_found", "invalid_request_error")
        if self.money == "none":
            raise self._no_money()
        as_openai = self.dialect == "openai" or str(model).startswith("gpt-image")
        unknown = sorted(asked.fields.keys() - OPENAI_FIELDS) if as_openai else ()
        if unknown:
            text = f"Unknown parameter: '{unknown[0]}'."
            raise self._refused(400, text, "unknown_parameter", "invalid_request_error")
        if as_openai and asked.mask is not None:
            self._check_mask(asked.mask, asked.images[0])
        if self.refuses and self.refuses in str(asked.fields["prompt"]):
            raise self._moderated()
        if self.dialect == "localai" and self.old and "response_format" in asked.fields:
            text = (
                "json: cannot unmarshal string into Go struct field OpenAIRequest.response_format"
            )
            raise self._refused(500, text, "", "")

    def _check_mask(self, mask: bytes, image: bytes) -> None:
        from PIL import Image

        with Image.open(io.BytesIO(mask)) as cut, Image.open(io.BytesIO(image)) as whole:
            wrong = cut.format != "PNG" or "A" not in cut.getbands() or cut.size != whole.size
        if wrong:  # the wording is assumed
            text = "Invalid mask image: it must be a PNG with an alpha channel and the size of the image."
            raise self._refused(400, text, "invalid_image_file", "image_generation_user_error")

    # Answers.

    def _shown(self, made: Made) -> Reply:
        fields = made.fields
        form = fields.get("response_format")
        if self.dialect == "sglang" and self.old and form != "b64_json":
            text = "response_format='url' requires cloud storage to be configured."
            return self._refused(400, text, "", "").reply
        pictures = [made.picture(number, self.side_px, self._fixed) for number in range(made.count)]
        if self.dialect == "vllm" and form == "file":
            data, kind = pictures[0]
            name = {"Content-Disposition": f'attachment; filename="image.{kind}"'}
            return Reply(body=data, content_type=MEDIA_TYPES[kind], headers=name)
        if fields.get("stream"):
            return self._stream(made, pictures)
        by_address = self.dialect != "vllm" and form != "b64_json" and not self._gpt(made)
        rows = [
            {"url": self._address(made, number)}
            if by_address
            else {"b64_json": base64.b64encode(picture).decode()}
            for number, (picture, _) in enumerate(pictures)
        ]
        answer: dict[str, Any] = {"created": 1_764_000_000, "data": rows}
        if self._gpt(made):
            answer["usage"] = _usage(made)
        return Reply.of(answer, headers={"x-request-id": f"req_{made.id}"})

    @property
    def _fixed(self) -> bool:
        return self.dialect == "localai"

    def _gpt(self, made: Made) -> bool:
        return str(made.fields.get("model")).startswith("gpt-image")

    def _address(self, made: Made, number: int) -> str:
        if self.dialect == "sglang":
            variant = f"?variant={number}" if made.count > 1 else ""
            return f"/v1/images/{made.id}/content{variant}"
        if self.dialect == "localai":
            return f"{self.base_url}/generated-images/{made.id}-{number}.png"
        return f"{self.files_url}/{made.id}-{number}.png"

    def _stream(self, made: Made, pictures: list[tuple[bytes, str]]) -> Reply:
        kind = "image_edit" if made.asked.images else "image_generation"
        events: list[dict[str, Any]] = []
        for data, form in pictures:
            shown = {"b64_json": base64.b64encode(data).decode(), "output_format": form}
            events += [
                {"type": f"{kind}.partial_image", "partial_image_index": index, **shown}
                for index in range(int(made.fields.get("partial_images", 0)))
            ]
            events.append({"type": f"{kind}.completed", "usage": _usage(made), **shown})
        text = "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events)
        return Reply(body=text.encode(), content_type="text/event-stream")

    def _deliver(self, name: str) -> Reply:
        job_id, _, number = name.partition("-")
        made = self._made.get(job_id)
        if made is None:
            return Reply.of({"detail": "Image not found"}, 404)
        data, form = made.picture(int(number or 0), self.side_px, self._fixed)
        return Reply(body=data, content_type=MEDIA_TYPES[form])


def _usage(made: Made) -> dict[str, Any]:
    text, images = len(str(made.fields["prompt"])), 300 * len(made.asked.images)
    output = 1000 * made.count + 100 * int(made.fields.get("partial_images", 0))
    return {
        "input_tokens": text + images,
        "input_tokens_details": {"text_tokens": text, "image_tokens": images},
        "output_tokens": output,
        "total_tokens": text + images + output,
    }

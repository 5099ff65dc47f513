"""A local Replicate: jobs that queue, run, fail, expire and are paid for, on 127.0.0.1.

Stage: tests, and trials without a key. In: the requests of a client of the Replicate HTTP API. Out:
what the real service answers, with real (small) images on a second port, and a ledger of accepted
jobs, so that a test can assert that no task was paid for twice. It connects to nothing, and fetches
no input image.

Sources: Replicate HTTP API reference, https://replicate.com/docs/reference/http, read 2026-11-22,
and the official Python client 1.0.7. Where neither says how the service behaves, the comment says
"assumed".
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import math
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, Literal
from urllib.parse import parse_qs, urlencode, urlsplit

from tornado.httputil import HTTPFile, parse_body_arguments

from nbimg.testing import replicate_shelf
from nbimg.testing.pictures import (
    MEDIA_TYPES,
    data_uri,
    data_uri_size_bytes,
    render_picture,
    size_px,
)
from nbimg.testing.rates import CREATE_LIMIT, LOW_CREDIT_LIMIT, OTHER_LIMIT, Bucket, RateLimit
from nbimg.testing.replicate_jobs import TERMINAL, Job, Outcome, Status
from nbimg.testing.replicate_models import BUILTIN_MODELS, ReplicateModel
from nbimg.testing.server import Fault, LocalServer, Recorded, Reply

__all__ = ["FAKE_TOKEN", "ReplicateServer", "Upload"]

FAKE_TOKEN = "fake-replicate-token"
"""The only key that the server accepts unless told otherwise; no real key looks like this."""

Hold = Literal["finish", "starting", "processing", "processing_with_output"]
Hint = Literal["text", "body", "header"]


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that a client sent to ``/v1/files``."""

    id: str
    name: str
    content_type: str
    data: bytes
    metadata: dict[str, Any]
    created_s: float


class _RefusedError(Exception):
    """Ends the handling of a call with an error reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def _problem(status: int, title: str, detail: str, **more: object) -> Reply:
    return Reply.of({"title": title, "detail": detail, "status": status, **more}, status)


_NOT_FOUND = _problem(404, "Not found", "The requested resource could not be found.")
# The titles of 401 and 402 and the wording of 422 are assumed; statuses and keys are documented.
_NO_CREDIT = _problem(
    402,
    "Insufficient credit",
    "You have insufficient credit to run this model. Go to"
    " https://replicate.com/account/billing#billing to purchase credit.",
)
_BAD_TOKEN = _problem(401, "Unauthenticated", "You did not pass a valid authentication token")
_PREFER = re.compile(r"wait(?:=([1-9]|[1-5][0-9]|60))?")
_DURATION = re.compile(r"(?=.)(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")
_CREATE_KEYS = frozenset({"input", "version", "webhook", "webhook_events_filter", "stream"})
_MIN_CANCEL_AFTER_S = 5
_EXTENSIONS = (".bmp", ".png", ".jpg", ".jpeg", ".webp", ".gif", ".tiff")


def _invalid_input(problems: Sequence[Mapping[str, str]]) -> Reply:
    detail = "".join(f"- {p['field']}: {p['description']}\n" for p in problems)
    return _problem(422, "Input validation failed", detail, invalid_fields=list(problems))


def _invalid_version(detail: str) -> Reply:
    return _problem(422, "Invalid version or not permitted", detail)


class ReplicateServer(LocalServer):
    """The API on ``base_url`` and its file host on ``files_url``, another port.

    All knobs are attributes, too, and may be turned while it runs. Seconds are those of the
    server's clock, which runs ``speed`` times as fast as the wall's and can be put forward with
    ``advance``.

    Args:
        token: The key that is accepted.
        models: What there is to run.
        deployments: ``owner/name`` of a deployment to ``owner/name`` of a model.
        outcomes: How jobs will go, see ``Outcome``; more with ``expect``.
        credit: ``ok``; ``low``: 6 creates a minute, one at once; ``none``: creates answer 402.
        create_limit: Limit on creates; None: no limit.
        other_limit: Limit on all other calls to the API; None: no limit.
        hints: Where a 429 says when to come back: ``text`` (documented), ``body`` (a field
            ``retry_after``), ``header`` (``Retry-After``). Low credit always says so in text and
            body as well.
        starting_s: How long jobs queue.
        running_s: How long jobs run.
        hold: What ``Prefer: wait`` does: ``finish`` holds until the job is over or the time is up;
            the others answer at once with a job in that state, ``processing_with_output`` with the
            output of a job that claims to run. The official client's source tells of all of them.
        retention_s: How long after its end a job keeps its data and files. Documented: an hour.
        upload_retention_s: How long uploads are kept; assumed: a day.
        data_uri_limit_bytes: How large a file in a data URI may be. Documented: 256 kB.
        oversize_status: What a larger one answers: 400 (seen) or 413.
        unknown_inputs: What happens to inputs that a model does not have; undocumented.
        official_versions: How the list of versions of an official model looks; both happen.
        searchable: Whether there is `GET /v1/search`, which is in beta.
        page_size: How many jobs a page of the list has.
        image_side_px: Long side of pictures whose size in pixels was not asked for.
        faults: See ``Fault``. Variants for ``error``: ``version`` or ``input`` with 422,
            ``low_credit`` with 429.
        latency_s: See ``LocalServer``.
        speed: See ``LocalServer``.
    """

    def __init__(
        self,
        *,
        token: str = FAKE_TOKEN,
        models: Iterable[ReplicateModel] = BUILTIN_MODELS,
        deployments: Mapping[str, str] | None = None,
        outcomes: Iterable[Outcome] = (),
        credit: Literal["ok", "low", "none"] = "ok",
        create_limit: RateLimit | None = CREATE_LIMIT,
        other_limit: RateLimit | None = OTHER_LIMIT,
        hints: Iterable[Hint] = ("text",),
        starting_s: float = 0.002,
        running_s: float = 0.005,
        hold: Hold = "finish",
        retention_s: float = 3600.0,
        upload_retention_s: float = 86400.0,
        data_uri_limit_bytes: int = 256_000,
        oversize_status: Literal[400, 413] = 400,
        unknown_inputs: Literal["ignore", "reject"] = "ignore",
        official_versions: Literal["empty", "missing"] = "missing",
        searchable: bool = True,
        page_size: int = 100,
        image_side_px: int = 64,
        faults: Iterable[Fault] = (),
        latency_s: float | Callable[[Recorded], float] = 0.0,
        speed: float = 1.0,
    ) -> None:
        """Set it up, see the class; nothing is bound before ``start``."""
        super().__init__(hosts=("api", "files"), faults=faults, latency_s=latency_s, speed=speed)
        self.token = token
        self.models = {model.name: model for model in models}
        self.deployments = dict(deployments or {})
        self.credit = credit
        self.create_limit = create_limit
        self.other_limit = other_limit
        self.hints = frozenset(hints)
        self.starting_s = starting_s
        self.running_s = running_s
        self.hold: Hold = hold
        self.retention_s = retention_s
        self.upload_retention_s = upload_retention_s
        self.data_uri_limit_bytes = data_uri_limit_bytes
        self.oversize_status = oversize_status
        self.unknown_inputs = unknown_inputs
        self.official_versions = official_versions
        self.searchable = searchable
        self.page_size = page_size
        self.image_side_px = image_side_px
        self._outcomes = list(outcomes)
        self._jobs: dict[str, Job] = {}
        self._uploads: dict[str, Upload] = {}
        self._buckets: dict[str, Bucket] = {}

    # What a test asks.

    @property
    def files_url(self) -> str:
        """``http://127.0.0.1:<port>`` of the file host, the local ``replicate.delivery``."""
        return self.url("files")

    @property
    def jobs(self) -> list[Job]:
        """Every job that was accepted, oldest first, whether or not its client learned of it."""
        return list(self._jobs.values())

    @property
    def billed_jobs(self) -> list[Job]:
        """The jobs that cost money so far, oldest first."""
        return [job for job in self.jobs if job.billed]

    def duplicates(self) -> list[list[Job]]:
        """Return the groups of two or more billed jobs with the same model and input."""
        groups: dict[str, list[Job]] = {}
        for job in self.billed_jobs:
            groups.setdefault(job.fingerprint, []).append(job)
        return [group for group in groups.values() if len(group) > 1]

    @property
    def uploads(self) -> list[Upload]:
        """The files that were sent and not deleted, oldest first."""
        return list(self._uploads.values())

    @property
    def leaks(self) -> list[Recorded]:
        """Requests that carried an Authorization header to the file host; should be none."""
        return [c for c in self.requests if c.host == "files" and "Authorization" in c.headers]

    def expect(self, *outcomes: Outcome) -> None:
        """Add outcomes of jobs to come, behind those that are left."""
        with self._lock:
            self._outcomes.extend(outcomes)

    # Routes.

    def answer(self, call: Recorded) -> Reply | Awaitable[Reply]:
        """Answer a call to the API or to the file host."""
        path = tuple(call.path.strip("/").split("/"))
        if call.host == "files":
            return self._deliver(call.method, path)
        try:
            if call.headers.get("Authorization") != f"Bearer {self.token}":
                return _BAD_TOKEN
            creates = call.method == "POST" and path[-1] == "predictions"
            self._throttle(creates)
            return self._create(call, path) if creates else self._look(call, path)
        except _RefusedError as refused:
            return refused.reply

    def _look(self, call: Recorded, path: tuple[str, ...]) -> Reply:
        match (call.method, *path):
            case ("GET", "v1", "predictions", job_id):
                return Reply(body=self._render(self._job(job_id)))
            case ("POST", "v1", "predictions", job_id, "cancel"):
                return self._cancel(self._job(job_id))
            case ("GET", "v1", "predictions"):
                return self._list(call.query)
            case ("GET", "v1", "models" | "deployments" | "search", *_) | ("QUERY", *_):
                return replicate_shelf.answer(self, call, path) or _NOT_FOUND
            case ("POST", "v1", "files"):
                return self._upload(call)
            case ("GET", "v1", "files"):
                found = [self._describe_upload(upload) for upload in self.uploads]
                return Reply.of({"next": None, "previous": None, "results": found})
            case ("GET", "v1", "files", upload_id):
                return Reply.of(self._describe_upload(self._find_upload(upload_id)))
            case ("DELETE", "v1", "files", upload_id):
                del self._uploads[self._find_upload(upload_id).id]
                return Reply(204)
            case ("GET", "v1", "account"):
                who = {"type": "user", "username": "example", "name": "Example", "github_url": None}
                return Reply.of(who)
        return _NOT_FOUND

    def error_reply(self, fault: Fault) -> Reply:
        """Make the body that Replicate sends with ``fault.status``."""
        match (fault.status, fault.variant):
            case (401, _):
                return _BAD_TOKEN
            case (402, _):
                return _NO_CREDIT
            case (404, _):
                return _NOT_FOUND
            case (422, "version"):
                return _invalid_version("The specified version does not exist.")
            case (422, _):
                text = "Invalid type. Expected: integer, given: string"
                return _invalid_input(
                    [{"type": "invalid_type", "field": "input.seed", "description": text}]
                )
            case (429, variant):
                return self._throttled(fault.retry_after_s or 1, variant == "low_credit")
        return super().error_reply(fault)

    # Limits.

    def _throttle(self, creates: bool) -> None:
        low = creates and self.credit == "low"
        limit = self.create_limit if creates else self.other_limit
        limit = LOW_CREDIT_LIMIT if low else limit
        if limit is None:
            return
        now_s = self.now_s()
        bucket = self._buckets.get("create" if creates else "other")
        if bucket is None or bucket.limit != limit:
            bucket = self._buckets["create" if creates else "other"] = Bucket(limit, now_s)
        wait_s = bucket.take(now_s)
        if wait_s:
            raise _RefusedError(self._throttled(math.ceil(wait_s), low))

    def _throttled(self, wait_s: int, low: bool) -> Reply:
        reason = (
            "Your rate limit for creating predictions is reduced to 6 requests per minute with a"
            " burst of 1 requests while you have less than $5.0 in credit."
        )
        resets = f" Your rate limit resets in ~{wait_s}s." if "text" in self.hints or low else ""
        body: dict[str, object] = {
            "detail": f"Request was throttled.{' ' + reason if low else ''}{resets}"
        }
        if "body" in self.hints or low:
            body |= {"status": 429, "retry_after": wait_s}
        headers = {"Retry-After": str(wait_s)} if "header" in self.hints else {}
        return Reply.of(body, 429, headers)

    # Creating.

    def _create(self, call: Recorded, path: tuple[str, ...]) -> Reply | Awaitable[Reply]:
        hold_s = self._hold_s(call.headers.get("Prefer"))
        cancel_after_s = self._cancel_after_s(call.headers.get("Cancel-After"))
        body = self._read_create(call)
        model = self._find_runnable(path, body)
        if self.credit == "none":
            return _NO_CREDIT
        inputs = body["input"]
        problems = model.find_problems(inputs, closed=self.unknown_inputs == "reject")
        if problems:
            return _invalid_input(problems)
        job = self._accept(model, inputs)
        if cancel_after_s is not None:
            job.deadline_s = job.created_s + cancel_after_s
        if hold_s is None:
            return Reply(201, self._render(job, "starting"))
        if self.hold == "finish":
            return self._held(job, hold_s)
        shown: Status = "starting" if self.hold == "starting" else "processing"
        return Reply(202, self._render(job, shown, self.hold == "processing_with_output"))

    async def _held(self, job: Job, hold_s: float) -> Reply:
        until_s = job.created_s + hold_s
        while not job.finished and self.now_s() < until_s:
            left_s = min(job.completed_s, until_s) - self.now_s()
            # In short naps, because a cancel or advance() may end it before.
            await asyncio.sleep(min(max(left_s / self.speed, 0.0), 0.02))
        return Reply(201 if job.finished else 202, self._render(job))

    def _read_create(self, call: Recorded) -> dict[str, Any]:
        try:
            body = call.json()
        except ValueError as error:
            raise _RefusedError(self._unreadable(400)) from error
        if not isinstance(body, dict) or not isinstance(body.get("input"), dict):
            text = "input is required"
            problem = {"type": "required", "field": "(root)", "description": text}
            raise _RefusedError(_invalid_input([problem]))
        extra = sorted(body.keys() - _CREATE_KEYS)
        if extra:
            text = f"Additional property {extra[0]} is not allowed"
            kind = "additional_property_not_allowed"
            problem = {"type": kind, "field": "(root)", "description": text}
            raise _RefusedError(_invalid_input([problem]))
        for value in _strings(body["input"]):
            if data_uri_size_bytes(value) > self.data_uri_limit_bytes:
                raise _RefusedError(self._unreadable(self.oversize_status))
        return body

    @staticmethod
    def _unreadable(status: int) -> Reply:
        # Word for word what an oversize data URI gives: replicate-go issue 24.
        detail = "Failed to parse request body as JSON: EOF"
        if status == 413:
            detail = "Request entity too large"
        return Reply.of({"detail": detail, "status": status}, status)

    def _find_runnable(self, path: tuple[str, ...], body: Mapping[str, Any]) -> ReplicateModel:
        match path:
            case ("v1", "models", owner, name, "predictions"):
                model = self._model(f"{owner}/{name}")
                if not model.official:
                    raise _RefusedError(_NOT_FOUND)
                return model
            case ("v1", "deployments", owner, name, "predictions"):
                return self._model(self.deployments.get(f"{owner}/{name}", ""))
            case ("v1", "predictions"):
                return self._find_version(body.get("version"))
        raise _RefusedError(_NOT_FOUND)

    def _find_version(self, asked: object) -> ReplicateModel:
        if not isinstance(asked, str):
            text = "version is required"
            problem = {"type": "required", "field": "(root)", "description": text}
            raise _RefusedError(_invalid_input([problem]))
        name, _, version = asked.rpartition(":")
        for model in self.models.values():
            if model.official and asked == model.name:
                return model
            if not model.official and version == model.version and name in ("", model.name):
                return model
        raise _RefusedError(
            _invalid_version(
                "The specified version does not exist (or perhaps you don't have permission to use"
                " it?)"
            )
        )

    @staticmethod
    def _hold_s(prefer: str | None) -> float | None:
        if prefer is None:
            return None
        asked = _PREFER.fullmatch(prefer)
        if asked is None:  # assumed: 400; documented is only the pattern
            text = "Prefer must be wait or wait=n with n from 1 to 60"
            raise _RefusedError(_problem(400, "Invalid Prefer header", text))
        return float(asked[1] or 60)

    @staticmethod
    def _cancel_after_s(asked: str | None) -> float | None:
        if asked is None:
            return None
        parts = _DURATION.fullmatch(asked.strip())
        hours, minutes, seconds = (int(n or 0) for n in parts.groups()) if parts else (0, 0, 0)
        total_s = hours * 3600 + minutes * 60 + seconds
        if total_s < _MIN_CANCEL_AFTER_S:  # assumed: the minimum, and 400
            text = "Cancel-After must be a duration such as 30s or 1h30m, at least 5 seconds"
            raise _RefusedError(_problem(400, "Invalid Cancel-After header", text))
        return float(total_s)

    def _accept(self, model: ReplicateModel, inputs: dict[str, Any]) -> Job:
        now_s = self.now_s()
        outcome = self._take_outcome(model, inputs)
        drawn = inputs.get("seed")
        job = Job(
            id=secrets.token_hex(13),
            model=model.name,
            version="hidden" if model.hides_version else model.version,
            input=inputs,
            created_at=self.utc(now_s),
            created_s=now_s,
            starting_s=self.starting_s if outcome.starting_s is None else outcome.starting_s,
            running_s=self.running_s if outcome.running_s is None else outcome.running_s,
            outcome=outcome,
            seed=drawn if isinstance(drawn, int) else secrets.randbelow(2**31),
            clock=self.now_s,
            shape=outcome.output or model.output,
            count=inputs.get("num_outputs", 1),
        )
        self._jobs[job.id] = job
        return job

    def _take_outcome(self, model: ReplicateModel, inputs: Mapping[str, Any]) -> Outcome:
        trouble = self._image_trouble(model, inputs)
        if trouble is not None:
            return Outcome(error=trouble)
        with self._lock:
            for place, outcome in enumerate(self._outcomes):
                if outcome.matches(model.name, inputs):
                    if outcome.times is not None:
                        left = replace(outcome, times=outcome.times - 1)
                        self._outcomes[place : place + 1] = [left] if left.times else []
                    return outcome
        return Outcome()

    def _image_trouble(self, model: ReplicateModel, inputs: Mapping[str, Any]) -> str | None:
        """Return why the job cannot use its images; the real service finds out while running."""
        for uri in _strings([inputs.get(name) for name in model.image_inputs]):
            if uri.startswith("data:"):
                if not _decodes(uri):
                    return "cannot identify image file"
                continue
            path = urlsplit(uri).path
            if uri.startswith(f"{self.base_url}/v1/files/"):
                upload = self._uploads.get(path.rpartition("/")[2])
                if upload is None or self._expired(upload):
                    return f"404 Client Error: Not Found for url: {uri}"
            extension = PurePosixPath(path).suffix
            if model.rejects_extensionless and extension.lower() not in _EXTENSIONS:
                listed = ", ".join(_EXTENSIONS)
                return f"Invalid image format '{extension}'. Supported formats: {listed}"
        return None

    # Looking.

    def _model(self, name: str) -> ReplicateModel:
        if name not in self.models:
            raise _RefusedError(_NOT_FOUND)
        return self.models[name]

    def _job(self, job_id: str) -> Job:
        if job_id not in self._jobs:
            raise _RefusedError(_NOT_FOUND)
        return self._jobs[job_id]

    def _cancel(self, job: Job) -> Reply:
        if not job.finished:
            job.canceled_s = self.now_s()
        return Reply(body=self._render(job))

    def _list(self, query: str) -> Reply:
        """Newest first. A cursor names a place in the order of arrival, so pages do not shift."""
        jobs = self.jobs
        end = len(jobs)
        cursor = parse_qs(query).get("cursor")
        if cursor:
            try:
                end = int(base64.urlsafe_b64decode(cursor[0]))
            except (ValueError, binascii.Error):
                return _problem(400, "Invalid cursor", "The cursor is not valid.")
        start = max(0, end - self.page_size)
        after = min(len(jobs), end + self.page_size)

        def link(place: int) -> str:
            token = base64.urlsafe_b64encode(str(place).encode())
            return f"{self.base_url}/v1/predictions?{urlencode({'cursor': token})}"

        page = {
            "next": link(start) if start else None,
            "previous": link(after) if end < len(jobs) else None,
            "results": [json.loads(self._render(job)) for job in reversed(jobs[start:end])],
        }
        return Reply.of(page)

    # Uploads.

    def _upload(self, call: Recorded) -> Reply:
        fields: dict[str, list[bytes]] = {}
        files: dict[str, list[HTTPFile]] = {}
        parse_body_arguments(call.headers.get("Content-Type", ""), call.body, fields, files)
        if "content" not in files:
            return _problem(400, "Bad request", "Missing content")
        sent = files["content"][0]
        upload = Upload(
            id=secrets.token_hex(20),
            name=sent.filename,
            content_type=sent.content_type,
            data=sent.body,
            metadata=json.loads(fields.get("metadata", [b"{}"])[0]),
            created_s=self.now_s(),
        )
        self._uploads[upload.id] = upload
        return Reply.of(self._describe_upload(upload), 201)

    def _find_upload(self, upload_id: str) -> Upload:
        upload = self._uploads.get(upload_id)
        if upload is None or self._expired(upload):
            raise _RefusedError(_NOT_FOUND)
        return upload

    def _expired(self, upload: Upload) -> bool:
        return self.now_s() >= upload.created_s + self.upload_retention_s

    def _describe_upload(self, upload: Upload) -> dict[str, Any]:
        digest = hashlib.sha256(upload.data).hexdigest()
        return {
            "id": upload.id,
            "name": upload.name,
            "content_type": upload.content_type,
            "size": len(upload.data),
            "etag": digest[:32],
            "checksums": {"sha256": digest},
            "metadata": upload.metadata,
            "created_at": self.utc(upload.created_s),
            "expires_at": self.utc(upload.created_s + self.upload_retention_s),
            "urls": {"get": f"{self.base_url}/v1/files/{upload.id}"},
        }

    # A job as JSON.

    def utc(self, at_s: float) -> str:
        """Return a time of the server's clock as the API writes it."""
        when = datetime.fromtimestamp(self._born_utc + at_s, UTC)
        return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def _purged(self, job: Job) -> bool:
        return job.finished and self.now_s() >= job.completed_s + self.retention_s

    def _render(self, job: Job, shown: Status | None = None, with_output: bool = False) -> bytes:
        """Return the job as the API shows it.

        Args:
            job: The job.
            shown: The state to claim; None: its own.
            with_output: Whether to give the output although the job does not claim success.
        """
        purged = self._purged(job)
        if shown is None and not purged and job.finished_body is not None:
            return job.finished_body
        status = shown or job.status
        over = status in TERMINAL
        started = status != "starting" and job.completed_s >= job.started_s
        url = f"{self.base_url}/v1/predictions/{job.id}"
        web = f"https://replicate.com/p/{job.id}"
        value: dict[str, Any] = {
            "id": job.id,
            "model": job.model,
            "version": job.version,
            "status": status,
            "input": {} if purged else job.input,
            "output": None,
            "logs": "" if purged or not started else self._logs(job, over),
            "error": job.outcome.error if status == "failed" else None,
            "metrics": {},
            "created_at": job.created_at,
            "started_at": self.utc(job.started_s) if started else None,
            "completed_at": self.utc(job.completed_s) if over else None,
            "data_removed": purged,
            "source": "api",
            "urls": {"get": url, "cancel": f"{url}/cancel", "web": web},
        }
        if job.deadline_s is not None:
            value["deadline"] = self.utc(job.deadline_s)
        if over:
            running_s = max(0.0, job.completed_s - job.started_s)
            total_s = job.completed_s - job.created_s
            value["metrics"] = {"predict_time": running_s, "total_time": total_s}
        if (status == "succeeded" or with_output) and not purged:
            value["output"] = self._output(job)
        body = json.dumps(value).encode()
        if over and shown is None and not purged:
            job.finished_body = body  # polled again and listed often, and never different
        return body

    def _logs(self, job: Job, over: bool) -> str:
        model = self.models[job.model]
        lines = [f"Using seed: {job.seed}"] if "seed" in model.inputs else []
        schema = model.inputs.get("num_inference_steps")
        if schema is not None:
            total = int(job.input.get("num_inference_steps") or schema["default"])
            part = 1.0
            if job.running_s and not (over and job.stopped_s is None):
                passed_s = min(self.now_s(), job.completed_s) - job.started_s
                part = min(1.0, max(0.0, passed_s / job.running_s))
            done = int(total * part)
            bar = "█" * int(part * 10)
            lines.append(f"{100 * done // total:3d}%|{bar:10}| {done}/{total}")
        return "\n".join(lines) + "\n" if lines else ""

    def _output(self, job: Job) -> object:
        if job.shape == "data_uri":
            data, file_format = self._picture(job, 0)
            return data_uri(data, MEDIA_TYPES[file_format])
        stem = f"{self.files_url}/xezq/{job.id}/out"
        file_format = _file_format(job, self.models[job.model])
        match job.shape:
            case "list":
                return [f"{stem}-{number}.{file_format}" for number in range(job.count)]
            case "str":
                return f"{stem}-0.{file_format}"
            case "dict":
                return {"images": [f"{stem}-0.{file_format}"], "seed": job.seed}
            case "empty":
                return []
        return None

    # The file host.

    def _picture(self, job: Job, number: int) -> tuple[bytes, str]:
        """Return the encoded picture and its format; the same input and seed give the same one."""
        model = self.models[job.model]
        file_format = _file_format(job, model)
        defaults = {n: s["default"] for n, s in model.inputs.items() if "default" in s}
        inputs = {**defaults, **job.input, "seed": job.seed}
        inputs.pop("output_format", None)
        inputs.pop("num_outputs", None)  # the first of four is the one of one
        key = json.dumps([job.model, inputs, number], sort_keys=True)
        return render_picture(key, file_format, *size_px(inputs, self.image_side_px)), file_format

    def _deliver(self, method: str, path: tuple[str, ...]) -> Reply:
        """Serve ``/xezq/<job>/out-<number>.<extension>``."""
        job = self._jobs.get(path[1]) if len(path) == 3 and path[0] == "xezq" else None
        name = re.fullmatch(r"out-(\d)\.(\w+)", path[-1])
        if job is None or name is None or method not in {"GET", "HEAD"} or self._purged(job):
            return Reply(404, b"<html><body>Not Found</body></html>", "text/html")
        number = int(name[1])
        if number >= job.count or name[2] != _file_format(job, self.models[job.model]):
            return Reply(404, b"<html><body>Not Found</body></html>", "text/html")
        data, file_format = self._picture(job, number)
        media_type = MEDIA_TYPES[file_format]
        match job.outcome.delivery:
            case "truncated":
                return Reply(body=data[: len(data) // 2], content_type=media_type)
            case "empty":
                return Reply(content_type=media_type)
            case "wrong_type":
                return Reply(body=data, content_type="text/plain")
            case "html":
                page = b"<html><body>Sign in to continue</body></html>"
                return Reply(body=page, content_type="text/html")
            case "missing":
                return Reply(404, b"<html><body>Not Found</body></html>", "text/html")
        return Reply(body=data, content_type=media_type)


def _file_format(job: Job, model: ReplicateModel) -> str:
    default = model.inputs.get("output_format", {}).get("default", "png")
    return str(job.input.get("output_format", default))


def _strings(value: object) -> Iterable[str]:
    """Yield every text inside ``value``, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def _decodes(uri: str) -> bool:
    head, comma, payload = uri.partition(",")
    if not comma or not payload:
        return False
    try:
        return not head.endswith(";base64") or bool(base64.b64decode(payload, validate=True))
    except binascii.Error:
        return False

"""A local Hunyuan: all of Tencent's APIs for the model, with one ledger of jobs, on 127.0.0.1.

Stage: tests, and trials without a key. In: the requests of a client of the signed API (TC3-HMAC-SHA256),
of one of the two job gateways, or of TokenHub. Out: what the real service answers, with real images on a
second port, and a ledger of what was accepted, so that a test can assert that nothing was paid for
twice. It connects to nothing, and fetches no input image.

Sources: the official client ``tencentcloud-sdk-python-aiart`` 3.1.82, whose requests it serves,
https://cloud.tencent.com/document/product/1823/130080 and 1823/135745 (TokenHub), read 2026-11-22. Where
they do not say how the service behaves, the comment says "assumed".
"""

from __future__ import annotations

import asyncio
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Literal

from nbimg.testing import tencent_cloud
from nbimg.testing.hunyuan_jobs import MESSAGES, HunyuanJob, HunyuanOutcome
from nbimg.testing.hunyuan_orders import OrderError, read_order
from nbimg.testing.rates import Bucket, RateLimit
from nbimg.testing.server import Fault, LocalServer, Recorded, Reply

__all__ = ["FAKE_API_KEY", "FAKE_SECRET_ID", "FAKE_SECRET_KEY", "HunyuanServer"]

FAKE_SECRET_ID = "AKIDfakehunyuansecretid"
FAKE_SECRET_KEY = "fakehunyuansecretkey"
FAKE_API_KEY = "sk-fake-hunyuan-key"
"""The only credentials that the server accepts unless told otherwise; no real ones look like these."""

ACTION_LIMIT = RateLimit(1200, 20)
"""Documented: 20 requests a second for each action."""

_VERSION = "2022-12-29"
_STATUS_TEXTS = {"1": "排队中", "2": "处理中", "4": "处理失败", "5": "处理完成"}
_WORDS = {"1": "pending", "2": "in_progress", "4": "failed", "5": "completed"}
_SUBMITS = {"/v1/aiart/submit": "jobs", "/v1/api/image/submit": "tokenhub-jobs"}
_QUERIES = {"/v1/aiart/query": "jobs", "/v1/api/image/query": "tokenhub-jobs"}
_BLOCKING = "/v1/wand/hunyuan-image/v3-generation"

#: TokenHub's code → status, type, text.
_GATEWAY: Mapping[str, tuple[int, str, str]] = {
    "400001": (400, "invalid_request_error", "invalid request"),
    "400002": (400, "invalid_request_error", "invalid parameter"),
    "400004": (400, "invalid_request_error", "model not found"),
    "401002": (401, "authentication_error", "invalid api key"),
    "401007": (402, "permission_error", "quota exceeded"),
    "401008": (402, "permission_error", "FREE_QUOTA_EXHAUSTED"),
    "403001": (403, "permission_error", "no permission"),
    "403002": (403, "permission_error", "model not allowed"),
    "403004": (402, "permission_error", "billing is not activated"),
    "403005": (403, "permission_error", "ip not allowed"),
    "429001": (429, "rate_limit_error", "rate limit exceeded on dimension: rpm"),
    "451001": (451, "content_filter_error", "content filtered"),
    "502001": (502, "upstream_error", "upstream error"),
}
_BY_STATUS = {400: "400001", 401: "401002", 402: "401008", 403: "403001", 404: "400004"} | {
    422: "400002",
    429: "429001",
    451: "451001",
    502: "502001",
}


class HunyuanServer(LocalServer):
    """The APIs on ``base_url``, its file host on ``files_url``, another port.

    All knobs are attributes, too, and may be turned while it runs. Seconds are those of the server's
    clock, which runs ``speed`` times as fast as the wall's and can be put forward with ``advance``.

    Args:
        secret_id: The one that is accepted.
        secret_key: Its key.
        api_key: The key that the gateways and TokenHub accept.
        outcomes: How jobs will go, see ``HunyuanOutcome``; more with ``expect``.
        slots: How many jobs run at once. Documented: 1.
        over_limit: What becomes of an order beyond that: ``queue``, or ``refuse``
            (``RequestLimitExceeded.JobNumExceed``). The documentation can be read either way.
        action_limit: Limit on the requests of each action; None: no limit.
        rpm: Limit on TokenHub's call, in requests a minute; None: no limit.
        balance: ``none``: orders answer that the account is in arrears.
        offline: Actions that were taken off.
        waiting_s: How long jobs queue at least.
        running_s: How long jobs run.
        retention_s: How long the image of a job is there. Documented: an hour.
        tokenhub_retention_s: The same of TokenHub's. Documented: twelve hours.
        forget_s: After how long a job is not known any more; assumed: a day.
        ahead_s: How far the server's clock is ahead of this machine's, for signatures.
        shrink: By how much the pictures are smaller than what was ordered, each side.
        faults: See ``Fault``. The variant of ``error`` is the code, which for the path of an action comes
            with status 200; without a variant the status stands for its usual code.
        latency_s: See ``LocalServer``.
        speed: See ``LocalServer``.
    """

    def __init__(
        self,
        *,
        secret_id: str = FAKE_SECRET_ID,
        secret_key: str = FAKE_SECRET_KEY,
        api_key: str = FAKE_API_KEY,
        outcomes: Iterable[HunyuanOutcome] = (),
        slots: int = 1,
        over_limit: Literal["queue", "refuse"] = "queue",
        action_limit: RateLimit | None = ACTION_LIMIT,
        rpm: int | None = None,
        balance: Literal["ok", "none"] = "ok",
        offline: Iterable[str] = (),
        waiting_s: float = 0.002,
        running_s: float = 0.005,
        retention_s: float = 3600.0,
        tokenhub_retention_s: float = 43_200.0,
        forget_s: float = 86_400.0,
        ahead_s: float = 0.0,
        shrink: int = 1,
        faults: Iterable[Fault] = (),
        latency_s: float | Callable[[Recorded], float] = 0.0,
        speed: float = 1.0,
    ) -> None:
        """Set it up, see the class; nothing is bound before ``start``."""
        super().__init__(hosts=("api", "files"), faults=faults, latency_s=latency_s, speed=speed)
        self.secret_id = secret_id
        self.secret_key = secret_key
        self.api_key = api_key
        self.slots = slots
        self.over_limit = over_limit
        self.action_limit = action_limit
        self.rpm = rpm
        self.balance = balance
        self.offline = frozenset(offline)
        self.waiting_s = waiting_s
        self.running_s = running_s
        self.retention_s = retention_s
        self.tokenhub_retention_s = tokenhub_retention_s
        self.forget_s = forget_s
        self.ahead_s = ahead_s
        self.shrink = shrink
        self._outcomes = list(outcomes)
        self._jobs: dict[str, HunyuanJob] = {}
        self._buckets: dict[str, Bucket] = {}

    # What a test asks.

    @property
    def files_url(self) -> str:
        """``http://127.0.0.1:<port>`` of the file host."""
        return self.url("files")

    @property
    def jobs(self) -> list[HunyuanJob]:
        """Every order that was accepted, oldest first, whether or not its client learned of it."""
        return list(self._jobs.values())

    @property
    def billed_jobs(self) -> list[HunyuanJob]:
        """The jobs that cost money, oldest first."""
        return [job for job in self.jobs if job.billed]

    def duplicates(self) -> list[list[HunyuanJob]]:
        """Return the groups of two or more billed jobs that were ordered with the same words."""
        groups: dict[str, list[HunyuanJob]] = {}
        for job in self.billed_jobs:
            groups.setdefault(job.fingerprint, []).append(job)
        return [group for group in groups.values() if len(group) > 1]

    @property
    def leaks(self) -> list[Recorded]:
        """Requests that carried a credential to the file host; should be none."""
        return [c for c in self.requests if c.host == "files" and "Authorization" in c.headers]

    def expect(self, *outcomes: HunyuanOutcome) -> None:
        """Add outcomes of jobs to come, behind those that are left."""
        with self._lock:
            self._outcomes.extend(outcomes)

    # Routes.

    def action(self, call: Recorded) -> str:
        """Return the action of a call of the signed API, whose calls all go to one path."""
        return call.headers.get("X-TC-Action", "") if call.path == "/" else ""

    def answer(self, call: Recorded) -> Reply | Awaitable[Reply]:
        """Answer a call to one of the APIs or to the file host."""
        if call.host == "files":
            return self._deliver(call)
        return self._signed(call) if call.path == "/" else self._gateway(call)

    def error_reply(self, fault: Fault) -> Reply:
        """Make the body of an error, by the path that the fault is for."""
        gateway = fault.path.startswith(("/v1", "*/"))
        if fault.path.endswith((".jpg", "*.jpg")) or (fault.status >= 500 and not fault.variant):
            return super().error_reply(fault)
        if not gateway:
            code = fault.variant or "InternalError"
            return tencent_cloud.failure(code, MESSAGES.get(code, code))
        code = fault.variant or _BY_STATUS.get(fault.status, "400001")
        return _gateway_error(code)

    # The signed API.

    def _signed(self, call: Recorded) -> Reply:
        known = {self.secret_id: self.secret_key}
        wrong = tencent_cloud.find_fault(call, known, "aiart", self.ahead_s)
        if wrong is None:
            wrong = self._wrong_action(call)
        if wrong is not None:
            return tencent_cloud.failure(wrong, MESSAGES.get(wrong, wrong))
        try:
            body = call.json()
            if call.action.startswith("Submit"):
                return tencent_cloud.envelope(JobId=self._order("signed", body).id)
            return tencent_cloud.envelope(**self._stands(self._job(body.get("JobId"))))
        except OrderError as refused:
            return tencent_cloud.failure(refused.code, str(refused))

    def _wrong_action(self, call: Recorded) -> str | None:
        if call.action in self.offline:
            return "ActionOffline"
        if call.action not in {"SubmitTextToImageJob", "QueryTextToImageJob"}:
            return "InvalidAction"
        if call.headers.get("X-TC-Version") != _VERSION:
            return "NoSuchVersion"
        if not call.headers.get("X-TC-Region"):
            return "MissingParameter"
        return "RequestLimitExceeded" if self._throttled(call.action) else None

    def _stands(self, job: HunyuanJob) -> dict[str, Any]:
        """Return how a job stands: states are texts, and what is not there is empty."""
        code, outcome = job.code, job.outcome
        failed, done = code == "4", code == "5"
        there = done and outcome.detail is None
        return {
            "JobStatusCode": code,
            "JobStatusMsg": _STATUS_TEXTS[code],
            "JobErrorCode": outcome.code if failed else "",
            "JobErrorMsg": outcome.text if failed else "",
            "ResultImage": [self._address(job)] if there else [],
            "ResultDetails": [outcome.detail or "Success"] if done else [],
            "RevisedPrompt": [self._revised(job)] if done else [],
        }

    # The gateways.

    def _gateway(self, call: Recorded) -> Reply | Awaitable[Reply]:
        key = call.headers.get("Authorization", "").removeprefix("Bearer ")
        if key != self.api_key:
            return _gateway_error("401002")
        if call.method != "POST" or call.path not in {*_SUBMITS, *_QUERIES, _BLOCKING}:
            return _gateway_error("400004", status=404)
        try:
            body = call.json()
            if call.path == _BLOCKING:
                return self._generation(body)
            if self._throttled(call.path):
                return _gateway_error("429001")
            if call.path in _SUBMITS:
                job = self._order(_SUBMITS[call.path], body)
                return _gateway_reply(**{_id_name(job.api): job.id})
            job = self._job(body.get(_id_name(_QUERIES[call.path])))
        except OrderError as refused:
            return _gateway_error(refused.code, str(refused))
        except ValueError:
            return _gateway_error("400001")
        return self._look(job)

    def _look(self, job: HunyuanJob) -> Reply:
        code = job.code
        answer: dict[str, Any] = {"status": code if job.api == "jobs" else _WORDS[code]}
        if code == "4":
            error = {"code": job.outcome.code, "message": job.outcome.text, "type": "api_error"}
            answer["error"] = error
        if code == "5":
            answer["data"] = [] if job.outcome.detail else [self._row(job)]
        return _gateway_reply(**answer)

    def _generation(self, body: dict[str, Any]) -> Reply | Awaitable[Reply]:
        if self.rpm is not None and self._take("rpm", RateLimit(self.rpm, self.rpm)):
            return _gateway_error("429001")
        return self._made(self._order("tokenhub", body))

    async def _made(self, job: HunyuanJob) -> Reply:
        await asyncio.sleep(max(0.0, job.completed_s - self.now_s()) / self.speed)
        if job.outcome.code is not None:
            return _gateway_error(job.outcome.code, job.outcome.message)
        rows = [] if job.outcome.detail else [self._row(job)]
        return Reply.of({"id": job.id, "created": int(time.time()), "data": rows})

    def _row(self, job: HunyuanJob) -> dict[str, str]:
        return {"url": self._address(job), "revised_prompt": self._revised(job)}

    # Orders.

    def _order(self, api: str, body: Any) -> HunyuanJob:
        if not isinstance(body, dict):
            raise OrderError("InvalidParameter.InvalidParameter", "not an object")
        order = read_order(api, body)
        if self.balance == "none":
            code = "401008" if api == "tokenhub" else "ResourceUnavailable.InArrears"
            raise OrderError(code, MESSAGES.get(code, ""))
        now_s = self.now_s()
        ends = sorted(j.completed_s for j in self.jobs if j.api != "tokenhub" and not j.finished)
        full = api != "tokenhub" and len(ends) >= self.slots
        if full and self.over_limit == "refuse":
            code = "RequestLimitExceeded.JobNumExceed"
            raise OrderError(code, MESSAGES[code])
        outcome = self._outcome(order["prompt"])
        waiting_s = self.waiting_s if outcome.waiting_s is None else outcome.waiting_s
        running_s = self.running_s if outcome.running_s is None else outcome.running_s
        free_s = ends[-self.slots] if full else now_s
        job = HunyuanJob(
            id=f"1250000000-{int(time.time())}-{uuid.uuid4()}-0",
            api=api,
            input=order,
            sent=body,
            created_s=now_s,
            started_s=max(now_s + waiting_s, free_s),
            running_s=running_s,
            outcome=outcome,
            clock=self.now_s,
            drawn=1 + secrets.randbelow(4294967295),
        )
        self._jobs[job.id] = job
        return job

    def _outcome(self, prompt: str) -> HunyuanOutcome:
        with self._lock:
            for place, outcome in enumerate(self._outcomes):
                if outcome.matches(prompt):
                    if outcome.times is not None:
                        del self._outcomes[place]
                        more = outcome.times - 1
                        if more:
                            self._outcomes.insert(place, _times(outcome, more))
                    return outcome
        return HunyuanOutcome()

    def _job(self, job_id: Any) -> HunyuanJob:
        job = self._jobs.get(str(job_id))
        if job is None or self.now_s() > job.completed_s + self.forget_s:
            code = "FailedOperation.JobNotExist"
            raise OrderError(code, MESSAGES[code])
        return job

    def _throttled(self, action: str) -> bool:
        return self.action_limit is not None and self._take(action, self.action_limit)

    def _take(self, name: str, limit: RateLimit) -> bool:
        bucket = self._buckets.get(name)
        if bucket is None or bucket.limit != limit:
            bucket = self._buckets[name] = Bucket(limit, self.now_s())
        return bucket.take(self.now_s()) > 0

    @staticmethod
    def _revised(job: HunyuanJob) -> str:
        prompt = str(job.input["prompt"])
        return f"{prompt}, in rich detail" if job.input["revise"] else prompt

    # The file host.

    def _address(self, job: HunyuanJob) -> str:
        """Return a signed address: without its query the image is not given."""
        return f"{self.files_url}/results/{job.id}.jpg?q-sign-algorithm=sha1&q-signature={job.id[-14:]}"

    def _deliver(self, call: Recorded) -> Reply:
        job = self._jobs.get(call.path.removeprefix("/results/").removesuffix(".jpg"))
        if job is None or call.method not in {"GET", "HEAD"}:
            return _denied("NoSuchKey", 404)
        kept_s = self.tokenhub_retention_s if job.api == "tokenhub" else self.retention_s
        expired = self.now_s() > job.completed_s + kept_s
        if expired or not call.query.endswith(f"q-signature={job.id[-14:]}"):
            return _denied("AccessDenied", 403)
        data = job.picture(self.shrink)
        match job.outcome.delivery:
            case "truncated":
                return Reply(body=data[: len(data) // 2], content_type="image/jpeg")
            case "empty":
                return Reply(content_type="image/jpeg")
            case "wrong_type":
                return Reply(body=data, content_type="text/plain")
            case "html":
                return Reply(body=b"<html><body>Sign in</body></html>", content_type="text/html")
            case "missing":
                return _denied("NoSuchKey", 404)
        return Reply(body=data, content_type="image/jpeg")


def _times(outcome: HunyuanOutcome, times: int) -> HunyuanOutcome:
    from dataclasses import replace

    return replace(outcome, times=times)


def _id_name(api: str) -> str:
    return "job_id" if api == "jobs" else "id"


def _gateway_reply(**content: Any) -> Reply:
    return Reply.of({"request_id": str(uuid.uuid4()), **content})


def _gateway_error(code: str, message: str = "", *, status: int | None = None) -> Reply:
    """Return an error: TokenHub's numbers with a status of their own, Tencent Cloud's codes with 200."""
    usual, type_, text = _GATEWAY.get(code, (200, "api_error", MESSAGES.get(code, code)))
    problem = {
        "type": type_,
        "code": code,
        "message": message or text,
        "source": "upstream" if type_ == "upstream_error" else "gateway",
        "request_id": str(uuid.uuid4()),
    }
    return Reply.of({"error": problem}, status or usual)


def _denied(code: str, status: int) -> Reply:
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code></Error>'
    return Reply(status, body.encode(), "application/xml")

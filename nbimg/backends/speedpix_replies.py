"""What SpeedPix answers, and what it means: data in, data or an error out.

Stage: beside the SpeedPix backend. Comes in: a reply of its gateway. Goes out: the data inside, a job as
it stands, or an error. Pure. Must not: ask anything.

Sources: https://help.aliyun.com/en/document_detail/2844525.html, 2844526 and 2844527 (tasks),
https://help.aliyun.com/en/api-gateway/error-codes (gateway), read 2026-11-22. Business errors come with
HTTP 200 and codes that no page lists, so that they are told by their words; success is spelled in two
ways; outputs stand in a list, in an object, or in both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from nbimg.backends.base import Output, Prediction, State
from nbimg.backends.http import Reply
from nbimg.credentials.keys import redact
from nbimg.errors import (
    BackendError,
    BusyError,
    ContentRefusedError,
    JobFailedError,
    KeyRejectedError,
    QuotaExceededError,
    RejectedError,
    ReplyError,
    UnreachableError,
)

__all__ = ["job_error", "opened", "prediction", "reason", "said", "state_of", "task_of"]

_OK = 10
_STATES = {
    "waiting": State.QUEUED,
    "running": State.RUNNING,
    "succeeded": State.DONE,
    "successed": State.DONE,  # the page of the progress spells it so
    "failed": State.FAILED,
    "canceled": State.CANCELLED,
    "cancelled": State.CANCELLED,
}


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_REFUSED = _words(
    r"违规|敏感|内容安全|审核(未|不)通过|涉(黄|政|暴)",
    r"sensitive|inappropriate|content (security|safety|moderation|policy|risk)|nsfw|porn",
    r"\billegal (content|text|image|prompt|video)|(text|image|prompt|content) is illegal|violat",
)
_MONEY = _words(
    r"arrears|quota (exhausted|expired)|insufficient (balance|quota|credit)|overdue",
    r"欠费|余额不足|额度(不足|已用完)|资源包",
)
_CROWDED = _words(r"concurren|too many (running )?(tasks|jobs)|并发|任务数")
_BUSY = _words(
    r"throttl|flow ?control|rate.?limit|too (many requests|frequent)|system (is )?busy",
    r"流控|限流|频繁|繁忙",
)
_KEY = _words(
    r"\bapp_?key\b|invalid appkey|signature|unauthori[sz]ed|not authori[sz]ed|鉴权|无权限|未授权"
)
_CLOCK = _words(r"timestamp|\bdate\b.*expired|时间戳")
_NONCE = _words(r"nonce")
_ABSENT = _words(r"not (found|exist)|does ?n[o']t exist|不存在|未找到|no such")
_PASSING = _words(r"(please|try) (re)?try|try again|retry later|请重试|稍后(再试|重试)|请稍后")


def opened(reply: Reply, *, read: bool) -> Mapping[str, Any]:
    """Return the `data` of an answer.

    Args:
        reply: Of the gateway, which answers business errors with HTTP 200.
        read: Whether nothing was asked for but a look: what fails without a known reason may pass then.

    Raises:
        ReplyError: When it is no answer of the service.
        BackendError: What the service said.
    """
    if not reply.ok or reply.headers.get("x-ca-error-code"):
        raise _gateway_error(reply)
    body = reply.json()
    if not isinstance(body, Mapping) or "status" not in body:
        raise ReplyError(
            f"speedpix's reply is none of its own: {reply.start!r}.",
            backend="speedpix",
            http_status=reply.status,
        )
    data = body.get("data")
    if str(body["status"]) == str(_OK) and isinstance(data, Mapping):
        return data
    if str(body["status"]) == str(_OK):
        raise ReplyError("speedpix's reply holds no data.", backend="speedpix")
    text = said(body) or "no reason given"
    error = _known(text, {"http_status": reply.status}, reply)
    if error is None:
        kind = UnreachableError if read and not _ABSENT.search(text) else RejectedError
        error = kind(f"speedpix says: {text}", backend="speedpix", http_status=reply.status)
    raise error


def task_of(reply: Reply) -> str:
    """Return the id of the task that was submitted.

    Raises:
        ReplyError: When the answer cannot be read.
        BackendError: What the service said.
    """
    task = opened(reply, read=False).get("taskId")
    if not isinstance(task, str | int) or task == "":
        raise ReplyError("speedpix's reply names no task.", backend="speedpix")
    return str(task)


def reason(reply: Reply) -> str:
    """Return why a task failed, by the answer about its result, which may be an error itself.

    Raises:
        BackendError: When the answer is not the service's own; it may be asked for again.
    """
    if not reply.ok or reply.headers.get("x-ca-error-code"):
        raise _gateway_error(reply)
    try:
        body = reply.json()
    except ReplyError as error:
        error.transient = True
        raise
    if not isinstance(body, Mapping):
        raise ReplyError("speedpix's reply is none of its own.", backend="speedpix", transient=True)
    data = body.get("data")
    own = said(data) if isinstance(data, Mapping) else ""
    return own or ("" if str(body.get("status")) == str(_OK) else said(body))


def said(body: Mapping[str, Any]) -> str:
    """Return the reason that an answer, or the data of one, gives; empty: none."""
    parts = [
        str(body.get(name) or "").strip()
        for name in ("subErrMessage", "errMessage", "subErrCode", "errCode", "message")
    ]
    return _clean("; ".join(dict.fromkeys(part for part in parts if part)))


def state_of(data: Mapping[str, Any], job_id: str) -> State:
    """Return how a task stands.

    Raises:
        ReplyError: When its status is none that is known; a look that lacks it may be repeated.
    """
    word = data.get("status")
    state = _STATES.get(str(word).lower())
    if state is None:
        raise ReplyError(
            f"speedpix's task has an unknown status {_clean(str(word))!r}.",
            backend="speedpix",
            job_id=job_id,
            transient=word is None,
        )
    return state


def prediction(data: Mapping[str, Any], job_id: str) -> Prediction:
    """Read a task: what its progress, or its result, says.

    Raises:
        ReplyError: When it cannot be read.
    """
    state = state_of(data, job_id)
    if not state.terminal:
        return Prediction(job_id, state, progress=_share(data.get("progress")))
    if state is not State.DONE:
        error = job_error(said(data), job_id) if state is State.FAILED else None
        return Prediction(job_id, state, error=error, seconds=_seconds(data))
    outputs = tuple(_distinct(data))
    if outputs:
        return Prediction(job_id, state, outputs, seconds=_seconds(data))
    error = JobFailedError(
        "the job succeeded without an image or a video.", backend="speedpix", job_id=job_id
    )
    return Prediction(job_id, State.FAILED, error=error, seconds=_seconds(data))


def job_error(text: str, job_id: str) -> BackendError:
    """Return why a task failed, by what was said of it."""
    known: dict[str, Any] = {"backend": "speedpix", "job_id": job_id}
    if _REFUSED.search(text):
        return ContentRefusedError(f"refused: {text}", **known)
    passing = bool(_PASSING.search(text))
    return JobFailedError(
        f"the job failed: {text or 'no reason given'}", **known, transient=passing
    )


def _known(text: str, known: dict[str, Any], reply: Reply) -> BackendError | None:
    """Return the error that these words stand for; None: they say nothing that is known."""
    known = {"backend": "speedpix", **known}
    if _NONCE.search(text):  # refused at the door; the next try has another one
        return UnreachableError(f"speedpix did not take the request: {text}", **known)
    if _CLOCK.search(text) and "expired" in text.lower():
        return RejectedError(
            f"speedpix finds the time of the request wrong: {text}",
            hint="Set the clock of this machine.",
            **known,
        )
    if _MONEY.search(text):
        return QuotaExceededError(f"speedpix wants payment: {text}", **known)
    crowded = bool(_CROWDED.search(text))
    if crowded or _BUSY.search(text):
        wait_s = _retry_after_s(reply)
        message = f"speedpix asks to slow down: {text}"
        return BusyError(message, crowded=crowded, retry_after_s=wait_s, **known)
    if _KEY.search(text):
        return KeyRejectedError(
            f"speedpix does not accept the key: {text}",
            hint="Check SPEEDPIX_APP_KEY and SPEEDPIX_APP_SECRET.",
            **known,
        )
    if _REFUSED.search(text):
        return ContentRefusedError(f"refused: {text}", **known)
    return None


def _gateway_error(reply: Reply) -> BackendError:
    """Return what an HTTP error means: of the gateway, or passed on from the service behind it."""
    code = reply.headers.get("x-ca-error-code", "")
    text = reply.headers.get("x-ca-error-message", "") or _body_text(reply) or f"{reply.status}"
    # "Invalid Signature, Server StringToSign:..." repeats what was signed, the key too
    text = _clean(re.split(r",?\s*Server StringToSign", text, flags=re.IGNORECASE)[0])
    text = f"{text} ({_clean(code)})" if code else text
    known: dict[str, Any] = {"http_status": reply.status}
    if reply.status >= 500:
        return UnreachableError(
            f"speedpix answered {reply.status}: {text}", backend="speedpix", **known
        )
    error = _known(text, known, reply)
    if error is not None:
        return error
    known["backend"] = "speedpix"
    match reply.status:
        case 401:
            hint = "Check SPEEDPIX_APP_KEY and SPEEDPIX_APP_SECRET."
            return KeyRejectedError(f"speedpix does not accept the key: {text}", hint=hint, **known)
        case 402:
            return QuotaExceededError(f"speedpix wants payment: {text}", **known)
        case 413:
            hint = "Send files by upload: -p file_encoding_strategy=url"
            return RejectedError(
                f"speedpix finds the request too large: {text}", hint=hint, **known
            )
        case 429:
            wait_s = _retry_after_s(reply)
            return BusyError(f"speedpix asks to slow down: {text}", retry_after_s=wait_s, **known)
    return RejectedError(f"speedpix refused the request ({reply.status}): {text}", **known)


def _body_text(reply: Reply) -> str:
    try:
        body = reply.json()
    except ReplyError:
        return reply.start
    return said(body) if isinstance(body, Mapping) else reply.start


def _clean(text: str) -> str:
    return redact(" ".join(text.split()))[:300]


def _retry_after_s(reply: Reply) -> float | None:
    header = reply.headers.get("retry-after", "").strip()
    return float(header) if re.fullmatch(r"\d{1,6}(\.\d+)?", header) else None


def _share(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return min(1.0, max(0.0, float(value))) if known else None


def _seconds(data: Mapping[str, Any]) -> float | None:
    spent = data.get("taskDuration")
    return spent / 1000 if isinstance(spent, int | float) and spent >= 0 else None


#: Where an object may name a picture of its video; no page tells of any, and some services do so.
_COVERS = ("cover", "cover_url", "coverUrl", "poster")


def _distinct(data: Mapping[str, Any]) -> Iterator[Output]:
    """The chosen outputs, then those of the default list that are others."""
    seen: set[str] = set()
    for output in (*_outputs(data.get("result")), *_outputs(data.get("images"))):
        url = str(output.url)
        same = url if url.startswith("data:") else urlsplit(url)._replace(query="").geturl()
        if same not in seen:  # a file may be signed anew each time that it is named
            seen.add(same)
            yield output


def _outputs(value: Any) -> Iterator[Output]:
    """The addresses in a value of any shape; of an object with a `url` that one alone."""
    if isinstance(value, str):
        if value.startswith(("http://", "https://", "data:")):
            yield Output(url=value)
    elif isinstance(value, Mapping) and isinstance(value.get("url"), str):
        covers = (value.get(name) for name in _COVERS)
        cover = next((one for one in covers if isinstance(one, str) and one), None)
        yield from (replace(output, cover=cover) for output in _outputs(value["url"]))
    elif isinstance(value, Mapping | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _outputs(part)

"""How Tencent answers for Hunyuan Image: jobs, images and errors, in the envelopes of its APIs.

Stage: below the Hunyuan backend's forms. Comes in: a reply as data. Goes out: what it says of a job, or the
error that it is. Pure. Must not: know which API it came from.

Sources: those of `hunyuan_forms`. How the two job gateways answer a look is known from what their users
wrote, not from a reference: numbers as in the signed API, and words, are both understood.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbimg.backends.base import Output, Prediction, State
from nbimg.backends.hunyuan_codes import Kind, Stage, error, kind_of
from nbimg.errors import BackendError, JobFailedError, ReplyError

__all__ = [
    "failure_of",
    "ordered",
    "outputs_of",
    "over",
    "raise_error",
    "response",
    "results",
    "stands",
    "state_of",
    "unreadable",
]

_STATES: Mapping[str, State] = {
    **dict.fromkeys(("1", "init", "wait", "pending", "queued", "submitted"), State.QUEUED),
    **dict.fromkeys(("2", "run", "running", "processing", "in_progress"), State.RUNNING),
    **dict.fromkeys(("5", "done", "completed", "succeeded", "success"), State.DONE),
    **dict.fromkeys(("4", "6", "fail", "failed", "error"), State.FAILED),
}


def state_of(said: Any) -> State | None:
    """Return the state that a number or a word stands for; None: it is not known."""
    return _STATES.get(str(said).lower())


def ordered(job_id: Any) -> Prediction:
    """Return the job of an order that was taken.

    Raises:
        ReplyError: When that is no id.
    """
    if not job_id or not isinstance(job_id, str):
        raise unreadable("no job id")
    return Prediction(job_id, State.QUEUED)


def stands(job_id: str, said: Any, outputs: tuple[Output, ...]) -> Prediction:
    """Return how a job stands that has not failed; done without an image, it has.

    Raises:
        ReplyError: When nobody knows the state.
    """
    state = state_of(said)
    if state is None:
        raise unreadable(f"an unknown state {said!r}", job_id=job_id, transient=True)
    if state is not State.DONE:
        return Prediction(job_id, state)
    if outputs:
        return Prediction(job_id, state, outputs)
    failure = error(Kind.OTHER, "no image", "", Stage.JOB, job_id=job_id)
    return Prediction(job_id, State.FAILED, error=failure)


def over(failure: BackendError, job_id: str) -> Prediction:
    """Return a job that is not known there as one that is over.

    Raises:
        BackendError: `failure`, when it is any other one, which says nothing of the job.
    """
    if not isinstance(failure, JobFailedError):
        raise failure
    failure.job_id = job_id
    return Prediction(job_id, State.FAILED, error=failure)


def results(answer: Mapping[str, Any]) -> tuple[tuple[Output, ...], list[str]]:
    """Return the images of the signed API that succeeded, and why the others did not."""
    urls = [url for url in answer.get("ResultImage") or () if isinstance(url, str) and url]
    details = [str(detail) for detail in answer.get("ResultDetails") or ()]
    reasons = [detail for detail in details if detail.lower() != "success"]
    if reasons and len(details) == len(urls):
        urls = [
            url for url, detail in zip(urls, details, strict=True) if detail.lower() == "success"
        ]
    elif reasons and len(reasons) == len(details):
        urls = []
    return tuple(Output(url=url) for url in urls), reasons


def outputs_of(rows: Any) -> tuple[Output, ...]:
    """Return the images of a gateway, `[{"url": …}]`."""
    found = [row.get("url") for row in rows or () if isinstance(row, Mapping)]
    return tuple(Output(url=url) for url in found if url and isinstance(url, str))


def response(data: Mapping[str, Any], status: int, stage: Stage) -> Mapping[str, Any]:
    """Return what is in the envelope of the signed API.

    Raises:
        BackendError: The error in it, which comes with status 200 as well.
        ReplyError: When it is no such envelope.
    """
    answer = data.get("Response")
    if not isinstance(answer, Mapping):
        if 400 <= status < 500:
            raise error(kind_of(status=status), str(status), "", stage, http_status=status)
        raise unreadable("no Response")
    problem = answer.get("Error")
    if isinstance(problem, Mapping):
        code = str(problem.get("Code"))
        text = str(problem.get("Message") or "")
        raise error(kind_of(code), code, text, stage, http_status=status)
    return answer


def raise_error(data: Mapping[str, Any], status: int, stage: Stage) -> None:
    """Find the error of a gateway, which comes with a status of its own or with 200.

    Raises:
        BackendError: When there is one.
    """
    if status >= 400 or data.get("error"):
        raise failure_of(data, status, stage)


def failure_of(data: Mapping[str, Any], status: int, stage: Stage) -> BackendError:
    """Return the error of a gateway, `{"error": {"code", "type", "message", …}}`."""
    found = data.get("error")
    problem = found if isinstance(found, Mapping) else {"message": found or data.get("message")}
    code, type_ = problem.get("code"), problem.get("type")
    kind = kind_of(problem.get("upstream_code"), code, type_, status=status)
    text = str(problem.get("message") or data.get("error_message") or "")
    if kind is Kind.RATE and "concurren" in text.lower():
        kind = Kind.CROWDED
    if kind is Kind.OTHER and (type_ == "upstream_error" or status >= 500):
        kind = _upstream(problem.get("upstream_status"))
    known = {} if stage is Stage.JOB else {"http_status": status}
    return error(kind, str(code or type_ or status), text, stage, **known)


def _upstream(status: Any) -> Kind:
    """What a fault behind TokenHub means: one that was answered made nothing, others may have."""
    if not str(status or "").isdecimal() or int(status) in (408, 504, 524):
        return Kind.LOST
    return Kind.RATE if int(status) == 429 else Kind.TRANSIENT


def unreadable(what: str, **known: Any) -> ReplyError:
    """Return the error of a reply that holds `what`."""
    return ReplyError(f"hunyuan's reply holds {what}.", backend="hunyuan", **known)

"""What Tencent's error codes mean, and which of our errors each becomes.

Stage: below the Hunyuan backend. Comes in: a code, and when it came: at a create, at a poll, or as the
end of a job. Goes out: an error. Pure. Must not: know an address or a form of reply.

Source: the list of codes in the official client `tencentcloud-sdk-python-aiart` 3.1.82 and in
https://cloud.tencent.com/document/api/1668/88076; TokenHub's in
https://cloud.tencent.com/document/product/1823/130080 (read 2026-11-22). The codes that all of
Tencent's products share are in part from general knowledge: a code that is not listed is judged by what
stands before its dot, and a code without that (as jobs report it) by what would stand behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from nbimg.credentials.keys import redact
from nbimg.errors import (
    BackendError,
    BusyError,
    ContentRefusedError,
    JobFailedError,
    KeyRejectedError,
    OutcomeUnknownError,
    QuotaExceededError,
    RejectedError,
    ReplyError,
    UnreachableError,
)

__all__ = ["KINDS", "Kind", "Stage", "error", "kind_of"]


class Kind(StrEnum):
    """What a code means for whoever sent the request."""

    CROWDED = "crowded"  # too many jobs at once: wait until an own one has ended
    RATE = "rate"  # too many requests
    MONEY = "money"  # no balance, or a service that is not bought
    AUTH = "auth"  # the credential, or what it is allowed
    REFUSED = "refused"  # by the content rules
    INPUT = "input"  # the request is wrong
    TRANSIENT = "transient"  # a fault of theirs; nothing was made
    LOST = "lost"  # a time-out within their system: it may have been made
    GONE = "gone"  # the API was taken off
    FORGOTTEN = "forgotten"  # they do not know the job, or not any more
    OTHER = "other"  # a code that nobody has written down


class Stage(StrEnum):
    """When an error came."""

    CREATE = "create"
    POLL = "poll"
    JOB = "job"  # the job itself ended with it


_FAILED: Mapping[Kind, tuple[str, ...]] = {
    Kind.CROWDED: ("EngineServerLimitExceeded",),
    Kind.MONEY: (
        "FreeResourcePackExhausted",
        "ResourcePackExhausted",
        "ServiceNotActivated",
        "ServiceStop",
        "ServiceStopArrears",
        "UserUnAuthError",
    ),
    Kind.REFUSED: ("GenerateImageFailed", "ModerationFailed"),
    Kind.INPUT: (
        "ImageDecodeFailed",
        "ImageDownloadError",
        "DownloadError",
        "ImageResolutionExceed",
        "ImageSizeExceed",
        "RequestEntityTooLarge",
    ),
    Kind.TRANSIENT: (
        "ConsoleServerError",
        "EngineServerError",
        "InnerError",
        "ServerError",
        "Unknown",
    ),
    Kind.LOST: ("EngineRequestTimeout", "RequestTimeout", "RpcFail"),
    Kind.FORGOTTEN: ("JobNotExist",),
}

#: Code → its meaning, where its first part does not say it.
KINDS: Mapping[str, Kind] = {
    **{f"FailedOperation.{name}": kind for kind, names in _FAILED.items() for name in names},
    "RequestLimitExceeded.JobNumExceed": Kind.CROWDED,
    "OperationDenied.TextIllegalDetected": Kind.REFUSED,
    "OperationDenied.ImageIllegalDetected": Kind.REFUSED,
    "InternalError.RequestTimeout": Kind.LOST,
    # TokenHub's numbers
    "400001": Kind.INPUT,
    "400002": Kind.INPUT,
    "400004": Kind.INPUT,
    "401002": Kind.AUTH,
    "401007": Kind.MONEY,
    "401008": Kind.MONEY,
    "403001": Kind.AUTH,
    "403002": Kind.AUTH,
    "403004": Kind.MONEY,
    "403005": Kind.AUTH,
    "429001": Kind.RATE,
    "451001": Kind.REFUSED,
    "FREE_QUOTA_EXHAUSTED": Kind.MONEY,
    "invalid_api_key": Kind.AUTH,
}

#: What stands before the dot → its meaning, for all other codes.
_FAMILIES: Mapping[str, Kind] = {
    "ActionOffline": Kind.GONE,
    "AuthFailure": Kind.AUTH,
    "DryRunOperation": Kind.INPUT,
    "InternalError": Kind.TRANSIENT,
    "InvalidAction": Kind.GONE,
    "InvalidParameter": Kind.INPUT,
    "InvalidParameterValue": Kind.INPUT,
    "InvalidRequest": Kind.INPUT,
    "LimitExceeded": Kind.CROWDED,
    "MissingParameter": Kind.INPUT,
    "NoSuchVersion": Kind.GONE,
    "OperationDenied": Kind.REFUSED,
    "RequestLimitExceeded": Kind.RATE,
    "RequestSizeLimitExceeded": Kind.INPUT,
    "ResourceInsufficient": Kind.MONEY,
    "ResourceUnavailable": Kind.MONEY,
    "ResourcesSoldOut": Kind.MONEY,
    "ServiceUnavailable": Kind.TRANSIENT,
    "UnauthorizedOperation": Kind.AUTH,
    "UnknownParameter": Kind.INPUT,
    "UnsupportedOperation": Kind.GONE,
    "UnsupportedProtocol": Kind.INPUT,
    "UnsupportedRegion": Kind.GONE,
    # TokenHub's types, which go with every number
    "authentication_error": Kind.AUTH,
    "content_filter_error": Kind.REFUSED,
    "invalid_request_error": Kind.INPUT,
    "permission_error": Kind.AUTH,
    "rate_limit_error": Kind.RATE,
}

_SHORT: Mapping[str, Kind] = {code.rpartition(".")[2]: kind for code, kind in KINDS.items()}

#: HTTP status → its meaning, for a reply without a code that is known.
_STATUSES: Mapping[int, Kind] = {
    400: Kind.INPUT,
    401: Kind.AUTH,
    402: Kind.MONEY,
    403: Kind.AUTH,
    404: Kind.INPUT,
    408: Kind.LOST,
    413: Kind.INPUT,
    415: Kind.INPUT,
    422: Kind.INPUT,
    429: Kind.RATE,
    451: Kind.REFUSED,
}


def kind_of(*codes: object, status: int | None = None) -> Kind:
    """Return what the first code that is known means; else what the HTTP status does.

    >>> kind_of("RequestLimitExceeded.JobNumExceed"), kind_of("ServerError")
    (<Kind.CROWDED: 'crowded'>, <Kind.TRANSIENT: 'transient'>)
    """
    for code in map(str, filter(None, codes)):
        if code in KINDS:
            return KINDS[code]
        family, dot, _ = code.partition(".")
        if family in _FAMILIES:
            return _FAMILIES[family]
        if code.startswith("FailedOperation.ServiceStop"):
            return Kind.MONEY
        if not dot and code in _SHORT:
            return _SHORT[code]
    return _STATUSES.get(status or 0, Kind.OTHER)


_HINTS: Mapping[str, str] = {
    "AuthFailure.SignatureExpire": "The clock of this machine is more than five minutes off.",
    "AuthFailure.UnauthorizedOperation": "Allow this key the product aiart in the CAM console.",
    "FailedOperation.GenerateImageFailed": "Another seed may pass.",
    "ResourceUnavailable.Delivering": "Tencent is still setting it up: try again in some minutes.",
}
_KIND_HINTS: Mapping[Kind, str] = {
    Kind.AUTH: "Check HUNYUAN_API_KEY (one of the job gateway needs NBIMG_HUNYUAN_API=jobs), or "
    "HUNYUAN_SECRET_ID and HUNYUAN_SECRET_KEY.",
    Kind.GONE: "Use TokenHub (HUNYUAN_API_KEY), or set NBIMG_HUNYUAN_ACTION and _VERSION.",
}


def error(
    kind: Kind,
    code: str,
    text: str,
    stage: Stage,
    **known: Any,
) -> BackendError:
    """Return the error that a code becomes.

    A create that was answered with a fault of theirs made nothing: it may be ordered anew. One that timed
    out within their system may have been charged. At a poll the same codes say nothing of the job.

    Args:
        kind: What the code means.
        code: As it came.
        text: What the provider says; shown on one line, without a credential.
        stage: When it came.
        known: `job_id`, `http_status` and the like.
    """
    code = redact(code)[:80]
    said = f"{redact(' '.join(text.split()))[:300]} ({code})" if text else code
    known |= {"backend": "hunyuan", "hint": _HINTS.get(code, _KIND_HINTS.get(kind))}
    return _anywhere(kind, said, stage, known) or _AT[stage](kind, said, known)


def _anywhere(kind: Kind, said: str, stage: Stage, known: dict[str, Any]) -> BackendError | None:
    """What means the same whenever it comes."""
    match kind:
        case Kind.AUTH:
            return KeyRejectedError(f"hunyuan does not accept the key: {said}", **known)
        case Kind.MONEY:
            return QuotaExceededError(f"hunyuan wants payment or a service: {said}", **known)
        case Kind.GONE:
            return RejectedError(f"hunyuan does not offer this API any more: {said}", **known)
        case Kind.FORGOTTEN:
            return JobFailedError(f"hunyuan does not know the job any more: {said}", **known)
        case Kind.CROWDED | Kind.RATE if stage is not Stage.JOB:
            crowded = kind is Kind.CROWDED
            why = "has too many jobs under way" if crowded else "asks to slow down"
            return BusyError(f"hunyuan {why}: {said}", crowded=crowded, **known)
    return None


def _at_create(kind: Kind, said: str, known: dict[str, Any]) -> BackendError:
    if kind is Kind.LOST:
        return OutcomeUnknownError(
            f"hunyuan timed out; the request may have been accepted and charged: {said}", **known
        )
    if kind is Kind.OTHER:
        return RejectedError(f"hunyuan refused the request: {said}", **known)
    return _at_end(kind, said, known)


def _at_poll(kind: Kind, said: str, known: dict[str, Any]) -> BackendError:
    if kind in (Kind.TRANSIENT, Kind.LOST):
        return UnreachableError(f"hunyuan could not be asked: {said}", **known)
    return ReplyError(f"hunyuan does not say how the job stands: {said}", **known)


def _at_end(kind: Kind, said: str, known: dict[str, Any]) -> BackendError:
    if kind is Kind.REFUSED:
        return ContentRefusedError(f"refused: {said}", **known)
    if kind is Kind.INPUT:
        return RejectedError(f"hunyuan refused the request: {said}", **known)
    passing = (Kind.TRANSIENT, Kind.LOST, Kind.CROWDED, Kind.RATE)
    return JobFailedError(f"the job failed: {said}", transient=kind in passing, **known)


_AT: Mapping[Stage, Callable[[Kind, str, dict[str, Any]], BackendError]] = {
    Stage.CREATE: _at_create,
    Stage.POLL: _at_poll,
    Stage.JOB: _at_end,
}

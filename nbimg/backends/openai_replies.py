"""What servers of the OpenAI images API answer: pictures, events of a stream, and errors of every shape.

Stage: below the backend. Comes in: bytes and headers. Goes out: a `Prediction`, or the error that it
means. Pure. Bytes are told by how they begin, not by what a header calls them.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin

from nbimg.backends.base import Output, Prediction, State
from nbimg.backends.http import Reply, origin
from nbimg.backends.openai_dialects import Dialect
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
)
from nbimg.media import pixels

__all__ = ["Events", "decoded", "failure", "prediction", "retry_after_s", "said"]

_MONEY = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
_REFUSED = re.compile(
    r"moderation_blocked|content_policy|content_filter|safety[ _]system|content moderation",
    re.IGNORECASE,
)
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Events:
    """Server-sent events, as their bytes come in; data that is not JSON (`[DONE]`) is left out."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, part: bytes) -> Iterator[Mapping[str, Any]]:
        """Yield what is complete with `part`."""
        *lines, self._rest = (self._rest + part).split(b"\n")
        for line in lines:
            text = line.rstrip(b"\r")
            if text.startswith(b"data:"):
                self._data.append(text[5:].lstrip())
            elif not text and self._data:
                yield from self._event()

    def end(self) -> Iterator[Mapping[str, Any]]:
        """Yield the last event, which may have no empty line behind it."""
        yield from self.feed(b"\n\n")

    def _event(self) -> Iterator[Mapping[str, Any]]:
        data, self._data = b"\n".join(self._data), []
        with contextlib.suppress(ValueError):
            event = json.loads(data)
            if isinstance(event, Mapping):
                yield event


def prediction(dialect: Dialect, reply: Reply) -> Prediction:
    """Read the answer of a create that went well.

    Raises:
        ReplyError: When it is no answer of this API.
        BackendError: When it is an error all the same.
    """
    if pixels.sniff(reply.content) is not None:
        return Prediction(None, State.DONE, (Output(data=reply.content),))
    bodies = _bodies(reply)
    rows = _rows(bodies)
    wrong = next((body for body in bodies if body.get("error")), None)
    if wrong is not None and not rows:
        raise _meant(dialect, reply, wrong)
    if rows is None:
        raise ReplyError(f"{reply.url} answered without images: {reply.start!r}.", backend="openai")
    outputs = tuple(output for row in rows for output in _output(row, reply.url))
    usage = _usage(body.get("usage") for body in bodies)
    if outputs:
        return Prediction(None, State.DONE, outputs, usage=usage)
    error = JobFailedError(
        f"{dialect.name} answered without an image; the prompt may have been refused.",
        backend="openai",
        http_status=reply.status,
    )
    return Prediction(None, State.FAILED, error=error, usage=usage)


def _bodies(reply: Reply) -> list[Mapping[str, Any]]:
    """The JSON of an answer, or of every event of a stream."""
    if reply.content.lstrip()[:6].startswith((b"data:", b"event:", b":")):
        events = Events()
        return [*events.feed(reply.content), *events.end()]
    body = reply.json()
    return [body] if isinstance(body, Mapping) else []


def _rows(bodies: list[Mapping[str, Any]]) -> list[Any] | None:
    """What was made: the events that say so, or the rows of `data`; None where there is neither."""
    completed = [body for body in bodies if str(body.get("type")).endswith(".completed")]
    data = bodies[0].get("data") if len(bodies) == 1 else None
    return completed or (data if isinstance(data, list) else None)


def _output(row: Any, url: str) -> Iterator[Output]:
    """The picture of one row: base64, a data URI, an address, which may be relative."""
    if not isinstance(row, Mapping):
        return
    text, address = row.get("b64_json"), str(row.get("url") or "")
    if isinstance(text, str) and text:
        yield Output(data=decoded(text))
    elif address.startswith("data:"):
        yield Output(data=decoded(address))
    elif address:
        yield Output(url=urljoin(origin(url) + "/", address))


def decoded(text: str) -> bytes:
    """Return the bytes of base64 or of a data URI; none where it is neither: they are no picture then."""
    payload = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode(payload)
    except ValueError:
        return b""


def _usage(found: Iterable[Any]) -> Mapping[str, int]:
    """Add up what was counted; details get names of their own: `input_image_tokens`."""
    total: Counter[str] = Counter()
    for usage in found:
        for name, value in (usage if isinstance(usage, Mapping) else {}).items():
            inner = value if isinstance(value, Mapping) else {"": value}
            stem = name.removesuffix("_tokens_details")
            for part, count in inner.items():
                if isinstance(count, int) and not isinstance(count, bool):
                    total[f"{stem}_{part}" if part else name] += count
    return dict(total)


def failure(dialect: Dialect, reply: Reply) -> BackendError:
    """Return what an answer that is no success means, for a create."""
    try:
        body = reply.json()
    except ReplyError:
        body = None
    return _meant(dialect, reply, body)


def _meant(dialect: Dialect, reply: Reply, body: Any) -> BackendError:
    status, who = reply.status, dialect.name
    codes, text = said(body)
    detail = text or reply.start
    known: dict[str, Any] = {"backend": "openai", "http_status": status}
    if status == 402 or codes & _MONEY:
        return QuotaExceededError(f"{who} wants payment: {detail}", **known)
    if status == 451 or (status < 500 and _REFUSED.search(" ".join((*codes, detail)))):
        return ContentRefusedError(f"refused: {detail}", **known)
    if status == 401 or (status == 403 and not re.search(r"model|verif", detail)):
        return KeyRejectedError(
            f"{who} does not accept the key ({status}).",
            hint="Check OPENAI_API_KEY, and that it belongs to this base URL.",
            **known,
        )
    if status == 429 or (status == 503 and text):
        wait = retry_after_s(reply.headers, detail)
        return BusyError(f"{who} asks to wait: {detail}", retry_after_s=wait, **known)
    if status >= 500 and text and dialect.own:
        return JobFailedError(f"{who} failed ({status}): {detail}", **known)
    if status >= 500:
        return OutcomeUnknownError(
            f"{who} answered {status}; the request may have been accepted and charged.", **known
        )
    return RejectedError(f"{who} refused the request ({status}): {detail}", **known)


def said(body: Any) -> tuple[set[str], str]:
    """Return the codes and the text of an error, whichever shape it has.

    >>> said({"detail": [{"loc": ["body", "n"], "msg": "too large", "type": "less_than"}]})
    (set(), 'n: too large')
    """
    if not isinstance(body, Mapping):
        return set(), ""
    error = body.get("error") or body.get("detail") or body
    codes: set[str] = set()
    if isinstance(error, Mapping):
        codes = {str(error[key]) for key in ("code", "type") if error.get(key)}
        error = error.get("message") or error.get("error") or ""
    if isinstance(error, list):
        rows = [row for row in error if isinstance(row, Mapping)]
        error = "; ".join(f"{(row.get('loc') or [''])[-1]}: {row.get('msg')}" for row in rows)
    return codes, redact(" ".join(str(error).split()))[:300]


def retry_after_s(headers: Mapping[str, str], text: str) -> float | None:
    """Return the seconds that a 429 asks to wait: header, else what is used up, else the text.

    >>> retry_after_s({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m2s"}, "")
    62.0
    >>> retry_after_s({}, "Please try again in 250ms.")
    0.25
    """
    if (asked := _span_s(headers.get("retry-after-ms", "") + "ms")) is not None:
        return asked
    header = headers.get("retry-after", "").strip()
    if (asked := _span_s(header + "s")) is not None:
        return asked
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    spans = [
        _span_s(headers.get(f"x-ratelimit-reset-{what}", ""))
        for what in ("requests", "tokens", "images")
        if headers.get(f"x-ratelimit-remaining-{what}") == "0"
    ]
    if known := [span for span in spans if span is not None]:
        return max(known)
    match = re.search(r"try again in ((?:\d+(?:\.\d+)?(?:ms|s|m|h))+)", text)
    return _span_s(match[1]) if match else None


def _span_s(text: str) -> float | None:
    """Read a length of time like `6m0s` or `20ms`; None when it is none."""
    if not re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h))+", text):
        return None
    return sum(
        float(count) * _UNIT_S[unit]
        for count, unit in re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    )

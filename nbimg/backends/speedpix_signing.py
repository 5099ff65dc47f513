"""The signature that SpeedPix's gateway asks of every request.

Stage: beside the SpeedPix backend. Comes in: the credential, a path and the exact bytes of a body. Goes
out: the headers. Must not: be kept for another try; a nonce is good for one request, and is signed.

Source: digest authentication of Alibaba's API gateway,
https://help.aliyun.com/zh/api-gateway/traditional-api-gateway/use-digest-authentication-to-call-an-api
(read 2026-11-22); a test holds a vector that the official client confirmed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
import uuid
from email.utils import formatdate

from nbimg.credentials.keys import Secret

__all__ = ["JSON", "content_md5", "signed"]

JSON = "application/json; charset=utf-8"
"""What is sent and what is accepted; both are signed."""

_SIGNED_HEADERS = "x-ca-timestamp,x-ca-key,x-ca-nonce,x-ca-signature-method"


def content_md5(body: bytes) -> str:
    """Return the checksum of a body as the gateway wants it; empty for an empty one."""
    if not body:
        return ""
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode("ascii")


def signed(
    key: Secret,
    secret: Secret,
    path: str,
    body: bytes,
    *,
    nonce: str | None = None,
    at_utc: float | None = None,
) -> dict[str, str]:
    """Return the headers of one POST of JSON.

    Args:
        key: The application's key.
        secret: The application's secret.
        path: Of the address, from the first slash on.
        body: What is sent, byte for byte.
        nonce: Used once; None: a new one.
        at_utc: Unix time in seconds; None: now. The gateway takes what is at most 15 minutes off.
    """
    at_utc = time.time() if at_utc is None else at_utc
    own = {
        "x-ca-key": key.reveal(),
        "x-ca-nonce": nonce or str(uuid.uuid4()),
        "x-ca-signature-method": "HmacSHA256",
        "x-ca-timestamp": str(int(at_utc * 1000)),
    }
    md5, date = content_md5(body), formatdate(at_utc, usegmt=True) + "+00:00"
    pairs = (f"{name}:{value}" for name, value in sorted(own.items()))
    text = "\n".join(("POST", JSON, md5, JSON, date, *pairs, path))
    digest = hmac.new(secret.reveal().encode(), text.encode(), hashlib.sha256).digest()
    headers = {
        **own,
        "accept": JSON,
        "content-type": JSON,
        "date": date,
        "x-ca-signature-headers": _SIGNED_HEADERS,
        "x-ca-signature": base64.b64encode(digest).decode("ascii"),
    }
    return {**headers, "content-md5": md5} if md5 else headers

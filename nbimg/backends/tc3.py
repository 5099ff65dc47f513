"""Tencent Cloud's signature TC3-HMAC-SHA256.

Stage: below the Hunyuan backend. Comes in: the exact bytes of a body, and the credential. Goes out: the
`Authorization` header. Pure: the time is handed in. Must not: send, or keep a credential.

Source: https://www.tencentcloud.com/document/product/267/37447 ("Signature v3"), whose example is one
of the tests (read 2026-11-25).
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime

__all__ = ["CONTENT_TYPE", "authorization"]

ALGORITHM = "TC3-HMAC-SHA256"
#: It is part of what is signed, to the letter.
CONTENT_TYPE = "application/json"


def authorization(
    secret_id: str,
    secret_key: str,
    *,
    host: str,
    service: str,
    body: bytes,
    at_utc: int,
    content_type: str = CONTENT_TYPE,
) -> str:
    """Return the header that signs a POST to `/`.

    Args:
        secret_id: Names the key.
        secret_key: The key.
        host: As the `Host` header says it, with a port where that has one.
        service: The product, for example `aiart`.
        body: The bytes that are sent.
        at_utc: Unix time in seconds, as the `X-TC-Timestamp` header says it; valid for five minutes.
        content_type: As the `Content-Type` header says it.
    """
    date = datetime.fromtimestamp(at_utc, UTC).strftime("%Y-%m-%d")
    scope = f"{date}/{service}/tc3_request"
    signed = "content-type;host"
    canonical = "\n".join(
        ("POST", "/", "", f"content-type:{content_type}", f"host:{host}", "", signed, _digest(body))
    )
    text = "\n".join((ALGORITHM, str(at_utc), scope, _digest(canonical.encode())))
    key = f"TC3{secret_key}".encode()
    for part in (date, service, "tc3_request"):
        key = _mac(key, part).digest()
    signature = _mac(key, text).hexdigest()
    return (
        f"{ALGORITHM} Credential={secret_id}/{scope}, SignedHeaders={signed}, Signature={signature}"
    )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _mac(key: bytes, text: str) -> hmac.HMAC:
    return hmac.new(key, text.encode(), hashlib.sha256)

"""The envelope of Tencent Cloud's signed APIs: who signed a request, and how errors come back.

Stage: tests. In: a request as it arrived. Out: an error code, or nothing when its signature is right. It
shares no line with the package's own signing, so that the two agree on the protocol, not on a mistake.
Source: https://www.tencentcloud.com/document/product/267/37447 ("Signature v3"), read 2026-11-25.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
import uuid
from collections.abc import Mapping
from typing import Any

from nbimg.testing.server import Recorded, Reply

__all__ = ["envelope", "failure", "find_fault"]

#: How far a request's clock may be off, in seconds, and how large its body may be, in bytes.
SKEW_S = 300
MAX_BODY_BYTES = 10 * 1024 * 1024

_AUTHORIZATION = re.compile(
    r"TC3-HMAC-SHA256 Credential=(?P<id>[^/]+)/(?P<date>\d{4}-\d\d-\d\d)/(?P<service>\w+)/tc3_request, "
    r"SignedHeaders=(?P<names>[\w;-]+), Signature=(?P<signature>[0-9a-f]{64})"
)


def envelope(**content: Any) -> Reply:
    """Return an answer: status 200, and the type without a charset, which the official client needs."""
    return Reply.of({"Response": {**content, "RequestId": str(uuid.uuid4())}})


def failure(code: str, message: str) -> Reply:
    """Return an error, which comes with status 200 as well."""
    return envelope(Error={"Code": code, "Message": message})


def find_fault(
    call: Recorded, secrets: Mapping[str, str], service: str, ahead_s: float = 0.0
) -> str | None:
    """Return the code of what is wrong with the signature of a request; None: nothing.

    Args:
        call: The request.
        secrets: Secret id → secret key.
        service: What the scope of the signature must name.
        ahead_s: How far the server's clock is ahead of this machine's, in seconds.
    """
    if len(call.body) > MAX_BODY_BYTES:
        return "RequestSizeLimitExceeded"
    if call.headers.get("Content-Type") != "application/json":
        return "UnsupportedProtocol"
    given = _AUTHORIZATION.fullmatch(call.headers.get("Authorization", ""))
    stamp = call.headers.get("X-TC-Timestamp", "")
    if given is None or not stamp.isdecimal():
        return "AuthFailure.InvalidAuthorization"
    if abs(int(stamp) - (time.time() + ahead_s)) > SKEW_S:
        return "AuthFailure.SignatureExpire"
    if given["id"] not in secrets:
        return "AuthFailure.SecretIdNotFound"
    names = given["names"].split(";")
    day = time.strftime("%Y-%m-%d", time.gmtime(int(stamp)))
    if (given["date"], given["service"]) != (day, service) or not {"content-type", "host"} <= {
        *names
    }:
        return "AuthFailure.SignatureFailure"
    headers = "".join(f"{name}:{call.headers.get(name, '').strip().lower()}\n" for name in names)
    payload = hashlib.sha256(call.body).hexdigest()
    canonical = f"POST\n/\n\n{headers}\n{given['names']}\n{payload}"
    scope = f"{day}/{service}/tc3_request"
    text = f"TC3-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = b"TC3" + secrets[given["id"]].encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    right = hmac.digest(key, text.encode(), "sha256").hex()
    return (
        None if hmac.compare_digest(right, given["signature"]) else "AuthFailure.SignatureFailure"
    )

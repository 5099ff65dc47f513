"""The gateway before the local SpeedPix: who may pass, and what it says to the others.

Stage: tests. In: a request as it arrived. Out: None, or the refusal. Written for itself from the gateway's
description, so that it agrees with a client by the protocol and not by shared code.

Sources: https://help.aliyun.com/zh/api-gateway/traditional-api-gateway/use-digest-authentication-to-call-an-api
and https://help.aliyun.com/en/api-gateway/error-codes, read 2026-11-22. Texts are documented; the six
letters of the codes that are marked so are assumed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping

from nbimg.testing.server import Recorded, Reply

__all__ = ["REFUSALS", "Gateway", "refusal"]

REFUSALS: Mapping[str, tuple[int, str, str]] = {
    "header": (400, "I400MH", "Header `x-ca-key` is Required"),
    "key": (400, "A400IK", "Invalid AppKey"),  # code assumed
    "signature": (400, "A400IS", "Invalid Signature"),  # code assumed; 401 on some instances
    "md5": (400, "I400MD", "Invalid Content-MD5"),  # code assumed
    "nonce": (400, "A400NU", "Nonce Used"),  # code assumed
    "clock": (400, "A400TE", "Timestamp Expired"),  # code assumed
    "large": (413, "I413RL", "Request body too Large"),
    "absent": (404, "I404NF", "API not found"),
    "throttled": (403, "", "Throttled by APP Flow Control"),  # classic instances: no code
    "throttled_new": (429, "T429AP", "Throttled by APP Flow Control"),  # code assumed
    "quota": (403, "", "Quota Exhausted"),
    "arrears": (403, "", "User Arrears"),
    "broken": (500, "X500ED", "Internal Error"),
}
"""Name → HTTP status, `X-Ca-Error-Code`, `X-Ca-Error-Message`."""

_WINDOW_S = 15 * 60.0
_NEEDED = ("x-ca-key", "x-ca-nonce", "x-ca-timestamp", "x-ca-signature", "x-ca-signature-headers")


def refusal(name: str, *, more: str = "", retry_after_s: int | None = None) -> Reply:
    """Return what the gateway answers; a text in `more` is said behind its own."""
    status, code, message = REFUSALS[name]
    headers = {"X-Ca-Request-Id": "00000000-0000-4000-8000-000000000000"}
    headers |= {"X-Ca-Error-Code": code} if code else {}
    headers |= {"X-Ca-Error-Message": message + more}
    headers |= {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return Reply(status, b"", "text/plain", headers)


class Gateway:
    """Checks signatures.

    Args:
        app_key: Of the one application there is.
        app_secret: Its secret.
    """

    def __init__(self, app_key: str, app_secret: str) -> None:
        self.app_key = app_key
        self.app_secret = app_secret
        self.nonces: set[str] = set()

    def check(self, call: Recorded) -> Reply | None:
        """Return why a request may not pass; None: it may, and its nonce is used up."""
        sent = {name: call.headers.get(name, "") for name in _NEEDED}
        if not all(sent.values()):
            return refusal("header")
        if sent["x-ca-key"] != self.app_key:
            return refusal("key")
        if abs(int(sent["x-ca-timestamp"]) / 1000 - time.time()) > _WINDOW_S:
            return refusal("clock")
        digest = hashlib.md5(call.body, usedforsecurity=False).digest()
        md5 = call.headers.get("content-md5", "")
        if call.body and md5 != base64.b64encode(digest).decode():
            return refusal("md5")
        signed = self._signed_text(call)
        own = hmac.new(self.app_secret.encode(), signed.encode(), hashlib.sha256).digest()
        if not hmac.compare_digest(base64.b64encode(own).decode(), sent["x-ca-signature"]):
            shown = signed.replace("\n", "#")
            return refusal("signature", more=f", Server StringToSign:`{shown}`")
        if sent["x-ca-nonce"] in self.nonces:
            return refusal("nonce")
        self.nonces.add(sent["x-ca-nonce"])
        return None

    @staticmethod
    def _signed_text(call: Recorded) -> str:
        """Put together what a client must have signed."""
        lines = [call.method]
        lines += [
            call.headers.get(name, "") for name in ("accept", "content-md5", "content-type", "date")
        ]
        names = call.headers["x-ca-signature-headers"].lower().split(",")
        lines += [f"{name}:{call.headers.get(name, '')}" for name in sorted(names)]
        return "\n".join([*lines, call.path + (f"?{call.query}" if call.query else "")])

"""Where the local SpeedPix keeps files: uploads by signed addresses, outputs for as long as they are kept.

Stage: tests. In: what the API signs, and requests to the second port. Out: their answers. Nothing here
looks at a credential: one that arrives is a leak.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from nbimg.testing.pictures import MEDIA_TYPES
from nbimg.testing.server import Recorded, Reply

__all__ = ["FileStore", "TemporaryFile", "media_type", "xml_error"]


@dataclass(slots=True)
class TemporaryFile:
    """A file that a client was given an address for; `data` is None until it was sent."""

    key: str
    name: str
    content_type: str
    signed_s: float
    data: bytes | None = None


def media_type(file_format: str) -> str:
    """Return the media type of an output, by its extension without the dot."""
    return {**MEDIA_TYPES, "mp4": "video/mp4", "webm": "video/webm"}[file_format]


def xml_error(status: int, code: str) -> Reply:
    """Return what a store of objects says."""
    page = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>"
    return Reply(status, page.encode(), "application/xml")


class FileStore:
    """The files that clients sent.

    Args:
        clock: The server's clock.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.files: dict[str, TemporaryFile] = {}

    def sign(
        self, base_url: str, body: Mapping[str, Any], upload_s: float
    ) -> dict[str, Any] | None:
        """Return the addresses for a file that is to come; None when the request is not whole.

        Args:
            base_url: Of the store.
            body: What was asked.
            upload_s: How long the address is good.
        """
        name, kind = body.get("originalFilename"), body.get("contentType")
        if not isinstance(name, str) or not isinstance(kind, str):
            return None
        suffix = name.rpartition(".")[2] if "." in name else "bin"
        key = f"{secrets.token_hex(12)}.{suffix}"
        self.files[key] = TemporaryFile(key, name, kind, self._clock())
        where = f"{base_url}/temp/{key}"
        return {
            "uploadUrl": f"{where}?Signature={secrets.token_hex(8)}",
            "objectKey": f"temp/{key}",
            "path": f"/temp/{key}",
            "expireTime": int(upload_s),
            "accessUrl": where,
        }

    def put(self, call: Recorded, upload_s: float) -> Reply:
        """Take a file in, at an address that was signed for it and its type."""
        file = self.files.get(call.path.rpartition("/")[2])
        late = file is not None and self._clock() >= file.signed_s + upload_s
        if file is None or late or "Signature" not in parse_qs(call.query):
            return xml_error(403, "AccessDenied")
        if call.headers.get("Content-Type") != file.content_type:
            return xml_error(403, "SignatureDoesNotMatch")
        file.data = call.body
        return Reply(200)

    def trouble(self, value: object, base_url: str, retention_s: float) -> str | None:
        """Return why the value of a file input cannot be used; None: it can.

        Args:
            value: An address or base64.
            base_url: Of the store.
            retention_s: How long what was sent is kept.
        """
        if value is None:
            return None
        if not isinstance(value, str):
            return "not an address"
        if value.startswith("data:"):
            return None if _whole(value) else "not base64 of a known type"
        if not value.startswith(("http://", "https://")):
            return f"no such file {value!r}"
        if value.startswith(f"{base_url}/temp/"):
            file = self.files.get(value.rpartition("/")[2])
            gone = file is None or file.data is None
            if file is None or gone or self._clock() >= file.signed_s + retention_s:
                return "404 Client Error: Not Found"
        return None


def _whole(uri: str) -> bool:
    head, _, payload = uri.partition(",")
    if not re.fullmatch(r"data:(image|video|audio)/[\w.+-]+;base64", head):
        return False
    try:
        return bool(base64.b64decode(payload, validate=True))
    except binascii.Error:
        return False

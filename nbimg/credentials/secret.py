"""A credential that does not show itself, and a text without any.

Stage: below everything that knows a credential. Comes in: a key, as somebody typed or stored it. Goes out:
a `Secret`, opened only where a request is signed. Must not: print, log or store one.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
from collections.abc import Mapping
from typing import Any

from nbimg.errors import OptionError, SettingError

__all__ = ["Secret", "digest", "redact", "secret", "veiled"]

_MASK = "•••"
_SALT = secrets.token_bytes(16)
_seen: set[str] = set()


class Secret:
    """A credential that shows itself as dots everywhere but in `reveal()`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value.strip()
        if len(self._value) >= 4:
            _seen.add(self._value)
        if not (self._value.isascii() and self._value.isprintable()):
            raise SettingError(
                "a key has a character that no key has.",
                hint="Copy it again, without quotes or spaces.",
            )

    def reveal(self) -> str:
        """Return the credential; only for the header of a request to its own provider."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({_MASK})"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        raise TypeError("a Secret is not written to disk")


def redact(text: str) -> str:
    """Replace every credential that this process has seen by dots."""
    for value in sorted(_seen, key=len, reverse=True):
        text = text.replace(value, _MASK)
    return text


def veiled(record: logging.LogRecord) -> bool:
    """Take every credential out of a line of a log; a filter for a logger that is not ours."""
    record.msg, record.args = redact(record.getMessage()), ()
    return True


def secret(name: str, place: str, value: Any) -> Secret:
    """Return a value as a secret; what is wrong with it is said without showing it."""
    if isinstance(value, Secret) and value:
        return value
    if not isinstance(value, str) or not value.strip():
        raise OptionError(f"{name} ({place}) is empty.")
    try:
        return Secret(value)
    except SettingError as error:
        raise SettingError(
            f"{name} ({place}) has a character that no key has.", hint=error.hint
        ) from None


def digest(parts: Mapping[str, Secret]) -> str:
    """Return what stands for credentials in this process, and tells nothing of them."""
    text = "\0".join(f"{name}={secret.reveal()}" for name, secret in sorted(parts.items()))
    return hmac.digest(_SALT, text.encode(), hashlib.sha256).hex()[:8]

"""What a call is given itself: credentials for it alone, and so an account of its own.

Stage: below the credentials of the kernel (`keys`). Comes in: `credentials=` of a call. Goes out: secrets by
variable, which only what runs inside the call finds. Must not: keep them, or show one in a message.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from nbimg.credentials.secret import Secret, digest, secret
from nbimg.errors import InputError, OptionError, UnknownNameError, closest

__all__ = [
    "PLACE",
    "PROVIDER_KEYS",
    "account",
    "declare",
    "given",
    "look",
    "read_credentials",
    "spelled",
    "unknown",
]

_ways: dict[str, tuple[tuple[str, ...], ...]] = {
    "replicate": (("REPLICATE_API_TOKEN",),),
    "openai": (("OPENAI_API_KEY",),),
    "hunyuan": (("HUNYUAN_API_KEY",), ("HUNYUAN_SECRET_ID", "HUNYUAN_SECRET_KEY")),
    "speedpix": (("SPEEDPIX_APP_KEY", "SPEEDPIX_APP_SECRET"),),
}
PROVIDER_KEYS: Mapping[str, tuple[tuple[str, ...], ...]] = MappingProxyType(_ways)
"""Provider → the environment variables that hold its credential, each way that there is, best first."""


def declare(provider: str, *ways: tuple[str, ...]) -> None:
    """Say which variables hold the credential of a provider that nbimg does not know by itself.

    Args:
        provider: Its name; what is known of it already stays.
        ways: Each way to be let in, best first: the variables that it takes together.
    """
    _ways.setdefault(provider, ways)


PLACE = "the call"
#: What is longer than any name that somebody would type for a provider may be a key.
_LONGEST_NAME = 24
_given: ContextVar[Mapping[str, Secret]] = ContextVar("nbimg_given", default=MappingProxyType({}))


def look(variable: str) -> Secret | None:
    """Return what the call under way was given for a variable."""
    return _given.get().get(variable)


def read_credentials(credentials: Any) -> Mapping[str, Secret]:
    """Return variable → secret of what a call was given; no message shows a value.

    Args:
        credentials: Provider → its key, or a dict of its variables where it has several parts.

    Raises:
        UnknownNameError: When there is no such provider or variable.
        OptionError: When it has another form, or a part is missing or empty.
        SettingError: When a key has a character that no key has.
    """
    if not isinstance(credentials, Mapping):
        raise OptionError(
            "credentials is a dict: provider → key.", hint='credentials={"replicate": key}'
        )
    found: dict[str, Secret] = {}
    for provider, value in credentials.items():
        if provider not in PROVIDER_KEYS:
            raise unknown("provider", str(provider), PROVIDER_KEYS)
        found |= _parts_of(provider, value)
    return found


def _parts_of(provider: str, value: Any) -> dict[str, Secret]:
    ways = PROVIDER_KEYS[provider]
    if not isinstance(value, Mapping):
        single = next((way[0] for way in ways if len(way) == 1), None)
        if single is None or not isinstance(value, str | Secret):
            form = ", ".join(f'"{name}": …' for name in ways[-1])
            raise OptionError(
                f"the credential of {provider} is {spelled(provider)}.",
                hint=f'credentials={{"{provider}": {{{form}}}}}',
            )
        value = {single: value}
    names = tuple(name for way in ways for name in way)
    for name in value:
        if name not in names:
            raise unknown("variable", str(name), names)
    parts = {name: secret(name, PLACE, text) for name, text in value.items()}
    if not any(set(way) <= parts.keys() for way in ways):
        raise OptionError(f"the credential of {provider} is {spelled(provider)}, all of it.")
    return parts


@contextlib.contextmanager
def given(credentials: Mapping[str, Secret]) -> Iterator[None]:
    """Let a call have credentials of its own: what runs inside finds these first."""
    token = _given.set(credentials)
    try:
        yield
    finally:
        _given.reset(token)


def account(provider: str) -> str:
    """Return the name of the account that the call under way uses: limits hold for each by itself.

    The provider's own name, unless the call has a credential of its own; then it is followed by a slash
    and something that stands for the credential in this process, and tells nothing of it.
    """
    own = _given.get()
    variables = {name for way in PROVIDER_KEYS.get(provider, ()) for name in way}
    parts = {name: secret for name, secret in own.items() if name in variables}
    return f"{provider}/{digest(parts)}" if parts else provider


def spelled(provider: str) -> str:
    """Return the variables of a provider, in words: `A, or B and C`."""
    return ", or ".join(" and ".join(way) for way in PROVIDER_KEYS.get(provider, (("its key",),)))


def unknown(kind: str, name: str, known: Collection[str]) -> InputError:
    """Return the error for a name that is not there; one that may be a key is not shown."""
    if len(name) <= _LONGEST_NAME and name.replace("_", "").replace("-", "").isalpha():
        return UnknownNameError(kind, name, known=known, hint=f"There are {', '.join(known)}.")
    near = closest(name, known)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"There are {', '.join(known)}."
    return InputError(f"that is the name of no {kind}.", hint=hint)

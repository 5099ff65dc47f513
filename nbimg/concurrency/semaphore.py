"""Named semaphores: how many may do a thing at once, in a kernel, on a machine, or on several.

Stage: below the engine, and for the user's own code. Comes in: a name. Goes out: its semaphore (`permits`).
Must not: know a provider's protocol.

The account of a provider is one of them, under the provider's name: own code that holds it shares the
permits with the cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from nbimg import config
from nbimg.concurrency.permits import SCOPES, Semaphore, check
from nbimg.config import Settings
from nbimg.errors import SettingError, UnknownNameError

__all__ = [
    "ACCOUNTS",
    "SCOPES",
    "Semaphore",
    "account_semaphore",
    "get_semaphore",
    "own_limit",
    "register_semaphore",
    "semaphores",
]

#: Provider → how many of its calls may be under way at once, where nobody says otherwise.
ACCOUNTS: Final[Mapping[str, int]] = MappingProxyType(
    {"demo": 1, "hunyuan": 2, "local": 1, "openai": 4, "replicate": 8, "speedpix": 4}
)


_known: dict[str, Semaphore] = {}


def register_semaphore(name: str, limit: int, scope: str = "kernel") -> Semaphore:
    """Make a semaphore of that name, or change the limit or the scope of the one that there is.

    A provider's name is its account's: `concurrency=` never goes beyond what is registered.

    Args:
        name: Any; for `get_semaphore(name)` and `semaphore=name`.
        limit: How many permits, from 1.
        scope: `kernel`; `host`: shared by all kernels of this user on this machine; the address of a
            Redis server (`redis://HOST:6379/0`, `rediss://` over TLS): shared by all kernels that reach it.

    Raises:
        SettingError: When the limit or the scope means nothing, or the server cannot be reached.
        DependencyMissingError: When the scope needs a package that is not installed.
    """
    check(name, limit, scope)
    found = account_semaphore(name, limit)
    found.scope = scope
    found.limit = found.registered = limit
    return found


def get_semaphore(name: str) -> Semaphore:
    """Return the semaphore of a name, to be held by `with` or `async with`.

    Raises:
        UnknownNameError: When none was registered and no provider is called so.
    """
    if name not in _known and name in ACCOUNTS:
        return account_semaphore(name, own_limit(config.kernel(), name) or ACCOUNTS[name])
    try:
        return _known[name]
    except KeyError:
        raise UnknownNameError(
            "semaphore",
            name,
            hint=f"There are {', '.join(sorted({*_known, *ACCOUNTS}))}; "
            f"nbimg.register_semaphore({name!r}, 4) makes one.",
        ) from None


def semaphores() -> Mapping[str, Semaphore]:
    """Return the semaphores that were registered or used so far, by name."""
    return MappingProxyType(dict(_known))


def account_semaphore(name: str, limit: int) -> Semaphore:
    """Return the semaphore of a provider's account, made with that limit when there is none."""
    # in one step: two threads get the same
    return _known.get(name) or _known.setdefault(name, Semaphore(name, limit))


def own_limit(settings: Settings, account: str) -> int | None:
    """Return how many calls at once the user's settings allow an account; None: they do not say.

    Raises:
        SettingError: When that is no whole number from 1.
    """
    own = settings.provider(account, "concurrency")
    own = settings.get("concurrency") if own is None else own
    try:
        limit = None if own is None else int(own)
    except (TypeError, ValueError):
        raise SettingError(f"concurrency {own!r} of {account} is not a number.") from None
    if limit is not None and limit < 1:
        raise SettingError(f"concurrency {limit} of {account} is below 1.")
    return limit

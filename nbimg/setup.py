"""The providers' keys: which are there, whether one works, where it is kept.

Stage: above the session, below the magic that asks. Comes in: a provider, a credential. Goes out: lines for
the user; a key in this session, in the keyring or in `.env`. Must not: ask anybody, or show a key.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence

from nbimg.backends.base import RemoteBackend
from nbimg.backends.registry import BUILT_IN
from nbimg.credentials import envfile, keys, vault
from nbimg.credentials.given import PROVIDER_KEYS, given, spelled, unknown
from nbimg.credentials.secret import Secret, redact
from nbimg.errors import StoreWriteError, UnreachableError
from nbimg.session import Session

__all__ = ["PLACES", "check", "find_provider", "forget", "keep", "places", "render", "ways"]

#: Where a key can be kept: the word for it → where that is.
PLACES: Mapping[str, str] = {
    "session": keys.SESSION,
    "keyring": vault.KEYRING,
    "env": keys.FILE,
}
#: How long a provider may take to say whether it knows a key, in seconds.
CHECK_S = 20.0


def render(session: Session) -> str:
    """Return a line a provider: where its key comes from, or how to set one; never a key."""
    session.keys.gather()
    rows = []
    for provider in _providers(session):
        place = session.keys.place(provider)
        if place is not None:
            rows.append((provider, f"key from {place}", ""))
        elif half := session.keys.half(provider):
            rows.append((provider, "half a key", half))
        else:
            rows.append((provider, "no key", f"%imgsetup {provider}, or set {spelled(provider)}"))
    left, middle = (max(len(row[column]) for row in rows) for column in (0, 1))
    lines = [f"{name:{left}}  {state:{middle}}  {how}".rstrip() for name, state, how in rows]
    return "\n".join([*lines, "", "%imgsetup PROVIDER asks for a key, tries it, and keeps it."])


def find_provider(word: str, session: Session) -> str:
    """Return the provider that a word means: its name, or the variable of its key.

    Raises:
        InputError: When there is none; a word that may be a key is not shown.
    """
    for provider, some in PROVIDER_KEYS.items():
        if word.upper() in (name for way in some for name in way):
            return provider
    names = (*_providers(session), *session.registry.names())
    if word.lower() not in names:
        raise unknown("provider", word, tuple(_providers(session)))
    return word.lower()


def ways(provider: str, session: Session) -> Sequence[Sequence[str]]:
    """Return the variables of a provider's credential, each way that there is; none: it needs no key."""
    if provider not in PROVIDER_KEYS:
        session.registry.get(provider)  # which says what its key is called
    return PROVIDER_KEYS.get(provider, ())


def check(provider: str, own: Mapping[str, Secret], session: Session) -> str:
    """Try a credential; return what the provider says of it, empty where nothing can be tried for nothing.

    Args:
        provider: Whose it is.
        own: Variable → secret; empty: the one that is in force.
        session: Whose settings and connections are used.

    Raises:
        KeyRejectedError: When the provider does not accept it.
        BackendError: When it could not be asked.
    """
    with given(own):
        backend = session.registry.get(provider)
        return session.portal.call(_checked, backend) if isinstance(backend, RemoteBackend) else ""


async def _checked(backend: RemoteBackend) -> str:
    try:
        async with asyncio.timeout(CHECK_S):
            return await backend.check()
    except TimeoutError:
        raise UnreachableError(
            f"{backend.name} did not answer within {CHECK_S:g} s.", backend=backend.name
        ) from None


def places() -> tuple[str, ...]:
    """Return the words of the places that this machine has."""
    return tuple(word for word in PLACES if word != "keyring" or vault.keyring() is not None)


def keep(provider: str, own: Mapping[str, Secret], place: str, session: Session) -> list[str]:
    """Keep a credential.

    Args:
        provider: Whose it is.
        own: Variable → secret.
        place: A word of `PLACES`.
        session: Where it is used from now on.

    Returns:
        What to say about it, a line each.

    Raises:
        StoreWriteError: When it cannot be written there; it is not kept then.
    """
    folder, said = session.keys.folder, []
    if place == "env":
        ignored = envfile.ignore(folder)
        envfile.put(folder, {name: value.reveal() for name, value in own.items()})
        said.append(f"It is in {folder / envfile.NAME}, which only you can read.")
        said.extend([ignored] if ignored else [])
    elif place == "keyring":
        with _keyring():
            for name in _variables(provider):
                if name in own:
                    vault.keep(name, own[name].reveal())
                else:  # what is left of another way to sign would win
                    vault.forget(name)
        said.append(f"It is in the keyring, under {vault.SERVICE}.")
    for name in _variables(provider):
        session.keys.forget(name)
    session.keys.gather(anew=True)
    if place == "session":
        said.append("It is kept until the kernel ends.")
    elif session.keys.parts(provider) != own:
        first = session.keys.place(provider)
        said.append(f"A new kernel will take the key of {first} first: take it away there.")
    if session.keys.parts(provider) != own:
        for name, value in own.items():
            session.keys.remember(name, value)
    return said


def forget(provider: str, session: Session) -> list[str]:
    """Take a credential away from wherever `keep` may have put it; return what to say about it.

    Raises:
        StoreWriteError: When it cannot be taken away.
    """
    names = _variables(provider)
    forgotten = [name for name in names if session.keys.forget(name)]
    gone = [keys.SESSION] if forgotten else []
    session.keys.gather(anew=True)
    if any(session.keys.kept(vault.KEYRING, name) for name in names):
        with _keyring():
            for name in names:
                vault.forget(name)
        gone.append(vault.KEYRING)
    if envfile.drop(session.keys.folder, names):
        gone.append(keys.FILE)
    session.keys.gather(anew=True)
    said = [f"The key of {provider} is gone from {' and '.join(gone)}."] if gone else []
    if (place := session.keys.place(provider)) is not None:
        more = "another" if gone else "one"
        said.append(f"There is {more} in {place}, which has to be taken away there.")
    return said or [f"There is no key of {provider}."]


@contextlib.contextmanager
def _keyring() -> Iterator[None]:
    """Let the errors of a keyring, of which each system has its own, be one of ours."""
    try:
        yield
    except Exception as error:
        why = redact(" ".join(str(error).split()))[:200] or type(error).__name__
        raise StoreWriteError(f"the keyring did not take it: {why}.") from None


def _variables(provider: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for way in PROVIDER_KEYS.get(provider, ()) for name in way))


def _providers(session: Session) -> list[str]:
    """The providers that take a key; a plug-in says so when it is made."""
    for name in session.registry.names():
        if name not in BUILT_IN and name not in PROVIDER_KEYS:
            with contextlib.suppress(Exception):  # one that is broken must not hide the others
                session.registry.get(name)
    return list(PROVIDER_KEYS)

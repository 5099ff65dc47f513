"""What `%imgsetup` does: ask for a key, try it, keep it.

Stage: the front end, behind the magic, imported when it runs. Comes in: its line; a key, typed where it is
not shown. Goes out: lines of text. Must not: echo a key, take one from the line, or read one where it
would be seen.
"""

from __future__ import annotations

import getpass
import re
import shlex
import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nbimg import setup
from nbimg.credentials.given import spelled, unknown
from nbimg.credentials.secret import Secret
from nbimg.errors import (
    BackendError,
    InputError,
    KeyMissingError,
    KeyRejectedError,
    OptionError,
    SettingError,
    SetupError,
)
from nbimg.notebook.run import answering
from nbimg.session import Session

__all__ = ["WORDS", "run"]

#: What the line takes besides a provider: `--session` and the like, and what takes a key away.
WORDS = (*(f"--{place}" for place in setup.PLACES), "--forget", "--debug")
#: Provider → where a person gets a key.
PAGES: Mapping[str, str] = {
    "replicate": "https://replicate.com/account/api-tokens",
    "openai": "https://platform.openai.com/api-keys",
    "hunyuan": "https://console.cloud.tencent.com",
}
#: So often somebody may mistype where the key is to be kept.
TRIES = 3


class _NobodyError(Exception):
    """Nobody can be asked here, or only where the answer would be seen."""


class _Line(NamedTuple):
    """What a line says."""

    provider: str | None
    place: str | None
    forget: bool


def run(line: str, session: Session) -> None:
    """Do what the line says, and print what came of it.

    Args:
        line: `[PROVIDER] [--session | --keyring | --env] [--forget]`.
        session: Where the keys are used.

    Raises:
        KeyRejectedError: When the provider does not accept the key; nothing is kept then.
        KeyMissingError: When there is no key, and nobody who can be asked for one.
        NbimgError: When the line does not fit, or the key cannot be kept.
    """
    with answering(line):
        asked = _read(line, session)
        if asked.provider is None:
            print(setup.render(session))
        elif asked.forget:
            print("\n".join(setup.forget(asked.provider, session)))
        else:
            _set(asked.provider, asked.place, session)


def _set(provider: str, place: str | None, session: Session) -> None:
    ways = setup.ways(provider, session)
    if not ways:
        print(f"{provider} needs no key.")
        return
    session.keys.gather(anew=True)
    there = session.keys.place(provider)
    try:
        own = _typed(provider, ways, there)
    except _NobodyError:
        if there is None:
            raise KeyMissingError(
                f"nobody can be asked for the key of {provider} here.",
                hint=f"Set {spelled(provider)} in the environment, or in a .env file beside the notebook.",
            ) from None
        print(f"{provider} has a key from {there}; nobody can be asked for another one here.")
        return
    if not own:
        print("Nothing was changed." if there is None else f"The key from {there} stays.")
    if own or there is not None:
        print(_tried(provider, own, session))
    if own:
        print("\n".join(setup.keep(provider, own, place or _chosen(), session)))


def _tried(provider: str, own: Mapping[str, Secret], session: Session) -> str:
    """Try a key; return what came of it.

    Raises:
        KeyRejectedError: When the provider does not accept it.
    """
    if session.settings.get("offline"):
        return "It was not tried: NbImg.offline is set."
    try:
        said = setup.check(provider, own, session)
    except KeyRejectedError as error:
        kept = " Nothing was kept." if own else ""
        raise KeyRejectedError(
            f"{error.message}{kept}", hint=error.hint, backend=provider
        ) from None
    except (BackendError, SetupError) as error:
        return f"It could not be tried: {error}"
    if not said:
        return f"It was not tried: {provider} answers nothing that costs nothing."
    return f"{provider} accepts the key: {said}."


# ------------------------------------------------------------------ asking


def _typed(provider: str, ways: Sequence[Sequence[str]], there: str | None) -> dict[str, Secret]:
    """Ask for a credential; Enter goes on to the next way, or leaves all as it is.

    Raises:
        InputError: When only a part was typed, or it is no key.
    """
    if provider in PAGES:
        print(f"Keys of {provider}: {PAGES[provider]}")
    for place, way in enumerate(ways):
        following = " and ".join(ways[place + 1]) if place + 1 < len(ways) else None
        own: dict[str, Secret] = {}
        for variable in way:
            instead = f"to give {following}" if following else "to keep the one that is there"
            optional = not own and (following or there is not None)
            found = _hidden(f"{variable} (Enter {instead}): " if optional else f"{variable}: ")
            if (text := _tidied(variable, found)) or own:
                own[variable] = _whole(variable, text, way)
            else:
                break
        if own:
            return own
    return {}


def _whole(variable: str, text: str, way: Sequence[str]) -> Secret:
    if not text:
        raise InputError(f"{' and '.join(way)} belong together. Nothing was kept.")
    if re.search(r"\s", text):
        raise SettingError(f"{variable} has no spaces inside.", hint="Copy it again.")
    return Secret(text)


def _tidied(variable: str, text: str) -> str:
    """Take off what is copied along: `NAME=`, quotes, `Bearer`."""
    found = re.sub(rf"^\s*(?:export\s+)?{variable}\s*=|^\s*Bearer\s", "", text).strip()
    quoted = len(found) > 1 and found[0] == found[-1] and found[0] in "\"'"
    return found[1:-1].strip() if quoted else found


def _hidden(prompt: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)  # it would be seen
            return getpass.getpass(prompt)  # by the module: ipykernel puts its own there
    except (EOFError, OSError, NotImplementedError, getpass.GetPassWarning):
        raise _NobodyError from None


def _chosen() -> str:
    """Ask where the key is to be kept."""
    known = setup.places()
    listed = ", ".join(f"{number} {setup.PLACES[one]}" for number, one in enumerate(known, 1))
    for _ in range(TRIES):
        try:
            word = input(f"Keep it in: {listed} [1] ").strip().lower().lstrip("-.")
        except (EOFError, NotImplementedError):
            return known[0]
        if not word:
            return known[0]
        if word in known:
            return word
        if word.isdecimal() and 1 <= int(word) <= len(known):
            return known[int(word) - 1]
        print(f"A number from 1 to {len(known)}, or one of {', '.join(known)}.")
    raise OptionError("nothing was kept.", allowed=known, hint=f"There are {', '.join(known)}.")


# ------------------------------------------------------------------ the line


def _read(line: str, session: Session) -> _Line:
    """Read the line; a word that may be a key is never shown."""
    try:
        words = shlex.split(line)
    except ValueError:
        raise OptionError("%imgsetup takes the name of a provider, without quotes.") from None
    flags = [word for word in words if word.startswith("-")]
    names = [word for word in words if not word.startswith("-")]
    for flag in flags:
        if flag not in WORDS:
            raise unknown("option", flag.partition("=")[0], WORDS)
    if len(names) > 1:
        raise OptionError(
            "%imgsetup takes the name of a provider and no key: the line is saved with the notebook.",
            hint="If there was a key on it, delete it here and at the provider, and make a new one.",
        )
    places = [flag.removeprefix("--") for flag in flags if flag.removeprefix("--") in setup.PLACES]
    if len(places) > 1:
        raise OptionError("a key is kept in one place.", allowed=WORDS)
    if places and places[0] not in setup.places():
        raise OptionError(
            "this machine has no keyring that nbimg can use.", hint="pip install 'nbimg[keyring]'"
        )
    if not names:
        if places or "--forget" in flags:
            raise OptionError(f"{flags[0]} needs the name of a provider.", allowed=WORDS)
        return _Line(None, None, forget=False)
    provider = setup.find_provider(names[0], session)
    return _Line(provider, places[0] if places else None, forget="--forget" in flags)

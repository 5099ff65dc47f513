"""Credentials: where they come from, and that they go nowhere else.

Stage: below the backends. Comes in: what the call gave, what the session was told, the environment,
`.env`. Goes out: a `Secret`, opened only where a request is signed. Must not: print, log or store one.

The places, first wins: the call · this session · the keyring · Colab's secrets · the environment · `.env`.
A credential of several parts is taken from one place where one has all of them.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from nbimg.credentials import given, vault
from nbimg.credentials.given import PROVIDER_KEYS, spelled
from nbimg.credentials.secret import Secret, digest, redact, secret
from nbimg.errors import KeyMissingError, SettingError

__all__ = ["ENVIRONMENT", "FILE", "PROVIDER_KEYS", "SESSION", "Keys", "Secret", "redact"]

SESSION, ENVIRONMENT, FILE = "this session", "the environment", ".env"

Look = Callable[[str], "str | Secret | None"]


class Keys:
    """The credentials of a kernel, in three tiers: given with the call, the session's, the environment.

    Args:
        environ: Read at every look-up.
        folder: Where `.env` is looked for; None: the current folder.
    """

    def __init__(
        self, environ: Mapping[str, str] | None = None, folder: Path | None = None
    ) -> None:
        self._own = environ  # the process's is not held: whoever shows this object would show it
        self._folder = folder
        self._session: dict[str, Secret] = {}
        self._kept: dict[str, dict[str, Secret | None]] = {vault.KEYRING: {}, vault.COLAB: {}}
        self._missed: set[str] = set()

    @property
    def folder(self) -> Path:
        """Where `.env` is looked for."""
        return self._folder or Path.cwd()

    def remember(self, variable: str, value: str | Secret) -> None:
        """Keep a credential for this session."""
        self._session[variable] = value if isinstance(value, Secret) else Secret(value)

    def forget(self, variable: str) -> bool:
        """Take a credential out of this session; return whether it was there."""
        return self._session.pop(variable, None) is not None

    def gather(self, *, anew: bool = False) -> None:
        """Ask the keyring and Colab's secrets; to be called where a call begins, not on the loop.

        Args:
            anew: Ask for everything again. Without it a variable is asked for once, or again after its
                provider was found to have no key.
        """
        missed, self._missed = self._missed, set()
        for place, ask in vault.places().items():
            known = self._kept[place]
            for provider, ways in PROVIDER_KEYS.items():
                for variable in (name for way in ways for name in way):
                    absent = provider in missed and known.get(variable) is None
                    if anew or absent or variable not in known:
                        value = ask(variable)
                        known[variable] = None if value is None else Secret(value)

    def kept(self, place: str, variable: str) -> bool:
        """Whether the keyring, or Colab's secrets, were seen to have a variable."""
        return bool(self._kept[place].get(variable))

    def find(self, provider: str) -> Secret | None:
        """Return the credential of `provider`, the first part of one that has several; or None."""
        return next(iter(self.parts(provider).values()), None)

    def parts(self, provider: str) -> Mapping[str, Secret]:
        """Return variable → secret of the first place that has a whole credential; or nothing.

        Raises:
            SettingError: When a key has a character that no key has, or `.env` cannot be read.
        """
        values, place = self._found(provider)
        return {name: secret(name, place, value) for name, value in values.items()}

    def place(self, provider: str) -> str | None:
        """Return where the credential of `provider` comes from, in words; None: there is none."""
        values, place = self._found(provider)
        return place if values else None

    def need(self, provider: str) -> Secret:
        """Return the credential of `provider`.

        Raises:
            KeyMissingError: When there is none in any tier.
        """
        found = self.find(provider)
        if found is None:
            half = self.half(provider)
            raise KeyMissingError(
                f"no key for {provider}{': ' * bool(half)}{half}.",
                hint=f"%imgsetup {provider} asks for it; or set {spelled(provider)} in the environment, "
                "or in a .env file beside the notebook.",
            )
        return found

    def identity(self) -> str:
        """Return what stands for all credentials that are in force: who is refused once they differ?"""
        parts: dict[str, Secret] = {}
        for provider in PROVIDER_KEYS:
            with contextlib.suppress(SettingError):
                parts |= self.parts(provider)
        return digest(parts)

    # ------------------------------------------------------------------ inside

    def _found(self, provider: str) -> tuple[Mapping[str, str | Secret], str]:
        """Return the first whole credential, and where it is from."""
        places = self._places()

        def anywhere(variable: str) -> str | Secret | None:
            return next((value for _, look in places if (value := look(variable))), None)

        for place, look in (*places, ("several places", anywhere)):
            for way in PROVIDER_KEYS.get(provider, ()):
                values = {name: value for name in way if (value := look(name))}
                if len(values) == len(way):
                    return values, place
        self._missed.add(provider)
        return {}, ""

    def _places(self) -> tuple[tuple[str, Look], ...]:
        """The places, first wins."""
        return (
            (given.PLACE, given.look),
            (SESSION, self._session.get),
            *((place, known.get) for place, known in self._kept.items()),
            (ENVIRONMENT, self._environ),
            (FILE, lambda variable: self._dotenv().get(variable)),
        )

    def half(self, provider: str) -> str:
        """Return what is missing of a credential of which a part is there, in words; empty: nothing is."""
        for way in PROVIDER_KEYS.get(provider, ()):
            there = [name for name in way if any(look(name) for _, look in self._places())]
            if there:
                missing = [name for name in way if name not in there]
                return f"{' and '.join(missing)} is missing beside {' and '.join(there)}"
        return ""

    def _environ(self, variable: str) -> str:
        return (os.environ if self._own is None else self._own).get(variable, "").strip()

    def _dotenv(self) -> Mapping[str, str]:
        path = self.folder / ".env"
        try:
            stat = path.stat()
            return _read(path, stat.st_mtime_ns, stat.st_size)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise SettingError(f"{path} cannot be read: {error.strerror}.") from error
        except UnicodeDecodeError:
            raise SettingError(f"{path} is not UTF-8.", hint="Save it as UTF-8.") from None


@functools.lru_cache(maxsize=4)
def _read(path: Path, _mtime_ns: int, _size_bytes: int) -> Mapping[str, str]:
    """Return what an `.env` says; it is read again only when it has changed."""
    from dotenv import dotenv_values

    return {n: value for n, value in dotenv_values(path, encoding="utf-8-sig").items() if value}

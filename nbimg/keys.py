"""Credentials: where they come from, and that they go nowhere else.

Stage: below the backends. Comes in: what the call gave, what the session was told, the environment,
`.env`. Goes out: a `Secret`, opened only where a request is signed. The only place where a credential
is a string. Must not: print, log or store one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from nbimg.errors import KeyMissingError, SettingError, UnknownNameError

__all__ = ["PROVIDER_KEYS", "Keys", "Secret", "redact"]

PROVIDER_KEYS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "replicate": (("REPLICATE_API_TOKEN",),),
    "openai": (("OPENAI_API_KEY",),),
    "hunyuan": (("HUNYUAN_API_KEY",), ("HUNYUAN_SECRET_ID", "HUNYUAN_SECRET_KEY")),
    "speedpix": (("SPEEDPIX_APP_KEY", "SPEEDPIX_APP_SECRET"),),
}
"""Provider → the environment variables that hold its credential, each way that there is, best first."""

_MASK = "•••"
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


class Keys:
    """The credentials of a kernel, in three tiers: given with the call, the session's, the environment.

    Args:
        environ: Read at every look-up.
        folder: Where `.env` is looked for; None: the current folder.
    """

    def __init__(
        self, environ: Mapping[str, str] | None = None, folder: Path | None = None
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self._folder = folder
        self._session: dict[str, Secret] = {}

    def remember(self, variable: str, value: str | Secret) -> None:
        """Keep a credential for this session."""
        self._session[variable] = value if isinstance(value, Secret) else Secret(value)

    def find(self, provider: str, given: Mapping[str, str | Secret] | None = None) -> Secret | None:
        """Return the credential of `provider`, the first part of one that has several; or None.

        Args:
            provider: Name of the backend.
            given: The call's `credentials=`: provider → credential.
        """
        for name, value in (given or {}).items():
            if name not in PROVIDER_KEYS:
                raise UnknownNameError("provider", name, known=PROVIDER_KEYS)
            if name == provider and str(value).strip():
                return value if isinstance(value, Secret) else Secret(value)
        return next(iter(self.parts(provider).values()), None)

    def parts(self, provider: str) -> Mapping[str, Secret]:
        """Return variable → secret of the first way in which the credential is complete; or nothing."""
        for variables in PROVIDER_KEYS.get(provider, ()):
            found = {name: secret for name in variables if (secret := self._one(name)) is not None}
            if len(found) == len(variables):
                return found
        return {}

    def need(self, provider: str, given: Mapping[str, str | Secret] | None = None) -> Secret:
        """Return the credential of `provider`.

        Raises:
            KeyMissingError: When there is none in any tier.
        """
        found = self.find(provider, given)
        if found is None:
            ways = [" and ".join(names) for names in PROVIDER_KEYS.get(provider, (("its key",),))]
            raise KeyMissingError(
                f"no key for {provider}.",
                hint=f"Set {', or '.join(ways)} in the environment or in a .env file beside the notebook.",
            )
        return found

    def beside(self, variable: str) -> str | None:
        """Return what stands beside the credentials and is none: a provider's address, a region.

        From the environment, else from `.env`, as the provider's own tools read it.
        """
        return self._environ.get(variable, "").strip() or self._dotenv().get(variable)

    def _one(self, variable: str) -> Secret | None:
        if variable in self._session:
            return self._session[variable]
        value = self._environ.get(variable, "").strip() or self._dotenv().get(variable)
        return Secret(value) if value else None

    def _dotenv(self) -> Mapping[str, str]:
        path = (self._folder or Path.cwd()) / ".env"
        if not path.is_file():
            return {}
        from dotenv import dotenv_values

        return {name: value for name, value in dotenv_values(path).items() if value}

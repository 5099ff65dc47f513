"""The `.env` beside the notebook, written: one key replaced, the rest as it was, out of git.

Stage: below the setup. Comes in: variables and values. Goes out: a file that only its owner reads, and a
line in `.gitignore`. Must not: lose a line that somebody else wrote, or leave a half-written file.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path

from nbimg.errors import StoreWriteError

__all__ = ["NAME", "drop", "ignore", "put"]

NAME = ".env"
#: What needs no quotes, whoever reads the file.
_PLAIN = re.compile(r"[\w./+:=@%-]*", re.ASCII)


def put(folder: Path, values: Mapping[str, str]) -> None:
    """Write variables into the `.env` of a folder; those that are there are replaced in their place.

    Raises:
        StoreWriteError: When it cannot be read or written.
    """
    left = dict(values)
    lines = []
    for name, line in _lines(folder / NAME):
        if name not in values:
            lines.append(line)
        elif name in left:  # a second line for it would win over the first
            export = "export " if line.lstrip().startswith("export ") else ""
            lines.append(f"{export}{name}={_quoted(left.pop(name))}\n")
    if lines and left and not lines[-1].endswith("\n"):
        lines.append("\n")
    lines.extend(f"{name}={_quoted(value)}\n" for name, value in left.items())
    _replace(folder / NAME, "".join(lines))


def drop(folder: Path, names: Collection[str]) -> tuple[str, ...]:
    """Take variables out of the `.env` of a folder; return those that were there.

    Raises:
        StoreWriteError: When it cannot be read or written.
    """
    lines = _lines(folder / NAME)
    gone = tuple(name for name in names if name in {entry for entry, _ in lines})
    if gone:
        _replace(folder / NAME, "".join(line for name, line in lines if name not in gone))
    return gone


def ignore(folder: Path) -> str | None:
    """See to it that git leaves the `.env` of a folder alone.

    Returns:
        What was done, or what the user has to do; None where nothing was needed.

    Raises:
        StoreWriteError: When `.gitignore` cannot be written.
    """
    if not any((parent / ".git").exists() for parent in (folder, *folder.parents)):
        return None
    if _git(folder, "ls-files", "--error-unmatch", NAME) == 0:
        return f"git has {NAME} in its history already: git rm --cached {NAME}, and make a new key."
    known = _git(folder, "check-ignore", "-q", "--no-index", NAME)
    path = folder / ".gitignore"
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape") if path.exists() else ""
        if known == 0 or (known != 1 and NAME in {line.strip() for line in text.splitlines()}):
            return None
        gap = "\n" if text and not text.endswith("\n") else ""
        path.write_bytes(f"{text}{gap}{NAME}\n".encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise StoreWriteError(f"{path} cannot be written: {error.strerror}.") from error
    return f"{path.name} has a line for it now."


def _lines(path: Path) -> list[tuple[str | None, str]]:
    """Return (variable, text) of each entry, in order; one in quotes may span lines."""
    from dotenv.parser import parse_stream

    try:
        text = path.read_bytes().decode("utf-8-sig") if path.exists() else ""
    except OSError as error:
        raise StoreWriteError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise StoreWriteError(f"{path} is not UTF-8.", hint="Save it as UTF-8.") from None
    entries = parse_stream(io.StringIO(text, newline=""))
    return [(entry.key, entry.original.string) for entry in entries]


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _replace(path: Path, text: str) -> None:
    """Write the file anew, for its owner alone, whole or not at all."""
    target = path.resolve()  # of a link, what it points to
    aside = target.with_name(f"{NAME}.{secrets.token_hex(4)}.part")
    try:
        handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise StoreWriteError(f"{path} cannot be written: {error.strerror}.") from error


def _git(folder: Path, *words: str) -> int | None:
    """Run git in a folder and return its answer; None where there is no git."""
    git = shutil.which("git")
    if git is None:
        return None
    try:
        command = [git, "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode  # noqa: S603  # our own words
    except (OSError, subprocess.TimeoutExpired):
        return None

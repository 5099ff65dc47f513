"""Names of image files that a person can read, on any system.

Stage: below the store. Comes in: a template and what may stand in it. Goes out: a relative path inside
the output folder, or an absolute one that the user typed literally. Pure: looks at no disk.
"""

from __future__ import annotations

import contextlib
import re
import string
import unicodedata
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

from nbimg.errors import InputError, UnknownNameError

__all__ = ["FIELDS", "file_name", "slug"]

FIELDS = ("index", "prompt", "model", "seed")
MAX_BYTES = 255
_MAX_SLUG = 60
#: Names that Windows keeps for devices, with any extension.
_RESERVED = {"con", "prn", "aux", "nul", "conin$", "conout$"} | {
    f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10)
}
_ILLEGAL = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')


def slug(text: str, limit: int = _MAX_SLUG) -> str:
    """Return `text` as a part of a file name: words of any script, joined by hyphens.

    >>> slug("A red house, at night!")
    'a-red-house-at-night'
    """
    normal = unicodedata.normalize("NFC", text).lower()
    kept = "".join(c if unicodedata.category(c)[0] in "LNM" else " " for c in normal)
    words, short = kept.split(), ""
    for word in words:
        longer = f"{short}-{word}" if short else word
        if len(longer) > limit:
            break
        short = longer
    return short or ("".join(words)[:limit] or "image")


def file_name(
    template: str | None, values: Mapping[str, object], extension: str, variant: int | None = None
) -> Path:
    """Return where an image goes, as the template says.

    Args:
        template: `-o`, with `{index}`, `{prompt}`, `{model}`, `{seed}`; None: prompt and seed.
        values: What the fields stand for.
        extension: With its dot; added when the template has none that is known.
        variant: 1-based number among several outputs of one task, or None for the only one.

    Raises:
        UnknownNameError: When the template names another field.
        InputError: When the name leaves the output folder.
    """
    if template is None:
        seed = values.get("seed")
        stem = slug(str(values.get("prompt", "")))
        return Path(_legal(stem, extension if seed is None else f"-{seed}{extension}"))
    filled = _filled(template, values)
    path = _inside(filled, literal="{" not in template)
    known = path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".gif", ".mp4", ".webm")
    stem, suffix = (path.stem, path.suffix) if known else (path.name, extension)
    tail = suffix if variant is None else f"_{variant}{suffix}"
    folder = path.parent if path.is_absolute() else Path(*map(_legal, path.parent.parts))
    return folder / _legal(stem, tail)


def _filled(template: str, values: Mapping[str, object]) -> str:
    parts = []
    try:
        for text, field, _, _ in string.Formatter().parse(template):
            parts.append(text)
            if field is None:
                continue
            if field not in FIELDS:
                raise UnknownNameError("field of an output name", field, known=FIELDS)
            value = values.get(field)
            parts.append(str(value) if isinstance(value, int) else slug(str(value or "none")))
    except ValueError as error:
        raise InputError(f"output name {template!r}: {error}.") from None
    return "".join(parts)


def _inside(name: str, *, literal: bool) -> Path:
    path = Path(name)
    if literal:
        with contextlib.suppress(RuntimeError):  # ~ of nobody is a name like any other
            path = path.expanduser()
    absolute = path.is_absolute() or PureWindowsPath(name).is_absolute()
    if absolute and literal:
        return path
    if absolute or ".." in PurePosixPath(name.replace("\\", "/")).parts:
        raise InputError(
            f"output name {name!r} leaves the output folder.",
            hint="Give a plain name, or an absolute path without fields.",
        )
    if not path.name:
        raise InputError(f"output name {name!r} names no file.")
    return path


def _legal(stem: str, tail: str = "") -> str:
    """Return a name that every system takes, of at most 255 bytes; `tail` is never cut off."""
    stem = _ILLEGAL.sub("-", stem).strip(" .") or "image"
    if stem.split(".")[0].rstrip().lower() in _RESERVED:
        stem = f"{stem}-" if "." not in stem else f"-{stem}"
    room = MAX_BYTES - len(tail.encode()) - 8  # a later "-2" must fit as well
    cut = stem.encode("utf-8", "ignore")[:room].decode("utf-8", "ignore").rstrip(" .")
    return (cut or "image") + tail

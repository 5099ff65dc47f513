"""A tiny element builder that escapes everything: the only place where HTML is put together.

Stage: below the whole display. Comes in: tag names, attributes and text. Goes out: `Markup`. Must
not: know what is shown. Text becomes HTML only through `element` and `text`, and text is never
formatted into a tag by hand, so a prompt cannot leave its place.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping

__all__ = ["Markup", "clean", "element", "join", "text"]

TAGS = frozenset(
    re.split(" ", "a b bdi details div img progress span summary table tbody td th tr")
)
_VOID = frozenset(("img",))
_URL_ATTRIBUTES = frozenset(("href", "src"))
_SAFE_HREF = re.compile(r"(?i:https?://)|(?![a-z][a-z0-9+.-]*:|//)", re.IGNORECASE)
_SAFE_SRC = re.compile(r"data:image/(png|jpeg|webp|gif|bmp|avif);base64,[A-Za-z0-9+/=]*\Z")
# What no JSON file or screen can use: controls except tab and newline, halves of surrogate pairs,
# and the two code points that are not characters.
_UNUSABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Markup(str):
    """HTML that is safe to put in place: every part of it was escaped."""

    __slots__ = ()


def clean(value: str) -> str:
    r"""Return the text without what cannot be saved or shown.

    >>> clean("a\r\nb\x00c")
    'a\nb\ufffdc'
    """
    return _UNUSABLE.sub("\ufffd", value.replace("\r\n", "\n").replace("\r", "\n"))


def text(value: str) -> Markup:
    """Escape a text for any place in HTML, within attributes too.

    >>> text('<b title="x">')
    '&lt;b title=&quot;x&quot;&gt;'
    """
    return Markup(html.escape(clean(value), quote=True))


def join(parts: Iterable[Markup | str | None]) -> Markup:
    """Put parts one after the other; what is not `Markup` yet is escaped."""
    return Markup("".join(_child(part) for part in parts))


def element(
    tag: str,
    *children: Markup | str | None,
    style: Mapping[str, str] | None = None,
    **attributes: str | float | bool | None,
) -> Markup:
    """Build one element.

    Args:
        tag: One of `TAGS`.
        children: Text, which is escaped, or `Markup`; None is left out.
        style: Inline declarations, in order.
        attributes: A trailing underscore is dropped (`class_`); None and False leave the attribute
            out, True writes it without a value. An address that is not http(s), relative or, for
            `src`, a picture as data is left out too.

    Returns:
        The element with its children.

    Raises:
        ValueError: When the tag is not known, or a void element is given children.
    """
    if tag not in TAGS or (tag in _VOID and children):
        raise ValueError(f"no element <{tag}> with {len(children)} children is built here")
    if style:
        attributes["style"] = ";".join(f"{name}:{value}" for name, value in style.items())
    pairs = "".join(_attribute(name.rstrip("_"), value) for name, value in attributes.items())
    if tag in _VOID:
        return Markup(f"<{tag}{pairs}>")
    return Markup(f"<{tag}{pairs}>{join(children)}</{tag}>")


def _child(part: Markup | str | None) -> str:
    if part is None:
        return ""
    return part if isinstance(part, Markup) else text(part)


def _attribute(name: str, value: str | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    written = str(value)
    if name in _URL_ATTRIBUTES:
        safe = _SAFE_SRC if name == "src" else _SAFE_HREF
        if not safe.match(written.strip()):
            return ""
    # A newline is kept as a reference: HTML would keep it, Markdown around HTML may not.
    return f' {name}="{text(written)}"'.replace("\n", "&#10;")

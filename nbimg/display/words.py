"""Numbers, times, money and long texts as a person reads them.

Stage: below the whole display. Comes in: values. Goes out: short plain text, not yet escaped. Must
not: know what is shown.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable

__all__ = ["count", "duration", "listed", "money", "rate", "shorten"]


def count(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun.

    >>> count(1, "image"), count(1200, "image")
    ('1 image', '1,200 images')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """Return a time a person can compare at a glance.

    >>> duration(0.42), duration(6.24), duration(72), duration(3700)
    ('0.4 s', '6.2 s', '1 min 12 s', '1 h 2 min')
    """
    if not math.isfinite(seconds) or seconds < 0:
        return "0 s"
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s" if rest and minutes < 10 else f"{minutes} min"
    hours, rest = divmod(round(seconds / 60), 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"


def money(usd: float) -> str:
    """Return US dollars, with more digits where they are few.

    >>> money(0), money(0.003), money(0.1), money(12.5)
    ('$0', '$0.003', '$0.10', '$12.50')
    """
    if usd <= 0:
        return "$0"
    if usd < 0.0001:
        return "under $0.0001"
    if usd < 0.1:
        digits = f"{usd:.4f}".rstrip("0")
        return f"${usd:.2f}" if len(digits) < 4 else f"${digits}"
    return f"${usd:,.2f}"


def rate(per_second: float) -> str:
    """Return images per second, or per minute where they are slow.

    >>> rate(1.24), rate(0.05)
    ('1.2 images/s', '3 images/min')
    """
    if per_second >= 0.95:
        return f"{per_second:.1f} images/s" if per_second < 9.95 else f"{per_second:.0f} images/s"
    per_minute = per_second * 60
    return f"{per_minute:.1f} images/min" if per_minute < 0.95 else f"{per_minute:.0f} images/min"


def shorten(value: str, limit: int) -> str:
    """Return the text on one line with at most `limit` characters, cut between words.

    >>> shorten("a red house at night", 12)
    'a red house…'
    """
    flat = " ".join(value[: limit * 8].split())
    if len(flat) <= limit and len(value) <= limit * 8:
        return flat
    cut = flat[: limit - 1]
    if not flat[limit - 1 : limit].isspace():
        word = cut.rfind(" ")
        cut = cut[:word] if word > limit * 0.6 else _whole_characters(cut)
    return cut.rstrip(" ,;:.-\u2013") + "…"


def listed(words: Iterable[str], limit: int = 3) -> str:
    """Return the distinct words in their order, the rest as a number.

    >>> listed(["a", "b", "a", "c", "d"], limit=2)
    'a, b and 2 more'
    """
    distinct = list(dict.fromkeys(words))
    rest = len(distinct) - limit
    return ", ".join(distinct[:limit]) + (f" and {rest} more" if rest > 0 else "")


def _whole_characters(cut: str) -> str:
    """Drop a joiner or modifier at the end: half an emoji shows as another one."""
    while cut and (unicodedata.combining(cut[-1]) or re.match("[\u200d\ufe0f]", cut[-1])):
        cut = cut[:-1]
    return cut

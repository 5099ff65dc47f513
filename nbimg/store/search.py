"""The words of a search → which images are meant.

Stage: above the index. Comes in: `red house model:flux size:>1000 is:starred -night`. Goes out: a test of
entries. Pure. Must not: refuse what it does not understand: a prompt may hold any word, so that is looked for.

All words must hold. A word is part of the prompt in any case; `"two words"` belong together; `-word` must not
be there. With a field:

    model:flux       part of the model's name
    date:2026-11     of that year, month or day; date:today, date:7d (the last seven days)
    size:1024x768    exactly; size:>1000 the longer side in pixels; size:wide, size:tall, size:square
    status:failed    ok, partial, failed, refused, cancelled, unknown; what has no image is only shown so
    seed:42
    is:starred       starred, trashed, video, edit, cached
    sort:oldest      the oldest first
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from nbimg.store.index import Entry
from nbimg.types import Status

__all__ = ["Search", "parse"]

_WORD = re.compile(r'(?P<no>-?)(?:(?P<field>[a-z]+):)?(?:"(?P<quoted>[^"]*)"?|(?P<plain>[^\s"]+))')
_DAY_S = 86400.0
#: Width divided by height from which a picture is called wide.
_WIDE = 1.05

Test = Callable[[Entry], bool]


@dataclass(frozen=True)
class Search:
    """What is looked for.

    Attributes:
        tests: All must hold.
        empty: Whether tasks without an image are meant as well.
        starred: Whether only images with a star, or only those without one, are meant; None: all.
        trashed: Whether the trash is looked through, in place of everything else.
        oldest: Whether the oldest comes first.
    """

    tests: tuple[Test, ...] = ()
    empty: bool = False
    starred: bool | None = None
    trashed: bool = False
    oldest: bool = False

    def find(
        self, entries: Sequence[Entry], starred: Collection[str], trashed: Collection[str]
    ) -> list[Entry]:
        """Return the entries that are meant, the newest first unless it says otherwise.

        Args:
            entries: The oldest first.
            starred: Keys of those with a star.
            trashed: Keys of those in the trash.
        """
        found = [
            entry
            for entry in entries
            if (entry.variant is not None or self.empty)
            and (entry.key in trashed) is self.trashed
            and (self.starred is None or (entry.key in starred) is self.starred)
            and all(test(entry) for test in self.tests)
        ]
        return found if self.oldest else found[::-1]


def parse(text: str, *, now: float | None = None) -> Search:
    """Read a search.

    Args:
        text: As typed.
        now: Unix time, for `date:today`; None: the clock's.
    """
    now = time.time() if now is None else now
    tests: list[Test] = []
    empty = trashed = oldest = False
    starred: bool | None = None
    for match in _WORD.finditer(text):
        field, no = match["field"], bool(match["no"])
        value = match["plain"] if match["quoted"] is None else match["quoted"]
        if field == "is" and value in ("starred", "star"):
            starred = not no
        elif field == "is" and value in ("trashed", "trash"):
            trashed = not no
        elif field == "sort" and value in ("oldest", "newest"):
            oldest = (value == "oldest") is not no
        else:
            test = _FIELDS[field](value.casefold(), now) if field in _FIELDS else None
            empty = empty or (field == "status" and test is not None)
            if test is None:  # no field that is known, or no value of it: words like any other
                test = _text((f"{field}:{value}" if field else value).casefold())
            tests.append(functools.partial(_not, test) if no else test)
    return Search(tuple(tests), empty, starred, trashed, oldest)


def _not(test: Test, entry: Entry) -> bool:
    return not test(entry)


def _text(value: str) -> Test:
    return lambda entry: value in entry.prompt.casefold()


def _model(value: str, _now: float) -> Test:
    return lambda entry: value in entry.model.casefold()


def _seed(value: str, _now: float) -> Test | None:
    return (lambda entry: entry.seed == int(value)) if value.isascii() and value.isdigit() else None


def _status(value: str, _now: float) -> Test | None:
    return (lambda entry: entry.status == value) if value in set(Status) else None


def _is(value: str, _now: float) -> Test | None:
    tests: dict[str, Test] = {
        "video": lambda entry: entry.kind == "video",
        "edit": lambda entry: entry.edit,
        "cached": lambda entry: entry.cached,
    }
    return tests.get(value)


def _size(value: str, _now: float) -> Test | None:
    shapes: dict[str, Test] = {
        "wide": lambda entry: entry.width > entry.height * _WIDE,
        "tall": lambda entry: entry.height > entry.width * _WIDE,
        "square": lambda entry: (
            0 < entry.width <= entry.height * _WIDE and entry.height <= entry.width * _WIDE
        ),
    }
    if value in shapes:
        return shapes[value]
    if match := re.fullmatch(r"(\d{1,6})[x×](\d{1,6})", value):
        width, height = int(match[1]), int(match[2])
        return lambda entry: (entry.width, entry.height) == (width, height)
    if match := re.fullmatch(r"([<>])=?(\d{1,6})", value):
        side, more = int(match[2]), match[1] == ">"
        return lambda entry: (max(entry.width, entry.height) >= side) is more
    return None


def _date(value: str, now: float) -> Test | None:
    if value == "today":
        value = time.strftime("%Y-%m-%d", time.localtime(now))
    if match := re.fullmatch(r"(\d{1,4})d", value):
        since = now - int(match[1]) * _DAY_S
        return lambda entry: entry.at_utc >= since
    if not re.fullmatch(r"\d{4}(-\d\d(-\d\d)?)?", value):
        return None
    return lambda entry: _day(entry.at_utc).startswith(value)


@functools.lru_cache(maxsize=1 << 16)
def _day_of(hour: int) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(hour * 900))


def _day(at_utc: float) -> str:
    """The local day; zones differ by quarters of an hour."""
    return _day_of(int(at_utc // 900))


_FIELDS: dict[str, Callable[[str, float], Test | None]] = {
    "date": _date,
    "is": _is,
    "model": _model,
    "seed": _seed,
    "size": _size,
    "status": _status,
}

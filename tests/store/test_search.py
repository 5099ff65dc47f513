import time

import pytest

from nbimg.store.index import Entry
from nbimg.store.search import parse

NOW = time.mktime((2026, 11, 25, 12, 0, 0, 0, 0, -1))
DAY = 86400


def entry(number, prompt="a red house at night", **values):
    values = {"variant": 0, "key": str(number), "model": "replicate:bfl/flux-dev", **values}
    plain = {"status": "ok", "at_utc": NOW, "width": 1024, "height": 1024}
    return Entry(number=number, task=number, prompt=prompt, **{**plain, **values})


ENTRIES = [
    entry(0),
    entry(1, "a BLUE car", model="demo", width=128, height=96, at_utc=NOW - 3 * DAY),
    entry(2, "Ein grüner Wald", width=768, height=1344, seed=42, at_utc=NOW - 40 * DAY),
    entry(3, "a red car", variant=None, status="failed", width=0, height=0),
    entry(4, "size: 3:2, at 10:30", kind="video", edit=True),
]


def find(text, starred=(), trashed=()):
    return [e.number for e in parse(text, now=NOW).find(ENTRIES, starred, trashed)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", [4, 2, 1, 0]),
        ("red", [0]),
        ("blue CAR", [1]),
        ("GRÜNER", [2]),
        ('"red house"', [0]),
        ('"house red"', []),
        ("a -red", [4, 2, 1]),
        ("model:flux", [4, 2, 0]),
        ("-model:flux", [1]),
        ("size:128x96", [1]),
        ("size:>1000", [4, 2, 0]),
        ("size:<1000", [1]),
        ("size:tall", [2]),
        ("size:wide", [1]),
        ("size:square", [4, 0]),
        ("date:today", [4, 0]),
        ("date:7d", [4, 1, 0]),
        ("date:2026-10", [2]),
        ("date:2026-11-22", [1]),
        ("status:failed", [3]),
        ("-status:ok", [3]),
        ("seed:42", [2]),
        ("is:video", [4]),
        ("is:edit", [4]),
        ("sort:oldest", [0, 1, 2, 4]),
        ("3:2", [4]),
        ("10:30", [4]),
        ("nofield:value", []),
        ("size:", [4]),
        ('"red', [0]),
    ],
)
def test_a_search_finds(text, found):
    assert find(text) == found


def test_stars_and_the_trash_are_looked_through_by_their_marks():
    assert find("is:starred", starred={"1", "2"}) == [2, 1]
    assert find("-is:starred", starred={"1", "2"}) == [4, 0]
    assert find("", trashed={"1"}) == [4, 2, 0]
    assert find("is:trashed", trashed={"1"}) == [1]
    assert find("is:starred is:trashed", starred={"1", "2"}, trashed={"1"}) == [1]

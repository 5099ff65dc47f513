import asyncio
import dataclasses
import time
from pathlib import Path

import pytest

from nbimg.errors import StoreError
from nbimg.store.index import Index, Listed, key_of
from nbimg.store.journal import Journal, Row
from nbimg.types import Attempt, ErrorRecord, ImageRecord, InputImage, Request, Result, Status

FOLDER = Path("nbimg-images")


@pytest.fixture
def journal():
    one = Journal(FOLDER.absolute() / ".nbimg" / "journal.sqlite3")
    yield one
    one.close()


def image(key="a", **values):
    path = FOLDER.absolute() / f"{key}.png"
    return ImageRecord(path, width=4, height=3, sha256=key * 4, **values)


def result(index=0, prompt="a cat", images=(), at=1000.0, **values):
    attempts = (Attempt("p:m", "run", at, 2.0, "ok"),)
    return Result(index, Request(prompt), "p:m", images=images, attempts=attempts, **values)


def write(journal, batch, *results, ended=True):
    async def go():
        rows = [Row(r.index, r.request, r.model, 7, 1, None) for r in results]
        await journal.begin(batch, rows, about={})
        for one in results if ended else ():
            await journal.finished(batch, one)

    asyncio.run(go())


def test_a_folder_without_a_journal_has_nothing_to_see_and_stays_as_it_is():
    index = Index(FOLDER.absolute())
    assert not index.refresh()
    assert list(index.entries) == []
    assert not FOLDER.exists()


def test_every_image_is_a_row_and_what_has_none_is_one(journal):
    write(
        journal,
        "b",
        result(0, images=(image("a", seed=3), image("b", kind="video"))),
        result(1, "a dog", at=1001.0, status=Status.FAILED, error=ErrorRecord("X", "no")),
    )
    index = Index(FOLDER.absolute())
    assert index.refresh()
    first, second, failed = index.entries
    assert (first.key, first.variant, first.seed, first.width, first.height) == ("aaaa", 0, 3, 4, 3)
    assert (second.variant, second.kind, second.task) == (1, "video", first.task)
    assert (failed.variant, failed.status, failed.prompt) == (None, "failed", "a dog")
    assert first.at_utc == pytest.approx(1002.0)
    assert [index.entry(entry.number) for entry in index.entries] == list(index.entries)
    assert index.result(second) == result(0, images=(image("a", seed=3), image("b", kind="video")))
    assert index.result(failed).index == 1


def test_only_what_is_new_is_read_again(journal):
    write(journal, "b", result(0, images=(image("a"),)))
    index = Index(FOLDER.absolute())
    assert index.refresh()
    assert not index.refresh()
    kept = index.entries[0]
    write(journal, "c", result(0, images=(image("b"),), at=2000.0))
    assert index.refresh()
    assert index.entries[0] is kept
    assert [entry.key for entry in index.entries] == ["aaaa", "bbbb"]


def test_a_task_that_ends_later_or_is_mended_takes_the_place_of_what_it_was(journal):
    bad = result(0, status=Status.FAILED, error=ErrorRecord("X", "no"))
    write(journal, "b", bad, result(1, images=(image("b"),)))
    index = Index(FOLDER.absolute())
    index.refresh()
    asyncio.run(journal.finished("b", result(0, images=(image("a"),), at=5000.0)))
    assert index.refresh()
    assert [entry.key for entry in index.entries] == ["bbbb", "aaaa"]


def test_what_runs_is_no_row_until_it_has_ended(journal):
    write(journal, "b", result(0, images=(image("a"),)), ended=False)
    index = Index(FOLDER.absolute())
    index.refresh()
    assert list(index.entries) == []
    asyncio.run(journal.finished("b", result(0, images=(image("a"),))))
    assert index.refresh()
    assert len(index.entries) == 1


def test_another_journal_in_the_same_place_is_read_from_its_beginning(journal):
    write(journal, "b", result(0, images=(image("a"),)))
    index = Index(FOLDER.absolute())
    index.refresh()
    journal.close()
    for path in (FOLDER / ".nbimg").glob("journal*"):
        path.unlink()
    again = Journal(FOLDER.absolute() / ".nbimg" / "journal.sqlite3")
    write(again, "c", result(0, images=(image("b"),)))
    index.refresh()
    assert [entry.key for entry in index.entries] == ["bbbb"]
    again.close()


def test_a_damaged_journal_is_one_clear_error():
    path = FOLDER / ".nbimg" / "journal.sqlite3"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match="journal"):
        Index(FOLDER.absolute()).refresh()


def test_what_was_not_downloaded_is_known_by_its_address():
    record = ImageRecord(None, url="https://x/1")
    assert key_of(record) == "https://x/1"
    assert Listed([result(images=(record,))]).entries[0].key == key_of(record)


def test_results_at_hand_are_shown_in_their_order():
    results = [result(0, images=(image("a"), image("b")), at=9.0), result(1, images=(image("c"),))]
    listed = Listed(results)
    assert [entry.key for entry in listed.entries[::-1]] == ["aaaa", "bbbb", "cccc"]
    assert listed.result(listed.entries[0]) is results[1]
    assert not listed.refresh()


def test_whether_it_is_an_edit_and_whether_it_came_from_the_store_is_known():
    picture = InputImage("ab" * 32, "image/png", 4, 5, "/in.png")
    one = result(images=(image("a"),), cached=True)
    one = dataclasses.replace(one, request=Request("x", image=picture))
    entry = Listed([one]).entries[0]
    assert entry.edit
    assert entry.cached


def test_ten_thousand_tasks_are_read_in_a_few_seconds(journal):
    write(journal, "b", *(result(i, f"cat {i}", (image("a"),)) for i in range(10_000)), ended=False)

    async def go():
        await asyncio.gather(
            *(journal.finished("b", result(i, f"cat {i}", (image("a"),))) for i in range(10_000))
        )

    asyncio.run(go())
    begun = time.perf_counter()
    index = Index(FOLDER.absolute())
    index.refresh()
    assert len(index.entries) == 10_000
    assert time.perf_counter() - begun < 5

import json
from pathlib import Path

import pytest

from nbimg.errors import StoreWriteError
from nbimg.store.marks import Marks, starred

HIDDEN = Path("out/.nbimg")


def marks():
    one = Marks(HIDDEN.absolute())
    one.refresh()
    return one


def picture(name="a.png"):
    path = HIDDEN.absolute().parent / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"picture")
    return path


def test_nothing_is_marked_where_nothing_was_said_and_no_file_is_made():
    assert marks().starred == set()
    assert marks().trashed == {}
    assert not HIDDEN.exists()


def test_a_star_is_there_for_every_kernel_until_it_is_taken_away():
    one, other = marks(), marks()
    one.star(["a", "b"], on=True)
    assert other.refresh()
    assert other.starred == {"a", "b"}
    other.star(["a"], on=False)
    assert one.refresh()
    assert one.starred == {"b"}
    assert not one.refresh()
    assert starred([HIDDEN.parent, Path("elsewhere")]) == {"b"}


def test_a_line_that_is_cut_off_costs_only_itself():
    marks().star(["a"], on=True)
    path = HIDDEN / "marks.jsonl"
    with path.open("a") as file:
        file.write('{"key": "b", "st')
    one = marks()
    assert one.starred == {"a"}
    with path.open("a") as file:
        file.write('\nnull\n{"key": "c", "star": true}\n')
    assert one.refresh()
    assert one.starred == {"a", "c"}


def test_a_line_that_is_on_its_way_is_read_when_it_has_arrived():
    one, other = marks(), marks()
    one.star(["a"], on=True)
    path = HIDDEN / "marks.jsonl"
    with path.open("a") as file:
        file.write('{"key": "b", "st')
    other.refresh()
    with path.open("a") as file:
        file.write('ar": true}\n')
    assert other.refresh()
    assert other.starred == {"a", "b"}


def test_marks_that_were_deleted_are_forgotten():
    one = marks()
    one.star(["a"], on=True)
    (HIDDEN / "marks.jsonl").unlink()
    assert one.refresh()
    assert one.starred == set()
    one.star(["b"], on=True)
    assert one.starred == {"b"}


def test_what_is_thrown_away_leaves_its_place_and_comes_back_to_it():
    one, path = marks(), picture()
    one.discard({"k": [path], "none": []})
    assert not path.exists()
    assert set(marks().trashed) == {"k", "none"}
    marks().restore(["k", "none"])
    assert path.read_bytes() == b"picture"
    one.refresh()
    assert one.trashed == {}
    assert list((HIDDEN / "trash").iterdir()) == []


def test_what_comes_back_never_takes_the_place_of_another_file():
    one, path = marks(), picture()
    one.discard({"k": [path]})
    picture().write_bytes(b"other")
    one.restore(["k"])
    assert path.read_bytes() == b"other"
    assert path.with_name("a-2.png").read_bytes() == b"picture"


def test_a_file_that_is_gone_already_can_be_thrown_away_all_the_same():
    one = marks()
    one.discard({"k": [HIDDEN.absolute().parent / "gone.png"]})
    assert one.trashed == {"k": []}


def test_the_folder_may_be_moved_with_its_trash():
    path = picture()
    marks().discard({"k": [path]})
    moved = HIDDEN.absolute().parents[1] / "moved"
    HIDDEN.parent.rename(moved)
    one = Marks(moved / ".nbimg")
    one.restore(["k"])
    assert (moved / "a.png").read_bytes() == b"picture"
    assert (
        ".nbimg/trash"
        in json.loads((moved / ".nbimg/marks.jsonl").read_text().split("\n")[0])["trash"][0][1]
    )


def test_a_place_that_cannot_be_written_is_said_in_one_line():
    HIDDEN.parent.mkdir()
    HIDDEN.write_text("in the way")
    with pytest.raises(StoreWriteError, match="cannot be written"):
        Marks(HIDDEN).star(["a"], on=True)

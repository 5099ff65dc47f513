"""The board of the live grid: each picture to come has a place, whatever the order of what is heard."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbimg.display.board import PLACES, Board
from nbimg.events import (
    Finished,
    Preview,
    Retrying,
    Saved,
    Started,
    Step,
    Submitted,
    Waiting,
)
from nbimg.types import ErrorRecord, ImageRecord, Request, Result, Status


def image(number: int) -> ImageRecord:
    return ImageRecord(Path(f"{number}.png"), width=400, height=300, seed=number)


def result(task: int, *images: ImageRecord, request: Request | None = None, **changes) -> Result:
    return Result(task, request or Request(f"prompt {task}"), "demo", images=images, **changes)


def states(board: Board) -> list[str]:
    return [place.state for _, place in sorted(board.places.items())]


def test_what_was_asked_for_has_its_places_at_once():
    board = Board([Request("a cat", n=2), Request("a dog")])
    assert [place.caption for place in board.places.values()] == ["a cat", "a cat", "a dog"]
    assert states(board) == ["queued"] * 3
    assert sorted(board.changes()) == [0, 1, 2]
    assert board.changes() == {}


def test_a_task_goes_its_way_and_says_so():
    board = Board([Request("a cat")])
    board.add(Started(task=0))
    assert states(board) == ["running"]
    board.add(Waiting(task=0, reason="replicate asks for a break: 429 Too many"))
    assert (board.places[0].word, board.places[0].said) == ("waiting", "replicate asks for a break")
    board.add(Retrying(task=0, stage="create", attempt=2, in_s=3.0, reason="it was busy."))
    assert board.places[0].said == "tries again: it was busy"
    board.add(Submitted(task=0, job_id="x"))
    board.add(Step(task=0, done=3, total=12))
    assert (board.places[0].said, board.places[0].share) == ("step 3 / 12", 0.25)
    board.add(Preview(task=0, data=b"small"))
    assert board.places[0].picture == b"small"
    board.add(Saved(task=0, image=image(7)))
    place = board.places[0]
    assert (place.state, place.picture, place.said) == ("ok", image(7), "seed 7")
    assert place.aspect == pytest.approx(4 / 3)
    board.add(Preview(task=0, data=b"late"))
    assert board.places[0].picture == image(7), "a preview does not cover the picture"


def test_a_percentage_is_a_bar_and_not_a_step():
    board = Board([Request("a cat")])
    board.add(Step(task=0, done=40, total=100))
    assert (board.places[0].said, board.places[0].share) == ("", 0.4)


def test_how_a_task_has_ended_is_said_with_a_sign():
    board = Board([Request("a"), Request("b"), Request("c", n=2), Request("d")])
    board.add(Finished(result=result(0, image(1), cached=True)))
    error = ErrorRecord("ContentRefusedError", "refused: NSFW content", None)
    board.add(Finished(result=result(1, status=Status.REFUSED, error=error)))
    lost = ErrorRecord("JobFailedError", "one was lost")
    board.add(Finished(result=result(2, image(2), status=Status.PARTIAL, error=lost)))
    board.add(Finished(result=result(3, status=Status.CANCELLED)))
    shown = [(place.word, place.said) for _, place in sorted(board.places.items())]
    assert shown == [
        ("↺ cached", "seed 1 · demo"),
        ("⊘ Refused", "NSFW content"),
        ("✓ Done", "seed 2 · demo"),
        ("◐ Partial", "one was lost"),
        ("■ Cancelled", ""),
    ]


def test_an_image_that_was_saved_keeps_its_place_when_its_task_ends():
    board = Board([Request("a", n=2)])
    board.add(Saved(task=0, image=image(2)))
    board.add(Saved(task=0, image=image(2)))
    board.add(Finished(result=result(0, image(1), image(2))))
    assert [board.places[k].picture for k in (0, 1)] == [image(2), image(1)]


def test_of_many_the_newest_take_the_places_of_the_oldest():
    board = Board([Request(f"prompt {k}") for k in range(PLACES + 30)])
    assert board.feed
    assert not board.places
    board.add(Started(task=PLACES + 29))
    for task in range(PLACES + 20):
        board.add(Finished(result=result(task, image(task))))
    assert len(board.places) == PLACES
    shown = {place.picture for place in board.places.values()}
    assert image(PLACES + 19) in shown
    assert image(0) not in shown
    assert "running" in states(board), "what is under way is not pushed out by what has ended"
    board.add(Finished(result=result(PLACES + 29, image(9999))))
    newest = max(board.places.values(), key=lambda place: place.turn)
    assert newest.picture == image(9999)


def test_where_nobody_said_what_is_to_come_it_is_shown_as_it_comes():
    board = Board()
    board.add(Finished(result=result(4, image(1), image(2))))
    board.add(Finished(result=result(0, status=Status.FAILED)))
    assert [place.caption for place in board.places.values()] == [
        "prompt 4",
        "prompt 4",
        "prompt 0",
    ]
    assert states(board) == ["ok", "ok", "failed"]


events = st.one_of(
    st.builds(Started, task=st.integers(0, 4)),
    st.builds(Step, task=st.integers(0, 4), done=st.integers(0, 9), total=st.integers(0, 9)),
    st.builds(Waiting, task=st.none() | st.integers(0, 4), reason=st.text()),
    st.builds(
        Preview, task=st.integers(0, 4), data=st.binary(max_size=3), variant=st.integers(0, 3)
    ),
    st.builds(Saved, task=st.integers(0, 4), image=st.integers(0, 9).map(image)),
)


@given(st.lists(events, max_size=40), st.lists(st.integers(1, 3), max_size=4), st.data())
@settings(max_examples=150, deadline=None)
def test_any_order_ends_with_every_image_of_the_results_in_one_place(heard, counts, data):
    requests = [Request(f"prompt {k}", n=n) for k, n in enumerate(counts)]
    board = Board(requests)
    for event in heard:
        board.add(event)
    for task, request in enumerate(requests):
        known = [e.image for e in heard if isinstance(e, Saved) and e.task == task]
        whole = list(dict.fromkeys([*known, *(image(100 + 10 * task + k) for k in range(3))]))
        made = whole[: request.n]
        for late in data.draw(st.lists(events, max_size=5)):
            board.add(late)
        board.add(Finished(result=result(task, *made, request=request)))
    if not requests:
        return
    pictures = [p.picture for p in board.places.values() if isinstance(p.picture, ImageRecord)]
    assert len(board.places) == sum(counts)
    assert all(state in ("ok", "partial") for state in states(board))
    assert len(pictures) <= sum(counts)

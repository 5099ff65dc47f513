"""Any order of events gives the same counts, they add up, and what is said is true."""

from __future__ import annotations

import gc
import math
import random
import sys
import threading
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbimg.calls.progress import Fold
from nbimg.display.progress import render_html, render_text
from nbimg.events import (
    Event,
    Finished,
    Notice,
    Planned,
    Preview,
    Retrying,
    Saved,
    Started,
    Step,
    Submitted,
    Waiting,
)
from nbimg.types import ImageRecord, Request, Result, Status


def result(task: int, status: Status = Status.OK, n: int = 1, **changes: Any) -> Result:
    images = tuple(ImageRecord(Path(f"{task}_{k}.png")) for k in range(n))
    kept = images if status in (Status.OK, Status.PARTIAL) else ()
    return Result(task, Request("x", n=n), "demo", status=status, images=kept, **changes)


def folded(*events: Event) -> Fold:
    fold = Fold()
    for event in events:
        fold.add(event)
    return fold


def finished(task: int, at_utc: float, status: Status = Status.OK, **changes: Any) -> Finished:
    return Finished(task=task, at_utc=at_utc, result=result(task, status, **changes))


TIMES = st.integers(0, 30).map(float)
TASKS = st.integers(0, 6)
EVENTS = st.one_of(
    st.builds(Planned, tasks=st.integers(0, 8), images=st.integers(0, 12), at_utc=TIMES),
    st.builds(Started, task=TASKS, at_utc=TIMES),
    st.builds(Submitted, task=TASKS, at_utc=TIMES, job_id=st.just("j")),
    st.builds(Waiting, task=st.none() | TASKS, at_utc=TIMES, reason=st.text(max_size=9),
              until_utc=st.none() | TIMES),
    st.builds(Retrying, task=TASKS, at_utc=TIMES, stage=st.just("create"),
              attempt=st.integers(2, 4), in_s=st.floats(0, 9), reason=st.text(max_size=9)),
    st.builds(Step, task=TASKS, at_utc=TIMES, done=st.integers(0, 30), total=st.integers(0, 30)),
    st.builds(Preview, task=TASKS, at_utc=TIMES, data=st.binary(max_size=9)),
    st.builds(Saved, task=st.none() | TASKS, at_utc=TIMES,
              image=st.builds(lambda k: ImageRecord(Path(f"{k}.png")), st.integers(0, 3))),
    st.builds(Notice, at_utc=TIMES, text=st.text(max_size=9)),
    st.builds(finished, TASKS, TIMES, st.sampled_from(Status), n=st.integers(1, 3),
              cached=st.booleans(), cost_usd=st.none() | st.floats(0, 1)),
)  # fmt: skip


def numbers(fold: Fold) -> tuple[Any, ...]:
    counts = (fold.total, fold.done, fold.running, fold.waiting, fold.queued, fold.retries)
    return (
        *counts, fold.succeeded, fold.failed, fold.cancelled, fold.images, fold.images_total,
        fold.cost_usd, fold.last_notice, fold.share(), fold.hold(15.0), fold.rate(31.0),
        fold.left_s(31.0), fold.elapsed_s(31.0), render_text(fold, 31.0),
    )  # fmt: skip


@given(st.lists(EVENTS, max_size=30))
@settings(max_examples=200, deadline=None)
def test_whatever_happens_the_counts_add_up(events: list[Event]) -> None:
    fold = Fold()
    for event in events:
        fold.add(event)
        assert fold.done + fold.running + fold.waiting + fold.queued == fold.total
        assert fold.succeeded + fold.failed + fold.cancelled == fold.done
        assert min(fold.running, fold.waiting, fold.queued, fold.failed) >= 0
        assert 0.0 <= fold.share() <= 1.0
        assert 0 <= fold.images <= fold.images_total
        assert (fold.left_s(31.0) or 0.0) >= 0.0


def lived(events: list[Event]) -> list[Event]:
    """The same events as they can happen: a task ends once, and nothing is heard of it after."""
    ends = {event.task: event for event in events if isinstance(event, Finished)}
    return [e for e in events if not isinstance(e, Finished)] + list(ends.values())


def shuffled(events: list[Event], chance: random.Random) -> list[Event]:
    """The events in any order, each task's end still its last."""
    mixed = list(events)
    chance.shuffle(mixed)
    last = {event.task: place for place, event in enumerate(mixed)}
    for place, event in enumerate(mixed):
        if isinstance(event, Finished) and last[event.task] > place:
            other = last[event.task]
            mixed[place], mixed[other] = mixed[other], mixed[place]
    ended: set[int | None] = set()
    for event in mixed:
        assert event.task is None or event.task not in ended
        if isinstance(event, Finished):
            ended.add(event.task)
    return mixed


@given(st.lists(EVENTS, max_size=30), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_any_order_before_a_task_ends_folds_to_the_same_numbers(
    events: list[Event], chance: random.Random
) -> None:
    events = lived(events)
    fold = folded(*events)
    mixed = shuffled(events, chance)
    assert numbers(folded(*mixed)) == numbers(fold)
    assert numbers(folded(*mixed).copy()) == numbers(fold)
    going = [event for event in mixed if not isinstance(event, Finished)]
    assert numbers(folded(*going, *mixed)) == numbers(fold), "heard twice, counted once"


@given(st.lists(EVENTS, max_size=20), EVENTS)
@settings(max_examples=100, deadline=None)
def test_what_is_heard_of_a_task_after_its_end_changes_nothing(
    events: list[Event], late: Event
) -> None:
    fold = folded(*events, finished(3, 5.0))
    before = numbers(fold)
    if late.task == 3:
        fold.add(late)
        fold._first_utc = folded(*events, finished(3, 5.0))._first_utc  # but for when it was heard
        assert numbers(fold) == before


@given(st.lists(EVENTS, max_size=20), EVENTS)
@settings(max_examples=50, deadline=None)
def test_a_copy_is_of_its_moment(events: list[Event], late: Event) -> None:
    fold = folded(*events)
    copy = fold.copy()
    before = numbers(copy)
    for event in (late, finished(1, 9.0), Saved(task=2, image=ImageRecord(Path("x.png")))):
        fold.add(event)
    assert numbers(copy) == before


def lives(tasks: int) -> Iterator[Event]:
    """A batch, event by event, at most twenty tasks at once."""
    yield Planned(tasks=tasks, images=tasks, at_utc=0.0)
    for task in range(tasks):
        at_utc = 0.1 * task
        yield Started(task=task, at_utc=at_utc)
        yield Waiting(task=task, reason="quota" * 4, until_utc=at_utc, at_utc=at_utc)
        yield Retrying(task=task, stage="run", attempt=2, in_s=1.0, reason="busy", at_utc=at_utc)
        yield Submitted(task=task, job_id=f"job-{task}", at_utc=at_utc)
        yield Step(task=task, done=9, total=20, at_utc=at_utc)
        yield Preview(task=task, data=bytes(20_000), at_utc=at_utc)
        yield Saved(task=task, image=ImageRecord(Path(f"{task}.png")), at_utc=at_utc)
        yield Notice(text=f"note {task}", at_utc=at_utc)
        yield finished(task, at_utc, cost_usd=0.03)


def held_bytes(fold: Fold) -> int:
    """What a fold keeps alive, whatever it refers to included."""
    seen: dict[int, Any] = {}
    reached: list[Any] = [vars(fold)]
    while reached:
        thing = reached.pop()
        if id(thing) not in seen and not isinstance(thing, type | ModuleType | FunctionType):
            seen[id(thing)] = thing
            reached += gc.get_referents(thing)
    return sum(map(sys.getsizeof, seen.values()))


def test_a_batch_of_fifty_thousand_that_nobody_watches_stays_small() -> None:
    tasks = 50_000
    fold = Fold()
    for event in lives(tasks):
        fold.add(event)
    assert held_bytes(fold) < 2 * tasks
    assert (fold.done, fold.retries, fold.images) == (tasks, tasks, tasks)
    assert fold.cost_usd == pytest.approx(0.03 * tasks)
    assert fold.rate(0.1 * tasks) == pytest.approx(10.0, rel=0.2)


def test_taking_in_an_event_takes_microseconds() -> None:
    events = list(lives(2_000))
    fold = Fold()
    best_s = math.inf
    for _ in range(3):
        fold, begun = Fold(), time.perf_counter()
        for event in events:
            fold.add(event)
        best_s = min(best_s, time.perf_counter() - begun)
    assert best_s / len(events) < 20e-6  # 2 here; a busy machine must not fail it


def test_one_thread_adds_while_others_read() -> None:
    fold, going = Fold(), threading.Event()
    wrong: list[str] = []

    def read() -> None:
        while not going.is_set():
            now = fold.copy()
            if now.done + now.running + now.waiting + now.queued != now.total:
                wrong.append(render_text(now, 1.0))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for event in lives(1_000):
        fold.add(event)
    going.set()
    for reader in readers:
        reader.join()
    assert not wrong


@given(st.lists(EVENTS, max_size=12), st.text(max_size=30))
@settings(max_examples=80, deadline=None)
def test_no_reason_and_no_notice_escapes_into_html(events: list[Event], text: str) -> None:
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.append(tag)  # type: ignore[method-assign]
    hostile = (
        Planned(tasks=9, images=9, at_utc=0.0),
        Notice(text=f"<script>{text}", at_utc=99.0),
        Waiting(reason=f"<img src=x>{text}", until_utc=99.0, at_utc=98.0),
    )
    parser.feed(render_html(folded(*events, *hostile), 31.0))
    assert tags == ["div", "div", "progress", "span", "span", "div"]


def test_before_anything_has_finished_the_time_left_is_not_known() -> None:
    fold = folded(Planned(tasks=8, images=8, at_utc=0.0), Started(task=0, at_utc=1.0))
    assert fold.left_s(5.0) is None
    assert render_text(fold, 5.0).endswith("0 of 8 images · 5 s so far")


def test_rate_and_time_left_follow_from_what_was_made() -> None:
    fold = folded(Planned(tasks=8, images=8, at_utc=0.0), Started(task=0, at_utc=0.0))
    for task in range(4):
        fold.add(finished(task, 0.5 * (task + 1)))
    assert fold.rate(2.0) == pytest.approx(2.0)
    assert fold.left_s(2.0) == pytest.approx(2.0)
    assert "4 of 8 images · 2.0 images/s · 2 s left" in render_text(fold, 2.0)
    assert (fold.left_s(8.0) or 0) > 4  # nothing came since: the promise is taken back


def test_the_rate_is_that_of_the_last_images_not_of_the_whole_batch() -> None:
    fold = folded(Planned(tasks=100, images=100, at_utc=0.0), Started(task=0, at_utc=0.0))
    for task in range(10):
        fold.add(finished(task, 100.0 * (task + 1)))
    for task in range(10, 50):
        fold.add(finished(task, 1000.0 + task - 9))
    assert fold.rate(1040.0) == pytest.approx(1.0)


def test_what_came_from_the_store_does_not_make_the_rate_look_good() -> None:
    fold = folded(Planned(tasks=9, images=9, at_utc=0.0), Started(task=8, at_utc=0.0))
    for task in range(5):
        fold.add(finished(task, 0.1, cached=True, cost_usd=0.5))
    assert fold.rate(1.0) is None
    assert fold.left_s(1.0) is None
    assert fold.cost_usd == 0
    assert "↺ 5 cached" in render_text(fold, 1.0)


def test_the_steps_of_a_single_picture_foretell_its_end() -> None:
    fold = folded(Planned(tasks=1, images=1, at_utc=0.0), Started(task=0, at_utc=0.0))
    fold.add(Step(task=0, done=1, total=20, at_utc=0.5))
    assert fold.left_s(0.5) is None
    fold.add(Step(task=0, done=10, total=20, at_utc=5.0))
    assert fold.left_s(5.0) == pytest.approx(5.0)
    assert fold.share() == pytest.approx(0.5)
    assert "0 of 1 image · step 10 / 20 · 5 s left" in render_text(fold, 5.0)


def test_loading_a_model_and_its_first_step_do_not_foretell_the_others() -> None:
    fold = folded(Planned(tasks=1, images=1, at_utc=0.0), Started(task=0, at_utc=0.0))
    fold.add(Step(task=0, done=0, total=20, at_utc=100.0))
    fold.add(Step(task=0, done=1, total=20, at_utc=160.0))
    fold.add(Step(task=0, done=2, total=20, at_utc=161.0))
    assert fold.left_s(161.0) is None
    fold.add(Step(task=0, done=6, total=20, at_utc=165.0))
    assert fold.left_s(165.0) == pytest.approx(14.0)


def test_the_rate_begins_with_the_first_step() -> None:
    fold = folded(Planned(tasks=2, images=2, at_utc=0.0), Started(task=0, at_utc=0.0))
    fold.add(Step(task=0, done=0, total=4, at_utc=30.0))
    fold.add(finished(0, 32.0))
    assert fold.rate(32.0) == pytest.approx(0.5)
    assert fold.left_s(32.0) == pytest.approx(2.0)


def test_images_of_one_task_that_are_made_together_count_each() -> None:
    fold = folded(Planned(tasks=1, images=8, at_utc=0.0), Started(task=0, at_utc=0.0))
    for done in range(11):
        for variant in range(4):  # the first half of them
            fold.add(Step(task=0, done=done, total=20, at_utc=float(done), variant=variant))
    assert fold.share() == pytest.approx(0.25)
    assert fold.left_s(10.0) == pytest.approx(30.0)
    for place in range(4):
        fold.add(saved(0, place, 20.0))
    fold.add(Step(task=0, done=0, total=20, at_utc=20.1, variant=4))
    assert fold.share() == pytest.approx(0.5)
    assert fold.left_s(20.1) == pytest.approx(20.1)


def test_pictures_in_the_making_are_shown_until_their_task_ends() -> None:
    small = b"RIFF\x00\x00\x00\x00WEBPVP8 "
    fold = folded(Planned(tasks=3, images=9, at_utc=0.0), Started(task=0, at_utc=0.0))
    assert "<img" not in render_html(fold, 1.0)
    for at_utc, data in ((2.0, small + b"late"), (1.0, small + b"early")):
        fold.add(Preview(task=1, data=data, variant=1, at_utc=at_utc))
    for task in (2, 0):
        fold.add(Preview(task=task, data=small + bytes([task]), at_utc=1.0))
    assert fold.previews(9) == [small + b"\0", small + b"late", small + b"\2"]
    assert fold.previews(1) == [small + b"\0"]
    assert render_html(fold, 1.0).count('<img src="data:image/webp;base64,') == 3
    fold.add(Preview(task=0, data=b"<script>", at_utc=3.0))
    assert render_html(fold, 3.0).count("<img") == 2
    fold.add(finished(1, 4.0))
    assert len(fold.previews(9)) == 2
    assert "<img" not in render_html(fold, 4.0, head="in the background")


def test_a_wait_and_a_retry_are_said_in_words_until_they_are_over() -> None:
    fold = folded(
        Planned(tasks=3, images=3, at_utc=0.0),
        Waiting(reason="replicate allows 600 a minute", until_utc=20.0, at_utc=1.0),
        Retrying(task=1, stage="create", attempt=2, in_s=4.0, reason="busy, 429", at_utc=2.0),
    )
    assert "replicate allows 600 a minute, next try in 10 s" in render_text(fold, 10.0)
    assert "1 retry" in render_html(fold, 10.0)
    assert fold.waiting == 1
    assert fold.hold(21.0) is None
    retry = folded(Planned(tasks=3, images=3, at_utc=0.0), *[
        Retrying(task=1, stage="create", attempt=2, in_s=4.0, reason="connection lost", at_utc=2.0)
    ])  # fmt: skip
    assert "trying task 2 again in 3 s (connection lost)" in render_text(retry, 3.0)
    retry.add(Submitted(task=1, job_id="j", at_utc=7.0))
    assert retry.hold(7.0) is None


def test_the_wish_of_a_provider_is_said_rather_than_the_try_that_follows_it() -> None:
    reason = "replicate asks to slow down: Request was throttled. Your rate limit resets in"
    events = (
        Planned(tasks=2, images=2, at_utc=0.0),
        Waiting(task=1, reason=reason, until_utc=6.0, at_utc=1.0),
        Retrying(task=1, stage="create", attempt=2, in_s=5.0, reason=reason, at_utc=1.1),
    )
    for fold in (folded(*events), folded(*reversed(events))):
        line = render_text(fold, 2.0)
        assert line.endswith("replicate asks to slow down, next try in 4 s · 1 retry")
    again = folded(
        *events,
        Started(task=1, at_utc=6.1),
        Retrying(task=1, stage="poll", attempt=2, in_s=3.0, reason="offline.", at_utc=9.0),
    )
    assert "trying task 2 again in 3 s (offline) · 2 retries" in render_text(again, 9.0)


def test_a_wait_without_an_end_is_over_when_something_moves() -> None:
    wait = Waiting(reason="offline", at_utc=1.0)
    fold = folded(Planned(tasks=2, images=2, at_utc=0.0), wait)
    assert "waiting: offline" in render_text(fold, 5.0)
    fold.add(Started(task=0, at_utc=6.0))
    assert "offline" not in render_text(fold, 7.0)


def test_the_time_left_is_never_shorter_than_the_wait() -> None:
    fold = folded(Planned(tasks=2, images=2, at_utc=0.0), Started(task=0, at_utc=0.0))
    fold.add(finished(0, 1.0))
    fold.add(Waiting(reason="quota", until_utc=61.0, at_utc=1.0))
    assert fold.left_s(1.0) == pytest.approx(60.0)


def saved(task: int, variant: int, at_utc: float) -> Saved:
    return Saved(task=task, at_utc=at_utc, image=ImageRecord(Path(f"{task}_{variant}.png")))


def test_images_count_as_they_are_saved_and_once_each() -> None:
    fold = folded(Planned(tasks=2, images=8, at_utc=0.0), Started(task=0, at_utc=0.0))
    for k in range(3):
        fold.add(saved(0, k, k + 1.0))
    assert (fold.images, fold.done, fold.running) == (3, 0, 1)
    assert fold.share() == pytest.approx(3 / 8)
    assert "3 of 8 images · 1.0 images/s · 5 s left" in render_text(fold, 3.0)
    fold.add(finished(0, 4.0, n=4))  # the fourth was not told by itself
    assert fold.images == 4
    assert fold.rate(4.0) == pytest.approx(1.0)
    fold.add(finished(1, 5.0, Status.PARTIAL, n=2))
    fold.add(saved(1, 0, 4.5))
    assert "6 of 8 images" in render_text(fold, 5.0)
    assert fold.share() == 1.0


def test_steps_count_for_the_picture_after_the_last_that_was_saved() -> None:
    fold = folded(Planned(tasks=1, images=2, at_utc=0.0), Started(task=0, at_utc=0.0))
    fold.add(Step(task=0, done=20, total=20, at_utc=4.0))
    assert fold.share() == pytest.approx(0.5)
    fold.add(saved(0, 0, 4.0))
    assert fold.share() == pytest.approx(0.5)
    fold.add(Step(task=0, done=10, total=20, at_utc=6.0))
    assert fold.share() == pytest.approx(0.75)


def test_after_a_while_stop_is_explained_but_not_in_a_terminal() -> None:
    fold = folded(Planned(tasks=1, images=1, at_utc=0.0), Started(task=0, at_utc=0.0))
    assert "Stop" not in render_html(fold, 2.0)
    assert " · ■ Stop keeps what is done</span></div>" in render_html(fold, 3.5)
    assert "Stop" not in render_text(fold, 3.5)
    fold.add(finished(0, 4.0))
    assert "Stop" not in render_html(fold, 5.0)


def test_when_all_is_done_the_line_says_how_long_and_what_failed() -> None:
    fold = folded(
        Planned(tasks=4, images=4, at_utc=0.0),
        finished(0, 3.0, cost_usd=0.03),
        finished(1, 6.2, Status.FAILED),
        finished(2, 5.0, Status.REFUSED),
        finished(3, 5.0, Status.CANCELLED),
    )
    line = render_text(fold, 99.0)
    assert "1 of 4 images" in line
    assert "6.2 s · $0.03 · ✕ 1 failed · ⊘ 1 refused · ■ 1 cancelled" in line
    assert (fold.failed, fold.cancelled, fold.left_s(99.0)) == (2, 1, 0.0)
    assert line.startswith("█" * 20 + " ")


def test_the_notice_that_came_last_is_shown() -> None:
    fold = folded(Notice(text="later", at_utc=2.0), Notice(text="first", at_utc=1.0))
    assert fold.last_notice == "later"
    assert "later" in render_html(fold, 3.0)


def test_a_notice_of_what_goes_on_holds_until_something_moves() -> None:
    begun = [Planned(tasks=1, images=1, at_utc=1.0), Started(task=0, at_utc=2.0)]
    loading = Notice(text="loading demo: part 5 of 5 …", at_utc=3.0)
    assert "part 5 of 5" in render_text(folded(*begun, loading), 4.0)
    moved = folded(*begun, loading, Step(task=0, done=1, total=20, at_utc=5.0))
    assert "loading" not in render_text(moved, 6.0)


def test_an_empty_fold_says_zero() -> None:
    assert render_text(Fold(), 0.0) == "░" * 20 + " 0 of 0 images"

import asyncio

import pytest

from nbimg.engine.gate import IN_A_ROW, SHORTER, Gate, Passage


async def turns():
    for _ in range(20):
        await asyncio.sleep(0)


def crowd(gate, count, ends):
    """So many creates that want to pass, and who is inside; each leaves when its event is set."""
    inside = []

    async def work(number):
        with Passage(gate) as passage:
            await passage.enter()
            inside.append(number)
            try:
                await ends[number].wait()
            finally:
                inside.remove(number)
            if ends[number].fails:
                raise ZeroDivisionError

    return inside, [asyncio.create_task(work(number)) for number in range(count)]


class End(asyncio.Event):
    fails = False


def test_all_go_at_once_while_it_is_wide():
    async def go():
        ends = [End() for _ in range(5)]
        inside, tasks = crowd(Gate(), 5, ends)
        await turns()
        assert inside == [0, 1, 2, 3, 4]
        for end in ends:
            end.set()
        await asyncio.gather(*tasks)

    asyncio.run(go())


def test_one_goes_at_a_time_when_it_is_narrow_until_some_in_a_row_went_through():
    async def go():
        gate = Gate()
        gate.narrow()
        ends = [End() for _ in range(6)]
        inside, tasks = crowd(gate, 6, ends)
        for number in range(IN_A_ROW):
            await turns()
            assert inside == [number]
            ends[number].set()
        await turns()
        assert inside == list(range(IN_A_ROW, 6))
        for end in ends:
            end.set()
        await asyncio.gather(*tasks)

    asyncio.run(go())


def test_a_failure_lets_the_next_one_try_but_opens_nothing():
    async def go():
        gate = Gate()
        gate.narrow()
        ends = [End() for _ in range(4)]
        inside, tasks = crowd(gate, 4, ends)
        for number in range(3):
            await turns()
            assert inside == [number]
            ends[number].fails = True
            ends[number].set()
        await turns()
        assert inside == [3]
        assert not gate.wide
        ends[3].set()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(go())


def test_a_refusal_in_between_begins_the_count_anew():
    gate = Gate()
    gate.narrow()
    for _ in range(IN_A_ROW - 1):
        gate.passed()
    gate.narrow()
    gate.passed()
    assert not gate.wide


def test_one_that_went_while_it_was_wide_does_not_open_it():
    async def go():
        gate = Gate()
        passages = [Passage(gate) for _ in range(5)]
        for passage in passages:
            with passage:
                await passage.enter()
                gate.narrow()
                assert not passage.free
                break
        assert not gate.wide
        with passages[1]:
            await passages[1].enter()
        assert not gate.wide

    asyncio.run(go())


def test_one_that_is_cancelled_while_it_waits_or_goes_blocks_nobody():
    async def go():
        gate = Gate()
        gate.narrow()
        ends = [End() for _ in range(3)]
        inside, tasks = crowd(gate, 3, ends)
        await turns()
        tasks[1].cancel()
        await turns()
        tasks[0].cancel()
        await turns()
        assert inside == [2]
        ends[2].set()
        await tasks[2]
        for task in tasks[:2]:
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(go())


def test_the_one_that_was_refused_goes_before_those_that_came_later():
    async def go():
        gate = Gate()
        ends = [End() for _ in range(2)]
        with Passage(gate) as refused:
            await refused.enter()
            await refused.claim()
            gate.narrow()
            inside, tasks = crowd(gate, 2, ends)
            await turns()
            assert refused.free
            assert inside == []
        await turns()
        assert inside == [0]
        for end in ends:
            end.set()
        await asyncio.gather(*tasks)

    asyncio.run(go())


def refused_and_passed(gate, story, seconds=8.0):
    """Tell a gate a story: `x` is a refusal, `o` a create that went through."""
    for letter in story:
        if letter == "x":
            gate.narrow(seconds)
        else:
            gate.passed()


def test_a_refusal_right_after_a_success_spaces_the_creates_when_it_comes_twice():
    gate = Gate()
    refused_and_passed(gate, "xxx")
    assert gate.spacing_s == 0
    refused_and_passed(gate, "ox")
    assert gate.spacing_s == 0  # somebody else may have used up the window
    refused_and_passed(gate, "ox")
    assert gate.spacing_s == 8
    refused_and_passed(gate, "o")
    assert (gate.spacing_s, gate.wide) == (8, False)


def test_an_account_that_says_that_it_takes_one_at_a_time_is_believed_at_once():
    gate = Gate()
    refused_and_passed(gate, "xo")
    gate.narrow(8.0, sparse=True)
    assert gate.spacing_s == 8


def test_a_window_that_others_use_up_now_and_then_slows_nobody_down_for_long():
    gate = Gate()
    for _ in range(3):
        refused_and_passed(gate, "xox" + "o" * IN_A_ROW)
        assert (gate.wide, gate.spacing_s) == (True, 0)


def test_less_space_is_tried_and_what_held_before_is_kept_when_that_is_refused():
    gate = Gate()
    refused_and_passed(gate, "xoxox" + "o" * IN_A_ROW)
    assert gate.spacing_s == 8 * SHORTER
    refused_and_passed(gate, "x")
    assert gate.spacing_s == 8
    refused_and_passed(gate, "o" * IN_A_ROW)
    assert gate.spacing_s == 8  # tried again only after twice as many
    refused_and_passed(gate, "o" * IN_A_ROW)
    assert gate.spacing_s == 8 * SHORTER


def test_a_space_that_is_refused_as_well_becomes_what_the_provider_says_now():
    gate = Gate()
    refused_and_passed(gate, "xoxox" + "o" * IN_A_ROW + "x" + "o")
    refused_and_passed(gate, "x", seconds=30.0)
    assert gate.spacing_s == 30


def test_creates_that_keep_going_through_open_it_and_the_space_is_forgotten():
    gate = Gate()
    refused_and_passed(gate, "xoxox" + "o" * 40)
    assert (gate.wide, gate.spacing_s) == (True, 0)
    refused_and_passed(gate, "x")
    assert gate.spacing_s == 0

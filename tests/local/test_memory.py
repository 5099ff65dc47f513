"""Memory: what is learned, what happens when there is none left, and what a failure leaves behind."""

import gc
import math
import sys
import threading
import weakref

import pytest
import torch

from nbimg.backends.local import demo_folder
from nbimg.errors import JobFailedError
from nbimg.events import Notice
from nbimg.local import batch, manifest, ram
from nbimg.local.device import Device
from nbimg.local.memory import Relief, Sizes, first_guess, first_line, forget, out_of_memory
from nbimg.local.pipelines import Pipelines
from tests.local.conftest import Spy, call, gap, run, until

SMALL = {"width": 64, "height": 64, "guidance_scale": 1.0}


class Card:
    """An allocator: the network's batch must fit, or `torch.OutOfMemoryError` is raised.

    Args:
        pipe: The pipeline whose network allocates.
        room: How many images fit.
    """

    def __init__(self, pipe, room):
        self.network = getattr(pipe, "unet", None) or pipe.transformer
        self.room, self.tried, self.tensors = room, [], []

    def __enter__(self):
        self.hook = self.network.conv_out.register_forward_pre_hook(self._allocate)
        return self

    def __exit__(self, *_):
        self.hook.remove()

    def _allocate(self, _network, given):
        self.tried.append(len(given[0]))
        self.tensors.append(weakref.ref(given[0]))
        if len(given[0]) > self.room:
            raise torch.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {len(given[0])} images."
            )


def calls(number, **known):
    return [call("a", k, **SMALL, **known) for k in range(number)]


# ------------------------------------------------------------------ out of memory


def test_out_of_memory_halves_the_batch_and_nothing_is_lost(tiny):
    pipe, told = tiny("sd"), []
    whole = run(pipe, calls(7))
    with Card(pipe, room=2) as card:
        made = run(pipe, calls(7), lambda _, event: told.append(event))
    assert [number for number in card.tried if number > 2] == [7, 3]
    assert all(gap(a, b) <= 1 for a, b in zip(whole, made, strict=True))
    texts = [event.text for event in told if isinstance(event, Notice)]
    assert "out of memory with 7 images: going on with 3 at once." in texts


def test_the_size_that_fits_is_remembered_for_the_model_and_the_resolution(tiny):
    pipe, sizes = tiny("sd"), Sizes()
    with Card(pipe, room=2) as card:
        run(pipe, calls(5), sizes=sizes, key="tiny")
        card.tried.clear()
        run(pipe, calls(5), sizes=sizes, key="tiny")
        assert max(card.tried) <= 2
        card.tried.clear()
        small = [call("a", k, width=32, height=32, guidance_scale=1.0) for k in range(4)]
        run(pipe, small, sizes=sizes, key="tiny")
        assert max(card.tried) == 4  # another resolution is not known yet


def test_what_was_made_before_memory_ran_out_is_handed_over_first(tiny):
    with Card(tiny("sd"), room=2) as card:

        def shrink():
            card.room = 0

        made, error = until(JobFailedError, tiny("sd"), calls(6), shrink, sizes=Sizes(most=2))
    assert made == [0, 1]
    assert "does not fit" in error.message


def test_one_image_that_does_not_fit_is_a_clear_error_with_what_to_do(tiny):
    with Card(tiny("sd"), room=0), pytest.raises(JobFailedError) as caught:
        run(tiny("sd"), calls(2))
    assert "one image of 64x64 does not fit" in caught.value.message
    assert "--size" in caught.value.hint


def test_a_larger_image_that_does_not_fit_does_not_cost_the_smaller_ones(tiny):
    mixed = [call("a", 0, **SMALL), call("a", 1, width=128, height=128), call("a", 2, **SMALL)]
    hook = tiny("sd").unet.conv_out.register_forward_pre_hook(too_large)
    try:
        made, error = until(JobFailedError, tiny("sd"), mixed)
    finally:
        hook.remove()
    assert made == [0, 2]
    assert "128x128" in error.message


def too_large(_network, given):
    if given[0].shape[-1] > 8:
        raise torch.OutOfMemoryError("CUDA out of memory.")


def test_other_models_leave_before_a_batch_is_made_smaller(tiny):
    pipe, asked = tiny("sd"), []
    card = Card(pipe, room=1)

    def relieve(*, alone):
        asked.append(alone)
        if len(asked) == 1:
            card.room = 8
            return "other left the memory"
        return None

    with card:
        run(pipe, calls(4), relieve=relieve)
    assert asked == [False]
    assert max(card.tried) == 4


def test_the_last_rungs_are_tried_one_by_one_for_a_single_image(tiny):
    pipe, told = tiny("sd"), []
    card = Card(pipe, room=0)

    def relieve(*, alone):
        if alone:
            card.room = 1
        return "decoded in tiles" if alone else None

    with card:
        run(pipe, calls(2), lambda _, event: told.append(event), relieve=relieve)
    texts = [event.text for event in told if isinstance(event, Notice)]
    assert texts[-1] == "out of memory with one image: decoded in tiles."


class Movable:
    """A pipeline that only notes how it is placed."""

    def __init__(self, vae=None):
        self.vae = vae


def test_relief_goes_from_tiles_to_parts_to_layers(tiny):
    placed = []
    vae = tiny("sd").vae
    relief = Relief(Device("cuda"), placed.append)
    pipe = Movable(vae)
    try:
        assert "tiles" in relief.next(pipe)
        assert vae.use_slicing
        assert vae.use_tiling
        assert "parts" in relief.next(pipe)
        assert "one layer at a time" in relief.next(pipe)
        assert relief.next(pipe) is None
        assert placed == ["parts", "layers"]
    finally:
        vae.disable_slicing()
        vae.disable_tiling()


def test_after_memory_ran_out_for_one_image_the_model_that_ships_still_works():
    card = manifest.read(demo_folder(), "demo")
    loaded, pipe = Pipelines().take(card, "generate", "cpu", None)
    before = run(pipe, [call("a red house")])
    with (
        pytest.raises(JobFailedError, match="does not fit"),
        Card(pipe, room=0),
    ):
        run(pipe, [call("a")], relieve=lambda *, alone: loaded.relief.next(pipe))
    assert gap(run(pipe, [call("a red house")])[0], before[0]) == 0


@pytest.mark.parametrize("name", ["sd", "qwen", "klein"])
def test_a_picture_that_is_decoded_in_tiles_has_its_size(name):
    from tests.local import tiny as builders

    pipe = builders.BUILDERS[name]()
    small = {"width": 64, "height": 64}
    before = run(pipe, [call("a", **small)])
    relief = Relief(Device("cpu"), pytest.fail)
    assert "tiles" in relief.next(pipe)
    assert run(pipe, [call("a", **small)])[0].size == before[0].size


def test_a_processor_has_no_main_memory_to_move_to():
    relief = Relief(Device("cpu"), pytest.fail)
    assert relief.next(Movable()) is None


# ------------------------------------------------------------------ what a failure leaves behind


def test_no_tensor_of_a_call_that_failed_is_left(tiny):
    pipe = tiny("sd")
    run(pipe, calls(1))
    with Card(pipe, room=0) as card:
        try:
            run(pipe, calls(2))
        except JobFailedError as error:
            sys.last_value, sys.last_traceback = error, error.__traceback__  # as a notebook does
            kept = error
    try:
        gc.collect()
        assert [ref for ref in card.tensors if ref() is not None] == []
        assert kept.__context__ is None
        assert kept.__cause__ is None
    finally:
        sys.last_value = sys.last_traceback = None


def test_no_picture_of_a_call_that_was_stopped_is_left(tiny):
    pipe, stop = tiny("sd"), threading.Event()

    def report(_, event):
        if event.done == 1:
            stop.set()

    with Card(pipe, room=8) as card, pytest.raises(batch.StoppedError) as caught:
        run(pipe, calls(2), report, stop)
    gc.collect()
    assert [ref for ref in card.tensors if ref() is not None] == []
    assert caught.value.__context__ is None


def test_forgetting_an_error_lets_go_of_what_its_frames_hold():
    held = []

    def inner():
        large = torch.zeros(1000)
        held.append(weakref.ref(large))
        raise ValueError("a")

    def outer():
        try:
            inner()
        except ValueError as error:
            raise RuntimeError("b") from error

    try:
        outer()
    except RuntimeError as error:
        kept, frames = error, error.__cause__.__traceback__
    assert held[0]() is not None
    forget(kept)
    assert frames is not None  # although somebody keeps the traceback itself
    assert held[0]() is None
    assert kept.__cause__ is None


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"
            ),
            True,
        ),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_running_out_of_memory_is_told_from_other_failures(error, said):
    assert out_of_memory(error) is said


def test_the_first_line_of_an_error_is_one_that_says_something():
    assert first_line(ImportError("\n  Kolors needs sentencepiece.\nInstall it.")) == (
        "Kolors needs sentencepiece."
    )
    assert first_line(KeyError()) == "KeyError"


# ------------------------------------------------------------------ what is learned


def play(sizes, images, seconds_of, *, first=1, room=None, bytes_each=0):
    """Feed made-up times to the learner; return the sizes that it chose."""
    chosen, left = [], images
    while left:
        size = sizes.size("key", left, first, room)
        chosen.append(size)
        sizes.worked("key", size, seconds_of(size), size * bytes_each)
        left -= size
    return chosen


def test_where_batching_pays_it_grows():
    chosen = play(Sizes(), 200, lambda size: 1.0 + 0.01 * size)
    assert chosen[:6] == [1, 2, 4, 8, 16, 32]
    assert set(chosen[6:-1]) == {32}


def test_where_batching_does_not_pay_it_stays_with_one():
    chosen = play(Sizes(), 20, lambda size: 1.0 * size)
    assert chosen == [1, 2, 2, *[1] * 15]


def test_one_slow_call_does_not_settle_it():
    slow = iter([9.0])  # the first call of a size has to prepare things
    chosen = play(
        Sizes(), 100, lambda size: next(slow, 1.0) if size == 8 else 1.0 + size / 100, first=8
    )
    assert chosen[:4] == [8, 16, 32, 32]


def test_one_lucky_call_does_not_settle_it():
    """Of eight an image takes 1.0, but for once 0.5; of sixteen 0.9."""
    lucky = iter([1.0, 0.5])
    chosen = play(
        Sizes(), 400, lambda size: size * (next(lucky, 1.0) if size == 8 else 0.9), first=8
    )
    assert set(chosen[-10:-1]) == {16}


@pytest.mark.parametrize(("each_s", "size"), [(0.95, 8), (0.8, 4)])
def test_fewer_than_the_guess_are_made_at_once_where_that_is_clearly_faster(each_s, size):
    sizes = Sizes()
    for _ in range(3):
        sizes.worked("key", 4, 4 * each_s, 0)
        sizes.worked("key", 8, 8.0, 0)
        sizes.worked("key", 16, 17.0, 0)
    assert sizes.size("key", 8, 8) == size


def test_a_batch_begins_with_the_guess_although_a_single_image_came_before():
    sizes = Sizes()
    sizes.worked("key", 1, 0.001, 0)
    assert sizes.size("key", 6, 8) == 6
    assert sizes.size("key", 60, 8) == 8


def test_it_stops_at_the_knee():
    seconds = {1: 0.167, 2: 0.183, 4: 0.240, 8: 0.425, 16: 0.96}
    chosen = play(Sizes(), 100, lambda size: seconds.get(size, 0.06 * size))
    assert chosen[:6] == [1, 2, 4, 8, 16, 16]
    assert set(chosen[6:-1]) == {8}


def test_it_does_not_grow_beyond_the_memory_that_is_free():
    chosen = play(Sizes(), 60, lambda size: 1.0, room=10e9, bytes_each=2e9)
    assert max(chosen) == 4


def test_after_running_out_no_more_than_half_is_tried():
    sizes = Sizes()
    sizes.failed("key", 8)
    assert max(play(sizes, 40, lambda size: 1.0, first=8)) == 4
    assert sizes.size("other", 40, 8) == 8


@pytest.mark.parametrize(
    ("device", "weights", "pixels", "guess"),
    [
        ("cuda", 20e9, 1024**2, 1),
        ("cuda", 12e9, 1024**2, 1),
        ("cuda", 20e9, 512**2, 2),
        ("cuda", 0.86e9, 512**2, 8),
        ("cpu", 4e6, 192**2, 8),
        ("cpu", 0.86e9, 512**2, 1),
    ],
)
def test_the_first_guess_is_one_where_one_image_keeps_the_device_busy(
    device, weights, pixels, guess
):
    assert first_guess(Device(device), int(weights), pixels) == guess
    assert math.log2(guess).is_integer()


def test_the_first_micro_batch_of_a_small_model_takes_what_there_is(tiny):
    with Spy(tiny("sd")) as seen:
        run(tiny("sd"), calls(5))
    assert seen.rows == [5, 5]


def test_on_a_processor_a_batch_stays_within_the_memory_that_is_free(tiny, monkeypatch):
    pipe, sizes = tiny("sd"), Sizes()
    monkeypatch.setattr(ram, "free_bytes", lambda: 10**9)
    monkeypatch.setattr(ram, "used_bytes", lambda: 10**9)
    monkeypatch.setattr(ram, "peak_bytes", lambda: 18 * 10**8)  # eight images took 100 MB each
    run(pipe, calls(8), sizes=sizes)
    monkeypatch.setattr(ram, "free_bytes", lambda: 25 * 10**7)
    monkeypatch.setattr(ram, "peak_bytes", lambda: 12 * 10**8)
    with Spy(pipe) as seen:
        run(pipe, calls(4), sizes=sizes)
    assert seen.rows == [2, 2, 2, 2]  # two steps each

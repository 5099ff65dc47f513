"""What only a graphics card can show: real memory that runs out, is given back, and is too small."""

import contextlib
import gc

import pytest
import torch

import nbimg
from nbimg import session
from nbimg.backends import local
from nbimg.errors import GenerationError
from nbimg.events import Notice, Preview, Step
from nbimg.local import pipelines, shelf
from nbimg.local.device import Device
from tests.local.conftest import COLOURS, gap

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="not run: needs a card that torch can use (CUDA)"
)

MIB = 2**20
#: A call of the model that takes a while and some memory.
KNOWN = {"steps": 4, "guidance": 4.0, "size": "512x512", "cache": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Stable Diffusion with random weights, large enough for a card to feel it."""
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel

    from tests.local import tiny

    base = tiny.stable_diffusion()
    torch.manual_seed(0)
    parts = {**base.components, "safety_checker": None, "feature_extractor": None}
    parts["unet"] = UNet2DConditionModel(
        sample_size=64, block_out_channels=(160, 320, 640, 640), cross_attention_dim=32
    )
    parts["vae"] = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
    )
    pipe = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    place = tmp_path_factory.mktemp("models") / "middling"
    pipe.save_pretrained(place)
    return place


@pytest.fixture
def model(folder):
    local.unload()
    local._sizes._known.clear()
    yield f"local:{folder}"
    local.unload()
    local._sizes._known.clear()


@pytest.fixture
def full():
    """Fill the card but for so many bytes, as another program would."""
    held = []

    def fill(left_bytes):
        torch.cuda.empty_cache()
        free = torch.cuda.mem_get_info()[0]
        held.append(torch.empty(free - left_bytes, dtype=torch.uint8, device="cuda"))

    yield fill
    held.clear()
    torch.cuda.empty_cache()


def taken():
    gc.collect()
    return torch.cuda.memory_allocated()


def notices(job):
    return [event.text for event in job.events if isinstance(event, Notice)]


def made(prompt, **known):
    """Make images in the background; return the job and the pictures in order."""
    job = nbimg.submit(prompt, **known)
    job.wait()
    assert [result.error for result in job.results if result.error] == []
    return job, [image.pil() for result in job.results for image in result.images]


# ------------------------------------------------------------------ memory


def test_a_card_is_taken_in_half_precision_and_unloading_gives_all_of_it_back(model):
    nbimg.generate("a", model=model, **KNOWN)
    local.unload()
    before = taken()  # what the libraries keep for themselves included
    nbimg.generate("a", model=model, **KNOWN)
    (row,) = local.loaded()
    assert row.device == "cuda"
    assert row.placing == "whole"
    unet = next(iter(local._pipelines._loaded.values())).base.unet
    assert unet.dtype == getattr(torch, Device("cuda").number_format())
    assert unet.device.type == "cuda"
    assert taken() - before > 0.9 * row.size_bytes
    del unet
    local.unload()
    assert taken() - before < MIB


def test_memory_that_runs_out_halves_the_batch_and_every_picture_is_made(model, full):
    _, alone = made("a", model=model, n=1, seed=3, **KNOWN)
    peak = torch.cuda.max_memory_allocated() - taken()
    local._sizes._known.clear()
    full(int(3.2 * peak))
    local._sizes._known.clear()
    job, pictures = made("a", model=model, n=8, seed=3, **KNOWN)
    assert len(pictures) == 8
    said = [line for line in notices(job) if line.startswith("out of memory with 8 images: ")]
    assert said == ["out of memory with 8 images: going on with 4 at once."], notices(job)
    assert gap(pictures[0], alone[0]) <= 16
    again, _ = made("b", model=model, n=8, seed=3, **KNOWN)
    assert not [line for line in notices(again) if line.startswith("out of memory")]


def test_what_ran_out_of_memory_pins_nothing_although_the_notebook_keeps_the_error(model, full):
    nbimg.generate("a", model=model, **{**KNOWN, "size": "64x64"})
    before = taken()
    full(300 * MIB)
    ballast = taken()
    kept = None
    with contextlib.suppress(GenerationError):
        try:
            nbimg.generate("a", model=model, **{**KNOWN, "size": "2048x2048"})
        except GenerationError as error:
            kept = error
            raise
    assert kept is not None
    assert "does not fit into the memory of cuda" in str(kept)
    assert taken() <= ballast + 20 * MIB
    assert before < ballast


@pytest.mark.parametrize("placing", ["parts", "layers"])
def test_a_card_smaller_than_the_model_holds_what_works_and_makes_the_same_picture(
    model, folder, full, monkeypatch, placing
):
    _, whole = made("a", model=model, seed=5, **KNOWN)
    local.unload()
    margin = 700 * MIB
    monkeypatch.setattr(pipelines, "_MARGIN_CARD", margin)
    weights = shelf.weigh(folder, Device("cuda").number_format())
    total, largest = sum(weights.values()), max(weights.values())
    full(margin + ((total + largest) // 2 if placing == "parts" else largest // 2))
    before = taken()
    _, small = made("a", model=model, seed=5, **KNOWN)
    (row,) = local.loaded()
    assert row.placing == placing
    assert gap(whole[0], small[0]) <= 8
    assert taken() - before < largest / 10  # all of it waits in main memory


def test_the_least_recently_used_model_leaves_when_the_card_is_full(model, full, saved):
    nbimg.generate("a", model=f"local:{saved}", steps=2, size="64x64", guidance=1.0)
    first = local.loaded()[0].name
    full(2_000 * MIB)
    nbimg.generate("a", model=model, **KNOWN)
    assert first not in {row.name for row in local.loaded()}


def test_usage_tells_the_peak_of_the_cards_memory(model):
    results = nbimg.generate("a", model=model, n=4, **KNOWN)
    (row,) = local.loaded()
    assert results.usage.peak_memory_bytes > row.size_bytes
    assert results.usage.peak_memory_bytes <= torch.cuda.max_memory_allocated()


# ------------------------------------------------------------------ pictures


@pytest.mark.parametrize(("number", "levels"), [("float32", 3), ("bfloat16", 48)])
def test_an_image_is_the_same_alone_in_a_batch_and_after_a_split(
    model, number, levels, monkeypatch
):
    session.default().settings.set("dtype", number)
    _, alone = made("a", model=model, seed=7, **KNOWN)
    _, eight = made("a", model=model, n=8, seed=6, **KNOWN)
    monkeypatch.setattr(local, "_sizes", local.Sizes(most=3))
    _, split = made("a", model=model, n=8, seed=6, **KNOWN)
    gaps = [gap(alone[0], eight[1]), *(gap(a, b) for a, b in zip(eight, split, strict=True))]
    print(f"{number}: at most {max(gaps)} levels of 255")
    assert max(gaps) <= levels
    assert gap(eight[0], eight[1]) > 8  # different seeds, different pictures


def test_the_same_batch_twice_gives_the_same_bytes(model):
    _, one = made("a", model=model, n=4, seed=6, **KNOWN)
    _, two = made("a", model=model, n=4, seed=6, **KNOWN)
    assert [gap(a, b) for a, b in zip(one, two, strict=True)] == [0, 0, 0, 0]


def test_edits_are_pairs_in_input_order_in_one_call(model, picture):
    inputs = [picture(colour, (512, 512)).path for colour in COLOURS[:3]]
    known = {"model": model, "strength": 0.3, "guidance": 1.0, "steps": 10, "cache": False}
    results = nbimg.edit(inputs, "x", n=2, seed=2, **known)
    alone = [nbimg.edit(one, "x", seed=3, **known)[0].images[0].pil() for one in inputs]
    for result, one in zip(results, alone, strict=True):
        assert [image.seed for image in result.images] == [2, 3]
        assert gap(result.images[1].pil(), one) <= 48


# ------------------------------------------------------------------ steps, settings


def test_stop_leaves_between_steps_and_the_next_call_works(model):
    nbimg.generate("a", model=model, **KNOWN)
    job = nbimg.submit("a", model=model, n=4, **{**KNOWN, "steps": 500})
    while not any(isinstance(event, Step) and event.done > 3 for event in list(job.events)):
        assert not job.done
    job.cancel()
    job.wait()
    done = max(event.done for event in job.events if isinstance(event, Step))
    assert 3 < done < 400
    assert len(made("a", model=model, **KNOWN)[1]) == 1


def test_previews_come_while_a_picture_is_made(model):
    job, _ = made("a", model=model, n=2, **{**KNOWN, "steps": 150})
    shown = [event for event in job.events if isinstance(event, Preview)]
    assert shown
    assert all(event.data[:4] == b"RIFF" for event in shown)


@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores")  # torch's advice
def test_compiled_blocks_make_the_same_picture(model, saved):
    settings = session.default().settings
    settings.set("dtype", "float32")
    known = {"model": f"local:{saved}", "seed": 5, **KNOWN, "size": "64x64"}
    _, plain = made("a", **known)
    settings.set("compile", True)
    _, compiled = made("a", **known)
    assert gap(plain[0], compiled[0]) <= 3

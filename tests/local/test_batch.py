"""Many images in few calls: pairs, sizes, seeds, masks, guidance, Stop, failures."""

import threading

import pytest
import torch
from PIL import Image

from nbimg.errors import JobFailedError, ReplyError
from nbimg.events import Notice, Step
from nbimg.local import batch
from nbimg.local.memory import Sizes
from tests.local.conftest import COLOURS, Spy, call, gap, run, until

LONG = {"max_sequence_length": 48}
SMALL = {"width": 64, "height": 64}

#: Pipeline → arguments; all edit, and take pairs.
EDITS = {
    "sd-edit": {"strength": 0.6},
    "instruct": {},
    "flux-edit": {**LONG, **SMALL},
    "kontext": {**LONG, **SMALL},
    "qwen-edit": SMALL,
}
#: What a batch may change in float32 on a CPU, in levels of 255: other matrix shapes round otherwise.
ROUNDING = 1
#: The same in bfloat16, whose numbers have 8 bits.
HALF = 12


def edits(picture, number=3, size=(64, 64), **known):
    return [
        call(f"prompt {'x' * k}", k, images=(picture(COLOURS[k], size),), **known)
        for k in range(number)
    ]


# ------------------------------------------------------------------ independence


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_the_same_alone_in_a_batch_and_after_a_split(tiny, picture, name):
    pipe, calls = tiny(name), edits(picture, 8, **EDITS[name])
    together = run(pipe, calls)
    split = run(pipe, calls, sizes=Sizes(most=3))
    for position in (0, 3, 7):
        (alone,) = run(pipe, [calls[position]])
        assert gap(together[position], alone) <= ROUNDING
        assert gap(split[position], alone) <= ROUNDING
    assert gap(together[0], together[1]) > 2 * ROUNDING


@pytest.mark.parametrize(
    ("name", "known"), [("sd", SMALL), ("flux", {**SMALL, **LONG}), ("qwen", SMALL)]
)
def test_a_made_image_is_the_same_alone_in_a_batch_and_after_a_split(tiny, name, known):
    pipe = tiny(name)
    calls = [call(f"prompt {'y' * k}", k, **known) for k in range(8)]
    together, split = run(pipe, calls), run(pipe, calls, sizes=Sizes(most=3))
    for position in (0, 5, 7):
        (alone,) = run(pipe, [calls[position]])
        assert gap(together[position], alone) <= ROUNDING
        assert gap(split[position], alone) <= ROUNDING


def test_seeds_decide_the_picture(tiny):
    same = run(tiny("sd"), [call("a", seed, **SMALL) for seed in (7, 7, 8)])
    assert gap(same[0], same[1]) <= ROUNDING
    assert gap(same[0], same[2]) > 5


def test_in_half_precision_a_notice_says_that_a_batch_changes_an_image_a_little():
    from tests.local import tiny as builders

    pipe, told = builders.stable_diffusion().to(torch.bfloat16), []
    calls = [call(f"prompt {'y' * k}", k, **SMALL) for k in range(4)]
    together = run(pipe, calls, lambda _, event: told.append(event))
    assert sum("half precision" in event.text for event in told if isinstance(event, Notice)) == 1
    (alone,) = run(pipe, calls[2:3])
    assert gap(together[2], alone) <= HALF


# ------------------------------------------------------------------ few calls


def test_edits_with_prompts_of_their_own_share_one_call(tiny, picture):
    pipe = tiny("sd-edit")
    with Spy(pipe) as seen:
        run(pipe, edits(picture, 4, guidance_scale=1.0, strength=1.0))
    assert seen.rows == [4, 4]


def test_variants_of_one_composition_share_a_call(tiny, picture):
    references = (picture("red"), picture("blue", (64, 96)))
    calls = [call("both", seed, images=references, **SMALL) for seed in (1, 2, 3)]
    pipe = tiny("qwen-plus")
    with Spy(pipe) as seen:
        together = run(pipe, calls, sizes=Sizes())
    assert set(seen.rows) == {3}
    (alone,) = run(pipe, calls[1:2])
    assert gap(together[1], alone) <= ROUNDING


def test_single_edits_by_a_class_of_references_do_not_see_each_other(tiny, picture):
    pipe = tiny("klein")
    calls = edits(picture, 3, **SMALL, **LONG)
    together = run(pipe, calls)
    (alone,) = run(pipe, calls[1:2])
    assert gap(together[1], alone) <= ROUNDING


def test_a_class_that_nobody_knows_is_called_image_by_image(tiny, picture):
    known = tiny("sd-edit")
    unknown = type("BrandNewPipeline", (type(known),), {})(**known.components)
    unknown.set_progress_bar_config(disable=True)
    with Spy(unknown) as seen:
        run(unknown, edits(picture, 3, guidance_scale=1.0, strength=1.0))
    assert seen.rows == [1] * 6


def test_a_class_that_pairs_does_not_combine(tiny, picture):
    calls = [call("both", images=(picture("red"), picture("blue")))]
    with pytest.raises(JobFailedError, match="does not combine 2 images"):
        run(tiny("sd-edit"), calls)


def test_another_number_of_images_than_was_asked_for_is_an_error(tiny):
    class Wasteful(type(tiny("sd"))):
        def __call__(self, prompt, generator=None, num_inference_steps=2, **known):
            out = super().__call__(prompt, generator=generator, num_inference_steps=2, **known)
            out.images = out.images[:1]
            return out

    Wasteful.__name__ = "StableDiffusionPipeline"
    pipe = Wasteful(**tiny("sd").components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    with pytest.raises(ReplyError, match="made 1 images of 3"):
        run(pipe, [call("a", seed) for seed in range(3)])


# ------------------------------------------------------------------ sizes


@pytest.mark.parametrize("name", ["sd-edit", "flux-edit", "kontext", "qwen-edit"])
def test_each_image_keeps_its_own_shape(tiny, picture, name):
    pipe, known = tiny(name), {**EDITS[name]}
    known.pop("width", None)
    known.pop("height", None)
    if hasattr(pipe, "default_sample_size"):
        pipe.default_sample_size = 8
    sizes = [(96, 64), (64, 96), (90, 60), (64, 64)]
    calls = [
        call("a", k, images=(picture(COLOURS[k], size),), **known) for k, size in enumerate(sizes)
    ]
    with Spy(pipe) as seen:
        made = run(pipe, calls)
    for image, (width, height) in zip(made, sizes, strict=True):
        assert image.width / image.height == pytest.approx(width / height, rel=0.15)
    assert made[0].size == made[2].size != made[1].size
    assert made[1].size == made[0].size[::-1]
    assert len(seen.rows) < len(sizes) * seen.rows.count(seen.rows[0])


def test_a_picture_is_cut_to_shape_and_never_stretched(tiny, picture):
    image = Image.new("RGB", (128, 64), "white")
    image.paste("black", (48, 16, 80, 48))  # a square in the middle
    pipe, seen = tiny("sd-edit"), []
    kept = pipe.image_processor.preprocess
    pipe.image_processor.preprocess = lambda given, **known: seen.append(given) or kept(given)
    try:
        run(pipe, [call("a", images=(picture(image=image),), width=64, height=64)])
    finally:
        del pipe.image_processor.preprocess
    (shown,) = seen
    dark = shown.convert("L").point(lambda level: 255 * (level < 128)).getbbox()
    assert shown.size == (64, 64)
    assert dark[2] - dark[0] == pytest.approx(dark[3] - dark[1], abs=1)


# ------------------------------------------------------------------ masks, guidance


@pytest.mark.parametrize("name", ["sd-inpaint", "flux-inpaint"])
def test_only_what_is_white_in_the_mask_is_changed(tiny, picture, name):
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    white = picture(image=mask)
    known = {**SMALL, "strength": 0.9, **(LONG if "flux" in name else {})}
    calls = [call("a", k, images=(picture(COLOURS[k]),), mask=white, **known) for k in range(3)]
    pipe = tiny(name)
    together = run(pipe, calls)
    (alone,) = run(pipe, calls[2:])
    assert gap(together[2], alone) <= ROUNDING
    latent = pipe.image_processor.preprocess(Image.new("RGB", (64, 64), COLOURS[2]))
    with torch.no_grad():
        kept = pipe.vae.decode(pipe.vae.encode(latent).latent_dist.mode()).sample
    kept = pipe.image_processor.postprocess(kept)[0]
    right = (56, 0, 64, 64)
    left = (0, 0, 8, 64)
    assert gap(alone.crop(right), kept.crop(right)) < gap(alone.crop(left), kept.crop(left))


@pytest.mark.parametrize(
    ("name", "known", "rows"),
    [
        ("qwen", SMALL, [1, 1, 1, 1]),  # true_cfg_scale is 4 by default: twice a step
        ("qwen", {**SMALL, "true_cfg_scale": 1.0}, [1, 1]),
        ("flux", {**SMALL, **LONG}, [1, 1]),
        ("flux", {**SMALL, **LONG, "true_cfg_scale": 3.0}, [1, 1, 1, 1]),
        ("sd", {**SMALL, "guidance_scale": 3.0}, [2, 2]),
    ],
)
def test_guidance_takes_effect(tiny, name, known, rows):
    pipe = tiny(name)
    with Spy(pipe) as seen:
        run(pipe, [call("a", **known)])
    assert seen.rows == rows


def test_negative_prompts_may_differ_within_a_call(tiny):
    pipe, known = tiny("sd"), {**SMALL, "guidance_scale": 5.0}
    calls = [
        call("a", 1, **known, negative_prompt="a very long list of what is bad"),
        call("a", 1, **known),
        call("a", 1, **known, negative_prompt="blue"),
    ]
    with Spy(pipe) as seen:
        together = run(pipe, calls)
    assert seen.rows == [6, 6]
    for position, one in enumerate(calls):
        (alone,) = run(pipe, [one])
        assert gap(together[position], alone) <= ROUNDING


def test_a_negative_prompt_without_effect_is_told(tiny):
    told = []
    run(
        tiny("flux"),
        [call("a", negative_prompt="blue", **SMALL, **LONG)],
        lambda _, event: told.append(event),
    )
    assert any("no effect" in event.text for event in told if isinstance(event, Notice))


def test_an_argument_that_the_class_does_not_take_is_told(tiny):
    told = []
    run(tiny("sd"), [call("a", strength=0.5, **SMALL)], lambda _, event: told.append(event))
    texts = [event.text for event in told if isinstance(event, Notice)]
    assert texts == ["StableDiffusionPipeline takes no strength: dropped."]


# ------------------------------------------------------------------ steps and Stop


def test_steps_are_told_for_every_image_of_a_batch(tiny):
    seen = []
    calls = [call("a", k, **SMALL) for k in range(3)]
    run(tiny("sd"), calls, lambda position, event: seen.append((position, event)))
    steps = {(p, e.done, e.total) for p, e in seen if isinstance(e, Step)}
    assert steps == {(p, done, 2) for p in range(3) for done in range(3)}


def test_steps_of_an_edit_are_those_that_its_strength_leaves(tiny, picture):
    seen = []
    calls = edits(picture, 1, strength=0.5, num_inference_steps=6)
    run(tiny("sd-edit"), calls, lambda _, event: seen.append(event))
    last = [event for event in seen if isinstance(event, Step)][-1]
    assert (last.done, last.total) == (3, 3)


def no_callback(pipe):
    """The same pipeline as a class whose call takes no callback, as PixArt's."""

    class Silent(type(pipe)):
        def __call__(self, prompt, generator=None, num_inference_steps=50, **known):
            return super().__call__(
                prompt, generator=generator, num_inference_steps=num_inference_steps, **known
            )

        __call__.__signature__ = None

    import inspect

    taken = dict(inspect.signature(type(pipe).__call__).parameters)
    taken.pop("callback_on_step_end")
    Silent.__call__.__signature__ = inspect.Signature(list(taken.values()))
    Silent.__name__ = type(pipe).__name__
    made = Silent(**pipe.components, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize("silent", [False, True])
def test_stop_leaves_the_pipeline_between_two_steps_and_the_next_call_works(tiny, silent):
    pipe = no_callback(tiny("sd")) if silent else tiny("sd")
    before = run(pipe, [call("a", **SMALL)])
    stop, seen = threading.Event(), []

    def report(_, event):
        seen.append(event.done)
        if event.done == 2:
            stop.set()

    with pytest.raises(batch.StoppedError):
        run(pipe, [call("a", num_inference_steps=8, **SMALL)], report, stop)
    assert max(seen) <= 3
    assert gap(run(pipe, [call("a", **SMALL)])[0], before[0]) == 0


def test_what_was_made_before_stop_is_kept(tiny):
    stop, calls = threading.Event(), [call("a", k, **SMALL) for k in range(4)]
    made, _ = until(batch.StoppedError, tiny("sd"), calls, stop.set, stop=stop, sizes=Sizes(most=2))
    assert made == [0, 1]


# ------------------------------------------------------------------ failures


def test_one_image_that_fails_does_not_cost_the_others(tiny):
    pipe = tiny("sd")
    kept = pipe.encode_prompt

    def picky(prompt, *rest, **known):
        if "bad" in str(prompt):
            raise ValueError("no such word")
        return kept(prompt, *rest, **known)

    pipe.encode_prompt = picky
    try:
        calls = [call(text, 1, **SMALL) for text in ("a", "b", "bad", "c")]
        made, error = until(JobFailedError, pipe, calls)
    finally:
        del pipe.encode_prompt
    assert made == [0, 1, 3]
    assert "no such word" in error.message
    assert error.__context__ is None


def test_a_pipeline_that_fails_for_all_is_not_asked_for_each(tiny):
    pipe, asked = tiny("sd"), []
    with pytest.raises(JobFailedError) as caught:
        run(
            pipe,
            [call("a", k, guidance_scale="much", **SMALL) for k in range(20)],
            lambda _, event: asked.append(event),
        )
    assert "\n" not in str(caught.value)
    assert len(asked) < 30

"""What the installed diffusers makes of lists: an upgrade that reads one otherwise is seen here."""

import pytest
import torch
from PIL import Image

from tests.local.conftest import COLOURS, Spy

PROMPTS = ["a red house", "b", "the third of them"]
SIZE = {"height": 64, "width": 64}
LONG = {"max_sequence_length": 48}
EXACT = {**SIZE, **LONG, "max_area": 4096, "_auto_resize": False}

#: Pipeline → arguments without guidance, so that each row is one image.
PAIRS = {
    "sd-edit": {"guidance_scale": 1.0},
    "sd-inpaint": {"guidance_scale": 1.0, "strength": 0.6, **SIZE},
    "instruct": {"guidance_scale": 1.0},
    "flux-edit": {**SIZE, **LONG, "strength": 0.4},
    "flux-inpaint": {**SIZE, **LONG, "strength": 0.4},
    "kontext": EXACT,
    "qwen-edit": {**SIZE, "true_cfg_scale": 1.0},
}


def images(size=(64, 64)):
    return [Image.new("RGB", size, colour) for colour in COLOURS[:3]]


def generators(seeds):
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def given(pipe, prompt, image, seeds, **known):
    """What the network is given in its first call: samples and text, a row an image."""
    if image is not None:
        known["image"] = image
    if "Inpaint" in type(pipe).__name__:
        side = Image.new("L", (64, 64), 255)
        known["mask_image"] = [side] * len(image) if isinstance(image, list) else side
    with Spy(pipe, leave=True) as seen:
        pipe(prompt=prompt, generator=generators(seeds), num_inference_steps=2, **known)
    return seen.first


def reading(pipe, seeds, prompts, pictures, **known):
    """Which image and which prompt each row was made from."""
    samples, texts = given(pipe, prompts, pictures, seeds, **known)
    known.pop("num_images_per_prompt", None)
    found = []
    for sample, text, seed in zip(samples, texts, seeds, strict=True):
        alone = {
            (i, j): given(pipe, [prompt], [picture], [seed], **known)
            for i, picture in enumerate(pictures)
            for j, prompt in enumerate(prompts)
        }
        image = min(alone, key=lambda k: distance(sample, alone[k][0][0]))[0]
        prompt = min(range(len(prompts)), key=lambda j: distance(text, alone[image, j][1][0]))
        found.append((image, prompt))
    return found


def distance(one, other):
    length = max(len(one), len(other))
    wide = [torch.nn.functional.pad(x.flatten(1), (0, 0, 0, length - len(x))) for x in (one, other)]
    return float((wide[0] - wide[1]).abs().sum())


@pytest.mark.parametrize("name", PAIRS)
def test_lists_of_prompts_and_images_are_pairs(tiny, name):
    found = reading(tiny(name), [5, 6, 7], PROMPTS, images(), **PAIRS[name])
    assert found == [(0, 0), (1, 1), (2, 2)]


@pytest.mark.parametrize("name", ["sd-edit", "instruct", "kontext", "qwen-edit"])
def test_lists_with_several_images_a_prompt_are_paired_wrongly(tiny, name):
    known = {**PAIRS[name], "num_images_per_prompt": 2}
    found = reading(tiny(name), [1, 2, 3, 4, 5, 6], PROMPTS, images(), **known)
    assert found == [(0, 0), (1, 0), (2, 1), (0, 1), (1, 2), (2, 2)]


@pytest.mark.parametrize("name", ["sd", "flux", "qwen"])
def test_a_list_of_prompts_makes_one_image_each_in_order(tiny, name):
    pipe = tiny(name)
    known = {"sd": {"guidance_scale": 1.0}, "flux": LONG, "qwen": {}}[name] | SIZE
    _, texts = given(pipe, PROMPTS, None, [1, 2, 3], **known)
    alone = [given(pipe, [prompt], None, [1], **known)[1][0] for prompt in PROMPTS]
    found = [min(range(3), key=lambda j: distance(text, alone[j])) for text in texts]
    assert found == [0, 1, 2]


def test_edit_plus_takes_one_prompt_and_sees_all_images(tiny):
    pipe, known = tiny("qwen-plus"), {**SIZE, "true_cfg_scale": 1.0}
    one, _ = given(pipe, "a", images()[:1], [1], **known)
    three, _ = given(pipe, "a", images(), [1], **known)
    copies, _ = given(pipe, "a", images(), [1, 2], num_images_per_prompt=2, **known)
    made = (64 // 16) ** 2  # tokens of the image that is made
    assert three.shape[:2] == (1, made + 3 * (one.shape[1] - made))
    assert copies.shape[:2] == (2, three.shape[1])
    with pytest.raises(ValueError, match="batch_size=1"):
        given(pipe, PROMPTS, images(), [1, 2, 3], **known)


def test_flux_2_klein_shows_every_image_to_every_prompt(tiny):
    pipe, known = tiny("klein"), {**SIZE, **LONG, "guidance_scale": 1.0}
    one, _ = given(pipe, ["a"], images()[:1], [1], **known)
    three, _ = given(pipe, PROMPTS, images(), [1, 2, 3], **known)
    tokens = one.shape[1] // 2
    assert three.shape[:2] == (3, 4 * tokens)


def test_qwen_edit_refuses_one_prompt_for_several_images(tiny):
    with pytest.raises(ValueError, match="image"):
        given(tiny("qwen-edit"), "a", images(), [1], **PAIRS["qwen-edit"])


def test_images_of_other_sizes_are_stretched_to_the_first(tiny):
    pictures = [Image.new("RGB", (64, 64)), Image.new("RGB", (64, 32))]
    samples, _ = given(tiny("instruct"), PROMPTS[:2], pictures, [1, 2], guidance_scale=1.0)
    assert samples.shape[-2:] == (8, 8)


@pytest.mark.parametrize(("negative", "calls"), [(None, 2), (" ", 4)])
def test_qwens_guidance_works_only_beside_a_negative_prompt(tiny, negative, calls):
    with Spy(tiny("qwen")) as seen:
        tiny("qwen")(
            "a", negative_prompt=negative, true_cfg_scale=4.0, num_inference_steps=2, **SIZE
        )
    assert len(seen.rows) == calls


def test_from_pipe_still_casts_shared_weights_to_float32():
    from diffusers import StableDiffusionImg2ImgPipeline

    from tests.local import tiny as builders

    pipe = builders.stable_diffusion().to(torch.bfloat16)
    StableDiffusionImg2ImgPipeline.from_pipe(pipe)
    assert pipe.unet.dtype == torch.float32

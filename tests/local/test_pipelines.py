import shutil
import threading
from pathlib import Path

import pytest

from nbimg import pixels
from nbimg.backends.base import Call
from nbimg.backends.local import demo_folder
from nbimg.errors import DependencyMissingError, JobFailedError, SetupError, UnknownNameError
from nbimg.local import batch, manifest, pipelines
from nbimg.types import InputImage, ModelRef

REF = ModelRef("demo", "", "demo")
CARD = manifest.read(demo_folder())
LOADED = pipelines.Pipelines()


def pipe(task):
    return LOADED.get(CARD, task, "cpu", "float32")


def calls(*prompts, seeds=None, images=(), steps=3):
    seeds = seeds or range(len(prompts))
    return [
        Call(REF, prompt, {"num_inference_steps": steps}, images=images, seed=seed)
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]


def run(task, wanted, report=lambda position, event: None, stop=None):
    defaults = CARD.tasks[task]
    return list(
        batch.run(pipe(task), wanted, defaults, CARD.size_px, report, stop or threading.Event())
    )


def gap(one, other):
    """Largest difference of two encoded images, in levels of 0 to 255."""
    pairs = zip(
        pixels.decode(one).convert("RGB").tobytes(),
        pixels.decode(other).convert("RGB").tobytes(),
        strict=True,
    )
    return max(abs(a - b) for a, b in pairs)


@pytest.fixture
def picture(tmp_path):
    data = run("generate", calls("a red house by day", seeds=[3]))[0][1].data
    path = tmp_path / "house.png"
    path.write_bytes(data)
    return InputImage("0" * 64, "image/png", 192, 192, str(path), "house.png")


def test_an_image_does_not_depend_on_its_neighbours_in_the_batch():
    prompts = ["a red house", "a blue boat at night", "a yellow star", "a green tree"]
    together = run("generate", calls(*prompts))
    for position, image in together:
        (_, alone), *_ = run("generate", calls(prompts[position], seeds=[position]))
        assert gap(image.data, alone.data) <= 2


def test_images_come_in_the_order_of_the_calls_across_micro_batches(monkeypatch):
    wanted = calls("a red circle", "a blue square", "a green star", seeds=[1, 2, 3])
    whole = run("generate", wanted)
    monkeypatch.setattr(batch, "SMALL_BATCH", 2)
    split = run("generate", wanted)
    assert [position for position, _ in split] == [0, 1, 2]
    assert [image.seed for _, image in split] == [1, 2, 3]
    assert all(gap(a.data, b.data) <= 2 for (_, a), (_, b) in zip(whole, split, strict=True))


def test_seeds_decide_the_picture():
    same = run("generate", calls("a boat", "a boat", "a boat", seeds=[7, 7, 8]))
    assert gap(same[0][1].data, same[1][1].data) <= 2
    assert gap(same[0][1].data, same[2][1].data) > 20


def test_edits_of_several_images_are_pairs_of_prompt_and_image(picture):
    both = run(
        "edit", calls("make it night", "make the house blue", seeds=[1, 1], images=(picture,))
    )
    alone = run("edit", calls("make the house blue", seeds=[1], images=(picture,)))
    assert gap(both[1][1].data, alone[0][1].data) <= 2
    assert gap(both[0][1].data, both[1][1].data) > 20


def test_making_shares_its_weights_with_editing():
    make, edit = pipe("generate"), pipe("edit")
    assert make.vae is edit.vae
    assert make.text_encoder is edit.text_encoder
    shared = dict(edit.unet.named_parameters())
    own = [n for n, w in make.unet.named_parameters() if w.data_ptr() != shared[n].data_ptr()]
    assert own == ["conv_in.weight"]


def test_making_equals_editing_a_source_of_zeros():
    import torch

    make, edit = pipe("generate"), pipe("edit")
    channels = make.unet.config.in_channels
    noise = torch.randn(1, channels, 12, 12, generator=torch.Generator().manual_seed(1))
    words = edit.tokenizer("a red house", padding="max_length", return_tensors="pt")
    text = edit.text_encoder(words.input_ids)[0]
    with torch.inference_mode():
        slim = make.unet(noise, 500, text).sample
        full = edit.unet(torch.cat([noise, torch.zeros_like(noise)], 1), 500, text).sample
    assert torch.allclose(slim, full, atol=1e-5)


def test_a_pipeline_is_loaded_once():
    assert pipe("edit") is pipe("edit")
    assert pipe("generate") is pipe("generate")


def test_stop_leaves_the_pipeline_between_two_steps_and_the_next_call_works():
    stop, seen = threading.Event(), []

    def report(position, event):
        seen.append(event.done)
        if event.done == 2:
            stop.set()

    with pytest.raises(batch.StoppedError):
        run("generate", calls("a red house", steps=6), report, stop)
    assert max(seen) <= 3
    assert len(run("generate", calls("a red house"))) == 1


def test_steps_are_told_for_every_image_of_a_batch():
    seen = []
    run("generate", calls("a star", "a heart"), lambda position, e: seen.append((position, e.done)))
    assert {(0, 3), (1, 3)} <= set(seen)
    assert all(done <= 3 for _, done in seen)


def test_a_pipeline_that_fails_says_so_in_one_line():
    wanted = [Call(REF, "a star", {"num_inference_steps": 2, "guidance_scale": "much"}, seed=1)]
    with pytest.raises(JobFailedError) as caught:
        run("generate", wanted)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_pipeline_is_named(tmp_path):
    with pytest.raises(UnknownNameError, match="no local model"):
        manifest.find_folder(str(tmp_path / "nothing"))
    with pytest.raises(SetupError, match="holds no diffusers pipeline"):
        manifest.find_folder(str(tmp_path))


def test_weights_that_are_damaged_are_one_clear_error(tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(demo_folder(), folder)
    (next((folder / "unet").glob("*.safetensors"))).write_bytes(b"not weights")
    with pytest.raises(JobFailedError, match="cannot be loaded"):
        pipelines.Pipelines().get(manifest.read(folder), "generate", "cpu", None)


def test_only_safetensors_are_loaded(tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(demo_folder(), folder)
    weights = next((folder / "unet").glob("*.safetensors"))
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(JobFailedError, match="cannot be loaded"):
        pipelines.Pipelines().get(manifest.read(folder), "generate", "cpu", None)


def test_a_missing_package_is_one_line_with_its_command(monkeypatch):
    real = pipelines.importlib.util.find_spec
    monkeypatch.setattr(
        pipelines.importlib.util, "find_spec", lambda n: None if n == "torch" else real(n)
    )
    with pytest.raises(DependencyMissingError) as caught:
        pipelines.installed()
    assert "torch" in caught.value.message
    assert caught.value.hint == "pip install 'nbimg[local]'"


def test_the_shipped_weights_are_small():
    files = [path for path in Path(demo_folder()).rglob("*") if path.is_file()]
    weights = sum(path.stat().st_size for path in files if path.suffix == ".safetensors")
    assert 1_000_000 < weights < 10_500_000
    assert not [path for path in files if path.suffix in {".bin", ".pt", ".pkl", ".py"}]


def test_a_prompt_that_is_too_long_is_cut_and_not_printed(capfd):
    (_, image), *_ = run("generate", calls("a red house " * 200))
    assert pixels.probe(image.data).width == 192
    assert "house house" not in "".join(capfd.readouterr()).replace("a red ", "")

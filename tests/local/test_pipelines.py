"""The cache of pipelines: loaded once, shared by tasks, let go for good."""

import gc
import shutil
import weakref

import pytest
import torch

from nbimg.backends.local import demo_folder
from nbimg.errors import DependencyMissingError, JobFailedError, SetupError, UnknownNameError
from nbimg.local import device, manifest, pipelines
from nbimg.local.device import Device
from nbimg.local.pipelines import Pipelines
from tests.local.conftest import call as one_call
from tests.local.conftest import gap, run

CARD = manifest.read(demo_folder(), "demo")


@pytest.fixture(scope="module")
def cache():
    return Pipelines()


@pytest.fixture
def card(saved):
    return manifest.read(saved, "local:tiny-sd")


def get(cache, card, task="generate", dtype=None, **known):
    return cache.get(card, task, "cpu", dtype, **known)


# ------------------------------------------------------------------ shared and kept


def test_a_model_is_loaded_once(cache, card):
    assert get(cache, card) is get(cache, card)
    assert len([row for row in cache.rows() if row.name == "local:tiny-sd"]) == 1


def test_tasks_share_every_weight_and_have_schedulers_of_their_own(cache, card):
    make, edit, paint = (get(cache, card, task) for task in ("generate", "edit", "inpaint"))
    assert [type(pipe).__name__ for pipe in (make, edit, paint)] == [
        "StableDiffusionPipeline",
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",
    ]
    for part in ("unet", "vae", "text_encoder"):
        assert getattr(make, part) is getattr(edit, part) is getattr(paint, part)
    assert len({id(pipe.scheduler) for pipe in (make, edit, paint)}) == 3


def test_sharing_keeps_the_number_format(card):
    cache = Pipelines()
    make, edit = (get(cache, card, task, "bfloat16") for task in ("generate", "edit"))
    assert make.unet.dtype == edit.unet.dtype == torch.bfloat16
    assert get(cache, card).unet.dtype == torch.float32
    assert len(cache.rows()) == 2


def test_a_model_whose_files_have_changed_is_loaded_anew_and_the_old_one_leaves(saved, tmp_path):
    folder, cache = tmp_path / "copy", Pipelines()
    shutil.copytree(saved, folder)
    card = manifest.read(folder, "local:copy")
    old = weakref.ref(get(cache, card))
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes())
    assert not cache.has(card)
    get(cache, card)
    gc.collect()
    assert old() is None
    assert len(cache.rows()) == 1


def test_rows_say_what_each_model_is_used_for_and_how_large_it_is(cache, card):
    get(cache, card), get(cache, card, "edit")
    (row,) = [row for row in cache.rows() if row.name == "local:tiny-sd"]
    pipe = get(cache, card)
    size = sum(
        weight.numel() * 4
        for part in (pipe.unet, pipe.vae, pipe.text_encoder)
        for weight in part.parameters()
    )
    assert {"generate", "edit"} <= set(row.tasks)
    assert row.device == "cpu"
    assert row.size_bytes == pytest.approx(size, rel=0.02)


def test_a_task_that_the_class_does_not_do_is_a_clear_error(cache, card):
    with pytest.raises(JobFailedError, match="local:tiny-sd cannot combine images"):
        get(cache, card, "combine")


def test_the_demo_makes_and_edits_with_the_same_weights(cache):
    make, edit = (get(cache, CARD, task) for task in ("generate", "edit"))
    assert make.vae is edit.vae
    assert make.text_encoder is edit.text_encoder
    shared = dict(edit.unet.named_parameters())
    own = [n for n, w in make.unet.named_parameters() if w.data_ptr() != shared[n].data_ptr()]
    assert own == ["conv_in.weight"]


def test_making_equals_editing_a_source_of_zeros(cache):
    make, edit = (get(cache, CARD, task) for task in ("generate", "edit"))
    channels = make.unet.config.in_channels
    noise = torch.randn(1, channels, 12, 12, generator=torch.Generator().manual_seed(1))
    words = edit.tokenizer("a red house", padding="max_length", return_tensors="pt")
    text = edit.text_encoder(words.input_ids)[0]
    with torch.inference_mode():
        slim = make.unet(noise, 500, text).sample
        full = edit.unet(torch.cat([noise, torch.zeros_like(noise)], 1), 500, text).sample
    assert torch.allclose(slim, full, atol=1e-5)


# ------------------------------------------------------------------ let go


def refs(cache, card, *tasks):
    """Weak references to a model's pipelines and networks, none of which this frame keeps."""
    pipes = [get(cache, card, task) for task in tasks]
    return [weakref.ref(x) for pipe in pipes for x in (pipe, pipe.unet, pipe.vae)]


def alive(some):
    gc.collect()
    return [ref() for ref in some if ref() is not None]


def test_unloading_really_frees_all_pipelines_of_a_model(card):
    cache = Pipelines()
    some = refs(cache, card, "generate", "edit", "inpaint")
    assert alive(some)
    (gone,) = cache.unload("local:tiny-sd")
    assert gone.name == "local:tiny-sd"
    assert alive(some) == []
    assert cache.rows() == ()


def test_unloading_frees_after_a_run_and_after_a_run_that_failed(card):
    cache = Pipelines()
    some = refs(cache, card, "generate")
    known = {"width": 32, "height": 32}
    assert len(run(get(cache, card), [one_call("a", **known)])) == 1
    with pytest.raises(JobFailedError):
        run(get(cache, card), [one_call("a", guidance_scale="much", **known)])
    cache.unload()
    assert alive(some) == []


def test_unloading_all_frees_every_model(card):
    cache = Pipelines()
    some = [*refs(cache, card, "generate"), *refs(cache, CARD, "edit", "generate")]
    assert {row.name for row in cache.unload()} == {"local:tiny-sd", "demo"}
    assert alive(some) == []


def test_what_was_used_least_recently_leaves_when_memory_is_short(card, monkeypatch):
    cache, free = Pipelines(), [10e9]
    monkeypatch.setattr(Device, "free_bytes", lambda self: free[0])
    first, second = refs(cache, CARD, "edit"), refs(cache, card, "generate")
    get(cache, CARD)  # used last
    kept = cache._drop
    free[0] = 0

    def drop(key):
        kept(key)
        free[0] = 10e9

    monkeypatch.setattr(cache, "_drop", drop)
    get(cache, card, dtype="bfloat16")
    assert alive(second) == []
    assert alive(first)
    assert {row.name for row in cache.rows()} == {"demo", "local:tiny-sd"}


def test_memory_is_estimated_before_anything_is_loaded(card, monkeypatch):
    cache, order = Pipelines(), []
    monkeypatch.setattr(Device, "free_bytes", lambda self: order.append("asked") or 10e9)
    kept = pipelines.load
    monkeypatch.setattr(pipelines, "load", lambda *known: order.append("loaded") or kept(*known))
    get(cache, card)
    assert order.index("asked") < order.index("loaded")


def test_a_model_that_main_memory_does_not_hold_is_not_begun(card, monkeypatch):
    monkeypatch.setattr(Device, "free_bytes", lambda self: 90_000)
    monkeypatch.setattr(pipelines, "load", lambda *_: pytest.fail("the kernel would be killed"))
    with pytest.raises(JobFailedError, match=r"needs .* of main memory; 90 kB are free") as caught:
        get(Pipelines(), card)
    assert "smaller model" in caught.value.hint


@pytest.mark.parametrize(("free", "placing"), [(50e9, "whole"), (22e9, "parts"), (8e9, "layers")])
def test_a_model_that_is_larger_than_the_card_is_placed_in_parts(monkeypatch, free, placing):
    monkeypatch.setattr(Device, "free_bytes", lambda self: free)
    weights = {"transformer": 20_000_000_000, "text_encoder": 15_000_000_000}
    assert Pipelines()._make_room(Device("cuda"), weights) == placing


class Hooked:
    """A pipeline that notes what is done to it."""

    def __init__(self):
        self.done = []

    def __getattr__(self, name):
        return lambda *_, **known: self.done.append((name, known.get("device")))


def test_parts_are_hooked_for_the_pipeline_that_runs_and_hooked_over_when_another_does():
    base, other = Hooked(), Hooked()
    loaded = pipelines.Loaded("x", base, Device("cuda"), 1, "parts")
    loaded.pipes["edit"] = other
    loaded.ready(base), loaded.ready(base)
    assert base.done == [("enable_model_cpu_offload", "cuda")]
    loaded.ready(other)
    assert other.done == [("enable_model_cpu_offload", "cuda")]
    loaded.place("layers")
    base.done.clear()
    loaded.ready(base)
    assert base.done[-1] == ("enable_sequential_cpu_offload", "cuda")


def test_a_class_that_does_not_tell_the_order_of_its_parts_is_moved_layer_by_layer():
    class Unordered(Hooked):
        def enable_model_cpu_offload(self, **_):
            raise ValueError("no `model_cpu_offload_seq` class attribute is set")

    pipe = Unordered()
    loaded = pipelines.Loaded("x", pipe, Device("cuda"), 1, "parts")
    assert loaded.ready(pipe) is pipe
    assert pipe.done[-1] == ("enable_sequential_cpu_offload", "cuda")
    assert loaded.placing == "layers"


# ------------------------------------------------------------------ loading


def test_loading_tells_its_size_and_its_parts(card):
    told = []
    get(Pipelines(), card, tell=told.append)
    assert told[0].startswith("loading local:tiny-sd (")
    assert told[0].endswith("B) on cpu …")
    assert told[1] == "loading local:tiny-sd: part 1 of 5 …"
    assert len(told) == 6


def test_a_card_that_is_fuller_than_it_looked_gets_the_model_in_parts(card, monkeypatch):
    kind = type(get(Pipelines(), card))
    kept, went, told = kind.to, [], []

    def full(pipe, *where, **known):
        went.append(where[0])
        if len(went) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return kept(pipe, *where, **known)

    monkeypatch.setattr(kind, "to", full)
    loaded = Pipelines().load(card, "cpu", None, told.append)
    assert loaded.placing == "parts"
    assert went == ["cpu", "cpu"]  # there, and back to main memory
    assert "its parts are moved as they work" in told[-1]


def test_a_device_that_fails_otherwise_is_one_line(card, monkeypatch):
    kind = type(get(Pipelines(), card))

    def broken(*_, **__):
        raise RuntimeError("CUDA error: invalid device ordinal\nCUDA kernel errors might be …")

    monkeypatch.setattr(kind, "to", broken)
    with pytest.raises(JobFailedError, match="invalid device ordinal") as caught:
        Pipelines().load(card, "cpu", None)
    assert "\n" not in str(caught.value)
    assert caught.value.__context__ is None


def networks():
    gc.collect()
    return sum(issubclass(type(x), torch.nn.Module) for x in gc.get_objects())


def test_a_load_that_fails_leaves_nothing_behind(saved, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(saved, folder)
    next((folder / "vae").glob("*.safetensors")).write_bytes(b"not weights")
    cache = Pipelines()
    before = networks()
    with pytest.raises(JobFailedError, match="cannot be loaded") as caught:
        get(cache, manifest.read(folder, "local:broken"))
    assert networks() == before
    assert caught.value.__context__ is None
    assert "\n" not in str(caught.value)
    assert cache.rows() == ()


def test_only_safetensors_are_loaded(saved, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(saved, folder)
    weights = next((folder / "unet").glob("*.safetensors"))
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(SetupError, match=r"pickled.* unet"):
        get(Pipelines(), manifest.read(folder))


def test_code_in_a_folder_does_not_run(saved, tmp_path):
    folder = tmp_path / "code"
    shutil.copytree(saved, folder)
    index = folder / "model_index.json"
    index.write_text(
        index.read_text().replace('"StableDiffusionPipeline"', '["pipeline", "Mine"]', 1)
    )
    (folder / "pipeline.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(SetupError, match=r"code of its own \(pipeline.py\)"):
        get(Pipelines(), manifest.read(folder))
    assert not (tmp_path / "ran").exists()


def test_code_of_a_part_does_not_run(saved, tmp_path):
    folder = tmp_path / "part"
    shutil.copytree(saved, folder)
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace('"AutoencoderKL"', '"Mine"').replace(
        '"vae": [\n    "diffusers"', '"vae": [\n    "mine"'))  # fmt: skip
    (folder / "vae" / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(SetupError, match=r"code of its own \(vae/mine.py\)"):
        get(Pipelines(), manifest.read(folder))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("AutoencoderKL", "'AutoencoderKL', which is no pipeline"),
        ("BrandNewPipeline", "'BrandNewPipeline', which this diffusers does not have"),
        ("", "does not name its pipeline"),
    ],
)
def test_a_class_that_is_no_pipeline_is_named(saved, tmp_path, kind, said):
    folder = tmp_path / "other"
    shutil.copytree(saved, folder)
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", kind))
    with pytest.raises(SetupError, match=said):
        get(Pipelines(), manifest.read(folder))


def test_a_part_that_is_missing_is_named(saved, tmp_path):
    folder = tmp_path / "partly"
    shutil.copytree(saved, folder, ignore=shutil.ignore_patterns("vae"))
    with pytest.raises(SetupError, match="has no folder vae"):
        get(Pipelines(), manifest.read(folder, "local:partly"))


def test_what_a_model_says_of_itself_may_be_nonsense(saved, tmp_path):
    folder = tmp_path / "odd"
    shutil.copytree(saved, folder)
    (folder / "nbimg.json").write_text('{"tasks": [1]}')
    with pytest.raises(SetupError, match=r"nbimg.json cannot be read"):
        manifest.read(folder)


def test_a_number_format_that_a_processor_is_slow_in_is_not_warned_of_in_the_notebook(card, capfd):
    get(Pipelines(), card, dtype="float16")
    assert "cannot run with" not in "".join(capfd.readouterr())


def test_weights_of_a_variant_are_loaded_where_there_are_no_others(saved, tmp_path):
    folder = tmp_path / "fp16"
    shutil.copytree(saved, folder)
    for path in list(folder.glob("*/*.safetensors")):
        path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))
    assert get(Pipelines(), manifest.read(folder)).unet.dtype == torch.float32


def test_a_folder_without_a_pipeline_is_named(tmp_path):
    with pytest.raises(UnknownNameError, match="no local model"):
        manifest.find_folder(str(tmp_path / "nothing"))
    with pytest.raises(SetupError, match="holds no diffusers pipeline"):
        manifest.find_folder(str(tmp_path))


def test_a_missing_package_is_one_line_with_its_command(monkeypatch):
    real = device.importlib.util.find_spec
    monkeypatch.setattr(
        device.importlib.util, "find_spec", lambda n: None if n == "torch" else real(n)
    )
    with pytest.raises(DependencyMissingError) as caught:
        device.installed()
    assert "torch" in caught.value.message
    assert caught.value.hint == "pip install 'nbimg[local]'"


# ------------------------------------------------------------------ the model that ships


def test_the_shipped_weights_are_small():
    files = [path for path in demo_folder().rglob("*") if path.is_file()]
    weights = sum(path.stat().st_size for path in files if path.suffix == ".safetensors")
    assert 1_000_000 < weights < 10_500_000
    assert not [path for path in files if path.suffix in {".bin", ".pt", ".pkl", ".py"}]


def test_an_image_of_the_demo_does_not_depend_on_its_neighbours(cache):
    pipe = get(cache, CARD)
    calls = [one_call(text, k) for k, text in enumerate(["a red house", "a blue boat", "a star"])]
    together = run(pipe, calls)
    for position, image in enumerate(together):
        (alone,) = run(pipe, [calls[position]])
        assert gap(image, alone) <= 2  # decoded in another batch size


def test_a_prompt_that_is_too_long_is_cut_and_not_printed(cache, capfd):
    run(get(cache, CARD), [one_call("a red house " * 200)])
    assert "house house" not in "".join(capfd.readouterr()).replace("a red ", "")

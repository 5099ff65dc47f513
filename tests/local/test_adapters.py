import gc
import importlib.util
import shutil
import weakref

import pytest

from nbimg.backends.local import demo_folder
from nbimg.errors import DependencyMissingError, OptionError, UnknownNameError
from nbimg.local import adapters, manifest, pipelines
from nbimg.local.adapters import Adapter

torch = pytest.importorskip("torch")
np = pytest.importorskip("numpy")

CARD = manifest.read(demo_folder())
needs_peft = pytest.mark.skipif(
    importlib.util.find_spec("peft") is None, reason="peft is not installed"
)


@pytest.fixture(scope="module")
def pipe():
    return pipelines.Pipelines().get(CARD, "generate", "cpu", "float32")


def generate(pipe, prompt="a red house by day"):
    generator = torch.Generator().manual_seed(3)
    return np.asarray(pipe(prompt, generator=generator, num_inference_steps=3).images[0]).astype(
        int
    )


def made(pipe, *sources):
    with adapters.applied(pipe, {"lora": sources}):
        return generate(pipe)


@pytest.fixture
def lora(pipe, tmp_path):
    """Returns a maker of adapters, with random weights, as files."""
    from safetensors.torch import save_file

    def make(name, seed=1, *, part="unet", wide=1, folder=tmp_path):
        source, weights = torch.Generator().manual_seed(seed), {}
        for name_, layer in getattr(pipe, part.replace("transformer", "unet")).named_modules():
            path = name_.removesuffix(".base_layer")  # where an adapter is beside it already
            if isinstance(layer, torch.nn.Linear) and path.endswith(("to_q", "to_v", "q_proj")):
                rows = layer.in_features * wide
                weights[f"{part}.{path}.lora_A.weight"] = 0.3 * torch.randn(
                    4, rows, generator=source
                )
                weights[f"{part}.{path}.lora_B.weight"] = 0.3 * torch.randn(
                    layer.out_features, 4, generator=source
                )
        folder.mkdir(exist_ok=True)
        save_file(weights, folder / name)
        return str(folder / name)

    return make


@pytest.mark.parametrize(
    ("text", "source", "weight"),
    [
        ("ink.safetensors", "ink.safetensors", 1.0),
        ("styles/ink:0.8", "styles/ink", 0.8),
        ("owner/name:-1", "owner/name", -1.0),
        ("C:\\ink.safetensors", "C:\\ink.safetensors", 1.0),
        ("C:\\ink.safetensors:.5", "C:\\ink.safetensors", 0.5),
    ],
)
def test_a_weight_may_follow_the_source(text, source, weight):
    assert Adapter.parse(text) == Adapter(source, weight)


def test_other_arguments_go_on_to_the_pipeline(pipe):
    asked = {"scheduler": "unipc", "lora": [], "accelerator": None, "guidance_scale": 3}
    with adapters.applied(pipe, asked) as rest:
        assert rest == {"guidance_scale": 3}


@needs_peft
def test_two_calls_with_different_adapters_do_not_mix_and_leave_nothing(pipe, lora):
    plain = generate(pipe)
    ink, oil = lora("ink.safetensors", 1), lora("oil.safetensors", 2)
    first, second = made(pipe, ink), made(pipe, oil)
    assert (generate(pipe) == plain).all()
    assert (made(pipe, ink) == first).all()
    assert (made(pipe, oil) == second).all()
    assert all((a != b).any() for a, b in ((first, second), (first, plain), (second, plain)))


@needs_peft
def test_weights_count_and_adapters_add_up(pipe, lora):
    ink, oil = lora("ink.safetensors", 1), lora("oil.safetensors", 2)
    assert (made(pipe, f"{ink}:0") == generate(pipe)).all()
    assert (made(pipe, f"{ink}:0.5") != made(pipe, ink)).any()
    both = made(pipe, ink, oil)
    assert (both != made(pipe, ink)).any()
    assert (made(pipe, ink, f"{oil}:0") == made(pipe, ink)).all()


@needs_peft
def test_an_adapter_of_the_text_encoder_is_not_mixed_up_with_remembered_texts(pipe, lora):
    plain = made(pipe)
    words = lora("words.safetensors", part="text_encoder")
    assert (made(pipe, words) != plain).any()
    assert (made(pipe) == plain).all()
    assert (made(pipe, f"{words}:0.5") != made(pipe, words)).any()


@needs_peft
def test_an_adapter_is_read_once_and_again_when_its_file_has_changed(pipe, lora, monkeypatch):
    read, real = [], adapters._read
    monkeypatch.setattr(adapters, "_read", lambda *args: read.append(1) or real(*args))
    ink = lora("ink.safetensors", 1)
    before = made(pipe, ink)
    made(pipe, f"{ink}:0.5")
    assert len(read) == 1
    lora("ink.safetensors", 2)
    assert (made(pipe, ink) != before).any()
    assert len(read) == 2


@needs_peft
def test_few_adapters_stay_beside_the_network(pipe, lora):
    for seed in range(adapters.KEPT + 3):
        made(pipe, lora(f"{seed}.safetensors", seed))
    assert len(pipe.get_list_adapters()["unet"]) <= adapters.KEPT


@needs_peft
@pytest.mark.parametrize("wrong", [{"wide": 2}, {"part": "transformer"}])
def test_one_that_does_not_fit_is_one_line_that_names_both_and_leaves_nothing(pipe, lora, wrong):
    plain, ink = generate(pipe), lora("ink.safetensors")
    other = lora("other.safetensors", 2, **wrong)
    before = made(pipe, ink)
    with pytest.raises(OptionError) as caught:
        made(pipe, other)
    text = str(caught.value)
    assert "other.safetensors" in text
    assert "StableDiffusionPipeline" in text
    assert "\n" not in text
    assert (generate(pipe) == plain).all()
    assert (made(pipe, ink) == before).all()


@needs_peft
def test_a_folder_is_the_usual_file_in_it_or_the_only_one(pipe, lora, tmp_path):
    folder = tmp_path / "ink"
    whole = made(pipe, lora("a.safetensors", folder=folder))
    assert (made(pipe, str(folder)) == whole).all()
    lora("b.safetensors", 2, folder=folder)
    with pytest.raises(OptionError, match=r"a\.safetensors, b\.safetensors"):
        made(pipe, str(folder))
    shutil.copy(folder / "a.safetensors", folder / "pytorch_lora_weights.safetensors")
    assert (made(pipe, str(folder)) == whole).all()


@needs_peft
def test_what_is_not_there_or_pickled_is_named(pipe, tmp_path):
    for name in ("nowhere/ink", "ink.safetensors", "a/b/../../etc", str(tmp_path / "x")):
        with pytest.raises(UnknownNameError, match="no LoRA"):
            made(pipe, name)
    pickled = tmp_path / "ink.bin"
    pickled.write_bytes(b"cos\nsystem\n")
    with pytest.raises(OptionError, match="no safetensors file"):
        made(pipe, str(pickled))
    damaged = tmp_path / "ink.safetensors"
    damaged.write_bytes(b"not weights")
    with pytest.raises(OptionError, match=r"ink\.safetensors does not fit"):
        made(pipe, str(damaged))


def test_without_peft_it_is_one_line_with_the_command(pipe, monkeypatch):
    monkeypatch.setattr("diffusers.utils.USE_PEFT_BACKEND", False)
    with pytest.raises(DependencyMissingError) as caught:
        made(pipe, "ink.safetensors")
    assert caught.value.hint.startswith("pip install -U peft")


@needs_peft
def test_what_is_remembered_does_not_keep_a_network_alive(lora):
    own = pipelines.Pipelines().get(CARD, "generate", "cpu", "float32")
    made(own, lora("ink.safetensors"))
    gone = weakref.ref(own.unet), weakref.ref(own.text_encoder)
    del own
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_an_accelerator_wants_a_transformer(pipe):
    with (
        pytest.raises(OptionError, match="takes no accelerator"),
        adapters.applied(pipe, {"accelerator": "first-block"}),
    ):
        pass
    with (
        pytest.raises(OptionError, match="first-block, pyramid, taylorseer"),
        adapters.applied(pipe, {"accelerator": "warp"}),
    ):
        pass

import importlib

import pytest

from nbimg.config import Settings
from nbimg.errors import OptionError, SettingError
from nbimg.local import adapters, speed
from tests.local.conftest import call, gap, run

torch = pytest.importorskip("torch")

SMALL = {"width": 64, "height": 64}


@pytest.fixture
def settings(tmp_path):
    return Settings({}, tmp_path)


@pytest.fixture
def flux(tiny, settings):
    yield (pipe := tiny("flux"))
    speed.tuned(pipe, settings, "cpu")


@pytest.fixture
def unet(tiny):
    yield (pipe := tiny("sd"))
    pipe.unet.to(memory_format=torch.contiguous_format)
    speed._tuned.pop(pipe.unet, None)


def picture(pipe, **more):
    (image,) = run(pipe, [call("a red house", 1, **{"num_inference_steps": 4, **SMALL, **more})])
    return image


def compiled(pipe):
    return [type(m).__name__ for m in pipe.transformer.modules() if m._compiled_call_impl]


def test_as_the_settings_come_nothing_is_changed(flux, settings):
    before = [type(module) for module in flux.transformer.modules()]
    assert speed.tuned(flux, settings, "cpu") is flux
    assert [type(module) for module in flux.transformer.modules()] == before
    assert not compiled(flux)


def test_an_attention_backend_is_set_and_taken_back(flux, settings):
    plain = picture(flux)
    settings.set("attention", "_native_math")
    speed.tuned(flux, settings, "cpu")
    backends = {
        str(m.processor._attention_backend)
        for m in flux.transformer.modules()
        if hasattr(getattr(m, "processor", None), "_attention_backend")
    }
    assert backends == {"AttentionBackendName._NATIVE_MATH"}
    every = importlib.import_module("diffusers.models.attention_dispatch")
    chosen, _ = every._AttentionBackendRegistry.get_active_backend()
    assert chosen.value == "native"  # what other networks use
    assert gap(picture(flux), plain) <= 1
    settings.set("attention", None)
    speed.tuned(flux, settings, "cpu")
    assert gap(picture(flux), plain) == 0


@pytest.mark.parametrize("name", ["warp", "sage", "flash"])
def test_one_that_is_not_there_is_one_line_and_changes_nothing(flux, settings, name):
    plain = picture(flux)
    settings.set("attention", name)
    with pytest.raises(SettingError) as caught:
        speed.tuned(flux, settings, "cpu")
    assert repr(name) in str(caught.value)
    assert "FluxTransformer2DModel" in str(caught.value)
    assert "\n" not in str(caught.value)
    settings.set("attention", None)
    assert gap(picture(speed.tuned(flux, settings, "cpu")), plain) == 0


def test_the_blocks_that_repeat_are_compiled_and_nothing_else(flux, settings, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "unchanged")
    plain = picture(flux)
    settings.set("compile", True)
    with torch.compiler.set_stance("force_eager"):
        speed.tuned(flux, settings, "cpu")
        names = compiled(flux)
        assert gap(picture(flux), plain) <= 1
    assert set(names) == set(flux.transformer._repeated_blocks)
    settings.set("compile", False)
    speed.tuned(flux, settings, "cpu")
    assert not compiled(flux)


def test_channels_last_is_for_networks_of_convolutions_on_a_card(unet, flux, settings):
    def wanted(pipe, device):
        network = getattr(pipe, "unet", None) or pipe.transformer
        return speed.Tuning.wanted(settings, device, network).channels_last

    assert wanted(unet, "cuda")
    assert wanted(unet, "cuda:1")
    assert not wanted(unet, "cpu")
    assert not wanted(flux, "cuda")
    settings.set("channels_last", "off")
    assert not wanted(unet, "cuda")
    plain = picture(unet)
    settings.set("channels_last", "on")
    speed.tuned(unet, settings, "cpu")
    assert unet.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert gap(picture(unet), plain) <= 1


@pytest.mark.parametrize("name", ["first-block:100", "pyramid:3", "taylorseer"])
def test_an_accelerator_skips_work_for_one_call_and_is_gone_after(flux, name):
    rows = []
    last = flux.transformer.single_transformer_blocks[-1].attn.to_q
    handle = last.register_forward_hook(lambda *_: rows.append(1))
    try:
        plain, whole = picture(flux, num_inference_steps=8), len(rows)
        picture(flux, num_inference_steps=8, accelerator=name)
    finally:
        handle.remove()
    assert whole == 8
    assert len(rows) - whole < whole
    assert not flux.transformer.is_cache_enabled
    assert gap(picture(flux, num_inference_steps=8), plain) == 0


def test_one_that_does_not_exist_or_fit_is_named(flux, unet):
    for asked in ("warp", "first-block:much", ":"):
        with pytest.raises(OptionError, match="first-block, pyramid, taylorseer"):
            picture(flux, accelerator=asked)
    with pytest.raises(OptionError, match="StableDiffusionPipeline takes no accelerator"):
        picture(unet, accelerator="first-block")


def test_what_is_asked_of_a_call_is_among_its_arguments():
    assert set(adapters.FIELDS) == {"lora", "scheduler", "accelerator"}

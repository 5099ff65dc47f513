"""What is on this machine already, and what would have to be fetched."""

import json
import os
import shutil

import pytest

from nbimg.backends.base import Context
from nbimg.backends.local import DiffusersBackend, unload
from nbimg.config import Settings
from nbimg.credentials.keys import Keys
from nbimg.errors import (
    KeyRejectedError,
    OfflineError,
    SetupError,
    UnknownNameError,
    UnreachableError,
)
from nbimg.local import download, shelf
from tests.local.hub import COMMIT, Hub


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty hub cache, which huggingface_hub reads once when it is imported."""
    from huggingface_hub import constants

    folder = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return folder


@pytest.fixture
def hub(saved):
    with Hub({"someone/tiny": saved}) as running:
        yield running
    unload()


@pytest.fixture
def backend(hub):
    return make(hub)


def make(hub, **environ):
    environ = {"NBIMG_LOCAL_BASE_URL": hub.url, **environ}
    return DiffusersBackend(Context(Settings(environ), Keys(environ)))


def put(cache, name, saved, *, without=()):
    """Put a model into the cache, as huggingface_hub lays it out."""
    place = cache / f"models--{name.replace('/', '--')}"
    folder = place / "snapshots" / COMMIT
    shutil.copytree(saved, folder, ignore=shutil.ignore_patterns(*without))
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)
    return folder


# ------------------------------------------------------------------ the shelf


def test_a_hub_id_that_was_fetched_is_found_without_a_network(cache, saved):
    folder = put(cache, "someone/tiny", saved)
    assert shelf.snapshot("someone/tiny") == folder
    assert shelf.snapshot(f"someone/tiny@{COMMIT}") == folder
    assert shelf.snapshot("someone/other") is None
    assert shelf.whole(folder)


@pytest.mark.parametrize("without", ["unet", "diffusion_pytorch_model.safetensors", "tokenizer"])
def test_a_download_that_was_broken_off_is_not_whole(cache, saved, without):
    assert not shelf.whole(put(cache, "someone/tiny", saved, without=[without]))


def test_shards_must_all_be_there(cache, saved):
    folder = put(cache, "someone/tiny", saved)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    shards = [f"diffusion_pytorch_model-0000{k}-of-00002.safetensors" for k in (1, 2)]
    index = {"weight_map": dict(zip("ab", shards, strict=True))}
    weights.with_name("diffusion_pytorch_model.safetensors.index.json").write_text(
        json.dumps(index)
    )
    weights.rename(weights.with_name(shards[0]))
    assert not shelf.whole(folder)
    shutil.copy(weights.with_name(shards[0]), weights.with_name(shards[1]))
    assert shelf.whole(folder)


def test_the_newest_whole_model_comes_first(cache, saved):
    os.utime(put(cache, "a/old", saved), (1, 1))
    os.utime(put(cache, "b/new", saved), (2, 2))
    put(cache, "c/broken", saved, without=["unet"])
    assert [one.model for one in shelf.scan()] == ["b/new", "a/old"]
    assert shelf.scan()[0].pipeline == "StableDiffusionPipeline"


def test_weights_are_weighed_in_the_format_that_they_will_have(saved):
    full, half = shelf.weigh(saved, "float32"), shelf.weigh(saved, "bfloat16")
    assert set(full) == {"text_encoder", "unet", "vae"}
    assert full["unet"] == 2 * half["unet"]
    assert shelf.weigh(saved.parent, "float32") == {}


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({"HF_HUB_CACHE": "/a/hub"}, "/a/hub"),
        ({"HF_HOME": "/b"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
    ],
)
def test_the_cache_is_where_huggingface_hub_has_it(monkeypatch, variables, place):
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(shelf.hub_folder()) == place


# ------------------------------------------------------------------ which files


PARTS = {"unet": "A", "vae": "B", "text_encoder": "C", "scheduler": "D"}


def test_only_what_is_needed_is_chosen():
    names = [
        "README.md",
        "model_index.json",
        "sd.safetensors",
        "run.py",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "unet/code.py",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/config.json",
        "text_encoder/model-00001-of-00002.safetensors",
        "text_encoder/model-00002-of-00002.safetensors",
        "text_encoder/model.safetensors.index.json",
        "text_encoder/flax_model.msgpack",
        "safety_checker/model.safetensors",
    ]
    assert download.choose_files(names, PARTS) == [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model-00001-of-00002.safetensors",
        "text_encoder/model-00002-of-00002.safetensors",
        "text_encoder/model.safetensors.index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ]


def test_one_file_goes_before_its_shards_and_full_precision_before_a_variant():
    names = [
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    ]
    assert download.choose_files(names, PARTS) == [
        "model_index.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    ]


# ------------------------------------------------------------------ nothing unasked


def test_a_model_that_is_not_here_is_not_fetched_but_its_size_is_told(hub, backend):
    with pytest.raises(SetupError) as caught:
        backend.manifest("someone/tiny")
    assert "is not on this machine: " in caught.value.message
    assert "kB to download" in caught.value.message or "MB to download" in caught.value.message
    assert "%imgmodels --load local:someone/tiny" in caught.value.hint
    assert "NbImg.download = True" in caught.value.hint
    assert set(hub.fetched) <= {"model_index.json", "transformer/config.json"}


def test_with_the_setting_it_is_planned_for_and_fetched_only_when_it_is_used(hub):
    backend = make(hub, NBIMG_DOWNLOAD="true")
    assert backend.manifest("someone/tiny").pipeline == "StableDiffusionPipeline"
    assert set(hub.fetched) == {"model_index.json"}
    told = []
    card = backend._here("someone/tiny", told.append, lambda: False)
    assert shelf.whole(card.folder)
    assert not [name for name in hub.fetched if name.endswith((".bin", ".py", ".md"))]
    asked = len(hub.asked)
    assert backend.manifest("someone/tiny").folder == card.folder
    assert len(hub.asked) == asked  # from now on no network is needed


def test_naming_it_with_load_is_the_permission(hub, backend):
    told = []
    row = backend.load("someone/tiny", told.append)
    assert row.name == "local:someone/tiny"
    assert any(line.startswith("fetching someone/tiny: ") for line in told)
    assert any(line.startswith("loading") for line in told)
    assert any(name.endswith(".safetensors") for name in hub.fetched)


def test_a_download_that_is_stopped_goes_on_the_next_time(hub):
    backend = make(hub, NBIMG_DOWNLOAD="true")
    with pytest.raises(SetupError, match="stopped"):
        backend._here("someone/tiny", lambda _: None, lambda: True)
    assert shelf.whole(backend._here("someone/tiny", lambda _: None, lambda: False).folder)


def test_offline_nothing_is_asked(hub):
    backend = make(hub, NBIMG_OFFLINE="true")
    with pytest.raises(OfflineError, match="someone/tiny is not on this machine"):
        backend.manifest("someone/tiny")
    assert hub.asked == []


def test_offline_what_is_here_works(hub, cache, saved):
    folder = put(cache, "someone/tiny", saved)
    assert make(hub, NBIMG_OFFLINE="true").manifest("someone/tiny").folder == folder
    assert hub.asked == []


def test_what_is_no_model_or_not_for_everyone_is_said_plainly(hub, backend, tmp_path, saved):
    with pytest.raises(UnknownNameError, match="no model of the hub 'someone/else'"):
        backend.manifest("someone/else")
    hub.repositories["someone/text"] = tmp_path
    with pytest.raises(SetupError, match="holds no diffusers pipeline"):
        backend.manifest("someone/text")
    pickled = tmp_path / "pickled"
    shutil.copytree(saved, pickled, ignore=shutil.ignore_patterns("*.safetensors"))
    hub.repositories["someone/pickled"] = pickled
    with pytest.raises(SetupError, match="no weights as safetensors"):
        backend.manifest("someone/pickled")
    hub.gated.add("someone/tiny")
    with pytest.raises(KeyRejectedError, match="gated") as caught:
        backend.manifest("someone/tiny")
    assert "HF_TOKEN" in caught.value.hint


def test_a_hub_that_does_not_answer_is_one_line(hub):
    backend = make(hub, NBIMG_LOCAL_BASE_URL="http://127.0.0.1:9")
    with pytest.raises(UnreachableError) as caught:
        backend.manifest("someone/tiny")
    assert "\n" not in str(caught.value)

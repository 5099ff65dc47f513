"""Local models from the request to the file: batches, Stop, memory, `%imgmodels`, the default model."""

import asyncio
import gc
import importlib
import shutil
import sys
import threading
import time
import weakref

import pytest

import nbimg
from nbimg import models, session
from nbimg.backends import local
from nbimg.backends.base import Context
from nbimg.config import Settings
from nbimg.credentials.keys import Keys
from nbimg.errors import GenerationError, JobFailedError, OptionError, UnknownNameError
from nbimg.local import batch, shelf
from nbimg.local.device import find_device
from nbimg.notebook import loaded
from nbimg.planning.choose import choose
from nbimg.types import Status
from tests.local.conftest import COLOURS, Spy, call
from tests.local.test_shelf import cache, put  # noqa: F401  # a fixture

KNOWN = {"steps": 2, "guidance": 1.0, "size": "64x64"}


@pytest.fixture(autouse=True)
def clean():
    """No test sees the pipelines or the sizes of another."""
    yield
    local.unload()
    local._sizes._known.clear()


@pytest.fixture
def model(saved):
    return f"local:{saved}"


def pipes():
    return next(iter(local._pipelines._loaded.values()))


def pictures(picture, number, size=(64, 64)):
    return [picture(colour, size).path for colour in COLOURS[:number]]


# ------------------------------------------------------------------ batches


def test_edits_are_inputs_times_n_in_input_order_in_one_call_of_the_pipeline(model, picture):
    inputs = pictures(picture, 3)
    nbimg.edit(inputs[0], "x", model=model, strength=1.0, **KNOWN)
    with Spy(pipes().base) as seen:
        results = nbimg.edit(
            inputs, "make it night", model=model, n=2, seed=5, strength=1.0, **KNOWN
        )
    assert seen.rows == [6, 6]
    assert [result.status for result in results] == [Status.OK] * 3
    assert [[image.seed for image in result.images] for result in results] == [[5, 6]] * 3
    alone = nbimg.edit(inputs[1], "make it night", model=model, seed=6, strength=1.0, cache=False,
                       **KNOWN)  # fmt: skip
    pairs = zip(
        results[1].images[1].pil().tobytes(), alone[0].images[0].pil().tobytes(), strict=True
    )
    assert max(abs(a - b) for a, b in pairs) <= 1


def test_usage_tells_time_images_and_the_peak_of_memory(model, picture):
    results = nbimg.edit(pictures(picture, 2), "x", model=model, n=2, **KNOWN)
    usage = results.usage
    assert usage.input_images == 2
    assert usage.generated_images == 4
    assert usage.processing_time_seconds > 0
    assert 10_000_000 < usage.peak_memory_bytes < 100_000_000_000
    assert (usage + usage).peak_memory_bytes == usage.peak_memory_bytes


def test_a_call_that_tasks_share_counts_once(model, monkeypatch):
    nbimg.generate("a", model=model, **KNOWN)
    took = []
    kept = batch._Work._called

    def timed(self, *known):
        begun = time.perf_counter()
        try:
            time.sleep(0.3)
            return kept(self, *known)
        finally:
            took.append(time.perf_counter() - begun)

    monkeypatch.setattr(batch._Work, "_called", timed)
    results = nbimg.generate([f"a{k}" for k in range(8)], model=model, **KNOWN)
    assert len(took) == 1
    assert results.usage.processing_time_seconds == pytest.approx(took[0], abs=0.1)
    each = [result.attempts[-1].seconds for result in results]
    assert each == [pytest.approx(took[0] / 8, abs=0.02)] * 8


def test_a_shared_call_that_fails_or_is_stopped_counts_once(model, monkeypatch):
    nbimg.generate("a", model=model, **KNOWN)
    begun = time.perf_counter()
    with pytest.raises(GenerationError) as caught:
        nbimg.generate("a", model=model, params={"clip_skip": "much"}, n=4, **KNOWN)
    assert caught.value.result.attempts[-1].seconds > 0
    job = nbimg.submit([f"a{k}" for k in range(4)], model=model, **{**KNOWN, "steps": 200})
    while not any(getattr(event, "done", 0) > 2 for event in list(job.events)):
        time.sleep(0.01)
    job.cancel()
    job.wait()
    assert 0 < job.results.usage.processing_time_seconds < time.perf_counter() - begun


def test_a_mask_is_taken_by_a_model_that_has_a_class_for_it(model, picture):
    results = nbimg.edit(
        pictures(picture, 1), "x", model=model, mask=picture("white").path, **KNOWN
    )
    assert results[0].status is Status.OK
    assert pipes().pipes.keys() == {"inpaint"}


def test_an_image_is_handed_over_before_the_next_micro_batch_is_made(model, monkeypatch):
    monkeypatch.setattr(local, "_sizes", local.Sizes(most=1))
    order = []
    kept = batch._Work._called
    monkeypatch.setattr(
        batch._Work, "_called", lambda self, *known: order.append("call") or kept(self, *known)
    )
    job = nbimg.submit(["a", "b", "c"], model=model, **KNOWN)
    job.wait()
    saved = [event for event in job.events if type(event).__name__ == "Saved"]
    steps = [event for event in job.events if type(event).__name__ == "Step"]
    assert len(saved) == 3
    assert len(order) == 3
    assert saved[0].at_utc < max(step.at_utc for step in steps)


# ------------------------------------------------------------------ capabilities


def test_what_a_model_takes_comes_from_all_classes_that_share_its_parts(saved):
    backend = local.DiffusersBackend(Context(Settings(), Keys()))
    can = asyncio.run(backend.capabilities(str(saved)))
    assert {"seed", "steps", "guidance", "negative", "strength", "image", "mask", "width"} <= set(
        can.options
    )
    assert can.makes
    assert not can.composes
    assert can.options["guidance"].name == "guidance_scale"
    assert can.price_usd == 0.0


@pytest.mark.parametrize(
    ("pipeline", "distilled", "guidance", "makes", "composes"),
    [
        ("FluxPipeline", True, "guidance_scale", True, False),
        ("FluxPipeline", False, "true_cfg_scale", True, False),
        ("QwenImagePipeline", False, "true_cfg_scale", True, False),
        ("QwenImageEditPipeline", False, "true_cfg_scale", False, False),
        ("QwenImageEditPlusPipeline", False, "true_cfg_scale", False, True),
        ("Flux2KleinPipeline", False, "guidance_scale", True, True),
    ],
)
def test_guidance_is_told_to_the_parameter_that_takes_effect(
    tmp_path, pipeline, distilled, guidance, makes, composes
):
    (tmp_path / "transformer").mkdir()
    (tmp_path / "model_index.json").write_text(f'{{"_class_name": "{pipeline}"}}')
    (tmp_path / "transformer" / "config.json").write_text(
        f'{{"guidance_embeds": {str(distilled).lower()}}}'
    )
    backend = local.DiffusersBackend(Context(Settings(), Keys()))
    can = asyncio.run(backend.capabilities(str(tmp_path)))
    assert can.options["guidance"].name == guidance
    assert can.makes is makes
    assert can.composes is composes
    assert can.max_images == (1000 if composes else 1)


@pytest.mark.parametrize("distilled", [True, False])
def test_a_model_whose_guidance_was_trained_away_is_not_said_to_take_one(tmp_path, distilled):
    (tmp_path / "model_index.json").write_text(
        f'{{"_class_name": "Flux2KleinPipeline", "is_distilled": {str(distilled).lower()}}}'
    )
    backend = local.DiffusersBackend(Context(Settings(), Keys()))
    can = asyncio.run(backend.capabilities(str(tmp_path)))
    assert ("guidance" in can.options) is not distilled
    assert "guidance_scale" not in can.extra


# ------------------------------------------------------------------ one at a time, Stop


def test_two_cells_never_run_on_one_device_at_once(model, monkeypatch):
    running, most, lock = [0], [0], threading.Lock()
    kept = batch._Work._called

    def counted(self, *known):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        try:
            return kept(self, *known)
        finally:
            with lock:
                running[0] -= 1

    monkeypatch.setattr(batch._Work, "_called", counted)
    jobs = [nbimg.submit("a", model=name, **KNOWN) for name in (model, "demo", model)]
    for job in jobs:
        job.wait()
    assert all(job.results.ok for job in jobs)
    assert most[0] == 1


def test_stop_ends_between_steps_and_keeps_what_was_made(model, monkeypatch):
    monkeypatch.setattr(local, "_sizes", local.Sizes(most=1))
    job = nbimg.submit(["a", "b"], model=model, **{**KNOWN, "steps": 200})
    while not any(getattr(event, "done", 0) > 2 for event in list(job.events)):
        if job.done:
            pytest.fail(str(job.results))
    job.cancel()
    job.wait()
    assert {result.status for result in job.results} == {Status.CANCELLED}
    done = [event.done for event in job.events if type(event).__name__ == "Step"]
    assert max(done) < 200
    again = nbimg.generate("a", model=model, **KNOWN)
    assert again[0].status is Status.OK


def test_a_call_that_was_stopped_while_it_waited_loads_nothing(saved):
    backend = local.DiffusersBackend(Context(Settings({"NBIMG_DEVICE": "cpu"}), Keys()))
    hold = threading.Event()
    local._worker("cpu").submit(hold.wait)

    async def leave():
        images = backend.generate([call("a")], lambda *_: None)
        waiting = asyncio.ensure_future(anext(images))
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await images.aclose()

    try:
        asyncio.run(leave())
    finally:
        hold.set()
    local._worker("cpu").submit(int).result()
    assert local.loaded() == ()


# ------------------------------------------------------------------ memory comes back


def watched(model):
    nbimg.generate("a", model=model, **KNOWN)
    return [weakref.ref(part) for part in (pipes().base, pipes().base.unet, pipes().base.vae)]


def alive(some):
    gc.collect()
    return [ref for ref in some if ref() is not None]


def test_unloading_frees_although_the_notebook_keeps_the_last_error(model):
    some = watched(model)
    try:
        nbimg.generate("a", model=model, params={"clip_skip": "much"}, **KNOWN)
    except GenerationError as error:
        sys.last_value, sys.last_traceback = error, error.__traceback__
    assert sys.last_value is not None
    try:
        assert len(local.unload()) == 1
        assert alive(some) == []
    finally:
        sys.last_value = sys.last_traceback = None


def test_an_error_that_a_backend_raises_holds_no_weights(model, saved):
    some = watched(model)
    backend = local.DiffusersBackend(Context(Settings({"NBIMG_DEVICE": "cpu"}), Keys()))
    wrong = call("a", model=str(saved), clip_skip="much")

    async def fail():
        async for _ in backend.generate([wrong], lambda *_: None):
            pass

    with pytest.raises(JobFailedError) as caught:
        asyncio.run(fail())
    local.unload()
    assert alive(some) == []
    assert caught.value.__traceback__ is not None


def test_closing_and_reloading_leave_one_pipeline_of_each(model):
    some = watched(model)
    session.default().close()
    session._default = None
    nbimg.generate("b", model=model, **KNOWN)
    assert len(local.loaded()) == 1
    assert len(alive(some)) == 3  # the same ones: a kernel loads a model once


def test_reloading_the_module_leaks_no_pipeline(model):
    some = watched(model)
    session.default().close()
    session._default = None
    importlib.reload(local)
    assert alive(some) == []
    assert local.loaded() == ()


# ------------------------------------------------------------------ %imgmodels


def test_models_in_memory_are_listed_loaded_and_let_go(model, capsys):
    own = session.default()
    assert loaded.answer("flux", own) is None
    assert loaded.answer("", own) is None
    assert loaded.render_loaded() == ""
    line = loaded.answer(f"--load {model}", own)
    assert line.startswith(model)
    assert "loading" in capsys.readouterr().out
    nbimg.generate("a", model=model, **KNOWN)
    listed = loaded.render_loaded()
    assert model in listed
    assert "generate" in listed
    assert f"B on {find_device(None)}," in listed
    nbimg.generate("a", model="demo", steps=2)
    assert model not in loaded.render_loaded("DEMO")
    assert "demo" in loaded.render_loaded("DEMO")
    assert loaded.render_loaded("flux") == ""
    assert loaded.answer("--unload demo", own).startswith("let go")
    assert "let go" in loaded.answer(f"--unload {model}", own)
    assert loaded.answer("--unload", own) == "nothing is in memory."


def test_models_on_disk_are_listed_by_their_names(cache, saved):  # noqa: F811
    own = session.default()
    assert "On this machine" not in models.render("", own)
    put(cache, "someone/tiny", saved)
    listed = models.render("", own)
    assert "On this machine" in listed
    assert "local:someone/tiny" in listed
    assert "makes edits" in listed
    assert "local:someone/tiny" in models.render("TINY", own)
    assert "no model" not in models.render("someone/ti", own)
    assert "local:someone/tiny" not in models.render("flux", own)
    assert "--steps" in models.render("local:someone/tiny", own)


def test_a_name_that_is_not_loaded_is_answered_with_the_nearest(model):
    nbimg.generate("a", model="demo")
    with pytest.raises(UnknownNameError, match="Did you mean demo"):
        loaded.answer("--unload dmeo", session.default())
    with pytest.raises(OptionError, match="does not run on this machine"):
        loaded.answer("--load flux-dev", session.default())
    with pytest.raises(OptionError, match="needs the name"):
        loaded.answer("--load", session.default())


# ------------------------------------------------------------------ the default model


def chosen(task="generate", **environ):
    own = session.Session(Settings(environ), Keys(environ))
    try:
        return choose(None, task, own.settings, own.keys, own.registry)
    finally:
        own.close()


def test_a_graphics_card_and_a_model_on_disk_go_before_the_demo(cache, saved, monkeypatch):  # noqa: F811
    put(cache, "someone/tiny", saved)
    monkeypatch.setattr("nbimg.planning.choose.accelerator", lambda: None)
    assert chosen().ref.provider == "demo"
    monkeypatch.setattr("nbimg.planning.choose.accelerator", lambda: "cuda")
    for task in ("generate", "edit"):
        choice = chosen(task)
        assert choice.ref.full == "local:someone/tiny"
        assert choice.note == (
            "Model: local:someone/tiny, here on cuda at no cost. Choose another with -m."
        )
    assert chosen(NBIMG_DEVICE="cpu").ref.provider == "demo"
    assert chosen(NBIMG_LOCAL_MODEL="/models/mine").ref.full == "local:/models/mine"
    assert chosen(REPLICATE_API_TOKEN="r8_" + "x" * 37).ref.provider == "replicate"


def test_only_models_that_are_whole_and_do_the_task_are_chosen(cache, saved, monkeypatch):  # noqa: F811
    monkeypatch.setattr("nbimg.planning.choose.accelerator", lambda: "cuda")
    put(cache, "someone/broken", saved, without=["unet"])
    folder = put(cache, "someone/new", saved)
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "BrandNewPipeline"))
    assert chosen().ref.provider == "demo"
    shutil.rmtree(cache)
    folder = put(cache, "someone/maker", saved)
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "SanaPipeline"))
    assert chosen().ref.full == "local:someone/maker"
    assert chosen("edit").ref.provider == "demo"
    assert shelf.scan()

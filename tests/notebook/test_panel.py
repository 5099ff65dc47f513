import asyncio
import io
import re
import threading
from pathlib import Path

import pytest
from PIL import Image

import nbimg
from nbimg.backends import registry
from nbimg.backends.base import LocalBackend
from nbimg.events import Preview, Step
from nbimg.media import pixels
from nbimg.notebook import form as forms
from nbimg.notebook.form import EMPTY, fields, form_of, line_of
from nbimg.notebook.panel import open_panel
from nbimg.testing import Outcome, ReplicateServer
from nbimg.text import cell
from nbimg.text.expand import expand
from nbimg.types import Capabilities, EncodedImage, Field, Request, Size

from .pages import Heard

PHOTO = pixels.encode(Image.new("RGB", (40, 30), "green"), "image/jpeg")
SMALL = pixels.encode(Image.new("RGB", (4, 3), "blue"), "image/webp")


def filled(**values):
    return {**EMPTY, "prompt": "a cat", "model": "flux-dev", **values}


@pytest.fixture
def server(monkeypatch):
    """A local Replicate that this process talks to, and the kernel as well."""
    with ReplicateServer() as running:
        monkeypatch.setenv("NBIMG_REPLICATE_BASE_URL", running.base_url)
        monkeypatch.setenv("REPLICATE_API_TOKEN", running.token)
        yield running


@pytest.fixture
def names():
    return {"thing": ["car", "house"]}


@pytest.fixture
def page(server, names):
    heard = Heard(open_panel(names))
    yield heard
    heard.widget.close()


def states(said):
    """The states of the tiles that a message is about."""
    return (
        {tile["state"] for tile in said["tiles"].values()}
        if said.get("event") == "tiles"
        else set()
    )


# ---------------------------------------------------------------------- the form


def test_the_line_of_a_form_is_read_as_what_the_form_says():
    form = filled(
        model="flux-dev, qwen-image",
        n=3,
        seed=5,
        locked=True,
        negative="it's dark",
        options={"ar": "16:9", "steps": 20, "guidance": 2.5, "size": ""},
        params={"go_fast": False, "style": "ink wash", "empty": ""},
        refs=[{"path": "a b.png"}, {"path": str(Path("c.png").absolute())}],
    )
    spec = cell.parse(line_of(form), "x")
    assert spec.options == {
        "model": ("flux-dev", "qwen-image"),
        "n": 3,
        "seed": 5,
        "ar": "16:9",
        "steps": 20,
        "guidance": 2.5,
        "negative": "it's dark",
        "image": ("a b.png", "c.png"),
        "params": {"go_fast": False, "style": "ink wash"},
    }


def test_a_seed_that_is_not_kept_is_not_sent():
    assert line_of(filled(seed=5)) == "-m flux-dev"
    assert line_of({}) == ""


def test_a_request_becomes_the_form_that_asks_for_it_again():
    request = Request("a {b}", "demo", n=2, size="64x32", negative="{no}", steps=4, params={"k": 1})
    form = form_of(request, "demo", 7)
    spec = cell.parse(line_of({**form, "locked": True}), form["prompt"])
    (again,) = expand(spec, {}).requests
    assert again == request.but(seed=7)


def test_the_fields_of_a_model_have_its_ranges_help_and_defaults():
    can = Capabilities(
        options={
            "ar": Field("aspect_ratio", default="1:1", allowed=("1:1", "16:9")),
            "width": Field("width", "integer", 512, minimum=64, maximum=2048, multiple=8),
            "height": Field("height", "integer", 384, minimum=64, maximum=2048, multiple=8),
            "steps": Field(
                "num_inference_steps", "integer", 28, minimum=1, maximum=50, help="How\n many."
            ),
            "seed": Field("seed", "integer"),
            "image": Field("image", "file"),
        },
        extra={
            "go_fast": Field("go_fast", "boolean", True),
            "loras": Field("loras", "array"),
            "control": Field("control", "file"),
        },
    )
    found = {one["name"]: one for one in fields(can)}
    assert list(found) == ["ar", "size", "steps", "go_fast", "loras"]
    assert found["ar"]["allowed"] == ["1:1", "16:9"]
    assert (found["size"]["default"], found["size"]["step"]) == ("512x384", 8)
    assert (found["steps"]["min"], found["steps"]["max"], found["steps"]["help"]) == (
        1,
        50,
        "How many.",
    )
    assert (found["go_fast"]["kind"], found["go_fast"]["own"], found["loras"]["kind"]) == (
        "boolean",
        True,
        "json",
    )
    whole = Capabilities({"width": Field("w"), "height": Field("h")}, default_size=Size(8, 4))
    assert fields(whole)[0]["default"] == "8x4"
    assert forms.EMPTY["prompt"] == ""


# ---------------------------------------------------------------------- what the page asks


def test_every_model_says_whether_its_key_is_there_what_it_takes_and_what_it_costs(page):
    found = {model["name"]: model for model in page.ask("models")[0]}
    assert found["flux-dev"]["ready"]
    assert (found["flux-dev"]["price"], found["flux-dev"]["edits"]) == ("$0.025", True)
    assert not found["gpt-image-2"]["ready"]
    assert found["demo"]["local"]
    ready = [model["ready"] for model in page.ask("models")[0]]
    assert ready == sorted(ready, reverse=True)


def test_the_form_of_the_best_model_at_hand_is_asked_of_its_provider(page):
    best, _ = page.ask("fields", model="")
    assert best["model"] == "flux-dev"
    assert {"ar", "steps", "guidance"} <= {one["name"] for one in best["fields"]}
    assert best["seed"]
    assert page.ask("fields", model="", edit=True)[0]["model"] == "flux-kontext-max"
    assert "Did you mean flux-dev" in page.refused("fields", model="flux-dve")


def test_a_plan_says_how_many_for_how_much_before_anything_is_sent(page, server):
    plan, _ = page.ask("plan", form=filled(prompt="a {red|blue|green} {thing}", n=2))
    assert plan["text"] == "12 images, about $0.30"
    assert (plan["rows"], plan["columns"]) == (["red", "blue", "green"], ["car", "house"])
    assert plan["prompts"][:2] == ["a red car", "a red house"]
    assert not server.jobs
    page.ended(page.ask("generate", form=filled())[0])
    plan, _ = page.ask("plan", form=filled(n=12))
    assert re.fullmatch(r"12 images, about \$0.30, about \d+ s", plan["text"])


def test_a_plan_says_what_is_wrong_and_what_comes_from_the_store(page):
    wrong, _ = page.ask("plan", form=filled(prompt="a {thng}"))
    assert "thng" in wrong["error"]
    assert "thing" in wrong["hint"]
    kept = filled(seed=3, locked=True)
    page.ended(page.ask("generate", form=kept)[0])
    assert page.ask("plan", form=kept)[0]["text"] == "1 image, from the store, at no cost"


def test_generate_sends_what_the_cell_would_and_the_notebook_has_the_result(page, server, names):
    form = filled(
        prompt="a {red|blue} {thing}", n=2, seed=9, locked=True, params={"go_fast": False}
    )
    job, _ = page.ask("generate", form=form)
    said = page.ended(job)
    assert (said["made"], said["error"]) == (8, "")
    panel = page.widget
    assert names["_img"] is panel.results
    sent = list(server.jobs)
    text = panel.as_cell(form)
    assert text == "%%imggen -m flux-dev -n 2 --seed 9 -p go_fast=false\na {red|blue} {thing}"
    line, body = text.removeprefix("%%imggen ").split("\n", 1)
    again = nbimg.session.default().submit(expand(cell.parse(line, body), names).requests).wait()
    assert all(result.cached for result in again), "it is the same request"
    assert len(server.jobs) == len(sent) == 8


def test_tiles_come_as_the_images_do_and_are_there_for_a_page_that_is_loaded_again(page, server):
    server.expect(Outcome(prompt_has="blue", error="NSFW content detected", times=None))
    job, _ = page.ask("generate", form=filled(prompt="a {red|blue} cat", n=2))
    page.ended(job)
    tiles = [(said, data) for said, data in page.said if said.get("event") == "tiles"]
    assert {slot for said, _ in tiles for slot in said["tiles"]} == {"0", "1", "2", "3"}
    assert sorted(len(data) > 0 for _, shown in tiles for data in shown if data) == [True, True]
    again = Heard(page.widget)  # hears from now on what the first one did
    (run,), thumbs = again.ask("runs")
    assert [tile["state"] for tile in run["tiles"]] == ["ok", "ok", "refused", "refused"]
    assert "NSFW" in run["tiles"][2]["said"]
    assert [bool(thumb) for thumb in thumbs] == [True, True, False, False]
    assert run["done"]
    number = run["tiles"][0]["number"]
    assert dict(again.ask("details", number=number)[0]["rows"])["Model"].endswith("flux-dev")
    again.ask("drop", job=job)
    assert again.ask("runs")[0] == []


def test_a_tile_shows_how_its_picture_stands_and_what_a_local_one_looks_like_so_far(
    page, monkeypatch
):
    half = threading.Event()

    class Half(LocalBackend):
        name = "half"

        async def capabilities(self, model):
            return Capabilities()

        def share_key(self, call):
            return call.ref.model

        async def generate(self, calls, report):
            report(0, Step(done=5, total=10))
            report(0, Preview(data=SMALL))
            await asyncio.to_thread(half.wait, 10)
            yield 0, EncodedImage(PHOTO)

    monkeypatch.setattr(registry, "_added", {"half": Half})
    job, _ = page.ask("generate", form=filled(model="half:any"))
    said, data = page.wait(lambda said: "running" in states(said) and said["tiles"]["0"]["preview"])
    tile = said["tiles"]["0"]
    assert (tile["said"], tile["share"], data) == ("step 5 / 10", 0.5, [SMALL])
    again = Heard(page.widget)  # a page that is loaded now sees it, too
    assert again.ask("runs")[1] == [SMALL]
    half.set()
    again.ended(job)
    (run,), (thumb,) = again.ask("runs")
    assert (run["tiles"][0]["state"], run["tiles"][0]["preview"]) == ("ok", False)
    assert Image.open(io.BytesIO(thumb)).size == (40, 30)


def test_stop_keeps_what_has_finished(page, server):
    server.expect(Outcome(prompt_has="hang", running_s=1000.0, times=None))
    job, _ = page.ask("generate", form=filled(prompt="{a cat|hang on}"))
    page.wait(lambda said: "ok" in states(said))
    page.ask("cancel", job=job)
    said = page.ended(job)
    assert (said["state"], said["made"], said["error"]) == ("stopped", 1, "")
    assert len(page.widget.results.paths) == 1


def test_a_call_that_cannot_begin_says_why(page):
    assert "thng" in page.refused("generate", form=filled(prompt="a {thng}"))
    assert "no prompt" in page.refused("generate", form=filled(prompt=" "))


def test_a_file_that_is_dropped_arrives_in_parts_and_is_a_reference(page, server):
    half = len(PHOTO) // 2
    args = {"name": "photo.jpg", "parts": 2, "key": "k"}
    assert page.ask("upload", PHOTO[:half], part=0, **args)[0] is None
    ref, _ = page.ask("upload", PHOTO[half:], part=1, **args)
    assert (ref["name"], ref["width"], ref["height"]) == ("photo.jpg", 40, 30)
    assert Path(ref["path"]).read_bytes() == PHOTO
    there, (thumb, gone) = page.ask(
        "references", refs=[ref, {"path": "no.png", "sha256": "0" * 64}]
    )
    assert there == [True, False]
    assert Image.open(io.BytesIO(thumb)).size == (40, 30)
    assert gone == b""
    form = filled(model="flux-kontext-max", refs=[ref])
    assert "-i nbimg-images/.nbimg/objects/" in page.widget.as_cell(form)
    page.ended(page.ask("generate", form=form)[0])
    assert server.jobs[-1].input["input_image"]


def test_what_is_no_image_is_refused_in_one_line(page):
    args = {"name": "notes.txt", "part": 0, "parts": 1, "key": "k"}
    assert "notes.txt is text, not an image" in page.refused("upload", b"hello " * 9, **args)


def test_the_history_has_each_prompt_once_and_gives_its_form_back(page):
    for prompt in ("a cat", "a dog", "a cat"):
        page.ended(page.ask("generate", form=filled(prompt=prompt, options={"ar": "16:9"}))[0])
    past, _ = page.ask("history")
    assert [(one["prompt"], one["count"]) for one in past] == [("a cat", 2), ("a dog", 1)]
    assert [one["prompt"] for one in page.ask("history", text="DOG")[0]] == ["a dog"]
    form, _ = page.ask("recall", number=past[1]["number"])
    assert (form["prompt"], form["options"]) == ("a dog", {"ar": "16:9"})
    assert form["seed"] is not None


def test_images_of_the_gallery_become_references(page):
    results = nbimg.generate("a cat", seed=1, model="flux-dev")
    page.ask("query", text="")
    (ref,), _ = page.ask("refer_to", numbers=[0])
    assert Path(ref["path"]).absolute() == results.paths[0].absolute()


def test_the_magic_opens_a_panel_whose_form_is_a_value(notebook):
    ran = notebook.run("panel = %imgpanel a red house\npanel")
    assert ran.ok, ran.error
    assert "application/vnd.jupyter.widget-view+json" in ran.bundles[0]
    assert notebook.value("panel.form['prompt']") == "a red house"
    assert "panel.results" in notebook.run("%imgpanel --help").text

import asyncio
import json
import time

import httpx
import pytest

import nbimg
from nbimg.backends.base import Call, Context
from nbimg.backends.replicate import ReplicateBackend
from nbimg.backends.replicate_answers import likeness
from nbimg.config import Settings
from nbimg.credentials.keys import Keys
from nbimg.errors import OutcomeUnknownError
from nbimg.testing import COMMUNITY_MODEL, Fault
from nbimg.testing.conformance import noise
from nbimg.testing.pictures import render_picture
from nbimg.types import InputImage, ModelRef, Status

CREATE = {"method": "POST", "path": "*/predictions"}
FLUX = "black-forest-labs/flux-dev"
SMALL = render_picture("small", "png", 20, 20)
LARGE = noise(320)


def edit(images, prompt="in winter", **options):
    known = {"model": "flux-kontext-max", "fallback": (), **options}
    return list(nbimg.edit(images, prompt, **known))


def found(call, since=0.0):
    """What a kernel that has just begun finds in the list."""

    async def look():
        backend = ReplicateBackend(Context(Settings(), Keys()))
        try:
            return await backend.find(call, since)
        finally:
            await backend.close()

    return asyncio.run(look())


def order(server, model=FLUX, **inputs):
    """Somebody's prediction; its id."""
    reply = httpx.post(
        f"{server.base_url}/v1/models/{model}/predictions",
        headers={"authorization": f"Bearer {server.token}"},
        json={"input": inputs},
    )
    return reply.json()["id"]


def call_for(image=None, model=FLUX, field="image", seed=7, **arguments):
    known = {} if seed is None else {"seed": seed}
    images = () if image is None else (image,)
    return Call(
        ModelRef("replicate", model),
        "x",
        arguments={**known, **arguments},
        images=images,
        image_field=field,
        seed=seed,
    )


def on_disk(tmp_path, data, name="a.png"):
    import hashlib

    path = tmp_path / name
    path.write_bytes(data)
    return InputImage(hashlib.sha256(data).hexdigest(), "image/png", 20, 20, str(path))


# ------------------------------------------------------------------ calls with images


@pytest.mark.parametrize("picture", [SMALL, LARGE], ids=["inside", "uploaded"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_edit_that_was_lost_is_made_once_and_paid_once(server, picture, when):
    server.inject(Fault("drop", **CREATE, when=when))
    (result,) = edit([picture])
    assert result.status is Status.OK
    assert len(server.jobs) == 1
    assert server.count(**CREATE) == (1 if when == "after" else 2)


def test_a_lost_edit_is_not_mistaken_for_that_of_another_picture(server, tmp_path):
    other = render_picture("other", "png", 20, 20)
    uri = f"data:image/png;base64,{__import__('base64').b64encode(other).decode()}"
    job = order(server, prompt="x", seed=7, image=uri)
    assert found(call_for(on_disk(tmp_path, SMALL))) is None
    assert found(call_for(on_disk(tmp_path, other))).id == job


def test_an_upload_is_known_by_its_content_after_a_restart(server, tmp_path):
    mine, other = on_disk(tmp_path, LARGE), on_disk(tmp_path, noise(330), "b.png")
    edit([LARGE], "x", seed=7)
    (job,) = server.jobs
    asked = {name: value for name, value in job.input.items() if name not in {"prompt", "seed"}}
    del asked["input_image"]
    model = "black-forest-labs/flux-kontext-max"
    assert found(call_for(mine, model, "input_image", **asked)).id == job.id
    assert found(call_for(other, model, "input_image", **asked)) is None
    server._uploads.clear()
    with pytest.raises(OutcomeUnknownError, match="may be this request"):
        found(call_for(mine, model, "input_image", **asked))


def test_pictures_that_share_prompt_and_seed_each_get_their_own(server):
    server.inject(Fault("drop", **CREATE, when="after", times=2))
    pictures = [render_picture(name, "png", 20, 20) for name in "abc"]
    results = edit(pictures, seed=3, concurrency=2)
    assert [result.status for result in results] == [Status.OK] * 3
    assert len(server.jobs) == 3
    assert len({image.sha256 for result in results for image in result.images}) == 3


# ------------------------------------------------------------------ what cannot be told


def test_without_a_seed_a_create_that_never_arrived_is_sent_again(server):
    server.inject(Fault("drop", **CREATE, when="before"))
    results = nbimg.generate(["x"], model="imagen-4-ultra", fallback=())
    assert results[0].status is Status.OK
    assert len(server.jobs) == 1


def test_without_a_seed_a_job_that_looks_alike_leaves_it_unknown(server):
    order(server, "google/imagen-4-ultra", prompt="x")
    with pytest.raises(OutcomeUnknownError, match="may be this request"):
        found(call_for(model="google/imagen-4-ultra", seed=None))
    assert found(Call(ModelRef("replicate", "google/imagen-4-ultra"), "another")) is None


def test_a_job_whose_input_is_purged_is_no_proof_of_absence(server):
    order(server, prompt="x", seed=7)
    server.advance(3700)
    with pytest.raises(OutcomeUnknownError, match="may be this request"):
        found(call_for())
    assert found(call_for(model="qwen/qwen-image")) is None


def test_the_same_input_to_another_model_is_another_job(server):
    order(server, prompt="x", seed=7)
    assert found(call_for(model="qwen/qwen-image")) is None


# a row of the list, as the service may show it
ROW = {"id": "a", "model": FLUX, "version": "hidden", "input": {"prompt": "x", "seed": 7}}


@pytest.mark.parametrize(
    ("change", "like"),
    [
        ({}, True),
        ({"model": None}, True),
        ({"input": {"prompt": "x", "seed": 7, "go_fast": True}}, True),
        ({"model": "a/b"}, False),
        ({"input": {"prompt": "x", "seed": 8}}, False),
        ({"input": {"prompt": "x"}}, False),
        ({"input": {"prompt": "y", "seed": 7}}, False),
        ({"input": None}, None),
        ({"input": {}, "data_removed": True}, None),
    ],
)
def test_a_row_of_the_list_is_the_call_or_not_or_does_not_tell(change, like):
    assert likeness({**ROW, **change}, call_for()) is like


@pytest.mark.parametrize(
    ("version", "like"), [(COMMUNITY_MODEL.version, True), ("hidden", True), ("0" * 64, False)]
)
@pytest.mark.parametrize("form", ["{0.name}:{0.version}", "{0.version}"])
def test_a_version_is_told_from_another(form, version, like):
    call = call_for(model=form.format(COMMUNITY_MODEL))
    row = {**ROW, "model": COMMUNITY_MODEL.name, "version": version}
    assert likeness(row, call) is like


# ------------------------------------------------------------------ an hour later


def test_a_purged_job_is_taken_up_with_one_clear_line_and_then_forgotten(server):
    server.inject(Fault("html", method="GET", path="/xezq/*", times=2))
    (result,) = nbimg.generate(["x"], model="flux-dev", retries=2, fallback=())
    assert result.status is Status.FAILED
    server.advance(3700)
    (later,) = nbimg.resume()
    assert later.status is Status.FAILED
    assert later.error.message == "the images are gone: replicate keeps outputs for an hour."
    assert list(nbimg.resume()) == []
    assert len(server.jobs) == 1
    assert server.count(**CREATE) == 1


def test_the_list_is_only_looked_at_as_far_back_as_the_create(server):
    server.page_size = 1
    for prompt in "abc":
        order(server, prompt=prompt)
    server.advance(4000)
    since = server.utc_s()
    assert found(call_for(), since) is None
    assert server.count("GET", "/v1/predictions") == 1
    assert json.loads(server._render(server.jobs[0]))["data_removed"]


@pytest.mark.parametrize("ahead_s", [20 * 60.0, 2 * 3600.0, -2 * 3600.0])
def test_a_lost_create_is_found_though_this_machines_clock_is_wrong(server, monkeypatch, ahead_s):
    order(server, prompt="x", seed=7)
    job = server.jobs[0]
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + ahead_s)
    assert found(call_for(), real() + ahead_s - 1).id == job.id

import asyncio
import hashlib
import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import nbimg
from nbimg.backends.replicate_answers import _REFUSED, prediction, target
from nbimg.errors import InputError, KeyMissingError, ReplyError
from nbimg.testing import COMMUNITY_MODEL, FAILURES, Fault
from nbimg.types import Status

CREATE = {"method": "POST", "path": "*/predictions"}
VERSIONED = f"replicate:{COMMUNITY_MODEL.name}:{COMMUNITY_MODEL.version}"


def image(side=8, noise=False):
    pixels = np.random.default_rng(1).integers(0, 255, (side, side, 3), np.uint8)
    picture = PIL.Image.fromarray(pixels if noise else np.zeros_like(pixels))
    target = io.BytesIO()
    picture.save(target, "PNG")
    return target.getvalue()


# ------------------------------------------------------------------ models


@pytest.mark.parametrize(
    ("model", "path", "body"),
    [
        ("a/b", "/v1/models/a/b/predictions", {}),
        ("a/b:" + "0" * 64, "/v1/predictions", {"version": "0" * 64}),
        ("0" * 64, "/v1/predictions", {"version": "0" * 64}),
        ("deployments/a/b", "/v1/deployments/a/b/predictions", {}),
    ],
)
def test_each_kind_of_model_has_its_own_address(model, path, body):
    assert target(model) == (path, body)


@pytest.mark.parametrize("model", ["a", "a/b/c", "a/b:latest", "/b", "a/", "deployments/a", ""])
def test_a_name_of_no_known_form_is_refused(model):
    with pytest.raises(InputError, match="no model"):
        target(model)


def test_official_versioned_and_deployed_models_all_run(server):
    server.deployments = {"acme/mine": "black-forest-labs/flux-dev"}
    names = [
        "flux-dev",
        VERSIONED,
        f"replicate:{COMMUNITY_MODEL.version}",
        "replicate:deployments/acme/mine",
    ]
    results = nbimg.batch([{"prompt": "x", "model": name} for name in names])
    assert [result.status for result in results] == [Status.OK] * 4
    assert sorted(job.model for job in server.jobs) == sorted(
        ["black-forest-labs/flux-dev"] * 2 + [COMMUNITY_MODEL.name] * 2
    )


def test_a_community_model_without_a_version_says_what_is_missing(server):
    with pytest.raises(nbimg.GenerationError, match="need a version"):
        nbimg.generate("x", model=f"replicate:{COMMUNITY_MODEL.name}")


def test_the_schema_is_read_once_and_then_known(server):
    for _ in range(3):
        nbimg.generate("x", model="flux-dev")
    assert server.count("GET", "/v1/models/*") == 1


def test_a_create_is_never_held_open(server):
    nbimg.generate("x", model="flux-dev")
    (call,) = server.matching(**CREATE)
    assert "Prefer" not in call.headers


# ------------------------------------------------------------------ files in and out


def test_a_small_image_goes_inside_the_request_and_a_large_one_is_uploaded_first(server):
    small, large = image(), image(400, noise=True)
    assert len(large) > 300_000
    nbimg.edit([small, large], "x", model="flux-kontext-max")
    inline, uploaded = sorted((job.input["input_image"] for job in server.jobs), reverse=False)
    assert inline.startswith("data:image/png;base64,")
    assert uploaded.startswith(f"{server.base_url}/v1/files/")
    (upload,) = server.uploads
    assert (upload.data, upload.content_type) == (large, "image/png")
    assert upload.name == f"{hashlib.sha256(large).hexdigest()[:16]}.png"


@pytest.mark.parametrize("kind", ["drop", "html"])
def test_an_upload_that_is_lost_is_sent_again(server, kind):
    server.inject(Fault(kind, method="POST", path="/v1/files", when="after"))
    (result,) = nbimg.edit([image(400, noise=True)], "x", model="flux-kontext-max")
    assert result.status is Status.OK
    assert len(server.jobs) == 1


def test_several_references_become_one_picture_where_the_model_takes_a_list(server):
    (result,) = nbimg.edit([image(8), image(9)], "x", mode="combine", model="qwen-image-edit-plus")
    assert result.status is Status.OK
    (job,) = server.jobs
    assert len(job.input["image"]) == 2


def test_the_key_never_goes_to_the_host_of_the_files(server):
    nbimg.generate("x", model="flux-dev")
    (download,) = server.matching(host="files")
    assert "Authorization" not in download.headers
    assert all("Authorization" in call.headers for call in server.matching(host="api"))


def test_an_output_that_was_purged_says_so(server):
    found = prediction({"id": "a", "status": "succeeded", "output": None, "data_removed": True})
    assert found.error is not None
    assert "gone" in str(found.error)


def test_a_file_that_has_expired_says_so_and_is_not_asked_for_again(server):
    server.inject(Fault("error", method="GET", path="/xezq/*", status=404, times=None))
    with pytest.raises(nbimg.GenerationError, match="keeps outputs for an hour"):
        nbimg.generate("x", model="flux-dev")
    assert server.count("GET", "/xezq/*") == 1


def test_a_403_of_the_file_host_does_not_blame_the_key(server):
    server.inject(Fault("error", method="GET", path="/xezq/*", status=403))
    with pytest.raises(nbimg.GenerationError, match="cannot be fetched"):
        nbimg.generate("x", model="flux-dev")


# ------------------------------------------------------------------ what it says


@pytest.mark.parametrize("status", ["starting", "processing"])
def test_a_job_that_runs_is_not_finished_even_when_it_shows_an_output(status):
    found = prediction({"id": "a", "status": status, "output": ["https://x/y.png"]})
    assert not found.state.terminal


def test_outputs_are_found_in_any_shape_and_in_order():
    output = {"images": [{"url": "https://x/1"}, "https://x/2"], "seed": 3, "log": "done"}
    found = prediction({"id": "a", "status": "succeeded", "output": output})
    assert [one.url for one in found.outputs] == ["https://x/1", "https://x/2"]


@pytest.mark.parametrize(
    "data", [None, [], {}, {"id": 1}, {"id": "a"}, {"id": "a", "status": "new"}]
)
def test_what_is_no_prediction_is_a_reply_error(data):
    with pytest.raises(ReplyError):
        prediction(data)


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        *((FAILURES[name], True) for name in ("E005", "nsfw", "all_nsfw")),
        *((FAILURES[name], False) for name in ("E1000", "E1001", "interrupted")),
        ("blocked by our safety filter", True),
        ("safety_tolerance must be at most 2", False),
        ("E0055 is another code", False),
    ],
)
def test_a_refusal_is_told_from_a_failure(text, refused):
    assert bool(_REFUSED.search(text)) is refused


# ------------------------------------------------------------------ keys


def test_without_a_key_nothing_is_sent(server, monkeypatch):
    monkeypatch.delenv("REPLICATE_API_TOKEN")
    with pytest.raises(KeyMissingError, match="REPLICATE_API_TOKEN"):
        nbimg.generate("x", model="flux-dev")
    assert server.requests == []


def test_a_wrong_key_is_said_without_showing_it(server, monkeypatch):
    monkeypatch.setenv("REPLICATE_API_TOKEN", "r8-wrong-key-123456")
    with pytest.raises(nbimg.NbimgError, match="does not accept the key") as caught:
        nbimg.generate("x", model="flux-dev")
    assert "r8-wrong" not in "".join(caught.value._render_traceback_())


def test_no_file_that_is_left_behind_holds_the_key(server):
    nbimg.generate(["x", "y"], model="flux-dev", n=2, output="{index}.png")
    for path in Path().rglob("*"):
        if path.is_file():
            assert server.token.encode() not in path.read_bytes(), path


def test_a_file_output_of_the_official_client_is_an_image(server):
    replicate = pytest.importorskip("replicate")
    from replicate.helpers import FileOutput

    from nbimg.media import inputs

    client = replicate.Client(api_token=server.token, base_url=server.base_url)
    nbimg.generate("x", model="flux-dev")
    url = "data:image/png;base64," + __import__("base64").b64encode(image()).decode()
    assert inputs.read(FileOutput(url, client))[0] == image()
    assert asyncio.iscoroutinefunction(FileOutput(url, client).aread)


# ------------------------------------------------------------------ deployments, search, credit


def ask(work):
    """Await what `work` does with the backend of the default session."""
    from nbimg import session

    own = session.default()
    return own.portal.call(work, own.registry.get("replicate"))


def test_a_deployment_takes_what_its_model_takes(server):
    server.deployments = {
        "acme/official": "black-forest-labs/flux-dev",
        "acme/community": COMMUNITY_MODEL.name,
    }

    async def options(backend):
        return [
            (await backend.capabilities(f"deployments/acme/{name}")).options["guidance"].name
            for name in ("official", "community")
        ]

    assert ask(options) == ["guidance", "guidance_scale"]
    (result,) = nbimg.batch(
        [{"prompt": "x", "model": "replicate:deployments/acme/official", "guidance": 99}]
    )
    assert "guidance 99 became 10" in " ".join(result.notices)
    with pytest.raises(nbimg.NbimgError, match="no model"):
        nbimg.generate("x", model="replicate:deployments/acme/none")


@pytest.mark.parametrize("searchable", [True, False])
def test_a_search_finds_models_by_the_new_address_or_the_old_one(server, searchable):
    server.searchable = searchable

    async def search(backend):
        return await backend.search("flux", 1), await backend.search("nothing like it")

    (found,), none = ask(search)
    assert (found.model, found.runs) == ("black-forest-labs/flux-dev", 0)
    assert none == ()


def test_an_account_with_little_credit_is_told_what_lifts_the_limit(server):
    server.inject(
        Fault("error", **CREATE, status=429, variant="low_credit", retry_after_s=1, times=None)
    )
    with pytest.raises(nbimg.GenerationError, match="More credit lifts the limit"):
        nbimg.generate("x", model="flux-dev", retries=1, fallback=())

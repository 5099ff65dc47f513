import pytest

import nbimg
from nbimg import models, session
from nbimg.errors import NbimgError, UnknownNameError
from nbimg.testing import COMMUNITY_MODEL, Fault, ReplicateModel
from nbimg.types import Capabilities, Field, ModelRef, Size, Status


def said(pattern):
    return models.render(pattern, session.default())


def test_a_name_is_shown_with_what_the_model_takes_with_ranges_and_defaults(server):
    text = said("flux-dev")
    lines = [" ".join(line.split()) for line in text.split("\n")]
    assert "--guidance guidance 0 to 10 [3]" in lines
    assert "--steps num_inference_steps 1 to 50 [28]" in lines
    assert "-n num_outputs 1 to 4 [1]" in lines
    assert (
        "--ar aspect_ratio 1:1, 16:9, 21:9, 3:2, 2:3, 4:5, 5:4, 3:4, 4:3, 9:16, 9:21 [1:1]" in lines
    )
    assert "-i image an image" in lines
    assert "-p go_fast= go_fast true or false [true]" in lines
    assert "--seed seed a whole number" in lines
    assert "$0.025 an image (2026-10-07)" in text


def test_every_model_that_a_pattern_means_is_shown(server):
    text = said("kontext")
    assert "flux-kontext-max  replicate:black-forest-labs/flux-kontext-max" in text
    assert "--ar" in text
    assert "safety_tolerance" in text
    assert "no model" in text  # the local service has no flux-kontext-pro


def test_without_a_pattern_all_are_listed_and_nobody_is_asked(server):
    text = said("")
    assert "flux-dev" in text
    assert "demo" in text
    assert server.requests == []


def test_without_a_key_nobody_is_asked(server, monkeypatch):
    monkeypatch.delenv("REPLICATE_API_TOKEN")
    text = said("flux-dev")
    assert "no key" in text
    assert server.requests == []
    assert "nothing-like-it" in said("nothing-like-it")
    assert server.requests == []


def test_what_the_catalogue_does_not_have_is_searched_at_the_provider(server):
    text = said("ink sketch")
    assert "no model of the catalogue" in text
    assert f"replicate:{COMMUNITY_MODEL.name}" in text
    assert said("nothing-like-it").endswith("%imgmodels lists all.")


def test_a_full_name_is_described_though_the_catalogue_does_not_have_it(server):
    text = said(f"replicate:{COMMUNITY_MODEL.name}:{COMMUNITY_MODEL.version}")
    assert "guidance_scale" in text
    with pytest.raises(UnknownNameError):
        models.describe("replicate:nobody/nothing", session.default())


def test_a_search_that_fails_is_one_line(server):
    server.inject(Fault("html", method="GET", path="/v1/search", times=None))
    assert "replicate answered 502" in said("ink sketch")


def test_the_model_that_ships_is_described_too():
    assert "--seed" in said("demo")


def test_a_provider_without_a_search_says_so():
    with pytest.raises(NbimgError, match="cannot be searched"):
        models.search("x", session.default(), provider="demo")


REF = ModelRef("p", "m")


@pytest.mark.parametrize(
    ("field", "takes"),
    [
        (Field("f", "integer", minimum=64, maximum=1024, multiple=64), "64 to 1024 in steps of 64"),
        (Field("f", "number", minimum=0), "a number, at least 0"),
        (Field("f", "number", maximum=1), "a number, at most 1"),
        (Field("f", "files", maximum=10), "up to 10 images"),
        (Field("f", "files"), "images"),
        (Field("f", "string", required=True), "text  [required]"),
        (Field("f", "string", default=" "), "text  [' ']"),
        (Field("f", "string", allowed=("1K", "2K"), default="2K"), "1K, 2K  [2K]"),
    ],
)
def test_each_kind_of_parameter_is_said_in_words(field, takes):
    text = models.table(REF, Capabilities(options={"x": field}))
    assert text.endswith(takes)


def test_a_model_without_a_schema_says_that_anything_is_passed_on():
    assert "passes anything on" in models.table(REF, Capabilities(open=True))
    assert "a prompt only" in models.table(REF, Capabilities(default_size=Size(8, 8)))


def test_a_model_that_nobody_has_heard_of_works_by_its_full_name(server):
    server.models["someone/brand-new"] = ReplicateModel(
        "someone/brand-new", {"prompt": {"type": "string"}, "seed": {"type": "integer"}}
    )
    (result,) = nbimg.generate(["x"], model="replicate:someone/brand-new", seed=3)
    assert result.status is Status.OK
    assert (server.jobs[0].model, server.jobs[0].input["seed"]) == ("someone/brand-new", 3)

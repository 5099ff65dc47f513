import datetime as dt
import tomllib
from importlib import resources

import pytest

from nbimg import __main__, refresh, session
from nbimg.errors import BackendError, InputError
from nbimg.planning import catalog
from nbimg.testing import BUILTIN_MODELS, Fault, ReplicateModel

TEXT = resources.files("nbimg.planning").joinpath("catalog.toml").read_text("utf-8")
TODAY = dt.date(2026, 11, 1)
#: Those of the catalogue that the local service does not have.
OTHERS = ("black-forest-labs/flux-kontext-pro", "bytedance/seedream-4")


@pytest.fixture
def whole(server):
    """A service that has every model of the catalogue, as the catalogue says."""
    kontext = server.models["black-forest-labs/flux-kontext-max"]
    for name in OTHERS:
        server.models[name] = ReplicateModel(name, kontext.inputs)
    return server


def found(today=TODAY):
    return {
        change.text: change for change in refresh.changes("replicate", session.default(), today)
    }


def test_a_catalogue_that_is_right_has_no_changes(whole):
    assert found() == {}


def test_a_model_that_learned_or_lost_something_is_named(whole):
    imagen = whole.models["google/imagen-4-ultra"]
    kontext = whole.models["black-forest-labs/flux-kontext-max"]
    whole.models[imagen.name] = ReplicateModel(
        imagen.name, kontext.inputs, required=("prompt", "input_image")
    )
    assert list(found()) == [
        "imagen-4-ultra: no longer works from a prompt alone.",
        "imagen-4-ultra: now takes an input image.",
    ]


def test_a_model_that_is_gone_is_named_and_left_to_a_person(whole):
    del whole.models["qwen/qwen-image"]
    (change,) = found().values()
    assert change.text == "qwen-image: replicate:qwen/qwen-image is gone."
    assert refresh.mended(TEXT, [change]) == TEXT


def test_an_old_price_is_to_be_read_again(whole):
    (text,) = found(dt.date(2027, 3, 1))
    assert text.startswith("flux-dev: its price was read on 2026-10-07, 145 days ago")


def test_a_provider_that_cannot_be_asked_changes_nothing(whole):
    whole.inject(Fault("html", method="GET", path="/v1/models/*", times=None))
    with pytest.raises(BackendError, match="502"):
        found()


def test_a_provider_that_the_catalogue_does_not_have_is_said():
    with pytest.raises(InputError, match="no model of 'nobody'"):
        refresh.changes("nobody", session.default())


def change(alias, key, value):
    return refresh.Change(alias, key, value, "")


@pytest.mark.parametrize("alias", ["flux-dev", "qwen-image-edit-plus", "imagen-4-ultra", "demo"])
@pytest.mark.parametrize("key", ["makes", "edits"])
@pytest.mark.parametrize("value", [True, False])
def test_only_what_changed_is_written_and_the_rest_stays_as_it_was(alias, key, value):
    text = refresh.mended(TEXT, [change(alias, key, value)])
    (model,) = [row for row in tomllib.loads(text)["model"] if row["alias"] == alias]
    assert model.get(key, {"makes": True, "edits": False}[key]) is value
    before, after = TEXT.split("\n"), text.split("\n")
    assert [line for line in before if line not in after] in (
        [],
        [f"{key} = {str(not value).lower()}"],
    )
    assert len(set(after) - set(before)) <= 1
    back = getattr(catalog.entries()[alias], key)
    once = refresh.mended(text, [change(alias, key, back)])
    assert tomllib.loads(once) == tomllib.loads(TEXT)


def test_the_command_reports_and_mends_a_file(whole, tmp_path, capsys):
    name = "google/imagen-4-ultra"
    inputs = whole.models["black-forest-labs/flux-kontext-max"].inputs
    whole.models[name] = ReplicateModel(name, inputs)
    path = tmp_path / "catalog.toml"
    path.write_text(TEXT, "utf-8")
    assert __main__.main(["models", "--refresh", "replicate"]) == 1
    assert "imagen-4-ultra: now takes an input image." in capsys.readouterr().out
    assert __main__.main(["models", "--refresh", "replicate", "--write", str(path)]) == 0
    assert "edits = true" in path.read_text("utf-8").split('alias = "imagen-4-ultra"')[1][:200]


def test_the_command_lists_models_and_what_one_takes(server, capsys):
    assert __main__.main(["models", "flux-dev"]) == 0
    assert "0 to 10" in capsys.readouterr().out
    assert __main__.main(["models", "--refresh", "nobody"]) == 1
    assert "no model of 'nobody'" in capsys.readouterr().err


def test_the_local_service_has_most_of_the_catalogue():
    mine = {model.name for model in BUILTIN_MODELS}
    known = {e.ref.model for e in catalog.entries().values() if e.ref.provider == "replicate"}
    assert known - mine == set(OTHERS)

from pathlib import Path

import pytest

from nbimg import config
from nbimg.config import SETTINGS, Rate, Settings
from nbimg.errors import SettingError


@pytest.fixture
def at_once(monkeypatch):
    """A change of a file is seen by the next look."""
    monkeypatch.setattr(config, "FRESH_S", -1.0)


def settings(**environ):
    return Settings({f"NBIMG_{k}": v for k, v in environ.items()})


def test_the_first_source_that_has_a_value_wins(at_once):
    Path("pyproject.toml").write_text("[tool.nbimg]\nretries = 5\n")
    environ = {}
    own = Settings(environ)
    assert own.find("retries") == (5, str(Path.cwd() / "pyproject.toml"))
    Path("nbimg.toml").write_text("retries = 6\n")
    assert own.find("retries") == (6, str(Path.cwd() / "nbimg.toml"))
    environ["NBIMG_RETRIES"] = "7"
    assert own.find("retries") == (7, "environment")
    own.set("retries", 8)
    assert own.find("retries") == (8, "%config")
    assert own.get("retries", 9) == 9
    own.set("retries", None)
    assert own.get("retries") == 7


def test_every_setting_has_its_default_and_can_come_from_the_environment():
    for setting in SETTINGS:
        assert settings().find(setting.name) == (setting.default, "default")
    assert settings(TIMEOUT="2.5").get("timeout") == 2.5
    assert settings(OUTPUT_DIR="x").get("output_dir") == "x"


def test_files_are_not_read_again_for_every_request(monkeypatch):
    monkeypatch.setattr(config, "FRESH_S", 60.0)
    own = settings()
    own.get("retries")
    monkeypatch.setattr(Path, "is_file", lambda self: pytest.fail("looked again"))
    assert own.provider("replicate", "rate") is None


def test_a_file_that_is_changed_is_read_again(at_once):
    Path("nbimg.toml").write_text("retries = 6\n")
    own = settings()
    assert own.get("retries") == 6
    Path("nbimg.toml").write_text("retries = 12\n")
    assert own.get("retries") == 12


def test_the_nearest_project_above_counts(monkeypatch):
    Path("pyproject.toml").write_text("[tool.nbimg]\nmodel = 'demo'\n")
    Path("a/b").mkdir(parents=True)
    monkeypatch.chdir("a/b")
    assert settings().get("model") == "demo"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("retrys = 1", "retries"),
        ("retries = 'many'", "not a whole number from 1"),
        ("display = 'big'", "grid, live, none"),
        ("retries = ", "cannot be read"),
        ("providers = 3", "providers"),
        ("[providers.replicate]\nconcurency = 1", "concurency"),
    ],
)
def test_a_mistake_in_a_file_is_one_line_that_names_it(text, message):
    Path("nbimg.toml").write_text(text)
    with pytest.raises(SettingError, match=message) as caught:
        [settings().get(name) for name in ("retries", "display")]
    assert "nbimg.toml" in str(caught.value)


def test_a_mistake_in_config_or_environment_is_one_line_that_names_it():
    with pytest.raises(SettingError, match="output_dir"):
        settings().set("outputdir", "x")
    with pytest.raises(SettingError, match="environment"):
        settings(RETRIES="x").get("retries")
    with pytest.raises(SettingError, match="providers"):
        settings().set("providers", {"replicate": 5})


def test_a_provider_has_settings_of_its_own_in_the_same_order():
    Path("nbimg.toml").write_text("[providers.replicate]\nconcurrency = 2\nrate = '5/1s'\n")
    own = settings(REPLICATE_CONCURRENCY="3")
    assert own.provider("replicate", "rate") == "5/1s"
    assert own.provider("replicate", "concurrency") == "3"
    own.set("providers", {"replicate": {"concurrency": 4}})
    assert own.provider("replicate", "concurrency") == 4
    assert own.provider("other", "concurrency") is None
    assert settings(MY_HOST_BASE_URL="http://x").provider("my-host", "base_url") == "http://x"


def test_a_rate_is_read_as_it_is_written():
    assert Rate.parse("600/60s") == Rate(600, 60.0)
    assert Rate.parse("5/0.5") == Rate(5, 0.5)


@pytest.mark.parametrize(
    "text", ["", "600", "0/60s", "5/0s", "-1/5", "a/b", "5/nan", "5/inf", "1/2/3"]
)
def test_a_rate_that_means_nothing_is_refused(text):
    with pytest.raises(SettingError, match="600/60s"):
        Rate.parse(text)


def test_tables_can_come_from_the_environment_as_json():
    rules = '[{"condition": "api_error", "model": "flux-dev", "use": []}]'
    assert settings(FALLBACKS=rules).find("fallbacks") == (
        [{"condition": "api_error", "model": "flux-dev", "use": []}],
        "environment",
    )
    Path("nbimg.toml").write_text("[providers.replicate]\nconcurrency = 2\nrate = '5/1s'\n")
    own = settings(PROVIDERS='{"replicate": {"concurrency": 3}}')
    assert own.provider("replicate", "concurrency") == 3
    assert own.provider("replicate", "rate") == "5/1s"
    one = settings(PROVIDERS='{"replicate": {"concurrency": 3}}', REPLICATE_CONCURRENCY="4")
    assert one.provider("replicate", "concurrency") == "4"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("PROVIDERS", "{", "providers"),
        ("PROVIDERS", "[1]", "providers"),
        ("PROVIDERS", '{"replicate": 5}', "providers"),
        ("PROVIDERS", '{"replicate": {"concurency": 5}}', "concurency"),
        ("FALLBACKS", "flux-dev", "fallbacks"),
        ("FALLBACKS", "[1]", "fallbacks"),
        ("FALLBACKS", '{"a": 1}', "fallbacks"),
    ],
)
def test_a_table_in_the_environment_that_is_none_is_one_line(name, text, said):
    own = settings(**{name: text})
    with pytest.raises(SettingError, match=said) as caught:
        own.find(name.lower())
    assert "environment" in str(caught.value)
    assert "\n" not in str(caught.value)
    if name == "PROVIDERS":
        with pytest.raises(SettingError, match=said):
            own.provider("replicate", "rate")


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("retries", "-1", "a whole number from 1"),
        ("retries", "0", "a whole number from 1"),
        ("retries", "1.5", "a whole number from 1"),
        ("concurrency", "0", "a whole number from 1"),
        ("columns", "0", "a whole number from 1"),
        ("retry_min_s", "-1", "a number from 0"),
        ("retry_max_s", "inf", "a number from 0"),
        ("timeout", "0", "a number above 0"),
        ("timeout", "-1", "a number above 0"),
        ("budget", "nan", "a number from 0"),
        ("budget", "-1", "a number from 0"),
        ("offline", "maybe", "true or false"),
    ],
)
def test_a_value_that_means_nothing_is_one_line_with_what_is_allowed(name, value, allowed):
    own = Settings({f"NBIMG_{name.upper()}": value})
    with pytest.raises(SettingError) as caught:
        own.get(name)
    assert str(caught.value) == f"{name} = {value!r} (from environment) is not {allowed}."


def test_what_is_set_from_python_has_the_kind_that_it_should_have():
    own = settings()
    for name, value in [("retries", 1.5), ("retries", True), ("budget", True), ("offline", 5)]:
        with pytest.raises(SettingError, match=name):
            own.set(name, value)
    own.set("timeout", 5)
    own.set("offline", False)
    assert own.get("timeout") == 5.0

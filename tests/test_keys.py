import copy
import pickle
from pathlib import Path

import pytest

from nbimg.errors import KeyMissingError, SettingError, UnknownNameError
from nbimg.keys import Keys, Secret, redact

KEY = "r8-planted-0123456789"


def test_the_first_tier_that_has_a_key_wins():
    Path(".env").write_text(f"REPLICATE_API_TOKEN={KEY}-file\n")
    environ = {}
    keys = Keys(environ)
    assert keys.need("replicate").reveal() == f"{KEY}-file"
    environ["REPLICATE_API_TOKEN"] = f" {KEY}-environment\n"
    assert keys.need("replicate").reveal() == f"{KEY}-environment"
    keys.remember("REPLICATE_API_TOKEN", f"{KEY}-session")
    assert keys.need("replicate").reveal() == f"{KEY}-session"
    assert keys.need("replicate", {"replicate": f"{KEY}-call"}).reveal() == f"{KEY}-call"
    assert keys.need("replicate", {"replicate": " "}).reveal() == f"{KEY}-session"


def test_no_key_anywhere_says_where_one_is_looked_for():
    assert Keys({}).find("replicate") is None
    with pytest.raises(KeyMissingError, match="REPLICATE_API_TOKEN"):
        Keys({}).need("replicate")


def test_a_key_for_an_unknown_provider_names_the_nearest():
    with pytest.raises(UnknownNameError, match="replicate"):
        Keys({}).find("replicate", {"replicat": KEY})


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{0!r:>40}".format, lambda s: f"{s:>9}"])
def test_a_secret_shows_itself_as_dots(show):
    assert KEY not in show(Secret(KEY))
    assert "•••" in show(Secret(KEY))


@pytest.mark.parametrize("write", [pickle.dumps, copy.deepcopy])
def test_a_secret_is_not_written_to_disk(write):
    with pytest.raises(TypeError, match="not written"):
        write(Secret(KEY))


def test_every_secret_that_was_seen_is_taken_out_of_a_text():
    Secret(KEY)
    Secret(KEY + "-longer\n")
    assert redact(f"a {KEY} b {KEY}-longer c") == "a ••• b ••• c"


@pytest.mark.parametrize(
    "value", ["r8-ключ-0000", "r8-“quoted”", "r8-two\nlines-000", "r8-null\0-000"]
)
def test_a_key_that_no_header_can_carry_is_said_without_showing_it(value):
    with pytest.raises(SettingError) as caught:
        Secret(value)
    assert value not in str(caught.value)


def test_secrets_are_equal_by_value():
    assert Secret(KEY) == Secret(f" {KEY} ")
    assert len({Secret(KEY), Secret(KEY)}) == 1
    assert Secret(KEY) != KEY

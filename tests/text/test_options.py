"""The table of options: words to values and back, help, completion, keyword arguments."""

import json
import subprocess
import sys
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbimg.errors import InputError, OptionError, UnknownNameError
from nbimg.text.flags import format_words, parse_words
from nbimg.text.options import (
    MAGICS,
    OPTIONS,
    find_flags,
    find_names,
    split_keywords,
    unknown_option,
)
from nbimg.text.usage import render_help
from nbimg.types import Request, Size

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text() | st.sampled_from(["95", "true", "'\"x\"'"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
NAMES = st.text("abz09-/:.", min_size=1, max_size=8)
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "model": st.lists(NAMES, min_size=1, max_size=3).map(tuple),
        "n": st.integers(1, 1000),
        "size": st.builds(Size, st.integers(1, 99999), st.integers(1, 99999)),
        "ar": st.sampled_from(["1:1", "16:9", "2:3"]),
        "seed": st.integers(0, 2**32 - 1),
        "negative": st.text(),
        "guidance": st.floats(0, 100),
        "image": st.lists(st.text(), min_size=1, max_size=3).map(tuple),
        "params": st.dictionaries(NAMES, JSON, min_size=1, max_size=3),
        "output": st.text(),
        "var": st.sampled_from(["r", "größe"]),
        "timeout": st.floats(0.001, 1e9),
        "display": st.sampled_from(["grid", "live", "none"]),
        "mode": st.sampled_from(["each", "combine"]),
        "strict": st.just(True),
        "url_only": st.just(True),
    },
)


def read(*words: str, magic: str = "imggen") -> dict[str, object]:
    values, rest = parse_words(words, magic=magic)
    assert rest == ()
    return values


@given(VALUES)
def test_values_written_as_words_are_read_again_as_they_were(values):
    words = format_words(values)
    assert read(*words, magic="imgedit") == values


@given(st.lists(st.text() | st.sampled_from([*find_flags(), "--", "-n4", "1", "-1"])))
def test_any_words_are_read_or_refused_with_one_line(words):
    try:
        values, rest = parse_words(words)
    except InputError as error:
        assert str(error)  # noqa: PT017
    else:
        assert set(values) <= {row.name for row in OPTIONS}
        assert all(0 <= index < len(words) for index in rest)


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["--size", "64x32"], {"size": Size(64, 32)}),
        (["--size=64x32"], {"size": Size(64, 32)}),
        (["-n4"], {"n": 4}),
        (["-n=4"], {"n": 4}),
        (["-n", "1", "-n", "2"], {"n": 2}),
        (["--ar", "8:6"], {"ar": "4:3"}),
        (["-m", "a, b", "-m", "c"], {"model": ("a", "b", "c")}),
        (["-i", "a", "-i", "b"], {"image": ("a", "b")}),
        (["--negative", "-5 degrees"], {"negative": "-5 degrees"}),
        (["--negative=--size"], {"negative": "--size"}),
        (["--dry-run", "--url-only"], {"dry_run": True, "url_only": True}),
        (["-h"], {"help": True}),
    ],
)
def test_options_are_read_in_each_of_their_spellings(words, values):
    assert read(*words) == values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("95", 95),
        ("0.5", 0.5),
        ("true", True),
        ("null", None),
        ('"95"', "95"),
        ("red", "red"),
        ("#fff", "#fff"),
        ("a=b", "a=b"),
        ("", ""),
        ("NaN", "NaN"),
        ("1e999", "1e999"),
        ("[1, 2]", [1, 2]),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_parameters_are_json_where_they_can_be_and_text_where_not(text, value):
    found = read("-p", f"key={text}")["params"]["key"]
    assert (type(found), found) == (type(value), value)


def test_parameters_of_several_uses_are_merged():
    assert read("-p", "a=1", "-p", "b=2", "-p", "a=3") == {"params": {"a": 3, "b": 2}}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-n", "four"], "-n 'four' is not a whole number."),
        (["-n", "0"], "n 0 is not a whole number from 1 to 1000."),
        (["--guidance", "-1"], "guidance -1.0 is not between 0 and 100."),
        (["--guidance", "nan"], "guidance nan is not a number."),
        (["--size", "10"], "size '10' is not WxH in pixels. Write it like 1024x768."),
        (["--timeout", "0"], "--timeout '0' is not a number of seconds above 0."),
        (["--timeout", "inf"], "--timeout 'inf' is not a number of seconds above 0."),
        (["--retries", "0"], "--retries '0' is not a whole number from 1."),
        (["-v", "for"], "-v 'for' is not a name for a variable."),
        (["-m", "a,,b"], "-m 'a,,b' is not a name, or several with commas between them."),
        (["-p", "novalue"], "-p 'novalue' is not KEY=VALUE."),
        (
            ["--display", "gird"],
            "--display 'gird' is not one of grid, live, none. Did you mean grid?",
        ),
        (["--strict=yes"], "--strict takes no value, so not 'yes'."),
        (["--seed"], "--seed needs a value. Write it like --seed N."),
        (["--seed", "--size", "1x1"], "--seed needs a value. Write it like --seed N."),
        (["--seed", "--"], "--seed needs a value. Write it like --seed N."),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_one_clear_line(words, message):
    with pytest.raises(OptionError) as caught:
        parse_words(words)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("word", "near"),
    [("--sise", "--size"), ("-model", "--model"), ("--url_only", "--url-only"), ("-var", "--var")],
)
def test_an_unknown_option_is_answered_with_the_nearest(word, near):
    with pytest.raises(UnknownNameError) as caught:
        parse_words([word, "x"], where="line 3")
    assert caught.value.closest[0] == near
    assert "line 3" in str(caught.value)


def test_an_option_is_not_found_by_its_first_letters():
    with pytest.raises(UnknownNameError):
        parse_words(["--neg", "x"])


def test_an_option_like_nothing_known_points_to_the_help():
    with pytest.raises(UnknownNameError, match="%imggen --help lists them"):
        parse_words(["--qqqqqqq"])


def test_combine_belongs_to_imgedit_alone():
    assert read("--combine", magic="imgedit") == {"mode": "combine"}
    with pytest.raises(UnknownNameError):
        parse_words(["--combine"])


def test_an_option_of_the_call_is_refused_where_only_a_prompt_is_described():
    with pytest.raises(OptionError, match=r"line 2: --strict holds for the whole cell\."):
        parse_words(["--strict"], scope="request", where="line 2")


def test_words_that_are_no_options_are_given_back_by_their_places():
    assert parse_words(["a", "-n", "2", "-", "-5", "--", "-n"]) == ({"n": 2}, (0, 3, 4, 6))


@pytest.mark.parametrize("magic", MAGICS)
def test_the_help_names_every_option_and_fits_a_page(magic):
    text = render_help(magic)
    assert all(flag in text for flag in find_flags(magic))
    assert max(map(len, text.splitlines())) <= 88
    assert ("--combine" in text) == (magic == "imgedit")


def test_every_row_is_a_field_of_a_request_or_holds_for_the_call():
    known = {spec.name for spec in fields(Request)}
    assert {row.name for row in OPTIONS if row.scope == "request"} <= known
    assert not {row.name for row in OPTIONS if row.scope == "call"} & known
    assert len({row.name for row in OPTIONS}) == len(OPTIONS)


def test_no_flag_is_used_twice():
    flags = [flag for row in OPTIONS for flag in (*row.flags, *row.sets)]
    assert len(set(flags)) == len(flags)
    assert all(row.help and (row.metavar or not row.flags) for row in OPTIONS)


def test_keyword_arguments_are_split_by_what_they_hold_for():
    split = split_keywords({"n": 2, "params": {}, "retries": 1, "mode": "each"})
    assert split == ({"n": 2, "params": {}}, {"retries": 1, "mode": "each"})


def test_an_unknown_keyword_argument_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match=r"no option 'modle'\. Did you mean"):
        split_keywords({"modle": "x"})
    assert "model" in unknown_option("modle").closest
    assert unknown_option("sede").closest[0] == "seed"
    assert "help" not in find_names()


def test_values_of_an_unknown_name_cannot_be_written():
    with pytest.raises(UnknownNameError):
        format_words({"sede": 1})


def test_a_single_name_from_python_is_written_as_one():
    assert format_words({"model": "flux", "image": "a.png"}) == ("-m", "flux", "-i", "a.png")


def test_the_grammar_loads_no_library_beyond_the_standard_one():
    code = "import sys, json, nbimg.text.expand; print(json.dumps(sorted(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(found.stdout)}
    assert not loaded & {"yaml", "numpy", "PIL", "httpx", "torch", "IPython", "argparse"}


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("budget", float("nan"), "a number of US dollars"),
        ("budget", "x", "a number of US dollars"),
        ("budget", -1, "a number of US dollars"),
        ("budget", True, "a number of US dollars"),
        ("concurrency", 0, "a whole number from 1"),
        ("concurrency", 1.5, "a whole number from 1"),
        ("concurrency", True, "a whole number from 1"),
        ("retries", -1, "a whole number from 1"),
        ("columns", 0, "a whole number from 1"),
        ("timeout", "a", "a number of seconds above 0"),
        ("timeout", float("inf"), "a number of seconds above 0"),
        ("cache", "x", "True or False"),
        ("url_only", "x", "True or False"),
        ("fallback", ("imagen-4-ultra", 3), "a model's name or a list of them"),
        ("fallback", 3, "a model's name or a list of them"),
        ("fallback", True, "a model's name or a list of them"),
    ],
)
def test_a_value_of_the_call_that_means_nothing_is_one_line_with_what_is_allowed(
    name, value, allowed
):
    with pytest.raises(OptionError) as caught:
        split_keywords({name: value})
    assert str(caught.value) == f"{name} {value!r} is not {allowed}."


def test_values_of_the_call_are_read_as_they_are_in_a_cell():
    given = {
        "concurrency": "4",
        "budget": "2.50",
        "timeout": 5,
        "fallback": "a, b",
        "retries": None,
    }
    _, call = split_keywords(given)
    assert call == {
        "concurrency": 4,
        "budget": 2.5,
        "timeout": 5.0,
        "fallback": ("a", "b"),
        "retries": None,
    }
    assert split_keywords({"fallback": []})[1] == {"fallback": ()}
    assert split_keywords({"url_only": True, "cache": False})[1] == {
        "url_only": True,
        "cache": False,
    }

"""Variables, alternatives and models: what fans out, in which order, under which labels."""

import datetime as dt
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbimg.errors import CellSyntaxError, InputError, OptionError, UnknownNameError
from nbimg.text import expand as module
from nbimg.text.cell import Block, CellSpec, parse
from nbimg.text.expand import escape, expand
from nbimg.types import Size


class Array:
    """What NumPy, pandas and torch have in common here."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        if not isinstance(self.items, list):
            raise TypeError("len() of unsized object")
        return len(self.items)

    def __str__(self):
        return str(self.items)

    def tolist(self):
        return self.items


def prompts(body, line="", **names):
    return [request.prompt for request in expand(parse(line, body), names).requests]


def fail(body, line="", **names):
    with pytest.raises(InputError) as caught:
        expand(parse(line, body), names)
    return caught.value


BRACED = st.lists(st.sampled_from(["{", "}", "{{", "}}", "{x}", "|", "a", "\n", "{a|b}", " "])).map(
    "".join
)


@given(st.text() | BRACED, st.text() | BRACED)
def test_an_escaped_text_comes_out_as_it_went_in(prompt, negative):
    block = Block(escape(prompt), {"negative": escape(negative)})
    (request,) = expand(CellSpec(blocks=(block,)), {}).requests
    assert (request.prompt, request.negative) == (prompt, negative)


@given(BRACED | st.text())
def test_any_prompt_expands_or_is_refused_with_a_place_inside_it(body):
    lines = body.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    try:
        expand(parse("", body), {"x": "1", "y": 2})
    except CellSyntaxError as error:
        assert 1 <= error.line <= len(lines)  # noqa: PT017
        assert 1 <= error.column <= len(lines[error.line - 1]) + 1  # noqa: PT017
        if "prompt" not in error.message:
            assert lines[error.line - 1][error.column - 1] in "{}"  # noqa: PT017
    except InputError:
        pass


@given(st.lists(st.text(), min_size=1, max_size=5), st.integers(1, 4), st.integers(1, 3))
def test_labels_and_requests_always_agree_in_number(items, others, models):
    line = "-m " + ",".join("abc"[:models])
    grid = expand(parse(line, "{x}{y}{x}{p|q}"), {"x": items, "y": range(others)})
    assert len(grid.requests) == len(items) * others * 2 * models
    assert len(grid.requests) == len(grid.rows) * len(grid.columns)
    for index, request in enumerate(grid.requests):
        row, column = divmod(index, len(grid.columns))
        if models > 1:
            assert request.model == grid.columns[column]
        else:
            assert f"{grid.columns[column]}" in request.prompt
        assert grid.rows[row].endswith(" · p" if "p" in request.prompt[-1] else " · q")


@given(st.text())
def test_what_came_out_of_a_variable_is_not_expanded_again(value):
    assert prompts("{x}!", x=value) == [f"{value}!"]
    assert prompts("{x}!", x=[value, "{x}"]) == [f"{value}!", "{x}!"]


def test_nothing_that_fans_out_gives_one_request_without_labels():
    grid = expand(parse("-n 2 --size 64x32 -p a=1", "a {{cat}} {n}"), {"n": 3})
    (request,) = grid.requests
    assert (request.prompt, request.n, request.size) == ("a {cat} 3", 2, Size(64, 32))
    assert request.params == {"a": 1}
    assert request.model is None
    assert (grid.rows, grid.columns) == ((), ())


def test_one_axis_is_the_rows():
    grid = expand(parse("", "a {c} car"), {"c": ["red", "blue"]})
    assert [request.prompt for request in grid.requests] == ["a red car", "a blue car"]
    assert (grid.rows, grid.columns) == (("red", "blue"), ())


def test_a_list_of_one_item_alone_needs_no_label():
    grid = expand(parse("", "a { c } car"), {"c": ["red"]})
    assert [request.prompt for request in grid.requests] == ["a red car"]
    assert (grid.rows, grid.columns) == ((), ())


def test_two_axes_are_rows_and_columns_row_by_row():
    grid = expand(parse("", "{a|b} {x}"), {"x": (1, 2, 3)})
    assert [request.prompt for request in grid.requests] == [
        "a 1", "a 2", "a 3", "b 1", "b 2", "b 3",
    ]  # fmt: skip
    assert (grid.rows, grid.columns) == (("a", "b"), ("1", "2", "3"))


def test_a_third_axis_multiplies_the_rows():
    grid = expand(parse("", "{a|b} {1|2} {x|}"), {})
    assert grid.rows == ("a · x", "a · (nothing)", "b · x", "b · (nothing)")
    assert grid.columns == ("1", "2")
    assert [r.prompt for r in grid.requests][:4] == ["a 1 x", "a 2 x", "a 1 ", "a 2 "]


def test_a_variable_used_twice_is_one_axis():
    grid = expand(parse("--negative 'no {x}'", "{x} {x}"), {"x": ["ab", "c"]})
    assert [(r.prompt, r.negative) for r in grid.requests] == [
        ("ab ab", "no ab"),
        ("c c", "no c"),
    ]


def test_alternatives_written_twice_are_two_axes():
    assert prompts("{a|b}{a|b}") == ["aa", "ab", "ba", "bb"]


def test_models_are_the_columns():
    grid = expand(parse("-m flux,qwen", "{a|b} {1|2}"), {})
    assert grid.columns == ("flux", "qwen")
    assert grid.rows == ("a · 1", "a · 2", "b · 1", "b · 2")
    assert [request.model for request in grid.requests] == ["flux", "qwen"] * 4


def test_one_prompt_for_several_models_has_columns_alone():
    grid = expand(parse("-m flux,qwen", "a"), {})
    assert (grid.rows, grid.columns) == ((), ("flux", "qwen"))


def test_several_prompts_for_several_models_are_rows_and_columns():
    grid = expand(parse("-m flux,qwen", "a\nb\n---\n{c|d}"), {})
    assert (grid.rows, grid.columns) == (("a b", "c", "d"), ("flux", "qwen"))
    assert [(r.prompt, r.model) for r in grid.requests] == [
        ("a\nb", "flux"), ("a\nb", "qwen"), ("c", "flux"), ("c", "qwen"),
        ("d", "flux"), ("d", "qwen"),
    ]  # fmt: skip


def test_several_prompts_without_common_models_have_no_labels():
    assert expand(parse("", "{a|b}\n---\nc"), {}).rows == ()
    grid = expand(parse("-m flux,qwen", "a\n--- -m demo\nb"), {})
    assert [request.model for request in grid.requests] == ["flux", "qwen", "demo"]
    assert (grid.rows, grid.columns) == ((), ())


def test_options_of_a_prompt_come_before_those_of_the_line():
    spec = parse("-n 2 -p a=1 -p b=1", "x\n--- -n 3 -p b=2\ny")
    first, second = expand(spec, {}).requests
    assert (first.n, dict(first.params)) == (2, {"a": 1, "b": 1})
    assert (second.n, dict(second.params)) == (3, {"a": 1, "b": 2})


def test_file_names_and_images_are_never_expanded():
    (request,) = expand(parse("-o '{index}{x}.jpg' -i '{x}'", "a"), {"x": [1, 2]}).requests
    assert (request.output, request.image) == ("{index}{x}.jpg", ("{x}",))


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("word", ["word"]),
        (0.5, ["0.5"]),
        (True, ["True"]),
        (dt.date(2026, 1, 2), ["2026-01-02"]),
        (pathlib.PurePosixPath("a/b"), ["a/b"]),
        (["a", 1], ["a", "1"]),
        (("a",), ["a"]),
        (range(2), ["0", "1"]),
        (Array([1, 2]), ["1", "2"]),
        (Array(7), ["7"]),
    ],
)
def test_lists_fan_out_and_single_values_are_inserted(value, texts):
    assert prompts("{x}", x=value) == texts


def test_numpy_arrays_fan_out():
    np = pytest.importorskip("numpy")
    assert prompts("{x}", x=np.array([1, 2])) == ["1", "2"]
    assert prompts("{x}", x=np.float32(0.5)) == ["0.5"]
    assert prompts("{x}", x=np.array(3)) == ["3"]
    assert "an item of x is of type list" in str(fail("{x}", x=np.zeros((2, 2))))


USE = "Use a text, a number or a list of them."


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": 1}, "x is of type dict, which is no text. list(x) makes a list of it."),
        ({"a"}, "x is of type set, which is no text. sorted(x) makes a list of it."),
        ((c for c in "a"), "x is of type generator, which is no text. list(x) makes a list of it."),
        (None, f"x is None, which is no text. {USE}"),
        (b"a", f"x is of type bytes, which is no text. {USE}"),
        (object(), f"x is of type object, which is no text. {USE}"),
        (print, f"x is of type builtin_function_or_method, which is no text. {USE}"),
        (["a", None], f"an item of x is None, which is no text. {USE}"),
        ([{"a"}], f"an item of x is of type set, which is no text. {USE}"),
        ([], "x is empty. Put something into it."),
        (Array([]), "x is empty. Put something into it."),
    ],
)
def test_a_variable_without_a_text_is_refused_with_its_place(value, message):
    assert str(fail("a\n cat {x}", x=value)) == f"line 2, column 6: {message}"


def test_an_unknown_variable_is_answered_with_near_names_and_its_place():
    error = fail("a\n\n---\n\n  a {stile} house", style=1, _stile=2)
    assert isinstance(error, UnknownNameError)
    assert error.closest == ("style",)
    assert "line 5, column 5" in str(error)
    error = fail("a", "--negative '{stile}'", style=1)
    assert "--negative '{stile}'" in str(error)


@pytest.mark.parametrize(
    ("body", "place", "message"),
    [
        ("a {b", (1, 3), "{ is not closed."),
        ("a\nb }", (2, 3), "} without a { before it."),
        ("  a }", (1, 5), "} without a { before it."),
        ("{a|{b}}", (1, 1), "{ is not closed before the next one."),
        ("{a|b}}", (1, 6), "} without a { before it."),
        ("{}", (1, 1), "{} is neither a variable nor alternatives."),
        ("{a.b}", (1, 1), "{a.b} is neither a variable nor alternatives."),
        ("{x:.2f}", (1, 1), "{x:.2f} is neither a variable nor alternatives."),
    ],
)
def test_braces_that_do_not_fit_are_refused_with_their_place(body, place, message):
    error = fail(body)
    assert isinstance(error, CellSyntaxError)
    assert (error.line, error.column) == place
    assert error.message.endswith(message)
    assert error.hint


def test_braces_of_a_negative_prompt_say_where_they_are():
    error = fail("a\n--- --negative '}'\nb")
    assert "--negative '}': } without" in str(error)
    assert error.line == 3


def test_braces_beside_braces_are_literal_from_the_left():
    assert prompts("{{{x}}} {{x}} {a|b}}}", x=1) == ["{1} {x} a}", "{1} {x} b}"]


def test_too_many_requests_are_refused_with_the_sizes():
    error = fail("{x} {y} {1|2}", "-m a,b", x=range(2000), y=range(3))
    assert isinstance(error, OptionError)
    assert "2,000 {x} x 3 {y} x 2 alternatives x 2 models are 24,000 requests" in str(error)
    error = fail("{x}\n---\n{x}", x=range(6000))
    assert "and 6,000 of other prompts" in str(error)
    assert "{x} has more than 10,000 items" in str(fail("{x}", x=range(10**30)))


def test_as_many_requests_as_allowed_are_made(monkeypatch):
    monkeypatch.setattr(module, "MAX_REQUESTS", 4)
    assert len(prompts("{a|b}{c|d}")) == 4
    assert "at most 4" in str(fail("{a|b}{c|d|e}"))


def test_every_request_knows_the_prompt_it_came_from():
    grid = expand(parse("", "a {red|blue} cat\n---\na dog"), {})
    assert grid.blocks == (0, 0, 1)
    assert expand(parse("", "a dog"), {}).blocks == (0,)

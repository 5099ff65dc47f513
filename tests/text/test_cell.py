"""The text of a cell: every form of it, each way it can be wrong, and the way back."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbimg.errors import CellSyntaxError, InputError, OptionError, UnknownNameError
from nbimg.text import cell
from nbimg.text.cell import Block, CellSpec, parse
from nbimg.types import Size
from tests.text.test_options import VALUES

CALL = ("var", "timeout", "display", "mode", "strict", "url_only")
LINE = st.text(st.characters(exclude_characters="\r\n"))
CELLISH = st.lists(
    st.sampled_from(
        [
            "---",
            "--- ",
            "\\---",
            "-n",
            "4",
            "'",
            '"',
            "\\",
            "#",
            "--",
            "\n",
            "\r\n",
            " ",
            "a",
            "{x}",
        ]
    )
    | st.text(max_size=3)
).map("".join)


def one_line(values):
    return {
        name: value
        for name, value in values.items()
        if not any(mark in text for text in texts(value) for mark in "\r\n")
    }


def texts(value):
    if isinstance(value, dict):
        return [text for pair in value.items() for item in pair for text in texts(item)]
    return [t for item in value for t in texts(item)] if isinstance(value, tuple) else [str(value)]


REQUEST = VALUES.map(lambda values: one_line({k: v for k, v in values.items() if k not in CALL}))
TEXT = (
    st.lists(CELLISH | LINE | st.just("---"), min_size=1)
    .map(lambda lines: "\n".join(lines).replace("\r", "").strip())
    .filter(bool)
)
SPECS = st.builds(
    CellSpec,
    magic=st.just("imgedit"),
    call=VALUES.map(lambda values: {k: v for k, v in values.items() if k in CALL}),
    options=REQUEST,
    images=st.lists(LINE, min_size=1, max_size=3).map(tuple),
    blocks=st.lists(st.builds(Block, TEXT, REQUEST), min_size=1, max_size=3).map(tuple),
)


def prompts(line, body):
    return [block.text for block in parse(line, body).blocks]


@given(SPECS)
def test_a_cell_written_from_a_spec_is_read_again_as_that_spec(spec):
    line, body = cell.format(spec)
    assert "\n" not in line
    assert parse(line, body, magic="imgedit") == spec


@given(st.lists(LINE.map(str.strip).filter(bool), min_size=1))
def test_lines_written_from_a_spec_are_read_again_as_that_spec(lines):
    spec = CellSpec(call={"lines": True}, blocks=tuple(map(Block, lines)))
    line, body = cell.format(spec)
    assert parse(line, body) == spec


@given(CELLISH, CELLISH | st.none(), st.sampled_from(["imggen", "imgedit"]))
def test_any_text_is_read_or_refused_with_a_place_inside_it(line, body, magic):
    try:
        spec = parse(line, body, magic=magic)
    except CellSyntaxError as error:
        lines = [line, *(body or "").replace("\r\n", "\n").replace("\r", "\n").split("\n")]
        assert 0 <= error.line < len(lines)  # noqa: PT017
        assert 1 <= error.column <= len(lines[error.line]) + 1  # noqa: PT017
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert spec.blocks
        assert all(block.text == block.text.strip() != "" for block in spec.blocks)


@given(CELLISH)
def test_a_prompt_stands_where_its_block_says(body):
    try:
        blocks = parse("", body).blocks
    except InputError:
        return
    lines = body.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for block in blocks:
        first = block.text.split("\n")[0]
        found = lines[block.line - 1][block.column - 1 :]
        assert found.startswith((first, "\\" + first))


@given(st.lists(LINE, min_size=1))
def test_words_are_split_as_a_shell_splits_them(words):
    line = f"-- {' '.join(map(shlex.quote, words))} # comment"
    assert parse(line, "night", magic="imgedit").images == tuple(words)


@given(LINE)
def test_a_prompt_on_one_line_after_two_dashes_is_what_was_typed(text):
    typed = " ".join(text.split()).replace("#", "").replace('"', "").replace("'", "").strip()
    if typed:
        assert parse(f"-- {typed}", None).blocks == (Block(typed),)


def test_the_whole_body_is_one_prompt_with_its_inner_lines():
    assert prompts("", "\n  a cat\n\n   on a mat  \n\n") == ["a cat\n\n   on a mat"]


def test_three_dashes_start_the_next_prompt_with_options_of_its_own():
    spec = parse("-n 2", "a\n--- -m qwen-image --ar 4:3 -o portrait.jpg # note\nb\n---\nc")
    assert [block.text for block in spec.blocks] == ["a", "b", "c"]
    assert spec.options == {"n": 2}
    assert spec.blocks[1].options == {
        "model": ("qwen-image",),
        "ar": "4:3",
        "output": "portrait.jpg",
    }
    assert [block.line for block in spec.blocks] == [1, 3, 5]


def test_a_cell_may_begin_with_options_of_the_first_prompt():
    assert parse("", "\n--- --seed 1\na").blocks == (Block("a", {"seed": 1}),)


@pytest.mark.parametrize("text", ["---foo", "-----", "a ---", "x\n  ---\ny", "--\u00a0-"])
def test_dashes_with_anything_else_are_text(text):
    assert prompts("", text) == [text]


@pytest.mark.parametrize(
    ("typed", "text"),
    [("\\---", "---"), ("\\--- -n 2", "--- -n 2"), ("\\\\---", "\\---"), ("\\---a", "\\---a")],
)
def test_a_backslash_makes_a_separator_text(typed, text):
    assert prompts("", f"x\n{typed}\ny") == [f"x\n{text}\ny"]


def test_parts_without_anything_in_them_are_skipped():
    assert prompts("", "---\n\n---\na\n---\n---  \nb\n---") == ["a", "b"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_kind_of_line_end_is_one(end):
    assert prompts("", end.join(["a", "b", "---", "c", ""])) == ["a\nb", "c"]


def test_with_lines_every_line_is_a_prompt_and_nothing_is_special():
    spec = parse("--lines", "a\n\n  b \n---\n# c\n\\---")
    assert [block.text for block in spec.blocks] == ["a", "b", "---", "# c", "\\---"]
    assert [(block.line, block.column) for block in spec.blocks][1] == (3, 3)


def test_options_of_the_line_are_split_by_what_they_hold_for():
    spec = parse("-v r --size 64x64 -c 2 -m a,b", "x")
    assert spec.call == {"var": "r", "concurrency": 2}
    assert spec.options == {"size": Size(64, 64), "model": ("a", "b")}


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("a.png 'b c.png' \"d e.png\" f\\ g.png", ("a.png", "b c.png", "d e.png", "f g.png")),
        (r"C:\pics\new.png", (r"C:\pics\new.png",)),
        (r"a\\b.png \"q\".png", (r"a\b.png", '"q".png')),
        ('"a \\"b\\" c"', ('a "b" c',)),
        ("https://x.y/a.png#top # a comment", ("https://x.y/a.png#top",)),
        ("-- -a.png", ("-a.png",)),
        ("''", ("",)),
    ],
)
def test_images_are_words_as_in_a_shell(typed, words):
    assert parse(typed, "night", magic="imgedit").images == words


@pytest.mark.parametrize(
    ("typed", "prompt", "options"),
    [
        ("a red house at night", "a red house at night", {}),
        ("-n 2 a dog's   house", "a dog's   house", {"n": 2}),
        ("a cat -n 2 --ar 1:1", "a cat", {"n": 2, "ar": "1:1"}),
        ("a cat -n2", "a cat", {"n": 2}),
        ("a cat -n 2 on a mat", "a cat on a mat", {"n": 2}),
        ("--negative 'a dog' a cat", "a cat", {"negative": "a dog"}),
        ('"a cat -n 2"', "a cat -n 2", {}),
        ("'a cat'  # first try", "a cat", {}),
        ('a sign that says "open"', 'a sign that says "open"', {}),
        ("a #1 mug", "a #1 mug", {}),
        ("it is -5 outside, -shaped - well", "it is -5 outside, -shaped - well", {}),
        ("-- -n is a letter --x", "-n is a letter --x", {}),
        ("{name} {a|b}", "{name} {a|b}", {}),
    ],
)
def test_the_prompt_of_a_line_magic_stays_as_it_was_typed(typed, prompt, options):
    spec = parse(typed, None)
    assert spec.options == options
    assert [block.text for block in spec.blocks] == [prompt]


def test_help_needs_no_prompt_and_no_image():
    assert parse("--help", None).call == {"help": True}
    assert parse("-h", "", magic="imgedit").blocks == ()


@pytest.mark.parametrize(
    ("line", "body", "place", "message"),
    [
        ("-n 2 'abc", "x", (0, 6), "the quote ' is not closed."),
        ('--negative a"b', "x", (0, 13), 'the quote " is not closed.'),
        ("", "a\n--- -o 'b\nc", (2, 8), "the quote ' is not closed."),
        ("", "a\n--- b", (2, 5), "'b' is not an option."),
        ("", "a\n--- -n 2\n\n---\nb", (2, 1), "no prompt follows these options."),
        ("", "--- -n 2", (1, 1), "no prompt follows these options."),
        ("a cat", "x", (0, 1), "'a' is not an option."),
        ("-n 2 a cat", "", (0, 6), "'a' is not an option."),
        ("", " \n\t\n", (1, 1), "there is no prompt."),
        ("--lines", "\n", (1, 1), "there is no prompt."),
        ("-n 2", None, (0, 1), "there is no prompt."),
        ("''", None, (0, 1), "there is no prompt."),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(line, body, place, message):
    with pytest.raises(CellSyntaxError) as caught:
        parse(line, body)
    assert (caught.value.line, caught.value.column) == place
    assert caught.value.message.endswith(message)
    assert caught.value.hint


def test_an_empty_cell_shows_what_to_write():
    with pytest.raises(CellSyntaxError, match="below the %%imggen line, for example: a red house"):
        parse("", "\n")


def test_an_edit_wants_an_image_and_a_whole_cell():
    with pytest.raises(CellSyntaxError, match=r"%%imgedit photo\.jpg"):
        parse("-n 2", "night", magic="imgedit")
    with pytest.raises(CellSyntaxError, match="works on a whole cell"):
        parse("a.png make it night", None, magic="imgedit")
    assert parse("-i a.png", "night", magic="imgedit").options == {"image": ("a.png",)}


def test_a_bad_option_of_a_prompt_names_its_line():
    with pytest.raises(OptionError, match="line 2: --steps 'x' is not a whole number"):
        parse("", "a\n--- --steps x\nb")
    with pytest.raises(OptionError, match="line 2: n 0 is not"):
        parse("", "a\n--- -n 0\nb")
    with pytest.raises(OptionError, match="line 2: -c holds for the whole cell"):
        parse("", "a\n--- -c 2\nb")
    with pytest.raises(UnknownNameError, match=r"no option '--sise'\. Did you mean --size.*line 2"):
        parse("", "a\n--- --sise 2\nb")


def test_a_prompt_that_looks_like_an_option_says_how_to_write_it():
    with pytest.raises(UnknownNameError, match="goes after --"):
        parse("a cat --like this", None)


def test_a_line_break_in_an_option_is_written_as_a_blank():
    spec = CellSpec(options={"negative": "a\r\nb"}, blocks=(Block("x", {"output": "c\nd"}),))
    line, body = cell.format(spec)
    assert parse(line, body).options == {"negative": "a b"}
    assert parse(line, body).blocks[0].options == {"output": "c d"}


def test_lines_are_given_up_where_a_prompt_has_several():
    spec = CellSpec(call={"lines": True}, blocks=(Block("a\nb"), Block("c", {"n": 2})))
    line, body = cell.format(spec)
    assert parse(line, body) == CellSpec(blocks=spec.blocks)

r"""The text of a cell → a `CellSpec`, and back.

Stage: first of the path. Comes in: the `%%` line and the body, as typed. Goes out: prompts and
options, still unexpanded. Must not: look at a variable, a file or a model.

The grammar:

    cell       = options NEWLINE body           %%imggen, %%imgedit (with IMAGE words on the line)
               | options and prompt             %imggen, all on one line
    body       = text { separator text }
    separator  = "---" [ blank options ]        at the start of a line, alone or with options
    options    = words as in a shell: 'single', "double", \ before a blank, quote, # or \;
                 a word that begins with # starts a comment, a # inside a word is a #

- The whole text between two separators is one prompt. Its inner lines and blank lines stay, blanks
  around it go. A part without text and without options is skipped.
- Options of a separator hold for its prompt alone, before those of the `%%` line.
- `---foo`, `-----` and an indented `---` are text. A line of text that would be a separator is
  written `\---`; one backslash goes.
- `--tasks`: the body is not read here; it is one block, as typed (see `tasks`).
- `--lines`: every line that is not blank is a prompt, and nothing in it is special to this stage.
- On one line the prompt is what is no option, as it was typed, quotes and apostrophes included,
  unless the whole of it is quoted. Options may follow it. `--` makes all that follows prompt;
  a `#` between blanks starts a comment.
- Windows and old Macintosh line ends are line ends.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nbimg.errors import CellSyntaxError, UnknownNameError
from nbimg.text import flags
from nbimg.text import options as table

__all__ = ["Block", "CellSpec", "format", "parse"]

_SEPARATOR = re.compile(r"---(?:[ \t].*)?")
_ESCAPED_SEPARATOR = re.compile(r"\\+---(?:[ \t].*)?")
_PART = re.compile(
    r"""'(?P<single>[^']*)'|"(?P<double>(?:\\.|[^"\\])*)"|\\(?P<escaped>[ \t'"#\\])"""
    r"""|(?P<plain>[^ \t\r\n'"\\]+|\\)""",
    re.DOTALL,
)
_BLANKS = re.compile(r"[ \t\r\n]*")
_QUOTED = re.compile(r"""(?:"(?:\\.|[^"\\])*"|'[^']*')(?![^ \t\r\n])""", re.DOTALL)
_PROMPT_WORD = re.compile(rf"{_QUOTED.pattern}|[^ \t\r\n]+", re.DOTALL)
_OPTION_AHEAD = re.compile(r"--?[^\W\d_]")
_OPTION_BEHIND = re.compile(r"--[^\W\d_]|-[A-Za-z]=?\d+$")  # after words, -shaped is a word


@dataclass(frozen=True)
class Block:
    """A prompt with the options of its `---` line.

    Attributes:
        text: As typed, with braces unexpanded.
        options: Option name → value; only what a `Request` takes.
        line: 1-based line of the body where the text begins; 0 on a line magic.
        column: 1-based column there.
    """

    text: str
    options: Mapping[str, Any] = field(default_factory=dict)
    line: int = field(default=1, compare=False)
    column: int = field(default=1, compare=False)


@dataclass(frozen=True)
class CellSpec:
    """What a cell asks for.

    Attributes:
        magic: `imggen` or `imgedit`.
        call: Options that hold for the whole cell, by name.
        options: Options of the `%%` line that a `Request` takes, by name.
        images: The IMAGE words of `%%imgedit`, as typed.
        blocks: The prompts in order; none with `--help`.
    """

    magic: str = "imggen"
    call: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    images: tuple[str, ...] = ()
    blocks: tuple[Block, ...] = ()


class _Word(NamedTuple):
    text: str
    start: int  # 0-based, in its line
    end: int


def parse(line: str, body: str | None, *, magic: str = "imggen") -> CellSpec:
    r"""Read a cell.

    >>> parse("-n 2", "a cat\n--- --seed 1\na dog").blocks[1]
    Block(text='a dog', options={'seed': 1}, line=3, column=1)

    Args:
        line: What follows the name of the magic on its line.
        body: The lines below it; None for a line magic.
        magic: `imggen` or `imgedit`.

    Raises:
        CellSyntaxError: When the text cannot be read, with the place.
        OptionError: When the value of an option does not fit.
        UnknownNameError: When an option does not exist.
    """
    if body is None:
        words, block = _read_line_form(line, magic)
    else:
        words, block = list(_read_words(line, 0)), None
    try:
        values, rest = flags.parse_words([word.text for word in words], magic=magic)
    except UnknownNameError as error:
        if body is None:
            error.hint = f"{error.hint or ''} A prompt with such words goes after --.".strip()
        raise
    call = {name: value for name, value in values.items() if name in _names("call", magic)}
    options = {name: value for name, value in values.items() if name not in call}
    if "help" in call:
        return CellSpec(magic, call, options)
    images = tuple(words[index].text for index in rest)
    if magic == "imgedit":
        _check_images(line, body, given=bool(images or "image" in options or "tasks" in call))
    elif images:
        raise CellSyntaxError(
            f"{images[0]!r} is not an option.",
            line=0,
            column=words[rest[0]].start + 1,
            hint=f"The prompt goes below the %%{magic} line.",
        )
    if "tasks" in call and (body is not None or block is None):
        body = re.sub(r"\r\n?", "\n", body or "")
        return CellSpec(magic, call, options, images, (Block(body),))
    if body is not None:
        body = re.sub(r"\r\n?", "\n", body)
        blocks = _read_lines(body) if call.get("lines") else _read_blocks(body, magic)
    else:
        blocks = [block] if block else []
    if not blocks:
        raise _empty(body, magic)
    return CellSpec(magic, call, options, images, tuple(blocks))


def format(spec: CellSpec) -> tuple[str, str]:  # noqa: A001 - the way back from `parse`
    """Write a cell: what follows the name of the magic, and the body.

    `parse` reads an equal spec from it. Line breaks in the value of an option become blanks, since
    an option has only its line.

    >>> format(CellSpec(options={"n": 2}, blocks=(Block("a cat"),)))
    ('-n 2', 'a cat')
    """
    plain = all(not block.options and "\n" not in block.text for block in spec.blocks)
    call = {name: value for name, value in spec.call.items() if name != "lines" or plain}
    words = flags.format_words({**spec.options, **call})
    if any(image.startswith("-") for image in spec.images):
        line = _quote([*words, "--", *spec.images])
    else:
        line = _quote([*spec.images, *words])
    if call.get("lines"):
        return line, "\n".join(block.text for block in spec.blocks)
    parts: list[str] = []
    for index, block in enumerate(spec.blocks):
        if index or block.options:
            parts.append(f"--- {_quote(flags.format_words(block.options))}".rstrip())
        parts.extend(map(_escape_separator, block.text.split("\n")))
    return line, "\n".join(parts)


def _names(scope: table.Scope, magic: str) -> set[str]:
    return {row.name for row in table.find_flags(magic, scope).values()}


def _read_words(text: str, number: int, start: int = 0) -> Iterator[_Word]:
    """Split as a POSIX shell does, up to a comment."""
    start = _skip_blanks(text, start)
    while start < len(text) and text[start] != "#":
        word = _read_word(text, start, number)
        yield word
        start = _skip_blanks(text, word.end)


def _skip_blanks(text: str, start: int) -> int:
    blanks = _BLANKS.match(text, start)
    return blanks.end() if blanks else start


def _read_word(text: str, start: int, number: int) -> _Word:
    parts: list[str] = []
    end = start
    while part := _PART.match(text, end):
        quoted = part["double"]
        parts.append(
            re.sub(r'\\(["\\])', r"\1", quoted) if quoted is not None else part[part.lastgroup or 0]
        )
        end = part.end()
    if text[end : end + 1] in ("'", '"'):
        raise CellSyntaxError(
            f"the quote {text[end]} is not closed.",
            line=number,
            column=end + 1,
            hint=f"Close it, or write \\{text[end]} for the character itself.",
        )
    return _Word("".join(parts), start, end)


def _read_line_form(line: str, magic: str) -> tuple[list[_Word], Block | None]:
    """Split a line magic into the words of its options and its prompt, which stays as typed."""
    known = table.find_flags(magic)
    words: list[_Word] = []
    pieces: list[tuple[int, int]] = []
    literal = in_piece = False
    start = _skip_blanks(line, 0)
    while (match := _PROMPT_WORD.match(line, start)) and match[0] != "#":
        unknown = _OPTION_BEHIND if pieces else _OPTION_AHEAD
        end = match.end()
        if literal or not (match[0] in known or match[0] == "--" or unknown.match(match[0])):
            pieces.append((pieces.pop()[0] if in_piece else start, end))
            in_piece = True
        else:
            in_piece, literal = False, match[0] == "--"
            found = [] if literal else _read_option(line, start, known)
            words.extend(found)
            end = found[-1].end if found else end
        start = _skip_blanks(line, end)
    if not pieces:
        return words, None
    column = pieces[0][0] + 1
    quoted = _QUOTED.fullmatch(line, *pieces[0]) if len(pieces) == 1 else None
    if quoted:
        text, column = _read_word(line, quoted.start(), 0).text, column + 1
    else:
        text = " ".join(line[first:last] for first, last in pieces)
    block = _block(text, {}, 0, column)
    return words, block if block.text else None


def _read_option(line: str, start: int, known: Mapping[str, table.Option]) -> list[_Word]:
    """Read a flag and, where it takes one that is not glued to it, its value."""
    flag = _read_word(line, start, 0)
    option, after = known.get(flag.text), _skip_blanks(line, flag.end)
    if option is None or flag.text in option.sets or after == len(line):
        return [flag]
    return [flag, _read_word(line, after, 0)]


def _read_lines(body: str) -> list[Block]:
    lines = enumerate(body.split("\n"), 1)
    return [_block(line, {}, number, 1) for number, line in lines if line.strip()]


def _read_blocks(body: str, magic: str) -> list[Block]:
    blocks: list[Block] = []
    options: Mapping[str, Any] = {}
    lines = body.split("\n")
    begins = 0  # 0-based line where the part begins
    for index in range(len(lines) + 1):
        if index < len(lines) and not _SEPARATOR.fullmatch(lines[index]):
            continue
        text = "\n".join(map(_unescape_separator, lines[begins:index]))
        block = _block(text, options, begins + 1, 1)
        if block.text:
            blocks.append(block)
        elif options:
            raise CellSyntaxError(
                "no prompt follows these options.",
                line=begins,
                column=1,
                hint="Write the prompt on the lines below ---.",
            )
        if index < len(lines):
            options, begins = _read_separator(lines[index], index + 1, magic), index + 1
    return blocks


def _read_separator(line: str, number: int, magic: str) -> Mapping[str, Any]:
    words = list(_read_words(line, number, start=3))
    options, rest = flags.parse_words(
        [word.text for word in words], magic=magic, scope="request", where=f"line {number}"
    )
    if rest:
        raise CellSyntaxError(
            f"{words[rest[0]].text!r} is not an option.",
            line=number,
            column=words[rest[0]].start + 1,
            hint="The prompt goes on the next line. As a line of text, write \\--- for ---.",
        )
    return options


def _block(text: str, options: Mapping[str, Any], line: int, column: int) -> Block:
    """Drop the blanks around a prompt and remember where it begins."""
    lead = text[: len(text) - len(text.lstrip())]
    if "\n" in lead:
        line, column = line + lead.count("\n"), 1
    return Block(text.strip(), options, line, column + len(lead) - lead.rfind("\n") - 1)


def _unescape_separator(line: str) -> str:
    return line[1:] if _ESCAPED_SEPARATOR.fullmatch(line) else line


def _escape_separator(line: str) -> str:
    escaped = _SEPARATOR.fullmatch(line) or _ESCAPED_SEPARATOR.fullmatch(line)
    return f"\\{line}" if escaped else line


def _quote(words: Iterable[str]) -> str:
    return " ".join(re.sub(r"[\r\n]+", " ", shlex.quote(word)) for word in words)


def _check_images(line: str, body: str | None, given: bool) -> None:
    if body is None:
        raise CellSyntaxError(
            "%imgedit works on a whole cell.",
            line=0,
            column=1,
            hint="Write %%imgedit photo.jpg and the prompt below it.",
        )
    if not given:
        raise CellSyntaxError(
            "there is no image to edit.",
            line=0,
            column=len(line) + 1,
            hint="Write it like %%imgedit photo.jpg.",
        )


def _empty(body: str | None, magic: str) -> CellSyntaxError:
    if body is None:
        place, hint = 0, f"Write it like %{magic} a red house at night."
    else:
        example = "make it night" if magic == "imgedit" else "a red house at night"
        place, hint = 1, f"Write it below the %%{magic} line, for example: {example}"
    return CellSyntaxError("there is no prompt.", line=place, column=1, hint=hint)

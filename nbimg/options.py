"""The one table of options, and everything that is made from it.

Stage: before a cell is read. Comes in: the words of a `%%` line, of a `---` line, or the names of
keyword arguments. Goes out: a dict of values by option name. Also made from the table: the help of
a magic, its completions and the way back from values to words. Must not: know a model, a setting or
a notebook, or import anything heavy (it loads with `%load_ext`).

A new option is a new row of `OPTIONS`; nothing else in this file changes.
"""

from __future__ import annotations

import json
import keyword
import math
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from nbimg.errors import OptionError, UnknownNameError, closest
from nbimg.types import Request, Size, parse_ratio

__all__ = [
    "MAGICS",
    "OPTIONS",
    "Option",
    "find_flags",
    "find_names",
    "format_words",
    "parse_words",
    "render_help",
    "split_keywords",
    "unknown_option",
]

Scope = Literal["request", "call"]
MAGICS = ("imggen", "imgedit")
_FLAG = re.compile(r"--|-[^\W\d_]")  # -5 and - are words, not flags
_INDENT = 31  # characters before the text of a line of help


@dataclass(frozen=True, slots=True)
class Option:
    """A row of the table.

    Attributes:
        name: The keyword argument of the Python API and the key of a task's dict.
        flags: The spellings that take a value, the long one last.
        metavar: What the value looks like, for the help.
        help: One line.
        parse: Text → value. A ValueError says in its message what the text should have been.
        scope: `request`, a field of `Request`, which may follow a `---` line too; or `call`, which
            holds for the whole cell.
        group: Heading in the help.
        default: What holds without the option, in words.
        sets: The spellings that take no value → what they set.
        repeats: Whether the values of several uses are joined (tuples, dicts) or the last one wins.
        format: Value → the texts that `parse` takes, one a use.
        choices: The only texts it takes; empty: any.
        magics: The magics that have it.
        python: Whether the Python API has it as a keyword argument.
    """

    name: str
    flags: tuple[str, ...]
    metavar: str
    help: str
    parse: Callable[[str], Any] = str
    scope: Scope = "request"
    group: str = "Picture"
    default: str = ""
    sets: Mapping[str, Any] = field(default_factory=dict)
    repeats: bool = False
    format: Callable[[Any], tuple[str, ...]] = lambda value: (str(value),)
    choices: tuple[str, ...] = ()
    magics: tuple[str, ...] = MAGICS
    python: bool = True


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("a whole number") from None


def _count(text: str) -> int:
    if (number := _whole(text)) < 1:
        raise ValueError("a whole number from 1")
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("a number") from None


def _seconds(text: str) -> float:
    if not 0 < (number := _number(text)) < math.inf:
        raise ValueError("a number of seconds above 0")
    return number


def _ratio(text: str) -> str:
    return "{}:{}".format(*parse_ratio(text))


def _identifier(text: str) -> str:
    if not text.isidentifier() or keyword.iskeyword(text):
        raise ValueError("a name for a variable")
    return text


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if "" in names:
        raise ValueError("a name, or several with commas between them")
    return names


def _param(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ValueError("KEY=VALUE")
    return {key.strip(): _json_or_text(value)}


def _json_or_text(text: str) -> Any:
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)  # NaN and 1e999 are read, but no provider takes them
    except (ValueError, RecursionError):
        return text
    return value


def _format_params(params: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(
        f"{key}={value}"
        if isinstance(value, str) and _json_or_text(value) == value
        else f"{key}={json.dumps(value, ensure_ascii=False)}"
        for key, value in params.items()
    )


def _as_tuple(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list | tuple) else (str(value),)


_TEXT, _RUN, _RESULT, _OTHER = "Text", "Running", "Result", "Other"
_YES: dict[str, Any] = {"scope": "call", "flags": (), "metavar": ""}

OPTIONS: tuple[Option, ...] = (
    Option("model", ("-m", "--model"), "NAME[,NAME]", "model; several make a column each", _names,
           default="the best one at hand", repeats=True,
           format=lambda value: (",".join(_as_tuple(value)),)),
    Option("n", ("-n", "--n"), "N", "how many images a prompt", _whole, default="1"),
    Option("size", ("--size",), "WxH", "width and height in pixels", Size.parse),
    Option("ar", ("--ar",), "W:H", "aspect ratio; with --size, the size wins", _ratio),
    Option("seed", ("--seed",), "N", "image k of a prompt uses N + k", _whole, default="drawn"),
    Option("negative", ("--negative",), "TEXT", "what should not be there; takes {name} too"),
    Option("steps", ("--steps",), "N", "denoising steps", _whole),
    Option("guidance", ("--guidance",), "X", "how closely the prompt is followed", _number),
    Option("strength", ("--strength",), "X", "for edits: 0 keeps, 1 makes anew", _number),
    Option("image", ("-i", "--image"), "IMAGE", "an image to start from or refer to; repeatable",
           lambda text: (text,), repeats=True, format=_as_tuple),
    Option("mask", ("--mask",), "IMAGE", "where to edit: white is changed"),
    Option("params", ("-p", "--param"), "KEY=VALUE", "passed to the model as it is; repeatable",
           _param, repeats=True, format=_format_params),
    Option("lines", help="every line is a prompt of its own", sets={"--lines": True}, group=_TEXT,
           python=False, **_YES),
    Option("mode", help="edit each image by itself, or combine all into one picture", group=_TEXT,
           sets={"--each": "each", "--combine": "combine"}, default="--each", magics=("imgedit",),
           **_YES),
    Option("output", ("-o", "--output"), "TEMPLATE",
           "file name, with {index} {prompt} {model} {seed}; its extension is the format",
           group=_RESULT),
    Option("var", ("-v", "--var"), "NAME", "variable for the result", _identifier, "call", _RESULT,
           "_img holds the last", python=False),
    Option("columns", ("--columns",), "N", "columns of the grid", _count, "call", _RESULT),
    Option("display", ("--display",), "grid|live|none", "what is shown",
           scope="call", group=_RESULT, choices=("grid", "live", "none")),
    Option("url_only", help="give the provider's addresses, download nothing", group=_RESULT,
           sets={"--url-only": True}, **_YES),
    Option("dry_run", help="show what would be sent and its price; send nothing", group=_RUN,
           sets={"--dry-run": True}, **_YES),
    Option("concurrency", ("-c", "--concurrency"), "N", "requests at a time", _count, "call", _RUN,
           "the provider's limit"),
    Option("retries", ("--retries",), "N", "attempts a stage at most", _count, "call", _RUN, "3"),
    Option("timeout", ("--timeout",), "SECONDS", "for a whole task", _seconds, "call", _RUN),
    Option("strict", help="any failed task fails the cell", sets={"--strict": True}, group=_RUN,
           default="only when all fail", **_YES),
    Option("debug", help="show the traceback of an error", sets={"--debug": True}, group=_OTHER,
           **_YES),
    Option("help", help="show this text", sets={"-h": True, "--help": True}, group=_OTHER,
           python=False, **_YES),
)  # fmt: skip

_HEADS = {
    "imggen": (
        ("%%imggen [options]", "make images from the text of the cell"),
        ("%imggen [options] PROMPT", "the same on one line; its value is the result"),
    ),
    "imgedit": (("%%imgedit IMAGE… [options]", "edit images with the text of the cell"),),
}
_GRAMMAR = (
    ("---", "alone on a line starts the next prompt; options may follow it and hold for it alone"),
    ("{name}", "a variable of the notebook; one prompt for each item if it holds a list"),
    ("{a|b|c}", "one prompt for each; with a second list or -m a,b the result is a grid"),
    ("{{ }}", "literal braces"),
)
_EXAMPLES = {
    "imggen": (
        "%%imggen -n 4 --ar 16:9 -v houses\na red house at night",
        "%%imggen -m flux-dev,qwen-image --seed 7\na {red|blue} house, {style}",
        "r = %imggen -n 2 a red house at night",
    ),
    "imgedit": (
        "%%imgedit photo.jpg -n 2\nmake it night",
        "%%imgedit 'holiday/*.jpg' -o 'night-{index}.jpg'\nmake it night",
        "%%imgedit cat.png hat.png --combine\nthe cat wears the hat",
    ),
}


def find_flags(magic: str = "imggen", scope: Scope | None = None) -> dict[str, Option]:
    """Return flag → row for a magic, in the order of the table: what Tab completes.

    Args:
        magic: `imggen` or `imgedit`.
        scope: Only these; `request` for a `---` line.
    """
    return {
        flag: option
        for option in OPTIONS
        if magic in option.magics and scope in (None, option.scope)
        for flag in (*option.flags, *option.sets)
    }


def find_names(scope: Scope | None = None) -> tuple[str, ...]:
    """Return the keyword arguments of the Python API, in the order of the table."""
    return tuple(row.name for row in OPTIONS if row.python and scope in (None, row.scope))


def unknown_option(name: str) -> UnknownNameError:
    """Return the error for a keyword argument that is in no row, with the nearest name."""
    return UnknownNameError("option", name, known=find_names())


def split_keywords(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split keyword arguments into those of a request and those of the call.

    >>> split_keywords({"n": 2, "retries": 1})
    ({'n': 2}, {'retries': 1})

    Raises:
        UnknownNameError: When a name is in no row.
    """
    request, call = find_names("request"), find_names("call")
    for name in given:
        if name not in request and name not in call:
            raise unknown_option(name)
    return (
        {name: value for name, value in given.items() if name in request},
        {name: value for name, value in given.items() if name in call},
    )


def parse_words(
    words: Sequence[str], *, magic: str = "imggen", scope: Scope | None = None, where: str = ""
) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Read options out of words that are already unquoted.

    `--size 10x10`, `--size=10x10`, `-n 4`, `-n4`; after `--` nothing is an option. A value may
    begin with `-` (`--guidance -1`) unless it is itself a flag. There are no abbreviations.

    >>> parse_words(["-n", "2", "cat.png", "-m", "a,b"])
    ({'n': 2, 'model': ('a', 'b')}, (2,))

    Args:
        words: As a shell would pass them.
        magic: Whose options.
        scope: `request` refuses the options that hold for the whole cell.
        where: Put before each message, for example `line 3`.

    Returns:
        The values by option name, and the 0-based places of the words that are no options.

    Raises:
        OptionError: When a value does not fit, is missing or is one too many.
        UnknownNameError: When a flag does not exist; it names the nearest.
    """
    known = find_flags(magic)
    values: dict[str, Any] = {}
    rest: list[int] = []
    queue = iter(range(len(words)))
    try:
        for index in queue:
            if words[index] == "--":
                rest.extend(queue)
            elif not _FLAG.match(words[index]):
                rest.append(index)
            else:
                flag, text = _split_flag(words[index], known, magic, where)
                option = known[flag]
                _check_scope(option, flag, scope, magic)
                if text is None and flag in option.flags:
                    text = _next_text(words, next(queue, None), flag, known)
                _add(values, option, _value(option, flag, text))
        fields = {name: values[name] for name in find_names("request") if name in values}
        Request("", **{**fields, "model": None})  # its ranges, while the line is still known
    except OptionError as error:
        if not where:
            raise
        message = f"{where}: {error.message}"
        raise OptionError(message, allowed=error.allowed, hint=error.hint) from None
    return values, tuple(rest)


def _split_flag(
    word: str, known: Mapping[str, Option], magic: str, where: str
) -> tuple[str, str | None]:
    """Split `--size=1x1`, `-n4` or `-n=4` into a known flag and the text that is glued to it."""
    if word in known:
        return word, None
    flag, equals, text = word.partition("=")
    if flag in known and equals:
        return flag, text
    # -model is a slip of --model, not -m with the value "odel"
    if word[:2] in known and not word.startswith("--") and f"-{flag}" not in known:
        return word[:2], word[2:]
    place = f"It stands in {where}." if where else None
    near = f"%{magic} --help lists them." if not closest(flag, known) else None
    hint = " ".join(part for part in (place, near) if part)
    raise UnknownNameError("option", flag, known=known, hint=hint or None)


def _check_scope(option: Option, flag: str, scope: Scope | None, magic: str) -> None:
    if scope not in (None, option.scope):
        hint = f"Put it on the %%{magic} line."
        raise OptionError(f"{flag} holds for the whole cell.", hint=hint)


def _next_text(
    words: Sequence[str], index: int | None, flag: str, known: Mapping[str, Option]
) -> str:
    if index is None or words[index] == "--" or words[index].partition("=")[0] in known:
        usage = f"{flag} {known[flag].metavar}"
        raise OptionError(f"{flag} needs a value.", hint=f"Write it like {usage}.")
    return words[index]


def _value(option: Option, flag: str, text: str | None) -> Any:
    if text is None:
        return option.sets[flag]
    if flag in option.sets:
        raise OptionError(f"{flag} takes no value, so not {text!r}.")
    if option.choices and text not in option.choices:
        near = closest(text, option.choices)
        raise OptionError(
            f"{flag} {text!r} is not one of {', '.join(option.choices)}.",
            allowed=option.choices,
            hint=f"Did you mean {near[0]}?" if near else None,
        )
    try:
        return option.parse(text)
    except ValueError as error:
        raise OptionError(f"{flag} {text!r} is not {error}.") from None


def _add(values: dict[str, Any], option: Option, value: Any) -> None:
    if option.repeats and option.name in values:
        before = values[option.name]
        value = {**before, **value} if isinstance(value, dict) else before + value
    values[option.name] = value


def format_words(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Write values as the words from which `parse_words` reads them again.

    >>> format_words({"n": 2, "model": ("a", "b"), "strict": True})
    ('-n', '2', '-m', 'a,b', '--strict')

    Raises:
        UnknownNameError: When a name is in no row.
    """
    return tuple(word for name, value in values.items() for word in _words(name, value))


def _words(name: str, value: Any) -> Iterator[str]:
    option = next((row for row in OPTIONS if row.name == name), None)
    if option is None:
        raise unknown_option(name)
    for flag, constant in option.sets.items():
        if value == constant:
            yield flag
            return
    for text in option.format(value) if option.flags else ():
        if text.startswith("-"):
            yield f"{option.flags[-1]}={text}"  # else it could be taken for a flag
        else:
            yield from (option.flags[0], text)


def render_help(magic: str = "imggen") -> str:
    """Return the help of a magic: what `--help` prints and what stands as its docstring."""
    heads = "\n".join(f"{usage:<{_INDENT - 2}}  {text}" for usage, text in _HEADS[magic])
    parts = [heads, _section("The text of the cell", _GRAMMAR)]
    rows = [row for row in OPTIONS if magic in row.magics]
    for group in dict.fromkeys(row.group for row in rows):
        parts.append(_section(group, [_help_row(row) for row in rows if row.group == group]))
    examples = "\n\n".join(_EXAMPLES[magic])
    return "\n\n".join([*parts, "Examples\n" + textwrap.indent(examples, "  ")]) + "\n"


def _help_row(option: Option) -> tuple[str, str]:
    usage = ", ".join((*option.flags, *option.sets))
    default = f" [{option.default}]" if option.default else ""
    return f"{usage} {option.metavar}".rstrip(), option.help + default


def _section(title: str, rows: Sequence[tuple[str, str]]) -> str:
    lines = [title]
    for usage, text in rows:
        first, *more = textwrap.wrap(text, 88 - _INDENT)
        lines.append(f"  {usage:<{_INDENT - 4}}  {first}")
        lines.extend(" " * _INDENT + line for line in more)
    return "\n".join(lines)

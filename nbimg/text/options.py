"""The one table of options.

Stage: before a cell is read. Comes in: the names of flags or of keyword arguments. Goes out: their
rows. Made from it elsewhere: `flags` reads and writes words, `usage` writes the help, the front end
completes. Must not: know a model, a setting or a notebook.

A new option is a new row of `OPTIONS`; nothing else in this file changes.
"""

from __future__ import annotations

import contextlib
import json
import keyword
import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nbimg.errors import OptionError, UnknownNameError
from nbimg.types import Size, parse_ratio

__all__ = [
    "MAGICS",
    "OPTIONS",
    "Option",
    "find_flags",
    "find_names",
    "split_keywords",
    "unknown_option",
]

Scope = Literal["request", "call"]
MAGICS = ("imggen", "imgedit")


@dataclass(frozen=True, slots=True)
class Option:
    """A row of the table.

    Attributes:
        name: The keyword argument of the Python API and the key of a task's dict.
        flags: The spellings that take a value, the long one last.
        metavar: What the value looks like, for the help.
        help: One line.
        parse: Text → value. A ValueError says in its message what the text should have been.
        check: What the Python API is given → value, with errors like those of `parse`; None: any. Those of
            a request are read where it is built, by `kinds`.
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
        bare: The text that stands for a value that is not given; None: a value is needed.
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
    bare: str | None = None
    check: Callable[[Any], Any] | None = None


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("a whole number") from None


def _count(text: str) -> int:
    with contextlib.suppress(ValueError):
        if (number := int(text)) >= 1:
            return number
    raise ValueError("a whole number from 1")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("a number") from None


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (number := float(text)) < math.inf:
            return number
    raise ValueError("a number of seconds above 0")


def _dollars(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= (number := float(text.removeprefix("$"))) < math.inf:
            return number
    raise ValueError("a number of US dollars")


def _count_given(value: Any) -> int:
    return _count(str(value))


def _seconds_given(value: Any) -> float:
    return _seconds(str(value))


def _dollars_given(value: Any) -> float:
    return _dollars(str(value))


def _truth_given(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("True or False")  # noqa: TRY004  # as those of `parse`
    return value


def _names_given(value: Any) -> tuple[str, ...]:
    names = _names(value) if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError("a model's name or a list of them")
    return tuple(names)


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
    Option("model", ("-m", "--model"), "NAME[,NAME]", "model, see %imgmodels; several: a column each", _names,
           default="the best one at hand", repeats=True,
           format=lambda value: (",".join(_as_tuple(value)),)),
    Option("n", ("-n", "--n"), "N", "how many images a prompt", _whole, default="1"),
    Option("size", ("--size",), "WxH", "width and height in pixels", Size.parse),
    Option("ar", ("--ar",), "W:H", "aspect ratio; with --size, the size wins", _ratio),
    Option("seed", ("--seed",), "N", "makes it repeatable; the second image of a prompt uses N+1",
           _whole, default="drawn"),
    Option("negative", ("--negative",), "TEXT", "what should not be there; takes {name} too"),
    Option("steps", ("--steps",), "N", "denoising steps", _whole),
    Option("guidance", ("--guidance",), "X", "how closely the prompt is followed", _number),
    Option("strength", ("--strength",), "X", "for edits: 0 keeps the image, 1 makes it anew", _number),
    Option("image", ("-i", "--image"), "IMAGE", "an image to start from or refer to; repeatable",
           lambda text: (text,), repeats=True, format=_as_tuple),
    Option("mask", ("--mask",), "IMAGE", "where to edit: white is changed"),
    Option("lora", ("--lora",), "SOURCE[:WEIGHT]",
           "an adapter of a local model: a file, folder or id; repeatable",
           lambda text: (text,), repeats=True, format=_as_tuple),
    Option("scheduler", ("--scheduler",), "NAME",
           "the sampler: euler, euler-a, dpm++, unipc, ddim, lcm …"),
    Option("params", ("-p", "--param"), "KEY=VALUE", "a parameter by the model's own name; repeatable",
           _param, repeats=True, format=_format_params),
    Option("lines", help="every line is a prompt of its own", sets={"--lines": True}, group=_TEXT,
           python=False, **_YES),
    Option("tasks", ("--tasks",), "[NAME]",
           "a list of tasks: a file (JSON, YAML, CSV) or a variable (list, DataFrame); alone: the "
           "cell is the list, as JSON, JSON lines or YAML",
           scope="call", group=_TEXT, python=False, bare="-"),
    Option("mode", help="edit each image by itself, or combine all into one picture", group=_TEXT,
           sets={"--each": "each", "--combine": "combine"}, default="--each", magics=("imgedit",),
           **_YES),
    Option("output", ("-o", "--output"), "TEMPLATE",
           "file name, with {index} {prompt} {model} {seed}; its extension is the format",
           group=_RESULT),
    Option("var", ("-v", "--var"), "NAME", "keep the result in this variable", _identifier, "call", _RESULT,
           "_img always holds the last", python=False),
    Option("columns", ("--columns",), "N", "columns of the grid", _count, "call", _RESULT,
           check=_count_given),
    Option("display", ("--display",), "grid|live|none", "only the grid, progress before it, or nothing",
           scope="call", group=_RESULT, choices=("grid", "live", "none"), default="live"),
    Option("url_only", help="give the provider's addresses, download nothing", group=_RESULT,
           sets={"--url-only": True}, check=_truth_given, **_YES),
    Option("background", help="run beside the next cells; the grid comes when it is done. See %imgjobs",
           sets={"-b": True, "--background": True}, group=_RUN, python=False, **_YES),
    Option("cache", help="show what was made before, at no cost; or make it anew in any case",
           sets={"--cache": True, "--no-cache": False}, group=_RUN, check=_truth_given,
           default="with a seed it is shown; without, on the cell's first run in a kernel", **_YES),
    Option("budget", ("--budget",), "USD", "send nothing if it would cost more, or a price is unknown", _dollars, "call", _RUN,
           check=_dollars_given),
    Option("fallback", ("--fallback",), "NAME[,NAME]", "models to try in turn when one fails; or none",
           _names, "call", _RUN, "the rules of NbImg.fallbacks and the shipped ones", {"--no-fallback": ()},
           format=lambda value: (",".join(_as_tuple(value)),), check=_names_given),
    Option("dry_run", help="show what would be sent, its price and how long it takes; send nothing", group=_RUN,
           sets={"--dry-run": True}, **_YES),
    Option("concurrency", ("-c", "--concurrency"), "N", "so many at a time", _count, "call", _RUN,
           "the provider's limit", check=_count_given),
    Option("semaphore", ("--semaphore",), "NAME", "wait for this one as well, see nbimg.register_semaphore",
           scope="call", group=_RUN),
    Option("retries", ("--retries",), "N", "tries of each step at most: create, wait, download", _count, "call", _RUN, "3",
           check=_count_given),
    Option("timeout", ("--timeout",), "SECONDS", "the longest that a whole task may take", _seconds, "call", _RUN,
           check=_seconds_given),
    Option("credentials", help="a provider's key for this call alone: {provider: key}", group=_RUN,
           magics=(), **_YES),
    Option("strict", help="any failed task fails the cell", sets={"--strict": True}, group=_RUN,
           default="only when all fail", **_YES),
    Option("debug", help="show the traceback of an error", sets={"--debug": True}, group=_OTHER,
           **_YES),
    Option("help", help="show this text", sets={"-h": True, "--help": True}, group=_OTHER,
           python=False, **_YES),
)  # fmt: skip


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
    """Split keyword arguments into those of a request and those of the call, which are read.

    >>> split_keywords({"n": 2, "retries": "1"})
    ({'n': 2}, {'retries': 1})

    Raises:
        UnknownNameError: When a name is in no row.
        OptionError: When a value of the call means nothing.
    """
    rows = {row.name: row for row in OPTIONS if row.python}
    request: dict[str, Any] = {}
    call: dict[str, Any] = {}
    for name, value in given.items():
        if name not in rows:
            raise unknown_option(name)
        if rows[name].scope == "request":
            request[name] = value
        else:
            call[name] = _checked(rows[name], value)
    return request, call


def _checked(option: Option, value: Any) -> Any:
    if value is None or option.check is None:
        return value
    try:
        return option.check(value)
    except ValueError as error:
        shown = " ".join(reprlib.repr(value).split())  # that of an array has several lines
        raise OptionError(f"{option.name} {shown} is not {error}.") from None

"""Options as words on a line: read them, and write them again.

Stage: before a cell is read. Comes in: the words of a `%%` line or of a `---` line. Goes out: a dict of
values by option name; and back. What there is to read is data in `options`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nbimg.errors import OptionError, UnknownNameError, closest
from nbimg.text.options import OPTIONS, Option, Scope, find_flags, find_names, unknown_option
from nbimg.types import Request

__all__ = ["format_words", "parse_words"]

_FLAG = re.compile(r"--|-[^\W\d_]")  # -5 and - are words, not flags


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
                    if option.bare is not None and _ends(words, index + 1, known):
                        text = option.bare
                    else:
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


def _ends(words: Sequence[str], index: int, known: Mapping[str, Option]) -> bool:
    """Whether no value can stand at that place."""
    return index >= len(words) or words[index] == "--" or words[index].partition("=")[0] in known


def _next_text(
    words: Sequence[str], index: int | None, flag: str, known: Mapping[str, Option]
) -> str:
    if index is None or _ends(words, index, known):
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

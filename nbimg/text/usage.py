"""The help of a magic, from the table of options.

Stage: the front end. Comes in: the name of a magic. Goes out: what `--help` prints and what stands as its
docstring.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from nbimg.text.options import OPTIONS, Option

__all__ = ["render_help"]

_INDENT = 31  # characters before the text of a line of help

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
        "%%imggen --tasks prompts.csv -b --budget 5 -v results",
        "r = %imggen -n 2 a red house at night",
    ),
    "imgedit": (
        "%%imgedit photo.jpg -n 2\nmake it night",
        "%%imgedit 'holiday/*.jpg' -o 'night-{index}.jpg'\nmake it night",
        "%%imgedit cat.png hat.png --combine\nthe cat wears the hat",
    ),
}


def render_help(magic: str = "imggen") -> str:
    """Return the help of a magic: what `--help` prints and what stands as its docstring."""
    heads = "\n".join(f"{usage:<{_INDENT - 2}}  {text}" for usage, text in _HEADS[magic])
    parts = [heads, _section("The text of the cell", _GRAMMAR)]
    rows = [row for row in OPTIONS if magic in row.magics]
    parts.extend(
        _section(group, [_help_row(row) for row in rows if row.group == group])
        for group in dict.fromkeys(row.group for row in rows)
    )
    parts.append("In brackets: what holds without the option. %config NbImg shows the settings.")
    examples = "\n\n".join(_EXAMPLES[magic])
    return "\n\n".join([*parts, "Examples\n" + textwrap.indent(examples, "  ")]) + "\n"


def _help_row(option: Option) -> tuple[str, str]:
    valued = f"{', '.join(option.flags)} {option.metavar}" if option.flags else ""
    usage = ", ".join(filter(None, (valued, *option.sets)))
    default = f" [{option.default}]" if option.default else ""
    return usage, option.help + default


def _section(title: str, rows: Sequence[tuple[str, str]]) -> str:
    lines = [title]
    for usage, text in rows:
        first, *more = textwrap.wrap(text, 88 - _INDENT)
        if len(usage) > _INDENT - 4:  # the text begins on a line of its own
            lines.append(f"  {usage}")
            usage = ""  # noqa: PLW2901
        lines.append(f"  {usage:<{_INDENT - 4}}  {first}")
        lines.extend(" " * _INDENT + line for line in more)
    return "\n".join(lines)

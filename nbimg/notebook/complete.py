"""Tab in the first line of our cells: options, models, choices.

Stage: the front end. Comes in: IPython's completion context. Goes out: the words that fit, and nothing
else. Must not: ask a network; models come from the catalogue.
"""

from __future__ import annotations

import re
from typing import Any

from IPython.core.completer import CompletionContext, SimpleCompletion, context_matcher

from nbimg import catalog
from nbimg.options import MAGICS, find_flags

__all__ = ["option_matcher"]

_LINE = re.compile(rf"\s*(?:\w+\s*=\s*)?%%?(?P<magic>{'|'.join(MAGICS)})\s(?P<rest>.*)", re.DOTALL)


@context_matcher()  # type: ignore[untyped-decorator]
def option_matcher(context: CompletionContext) -> dict[str, Any]:
    """Complete the options of `%%imggen` and `%%imgedit`."""
    lines = context.full_text.splitlines() or [""]
    line = lines[min(context.cursor_line, len(lines) - 1)][: context.cursor_position]
    match = _LINE.fullmatch(line)
    if match is None:
        return {"completions": []}
    words = match["rest"].split()
    typing = "" if match["rest"].endswith((" ", "\t")) or not words else words.pop()
    found = _candidates(match["magic"], words[-1] if words else "", typing)
    return {
        "completions": [SimpleCompletion(word, type="option") for word in found],
        "suppress": bool(found),
        "matched_fragment": typing,
    }


def _candidates(magic: str, before: str, typing: str) -> list[str]:
    flags = find_flags(magic)
    option = flags.get(before)
    if option is not None and before in option.flags:
        if option.name == "model":
            head, comma, last = typing.rpartition(",")
            return [head + comma + name for name in catalog.entries() if name.startswith(last)]
        return [choice for choice in option.choices if choice.startswith(typing)]
    if not typing.startswith("-"):
        return []
    return [flag for flag in flags if flag.startswith(typing)]

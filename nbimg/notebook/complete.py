"""Tab in our cells: options, models, choices, ids of jobs.

Stage: the front end. Comes in: IPython's completion context. Goes out: the words that fit, and nothing
else. Must not: ask a network; models come from the catalogue.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any

from IPython.core.completer import CompletionContext, SimpleCompletion, context_matcher

from nbimg.credentials.given import PROVIDER_KEYS
from nbimg.planning import catalog
from nbimg.text.options import MAGICS, Option, Scope, find_flags

__all__ = ["option_matcher"]

_NAMES = "|".join(MAGICS)
_LINE = re.compile(rf"\s*(?:[\w.]+\s*=\s*)?%%?(?P<magic>{_NAMES})\s(?P<rest>.*)", re.DOTALL)
_CELL = re.compile(rf"%%(?P<magic>{_NAMES})\b")
_JOBS = re.compile(r"\s*(?:[\w.]+\s*=\s*)?%img(?P<magic>cancel|resume)\s(?P<rest>.*)", re.DOTALL)
_JOB_WORDS = {"cancel": ("all",), "resume": ("--remaining", "--var")}
_SETUP = re.compile(r"\s*%imgsetup\s(?P<rest>.*)", re.DOTALL)
_SETUP_WORDS = ("--session", "--keyring", "--env", "--forget")
_GALLERY = re.compile(r"\s*(?:[\w.]+\s*=\s*)?%imggallery\s(?P<rest>.*)", re.DOTALL)
_GALLERY_WORDS = (
    *("date:today", "date:7d", "is:edit", "is:starred", "is:trashed", "is:video", "size:square"),
    *("size:tall", "size:wide", "sort:oldest", "status:failed", "status:refused"),
)
_SEPARATOR = re.compile(r"---\s(?P<rest>.*)", re.DOTALL)


@context_matcher()
def option_matcher(context: CompletionContext) -> dict[str, Any]:
    """Complete the options of `%%imggen` and `%%imgedit`, and those of a `---` line."""
    lines = context.full_text.splitlines() or [""]
    line = lines[min(context.cursor_line, len(lines) - 1)][: context.cursor_position]
    scope: Scope | None = None
    cell, match = _CELL.match(lines[0]), _LINE.fullmatch(line)
    magic = match["magic"] if match else ""
    if cell and context.cursor_line:
        magic, match, scope = cell["magic"], _SEPARATOR.fullmatch(line), "request"
    if match is None and (asked := _SETUP.fullmatch(line)):
        typing = asked["rest"].rpartition(" ")[2]
        return _offered((*PROVIDER_KEYS, *_SETUP_WORDS), typing, "key")
    if match is None and (asked := _GALLERY.fullmatch(line)):
        models = (f"model:{name}" for name in catalog.entries())
        return _offered((*_GALLERY_WORDS, *models), asked["rest"].rpartition(" ")[2], "filter")
    if match is None:
        return _jobs(_JOBS.fullmatch(line))
    words = match["rest"].split()
    typing = "" if match["rest"].endswith((" ", "\t")) or not words else words.pop()
    found = _candidates(find_flags(magic, scope), words[-1] if words else "", typing)
    return {
        "completions": [SimpleCompletion(word, type="option") for word in found],
        "suppress": bool(found),
        "matched_fragment": typing,
    }


def _jobs(match: re.Match[str] | None) -> dict[str, Any]:
    """Complete the id of a job: of those that run, or those that have ended, for the one or the other."""
    if match is None:
        return {"completions": []}
    typing = match["rest"].rpartition(" ")[2]
    module = sys.modules.get("nbimg.session")  # before the first cell there are no jobs
    jobs = reversed(module.default().jobs()) if module is not None else ()
    ids = [job.id for job in jobs if job.done == (match["magic"] == "resume")]
    return _offered((*ids, *_JOB_WORDS[match["magic"]]), typing, "job")


def _offered(words: Iterable[str], typing: str, kind: str) -> dict[str, Any]:
    found = [word for word in words if word.startswith(typing)]
    return {
        "completions": [SimpleCompletion(word, type=kind) for word in found],
        "suppress": bool(found),
        "matched_fragment": typing,
    }


def _candidates(flags: dict[str, Option], before: str, typing: str) -> list[str]:
    option = flags.get(before)
    if option is not None and before in option.flags:
        return _values(option, typing)
    flag, equals, value = typing.partition("=")
    if equals and flag in flags:
        return [f"{flag}={word}" for word in _values(flags[flag], value)]
    if typing and not typing.startswith("-"):
        return []  # the beginning of a file name, or of the prompt of a line magic
    return [flag for flag in flags if flag.startswith(typing or "--")]


def _values(option: Option, typing: str) -> list[str]:
    if option.name == "model":
        head, comma, last = typing.rpartition(",")
        return [head + comma + name for name in catalog.entries() if name.startswith(last)]
    return [choice for choice in option.choices if choice.startswith(typing)]

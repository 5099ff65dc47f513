"""What models there are and what each takes: text for `%imgmodels` and the command line.

Stage: above the session. Comes in: part of a name. Goes out: the models of the catalogue that it means, what
each takes with ranges and defaults, as its provider says now, and what a provider's own search finds.
Must not: make an image, or ask a provider whose key is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nbimg.credentials.keys import PROVIDER_KEYS
from nbimg.errors import NbimgError
from nbimg.local import families, shelf
from nbimg.planning import catalog
from nbimg.planning.catalog import Entry
from nbimg.session import Session
from nbimg.types import Capabilities, Field, ModelRef

__all__ = ["describe", "render", "search"]

#: So many models are described in full at most.
DESCRIBED = 4
#: Our option → what a person writes for it; every other one is `--name`.
_FLAGS: Mapping[str, str] = {
    "n": "-n",
    "image": "-i",
    "width": "--size",
    "height": "--size",
    "format": "-o NAME.png",
}
_KINDS: Mapping[str, str] = {
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "file": "an image",
    "files": "images",
    "array": "a list",
    "string": "text",
}


def render(pattern: str, session: Session) -> str:
    """Return the models that a pattern means, a line each, and what they take where they are few.

    Args:
        pattern: Part of a name or description, in any case, or a full name, `provider:model`; empty: all.
        session: Where keys and providers are.

    Returns:
        Text. When the catalogue has no such model, what the providers' own search finds.
    """
    wanted = pattern.strip().lower()
    found = {
        alias: entry
        for alias, entry in catalog.entries().items()
        if wanted in f"{alias} {entry.ref.full} {entry.about}".lower()
    }
    lines = [_line(alias, entry, session) for alias, entry in found.items()]
    here = _on_disk(wanted)
    if not wanted:
        return "\n".join([*lines, *here, "", "%imgmodels NAME says what a model takes."])
    if not found and here and not any(line.lower().startswith(f"{wanted} ") for line in here):
        return "\n".join(here[1:])
    if found:
        few = [entry.ref for entry in found.values() if _ready(entry.ref.provider, session)]
        return "\n\n".join(["\n".join(lines), *_described(few[:DESCRIBED], session)])
    provider, separator, model = pattern.strip().partition(":")
    if separator and model and provider in session.registry.names():
        return describe(pattern.strip(), session)
    return _searched(pattern.strip(), session)


def describe(name: str, session: Session) -> str:
    """Return what a model takes: our option, its own name, range, default.

    Args:
        name: An alias, or `provider:model`.
        session: Where keys and providers are.

    Raises:
        NbimgError: When there is no such model, or its provider cannot be asked.
    """
    ref = catalog.resolve(name, session.registry.names())
    (can,) = session.portal.call(_capabilities, [ref], session)
    if isinstance(can, BaseException):
        raise can
    return table(ref, can)


def search(words: str, session: Session, *, provider: str = "replicate") -> tuple[Any, ...]:
    """Return what a provider's own search finds, best first: `.model`, `.about`, `.runs`.

    Raises:
        NbimgError: When the provider has no search, or cannot be asked.
    """
    find = getattr(session.registry.get(provider), "search", None)
    if find is None:
        raise NbimgError(f"{provider} cannot be searched.")
    return tuple(session.portal.call(find, words))


def table(ref: ModelRef, can: Capabilities) -> str:
    """Return a model's parameters as a table; pure."""
    head = f"{ref}  {ref.full}" if ref.alias and ref.alias != ref.full else ref.full
    options = {**can.options}
    shown = [(_FLAGS.get(name, f"--{name}"), field) for name, field in options.items()]
    shown += [(f"-p {name}=", field) for name, field in can.extra.items()]
    rows = [("option", "parameter", "takes", "default")]
    rows += [
        (flag, field.name, _takes(field), "required" if field.required else _value(field.default))
        for flag, field in shown
    ]
    if len(rows) == 1:
        what = (
            "does not tell what it takes: -p NAME=VALUE passes anything on."
            if can.open
            else "takes a prompt only."
        )
        return f"{head}\n  It {what}"
    widths = [max(len(row[place]) for row in rows) for place in (0, 1)]
    body = [
        f"  {flag:{widths[0]}}  {name:{widths[1]}}  {takes}" + (f"  [{default}]" if default else "")
        for flag, name, takes, default in rows
    ]
    return "\n".join([head, *body])


def _takes(field: Field) -> str:
    if field.allowed:
        return ", ".join(map(str, field.allowed))
    low, high = field.minimum, field.maximum
    kind = _KINDS.get(field.type, field.type)
    if field.type == "files":
        return f"up to {high:g} images" if high is not None else kind
    if low is None and high is None:
        return kind
    if low is None or high is None:
        return f"{kind}, at " + (f"most {high:g}" if low is None else f"least {low:g}")
    step = f" in steps of {field.multiple}" if field.multiple else ""
    return f"{low:g} to {high:g}{step}"


def _value(default: Any) -> str:
    if default is None or default == []:
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    return repr(default) if isinstance(default, str) and not default.strip() else str(default)


def _line(alias: str, entry: Entry, session: Session) -> str:
    what = " ".join(["makes"] * entry.makes + ["edits"] * entry.edits)
    state = "ready" if _ready(entry.ref.provider, session) else "no key"
    price = "" if entry.price_usd is None else f" ${entry.price_usd:g} an image"
    price += f" ({entry.price_at})" if entry.price_at else ""
    return f"{alias:22} {state:7} {what:12} {entry.about}{price}"


def _on_disk(wanted: str) -> list[str]:
    """A line for each model of the hub's cache with that in its name, below a heading."""
    lines = []
    for one in shelf.scan():
        name = f"local:{one.model}"
        if wanted in name.lower():
            tasks = families.tasks_of(one.pipeline, ())
            edits = bool(tasks & {"edit", "combine", "inpaint"})
            what = " ".join(["makes"] * ("generate" in tasks) + ["edits"] * edits)
            lines.append(f"{name:30} {what:12} {one.pipeline}")
    return ["", "On this machine:", *lines] if lines else []


def _ready(provider: str, session: Session) -> bool:
    return provider not in PROVIDER_KEYS or session.keys.find(provider) is not None


def _described(refs: Sequence[ModelRef], session: Session) -> Iterable[str]:
    if not refs:
        return
    found = session.portal.call(_capabilities, refs, session)
    for ref, can in zip(refs, found, strict=True):
        yield table(ref, can) if isinstance(can, Capabilities) else f"{ref}: {can}"


async def _capabilities(
    refs: Sequence[ModelRef], session: Session
) -> list[Capabilities | BaseException]:
    asked = [session.registry.get(ref.provider).capabilities(ref.model) for ref in refs]
    found = await asyncio.gather(*asked, return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException) and not isinstance(one, NbimgError):
            raise one
    return found


def _searched(words: str, session: Session) -> str:
    lines = []
    for provider in session.registry.names():
        if provider not in PROVIDER_KEYS or not _ready(provider, session):
            continue
        if not hasattr(session.registry.get(provider), "search"):
            continue
        try:
            rows = search(words, session, provider=provider)
        except NbimgError as error:
            lines.append(f"{provider}: {error}")
            continue
        lines += [f"{provider}:{row.model}  {row.runs:,} runs  {row.about}" for row in rows]
    missing = f"no model of the catalogue matches {words!r}."
    if lines:
        return "\n".join([f"{missing} The providers have:", *lines])
    return f"{missing} %imgmodels lists all."

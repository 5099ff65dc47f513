"""A `CellSpec` and the notebook's names → requests, one a picture of the grid.

Stage: after `cell`, before `plan`. Comes in: prompts with braces, options, variables. Goes out:
`Request`s in order, with the labels of the grid's axes. Must not: know a model, read a file, or
resolve an image: those stay as typed.

In a prompt and in `--negative` (never in an output template):

- `{name}` is a variable. A list, tuple, range, array or Series fans out: one prompt an item. A
  text, a number, a date, a path, whatever knows how to write itself as text is inserted as `str()`
  writes it. A dict, a set, None, bytes or another object is an error: nobody wants to pay for the
  prompt "a <object at 0x7f…>".
- `{a|b|c}` fans out over the alternatives, blanks included; one may be empty.
- `{{` and `}}` are literal braces; there are no braces inside braces. What came out of a variable
  is not expanded again.

Each variable is one axis however often it is used, each `{a|b}` is one of its own, in the order of
the text; the items of one axis are the rows, of a second one the columns, further ones multiply the
rows. Several models are the columns, and then all other axes are rows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

from nbimg.errors import CellSyntaxError, OptionError, UnknownNameError
from nbimg.text.cell import Block, CellSpec
from nbimg.types import Request

__all__ = ["MAX_REQUESTS", "Expansion", "escape", "expand"]

MAX_REQUESTS = 10_000
_BRACE = re.compile(r"\{\{|\}\}|\{(?P<inner>[^{}]*)\}|[{}]")
_LABEL_JOINT = " · "


@dataclass(frozen=True)
class Expansion:
    """The requests of a cell.

    Attributes:
        requests: Prompts in order; within one, rows first, then columns (row by row).
        rows: A label a row; empty when there are no rows to name.
        columns: A label a column; empty when there are no columns to name.
        blocks: The number of the prompt, as typed, that each request came from.
    """

    requests: tuple[Request, ...]
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    blocks: tuple[int, ...] = ()


class _Hole(NamedTuple):
    """The place in a template where the item of an axis goes."""

    axis: str


_Template = list[str | _Hole]
_Axes = dict[str, tuple[str, ...]]


class _Source(NamedTuple):
    """A text and where it stands in the cell."""

    text: str
    line: int
    column: int
    prefix: str = ""

    def place(self, offset: int) -> tuple[int, int]:
        """1-based line and column of a character."""
        if self.prefix:  # the value of an option: its characters have no place of their own
            return self.line, self.column
        before = self.text[:offset]
        breaks = before.count("\n")
        column = offset + self.column if not breaks else offset - before.rindex("\n")
        return self.line + breaks, column

    def error(self, message: str, offset: int, hint: str) -> CellSyntaxError:
        line, column = self.place(offset)
        return CellSyntaxError(self.prefix + message, line=line, column=column, hint=hint)


@dataclass(frozen=True)
class _Plan:
    """A block, ready to be filled in."""

    prompt: _Template
    negative: _Template | None
    axes: _Axes
    models: tuple[str | None, ...]
    options: Mapping[str, Any]

    @property
    def size(self) -> int:
        return math.prod(map(len, self.axes.values())) * len(self.models)


def expand(spec: CellSpec, names: Mapping[str, Any]) -> Expansion:
    """Fan the prompts of a cell out over variables, alternatives and models.

    >>> from nbimg.text.cell import parse
    >>> grid = expand(parse("", "a {red|blue} {thing}"), {"thing": ["car", "house"]})
    >>> [request.prompt for request in grid.requests]
    ['a red car', 'a red house', 'a blue car', 'a blue house']
    >>> grid.rows, grid.columns
    (('red', 'blue'), ('car', 'house'))

    Args:
        spec: What `cell.parse` gave.
        names: The variables of the notebook.

    Returns:
        The requests and the labels. There are labels when one prompt fans out, and when several
        prompts meet several models: the prompts are the rows then.

    Raises:
        CellSyntaxError: When braces do not fit or a variable holds nothing that can be written.
        UnknownNameError: When there is no such variable; it names the nearest.
        OptionError: When there are more than 10,000 requests, or an option has a bad value.
    """
    plans = [_plan(block, spec, names) for block in spec.blocks]
    _check_total(plans)
    grids = [_fill(plan) for plan in plans]
    requests = tuple(request for grid in grids for request in grid.requests)
    blocks = tuple(number for number, grid in enumerate(grids) for _ in grid.requests)
    if len(requests) == 1:
        return Expansion(requests, blocks=blocks)
    if len(grids) == 1:
        return replace(grids[0], blocks=blocks)
    models = {plan.models for plan in plans}
    if len(models) == 1 and len(plans[0].models) > 1:
        columns = grids[0].columns
        rows = tuple(" ".join(request.prompt.split()) for request in requests[:: len(columns)])
        return Expansion(requests, rows, columns, blocks)
    return Expansion(requests, blocks=blocks)


def escape(text: str) -> str:
    """Double the braces of a text, so that `expand` gives it back as it is.

    >>> escape("{x}")
    '{{x}}'
    """
    return text.replace("{", "{{").replace("}", "}}")


def _plan(block: Block, spec: CellSpec, names: Mapping[str, Any]) -> _Plan:
    options = {**spec.options, **block.options}
    if "params" in spec.options and "params" in block.options:
        options["params"] = {**spec.options["params"], **block.options["params"]}
    axes: _Axes = {}
    prompt = _read_template(_Source(block.text, block.line, block.column), names, axes)
    negative: _Template | None = None
    if (text := options.pop("negative", None)) is not None:
        line = block.line if "negative" in block.options else 0
        source = _Source(text, line, 1, f"--negative {text!r}: ")
        negative = _read_template(source, names, axes)
    models = options.pop("model", None) or (None,)
    models = (models,) if isinstance(models, str) else tuple(models)
    return _Plan(prompt, negative, axes, models, options)


def _read_template(source: _Source, names: Mapping[str, Any], axes: _Axes) -> _Template:
    """Split a text at its braces; add to `axes` what fans out."""
    template: _Template = []
    end = 0
    for match in _BRACE.finditer(source.text):
        template.append(source.text[end : match.start()])
        end = match.end()
        inner = match["inner"]
        if inner is None:
            template.append(_literal_brace(match[0], source, match.start()))
        elif "|" in inner:
            axis = f"{source.prefix}{match.start()}{match[0]}"
            axes[axis] = tuple(inner.split("|"))
            template.append(_Hole(axis))
        else:
            template.append(_variable(inner.strip(), source, match.start(), names, axes))
    template.append(source.text[end:])
    return template


def _literal_brace(found: str, source: _Source, offset: int) -> str:
    if len(found) == 2:
        return found[0]
    if found == "}":
        raise source.error("} without a { before it.", offset, "Write }} for a literal brace.")
    again = "{" in source.text[offset + 1 :]
    raise source.error(
        "{ is not closed before the next one." if again else "{ is not closed.",
        offset,
        "Write {name}, {a|b|c}, or {{ for a literal brace.",
    )


def _variable(
    name: str, source: _Source, offset: int, names: Mapping[str, Any], axes: _Axes
) -> str | _Hole:
    if not name.isidentifier():
        raise source.error(
            f"{{{name}}} is neither a variable nor alternatives.",
            offset,
            "Write {name}, {a|b|c}, or {{ and }} for literal braces; "
            "give an expression a name first.",
        )
    if name not in axes:
        if name not in names:
            known = [known for known in names if not known.startswith("_")]
            where = source.prefix or "line {}, column {}: ".format(*source.place(offset))
            hint = f"It stands in {where.rstrip(': ')}; {{{{ and }}}} are literal braces."
            raise UnknownNameError("variable", name, known=known, hint=hint)
        items = _items(names[name], name, source, offset)
        if items is None:
            return _text(names[name], name, source, offset)
        item = f"an item of {name}"
        axes[name] = tuple(_text(value, item, source, offset) for value in items)
    return _Hole(name)


def _items(value: Any, name: str, source: _Source, offset: int) -> Sequence[Any] | None:
    """Return what a variable fans out over; None when it holds a single value."""
    if isinstance(value, str | bytes | bytearray | memoryview):
        return None
    if not isinstance(value, Sequence) and not hasattr(value, "tolist"):
        return None
    try:
        count = len(value)
    except OverflowError:  # range(10**30)
        count = MAX_REQUESTS + 1
    except TypeError:  # an array of no dimensions
        return None
    if not count:
        raise source.error(f"{name} is empty.", offset, "Put something into it.")
    if count > MAX_REQUESTS:
        raise _too_many(f"{{{name}}} has more than {MAX_REQUESTS:,} items")
    items: Sequence[Any] = value.tolist() if hasattr(value, "tolist") else value
    return items


def _text(value: Any, name: str, source: _Source, offset: int) -> str:
    """Write a single value, or say that it has no text of its own."""
    writes_itself = any("__str__" in vars(cls) for cls in type(value).__mro__[:-1])
    if isinstance(value, str | int | float | complex) or (
        writes_itself and not isinstance(value, bytes | bytearray)
    ):
        return str(value)
    kind = "None" if value is None else f"of type {type(value).__name__}"
    hint = "Use a text, a number or a list of them."
    if name.isidentifier() and isinstance(value, set | frozenset | Mapping | Iterator):
        order = "sorted" if isinstance(value, set | frozenset) else "list"
        hint = f"{order}({name}) makes a list of it."
    raise source.error(f"{name} is {kind}, which is no text.", offset, hint)


def _check_total(plans: Sequence[_Plan]) -> None:
    total = sum(plan.size for plan in plans)
    if total <= MAX_REQUESTS:
        return
    largest = max(plans, key=lambda plan: plan.size)
    factors = [
        f"{len(texts):,} " + (f"{{{axis}}}" if axis.isidentifier() else "alternatives")
        for axis, texts in largest.axes.items()
    ]
    if len(largest.models) > 1:
        factors.append(f"{len(largest.models):,} models")
    rest = f", and {total - largest.size:,} of other prompts" if len(plans) > 1 else ""
    raise _too_many(f"{' x '.join(factors)} are {largest.size:,} requests{rest}")


def _too_many(what: str) -> OptionError:
    return OptionError(
        f"{what}: a cell makes at most {MAX_REQUESTS:,}.", hint="Split it over several cells."
    )


def _fill(plan: _Plan) -> Expansion:
    """Put every combination of items into the templates."""
    keys = list(plan.axes)
    across = keys[1:2] if len(plan.models) == 1 else []
    down = [key for key in keys if key not in across]
    rows = list(product(*(plan.axes[key] for key in down)))
    columns = list(product(*(plan.axes[key] for key in across)))
    requests: list[Request] = []
    for row in rows:
        for column in columns:
            chosen = dict(zip((*down, *across), (*row, *column), strict=True))
            prompt = _write(plan.prompt, chosen)
            negative = None if plan.negative is None else _write(plan.negative, chosen)
            requests.extend(
                Request(prompt, model, negative=negative, **plan.options) for model in plan.models
            )
    names = [str(model) for model in plan.models] if len(plan.models) > 1 else []
    return Expansion(
        tuple(requests),
        tuple(map(_label, rows)) if down else (),
        tuple(names or (map(_label, columns) if across else ())),
    )


def _write(template: _Template, chosen: Mapping[str, str]) -> str:
    return "".join(chosen[part.axis] if isinstance(part, _Hole) else part for part in template)


def _label(texts: Sequence[str]) -> str:
    return _LABEL_JOINT.join(" ".join(text.split()) or "(nothing)" for text in texts)

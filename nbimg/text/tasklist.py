"""A list of tasks, as text, in a file or in a variable → dicts.

Stage: before `tasks`. Comes in: the body of a cell with `--tasks`, the name of a file or variable, or what
a variable holds. Goes out: a list of dicts (and of `Request`s where a variable holds them), keys and
values as they stand. Must not: know which keys there are, or read an image.

A text is JSON, JSON lines or YAML, whichever can read it. It holds a list of tasks, `{"tasks": […]}` or a
single task; a task may be a prompt alone. In YAML a prompt, a name and a file are always texts.
"""

from __future__ import annotations

import csv
import io
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nbimg.errors import CellSyntaxError, InputError, UnknownNameError
from nbimg.text.markup import fault, looks_like, read_json, read_lines, read_yaml
from nbimg.text.tasks import TEXTS, key_of
from nbimg.types import Request

__all__ = ["parse_tasks", "read_tasks", "tasks_of"]

_HINT = '--tasks reads a list in JSON or YAML, JSON lines, or {"tasks": […]}.'
_FORMS = {".json": "json", ".jsonl": "lines", ".ndjson": "lines", ".yaml": "yaml", ".yml": "yaml"}
_TABLES = (".csv", ".tsv")
#: What pandas and spreadsheets call the column of the row numbers.
_NUMBERING = re.compile(r"|Unnamed: \d+|__index_level_\d+__")


def parse_tasks(text: str, *, form: str | None = None) -> list[dict[str, Any]]:
    r"""Read the body of a cell with `--tasks`.

    >>> parse_tasks("- a red car\n- prompt: a dog\n  seed: 7")
    [{'prompt': 'a red car'}, {'prompt': 'a dog', 'seed': 7}]

    Args:
        text: JSON, JSON lines or YAML.
        form: Which of them it is said to be (`json`, `lines`, `yaml`): errors are about that one then,
            else about the one that the text most looks like.

    Raises:
        CellSyntaxError: When none of them can read it, with the place, and when there are no tasks.
        InputError: When an item of the list is no task.
    """
    text = re.sub(r"\r\n?", "\n", text).removeprefix("\ufeff")
    try:
        items = _items(_read(text, form))
    except CellSyntaxError:
        raise
    except InputError as error:
        raise fault(text, 0, error.message, error.hint) from None
    if items is None:
        raise fault(text, 0, "this is no list of tasks.", _HINT)
    if not items:
        raise fault(text, 0, "there are no tasks.", _HINT)
    return [_task(item, number) for number, item in enumerate(items, 1)]


def read_tasks(source: str, names: Mapping[str, Any]) -> list[Any]:
    """Read what `--tasks NAME` names: a variable, else a file.

    Args:
        source: The name; a file that ends in `.csv` or `.tsv` is a table, any other a text as in a cell.
        names: The notebook's variables.

    Returns:
        Dicts, and `Request`s where a variable holds some.

    Raises:
        UnknownNameError: When there is neither; it names the nearest files and variables.
        InputError: When it cannot be read, with the place, or holds no tasks.
    """
    variable = source[1:-1] if source.startswith("{") and source.endswith("}") else source
    if variable in names:
        value = names[variable]
        return _read_file(value) if isinstance(value, Path) else tasks_of(value, what=variable)
    path = Path(source)
    if not path.exists():
        own = [name for name in names if not name.startswith("_")]
        hint = "--tasks alone reads the cell."
        raise UnknownNameError("file or variable", source, known=[*_near(path), *own], hint=hint)
    return _read_file(path)


def tasks_of(value: Any, *, what: str = "the list") -> list[Any]:
    """Return the tasks in a value as dicts and `Request`s, in order.

    Args:
        value: A list, a table (pandas, polars, Arrow), a Series of prompts, a single task,
            `{"tasks": […]}`, or a text as in a cell.
        what: What errors call it.

    Raises:
        InputError: When there are none, or an item is no task.
    """
    if isinstance(value, str):
        return list(_parse_as(what, value, None))
    items = _items(value)
    if items is None:
        kind = f"{what} holds no tasks: it is of type {type(value).__name__}."
        raise InputError(kind, hint="Give a list of prompts or dicts, or a table.")
    if not items:
        raise InputError(f"{what} holds no tasks.")
    return [_task(item, number) for number, item in enumerate(items, 1)]


def _read(text: str, form: str | None) -> Any:
    """Return what the first format that can read it makes of a text."""
    readers: dict[str, Callable[[str], Any]] = {"json": read_json, "lines": read_lines}
    if form not in readers:  # much that is broken JSON is YAML
        readers["yaml"] = lambda text: read_yaml(text, lambda key: key_of(key) in TEXTS)
    refused: dict[str, CellSyntaxError] = {}
    for name, reader in readers.items():
        try:
            return reader(text) if text.strip() else []
        except CellSyntaxError as error:
            refused[name] = error
    likely = refused[form or looks_like(text, refused["json"])]
    likely.hint = _HINT
    raise likely


def _items(value: Any) -> list[Any] | None:
    """Return what a value lists; None when it is no list."""
    if isinstance(value, Mapping) and "tasks" in value:
        beside = [str(key) for key in value if key != "tasks"]
        if beside:
            raise InputError(f"{beside[0]!r} stands beside tasks.", hint="Put it into each task.")
        value = value["tasks"]
    if value is None or isinstance(value, str | bytes | bytearray):
        return [] if value is None else None
    if isinstance(value, Mapping | Request):
        return [value]
    rows = _rows(value)
    if rows is not None:
        return [_given(row) for row in rows]
    return list(value) if isinstance(value, Iterable) else None


def _rows(value: Any) -> Iterable[Mapping[Any, Any]] | None:
    """Return the rows of a table; None when it is none."""
    rows: Iterable[Mapping[Any, Any]]
    if hasattr(value, "iter_rows"):  # polars
        rows = value.iter_rows(named=True)
    elif hasattr(value, "to_pylist"):  # Arrow
        rows = value.to_pylist()
    elif hasattr(value, "columns") and hasattr(value, "to_dict"):  # pandas
        _check_once(map(str, value.columns))
        rows = value.to_dict(orient="records")
    else:
        return None
    return rows


def _given(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the cells of a row that are not empty, without the one of its number."""
    return {
        str(name): cell
        for name, cell in row.items()
        if not _NUMBERING.fullmatch(str(name)) and not (isinstance(cell, str) and not cell.strip())
    }


def _check_once(names: Iterable[str], where: str = "") -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{where}{name!r} stands twice.", hint="Keep one of the columns.")
        seen.add(name)


def _task(item: Any, number: int) -> Any:
    if isinstance(item, str):
        return {"prompt": item}
    if isinstance(item, Mapping | Request):
        return item
    raise InputError(
        f"task {number}: {' '.join(reprlib.repr(item).split())} is neither a text, a dict nor a Request."
    )


def _near(path: Path) -> list[str]:
    try:
        found = [item.name for item in path.parent.iterdir()]
    except OSError:
        return []
    return [
        str(path.with_name(name)) for name in found if name.lower().endswith((*_FORMS, *_TABLES))
    ]


def _read_file(path: Path) -> list[Any]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        hint = "Save it as UTF-8, or read it yourself: --tasks takes a variable, a DataFrame too."
        raise InputError(f"{path} is not UTF-8, at byte {error.start}.", hint=hint) from None
    if path.suffix.lower() not in _TABLES:
        return list(_parse_as(str(path), text, _FORMS.get(path.suffix.lower())))
    tasks = list(_read_table(text, str(path), tabs=path.suffix.lower() == ".tsv"))
    if not tasks:
        raise InputError(f"{path} holds no tasks.", hint="Its first line names the columns.")
    return tasks


def _parse_as(what: str, text: str, form: str | None) -> list[dict[str, Any]]:
    try:
        return parse_tasks(text, form=form)
    except InputError as error:
        joint = ", " if isinstance(error, CellSyntaxError) else ": "
        raise InputError(f"{what}{joint}{error.message}", hint=error.hint) from None


def _read_table(text: str, where: str, *, tabs: bool) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table as dicts; the first line names the columns."""
    head = text.partition("\n")[0]
    comma = "\t" if tabs else max(",;\t", key=head.count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=comma, skipinitialspace=True)
    try:
        names = [name.strip() for name in next(lines, [])]
        _check_once(filter(None, names), f"{where}: ")
        for cells in lines:
            if any(cell.strip() for cell in cells[len(names) :]):
                count = f"{len(cells)} cells, but {len(names)} columns"
                hint = "A text with a comma in it goes between double quotes."
                raise InputError(f"{where}, line {lines.line_num}: {count}.", hint=hint)
            if row := _given(dict(zip(names, cells, strict=False))):
                yield row
    except csv.Error as error:
        raise InputError(f"{where}, line {lines.line_num}: {error}.") from None

r"""A text in JSON, JSON lines or YAML → plain values, with the place of what is wrong.

Stage: below `tasklist`. Comes in: a text with `\n` for line ends. Goes out: dicts, lists, texts, numbers,
true, false and None. Must not: know what a task is, beyond where in a list of tasks a scalar is a text
whatever it looks like.

A key that stands twice is an error in every format. YAML is read as most people think it is: only
what JSON has too is special, so that a date, `yes`, `010` or `16:9` is a text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from nbimg.errors import CellSyntaxError

__all__ = ["fault", "looks_like", "read_json", "read_lines", "read_yaml"]

_TOKEN = re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"(?P<key>\s*:)?|[{}]', re.DOTALL)
_MOST_NODES = 1_000_000
_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"
_INT = r"[-+]?(?:0|[1-9][0-9]{0,99})"
_FLOAT = (
    r"[-+]?[0-9]+\.[0-9]*(?:[eE][-+][0-9]+)?|\.[0-9]+(?:[eE][-+][0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
#: What a plain scalar of YAML may be beside a text: its form (a part of what PyYAML writes so), its value,
#: and how it can begin.
_SCALARS: Mapping[str, tuple[str, Callable[[str], Any], str]] = {
    "null": (r"~|null|Null|NULL|", lambda _: None, "~nN"),
    "bool": (r"true|True|TRUE|false|False|FALSE", lambda text: text.lower() == "true", "tTfF"),
    "int": (_INT, int, "-+0123456789"),
    "float": (_FLOAT, lambda text: float(re.sub(r"\.(?=[iInN])", "", text)), "-+0123456789."),
}


def fault(text: str, offset: int, message: str, hint: str | None = None) -> CellSyntaxError:
    """Return the error for a character of a text, with its line and column."""
    before = text[:offset]
    line, column = before.count("\n") + 1, offset - before.rfind("\n")
    return CellSyntaxError(message, line=line, column=column, hint=hint)


def read_json(text: str, start: int = 0, end: int | None = None) -> Any:
    """Read a text, or a part of it, as one value in JSON.

    Raises:
        CellSyntaxError: When it is not JSON, or a key stands twice in an object.
    """
    part = text[start:end]
    try:
        return json.loads(part, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        what = error.msg[:1].lower() + error.msg[1:]
        raise fault(text, start + error.pos, f"this is not JSON: {what}.") from None
    except _TwiceError:
        place, key = _second(part)
        raise fault(text, start + place, f"{key!r} stands twice.") from None
    except RecursionError:
        raise fault(text, start, "this is nested too deeply.") from None
    except ValueError:  # a number of thousands of digits
        raise fault(text, start, "there is a number of too many digits.") from None


def read_lines(text: str) -> list[Any]:
    """Read every line that is not blank as a value in JSON.

    Raises:
        CellSyntaxError: When a line is not JSON.
    """
    values, start = [], 0
    for line in text.split("\n"):
        if line.strip():
            values.append(read_json(text, start, start + len(line)))
        start += len(line) + 1
    return values


def read_yaml(text: str, is_text: Callable[[str], bool]) -> Any:
    """Read a text as YAML; its documents are joined to one list when there are several.

    Args:
        text: The text.
        is_text: Whether the value of a key of a task is the text as typed.

    Raises:
        CellSyntaxError: When it is not YAML, has a key twice, or would grow without bound.
    """
    import yaml

    try:
        documents = [
            _Builder(text, is_text).build(node, task=True)
            for node in yaml.compose_all(text, _loader())
        ]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join((error.problem or "it cannot be read").split())
        offset = min(mark.index, len(text)) if mark else 0
        raise fault(text, offset, f"this is not YAML: {what}.") from None
    except yaml.reader.ReaderError as error:
        what = f"the character {chr(error.character)!r} is not allowed"
        raise fault(text, error.position, f"this is not YAML: {what}.") from None
    except RecursionError:
        raise fault(text, 0, "this is nested too deeply.") from None
    if len(documents) == 1:
        return documents[0]
    joined: list[Any] = []
    for document in documents:
        joined += document if isinstance(document, list) else [document]
    return joined


def looks_like(text: str, refused: CellSyntaxError) -> str:
    """Tell which format a text that none can read was meant to be: `json`, `lines` or `yaml`.

    Args:
        text: The text.
        refused: Why it is not JSON.
    """
    if text.lstrip()[:1] not in ("[", "{", '"'):
        return "yaml"
    lines = [line for line in text.split("\n") if line.strip()]
    try:
        if len(lines) > 1:
            read_json(lines[0])
            return "lines"
    except CellSyntaxError:
        pass
    found = text.split("\n")[refused.line - 1][refused.column - 1 :][:1]
    return "yaml" if found.isalpha() or found == "'" else "json"  # a word without quotes


class _TwiceError(Exception):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _TwiceError
    return values


def _second(text: str) -> tuple[int, str]:
    """Return the place of the first key that stands twice in its object, and the key."""
    objects: list[set[str]] = []
    for match in _TOKEN.finditer(text):
        if match[0] == "{":
            objects.append(set())
        elif match[0] == "}":
            objects.pop()
        elif match["key"]:
            key = json.loads(f'"{match["text"]}"')
            if key in objects[-1]:
                return match.start(), key
            objects[-1].add(key)
    raise AssertionError  # it was found twice, or this is not called


class _Builder:
    """Nodes of YAML → values; what an alias stands for is built once."""

    def __init__(self, text: str, is_text: Callable[[str], bool]) -> None:
        self.text = text
        self.is_text = is_text
        self.values: dict[tuple[int, bool], Any] = {}
        self.weights: dict[int, int] = {}  # node → how many it stands for; 0 while it is built

    def build(self, node: Any, *, task: bool = False) -> Any:
        """Return the value of a node.

        Args:
            node: What PyYAML composed.
            task: Whether a text here is a prompt, and a dict a task or the list of them.
        """
        key = (id(node), task)
        if self.weights.get(id(node)) == 0:
            raise self.fault(node, "this contains itself.")
        if key not in self.values:
            self.weights[id(node)] = 0
            self.values[key], parts = _BUILD[node.id](self, node, task)
            self.weights[id(node)] = 1 + sum(self.weights[id(part)] for part in parts)
            if self.weights[id(node)] > _MOST_NODES:
                raise self.fault(node, f"this grows to more than {_MOST_NODES:,} values.")
        return self.values[key]

    def scalar(self, node: Any, task: bool) -> tuple[Any, list[Any]]:
        kind = node.tag.removeprefix(_TAG)
        if kind == "str" or (task and kind in _SCALARS and kind != "null"):
            return node.value, []
        if kind not in _SCALARS or not re.fullmatch(_SCALARS[kind][0], node.value):
            raise self.fault(node, f"{kind} {node.value!r} is not read here.")
        return _SCALARS[kind][1](node.value), []

    def sequence(self, node: Any, task: bool) -> tuple[Any, list[Any]]:
        self.check(node, "seq")
        return [self.build(item, task=task) for item in node.value], node.value

    def mapping(self, node: Any, task: bool) -> tuple[Any, list[Any]]:
        self.check(node, "map")
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key, item in node.value:
            if key.id != "scalar":
                raise self.fault(key, "a key is a text.")
            if key.value in own or (key.tag == _MERGE and merged):
                raise self.fault(key, f"{key.value!r} stands twice.")
            if key.tag == _MERGE:
                merged = self.merged(item, task)
            else:
                texts = task and (key.value == "tasks" or self.is_text(key.value))
                own[key.value] = self.build(item, task=texts)
        return {**merged, **own}, [item for _, item in node.value]

    def merged(self, node: Any, task: bool) -> dict[str, Any]:
        """Return what `<<` brings: a dict, or a list of them of which the first wins."""
        value = self.build(node, task=task)
        dicts = value if isinstance(value, list) else [value]
        if not all(isinstance(item, dict) for item in dicts):
            raise self.fault(node, "<< takes a dict.")
        return {key: item for some in reversed(dicts) for key, item in some.items()}

    def check(self, node: Any, kind: str) -> None:
        if node.tag != _TAG + kind:
            raise self.fault(node, f"{node.tag.removeprefix(_TAG)} is not read here.")

    def fault(self, node: Any, message: str) -> CellSyntaxError:
        return fault(self.text, min(node.start_mark.index, len(self.text)), message)


_BUILD = {"scalar": _Builder.scalar, "sequence": _Builder.sequence, "mapping": _Builder.mapping}


@cache
def _loader() -> Any:
    """Return PyYAML's loader with the scalars of this module alone."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.yaml_implicit_resolvers = {}

    for kind, (form, _, first) in _SCALARS.items():
        begins = [*first, ""] if kind == "null" else [*first]
        Loader.add_implicit_resolver(_TAG + kind, re.compile(rf"(?:{form})\Z"), begins)
    Loader.add_implicit_resolver(_MERGE, re.compile(r"<<\Z"), ["<"])
    return Loader

"""Which models are on this machine already: folders, and what the hub's cache holds.

Stage: below the local models. Comes in: a folder, or a hub id. Goes out: where it is, whether it is whole,
how large its weights are. Reads names, JSON and the headers of safetensors. Must not: ask a network, import
anything heavy, or read a weight.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "Shelved",
    "hub_folder",
    "index",
    "is_hub_id",
    "parts_of",
    "scan",
    "snapshot",
    "stamp",
    "variant",
    "weigh",
    "whole",
]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
#: Bytes of a number in the formats that weights come in, those that are not converted on loading.
_WHOLE_NUMBERS = {"I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2, "I8": 1, "U8": 1}
_WHOLE_NUMBERS |= {"BOOL": 1}
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}
_WEIGHTS = re.compile(
    r"(model|diffusion_pytorch_model)(\.(?!safetensors)\w+)?(-\d+-of-\d+)?\.safetensors"
)


@dataclass(frozen=True, slots=True)
class Shelved:
    """A pipeline in the hub's cache.

    Attributes:
        model: Its hub id.
        folder: Its newest snapshot.
        pipeline: Name of its class.
        at_utc: When it was fetched, Unix time in seconds.
    """

    model: str
    folder: Path
    pipeline: str
    at_utc: float


def hub_folder() -> Path:
    """Return where huggingface_hub keeps what it has fetched, without importing it.

    Source: https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables, read
    2026-11-25.
    """
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if named:
        return Path(named).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
    return Path(home).expanduser() / "hub"


def is_hub_id(model: str) -> bool:
    """Whether a name can be one of the hub, `owner/name` or `owner/name@revision`."""
    return _HUB_ID.fullmatch(model) is not None


def snapshot(model: str) -> Path | None:
    """Return the folder of a hub id in the cache; None where it was never fetched.

    Args:
        model: `owner/name`, or `owner/name@revision` with a branch, a tag or a commit.
    """
    name, _, revision = model.partition("@")
    place = hub_folder() / f"models--{name.replace('/', '--')}"
    commit = revision or "main"
    with contextlib.suppress(OSError):
        commit = (place / "refs" / commit).read_text("utf-8").strip()
    folder = place / "snapshots" / commit
    return folder if (folder / "model_index.json").is_file() else None


def index(folder: Path) -> dict[str, Any]:
    """Return what a `model_index.json` says; empty where it says nothing."""
    return _json(folder / "model_index.json")


def parts_of(listed: Mapping[str, Any]) -> dict[str, str]:
    """Return component → class, of what a `model_index.json` lists and has."""
    return {
        name: str(value[1])
        for name, value in listed.items()
        if not name.startswith("_") and isinstance(value, list) and len(value) == 2 and value[1]
    }


def whole(folder: Path) -> bool:
    """Whether everything that a pipeline lists is there: a download may have been broken off."""
    parts = parts_of(index(folder))
    return bool(parts) and all(_part_is_whole(folder / name) for name in parts)


def variant(folder: Path) -> str | None:
    """Return the word in the names of the weights where only such are there (`fp16`); else None."""
    found = {match[2] for _, match in _files(folder)}
    return None if not found or None in found else min(str(word) for word in found)[1:]


def weigh(folder: Path, number_format: str) -> dict[str, int]:
    """Return component → bytes of its weights in memory, from the headers alone.

    Args:
        folder: Of a pipeline.
        number_format: What they are loaded as: `float32`, `bfloat16`, `float16`.
    """
    word = variant(folder)
    found: dict[str, int] = {}
    for path, match in _files(folder):
        if match[2] == (f".{word}" if word else None):
            found[path.parent.name] = found.get(path.parent.name, 0) + _header_bytes(
                path, _BYTES.get(number_format, 4)
            )
    return found


def stamp(folder: Path) -> str:
    """Return a text that changes when a model does: the commit of a snapshot, else times and sizes."""
    if folder.parent.name == "snapshots":
        return folder.name
    stats = [path.stat() for path in sorted(folder.rglob("*")) if path.is_file()]
    return f"{max((s.st_mtime_ns for s in stats), default=0)}-{sum(s.st_size for s in stats)}"


def scan() -> tuple[Shelved, ...]:
    """Return the whole pipelines in the hub's cache, those fetched last first."""
    found = []
    with contextlib.suppress(OSError):
        for place in hub_folder().glob("models--*--*"):
            model = place.name.removeprefix("models--").replace("--", "/", 1)
            folder = snapshot(model)
            if folder is not None and whole(folder):
                name = str(index(folder).get("_class_name", ""))
                found.append(Shelved(model, folder, name, folder.stat().st_mtime))
    return tuple(sorted(found, key=lambda one: (-one.at_utc, one.model)))


def _part_is_whole(folder: Path) -> bool:
    """Scheduler and tokenizer need their folder; what has a network needs all of its weights."""
    if not folder.is_dir():
        return False
    for listed in folder.glob("*.safetensors.index*.json"):
        names = set(_json(listed).get("weight_map", {}).values())
        if names and all((folder / name).is_file() for name in names):
            return True
    config = _json(folder / "config.json")
    network = "_class_name" in config or "architectures" in config
    sharded = any(folder.glob("*.safetensors.index*.json"))
    return not network or (not sharded and any(folder.glob("*.safetensors")))


def _files(folder: Path) -> Iterator[tuple[Path, re.Match[str]]]:
    """The weights of the parts; one file that holds all of a part goes before its shards."""
    for part in sorted(path for path in folder.iterdir() if path.is_dir()):
        found = [
            (path, match)
            for path in sorted(part.glob("*.safetensors"))
            if (match := _WEIGHTS.fullmatch(path.name)) is not None
        ]
        single = {match[2] for _, match in found if match[3] is None}
        yield from (item for item in found if item[1][3] is None or item[1][2] not in single)


def _header_bytes(path: Path, each: int) -> int:
    """Bytes of a file's tensors when numbers with a point take `each` bytes.

    The format: https://github.com/huggingface/safetensors#format, read 2026-11-25: eight bytes that tell
    the length of the JSON that follows, with type and shape of every tensor.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length < 100_000_000 else {}
        tensors = [value for name, value in header.items() if name != "__metadata__"]
        return sum(
            math.prod(one["shape"]) * _WHOLE_NUMBERS.get(one["dtype"], each) for one in tensors
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0  # damaged: loading says so


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}

"""Fetch a model from the hub: how large it is first, then the files, and no others than are needed.

Stage: beside the shelf, on the worker thread. Comes in: a hub id. Goes out: what would have to be fetched;
then a folder in the hub's cache. The only place that asks the hub. Must not: fetch weights unasked, or
anything but JSON, vocabularies and safetensors.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbimg.errors import (
    BackendError,
    KeyRejectedError,
    NbimgError,
    SetupError,
    UnknownNameError,
    UnreachableError,
)
from nbimg.local import shelf

__all__ = ["Wanted", "choose_files", "fetch", "look"]

#: What a part needs beside its weights.
_TEXTS = (".json", ".txt", ".model", ".jinja")
#: Shortest time between two lines about a download, in seconds.
EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What has to be fetched of a model.

    Attributes:
        model: `owner/name`, perhaps with `@revision`.
        commit: The one that the revision means now.
        files: Their names.
        size_bytes: Of all of them.
        folder: Where `model_index.json` is already.
    """

    model: str
    commit: str
    files: tuple[str, ...]
    size_bytes: int
    folder: Path


def look(model: str, endpoint: str | None = None) -> Wanted:
    """Ask the hub what a model is and how large; only a few small JSON files are fetched.

    Args:
        model: `owner/name` or `owner/name@revision`.
        endpoint: Of the hub; None: the usual one, or `HF_ENDPOINT`.

    Raises:
        UnknownNameError: When the hub has no such model.
        KeyRejectedError: When it is gated, and there is no token that may have it.
        SetupError: When it is no diffusers pipeline, or has no safetensors.
        UnreachableError: When the hub cannot be reached.
    """
    import huggingface_hub as hub

    name, _, revision = model.partition("@")
    try:
        found = hub.HfApi(endpoint=endpoint).model_info(
            name, revision=revision or None, files_metadata=True, timeout=20
        )
        sizes = {file.rfilename: int(file.size or 0) for file in found.siblings or ()}
        some = [file for file in ("model_index.json", "transformer/config.json") if file in sizes]
        commit = str(found.sha or revision or "main")
        paths = [
            hub.hf_hub_download(name, file, revision=revision or None, endpoint=endpoint)
            for file in some
        ]
    except Exception as error:
        raise _told(error, name) from None
    if "model_index.json" not in sizes:
        raise SetupError(
            f"{name} holds no diffusers pipeline.", hint="It needs a model_index.json."
        )
    index = json.loads(Path(paths[0]).read_text("utf-8"))
    files = choose_files(sizes, shelf.parts_of(index))
    if not any(file.endswith(".safetensors") for file in files):
        raise SetupError(
            f"{name} has no weights as safetensors.",
            hint="Nothing else is loaded: pickles run code.",
        )
    size = sum(sizes[file] for file in files)
    return Wanted(model, commit, tuple(files), size, Path(paths[0]).parent)


def choose_files(names: Collection[str], parts: Mapping[str, str]) -> list[str]:
    """Return the files of a repository that a pipeline needs; pure.

    Of each part the weights in full precision, or those of one variant where there are no others; all of it
    in one file, or its shards.

    Args:
        names: All files.
        parts: The parts that `model_index.json` lists.
    """
    chosen = ["model_index.json"]
    for part in parts:
        inside = sorted(name for name in names if name.startswith(f"{part}/"))
        chosen += [name for name in inside if name.endswith(_TEXTS) and "index" not in name]
        chosen += _weights([name for name in inside if name.count("/") == 1])
    return sorted(set(chosen))


_FILE = re.compile(
    r"[^/]+/(?P<stem>model|diffusion_pytorch_model)(?P<variant>\.(?!safetensors)\w+)?"
    r"(?P<shard>-\d+-of-\d+)?(?P<index>\.safetensors\.index(?P<late>\.\w+)?\.json|\.safetensors)"
)


def _weights(names: Sequence[str]) -> list[str]:
    found = [(name, match) for name in names if (match := _FILE.fullmatch(name))]
    variants = {match["variant"] or match["late"] for _, match in found}
    variant = None if None in variants else next(iter(sorted(v for v in variants if v)), None)
    same = [(n, m) for n, m in found if (m["variant"] or m["late"]) == variant]
    single = [n for n, m in same if m["shard"] is None and m["index"] == ".safetensors"]
    return single or [name for name, _ in same]


def fetch(
    wanted: Wanted,
    tell: Callable[[str], None],
    stopped: Callable[[], bool],
    endpoint: str | None = None,
) -> Path:
    """Fetch the files of a model into the hub's cache; what is there already is not fetched again.

    Args:
        wanted: What `look` found.
        tell: Told in words how far it is.
        stopped: Asked between two pieces; a download that was stopped goes on where it was, next time.
        endpoint: Of the hub.

    Returns:
        The folder of the pipeline.

    Raises:
        NbimgError: When the hub does not give it, or the disk is full.
    """
    import huggingface_hub as hub

    name, _, _ = wanted.model.partition("@")
    try:
        folder = hub.snapshot_download(
            name,
            revision=wanted.commit,
            allow_patterns=list(wanted.files),
            endpoint=endpoint,
            tqdm_class=_bar(wanted, tell, stopped),
        )
    except Exception as error:
        raise _told(error, name) from None
    if not shelf.whole(Path(folder)):  # the client is content with what it has where nobody answers
        raise UnreachableError(f"the hub did not send all of {name}.", backend="local")
    return Path(folder)


def _bar(wanted: Wanted, tell: Callable[[str], None], stopped: Callable[[], bool]) -> Any:
    """Return a progress bar's class that tells bytes in words; made here, as its base is the hub's."""
    from huggingface_hub.utils.tqdm import tqdm

    state = {"told": 0.0}

    base: Any = tqdm

    class Bar(base):  # type: ignore[misc]  # untyped
        """Counts for `tell` what the hub's client counts for a terminal."""

        def __init__(self, *args: Any, **options: Any) -> None:
            self.bytes = options.get("unit") == "B"
            options["disable"] = True
            super().__init__(*args, **options)
            self.done = float(options.get("initial") or 0)

        def update(self, number: float | None = 1) -> bool | None:
            """Take in so many more."""
            if stopped():
                raise SetupError("the download was stopped; it goes on where it was, next time.")
            self.done += number or 0
            now = time.monotonic()
            if self.bytes and now - state["told"] >= EVERY_S:
                state["told"] = now
                done = min(self.done, wanted.size_bytes)
                tell(f"fetching {wanted.model}: {_size(done)} of {_size(wanted.size_bytes)} …")
            return None

    return Bar


def _size(size_bytes: float) -> str:
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e8 else f"{size_bytes / 1e6:.1f} MB"


def _told(error: Exception, name: str) -> NbimgError:
    """Turn what the hub's client raises into one line."""
    from huggingface_hub import errors

    if isinstance(error, NbimgError):
        return error
    if isinstance(error, errors.GatedRepoError):
        return KeyRejectedError(
            f"{name} is gated: its owner wants to know who has it.",
            hint=f"Agree at https://huggingface.co/{name}, and set HF_TOKEN.",
            backend="local",
        )
    if isinstance(error, errors.RepositoryNotFoundError | errors.RevisionNotFoundError):
        return UnknownNameError(
            "model of the hub", name, hint="Or it is private: set HF_TOKEN. A folder works as well."
        )
    line = (str(error).splitlines() or [type(error).__name__])[0]
    if isinstance(error, OSError) and error.errno == 28:
        return SetupError(f"{name} cannot be fetched: the disk is full.")
    names = {kind.__name__ for kind in type(error).__mro__}  # of whichever HTTP client it uses
    if names & {"TransportError", "RequestException"} or isinstance(
        error, errors.HfHubHTTPError | OSError
    ):
        return UnreachableError(f"the hub does not answer for {name}: {line}", backend="local")
    return BackendError(f"{name} cannot be fetched: {line}", backend="local")

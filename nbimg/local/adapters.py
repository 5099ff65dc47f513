"""LoRA adapters: `--lora`.

Stage: around a call of a pipeline. Comes in: what a request names: a file, a folder or a model of the hub
that is on this machine, each with a weight. Goes out: the pipeline with these adapters, for one call. Must
not: leave one active for the next call, download anything, or read pickled weights.

An adapter is read once for a network and stays beside it, switched off, until others push it out.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import logging
import re
import warnings
import weakref
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbimg.errors import DependencyMissingError, OptionError, UnknownNameError
from nbimg.local.device import needed
from nbimg.local.samplers import sampled
from nbimg.local.speed import accelerated
from nbimg.local.texts import remembered
from nbimg.types import Field

__all__ = ["FIELDS", "Adapter", "adapted", "applied"]

#: Arguments that are done here, and that no pipeline is called with: name → its field.
FIELDS: Mapping[str, Field] = {
    "lora": Field("lora", "any", help="Adapters: files, folders or ids, each SOURCE[:WEIGHT]."),
    "scheduler": Field("scheduler", help="Name of the sampler."),
    "accelerator": Field(
        "accelerator", help="first-block, pyramid or taylorseer; changes a little."
    ),
}

#: How many adapters stay beside a network.
KEPT = 4
#: What a folder's weights are called by those who save them, the usual name first.
_USUAL = "pytorch_lora_weights.safetensors"

_numbers = itertools.count(1)
_loaded: weakref.WeakKeyDictionary[Any, dict[tuple[Path, int], str]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter as a request names it: `SOURCE` or `SOURCE:WEIGHT`."""

    source: str
    weight: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Adapter:
        """Read `SOURCE[:WEIGHT]`.

        >>> Adapter.parse("styles/ink.safetensors:0.8")
        Adapter(source='styles/ink.safetensors', weight=0.8)

        Raises:
            OptionError: When there is no source.
        """
        source, _, weight = text.rpartition(":")
        if source and re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)", weight):
            return cls(source, float(weight))
        if not text.strip():
            raise OptionError("a LoRA needs a file or an id.", hint="Write it like ink:0.8.")
        return cls(text)


@contextlib.contextmanager
def applied(pipe: Any, arguments: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Do what `lora`, `scheduler` and `accelerator` ask for, inside; yield the other arguments.

    Inside, text encoders answer from memory what they were asked before with the same adapters.

    Raises:
        OptionError: When one does not fit the model.
        UnknownNameError: When an adapter is not there.
        DependencyMissingError: When peft is not installed, and there is a LoRA.
        JobFailedError: When the accelerator does not work with the model.
    """
    with (
        sampled(pipe, arguments.get("scheduler")),
        adapted(pipe, arguments.get("lora") or ()) as active,
        accelerated(pipe, arguments.get("accelerator")),
        remembered(pipe, active),
    ):
        yield {name: value for name, value in arguments.items() if name not in FIELDS}


@contextlib.contextmanager
def adapted(pipe: Any, sources: Sequence[str]) -> Iterator[Hashable]:
    """Have the adapters active inside, each with its weight; none of them after.

    Yields:
        What is equal for the same adapters with the same weights, however they are named.

    Raises:
        OptionError: When one does not fit the model.
        UnknownNameError: When one is not there.
        DependencyMissingError: When peft is not installed.
    """
    if not sources:
        yield ()
        return
    if not hasattr(pipe, "load_lora_weights"):
        raise OptionError(f"{type(pipe).__name__} takes no LoRA.")
    if not _peft():
        raise DependencyMissingError(
            "a LoRA needs peft, which is not installed.",
            hint="pip install -U peft, then restart the kernel.",
        )
    wanted = [Adapter.parse(text) for text in sources]
    files = [_file(adapter.source) for adapter in wanted]
    try:
        with _silent():
            names = [_name(pipe, *pair, files) for pair in zip(wanted, files, strict=True)]
            pipe.enable_lora()
            pipe.set_adapters(names, [adapter.weight for adapter in wanted])
        yield tuple((name, adapter.weight) for name, adapter in zip(names, wanted, strict=True))
    finally:
        with (
            _silent(),
            contextlib.suppress(ValueError),
        ):  # a network without any has none to switch off
            pipe.disable_lora()


def _peft() -> bool:
    """Whether diffusers has found a peft that it can use, which it looks for once."""
    needed()
    return bool(importlib.import_module("diffusers.utils").USE_PEFT_BACKEND)


def _file(source: str) -> Path:
    """Return the file of an adapter: of a file, a folder, or `owner/name[/file]` of the hub's cache."""
    path = Path(source).expanduser()
    if not path.exists():
        path = _cached(source)
    if path.is_dir():
        found = sorted(path.glob("*.safetensors"))
        usual = [file for file in found if file.name == _USUAL]
        if len(found) != 1 and not usual:
            told = ", ".join(file.name for file in found[:5]) or "no safetensors"
            raise OptionError(f"the LoRA {source} holds {told}.", hint="Name one file.")
        path = usual[0] if usual else found[0]
    if path.suffix != ".safetensors":
        raise OptionError(
            f"the LoRA {source} is no safetensors file.",
            hint="Nothing else is loaded: pickles run code.",
        )
    return path.resolve()


def _cached(source: str) -> Path:
    match = re.fullmatch(r"([\w.-]+/[\w.-]+)(/.+)?", source)
    if match is None:
        raise UnknownNameError(
            "LoRA", source, hint="Give a file, a folder, or an id of the hub, OWNER/NAME."
        )
    missing = UnknownNameError(
        "LoRA on this machine", source, hint=f"If the hub has it: !hf download {match[1]}"
    )
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(match[1], local_files_only=True))
    except (OSError, ValueError):
        raise missing from None
    path = folder / (match[2] or "").strip("/")
    if not path.exists() or ".." in path.parts:
        raise missing
    return path


def _name(pipe: Any, adapter: Adapter, file: Path, files: Sequence[Path]) -> str:
    """Return the name of an adapter beside the network, read now or before."""
    network = getattr(pipe, "transformer", None) or pipe.unet
    known = _loaded.setdefault(network, {})
    key = (file, file.stat().st_mtime_ns)
    if key in known:
        known[key] = known.pop(key)  # the latest used is the last to go
        return known[key]
    name = f"nbimg{next(_numbers)}"
    try:
        fits = _read(pipe, file, name)
        reason = "it changes no part of it"
    except Exception as error:  # the libraries below raise whatever happens to fail first
        fits, reason = False, _reason(error)
    if not fits:
        _forget(pipe, name)
        raise OptionError(
            f"the LoRA {adapter.source} does not fit {_about(pipe)}: {reason}.",
            hint=None if "damaged" in reason else "It was made for another model.",
        )
    known[key] = name
    for old in [old for old in known if old[0] not in files][: max(0, len(known) - KEPT)]:
        _forget(pipe, known.pop(old))
    return name


def _read(pipe: Any, file: Path, name: str) -> bool:
    """Put an adapter beside the network; False where no part of the model has a place for it."""
    pipe.load_lora_weights(
        str(file.parent),
        weight_name=file.name,
        adapter_name=name,
        use_safetensors=True,
        local_files_only=True,
    )
    return any(name in names for names in pipe.get_list_adapters().values())


def _reason(error: Exception) -> str:
    text = str(error)
    if "size mismatch" in text:
        return "its weights have other sizes"
    if type(error).__name__ == "SafetensorError":
        return "the file is damaged"
    return re.split(r"[\n:]", text.strip(), maxsplit=1)[0][:120].rstrip(".") or type(error).__name__


def _about(pipe: Any) -> str:
    where = str(getattr(pipe, "name_or_path", "") or "")
    return f"{Path(where).name} ({type(pipe).__name__})" if where else type(pipe).__name__


def _forget(pipe: Any, name: str) -> None:
    with contextlib.suppress(Exception):  # half an adapter may lack what is taken away
        pipe.delete_adapters(name)
    with contextlib.suppress(Exception):
        if not any(pipe.get_list_adapters().values()):
            pipe.unload_lora_weights()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep what the libraries say about an adapter out of the notebook; our one line says it."""
    logger = logging.getLogger("diffusers")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)

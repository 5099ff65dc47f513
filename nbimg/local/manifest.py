"""What a model's folder says about itself beyond diffusers' own files: `nbimg.json`, when there is one.

Stage: below the pipelines. Comes in: a folder. Goes out: the tasks a model does with their good
defaults, and its vocabulary if it is a closed one. Reads JSON only; runs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbimg.errors import SetupError, UnknownNameError
from nbimg.local import shelf

__all__ = ["Manifest", "find_folder", "read"]

#: Names in `nbimg.json` → arguments of a pipeline's call.
_ARGUMENTS = {
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "image_guidance": "image_guidance_scale",
}


@dataclass(frozen=True)
class Manifest:
    """A model on this machine.

    Attributes:
        folder: Where it is.
        pipeline: Name of its diffusers class.
        name: What the user calls it.
        tasks: Task (`generate`, `edit`) → default arguments of its call; empty: nothing is known.
        size_px: Width and height it was trained for; None: any.
        slice_conv_in: Whether one network edits and makes: making uses the first half of the
            channels that go in (see `pipelines`).
        vocabulary: The words it knows, in lower case; empty: any.
        about_vocabulary: What it can draw, in one line.
        distilled: Whether its network was trained to be told the guidance.
        guided: Whether guidance has an effect at all; it has none where few steps were trained for.
    """

    folder: Path
    pipeline: str
    name: str = ""
    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    size_px: tuple[int, int] | None = None
    slice_conv_in: bool = False
    vocabulary: frozenset[str] = frozenset()
    about_vocabulary: str = ""
    distilled: bool = False
    guided: bool = True


def find_folder(model: str) -> Path:
    """Return the folder of a model that is on this machine already.

    Args:
        model: A folder, or the id of a model of the hub that was fetched before.

    Raises:
        UnknownNameError: When there is none.
        SetupError: When it holds no diffusers pipeline.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir() and shelf.is_hub_id(model) and (found := shelf.snapshot(model)):
        return found
    if not folder.is_dir():
        raise UnknownNameError(
            "local model",
            model,
            hint="Give a folder with a model_index.json, local:FOLDER, or a model of the hub, "
            "local:OWNER/NAME.",
        )
    if not (folder / "model_index.json").is_file():
        raise SetupError(
            f"{folder} holds no diffusers pipeline.", hint="It needs a model_index.json."
        )
    return folder


def read(folder: Path, name: str | None = None) -> Manifest:
    """Read `model_index.json` and, when it is there, `nbimg.json`.

    Args:
        folder: Of the pipeline.
        name: What the user calls it; None: the folder.

    Raises:
        SetupError: When a file is not JSON.
    """
    index = _json(folder / "model_index.json")
    own = _json(folder / "nbimg.json") if (folder / "nbimg.json").is_file() else {}
    try:
        tasks = {name: dict(card) for name, card in own.get("tasks", {}).items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise SetupError(f"{folder / 'nbimg.json'} cannot be read: {error}.") from error
    size = next((card["size_px"] for card in tasks.values() if "size_px" in card), None)
    groups = own.get("vocabulary", {})
    return Manifest(
        folder=folder,
        pipeline=str(index.get("_class_name", "")),
        name=name or str(folder),
        tasks={
            name: {_ARGUMENTS[key]: value for key, value in card.items() if key in _ARGUMENTS}
            for name, card in tasks.items()
        },
        size_px=(size[0], size[1]) if size else None,
        slice_conv_in=any(card.get("slice_conv_in") for card in tasks.values()),
        vocabulary=frozenset(own.get("known_words", ())),
        about_vocabulary=_about(groups) if groups else "",
        distilled=_distilled(folder),
        guided=not index.get("is_distilled"),  # Flux 2 Klein's word for it
    )


def _distilled(folder: Path) -> bool:
    config = folder / "transformer" / "config.json"
    return bool(_json(config).get("guidance_embeds")) if config.is_file() else False


def _about(groups: Mapping[str, list[str]]) -> str:
    """What the model can draw, in a few words of its own, and how to use a bigger one."""
    listed = "; ".join(", ".join(groups[name]) for name in ("things", "colours", "times"))
    return f"It draws {listed}. For anything else name a bigger model: %imgmodels lists them."


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SetupError(f"{path} cannot be read: {error}.") from error
    return data if isinstance(data, dict) else {}

"""What is wrong with a model's folder, found before anything of it is loaded.

Stage: below loading. Comes in: a folder. Goes out: nothing, or one line that names what is wrong. Reads
names and JSON. Must not: load a weight, or run code from the folder.
"""

from __future__ import annotations

from pathlib import Path

from nbimg.errors import SetupError
from nbimg.local import shelf

__all__ = ["check"]

#: Endings of weights that run code when they are read.
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def check(folder: Path, name: str) -> None:
    """Look for what would make loading fail, or would want to run code.

    Args:
        folder: Of a pipeline.
        name: What the user calls it.

    Raises:
        SetupError: When the folder is not whole, is pickled, or carries code.
    """
    index = shelf.index(folder)
    kind = index.get("_class_name")
    if isinstance(kind, list):
        raise _code(name, f"{kind[0]}.py" if kind else "a class")
    if not kind or not isinstance(kind, str):
        raise SetupError(f"{name} does not name its pipeline.", hint="See its model_index.json.")
    for part in shelf.parts_of(index):
        place, library = folder / part, index[part][0]
        if not place.is_dir():
            raise SetupError(f"{name} has no folder {part}.", hint="Is it copied completely?")
        if (place / f"{library}.py").is_file():
            raise _code(name, f"{part}/{library}.py")
        files = [path for path in place.iterdir() if path.is_file()]
        pickled = any(path.suffix in _PICKLES for path in files)
        if pickled and not any(path.suffix == ".safetensors" for path in files):
            raise SetupError(
                f"{name} has only pickled weights of its {part}: nothing but safetensors is loaded.",
                hint="Pickles run code. Take a model that has safetensors.",
            )


def _code(name: str, file: str) -> SetupError:
    return SetupError(
        f"{name} wants to run code of its own ({file}), which nbimg does not do.",
        hint="Take a model that diffusers itself has a class for.",
    )

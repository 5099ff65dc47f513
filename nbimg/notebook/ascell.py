"""A request → the cell that makes the same.

Stage: the front end. Comes in: a request, the model that made it, the seed. Goes out: the text of a `%%imggen`
or `%%imgedit` cell. Pure, but that paths are told relative to the notebook's folder. Must not: copy a prompt
so that its braces would mean something else.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nbimg.text import cell
from nbimg.text.cell import Block, CellSpec
from nbimg.text.expand import escape
from nbimg.text.options import find_names
from nbimg.types import ImageRecord, InputImage, Request

__all__ = ["as_cell", "near", "written"]


def as_cell(request: Request, *, model: str | None, seed: int | None) -> str:
    """Return a cell that asks for one image again.

    >>> print(as_cell(Request("a {b}", n=4), model="demo", seed=5))
    %%imggen -m demo --seed 5
    a {{b}}

    Args:
        request: What was asked; images are files of this machine.
        model: The one that made it; None: the request's own, if it names one.
        seed: The one that made it.
    """
    plain = request.to_dict()
    options = {
        name: plain[name]
        for name in find_names("request")
        if name in plain and name not in ("image", "mask", "n", "seed", "model")
    }
    if request.negative:
        options["negative"] = escape(request.negative)
    if request.size is not None:
        options["size"] = str(request.size)
    if seed is not None:
        options = {"seed": seed, **options}
    if model := model or request.model:
        options = {"model": (model,), **options}
    call: dict[str, Any] = {}
    if len(request.image) > 1:
        call["mode"] = "combine"
    if request.mask is not None:
        options["mask"] = _place(request.mask)
    magic = "imgedit" if request.image else "imggen"
    images = tuple(map(_place, request.image))
    spec = CellSpec(magic, call, options, images, (Block(escape(request.prompt)),))
    return written(magic, *cell.format(spec))


def written(magic: str, line: str, body: str) -> str:
    """Return a cell as it is typed."""
    return f"%%{magic} {line}".rstrip() + f"\n{body}"


def near(path: str | Path) -> str:
    """Return a path as seen from the notebook's folder, where it is inside of it."""
    path = Path(path)
    with_base = Path.cwd()
    return os.fspath(path.relative_to(with_base)) if path.is_relative_to(with_base) else str(path)


def _place(image: Any) -> str:
    if isinstance(image, InputImage | ImageRecord):
        return near(image.path) if image.path else str(getattr(image, "url", "") or "")
    return str(image)

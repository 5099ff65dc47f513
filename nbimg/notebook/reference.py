"""Images as a panel refers to them: what stands in its form, and travels from gallery to panel.

Stage: the front end, below panel and gallery. Comes in: records. Goes out: JSON data. Pure, but that paths are
told relative to the notebook's folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nbimg.notebook.ascell import near
from nbimg.types import ImageRecord

__all__ = ["reference", "references"]


def references(records: Iterable[ImageRecord]) -> list[dict[str, Any]]:
    """Return images as a panel refers to them; those without a file are left out."""
    return [
        reference(r.path, r.path.name, r.sha256, r.width, r.height)
        for r in records
        if r.path is not None
    ]


def reference(path: Path, name: str, sha256: str, width: int, height: int) -> dict[str, Any]:
    """Return what a panel keeps of an image that it refers to."""
    size = {"width": width, "height": height}
    return {"path": near(path), "name": name, "sha256": sha256, **size}

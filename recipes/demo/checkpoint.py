"""Checkpoints that are never half written, and the running average of weights."""

from pathlib import Path
from typing import Any

import torch

RUNS = Path(__file__).parent / "runs"


def write(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint beside its place, then move it there in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    torch.save(state, aside)
    aside.replace(path)


def read(path: Path) -> dict[str, Any] | None:
    """Return the checkpoint at `path`, or None when there is none."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def blend(average: torch.nn.Module, model: torch.nn.Module, keep: float) -> None:
    """Move `average` towards `model`: each weight keeps the share `keep` (0-1) of itself."""
    ours, theirs = list(average.parameters()), list(model.parameters())
    with torch.no_grad():
        torch._foreach_lerp_(ours, theirs, 1 - keep)  # public in all but name

"""Where pictures stand and how wide they are, before there is one: what the live grid and the grid share.

Stage: below the grids. Comes in: how many, in which shape, with which labels. Goes out: numbers. Must not:
know what a tile shows.

Pictures of one shape stand in columns of one width. Of several shapes they stand in rows of one height,
each as wide as its shape wants.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from nbimg.types import Request

__all__ = [
    "GAP_PX",
    "JOINT",
    "LABEL_PX",
    "Frame",
    "beside",
    "chunks",
    "deal",
    "frame",
    "is_mixed",
    "usual",
    "width",
]

T = TypeVar("T")

AREA_SIDE_PX = 256  # a tile takes the area of this square, whatever its shape
PAGE_PX = 1000
GAP_PX = 12
LABEL_PX = 128  # row labels at the left of their rows
SHORT_LABEL = 24  # characters; longer row labels stand above their row
JOINT = " · "  # between the parts of a label, see `nbimg.text.expand`
MOST_ACROSS = 12  # with more columns the axes cannot be read: the tiles flow instead
MOST_LABELLED = 60  # pictures in a row of the axes
ALIKE = 1.15  # shapes that differ by less are one


@dataclass(frozen=True)
class Frame:
    """How the live grid is laid out.

    Attributes:
        width_px: CSS width of a tile.
        aspect: Width through height of a picture that is not there yet.
        rows: Labels of the rows, or none.
        columns: Labels of the columns, or none.
        per_row: Tiles in a row; None: as many as the window takes.
        across: Cells in a row of the axes; 0: there are none.
        cells: For each picture the number of its cell, row by row; empty: they flow.
    """

    width_px: int
    aspect: float
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    per_row: int | None = None
    across: int = 0
    cells: tuple[int, ...] = ()


def frame(
    requests: Sequence[Request],
    *,
    rows: Sequence[str] = (),
    columns_labels: Sequence[str] = (),
    columns: int | None = None,
    flows: bool = False,
) -> Frame:
    """Return where the pictures of a call will stand.

    Args:
        requests: In the order of the tasks; in a fan-out the row changes slowest.
        rows: A label for each row of a fan-out.
        columns_labels: A label for each column of a fan-out.
        columns: Tiles in a row, for a grid without axes.
        flows: Whether they flow all the same, as the newest of many do.
    """
    aspect = usual([shape for request in requests if (shape := _asked(request))])
    groups = [[number] * request.n for number, request in enumerate(requests)]
    matrix = [] if flows else deal(groups, rows, columns_labels)
    if not matrix:
        return Frame(width(aspect, columns or 0, ()), aspect, per_row=columns)
    across = max(map(len, matrix))
    at = {task: k for k, cell in enumerate(c for row in matrix for c in row) for task in cell}
    return Frame(
        width(aspect, across, rows),
        aspect,
        tuple(rows),
        tuple(columns_labels),
        None,
        across,
        tuple(at[task] for group in groups for task in group),
    )


def deal(
    groups: Sequence[Sequence[T]], rows: Sequence[str], columns: Sequence[str]
) -> list[list[list[T]]]:
    """Deal tiles out: row slowest, then column, then what is left over within a cell.

    Args:
        groups: The tiles of each task.
        rows: Labels of the rows.
        columns: Labels of the columns.

    Returns:
        Rows of cells of tiles; nothing where there are no axes, or too many columns to be read.
    """
    down = max(1, len(rows))
    across = len(columns) or (-(-len(groups) // down) if rows else 0)
    if not groups or not 0 < across <= MOST_ACROSS:
        return []
    depth = max(1, -(-len(groups) // (down * across))) if down > 1 else 1
    cells = [[tile for group in part for tile in group] for part in chunks(groups, depth)]
    matrix = [list(row) for row in chunks(cells, across)]
    return matrix if sum(map(len, matrix[0])) <= MOST_LABELLED else []


def usual(shapes: Sequence[float]) -> float:
    """Return the usual one of several shapes, each a width through a height; a square by default."""
    return float(statistics.median(shapes)) if shapes else 1.0


def is_mixed(shapes: Sequence[float]) -> bool:
    """Return whether pictures of such shapes stand in rows of one height."""
    return bool(shapes) and max(shapes) > ALIKE * min(shapes)


def width(shape: float, across: int, rows: Sequence[str]) -> int:
    """Return the CSS width of a tile in pixels, so that `across` fit beside each other."""
    wide = min(288, max(176, round(AREA_SIDE_PX * math.sqrt(shape))))
    if not across:
        return wide
    free = PAGE_PX - (LABEL_PX + GAP_PX if beside(rows) else 0)
    return min(wide, max(120, free // across - GAP_PX))


def beside(rows: Sequence[str]) -> bool:
    """Return whether row labels are short enough to stand at the left of their rows."""
    return bool(rows) and max(len(part) for row in rows for part in row.split(JOINT)) <= SHORT_LABEL


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut a sequence into parts of `size`; the last may be shorter."""
    return (items[start : start + size] for start in range(0, len(items), size))


def _asked(request: Request) -> float:
    """Return the shape that was asked for; 0 where none was."""
    if request.size is not None:
        return request.size.width / request.size.height
    if request.ar is not None:
        wide, high = map(float, request.ar.split(":"))
        return wide / high
    return 0.0

"""The static grid: first the numbers (`plan`), then the HTML (`render`).

Stage: the end of a cell. Comes in: results, and a callable that gives the bytes of a thumbnail.
Goes out: HTML that needs no kernel, no JavaScript, no style sheet and no server. Must not: open a
file.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nbimg import pixels
from nbimg.display import layout, words
from nbimg.display import tile as tiles
from nbimg.display.html import Markup, element, join
from nbimg.display.tile import Tile
from nbimg.errors import NbimgError
from nbimg.types import ImageRecord, Result, Status

__all__ = ["Plan", "Thumb", "plan", "render", "summary"]

Thumb = Callable[[ImageRecord, int], "bytes | None"]
"""Gives an image's thumbnail, its longer side as wanted in pixels, or None where there is none."""

EMBEDDED = 60
LINKED = 1000
AREA_SIDE_PX = 256  # a tile takes the area of this square, whatever its shape
SINGLE_SIDE_PX = 384
SINGLE_ZOOM = 2  # a single thumbnail is enlarged by so much at most
CANCELLED_SHOWN = 4  # with more, or beside images, their number says enough
CHARACTER_PX = 7
PAGE_PX = 1000
NOTICES_SHOWN = 6
MOST_ACROSS = 12  # with more columns the axes cannot be read: the tiles flow instead


@dataclass(frozen=True)
class Plan:
    """What is shown where; no HTML yet.

    Attributes:
        cells: Rows of cells of tiles. Without axes there is one row, and each cell has one tile.
        rest: Tiles that are linked rather than embedded.
        rows: Labels of the rows, or none.
        columns: Labels of the columns, or none.
        per_row: Tiles in a row; None: as many as the window takes.
        width_px: CSS width of a tile.
        results: All results, for the lines under the grid.
        note: A line of the caller's own.
        folder: Where the files are, as text.
    """

    cells: tuple[tuple[tuple[Tile, ...], ...], ...]
    rest: tuple[Tile, ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    per_row: int | None
    width_px: int
    results: tuple[Result, ...]
    note: str | None
    folder: str

    @property
    def tiles(self) -> tuple[Tile, ...]:
        """The embedded tiles in reading order."""
        return tuple(tile for row in self.cells for cell in row for tile in cell)


def plan(
    results: Sequence[Result],
    *,
    thumb: Thumb,
    rows: Sequence[str] = (),
    columns_labels: Sequence[str] = (),
    columns: int | None = None,
    note: str | None = None,
    base: Path | None = None,
) -> Plan:
    """Decide what is embedded, what is linked, and how wide a tile is.

    Args:
        results: In the order of the tasks: with axes the row changes slowest.
        thumb: Called once for each embedded image.
        rows: A label for each row of a fan-out.
        columns_labels: A label for each column of a fan-out.
        columns: Tiles in a row, for a grid without axes.
        note: A line under the grid.
        base: Folder of the notebook, for relative links; the working folder by default.

    Returns:
        The plan.
    """
    base = Path.cwd() if base is None else base
    groups = _groups(results, base)
    everything = [tile for group in groups for tile in group]
    matrix = _cells(groups, rows, columns_labels)
    labels = (*rows, *columns_labels) if matrix else ()
    rows = [row for row, cells in zip(rows, matrix, strict=False) if any(cells)]
    matrix = [cells for cells in matrix if any(cells)]
    shown, rest = _split(matrix or [[[tile] for tile in everything]], whole_rows=bool(matrix))
    across = len(matrix[0]) if matrix else columns or 0
    shape = _shape(results)
    width = _width(shape, across, rows if matrix else ())
    alone = len(everything) == 1 and not matrix
    side = SINGLE_SIDE_PX if alone else pixels.THUMB_SIDE_PX
    lines = 1 if len({result.request.prompt for result in results}) < 2 else 2
    caption = 0 if matrix else min(tiles.CAPTION_CHARACTERS, 2 * width // CHARACTER_PX)
    said = _said(results, labels, everything if matrix else ())

    def filled(tile: Tile) -> Tile:
        worded = replace(tile, lines=lines, caption=caption, said=said)
        full = _filled(worded, thumb, side, width, shape)
        return _alone(full) if alone else full

    return Plan(
        cells=tuple(tuple(tuple(map(filled, cell)) for cell in row) for row in shown),
        rest=tuple(rest),
        rows=tuple(rows) if matrix else (),
        columns=tuple(columns_labels) if matrix else (),
        per_row=None if matrix else columns,
        width_px=width,
        results=tuple(results),
        note=note,
        folder=_folder(everything),
    )


def render(plan: Plan) -> str:
    """Return the grid as HTML."""
    if not plan.results:
        return element("div", "No images.", style={"opacity": "0.66"})
    grid = None
    if plan.rows or plan.columns:
        grid = layout.axes(plan.cells, plan.rows, plan.columns, plan.width_px)
    elif plan.tiles:
        grid = layout.flow(plan.tiles, plan.width_px, plan.per_row)
    style = {"font-size": "13px", "line-height": "1.4", "text-align": "left", "padding": "4px 0"}
    return element("div", grid, _rest(plan), _footer(plan), style=style)


def summary(results: Sequence[Result], *, folder: str = "") -> str:
    """Return one line: how many, what failed, which model and size, how long, what it cost, where it is.

    The time is that of the slowest task from the start of the batch to its end.
    """
    made = [image for result in results for image in result.images]
    kinds = {image.kind for image in made}
    noun = "video" if kinds == {"video"} else "image"
    parts = [words.count(len(made), noun)]
    for status, (sign, word) in tiles.STATUS.items():
        number = sum(result.status is status for result in results)
        if number and status is not Status.OK:
            parts.append(f"{sign} {number} {word.lower()}")
    parts.append(words.listed(_models(results)))
    parts += sizes if len(sizes := _sizes(results)) == 1 else ()
    fresh = [result for result in results if not result.cached]
    if len(fresh) < len(results):
        parts.append(f"↺ {len(results) - len(fresh)} cached" if fresh else "↺ all cached")
    if fresh:
        spent = [r.seconds.queued + r.seconds.running + r.seconds.download for r in fresh]
        if max(spent) > 0:
            parts.append(words.duration(max(spent)))
    parts.append(_cost(fresh))
    if folder and made:
        parts.append(f"saved in {folder}")
    return " · ".join(part for part in parts if part)


def _groups(results: Sequence[Result], base: Path) -> list[list[Tile]]:
    """Return the tiles of each task; what was cancelled takes no room where that would be most."""
    stopped = [not result.images and result.status is Status.CANCELLED for result in results]
    hidden = sum(stopped) > CANCELLED_SHOWN or any(result.images for result in results)
    return [
        [] if hidden and gone else _tiles_of(result, base)
        for result, gone in zip(results, stopped, strict=True)
    ]


def _tiles_of(result: Result, base: Path) -> list[Tile]:
    """Return a tile for each image, and one for what is missing."""
    found = []
    for variant, image in enumerate(result.images):
        place, href = tiles.place_of(image, base)
        found.append(Tile(result, variant, place=place, href=href, first=variant == 0))
    if not found or result.status is Status.PARTIAL:
        found.append(Tile(result, first=not found))
    return found


def _cells(
    groups: list[list[Tile]], rows: Sequence[str], columns: Sequence[str]
) -> list[list[list[Tile]]]:
    """Deal the tiles out: row slowest, then column, then what is left over within a cell.

    Returns:
        Nothing where there are no axes, or too many columns to be read.
    """
    down = max(1, len(rows))
    across = len(columns) or (-(-len(groups) // down) if rows else 0)
    if not groups or not 0 < across <= MOST_ACROSS:
        return []
    depth = max(1, -(-len(groups) // (down * across))) if down > 1 else 1
    cells = [[tile for group in part for tile in group] for part in layout.chunks(groups, depth)]
    matrix = [list(row) for row in layout.chunks(cells, across)]
    return matrix if sum(map(len, matrix[0])) <= EMBEDDED else []


def _split(
    matrix: list[list[list[Tile]]], *, whole_rows: bool
) -> tuple[list[list[list[Tile]]], list[Tile]]:
    """Part what is embedded from what is linked."""
    if not whole_rows:
        return [matrix[0][:EMBEDDED]], [tile for cell in matrix[0][EMBEDDED:] for tile in cell]
    total, keep = 0, 0
    for row in matrix:
        total += sum(len(cell) for cell in row)
        if total > EMBEDDED and keep:
            break
        keep += 1
    return matrix[:keep], [tile for row in matrix[keep:] for cell in row for tile in cell]


def _shape(results: Sequence[Result]) -> float:
    """Return the width divided by the height of the usual picture of the set."""
    sizes = [(i.width, i.height) for r in results for i in r.images if i.width and i.height]
    return float(statistics.median(width / height for width, height in sizes)) if sizes else 1.0


def _width(shape: float, across: int, rows: Sequence[str]) -> int:
    """Return the CSS width of a tile in pixels, so that `across` fit beside each other."""
    width = min(288, max(176, round(AREA_SIDE_PX * math.sqrt(shape))))
    if not across:
        return width
    free = PAGE_PX - (layout.LABEL_PX + layout.GAP_PX if layout.beside(rows) else 0)
    return min(width, max(120, free // across - layout.GAP_PX))


def _models(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(tiles.model_name(result.model) for result in results if result.model))


def _sizes(results: Sequence[Result]) -> list[str]:
    sizes = (tiles.size_of(image) for result in results for image in result.images)
    return [size for size in dict.fromkeys(sizes) if size]


def _said(
    results: Sequence[Result], labels: Sequence[str], shown: Sequence[Tile]
) -> frozenset[str]:
    """Return the facets that no tile repeats.

    Those are the only model and the only size, which stand in the line under the grid; and where
    there are axes, what these say and what all of the pictures `shown` have in common.
    """
    said = {
        one
        for several in (_models(results), _sizes(results))
        if len(several) == 1
        for one in several
    }
    said.update(part for label in labels for part in label.split(layout.JOINT))
    facets = [set(tiles.facets(tile)) for tile in shown if tile.image]
    return frozenset(said.union(set.intersection(*facets) if facets else ()))


def _filled(tile: Tile, thumb: Thumb, side_px: int, width_px: int, shape: float) -> Tile:
    """Give a tile its thumbnail and its size.

    A small picture is enlarged by a third at most; one that is much taller than its neighbours is
    made narrower, so that it does not tear the rows apart.
    """
    image, data, wide = tile.image, None, width_px
    if image is not None:
        try:
            data = thumb(image, side_px)
        except NbimgError:  # a file that has gone is told in its tile
            data = None
        if image.width and image.height:
            tallest = width_px / shape * 1.2
            fitting = min(width_px, image.width * 4 / 3, tallest * image.width / image.height)
            wide = max(48, round(fitting))
    height_px = round(width_px / shape)
    return replace(tile, thumb=data, width_px=wide, height_px=height_px)


def _alone(tile: Tile) -> Tile:
    """Show a single picture large: up to twice its thumbnail."""
    tile = replace(tile, lines=2, caption=tiles.CAPTION_CHARACTERS)
    if tile.thumb is None:
        return replace(tile, width_px=320, height_px=0)
    try:
        small = pixels.probe(tile.thumb)
    except NbimgError:
        return tile
    zoom = min(SINGLE_SIDE_PX / max(small.width, small.height), SINGLE_ZOOM)
    return replace(tile, width_px=max(16, round(small.width * zoom)))


def _rest(plan: Plan) -> Markup | None:
    """The tiles that are not embedded, as links."""
    if not plan.rest:
        return None
    lines = list(_links(plan.rest[:LINKED]))
    if len(plan.rest) > LINKED:
        more = f"… and {len(plan.rest) - LINKED:,} more in {plan.folder or 'the output folder'}"
        lines.append(element("div", more))
    summary_ = element("summary", f"{len(plan.rest):,} more", style={"cursor": "pointer"})
    inside = element("div", *lines, style={"max-height": "320px", "overflow": "auto"})
    return element("details", summary_, inside, style={"margin": "0 0 8px"})


def _links(rest: Sequence[Tile]) -> Iterator[Markup]:
    for tile in rest:
        short = words.shorten(tile.result.request.prompt, 60) or "(no prompt)"
        number = f"{tile.result.index + 1}. "
        if tile.image is None:
            sign, word = tiles.STATUS[tile.result.status]
            why = words.shorten(tiles.reason_of(tile.result), 120)
            yield element("div", number, element("bdi", short), f" · {sign} {word} {why}".rstrip())
            continue
        name = tile.place.rsplit("/", 1)[-1]
        link = element("a", name, href=tile.href, target="_blank") if tile.href else tile.place
        yield element("div", number, link, " · ", element("bdi", short))


def _footer(plan: Plan) -> Markup:
    """What holds for the whole: one line of numbers, then the notices."""
    line = element("div", summary(plan.results, folder=plan.folder), style={"opacity": "0.8"})
    told: dict[str, int] = {}
    for result in plan.results:
        for notice in result.notices:
            told[notice] = told.get(notice, 0) + 1
    lines = [
        notice if number == 1 or len(plan.results) == 1 else f"{notice} ({number} tasks)"
        for notice, number in list(told.items())[:NOTICES_SHOWN]
    ]
    if len(told) > NOTICES_SHOWN:
        lines.append(f"{len(told) - NOTICES_SHOWN} more notices are in the details of the tiles.")
    if plan.note:
        lines.append(plan.note)
    style = {"margin": "4px 0 0", "padding": "0 0 0 8px", "opacity": "0.8"}
    style["border-left"] = "2px solid rgba(127,127,127,0.5)"
    return join((line, *(element("div", text, dir="auto", style=style) for text in lines)))


def _cost(fresh: Sequence[Result]) -> str:
    """Say what was spent, if anything."""
    spent = sum(result.cost_usd or 0.0 for result in fresh)
    unknown = sum(result.cost_usd is None and bool(result.images) for result in fresh)
    if spent <= 0:
        return "price unknown" if unknown else ""
    return words.money(spent) + (f" and {unknown} of unknown price" if unknown else "")


def _folder(shown: Sequence[Tile]) -> str:
    """Return the folder that all files share, or an empty string."""
    parents = {tile.place.rpartition("/")[0] for tile in shown if tile.image and tile.image.path}
    return parents.pop() or "this folder" if len(parents) == 1 else ""

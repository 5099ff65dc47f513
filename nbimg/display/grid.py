"""The static grid: first the numbers (`plan`), then the HTML (`render`).

Stage: the end of a cell. Comes in: results, and a callable that gives the bytes of a thumbnail.
Goes out: HTML that needs no kernel, no JavaScript, no style sheet and no server. Must not: open a
file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nbimg.display import frame, layout, words
from nbimg.display import tile as tiles
from nbimg.display.html import Markup, element, join
from nbimg.display.tile import Tile
from nbimg.errors import NbimgError
from nbimg.media import pixels
from nbimg.types import ImageRecord, Result, Status

__all__ = ["Plan", "Thumb", "plan", "render", "summary"]

Thumb = Callable[[ImageRecord, int], "bytes | None"]
"""Gives an image's thumbnail, its longer side as wanted in pixels, or None where there is none."""

EMBEDDED = 60
FOLDED = 140  # more pictures, small and unfolded on demand: a set of 500 still opens well
FOLDED_SIDE_PX = 128
LINKED = 1000
SINGLE_SIDE_PX = 384
SINGLE_ZOOM = 2  # a single thumbnail is enlarged by so much at most
CANCELLED_SHOWN = 4  # with more, or beside images, their number says enough
CHARACTER_PX = 7
LEAST_CELL_PX = 112  # a caption is never narrower
NOTICES_SHOWN = 6


@dataclass(frozen=True)
class Plan:
    """What is shown where; no HTML yet.

    Attributes:
        cells: Rows of cells of tiles. Without axes there is one row, and each cell has one tile.
        folded: Small tiles, shown on demand.
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
    folded: tuple[Tile, ...]
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
        """The tiles that are seen at once, in reading order."""
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
    """Decide what is embedded, what is unfolded on demand, what is linked, and how wide a tile is.

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
    matrix = frame.deal(groups, rows, columns_labels)
    labels = (*rows, *columns_labels) if matrix else ()
    rows = [row for row, cells in zip(rows, matrix, strict=False) if any(cells)]
    matrix = [cells for cells in matrix if any(cells)]
    shown, rest = _split(matrix or [[[tile] for tile in everything]], whole_rows=bool(matrix))
    across = len(matrix[0]) if matrix else columns or 0
    shapes = [i.width / i.height for r in results for i in r.images if i.width and i.height]
    shape = frame.usual(shapes)
    width = frame.width(shape, across, rows if matrix else ())
    alone = len(everything) == 1 and not matrix
    side = SINGLE_SIDE_PX if alone else pixels.THUMB_SIDE_PX
    lines = 1 if len({result.request.prompt for result in results}) < 2 else 2
    said = _said(results, labels, everything if matrix else ())
    mixed = not matrix and columns is None and frame.is_mixed(shapes)

    def filled(tile: Tile) -> Tile:
        full = _filled(
            replace(tile, lines=lines, said=said), thumb, side, width, shape, mixed=mixed
        )
        full = replace(
            full, caption=0 if matrix else _characters(full.width_px if mixed else width)
        )
        return _alone(full) if alone else full

    def small(tile: Tile) -> Tile:
        worded = replace(tile, lines=1, said=said, caption=_characters(FOLDED_SIDE_PX))
        return _filled(worded, shrunk, FOLDED_SIDE_PX, FOLDED_SIDE_PX, shape)

    def shrunk(image: ImageRecord, side_px: int) -> bytes | None:
        data = thumb(image, pixels.THUMB_SIDE_PX)  # which is there already; the file is far larger
        return pixels.thumbnail(data, side_px=side_px) if data is not None else None

    return Plan(
        cells=tuple(tuple(tuple(map(filled, cell)) for cell in row) for row in shown),
        folded=tuple(map(small, rest[:FOLDED])),
        rest=tuple(rest[FOLDED:]),
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
        grid = layout.flow(plan.tiles, plan.per_row)
    style = {"font-size": "13px", "line-height": "1.4", "text-align": "left", "padding": "4px 0"}
    return element("div", grid, _more(plan), _footer(plan), style=style)


def summary(results: Sequence[Result], *, folder: str = "") -> str:
    """Return one line: how many, what failed, which model and size, how long, what it cost, where it is.

    The time is that of the slowest task from the start of the batch to its end.
    """
    made = [image for result in results for image in result.images]
    videos = sum(image.kind == "video" for image in made)
    counts = {"image": len(made) - videos, "video": videos}
    parts = [words.count(number, noun) for noun, number in counts.items() if number]
    parts = parts or [words.count(0, "image")]
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
    said.update(part for label in labels for part in label.split(frame.JOINT))
    facets = [set(tiles.facets(tile)) for tile in shown if tile.image]
    return frozenset(said.union(set.intersection(*facets) if facets else ()))


def _filled(
    tile: Tile, thumb: Thumb, side_px: int, width_px: int, shape: float, *, mixed: bool = False
) -> Tile:
    """Give a tile its thumbnail and its size.

    A small picture is enlarged by a third at most, a thumbnail by a half. Of pictures of one shape, one
    that is much taller is made narrower, so that it does not tear the rows apart; of several shapes each
    is as wide as makes all of them equally high.
    """
    image, data, wide = tile.image, None, width_px
    if image is not None:
        try:
            data = thumb(image, side_px)
        except NbimgError:  # a file that has gone is told in its tile
            data = None
        if image.width and image.height:
            tallest = width_px / shape * (1 if mixed else 1.2)
            most = side_px * 1.5 if mixed else width_px
            fitting = min(most, image.width * 4 / 3, tallest * image.width / image.height)
            wide = max(48, round(fitting))
    cell_px = max(wide, LEAST_CELL_PX) if mixed else max(wide, width_px)
    height_px = round(width_px / shape)
    return replace(tile, thumb=data, width_px=wide, height_px=height_px, cell_px=cell_px)


def _characters(width_px: int) -> int:
    """Return how many characters of a caption are seen in two lines."""
    return min(tiles.CAPTION_CHARACTERS, 2 * max(width_px, LEAST_CELL_PX) // CHARACTER_PX)


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


def _more(plan: Plan) -> Markup | None:
    """The tiles that are not seen at once: small pictures, then links."""
    number = len(plan.folded) + len(plan.rest)
    if not number:
        return None
    summary_ = element("summary", f"{number:,} more", style={"cursor": "pointer", **tiles.TARGET})
    small = layout.flow(plan.folded, None) if plan.folded else None
    style = {"margin": "0 0 8px"}
    return element("details", summary_, small, _rest(plan), style=style)


def _rest(plan: Plan) -> Markup | None:
    """The tiles that are not embedded, as links."""
    if not plan.rest:
        return None
    lines = list(_links(plan.rest[:LINKED]))
    if len(plan.rest) > LINKED:
        more = f"… and {len(plan.rest) - LINKED:,} more in {plan.folder or 'the output folder'}"
        lines.append(element("div", more))
    return element("div", *lines, style={"max-height": "320px", "overflow": "auto"})


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

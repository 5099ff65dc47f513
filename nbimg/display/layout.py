"""Where tiles stand: flowing with the window, or in a table with labelled axes.

Stage: between the tiles and the grid. Comes in: tiles with their widths. Goes out: HTML. Must not:
decide what is shown.

Flowing tiles stand in a table whose cells are told, by inline style, to flow like words: where
styles are kept (JupyterLab, Notebook, VS Code, Colab, nbconvert) the grid follows the width of the
window; where they are taken away (GitHub) what is left is a plain table of four columns. The
sanitizer of JupyterLab 4.6 keeps every declaration used here, those of `img` too (tried 2026-11).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nbimg.display import tile as tiles
from nbimg.display import words
from nbimg.display.frame import GAP_PX, JOINT, LABEL_PX, beside, chunks
from nbimg.display.html import Markup, element
from nbimg.display.tile import Tile

__all__ = ["axes", "flow"]

PLAIN_COLUMNS = 4
PHONE_PX = 140  # a labelled column is never narrower

_PLAIN = {"background": "none", "border": "none", "padding": "0"}
_CELL = {
    "padding": "0",
    "border": "none",
    "text-align": "left",
    "vertical-align": "top",
    "white-space": "normal",
    "font-size": "13px",
    "line-height": "1.4",
}


def flow(shown: Sequence[Tile], per_row: int | None) -> Markup:
    """Return tiles one after the other, `per_row` in a row or as many as the window takes."""
    cells = [_flow_cell(tile, several=len(shown) > 1) for tile in shown]
    width_px = max(tile.cell_px for tile in shown)
    rows = [
        element("tr", *row, style={"display": "inline", **_PLAIN})
        for row in chunks(cells, per_row or PLAIN_COLUMNS)
    ]
    widest = f"{per_row * (width_px + GAP_PX + 1)}px" if per_row else "none"
    return element(
        "table",
        element("tbody", *rows, style={"display": "block"}),
        role="presentation",
        style={"display": "block", "margin": "0", "width": "100%", "max-width": widest, **_PLAIN},
    )


def axes(
    cells: Sequence[Sequence[Sequence[Tile]]],
    rows: Sequence[str],
    columns: Sequence[str],
    width_px: int,
) -> Markup:
    """Return a table with labelled rows and columns; where it is too wide it scrolls sideways."""
    left = beside(rows)
    across = max(len(row) for row in cells)
    lines: list[Markup] = []
    if columns:
        corner = element("td", style=_CELL) if left else None
        names = [_label(name, "col", width=f"{width_px}px") for name in columns[:across]]
        lines.append(element("tr", corner, *names, style=_PLAIN))
    for number, row in enumerate(cells):
        label = rows[number] if number < len(rows) else ""
        if label and not left:
            heading = _label(label, "colgroup", width="none", span=across)
            lines.append(element("tr", heading, style=_PLAIN))
        side = _label(label, "row", width=f"{LABEL_PX}px") if left else None
        lines.append(element("tr", side, *(_axes_cell(c, width_px) for c in row), style=_PLAIN))
    style = {"margin": "0", "table-layout": "auto", "border-collapse": "collapse", **_PLAIN}
    table = element("table", element("tbody", *lines), style=style)
    return element("div", table, style={"overflow-x": "auto"})


def _flow_cell(tile: Tile, *, several: bool) -> Markup:
    style = {
        "display": "inline-block",
        "width": f"{tile.cell_px}px",
        # Two beside each other on a phone; the pixel spared is for rounding.
        "max-width": f"calc(50% - {GAP_PX + 1}px)" if several else "100%",
        "margin": f"0 {GAP_PX}px 18px 0",
        **_CELL,
    }
    return element("td", tiles.render(tile), align="left", valign="top", style=style)


def _axes_cell(cell: Sequence[Tile], width_px: int) -> Markup:
    style = {**_CELL, "padding": f"0 {GAP_PX}px 14px 0", "width": f"{width_px}px"}
    style["min-width"] = f"{min(width_px, PHONE_PX)}px"
    if len(cell) == 1:
        return element("td", tiles.render(cell[0]), align="left", valign="top", style=style)
    half = max(96, width_px // 2 - 4)
    box = {"display": "inline-block", "vertical-align": "top", "width": f"{half}px"}
    box |= {"margin": "0 6px 6px 0"}
    parts = (
        element("div", tiles.render(replace(tile, width_px=min(half, tile.width_px))), style=box)
        for tile in cell
    )
    return element("td", *parts, align="left", valign="top", style=style)


def _label(name: str, scope: str, *, width: str, span: int | None = None) -> Markup:
    style = {**_CELL, "font-weight": "600", "padding": "0 12px 6px 0", "max-width": width}
    parts = [name] if span else name.split(JOINT)
    shown = (_label_part(part, 160 if span else 60) for part in parts)
    return element("th", *shown, scope=scope, colspan=span, align="left", valign="top", style=style)


def _label_part(part: str, limit: int) -> Markup:
    short = words.shorten(part, limit)
    return element("div", short, dir="auto", title=part[:400] if short != part else None)

"""The MIME bundle of a cell: the grid, one small JPEG and a text that says something.

Stage: the last of the display. Comes in: results and a callable for thumbnails. Goes out: data and
metadata for `IPython.display.publish_display_data`. Must not: open a file.

A saved notebook grows by at most `BUDGET_BYTES` an embedded image, with base64 and the image's
share of the contact sheet. Long prompts come on top: they are the user's own words.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nbimg.display import grid, tile, words
from nbimg.display.grid import Plan, Thumb
from nbimg.display.html import clean
from nbimg.errors import ImageInputError
from nbimg.media import pixels
from nbimg.types import ImageRecord, Result, Status

__all__ = ["BUDGET_BYTES", "bundle", "render_text"]

BUDGET_BYTES = 20_000
THUMB_MAX_BYTES = pixels.THUMB_BYTES
SHEET_MAX_BYTES = 120_000
SHEET_IMAGE_BYTES = 3_500
SHEET_MIN_BYTES = 1_500
TEXT_LINES = 200
NOTICES = 6  # lines of text about what was translated or dropped


def bundle(
    results: Sequence[Result],
    *,
    thumb: Thumb,
    rows: Sequence[str] = (),
    columns_labels: Sequence[str] = (),
    columns: int | None = None,
    note: str | None = None,
    base: Path | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Build what a cell shows and what the notebook saves.

    Args:
        results: In the order of the tasks; in a fan-out the row changes slowest.
        thumb: Gives an image's thumbnail, its longer side as wanted in pixels, or None. One that
            has too many bytes is shrunk.
        rows: A label for each row of a fan-out.
        columns_labels: A label for each column of a fan-out.
        columns: Tiles in a row, for a grid without axes; None: as many as the window takes.
        note: A line under the grid.
        base: Folder of the notebook, for relative links; the working folder by default.

    Returns:
        Data (`text/html`, `text/plain` and, where there is a picture, `image/jpeg`) and metadata.
    """
    plan = grid.plan(
        results,
        thumb=lambda image, side_px: _small(thumb(image, side_px), side_px),
        rows=rows,
        columns_labels=columns_labels,
        columns=columns,
        note=note,
        base=base,
    )
    page = grid.render(plan)
    data: dict[str, Any] = {
        "text/html": str(page),
        "text/plain": render_text(results, base=base, note=note),
    }
    metadata: dict[str, Any] = {}
    sheet = _sheet(plan, len(json.dumps(data, ensure_ascii=False).encode("utf-8")))
    if sheet is not None:
        size = pixels.probe(sheet)
        data["image/jpeg"] = base64.b64encode(sheet).decode("ascii")
        alt = words.listed((words.shorten(r.request.prompt, 80) for r in results), limit=5)
        metadata["image/jpeg"] = {
            "alt": clean(f"{grid.summary(results)}: {alt}"),
            "width": size.width,
            "height": size.height,
        }
    return data, metadata


def render_text(
    results: Sequence[Result], *, base: Path | None = None, note: str | None = None
) -> str:
    """Return the results as text: one line of numbers, one line an image, then what to know.

    Args:
        results: In the order of the tasks.
        base: Folder that paths are shown relative to; the working folder by default.
        note: A last line.
    """
    base = Path.cwd() if base is None else base
    lines = []
    for result in results:
        lines += _lines(result, base)
    if len(lines) > TEXT_LINES:
        lines = [*lines[:TEXT_LINES], f"… and {len(lines) - TEXT_LINES:,} more"]
    notices = list(dict.fromkeys(text for result in results for text in result.notices))
    told = [clean(words.shorten(text, 300)) for text in (*notices[:NOTICES], note) if text]
    return "\n".join([clean(grid.summary(results)), *lines, *told])


def _lines(result: Result, base: Path) -> list[str]:
    prompt = words.shorten(result.request.prompt, 48)
    status = "cached" if result.cached and result.status is Status.OK else result.status.value
    head = f"{result.index + 1:>3}  {status:<9}  "
    lines = [
        head + "  ".join(part for part in (prompt, _seed(result, k), _place(image, base)) if part)
        for k, image in enumerate(result.images)
    ]
    if result.error or not lines:
        why = f"{tile.reason_of(result)} {result.error.hint or ''}" if result.error else "no image"
        lines.append(head + "  ".join(part for part in (prompt, words.shorten(why, 200)) if part))
    return [clean(line) for line in lines]


def _seed(result: Result, variant: int) -> str:
    seed = tile.seed_of(result, variant)
    return "" if seed is None else f"seed {seed}"


def _place(image: ImageRecord, base: Path) -> str:
    return " ".join(tile.place_of(image, base)[0].split("\n"))


def _small(data: bytes | None, side_px: int) -> bytes | None:
    """Shrink a thumbnail that is over the limit; one that cannot be read is none."""
    if data is None or len(data) <= THUMB_MAX_BYTES:
        return data
    try:
        return pixels.thumbnail(data, side_px=side_px, max_bytes=THUMB_MAX_BYTES)
    except ImageInputError:
        return None


def _sheet(plan: Plan, spent_bytes: int) -> bytes | None:
    """Return a contact sheet of the embedded pictures, as large as the budget leaves room for."""
    thumbs = [each.thumb for each in plan.tiles if each.thumb is not None]
    if not thumbs:
        return None
    pictures = len(thumbs) + sum(each.thumb is not None for each in plan.folded)
    free = (BUDGET_BYTES * pictures - spent_bytes) * 3 // 4 - 500
    wanted = min(SHEET_MAX_BYTES, SHEET_IMAGE_BYTES * len(thumbs))
    limit = max(SHEET_MIN_BYTES, min(wanted, free))
    across = max((len(row) for row in plan.cells), default=1) if plan.columns or plan.rows else None
    columns = across or plan.per_row or min(len(thumbs), max(4, round(len(thumbs) ** 0.5)))
    try:
        return pixels.contact_sheet(thumbs, columns, side_px=256, max_bytes=limit)
    except ImageInputError:
        return None

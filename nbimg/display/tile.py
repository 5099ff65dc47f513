"""One tile of the grid: a picture or the reason why there is none, its caption, its details.

Stage: between a result and the grid. Comes in: one image of one result, with the bytes of its
thumbnail. Goes out: HTML. Must not: read a file, or decide where the tile stands.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nbimg.display import words
from nbimg.display.html import Markup, element, join
from nbimg.media import pixels
from nbimg.types import ImageRecord, Result, Status

__all__ = [
    "CAPTION_CHARACTERS",
    "STATUS",
    "TARGET",
    "Tile",
    "facets",
    "model_name",
    "place_of",
    "reason_of",
    "render",
    "seed_of",
    "size_of",
]

ALT_CHARACTERS = 400
CAPTION_CHARACTERS = 72  # two lines of a usual tile
TITLE_CHARACTERS = 600
ATTEMPTS_SHOWN = 8
BOX_PADDING_PX = 12

STATUS = {
    Status.OK: ("✓", "Done"),
    Status.PARTIAL: ("◐", "Partial"),
    Status.FAILED: ("✕", "Failed"),
    Status.REFUSED: ("⊘", "Refused"),
    Status.CANCELLED: ("■", "Cancelled"),
    Status.UNKNOWN: ("?", "Outcome unknown"),
}
"""A sign and a word for each status: none is told by colour alone."""

TARGET = {"padding": "4px 0"}
"""What makes a line high enough to be hit by a finger: 24 px."""

_QUIET = {"opacity": "0.7"}
_LINE = {"overflow": "hidden", "text-overflow": "ellipsis", "white-space": "nowrap"}
_TWO_LINES = {"overflow": "hidden", "max-height": "2.8em"}
_BREAK = {"overflow-wrap": "break-word", "word-wrap": "break-word"}
_BOX = {
    "border": "1px dashed rgba(127,127,127,0.6)",
    "border-radius": "8px",
    "padding": f"{BOX_PADDING_PX}px",
    "background": "rgba(127,127,127,0.08)",
    "overflow": "auto",
    "box-sizing": "border-box",
    "max-height": "300px",
    **_BREAK,
}


@dataclass(frozen=True, slots=True)
class Tile:
    """What one tile shows.

    Attributes:
        result: The task it belongs to.
        variant: Index into `result.images`; None: there is no image, and the tile says why.
        thumb: Encoded thumbnail, where there is one.
        width_px: CSS width of the picture.
        height_px: CSS height that a tile without a picture takes, to stay in line with the others.
        cell_px: CSS width of the whole tile where tiles flow.
        place: The file as text, relative to the notebook where that is possible.
        href: The same as an address; None where there is nothing to link to.
        lines: How many lines the caption takes, 1 or 2.
        caption: How many characters of the prompt are seen; 0: none, as the axes say it.
        said: Facets that are said for the whole grid, and so not on the tile.
        first: Whether the details of the whole task are told here.
    """

    result: Result
    variant: int | None = None
    thumb: bytes | None = None
    width_px: int = 256
    height_px: int = 0
    cell_px: int = 256
    place: str = ""
    href: str | None = None
    lines: int = 2
    caption: int = CAPTION_CHARACTERS
    said: frozenset[str] = frozenset()
    first: bool = True

    @property
    def image(self) -> ImageRecord | None:
        """The image of the tile, if it has one."""
        return None if self.variant is None else self.result.images[self.variant]


def render(tile: Tile) -> Markup:
    """Return the tile: picture, prompt, and one quiet line that unfolds to everything else."""
    prompt = tile.result.request.prompt
    short = _short(tile)
    title = words.shorten(prompt, TITLE_CHARACTERS) if short != prompt or tile.lines == 1 else None
    caption = element(
        "div",
        short or "(no prompt)",
        dir="auto",
        title=title,
        style={"margin": "6px 0 1px", **(_LINE if tile.lines == 1 else _TWO_LINES | _BREAK)},
    )
    quiet = " · ".join(part for part in facets(tile) if part not in tile.said) or "details"
    more = element(
        "details",
        element("summary", quiet, style={"cursor": "pointer", **TARGET, **_QUIET}),
        element("div", *_details(tile), style={"padding": "4px 0 0", **_BREAK}),
        style={"font-size": "11.5px", "margin": "-3px 0 0" if tile.caption else "2px 0 0"},
    )
    if tile.caption:
        return join((_picture(tile, title=None), caption, more))
    return join((_picture(tile, title=title), more))


def model_name(model: str) -> str:
    """Return the short name of a model.

    >>> model_name("replicate:black-forest-labs/flux-dev")
    'flux-dev'
    """
    return model.rsplit("/", 1)[-1].rsplit(":", 1)[-1] or model


def size_of(image: ImageRecord) -> str:
    """Return width and height, or an empty string where they are not known."""
    return f"{image.width}\u00d7{image.height}" if image.width else ""


def reason_of(result: Result) -> str:
    """Return why a task has no image, without the status that is said beside it."""
    message = result.error.message if result.error else ""
    return re.sub(rf"\A(the job )?{result.status.value}: ", "", message)


def seed_of(result: Result, variant: int | None) -> int | None:
    """Return the seed that made the image, where it is known."""
    recorded = result.images[variant].seed if variant is not None else None
    if recorded is None and result.request.seed is not None:
        return result.request.seed + (variant or 0)
    return recorded


def place_of(image: ImageRecord, base: Path) -> tuple[str, str | None]:
    """Return where an image is: as text, and as an address relative to the folder `base`."""
    if image.path is None:
        return (image.url or "", image.url)
    path = image.path if image.path.is_absolute() else base / image.path
    try:
        text = path.relative_to(base).as_posix()
    except ValueError:  # outside the notebook's folder, where a front end serves nothing
        return (str(image.path), None)
    return (text, quote(text.encode("utf-8", "replace")))


def facets(tile: Tile) -> list[str]:
    """Return the parts of the quiet line: status where it is not plain, seed, model, size."""
    seed = seed_of(tile.result, tile.variant)
    parts = [
        "↺ cached" if tile.result.cached else "",
        "" if seed is None else f"seed {seed}",
        model_name(tile.result.model),
        size_of(tile.image) if tile.image else "",
    ]
    return [part for part in parts if part]


def _short(tile: Tile) -> str:
    return words.shorten(tile.result.request.prompt, tile.caption) if tile.caption else ""


def _picture(tile: Tile, *, title: str | None) -> Markup:
    image = tile.image
    mime = pixels.sniff(tile.thumb) if tile.thumb else None
    if tile.thumb is None or mime is None or not mime.startswith("image/"):
        return element("div", _spacer(tile), *_reason(tile), title=title, style=_BOX)
    data = base64.b64encode(tile.thumb).decode("ascii")
    # A width alone: with a height, a page that takes the style away would distort what it shrinks.
    shown = element(
        "img",
        src=f"data:{mime};base64,{data}",
        alt=words.shorten(tile.result.request.prompt, ALT_CHARACTERS) or "image",
        title=title,
        width=tile.width_px,
        style={"display": "block", "max-width": "100%", "height": "auto", "border-radius": "8px"},
    )
    if tile.href:
        shown = element("a", shown, href=tile.href, target="_blank")
    if image is not None and image.kind == "video":
        return join((shown, element("div", "▶ video", style={"margin": "4px 0 0", **_QUIET})))
    return shown


def _spacer(tile: Tile) -> Markup | None:
    """Give the box the shape of its neighbours at any width: a padding in % is one of the width."""
    inner_px = tile.width_px - 2 * (BOX_PADDING_PX + 1)
    if tile.height_px <= 0 or inner_px <= 0:
        return None
    share = max(0.0, (tile.height_px - 2 * (BOX_PADDING_PX + 1)) / inner_px)
    style = {"float": "right", "width": "0", "padding-bottom": f"{min(share, 1.2):.0%}"}
    return element("div", style=style)


def _reason(tile: Tile) -> Iterator[Markup]:
    """Say why there is no picture."""
    image, result = tile.image, tile.result
    if image is not None:
        kind = "▶ video" if image.kind == "video" else "No preview"
        yield element("div", element("b", kind))
        words_ = "The file is not there." if image.path else "It was not downloaded."
        link = element("a", "Open it", href=tile.href, target="_blank") if tile.href else None
        yield element("div", link if image.kind == "video" or not image.path else words_)
        if not image.path:
            yield element("div", words_, style=_QUIET)
        return
    sign, word = STATUS[result.status]
    if result.status in (Status.OK, Status.PARTIAL):
        word = f"{word}: {len(result.images)} of {result.request.n} made"
    yield element("div", element("b", f"{sign} {word}"), style={"margin": "0 0 4px"})
    if result.error:
        yield element("div", words.shorten(reason_of(result), 400), dir="auto")
        if result.error.hint:
            hint = words.shorten(result.error.hint, 300)
            yield element("div", hint, dir="auto", style={"margin": "4px 0 0", **_QUIET})


def _details(tile: Tile) -> Iterator[Markup]:
    for name, value in _facts(tile):
        yield _fact(name, value)
    if tile.place:
        link = (
            element("a", tile.place, href=tile.href, target="_blank") if tile.href else tile.place
        )
        yield _fact("file" if tile.image and tile.image.path else "url", link)


def _fact(name: str, value: Markup | str) -> Markup:
    label = element("span", f"{name}: ", style=_QUIET)
    return element("div", label, value if isinstance(value, Markup) else element("bdi", value))


def _facts(tile: Tile) -> Iterator[tuple[str, str]]:
    result, request = tile.result, tile.result.request
    yield from _identity(tile)
    if not tile.first:
        return
    for name in ("negative", "ar", "steps", "guidance", "strength", "scheduler", "output"):
        value = getattr(request, name)
        if value is not None:
            yield name, str(value)
    for adapter in request.lora:
        yield "lora", adapter
    for name, value in request.params.items():
        yield str(name), words.shorten(str(value), 300)
    for given in (*request.image, request.mask):
        if given is not None:
            yield ("mask" if given is request.mask else "image"), _source(given)
    yield from _history(result)


def _identity(tile: Tile) -> Iterator[tuple[str, str]]:
    """What tells this picture from the others."""
    result, request = tile.result, tile.result.request
    if tile.first and _short(tile) != request.prompt:
        yield "prompt", request.prompt
    seed = seed_of(result, tile.variant)
    if seed is not None:
        yield "seed", str(seed)
    asked = result.model_asked
    other = asked is not None and model_name(asked) != model_name(result.model)
    yield "model", f"{result.model} (asked for {asked})" if other else result.model
    if tile.image and size_of(tile.image):
        yield "size", size_of(tile.image)


def _source(given: Any) -> str:
    """Return what the user gave as an input image, in words."""
    source = getattr(given, "source", None) or getattr(given, "path", None) or given
    known = isinstance(source, str | Path)
    return words.shorten(str(source), 200) if known else type(source).__name__


def _history(result: Result) -> Iterator[tuple[str, str]]:
    spent = result.seconds
    stages = (("queued", spent.queued), ("making", spent.running), ("download", spent.download))
    told = ", ".join(f"{name} {words.duration(value)}" for name, value in stages if value > 0)
    if told and not result.cached:
        yield "time", told
    if result.cached:
        yield "cost", "$0 (from the store)"
    elif result.cost_usd != 0:
        yield "cost", "unknown" if result.cost_usd is None else words.money(result.cost_usd)
    tried = result.attempts
    if len(tried) > 1 or any(attempt.outcome != "ok" for attempt in tried):
        for attempt in tried[:ATTEMPTS_SHOWN]:
            status = f" {attempt.http_status}" if attempt.http_status else ""
            took = words.duration(attempt.seconds)
            yield (
                "attempt",
                f"{model_name(attempt.model)} {attempt.stage}, {took}: {attempt.outcome}{status}",
            )
        if len(tried) > ATTEMPTS_SHOWN:
            yield "attempts", f"{len(tried) - ATTEMPTS_SHOWN} more"
    for notice in result.notices:
        yield "notice", notice
    job = next((attempt.job_id for attempt in reversed(tried) if attempt.job_id), None)
    if job or (result.error and result.error.job_id):
        yield "job", job or (result.error.job_id if result.error else None) or ""

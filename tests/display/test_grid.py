"""The static grid: every tile says what it is, and no prompt leaves its place."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nbimg.display import grid, tile
from nbimg.errors import ResultMissingError
from nbimg.media import pixels
from nbimg.types import Attempt, ErrorRecord, ImageRecord, Request, Result, Seconds, Status

BASE = Path("/notebooks")
LARGE = pixels.encode(Image.new("RGB", (256, 256), "red"), "image/webp")
WEBP = pixels.encode(Image.new("RGB", (64, 64), "red"), "image/webp")
NASTY = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "</td></tr></table></details><style>*{display:none}</style>",
    "javascript:alert(1)",
    "&lt;b&gt; &amp; &#x3c;i&#x3e;",
    "<!-- ",
    "]]><svg/onload=alert(1)>",
    "مرحبا \u202e بالعالم",
    "👩‍👩‍👧‍👦" * 50,
    "a\x00\ud800\n\r\n\tb",
    "x" * 10_000,
    "",
]
ATTRIBUTES = {
    "div": {"style", "dir", "title"},
    "span": {"style"},
    "b": set(),
    "bdi": set(),
    "a": {"href", "target"},
    "img": {"src", "alt", "title", "width", "style"},
    "table": {"role", "style"},
    "tbody": {"style"},
    "tr": {"style"},
    "td": {"align", "valign", "style"},
    "th": {"scope", "colspan", "align", "valign", "style"},
    "details": {"style"},
    "summary": {"style"},
}


class Reader(HTMLParser):
    """Checks while it reads: only tags and attributes that we write, each closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.links: list[str | None] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ATTRIBUTES
        assert {name for name, _ in attrs} <= ATTRIBUTES[tag]
        found = dict(attrs)
        style = found.get("style") or ""
        assert re.fullmatch(r"[a-z0-9:;%#(),. -]*", style), style
        if tag == "img":
            self.images.append(found)
            assert re.match("data:image/(webp|png|jpeg);base64,", found["src"] or "")
            return
        if tag == "a":
            self.links.append(found.get("href"))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    def handle_decl(self, decl: str) -> None:
        raise AssertionError(decl)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert not reader.open
    page.encode("utf-8")  # a lone surrogate could not be saved
    return reader


def made(index: int = 0, prompt: str = "a cat", images: int = 1, **changes: Any) -> Result:
    records = tuple(
        ImageRecord(BASE / f"nbimg-images/{index}_{k}.png", width=1024, height=768, seed=7 + k)
        for k in range(images)
    )
    given = {"images": records, "cost_usd": 0.025, "seconds": Seconds(0.5, 4.0, 0.5), **changes}
    request = given.pop("request", None) or Request(prompt, n=max(1, images))
    return Result(index, request, "replicate:black-forest-labs/flux-dev", "flux-dev", **given)


def ended(status: Status, message: str = "it broke", index: int = 0, **changes: Any) -> Result:
    error = ErrorRecord("JobFailedError", message, "Do this.", 500, "job-9")
    return made(index, status=status, images=0, error=error, cost_usd=None, **changes)


def page(*results: Result, **options: Any) -> Reader:
    options = {"thumb": lambda image, side_px: WEBP, "base": BASE, **options}
    return read(grid.render(grid.plan(list(results), **options)))


@given(st.one_of(st.text(), st.sampled_from(NASTY)), st.sampled_from(Status))
@settings(max_examples=150, deadline=None)
def test_no_prompt_escapes_into_html(text: str, status: Status) -> None:
    request = Request(
        text,
        negative=text,
        scheduler=text,
        lora=(text,),
        params={text: text},
        output=text,
        image=(text,),
    )
    result = Result(
        0,
        request,
        text,
        text,
        status,
        images=(ImageRecord(Path(f"a/{text}"), url=text), ImageRecord(None, url=text)),
        error=ErrorRecord(text, text, text, 500, text),
        attempts=(Attempt(text, text, 0.0, 1.0, text, 500, text),) * 2,
        notices=(text,),
    )
    for shown in (page(result), page(result, thumb=lambda image, side_px: None)):
        assert all(
            href is None or not href.lower().startswith("javascript") for href in shown.links
        )
    page(result, result, rows=(text, text), columns_labels=(text,), note=text)


def test_a_tile_shows_prompt_seed_model_size_and_links_to_the_file() -> None:
    shown = page(made(prompt='a "red" house'))
    assert shown.images[0]["alt"] == 'a "red" house'
    assert base64.b64decode((shown.images[0]["src"] or "").split(",")[1]) == WEBP
    assert 'a "red" house' in shown.text
    assert "seed 7seed: 7model: replicate:black-forest-labs/flux-devsize: 1024×768" in shown.text
    assert "1 image · flux-dev · 1024×768 · 5 s" in shown.text
    assert shown.links == ["nbimg-images/0_0.png"] * 2


def test_a_tile_says_only_what_the_line_under_the_grid_cannot_say_for_all() -> None:
    assert "seed 7 · flux-dev" not in page(made(), made(1)).text
    wide = (ImageRecord(BASE / "b.png", width=1536, height=640),)
    shown = page(made(), made(1), replace(made(2), images=wide))
    assert "seed 7 · 1024×768" in shown.text
    assert "3 images · flux-dev · 5 s" in shown.text
    other = replace(made(1), model="local:sdxl")
    assert "seed 7 · sdxl" in page(made(), other).text


def test_details_tell_everything_that_decided_the_picture() -> None:
    request = Request(
        "a cat", n=1, steps=28, guidance=3.5, negative="dogs", params={"go_fast": True}
    )
    tries = (
        Attempt("replicate:x/flux-dev", "create", 0.0, 1.2, "BusyError", 429),
        Attempt("replicate:x/flux-dev", "create", 2.0, 4.0, "ok", 201, "job-1"),
    )
    text = page(made(request=request, attempts=tries, notices=("negative: dropped",))).text
    for words in ("steps: 28", "guidance: 3.5", "negative: dogs", "go_fast: True", "job: job-1"):
        assert words in text
    assert "flux-dev create, 1.2 s: BusyError 429" in text
    assert "time: queued 0.5 s, making 4 s, download 0.5 s" in text
    assert "cost: $0.025" in text
    assert text.count("negative: dropped") == 2  # in the tile, and under the grid


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (Status.FAILED, "✕ Failed"),
        (Status.REFUSED, "⊘ Refused"),
        (Status.CANCELLED, "■ Cancelled"),
        (Status.UNKNOWN, "? Outcome unknown"),
    ],
)
def test_a_task_without_images_says_what_became_of_it_and_why(status: Status, words: str) -> None:
    shown = page(ended(status, "the worker ran out of memory"))
    assert not shown.images
    assert words in shown.text
    assert "the worker ran out of memory" in shown.text
    assert "Do this." in shown.text


def test_every_status_has_a_sign_of_its_own() -> None:
    assert set(tile.STATUS) == set(Status)
    assert len({sign for sign, _ in tile.STATUS.values()}) == len(Status)


def test_a_partial_task_shows_its_images_and_a_tile_for_the_rest() -> None:
    error = ErrorRecord("JobFailedError", "two were lost")
    request = Request("a cat", n=3)
    shown = page(made(images=1, request=request, status=Status.PARTIAL, error=error))
    assert len(shown.images) == 1
    assert "Partial: 1 of 3 made" in shown.text
    assert "two were lost" in shown.text


def test_what_came_from_the_store_says_so_and_costs_nothing() -> None:
    shown = page(made(cached=True))
    assert "↺ cached · seed 7" in shown.text
    assert "1 image · flux-dev · 1024×768 · ↺ all cached · saved in" in shown.text
    assert "cost: $0 (from the store)" in shown.text


def test_a_long_prompt_is_short_in_the_caption_and_whole_once_in_the_details() -> None:
    prompt = "a house with " + "many windows and " * 100 + "a door"
    shown = page(made(prompt=prompt, images=3))
    assert shown.text.count(prompt) == 1
    assert len(shown.images[0]["alt"] or "") <= 400


def test_a_file_outside_of_the_folder_is_named_but_not_linked() -> None:
    outside = (ImageRecord(Path("/elsewhere/a.png")),)
    shown = page(Result(0, Request("x"), "demo", images=outside))
    assert not shown.links
    assert "/elsewhere/a.png" in shown.text


def test_a_link_survives_spaces_colons_and_other_scripts() -> None:
    image = ImageRecord(BASE / "out/a: b#1?夜.png")
    shown = page(Result(0, Request("x"), "demo", images=(image,)))
    assert shown.links[0] == "out/a%3A%20b%231%3F%E5%A4%9C.png"


def test_an_image_without_a_thumbnail_is_told_rather_than_missing() -> None:
    def gone(image: ImageRecord, side_px: int) -> bytes:
        raise ResultMissingError("no file")

    assert "No preview" in page(made(), thumb=gone).text
    assert "No preview" in page(made(), thumb=lambda image, side_px: b"not an image").text
    remote = Result(0, Request("x"), "demo", images=(ImageRecord(None, url="https://x.org/a"),))
    shown = page(remote, thumb=lambda image, side_px: None)
    assert "It was not downloaded" in shown.text
    assert "https://x.org/a" in shown.links


def test_a_video_shows_its_poster_linked_to_the_file() -> None:
    video = ImageRecord(BASE / "a.mp4", kind="video", mime="video/mp4")
    result = Result(0, Request("x"), "demo", images=(video,))
    assert "▶ video" in page(result).text
    without = page(result, thumb=lambda image, side_px: None)
    assert "▶ video" in without.text
    assert "a.mp4" in without.links


def test_a_fan_out_has_labelled_rows_and_columns_in_task_order() -> None:
    results = [made(i, f"prompt {i}") for i in range(6)]
    options: dict[str, Any] = {"rows": ["day", "night"], "columns_labels": ["red", "blue", "ochre"]}
    plan = grid.plan(results, thumb=lambda image, side_px: WEBP, base=BASE, **options)
    numbers = [[[t.result.index for t in cell] for cell in row] for row in plan.cells]
    assert numbers == [[[0], [1], [2]], [[3], [4], [5]]]
    text = page(*results, **options).text
    order = ["red", "blue", "ochre", "day", "prompt 0", "prompt 2", "night", "prompt 3"]
    places = [text.index(words) for words in order]
    assert places == sorted(places)


def test_a_labelled_tile_says_only_what_its_axes_do_not() -> None:
    results = [made(i, f"prompt {i}") for i in range(4)]
    options: dict[str, Any] = {"rows": ["day", "night"], "columns_labels": ["red", "blue"]}
    shown = page(*results, **options)
    assert shown.text.count("prompt 0") == shown.text.count("prompt: prompt 0") == 1
    assert shown.text.count("seed 7") == 0
    assert shown.text.count("detailsprompt: ") == 4
    assert (shown.images[0]["alt"], shown.images[0]["title"]) == ("prompt 0", "prompt 0")
    seeds = [made(k, images=2) for k in range(4)]
    assert page(*seeds, **options).text.count("seed 8seed: 8") == 4
    models = [replace(made(k), model=f"local:{name}") for k, name in enumerate(["a", "b"])]
    assert (
        "detailsprompt: a catseed: 7model: local:b" in page(*models, columns_labels=["a", "b"]).text
    )


def test_the_parts_of_a_row_label_stand_below_each_other() -> None:
    results = [made(i) for i in range(4)]
    shown = grid.render(
        grid.plan(
            results,
            thumb=lambda image, side_px: WEBP,
            rows=["oil · a quiet street · dusk", "ink · a quiet street · dawn"],
            columns_labels=["x", "y"],
        )
    )
    assert '<div dir="auto">oil</div><div dir="auto">a quiet street</div>' in shown
    assert "oil · " not in shown


def test_a_third_axis_stays_within_its_cell() -> None:
    results = [made(i) for i in range(8)]
    plan = grid.plan(
        results, thumb=lambda i, side_px: WEBP, rows=["a", "b"], columns_labels=["c", "d"]
    )
    assert [[len(cell) for cell in row] for row in plan.cells] == [[2, 2], [2, 2]]
    assert [t.result.index for t in plan.tiles] == list(range(8))


@given(st.integers(0, 240), st.integers(0, 9), st.integers(0, 15), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_every_image_is_seen_or_folded_or_linked(
    tasks: int, rows: int, columns: int, images: int
) -> None:
    results = [made(i, images=images) for i in range(tasks)]
    plan = grid.plan(
        results,
        thumb=lambda image, side_px: WEBP,
        rows=[f"r{k}" for k in range(rows)],
        columns_labels=[f"c{k}" for k in range(columns)],
        base=BASE,
    )
    everything = [(t.result.index, t.variant) for t in (*plan.tiles, *plan.folded, *plan.rest)]
    assert everything == [(i, k) for i in range(tasks) for k in range(images)]
    assert len(plan.tiles) <= grid.EMBEDDED
    assert len(plan.folded) <= grid.FOLDED
    grid.render(plan)


def test_of_a_large_set_sixty_are_seen_more_are_unfolded_and_the_rest_is_linked() -> None:
    calls: list[int] = []
    results = [made(i, f"house {i}") for i in range(500)]

    def thumb(image: ImageRecord, side_px: int) -> bytes:
        calls.append(side_px)
        return LARGE

    html = grid.render(grid.plan(results, thumb=thumb, base=BASE))
    shown = read(html)
    assert len(shown.images) == 200
    sides = [pixels.probe(base64.b64decode(i["src"].split(",")[1])).width for i in shown.images]
    assert sides == [256] * 60 + [128] * 140
    assert calls == [256] * 200
    assert html.index("<details") < html.index("440 more</summary>") < html.index("house 60")
    assert html.index("house 199") < html.index("200_0.png")
    assert "nbimg-images/499_0.png" in shown.links


def test_pictures_of_several_shapes_stand_in_rows_of_one_height() -> None:
    sizes = [(1024, 1024), (1536, 1024), (768, 1152), (2048, 512)]
    results = [
        replace(made(i), images=(ImageRecord(BASE / f"{i}.png", width=w, height=h),))
        for i, (w, h) in enumerate(sizes)
    ]
    options: dict[str, Any] = {"thumb": lambda image, side_px: WEBP, "base": BASE}
    tiles = grid.plan(results, **options).tiles
    heights = [t.width_px * h / w for t, (w, h) in zip(tiles, sizes, strict=True)]
    assert max(heights[:3]) - min(heights[:3]) <= 2
    assert tiles[3].width_px == 384, "a thumbnail is not blown up"
    assert all(t.cell_px >= max(t.width_px, 112) for t in tiles)
    alike = grid.plan([made(0), made(1)], **options).tiles
    assert len({t.width_px for t in alike}) == 1


def test_the_same_notice_is_told_once() -> None:
    results = [made(i, notices=("flux-dev takes no negative prompt: dropped.",)) for i in range(4)]
    text = page(*results).text
    assert text.count("dropped. (4 tasks)") == 1


def test_the_summary_adds_up() -> None:
    results = [made(0, images=2), made(1, cached=True), ended(Status.FAILED), made(3)]
    line = grid.summary(results, folder="out")
    assert line == (
        "4 images · ✕ 1 failed · flux-dev · 1024×768 · ↺ 1 cached · 5 s · $0.05 · saved in out"
    )


def test_money_is_told_where_there_is_any_to_tell() -> None:
    assert grid.summary([made(cost_usd=None)]).endswith("price unknown")
    assert grid.summary([made(), made(cost_usd=None)]).endswith("$0.025 and 1 of unknown price")
    assert "$" not in page(made(cost_usd=0.0), made(1, cost_usd=0.0)).text
    assert "$" not in grid.summary([made(cached=True)])


def test_what_was_cancelled_is_counted_rather_than_drawn() -> None:
    stopped = [ended(Status.CANCELLED, index=i) for i in range(4)]
    assert page(*stopped).text.count("■ Cancelled") == 4
    assert "■ Cancelled" not in page(*stopped, ended(Status.CANCELLED, index=4)).text
    shown = page(*stopped, made(4), ended(Status.FAILED, index=5))
    assert "■ Cancelled" not in shown.text
    assert "✕ Failed" in shown.text
    assert "1 image · ✕ 1 failed · ■ 4 cancelled" in shown.text


def test_a_stopped_fan_out_keeps_the_places_of_what_was_made() -> None:
    results = [ended(Status.CANCELLED, index=i) for i in range(6)]
    results[3] = made(3)
    options: dict[str, Any] = {"rows": ["a", "b", "c"], "columns_labels": ["x", "y"]}
    plan = grid.plan(results, thumb=lambda image, side_px: WEBP, base=BASE, **options)
    assert plan.rows == ("b",)
    assert [[len(cell) for cell in row] for row in plan.cells] == [[0, 1]]
    grid.render(plan)
    text = page(*(ended(Status.CANCELLED, index=i) for i in range(6)), **options).text
    assert text.startswith("0 images · ■ 6 cancelled")


@pytest.mark.parametrize(
    ("size", "shown_px"), [((384, 288), 384), ((192, 192), 384), ((256, 384), 256), ((40, 20), 80)]
)
def test_a_single_image_is_asked_for_and_shown_large(size: tuple[int, int], shown_px: int) -> None:
    asked = []

    def thumb(image: ImageRecord, side_px: int) -> bytes:
        asked.append(side_px)
        return pixels.encode(Image.new("RGB", size), "image/webp")

    assert page(made(), thumb=thumb).images[0]["width"] == str(shown_px)
    page(made(images=2), thumb=thumb)
    assert asked == [384, 256, 256]


def test_a_refusal_is_said_once() -> None:
    shown = page(ended(Status.REFUSED, "refused: NSFW content"))
    assert "⊘ RefusedNSFW content" in shown.text
    shown = page(ended(Status.FAILED, "the job failed: out of memory"))
    assert "✕ Failedout of memory" in shown.text


@pytest.mark.parametrize(("width", "height"), [(1024, 1024), (1920, 400), (300, 3000), (16, 16)])
def test_a_tile_is_never_huge_and_a_small_picture_not_blown_up(width: int, height: int) -> None:
    image = ImageRecord(BASE / "a.png", width=width, height=height)
    results = [Result(i, Request("x"), "demo", images=(image,)) for i in range(2)]
    tiles = grid.plan(results, thumb=lambda i, side_px: WEBP, base=BASE).tiles
    assert all(48 <= t.width_px <= 288 for t in tiles)
    assert all(t.width_px <= max(48, width * 4 / 3) for t in tiles)


def test_nothing_at_all_is_said_too() -> None:
    assert page().text == "No images."

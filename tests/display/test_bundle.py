"""What a cell saves: small, readable without pictures, and one picture for those who know only that."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nbimg.display.bundle import BUDGET_BYTES, bundle, render_text
from nbimg.media import pixels
from nbimg.types import ErrorRecord, ImageRecord, Request, Result, Status

BASE = Path("/notebooks")


def photo(seed: int, noise: float = 14.0) -> bytes:
    """A noisy photograph of 1024x1024 pixels as JPEG."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:1024, 0:1024]
    waves = np.stack([np.sin(x / (30 + seed) + c) * np.cos(y / 23 - c) for c in range(3)], axis=2)
    grain = rng.normal(0, noise, (1024, 1024, 1)).astype("float32")
    coarse = np.kron(rng.normal(0, noise, (256, 256, 3)), np.ones((4, 4, 1)))
    image = Image.fromarray(np.clip(128 + waves * 60 + grain + coarse, 0, 255).astype("uint8"))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def result(index: int, prompt: str = "a red house at night, gouache", **changes: Any) -> Result:
    image = ImageRecord(BASE / f"nbimg-images/{index}.png", width=1024, height=1024, seed=index)
    given = {"images": (image,), "cost_usd": 0.025, **changes}
    request = Request(prompt, steps=28, guidance=3.5)
    return Result(index, request, "replicate:black-forest-labs/flux-dev", "flux-dev", **given)


def size_of(data: dict[str, Any], metadata: dict[str, Any]) -> int:
    return len(json.dumps([data, metadata]).encode())


@pytest.fixture(scope="module")
def thumbs() -> list[bytes]:
    return [pixels.thumbnail(photo(seed)) for seed in range(3)]


@pytest.mark.parametrize("count", [1, 2, 6, 24, 60])
def test_noisy_photographs_stay_within_the_budget(thumbs: list[bytes], count: int) -> None:
    order = iter(range(count))
    results = [result(i) for i in range(count)]
    saved = bundle(results, thumb=lambda image, side_px: thumbs[next(order) % 3], base=BASE)
    assert size_of(*saved) <= BUDGET_BYTES * count


def test_a_single_picture_is_large_and_within_the_budget() -> None:
    for noise in (2.0, 40.0):
        source = photo(1, noise)

        def thumb(image: ImageRecord, side_px: int, source: bytes = source) -> bytes:
            return pixels.thumbnail(source, side_px=side_px)

        saved = bundle([result(0)], thumb=thumb, base=BASE)
        assert size_of(*saved) <= BUDGET_BYTES
        assert 'width="384"' in saved[0]["text/html"]


def test_a_thumbnail_over_the_limit_is_made_smaller_on_the_way() -> None:
    large = photo(3, noise=40.0)
    data, metadata = bundle([result(0)], thumb=lambda image, side_px: large, base=BASE)
    assert size_of(data, metadata) <= BUDGET_BYTES
    assert "data:image/webp;base64," in data["text/html"]


def test_the_sheet_is_a_jpeg_with_alt_text_and_its_size(thumbs: list[bytes]) -> None:
    data, metadata = bundle(
        [result(k) for k in range(3)], thumb=lambda image, side_px: thumbs[0], base=BASE
    )
    sheet = pixels.probe(base64.b64decode(data["image/jpeg"]))
    told = metadata["image/jpeg"]
    assert (sheet.mime, sheet.width, sheet.height) == ("image/jpeg", told["width"], told["height"])
    assert sheet.width > sheet.height
    assert told["alt"].startswith("3 images · flux-dev")
    assert "a red house at night" in told["alt"]


def test_the_sheet_has_the_columns_of_a_fan_out(thumbs: list[bytes]) -> None:
    results = [result(k) for k in range(6)]
    data, _ = bundle(
        results,
        thumb=lambda image, side_px: thumbs[0],
        rows=["a", "b", "c"],
        columns_labels=["x", "y"],
    )
    sheet = pixels.probe(base64.b64decode(data["image/jpeg"]))
    assert sheet.height > sheet.width


def test_without_a_picture_there_is_no_sheet_but_a_text_that_says_why() -> None:
    error = ErrorRecord("BusyError", "replicate is busy.", "Try again.")
    broken = result(0, images=(), status=Status.FAILED, error=error)
    data, metadata = bundle([broken], thumb=lambda image, side_px: b"", base=BASE)
    assert set(data) == {"text/html", "text/plain"}
    assert metadata == {}
    assert "failed" in data["text/plain"]
    assert "replicate is busy. Try again." in data["text/plain"]


def test_a_damaged_thumbnail_costs_only_itself() -> None:
    data, _ = bundle(
        [result(0)], thumb=lambda image, side_px: b"\x89PNG\r\n\x1a\nbroken", base=BASE
    )
    assert "image/jpeg" not in data
    data, _ = bundle([result(0)], thumb=lambda image, side_px: b"no image" * 9_000, base=BASE)
    assert "No preview" in data["text/html"]


def test_the_text_has_one_line_an_image() -> None:
    images = (ImageRecord(BASE / "out/a.png", seed=4), ImageRecord(BASE / "out/b.png", seed=5))
    lines = render_text([result(0, images=images), result(1, cached=True)], base=BASE).split("\n")
    assert lines[0].startswith("3 images · flux-dev")
    assert lines[1].split() == [
        "1", "ok", *["a", "red", "house", "at", "night,", "gouache"], "seed", "4", "out/a.png",
    ]  # fmt: skip
    assert "out/b.png" in lines[2]
    assert "cached" in lines[3]
    assert len(lines) == 4


@given(st.lists(st.text(), max_size=5), st.sampled_from(Status))
@settings(max_examples=60, deadline=None)
def test_any_prompt_gives_one_line_each_and_can_be_saved(
    prompts: list[str], status: Status
) -> None:
    results = [result(i, prompt, images=(), status=status) for i, prompt in enumerate(prompts)]
    data, metadata = bundle(results, thumb=lambda image, side_px: None, base=BASE)
    assert len(data["text/plain"].split("\n")) == 1 + len(prompts)
    json.dumps([data, metadata], ensure_ascii=False).encode("utf-8")


def test_a_thousand_results_stay_readable_and_small(thumbs: list[bytes]) -> None:
    results = [result(i) for i in range(1000)]
    data, metadata = bundle(results, thumb=lambda image, side_px: thumbs[0], base=BASE)
    assert size_of(data, metadata) < BUDGET_BYTES * 200 + 400 * 800
    assert data["text/plain"].count("\n") <= 202
    assert "940 more" in data["text/html"]


def test_five_hundred_photographs_are_a_few_megabytes(thumbs: list[bytes]) -> None:
    def thumb(image: ImageRecord, side_px: int) -> bytes:
        return thumbs[image.seed % 3]  # type: ignore[operator]

    data, metadata = bundle([result(i) for i in range(500)], thumb=thumb, base=BASE)
    assert size_of(data, metadata) < 3_500_000
    sheet = base64.b64decode(data["image/jpeg"])
    assert 20_000 < len(sheet) <= 120_000

"""An output folder as the engine would leave it behind, of any size, without making a picture each."""

from __future__ import annotations

import asyncio
import colorsys
import hashlib
import io
import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

from nbimg.store.files import Store
from nbimg.store.journal import Journal, Row
from nbimg.types import (
    Attempt,
    EncodedImage,
    ErrorRecord,
    ImageRecord,
    Request,
    Result,
    Seconds,
    Status,
)

__all__ = ["fill_folder"]


def fill_folder(folder: Path, count: int, *, picture: Callable[[int], bytes] | None = None) -> None:
    """Write a journal of `count` images that were made, with their files, as the engine would."""
    store = Store(folder)
    draw = picture or _drawn
    kinds = 24
    drawn = [
        store.put(EncodedImage(draw(k)), "seen-{index}.png", {"index": k}) for k in range(kinds)
    ]
    (folder / "made").mkdir()
    for one in drawn:
        store.thumb(one, 256)
    things = ("house", "boat", "lighthouse", "fox", "kettle", "violin", "meadow", "tram")
    places = (
        "by the sea",
        "at night, in the rain",
        "on a hill in autumn",
        "in an old town",
        "under the stars",
    )
    models = (
        ("replicate:black-forest-labs/flux-dev", 0.025),
        ("replicate:qwen/qwen-image", None),
        ("demo", 0.0),
    )
    results = []
    for k in range(count):
        model, cost = models[k % 7 % 3]
        request = Request(f"a {things[k % 8]} {places[k // 8 % 5]}, number {k}", seed=k, n=1)
        at = 1.7e9 + 900 * k
        attempts = (
            Attempt(model, "create", at, 0.4, "ok", 201, f"job-{k}"),
            Attempt(model, "run", at + 0.4, 3.1, "ok", None, f"job-{k}"),
        )
        seconds = Seconds(0.2, 3.1, 0.3)
        if k % 97 == 11:
            error = ErrorRecord(
                "ContentRefusedError", "refused: the prompt was flagged.", None, 400
            )
            results.append(
                Result(
                    k,
                    request,
                    model,
                    status=Status.REFUSED,
                    error=error,
                    attempts=attempts,
                    seconds=seconds,
                    cost_usd=0.0,
                )
            )
            continue
        base = drawn[k % kinds]
        path, sha256 = folder / "made" / f"{k}.png", hashlib.sha256(str(k).encode()).hexdigest()
        os.link(base.path, path)  # as if each were a picture of its own
        thumbs = folder / ".nbimg" / "thumbs"
        os.link(thumbs / f"{base.sha256}-256.webp", thumbs / f"{sha256}-256.webp")
        record = ImageRecord(path, None, "image", base.mime, base.width, base.height, sha256, k)
        results.append(
            Result(
                k,
                request,
                model,
                images=(record,),
                attempts=attempts,
                seconds=seconds,
                cost_usd=cost,
            )
        )
    journal = Journal(folder / ".nbimg" / "journal.sqlite3")

    async def write() -> None:
        await journal.begin(
            "made", [Row(r.index, r.request, r.model, r.index, 1, None) for r in results], about={}
        )
        for first in range(0, len(results), 2000):
            await asyncio.gather(
                *(journal.finished("made", r) for r in results[first : first + 2000])
            )
        await journal.end("made", "done")

    with ThreadPoolExecutor(1) as aside:  # a browser's loop may run in this thread
        aside.submit(lambda: asyncio.run(write())).result()
    journal.close()


def _drawn(number: int) -> bytes:
    """A quiet abstract landscape, in one of several shapes."""
    chance = random.Random(number)
    width, height = ((768, 768), (1024, 768), (768, 1152), (1280, 720))[number % 4]
    hue = chance.random()

    def tone(shift: float, light: float, full: float = 0.45) -> tuple[int, ...]:
        return tuple(
            round(255 * part) for part in colorsys.hls_to_rgb((hue + shift) % 1, light, full)
        )

    image = Image.new("RGB", (width, height), tone(0, 0.8))
    pen = ImageDraw.Draw(image)
    for line in range(height // 2):
        pen.line((0, line, width, line), fill=tone(0, 0.55 + 0.3 * line / (height / 2)))
    sun = chance.randrange(width // 5, width * 4 // 5)
    radius = chance.randrange(height // 16, height // 8)
    pen.ellipse(
        (sun - radius, height // 4 - radius, sun + radius, height // 4 + radius),
        fill=tone(0.08, 0.9, 0.9),
    )
    for layer in range(5):
        base = height * (0.42 + 0.12 * layer)
        tops = [(width * k / 12, base - chance.random() * height * 0.16) for k in range(13)]
        pen.polygon(
            [(0, height), *tops, (width, height)], fill=tone(0.02 * layer, 0.58 - 0.1 * layer)
        )
    image = image.filter(ImageFilter.GaussianBlur(0.8))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()

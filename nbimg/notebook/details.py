"""Everything that is known of an image, as rows of words.

Stage: the front end, behind the lightbox. Comes in: a result and one of its images. Goes out: names and
values as a person reads them. Pure, but for the folder that paths are told from.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from nbimg.display import tile as tiles
from nbimg.display import words
from nbimg.notebook.ascell import near
from nbimg.store.index import Entry
from nbimg.types import ImageRecord, Request, Result

__all__ = ["attempts", "price", "rows"]

_OPTIONS = {
    "negative": "Negative",
    "ar": "Aspect ratio",
    "steps": "Steps",
    "guidance": "Guidance",
    "strength": "Strength",
    "scheduler": "Sampler",
}
_SHORTEST_S = 0.05


def price(result: Result) -> str:
    """Return what one more such image costs, as far as this one tells."""
    if result.cost_usd is None or result.cached:
        return ""
    return words.money(result.cost_usd / max(1, len(result.images)))


def rows(entry: Entry, result: Result, record: ImageRecord | None) -> Iterator[tuple[str, str]]:
    """Yield name and value of all that is known, what matters most first."""
    yield "Model", result.model
    if result.model_asked and result.model_asked != result.model:
        yield "Asked for", result.model_asked
    if entry.seed is not None:
        yield "Seed", str(entry.seed)
    if record is not None:
        yield "Size", tiles.size_of(record)
        yield "Format", record.mime
    yield from _asked(result.request)
    if entry.at_utc:
        yield "Made", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.at_utc))
    if spent := _spent(result):
        yield "Time", spent
    yield "Cost", _cost(result)
    if record is not None:
        yield from _places(record)


def attempts(result: Result) -> Iterator[tuple[str, ...]]:
    """Yield each try: when, stage, model, outcome, how long, the provider's job."""
    for attempt in result.attempts:
        yield (
            time.strftime("%H:%M:%S", time.localtime(attempt.at_utc)),
            attempt.stage,
            tiles.model_name(attempt.model),
            attempt.outcome + (f" ({attempt.http_status})" if attempt.http_status else ""),
            words.duration(attempt.seconds),
            attempt.job_id or "",
        )


def _asked(request: Request) -> Iterator[tuple[str, str]]:
    for name, label in _OPTIONS.items():
        if (value := getattr(request, name)) is not None:
            yield label, str(value)
    for lora in request.lora:
        yield "LoRA", lora
    for name, value in request.params.items():
        yield name, _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _spent(result: Result) -> str:
    seconds = result.seconds
    parts = {"queued": seconds.queued, "running": seconds.running, "download": seconds.download}
    told = (f"{words.duration(s)} {what}" for what, s in parts.items() if s >= _SHORTEST_S)
    return ", ".join(told)


def _cost(result: Result) -> str:
    if result.cached:
        return "from the store, at no cost"
    if result.cost_usd is None:
        return "unknown"
    many = f" for {len(result.images)} images" if len(result.images) > 1 else ""
    return words.money(result.cost_usd) + many


def _places(record: ImageRecord) -> Iterator[tuple[str, str]]:
    if record.path is not None:
        yield "File", near(record.path)
    elif record.url:
        yield "Address", record.url
    if record.sha256:
        yield "SHA-256", record.sha256

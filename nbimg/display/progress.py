"""Shows the numbers of a job in one or two lines.

Stage: while a job runs. Comes in: a `Fold`. Goes out: HTML, terminal text. Must not: look at the clock;
whoever draws says what time it is.
"""

from __future__ import annotations

import base64

from nbimg.calls.progress import Fold, Hold
from nbimg.display import words
from nbimg.display.html import Markup, clean, element
from nbimg.media import pixels
from nbimg.types import Status

__all__ = ["render_html", "render_numbers", "render_said", "render_text"]

PREVIEWS = 4  # so many at most
PREVIEW_PX = 128  # high
STOP_AFTER_S = 3.0  # what is over sooner needs no word about stopping
_SIGNS = (
    (Status.PARTIAL, "◐"),
    (Status.FAILED, "✕"),
    (Status.REFUSED, "⊘"),
    (Status.UNKNOWN, "?"),
    (Status.CANCELLED, "■"),
)


def render_html(fold: Fold, now_utc: float, *, head: str = "", about: str = "") -> Markup:
    """Return one line of numbers with a bar, and one of words where there is something to say.

    Args:
        fold: What is known.
        now_utc: Unix time in seconds.
        head: Which job it is, where that has to be said; nothing is said about Stop then.
        about: What it makes, in the second line.
    """
    bar = element(
        "progress",
        f"{fold.share():.0%}",
        value=f"{fold.share():.3f}",
        max=1,
        style={"width": "160px", "height": "8px", "vertical-align": "middle"},
    )
    numbers = element(
        "span", " " + " · ".join([*render_numbers(fold, now_utc), *([head] if head else [])])
    )
    going = fold.done < fold.total and fold.elapsed_s(now_utc) >= STOP_AFTER_S and not head
    stop = element("span", " · ■ Stop keeps what is done", style={"opacity": "0.66"})
    said = [*([about] if about else []), *render_said(fold, now_utc)]
    second = (
        element("div", " · ".join(said), dir="auto", style={"opacity": "0.75"}) if said else None
    )
    style = {"font-size": "13px", "line-height": "1.5", "text-align": "left", "padding": "4px 0"}
    return element(
        "div",
        element("div", bar, numbers, stop if going else None),
        second,
        None if head else _previews(fold),
        style=style,
    )


def _previews(fold: Fold) -> Markup | None:
    """What the pictures look like so far, in a row; nothing where nobody tells."""
    pictures = [
        element(
            "img",
            src=f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}",
            alt="so far",
            height=PREVIEW_PX,
            style={"border-radius": "6px", "margin": "4px 4px 0 0"},
        )
        for data in fold.previews(PREVIEWS)
        if (mime := pixels.sniff(data)) is not None and mime.startswith("image/")
    ]
    return element("div", *pictures) if pictures else None


def render_text(fold: Fold, now_utc: float, *, width: int = 20) -> str:
    """Return one line for a terminal, without a line end.

    Args:
        fold: What is known.
        now_utc: Unix time in seconds.
        width: Characters of the bar.
    """
    full = round(fold.share() * width)
    bar = "█" * full + "░" * (width - full)
    return clean(
        f"{bar} " + " · ".join([*render_numbers(fold, now_utc), *render_said(fold, now_utc)])
    )


def render_numbers(fold: Fold, now_utc: float) -> list[str]:
    """Return the numbers as short texts, in their order, not yet escaped."""
    goal = words.count(fold.images_total, "image")
    parts = [f"{fold.images:,} of {goal}", *_pace(fold, now_utc)]
    if fold.cost_usd > 0:
        parts.append(words.money(fold.cost_usd))
    if fold.cached:
        parts.append(f"↺ {fold.cached} cached")
    ended = fold.endings
    parts += [f"{sign} {ended[status]} {status}" for status, sign in _SIGNS if ended[status]]
    return parts


def _pace(fold: Fold, now_utc: float) -> list[str]:
    """How fast it goes and how long it takes yet."""
    if fold.total == 0:
        return []
    parts = []
    step, rate, left = fold.step(), fold.rate(now_utc), fold.left_s(now_utc)
    if step is not None and fold.done < fold.total:
        parts.append(f"step {step.done} / {step.total}")
    if rate is not None and fold.images_total > 1:
        parts.append(words.rate(rate))
    elapsed = words.duration(fold.elapsed_s(now_utc))
    if fold.done >= fold.total:
        return [*parts, elapsed]
    known = f"{words.duration(_rounded(left))} left" if left is not None else f"{elapsed} so far"
    return [*parts, known]


def render_said(fold: Fold, now_utc: float) -> list[str]:
    """Return what a person should know beyond numbers: waits, retries, the last notice; not escaped."""
    parts = []
    if fold.done < fold.total:
        hold = fold.hold(now_utc)
        if hold is not None:
            parts.append(_wait(hold, now_utc, alone=fold.total == 1))
    if fold.retries:
        parts.append(words.count(fold.retries, "retry", "retries"))
    if fold.last_notice:
        parts.append(words.shorten(fold.last_notice, 160))
    return parts


def _wait(hold: Hold, now_utc: float, *, alone: bool) -> str:
    """Say a wait; a reason's details after the first colon are for the result, not for a line."""
    reason = words.shorten(hold.reason.partition(": ")[0], 100).removesuffix(".")
    if hold.until_utc is None:
        return f"waiting: {reason}" if reason else "waiting"
    left = words.duration(_rounded(hold.until_utc - now_utc))
    if hold.retried is not None:
        what = "" if alone else f"task {hold.retried + 1} "
        return f"trying {what}again in {left}" + (f" ({reason})" if reason else "")
    return f"{reason}, next try in {left}" if reason else f"next try in {left}"


def _rounded(seconds: float) -> float:
    """Return whole seconds, at least 1: a foretold tenth would be a lie."""
    return float(max(1, round(seconds)))

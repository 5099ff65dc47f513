"""Make what a set of results lacks, and pay for nothing twice.

Stage: below the result set. Comes in: results, and the batches of the journal that they are of. What was
sent is taken up first; only what is missing then is made. Goes out: the results anew. Must not: know a
session; what it needs from one is handed in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from nbimg.types import ImageRecord, Request, Result, Status

__all__ = ["Made", "Part", "Rerun", "Sent", "retried"]

OWED = (
    "It may be paid for and could not be fetched yet: try again later, or have it made anew with "
    "retry_failed(unknown=True)."
)
UNKNOWN = (
    "Nobody can tell whether it was made and charged: retry_failed(unknown=True) makes it anew."
)


@dataclass(frozen=True, slots=True)
class Sent:
    """A batch of the journal.

    Attributes:
        batch: Its name.
        indexes: Of its tasks in order, the index of the result that each is (or is a part of).
    """

    batch: str
    indexes: Sequence[int]


@dataclass(frozen=True, slots=True)
class Part:
    """A task of such a batch, after what it had left was taken up.

    Attributes:
        result: What became of it; None: there was nothing to take up in the batch.
        owed: Whether something of it may be paid for, and can perhaps be fetched another time.
        unknown: Whether nobody can tell of something of it whether it was accepted.
        seed: The base seed that was sent; None: none was.
    """

    result: Result | None = None
    owed: bool = False
    unknown: bool = False
    seed: int | None = None


class Made(Protocol):
    """A set of results."""

    @property
    def sent(self) -> tuple[Sent, ...]: ...  # noqa: D102
    def __iter__(self) -> Iterator[Result]: ...


@dataclass(frozen=True, slots=True)
class Rerun:
    """What a session does for `retry_failed`.

    Attributes:
        make: Makes requests anew.
        take_up: Fetches what a batch has left and creates nothing; gives its tasks in order.
    """

    make: Callable[[Sequence[Request]], Made]
    take_up: Callable[[str], Sequence[Part]] = lambda _batch: ()


def retried(
    results: Iterable[Result], sent: Sequence[Sent], rerun: Rerun, *, unknown: bool
) -> tuple[Mapping[int, Result], tuple[Sent, ...]]:
    """Fetch what can be fetched, and make what is missing then.

    Args:
        results: In any order.
        sent: The batches that they are of, oldest first.
        rerun: Does it.
        unknown: Whether that is made as well which may have been made and paid for already.

    Returns:
        Index → result, of those that were not whole; and the batches that all results are of now.
    """
    bad = {result.index: result for result in results if result.status is not Status.OK}
    seeds, kept = _take_up(bad, sent, rerun)
    requests: list[Request] = []
    owners: list[int] = []
    for index, result in bad.items():
        why = kept.get(index) or (UNKNOWN if result.status is Status.UNKNOWN else None)
        if result.status is Status.OK:
            continue
        if why is not None and not unknown:
            bad[index] = replace(result, notices=tuple(dict.fromkeys((*result.notices, why))))
            continue
        lacking = _missing(result, seeds.get(index))
        requests += lacking
        owners += [index] * len(lacking)
    if not requests:
        return bad, tuple(sent)
    made = rerun.make(requests)
    fresh: dict[int, list[Result]] = {}
    for index, result in zip(owners, made, strict=True):
        fresh.setdefault(index, []).append(result)
    bad |= {index: _joined(bad[index], several) for index, several in fresh.items()}
    parts = [Sent(one.batch, [owners[index] for index in one.indexes]) for one in made.sent]
    return bad, (*sent, *parts)


def _take_up(
    bad: dict[int, Result], sent: Sequence[Sent], rerun: Rerun
) -> tuple[dict[int, int], dict[int, str]]:
    """Put what can be fetched into `bad`; return the base seeds, and what is not to be made again."""
    seeds: dict[int, int] = {}
    kept: dict[int, str] = {}
    for batch in sent:
        if bad.keys().isdisjoint(batch.indexes):
            continue
        for index, part in zip(batch.indexes, rerun.take_up(batch.batch), strict=False):
            if index not in bad:
                continue
            bad[index] = _fetched(bad[index], part.result)
            if part.seed is not None:
                seeds.setdefault(index, part.seed)
            if part.owed or part.unknown:
                kept[index] = OWED if part.owed else UNKNOWN
    return seeds, kept


def _fetched(old: Result, new: Result | None) -> Result:
    """An old result with what was fetched since, of all of it or of a part."""
    if new is None:
        return old
    had = [_origin(image) for image in old.images]
    has = [_origin(image) for image in new.images]
    if whole := set(had) <= set(has):
        images = new.images
    else:
        images = (*old.images, *(i for i in new.images if _origin(i) not in had))
    enough = len(images) >= old.request.n
    costs = [new.cost_usd] if whole else [old.cost_usd, new.cost_usd]
    return replace(
        old if not new.images else new,
        index=old.index,
        request=old.request,
        model_asked=old.model_asked,
        status=Status.OK if enough else Status.PARTIAL if images else new.status,
        images=_in_order(images, old.request.n),
        error=None if enough else new.error or (old.error if new.status is Status.OK else None),
        attempts=(*old.attempts, *(a for a in new.attempts if a not in old.attempts)),
        notices=old.notices if enough else tuple(dict.fromkeys((*old.notices, *new.notices))),
        cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
        usage=old.usage if new.attempts == old.attempts else _sum(old, new),
    )


def _origin(image: ImageRecord) -> str:
    """What tells two images apart, also when one was fetched twice."""
    return image.url or str(image.path)


def _in_order(images: Sequence[ImageRecord], count: int) -> tuple[ImageRecord, ...]:
    """Variants in order where their seeds tell it: those of a task follow each other; else as they are."""
    seeds = [image.seed for image in images if image.seed is not None]
    if len(seeds) < len(images) or not seeds or max(seeds) - min(seeds) >= count:
        return tuple(images)
    return tuple(sorted(images, key=lambda image: image.seed or 0))


def _missing(result: Result, base: int | None) -> list[Request]:
    """The requests that make what a result lacks: one a seed where it is known which are there."""
    request = result.request if base is None else result.request.but(seed=base)
    made = {image.seed for image in result.images}
    if request.seed is None or None in made:
        lacking = request.n - len(result.images)
        return [result.request.but(n=lacking)] if lacking > 0 else []
    seeds = [request.seed + k for k in range(request.n)]
    if not made:
        return [request]
    return [request.but(n=1, seed=seed) for seed in seeds if seed not in made]


def _joined(old: Result, fresh: Sequence[Result]) -> Result:
    """An old result with what was made since, variants in order."""
    images = [*old.images, *(image for new in fresh for image in new.images)]
    bad = next((new for new in fresh if new.status is not Status.OK), None)
    costs = [result.cost_usd for result in (old, *fresh) if result.images]
    return replace(
        fresh[-1],
        index=old.index,
        request=old.request,
        status=Status.OK if bad is None else Status.PARTIAL if images else bad.status,
        images=_in_order(images, old.request.n),
        error=bad.error if bad else None,
        attempts=(*old.attempts, *(a for new in fresh for a in new.attempts)),
        notices=tuple(dict.fromkeys(n for result in (old, *fresh) for n in result.notices)),
        cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
        usage=_sum(old, *fresh),
    )


def _sum(*results: Result) -> Mapping[str, int]:
    return sum((Counter(result.usage) for result in results), Counter())

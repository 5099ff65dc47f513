"""What was made before is shown again: at once, and at no cost.

Stage: between choosing the models and planning. Comes in: requests and the cell that asks. Goes out:
results from the store. Must not: ask a network; the key is what the user asked for, not what a provider
says today.

A request is looked up by its slot: its key (prompt, options, input bytes, model), and its number among
equal ones, so that twins keep their own pictures. Without a seed the cell belongs to the slot as well:
its first run in a fresh kernel shows what the saved notebook shows, running it again makes it anew.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

from nbimg.errors import StoreError
from nbimg.store.files import Store
from nbimg.store.journal import Journal
from nbimg.types import ImageRecord, ModelRef, Request, Result, Seconds

__all__ = ["Cache", "Cell"]


@dataclass(frozen=True, slots=True)
class Cell:
    """The cell that asks.

    Attributes:
        id: What the front end calls it; empty where it does not tell.
        run: The number of its execution in this kernel.
    """

    id: str
    run: int


class Cache:
    """The cache of a kernel."""

    def __init__(self) -> None:
        self._asked: set[str] = set()  # slots without a seed that this kernel has been asked for
        self._twins: Counter[str] = Counter()
        self._cell: Cell | None = None

    def slots(
        self, requests: Sequence[Request], refs: Sequence[ModelRef | None], cell: Cell | None
    ) -> list[str | None]:
        """Return the slot of each request; None where no model is known.

        Args:
            requests: Their images are read.
            refs: The model of each, where it is known.
            cell: The cell that asks; None outside of notebooks.
        """
        if cell is None or not cell.id:
            pass  # equal requests are counted through the whole kernel
        elif cell != self._cell:
            self._cell = cell
            self._twins.clear()
        seeded: Counter[str] = Counter()
        found: list[str | None] = [None] * len(requests)
        for index, (request, ref) in enumerate(zip(requests, refs, strict=True)):
            if ref is None:
                continue
            key, twins = request.but(model=ref.full).key, seeded
            if request.seed is None:
                key, twins = f"{key}@{cell.id if cell else ''}", self._twins
            found[index] = f"{key}:{twins[key]}"
            twins[key] += 1
        return found

    async def find(
        self,
        requests: Sequence[Request],
        slots: Sequence[str | None],
        refs: Sequence[ModelRef | None],
        *,
        mode: str,
        stand_ins: Collection[str] | None,
        cell: Cell | None,
        store: Store,
        journal: Journal,
        disk: Executor,
    ) -> dict[int, Result]:
        """Return index → result, of the requests that need not be made.

        Args:
            requests: In order.
            slots: The slot of each.
            refs: The model of each, for file names.
            mode: `auto`, `always` or `never`.
            stand_ins: Full names of the models that may have made it in place of the one that was
                asked for; None: any.
            cell: The cell that asks.
            store: Where the images are.
            journal: Where the results are.
            disk: The threads that look.
        """
        keyed = [
            (i, slot, ref)
            for i, (slot, ref) in enumerate(zip(slots, refs, strict=True))
            if slot is not None and ref is not None
        ]
        wanted = [one for one in keyed if self._reusable(requests[one[0]], one[1], mode, cell)]
        self._asked.update(slot for i, slot, _ in keyed if requests[i].seed is None)
        if not wanted:
            return {}
        try:
            known = await journal.find([slot for _, slot, _ in wanted])
        except StoreError:
            return {}  # the journal says so when something is to be written
        hits = {
            i: known[slot]
            for i, slot, ref in wanted
            if slot in known
            and (stand_ins is None or _makers(known[slot]) <= {ref.full, *stand_ins})
        }

        def named() -> dict[int, Result]:
            there = {i: _named(i, requests[i], hit, str(refs[i]), store) for i, hit in hits.items()}
            return {i: result for i, result in there.items() if result is not None}

        return await asyncio.get_running_loop().run_in_executor(disk, named)

    def _reusable(self, request: Request, slot: str, mode: str, cell: Cell | None) -> bool:
        if mode != "auto":
            return mode == "always"
        return request.seed is not None or (cell is not None and slot not in self._asked)


def _makers(hit: Result) -> set[str]:
    """The models that may have made some of it."""
    return {hit.model, *(a.model for a in hit.attempts if a.outcome == "ok")}


def _named(index: int, request: Request, hit: Result, model: str, store: Store) -> Result | None:
    """The result under the names that this request wants; None when an image is gone."""
    images: list[ImageRecord] = []
    several = len(hit.images) > 1 or request.n > 1
    same = request.output == hit.request.output and index == hit.index
    for number, image in enumerate(hit.images, 1):
        if same and store.holds(image):
            images.append(image)
            continue
        values = {"index": index + 1, "prompt": request.prompt, "model": model, "seed": image.seed}
        variant = number if request.output and several else None
        try:
            images.append(store.again(image, request.output, values, variant=variant))
        except StoreError:
            return None
    if not images:
        return None
    return replace(
        hit,
        index=index,
        request=request,
        images=tuple(images),
        attempts=(),
        seconds=Seconds(),
        cost_usd=0.0,
        cached=True,
    )

"""What holds for a whole call, beside its requests.

Stage: between the front ends and the session. Comes in: options of a cell, or keyword arguments. Goes out:
one value that all stages read. Must not: hold a request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nbimg.calls.cache import Cell
from nbimg.credentials.secret import Secret

__all__ = ["CallOptions"]


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What holds for a whole call; None: the setting's value.

    Attributes:
        task: `generate`, or `edit` when every request has an image.
        rows: Labels of the grid's rows, for a fan-out.
        columns_labels: Labels of its columns.
        groups: A number a request; those with the same one share the base seed that is drawn, so that
            only what they fan out over differs. Empty: each has its own.
        concurrency: Calls at once per account.
        semaphore: One that every call holds as well: the name of a registered one, or any semaphore.
        retries: At most this many attempts a stage.
        timeout: Bound on each call of a task, in seconds.
        url_only: Keep the provider's addresses, download nothing.
        budget: Most that the call may cost, in US dollars.
        fallback: Models to go on with when one fails; empty: none; None: the rules decide.
        cache: Whether the store is always looked in, or never; None: the setting.
        cell: The cell that asks; None outside of notebooks.
        columns: Columns of the grid.
        lenient: Whether a call of which no task can be sent returns its failures, as a list does, and
            does not raise the first of them.
        credentials: Variable → secret, for this call alone; see `given`.
    """

    task: str = "generate"
    rows: tuple[str, ...] = ()
    columns_labels: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()
    concurrency: int | None = None
    semaphore: Any = None
    retries: int | None = None
    timeout: float | None = None
    url_only: bool = False
    budget: float | None = None
    fallback: tuple[str, ...] | None = None
    cache: bool | None = None
    cell: Cell | None = None
    columns: int | None = None
    lenient: bool = False
    credentials: Mapping[str, Secret] = field(default_factory=dict)

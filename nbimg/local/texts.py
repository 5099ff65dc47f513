"""What text encoders have made of prompts, so that a prompt is read once.

Stage: around a call of a pipeline. Comes in: what the pipeline hands its text encoders. Goes out: what they
give, from memory where they have been asked the same before. Must not: outlive the encoder, or hold memory
of the card.

It works on the encoders themselves, row by row: it is as right for one pipeline as for another, and the
prompt that eight images of a batch share is read once. An encoder that is handed anything but rows (the
images of an edit) is asked as ever.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

from nbimg.local.device import needed

__all__ = ["KEPT_BYTES", "remembered"]

#: What is kept for an encoder at most.
KEPT_BYTES = 256 * 2**20
_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")

_kept: weakref.WeakKeyDictionary[Any, _Memory] = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def remembered(pipe: Any, salt: Hashable = ()) -> Iterator[None]:
    """Have the text encoders of a pipeline answer from memory inside.

    Args:
        pipe: The pipeline.
        salt: What else decides what they give: the adapters that are active.
    """
    torch, _ = needed()
    with contextlib.ExitStack() as stack:
        for name in _ENCODERS:
            encoder = getattr(pipe, name, None)
            if isinstance(encoder, torch.nn.Module):
                memory = _kept.setdefault(encoder, _Memory())
                stack.enter_context(_replaced(encoder, memory.asking(encoder.forward, salt)))
        yield


@contextlib.contextmanager
def _replaced(encoder: Any, forward: Callable[..., Any]) -> Iterator[None]:
    own = encoder.__dict__.get("forward")  # there where a model is kept off the card
    encoder.forward = forward
    try:
        yield
    finally:
        if own is None:
            del encoder.forward
        else:
            encoder.forward = own


class _Memory:
    """Rows that an encoder has been asked, and what it gave, the latest used last."""

    def __init__(self) -> None:
        self._rows: OrderedDict[Hashable, tuple[int, Any]] = OrderedDict()
        self._bytes = 0
        self._unreadable = False  # what it gives is not made of rows

    def asking(self, forward: Callable[..., Any], salt: Hashable) -> Callable[..., Any]:
        """Return `forward` with this memory before it."""

        def ask(*args: Any, **options: Any) -> Any:
            given: dict[Any, Any] = {**dict(enumerate(args)), **options}
            keys = None if self._unreadable else _keys(given, salt)
            if keys is None:
                return forward(*args, **options)
            first: dict[Hashable, int] = {}
            for row, key in enumerate(keys):
                first.setdefault(key, row)
            found = {key: self._rows[key][1] for key in first if key in self._rows}
            new = [(key, row) for key, row in first.items() if key not in found]
            if new:
                rows = [row for _, row in new]
                out = forward(
                    *(_chosen(value, rows) for value in args),
                    **{name: _chosen(value, rows) for name, value in options.items()},
                )
                # what is too large to keep stays where it is: an encoder that gives all its layers
                # makes 100 MB a prompt, and to copy that takes longer than to read the prompt again
                kept = _size(out) <= len(rows) * (KEPT_BYTES // 4)
                parts = _split(out, len(rows), kept=kept) if _in_rows(out) else None
                if parts is None:
                    self._unreadable = True
                    return forward(*args, **options)
                found |= {key: part for (key, _), part in zip(new, parts, strict=True)}
            for key in first:
                self._keep(key, found[key])
            if len(new) == len(keys):
                return out
            return _joined([found[key] for key in keys], _device(given))

        return ask

    def _keep(self, key: Hashable, value: Any) -> None:
        if key in self._rows:
            self._rows.move_to_end(key)
            return
        size = _size(value)
        if size > KEPT_BYTES // 4:
            return
        self._rows[key] = size, value
        self._bytes += size
        while self._bytes > KEPT_BYTES:
            self._bytes -= self._rows.popitem(last=False)[1][0]


def _in_rows(out: Any) -> bool:
    return _is_tensor(out) or isinstance(out, Mapping | tuple | list)


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "untyped_storage")


def _keys(given: Mapping[Any, Any], salt: Hashable) -> list[Hashable] | None:
    """A key for each row; None where it is not made of rows, or of something that has no key."""
    tensors = {name: value for name, value in given.items() if _is_tensor(value)}
    rest = tuple((name, value) for name, value in given.items() if name not in tensors)
    if not tensors or any(not isinstance(v, bool | int | float | str | None) for _, v in rest):
        return None
    counts = {value.shape[0] if value.ndim > 1 else -1 for value in tensors.values()}
    if len(counts) != 1 or -1 in counts:
        return None
    shapes = tuple((n, str(v.dtype), tuple(v.shape[1:])) for n, v in tensors.items())
    torch, _ = needed()
    plain = [value.detach().cpu().contiguous() for value in tensors.values()]
    return [
        (salt, rest, shapes, *(bytes(value[row].view(torch.uint8).numpy()) for value in plain))
        for row in range(counts.pop())
    ]


def _device(given: Mapping[Any, Any]) -> Any:
    return next(value.device for value in given.values() if _is_tensor(value))


def _chosen(value: Any, rows: Sequence[int]) -> Any:
    return value[list(rows)] if _is_tensor(value) else value


def _split(out: Any, count: int, *, kept: bool) -> list[Any] | None:
    """Return what an encoder gave, row by row; None where that is not how it is made.

    Args:
        out: What it gave.
        count: For so many rows.
        kept: Whether the rows are kept, in main memory; else they are parts of `out`.
    """
    if out is None or _is_tensor(out):
        if out is None:
            return [None] * count
        if out.ndim == 0 or out.shape[0] != count:
            return None
        rows = out.detach().split(1)
        return [row.cpu().clone() for row in rows] if kept else list(rows)
    if isinstance(out, Mapping):
        parts = {name: _split(value, count, kept=kept) for name, value in out.items()}
        if any(part is None for part in parts.values()):
            return None
        return [
            type(out)(**{n: part[row] for n, part in parts.items() if part}) for row in range(count)
        ]
    if isinstance(out, tuple | list):
        columns = [_split(value, count, kept=kept) for value in out]
        if any(column is None for column in columns):
            return None
        return list(zip(*(column for column in columns if column), strict=True))
    return [None] * count  # what a pipeline does not read: the keys and values of a language model


def _joined(rows: Sequence[Any], device: Any) -> Any:
    first = rows[0]
    if first is None:
        return None
    if _is_tensor(first):
        torch, _ = needed()
        return torch.cat(list(rows)).to(device)
    if isinstance(first, Mapping):
        return type(first)(**{name: _joined([row[name] for row in rows], device) for name in first})
    return tuple(_joined(column, device) for column in zip(*rows, strict=True))


def _size(value: Any) -> int:
    if _is_tensor(value):
        return int(value.numel() * value.element_size())
    if isinstance(value, Mapping):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, tuple | list) else 0

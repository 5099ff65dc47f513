"""The Python API: the same door as the cells.

Stage: the top. Comes in: prompts, requests, images, keyword arguments by the names of the options. Goes
out: a `ResultSet`, or a `Job`. Synchronous and awaitable forms are one implementation: a `Job` that is
waited for or awaited, right in a running loop too.
"""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from nbimg import inputs, session
from nbimg.config import SETTINGS
from nbimg.errors import ImageInputError, OptionError
from nbimg.job import Job
from nbimg.keys import PROVIDER_KEYS
from nbimg.notebook.live import watch
from nbimg.options import split_keywords
from nbimg.results import ResultSet
from nbimg.session import CallOptions
from nbimg.types import Request

__all__ = [
    "abatch",
    "about",
    "aedit",
    "agenerate",
    "batch",
    "edit",
    "generate",
    "submit",
]

_CALL = ("columns", "concurrency", "retries", "timeout", "url_only")

Prompt = str | Request | Mapping[str, Any]
Mode = Literal["each", "combine"]


def generate(prompt: Prompt | Sequence[Prompt], **options: Any) -> ResultSet:
    """Make images; blocks until they are on disk.

    Args:
        prompt: A text, a `Request`, a task's dict, or a list of these. Braces are not expanded here.
        options: As in the cell: `model`, `n`, `size`, `ar`, `seed`, `output`, `params`, `timeout` …

    Returns:
        One result a prompt, in order.

    Raises:
        GenerationError: When a single prompt fails; a list never raises for one of its tasks.
        InputError: When an option, model or image does not exist.
        SetupError: When a key or an extra is missing.

    Example:
        >>> r = nbimg.generate("a red house at night", seed=1)  # doctest: +SKIP
    """
    results = watch(submit(prompt, **options))
    return results if _several(prompt) else session.raised(results)


async def agenerate(prompt: Prompt | Sequence[Prompt], **options: Any) -> ResultSet:
    """`generate`, awaited: the caller's other tasks go on meanwhile."""
    results = await submit(prompt, **options)
    return results if _several(prompt) else session.raised(results)


def edit(
    image: Any, prompt: Prompt | Sequence[Prompt], *, mode: Mode = "each", **options: Any
) -> ResultSet:
    """Edit images; blocks until the results are on disk.

    Args:
        image: A path, address, bytes, open file, PIL image, array (height, width, 3 or 4), record or
            result, or a list of these.
        prompt: One for all images, or a list with one for each.
        mode: `each`: every image is edited; `combine`: all are references for one picture.
        options: As in the cell.

    Returns:
        One result an image (`each`) or a prompt (`combine`), in order.

    Raises:
        GenerationError: When a single edit fails.
        InputError: When prompts and images do not pair, or an image cannot be read.
    """
    requests = _edits(image, prompt, mode, options)
    results = watch(_submitted(requests, "edit", options, lenient=len(requests) > 1))
    return session.raised(results) if len(requests) == 1 else results


async def aedit(
    image: Any, prompt: Prompt | Sequence[Prompt], *, mode: Mode = "each", **options: Any
) -> ResultSet:
    """`edit`, awaited."""
    requests = _edits(image, prompt, mode, options)
    results = await _submitted(requests, "edit", options, lenient=len(requests) > 1)
    return session.raised(results) if len(requests) == 1 else results


def batch(tasks: Sequence[Prompt], **options: Any) -> ResultSet:
    """Make many; never raises for a single task.

    Args:
        tasks: Texts, `Request`s or dicts with their fields.
        options: Defaults for all tasks, and what holds for the call.
    """
    return watch(submit(list(tasks), **options))


async def abatch(tasks: Sequence[Prompt], **options: Any) -> ResultSet:
    """`batch`, awaited."""
    return await submit(list(tasks), **options)


def submit(prompt: Prompt | Sequence[Prompt], **options: Any) -> Job:
    """Start making images and return at once.

    Returns:
        A job: `job.wait()`, `await job`, `job.cancel()`, `job.results`.
    """
    fields, _ = split_keywords(options)
    requests = [_request(item, fields) for item in _listed(prompt)]
    return _submitted(requests, "generate", options, lenient=_several(prompt))


def about() -> dict[str, Any]:
    """Return what a bug report needs: versions, platform, settings, which keys are there; no secret."""
    own = session.default()
    packages = (
        "nbimg",
        "ipython",
        "ipykernel",
        "httpx",
        "pillow",
        "torch",
        "diffusers",
        "jupyterlab",
    )
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in packages},
        "settings": {s.name: own.settings.find(s.name) for s in SETTINGS},
        "keys": {name: own.keys.find(name) is not None for name in PROVIDER_KEYS},
        "backends": own.registry.names(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _several(value: Any) -> bool:
    return not isinstance(value, str | Request | Mapping)


def _request(item: Any, fields: Mapping[str, Any]) -> Request:
    """One request; what the item itself says wins over the call's options."""
    if isinstance(item, Request):
        blank = Request("")
        return item.but(
            **{k: v for k, v in fields.items() if _equal(getattr(item, k), getattr(blank, k))}
        )
    if isinstance(item, Mapping):
        return Request.from_dict({**fields, **item})
    return Request(item, **fields)


def _equal(one: Any, other: Any) -> bool:
    """Whether a field has its default; an array, which compares piece by piece, has not."""
    return type(one) is type(other) and bool(one == other)


def _listed(prompt: Any) -> list[Any]:
    if not _several(prompt):
        return [prompt]
    if not isinstance(prompt, Iterable):
        raise OptionError(f"a prompt is a text, a Request or a dict, not {type(prompt).__name__}.")
    return list(prompt)


def _edits(image: Any, prompt: Any, mode: Mode, options: Mapping[str, Any]) -> list[Request]:
    fields, _ = split_keywords(options)
    requests = [_request(item, fields) for item in _listed(prompt)]
    images = inputs.several(image)
    if not images:
        raise ImageInputError("there is no image to edit.")
    return inputs.pair(requests, images, combine=mode == "combine")


def _submitted(
    requests: Sequence[Request], task: str, options: Mapping[str, Any], *, lenient: bool
) -> Job:
    _, call = split_keywords(options)
    for name, value in call.items():
        if name not in _CALL and value:  # --dry-run that is not heard would cost money
            raise OptionError(f"{name} is an option of cells only.", allowed=_CALL)
    known = {name: value for name, value in call.items() if name in _CALL}
    groups = (0,) * len(requests) if task == "edit" else ()
    return session.default().submit(
        requests, CallOptions(task=task, groups=groups, lenient=lenient, **known)
    )

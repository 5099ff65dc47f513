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

from nbimg import session
from nbimg.calls.jobs import Job
from nbimg.config import SETTINGS
from nbimg.credentials.given import read_credentials
from nbimg.credentials.keys import PROVIDER_KEYS
from nbimg.credentials.secret import Secret
from nbimg.errors import ImageInputError, OptionError
from nbimg.media import inputs
from nbimg.notebook import place
from nbimg.notebook.live import watch
from nbimg.results import ResultSet, Usage
from nbimg.session import CallOptions
from nbimg.text.options import split_keywords
from nbimg.text.tasklist import tasks_of
from nbimg.text.tasks import requests_of, spread_seeds
from nbimg.types import Request

__all__ = [
    "abatch",
    "about",
    "aedit",
    "agenerate",
    "aresume",
    "batch",
    "edit",
    "generate",
    "job",
    "resume",
    "stats",
    "submit",
]

_CALL = (
    "budget",
    "cache",
    "columns",
    "concurrency",
    "credentials",
    "fallback",
    "retries",
    "semaphore",
    "timeout",
    "url_only",
)

Prompt = str | Request | Mapping[str, Any]
Mode = Literal["each", "combine"]


def generate(prompt: Prompt | Sequence[Prompt], **options: Any) -> ResultSet:
    """Make images; blocks until they are on disk.

    Args:
        prompt: A text, a `Request`, a task's dict, or a list of these. Braces are not expanded here.
        options: As in the cell: `model`, `n`, `size`, `ar`, `seed`, `output`, `params`, `timeout` …; and
            `credentials`: provider → its key, for this call alone (a dict of its variables where the
            credential has several parts).

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


def batch(tasks: Any, **options: Any) -> ResultSet:
    """Make many; never raises for a single task.

    Args:
        tasks: Texts, `Request`s or dicts with their fields (or the names that other tools give them), in a
            list, a table (a row a task) or `{"tasks": [...]}`.
        options: Defaults for all tasks, and what holds for the call.
    """
    return watch(submit(_listed(tasks), **options))


async def abatch(tasks: Any, **options: Any) -> ResultSet:
    """`batch`, awaited."""
    return await submit(_listed(tasks), **options)


def submit(prompt: Prompt | Sequence[Prompt], **options: Any) -> Job:
    """Start making images and return at once.

    Returns:
        A job: `job.wait()`, `await job`, `job.progress`, `job.cancel()`, `job.results`.
    """
    requests = _requests(prompt, options)
    return _submitted(requests, "generate", options, lenient=_several(prompt))


def resume(
    batch: str | None = None,
    *,
    remaining: bool = False,
    credentials: Mapping[str, Any] | None = None,
) -> ResultSet:
    """Fetch everything that is paid for and was not fetched; nothing is created twice.

    Args:
        batch: The id of one batch, as `%imgjobs` and `job.id` say; None: whatever was left.
        remaining: Whether the tasks of a broken batch that were never sent are sent now. A batch that
            was stopped by hand has nothing remaining unless it is named.
        credentials: As the batch was given; they are not in the journal.

    Returns:
        The results of the whole batch, or batches, in the order of the tasks; empty when there is nothing
        to take up.

    Raises:
        UnknownNameError: When there is no batch of that name, or another kernel runs it.
        StoreError: When the journal cannot be read or written.
    """
    return watch(_resumed(batch, remaining, credentials))


async def aresume(
    batch: str | None = None,
    *,
    remaining: bool = False,
    credentials: Mapping[str, Any] | None = None,
) -> ResultSet:
    """`resume`, awaited."""
    return await _resumed(batch, remaining, credentials)


def job(job_id: str) -> Job:
    """Return a job by its id: one of this kernel, or one of the journal, which is taken up.

    Args:
        job_id: The id of a batch, or the provider's id of one of its jobs.

    Raises:
        UnknownNameError: When the journal knows neither; it names the nearest.
    """
    return session.default().job(job_id)


def stats() -> Usage:
    """Return what this kernel has made so far: images, failures, retries, US dollars."""
    return session.default().usage


def about() -> dict[str, Any]:
    """Return what a bug report needs: versions, platform, settings, which keys are there; no secret."""
    own = session.default()
    own.keys.gather()
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
        "keys": {name: own.keys.place(name) is not None for name in PROVIDER_KEYS},
        "backends": own.registry.names(),
    }


def _credentials(asked: Any) -> Mapping[str, Secret]:
    """What a call was given; a backend of somebody's own says when it is made what its key is called."""
    if asked is None:
        return {}
    registry = session.default().registry
    for name in asked if isinstance(asked, Mapping) else ():
        if name not in PROVIDER_KEYS and name in registry.names():
            registry.get(name)
    return read_credentials(asked)


def _resumed(batch: str | None, remaining: bool, credentials: Any) -> Job:
    own = _credentials(credentials)
    return session.default().resume(batch, remaining=remaining, credentials=own)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _listed(tasks: Any) -> Any:
    """The tasks of a batch; a single one is a batch of one."""
    return tasks if _several(tasks) else tasks_of(tasks) if isinstance(tasks, Mapping) else [tasks]


def _several(value: Any) -> bool:
    return not isinstance(value, str | Request | Mapping)


def _requests(prompt: Any, options: Mapping[str, Any], *, edit: bool = False) -> list[Request]:
    """One request a prompt, dict or `Request`; what each says itself wins over the call's options."""
    fields, _ = split_keywords(options)
    seeds = fields.pop("seed") if _several_seeds(fields.get("seed")) else None
    if not _several(prompt):
        items: list[Any] = [prompt]
    elif isinstance(prompt, list | tuple):
        items = list(prompt)
    elif isinstance(prompt, Iterable):
        items = tasks_of(prompt, what="the tasks")
    else:
        raise OptionError(
            f"a prompt is a text, a Request, a dict or a list of these, not {type(prompt).__name__}."
        )
    requests = requests_of(items, fields, images_follow=edit)
    return requests if seeds is None or edit else spread_seeds(requests, seeds)


def _several_seeds(seed: Any) -> bool:
    return isinstance(seed, Iterable) and not isinstance(seed, str)


def _edits(image: Any, prompt: Any, mode: Mode, options: Mapping[str, Any]) -> list[Request]:
    requests = _requests(prompt, options, edit=True)
    images = inputs.several(image)
    if not images:
        raise ImageInputError("there is no image to edit.")
    paired = inputs.pair(requests, images, combine=mode == "combine")
    seeds = options.get("seed")
    return spread_seeds(paired, seeds) if seeds is not None and _several_seeds(seeds) else paired


def _submitted(
    requests: Sequence[Request], task: str, options: Mapping[str, Any], *, lenient: bool
) -> Job:
    _, call = split_keywords(options)
    for name, value in call.items():
        if name not in _CALL and value:  # --dry-run that is not heard would cost money
            raise OptionError(f"{name} is an option of cells only.", allowed=_CALL)
    known = {name: value for name, value in call.items() if name in _CALL}
    known["credentials"] = _credentials(known.get("credentials"))
    groups = (0,) * len(requests) if task == "edit" else ()
    return session.default().submit(
        requests, CallOptions(task=task, groups=groups, lenient=lenient, cell=place.cell(), **known)
    )

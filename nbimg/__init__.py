"""Make and edit images where you already work: in a notebook.

    %load_ext nbimg

    %%imggen
    a red house at night

The names below are imported when they are first used, so that `%load_ext nbimg` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbimg.api import (
        abatch,
        about,
        aedit,
        agenerate,
        aresume,
        batch,
        edit,
        generate,
        job,
        resume,
        stats,
        submit,
    )
    from nbimg.backends.registry import register_backend
    from nbimg.calls.jobs import Job
    from nbimg.concurrency.semaphore import get_semaphore, register_semaphore, semaphores
    from nbimg.errors import GenerationError, NbimgError
    from nbimg.results import ResultSet
    from nbimg.types import ImageRecord, Request, Result, Size, Status
    from nbimg.uploads import aupload, upload

__version__ = "0.1.0"

_HOMES = {
    "GenerationError": "errors",
    "ImageRecord": "types",
    "Job": "calls.jobs",
    "NbimgError": "errors",
    "Request": "types",
    "Result": "types",
    "ResultSet": "results",
    "Size": "types",
    "Status": "types",
    "abatch": "api",
    "about": "api",
    "aedit": "api",
    "agenerate": "api",
    "aresume": "api",
    "aupload": "uploads",
    "batch": "api",
    "edit": "api",
    "generate": "api",
    "get_semaphore": "concurrency.semaphore",
    "job": "api",
    "register_backend": "backends.registry",
    "register_semaphore": "concurrency.semaphore",
    "resume": "api",
    "semaphores": "concurrency.semaphore",
    "stats": "api",
    "submit": "api",
    "upload": "uploads",
}

__all__ = [
    "GenerationError",
    "ImageRecord",
    "Job",
    "NbimgError",
    "Request",
    "Result",
    "ResultSet",
    "Size",
    "Status",
    "abatch",
    "about",
    "aedit",
    "agenerate",
    "aresume",
    "aupload",
    "batch",
    "edit",
    "generate",
    "get_semaphore",
    "job",
    "register_backend",
    "register_semaphore",
    "resume",
    "semaphores",
    "stats",
    "submit",
    "upload",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nbimg' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"nbimg.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext nbimg`."""
    from nbimg.notebook.extension import load

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """`%unload_ext nbimg`."""
    from nbimg.notebook.extension import unload

    unload(shell)

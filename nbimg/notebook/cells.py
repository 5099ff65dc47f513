"""Run a cell: text in, requests to the session, a job under the cell.

Stage: the front end, behind the magics, imported when the first cell runs. Comes in: magic, line, body and
the shell. Goes out: a `Run`, waited for as the cell can. Must not: parse, plan or draw by itself; each is a
module of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbimg.calls.jobs import Job
from nbimg.display.dryrun import render_plan
from nbimg.errors import InputError
from nbimg.media import inputs
from nbimg.notebook import place
from nbimg.notebook.live import Live
from nbimg.notebook.run import Run, StoppedError, answering, interruptible
from nbimg.results import ResultSet
from nbimg.session import CallOptions, Session
from nbimg.text import cell as cells
from nbimg.text.cell import CellSpec
from nbimg.text.expand import Expansion, expand
from nbimg.text.tasklist import parse_tasks, read_tasks
from nbimg.text.tasks import requests_of
from nbimg.text.usage import render_help
from nbimg.types import Request

__all__ = ["StoppedError", "attend", "run"]


def run(
    magic: str, line: str, body: str | None, shell: Any, session: Session
) -> ResultSet | Job | None:
    """Do what a cell says, and block until it is done; the value of the line form is its result.

    Args:
        magic: `imggen` or `imgedit`.
        line: What follows it on its line.
        body: The text of the cell; None in the line form.
        shell: IPython's, for the variables of the notebook.
        session: The door.

    Raises:
        NbimgError: Shown as one line, with `--debug` as a traceback.
        StoppedError: After Stop; what has finished is kept and shown.
    """
    with answering(line):
        begun = _begin(magic, line, body, shell, session)
        return begun.block() if isinstance(begun, Run) else begun


async def attend(
    magic: str, line: str, body: str | None, shell: Any, session: Session
) -> ResultSet | Job | None:
    """`run`, awaited: what else runs on the loop of the kernel goes on meanwhile."""
    with answering(line):
        with interruptible():
            begun = _begin(magic, line, body, shell, session)
        return await begun.attend() if isinstance(begun, Run) else begun


def _begin(
    magic: str, line: str, body: str | None, shell: Any, session: Session
) -> Run | Job | ResultSet | None:
    """Start what a cell asks for; what is left to wait for is a `Run`."""
    spec = cells.parse(line, body, magic=magic)
    call = dict(spec.call)
    if call.get("help"):
        print(render_help(magic))
        return None
    asked = _asked(spec, shell.user_ns)
    requests = list(asked.requests)
    options = _options(asked, call, magic)
    if call.get("dry_run"):
        plan, forecast = session.plan(requests, options)
        print(render_plan(plan, forecast, options.budget))
        return None
    show = session.settings.get("display", call.get("display"))
    background = bool(call.get("background"))
    live = Live(quiet=show != "live" or background, alone=body is not None, thumb=session.thumb)
    live.expect(
        requests,
        rows=options.rows,
        columns_labels=options.columns_labels,
        columns=session.settings.get("columns", options.columns),
    )
    try:
        job = session.submit(requests, options)
    except BaseException:  # refused, or stopped: nothing is to come
        live.finish(None)
        raise
    begun = Run(
        job,
        live,
        shell,
        var=call.get("var"),
        cell=body is not None,
        shown=show != "none",
        strict=bool(call.get("strict")),
    )
    return begun.leave() if background else begun


def _options(asked: Expansion, call: Mapping[str, Any], magic: str) -> CallOptions:
    """What holds for the whole cell; an option that is not given is left to the settings."""
    return CallOptions(
        task="edit" if magic == "imgedit" else "generate",
        rows=asked.rows,
        columns_labels=asked.columns,
        groups=asked.blocks,
        concurrency=call.get("concurrency"),
        semaphore=call.get("semaphore"),
        retries=call.get("retries"),
        timeout=call.get("timeout"),
        url_only=bool(call.get("url_only")),
        budget=call.get("budget"),
        fallback=call.get("fallback"),
        cache=call.get("cache"),
        cell=place.cell(),
        columns=call.get("columns"),
    )


def _asked(spec: CellSpec, names: Mapping[str, Any]) -> Expansion:
    """The requests of a cell with their images, and how they lie in the grid."""
    listed = "tasks" in spec.call
    found = _listed(spec, names) if listed else expand(spec, names)
    requests = [_with_images(request, names) for request in found.requests]
    if spec.magic != "imgedit":
        return Expansion(tuple(requests), found.rows, found.columns, found.blocks)
    images = inputs.expand_paths(spec.images, names)
    if images or not (listed and all(request.image for request in requests)):
        combine = spec.call.get("mode") == "combine"
        requests = inputs.pair(requests, images, combine=combine)
    return Expansion(tuple(requests), blocks=(0,) * len(requests))


def _listed(spec: CellSpec, names: Mapping[str, Any]) -> Expansion:
    """The tasks of a list, each with seeds of its own."""
    source = str(spec.call["tasks"])
    body = spec.blocks[0].text if spec.blocks else ""
    tasks = parse_tasks(body) if source == "-" else read_tasks(source, names)
    requests = requests_of(tasks, spec.options, images_follow=bool(spec.images))
    return Expansion(tuple(requests), blocks=tuple(range(len(requests))))


def _with_images(request: Request, names: Mapping[str, Any]) -> Request:
    """Resolve what `-i` and `--mask` name: files, folders, addresses, variables."""
    if not request.image and request.mask is None:
        return request
    mask = None
    if request.mask is not None:
        masks = inputs.expand_paths([request.mask], names)
        if len(masks) != 1:
            raise InputError(f"--mask {request.mask} holds {len(masks)} images, not one.")
        mask = masks[0]
    return request.but(image=tuple(inputs.expand_paths(request.image, names)), mask=mask)

"""Run a cell: text in, requests to the session, a grid out.

Stage: the front end, behind the magics, imported when the first cell runs. Comes in: magic, line, body and
the shell. Goes out: the result, on the screen and in the notebook's variables. Must not: parse, plan or
draw by itself; each is a module of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nbimg import catalog, inputs
from nbimg import cell as cells
from nbimg.display.dryrun import render_plan
from nbimg.errors import GenerationError, InputError, NbimgError
from nbimg.expand import expand
from nbimg.keys import PROVIDER_KEYS
from nbimg.notebook.live import Live
from nbimg.results import ResultSet
from nbimg.session import CallOptions, Session
from nbimg.types import Request, Status
from nbimg.usage import render_help

__all__ = ["StoppedError", "render_models", "run"]


class StoppedError(KeyboardInterrupt):
    """Stop ended the cell; one line in place of a traceback, and Run All stops too."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def run(magic: str, line: str, body: str | None, shell: Any, session: Session) -> ResultSet | None:
    """Do what a cell says; the value of the line form is its result.

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
    try:
        return _run(magic, line, body, shell, session)
    except NbimgError as error:
        error.debug = "--debug" in line.split()
        raise
    except StoppedError:
        raise
    except KeyboardInterrupt:  # before anything was sent, or while a plan was made
        raise StoppedError("Stopped.") from None


def _run(magic: str, line: str, body: str | None, shell: Any, session: Session) -> ResultSet | None:
    spec = cells.parse(line, body, magic=magic)
    call = dict(spec.call)
    if call.get("help"):
        print(render_help(magic))
        return None
    names = shell.user_ns
    expansion = expand(spec, names)
    requests = [_with_images(request, names) for request in expansion.requests]
    options = CallOptions(
        rows=expansion.rows,
        columns_labels=expansion.columns,
        groups=expansion.blocks,
        concurrency=call.get("concurrency"),
        retries=call.get("retries"),
        timeout=call.get("timeout"),
        url_only=bool(call.get("url_only")),
        columns=call.get("columns"),
    )
    if magic == "imgedit":
        images = inputs.expand_paths(spec.images, names)
        requests = inputs.pair(requests, images, combine=call.get("mode") == "combine")
        same = (0,) * len(requests)
        options = replace(options, task="edit", groups=same, rows=(), columns_labels=())
    if call.get("dry_run"):
        print(render_plan(session.plan(requests, options)))
        return None
    show = session.settings.get("display", call.get("display"))
    live = Live(quiet=show != "live", alone=body is not None)
    live.expect(requests)
    job = session.submit(requests, options)
    try:
        results = live.watch(job)
    except KeyboardInterrupt:
        if not job.done:
            live.finish(None)
            message = "Stopped; the provider has not confirmed it. What is done is on disk."
            raise StoppedError(message) from None
        results = job.results
        _keep(results, call, shell)
        live.finish(None if show == "none" else results)
        kept = len(results.records)
        raise StoppedError(f"Stopped: {kept} image{'s' * (kept != 1)} kept.") from None
    except NbimgError:
        live.finish(None)
        raise
    _keep(results, call, shell)
    live.finish(None if show == "none" or body is None else results)
    _judge(results, strict=bool(call.get("strict")))
    return results if body is None else None


def _keep(results: ResultSet, call: Mapping[str, Any], shell: Any) -> None:
    names = {"_img": results}
    if call.get("var"):
        names[str(call["var"])] = results
    shell.push(names)


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


def _judge(results: ResultSet, *, strict: bool) -> None:
    """Fail the cell when every task failed, or under `--strict` when any did."""
    bad = [result for result in results if result.status is not Status.OK]
    fatal = [result for result in bad if not result.images]
    if not bad or (not strict and len(fatal) < len(results)):
        return
    first = bad[0]
    message = first.error.message if first.error else f"the task was {first.status}."
    hint = first.error.hint if first.error else None
    if len(results) > 1:
        message = f"{len(bad)} of {len(results)} tasks failed, the first: {message}"
    cause = first.error.exception() if first.error else None
    raise GenerationError(message, result=first, hint=hint) from cause


def render_models(pattern: str, session: Session) -> str:
    """Return a line a model of the catalogue: its name, whether its key is there, what it takes.

    Args:
        pattern: Part of a name or description, in any case; empty: all.
        session: Where the keys are.
    """
    rows = []
    for alias, entry in catalog.entries().items():
        if pattern.lower() in f"{alias} {entry.ref.full} {entry.about}".lower():
            provider = entry.ref.provider
            needs = provider in PROVIDER_KEYS and session.keys.find(provider) is None
            what = " ".join(["makes"] * entry.makes + ["edits"] * entry.edits)
            rows.append(f"{alias:22} {'no key' if needs else 'ready':7} {what:12} {entry.about}")
    return "\n".join(rows) or f"no model matches {pattern!r}. %imgmodels lists all."

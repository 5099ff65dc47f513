"""What `%imgjobs`, `%imgcancel` and `%imgresume` do.

Stage: the front end, behind the magics, imported when the first of them runs. Comes in: the line and the
session. Goes out: a table, a line, or the result of what was taken up. Must not: know the journal.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from typing import Any

from nbimg.calls.jobs import Job
from nbimg.calls.leftovers import UNSENT
from nbimg.display import words
from nbimg.display.jobs import JobRow, JobTable
from nbimg.errors import InputError, OptionError, UnknownNameError
from nbimg.notebook.left import render_left
from nbimg.notebook.live import Live
from nbimg.notebook.run import Run, answering
from nbimg.results import ResultSet
from nbimg.session import Session

__all__ = ["cancel", "render_jobs", "resume"]

_WHERE = "%imgjobs lists them. What a kernel that is gone has left: %imgcancel ID --forget."
_RESUME = ("--remaining", "-v", "--var", "--debug")


def render_jobs(session: Session) -> JobTable:
    """Return the jobs of this kernel, the newest first, and a line about what others left behind."""
    rows = [
        JobRow(job.id, job.status, job.progress, job.begun_utc, job.about)
        for job in reversed(session.jobs())
    ]
    return JobTable(rows, time.time(), render_left(session.left()))


def cancel(line: str, session: Session) -> str:
    """Stop a job; what has finished is kept.

    Args:
        line: An id, the beginning or the end of one, `all`, or nothing for the newest that runs; with
            `--forget` a batch that nobody runs (or all of them), of which nothing will be fetched.
        session: Where they run.

    Returns:
        What to say about it.

    Raises:
        UnknownNameError: When no job has that id.
        InputError: When several have.
    """
    running = [job for job in session.jobs() if not job.done]
    wanted = " ".join(word for word in line.split() if word != "--forget")
    if "--forget" in line.split():
        return _forget(_whole(wanted, session), session)
    if wanted and wanted != "all":
        found = [_named(wanted, session.jobs())]
    else:
        found = running if wanted else running[-1:]
    for job in found:
        job.cancel()
    if not found:
        return "No job runs."
    return "\n".join(
        f"Job {job.id} has ended already."
        if job not in running
        else " · ".join(filter(None, (f"Stopping job {job.id}", job.about)))
        for job in found
    )


def _forget(batch: str, session: Session) -> str:
    """Give up what a batch that nobody runs has left, or all of them; say what it was."""
    named = batch not in ("", "all")
    given_up = session.forget(batch if named else None)
    if not given_up:
        of = f" of {batch}, or it still runs" if named else ""
        return f"Nothing is left{of}: there is nothing to forget."
    return "\n".join(
        f"Job {name}: nothing of it will be fetched or sent"
        + (f"; {words.count(paid, 'image')} may be paid for." if paid else ".")
        for name, paid in given_up.items()
    )


def resume(line: str, shell: Any, session: Session) -> ResultSet | None:
    """Take up what was left behind, with progress and Stop as in a cell; the value is the result.

    Args:
        line: `[ID] [--remaining] [-v NAME]`.
        shell: IPython's, for the variables of the notebook.
        session: Where it is taken up.

    Raises:
        NbimgError: When there is no such batch, or an option does not fit.
        StoppedError: After Stop; what has finished is kept.
    """
    with answering(line):
        batch, var, remaining = _read(line)
        if batch is not None:
            batch = _whole(batch, session)
        live = Live(quiet=session.settings.get("display") != "live")
        run = Run(session.resume(batch, remaining=remaining), live, shell, var=var, cell=False)
        results = run.block()
        if results is None:
            return None
        never = sum(UNSENT in result.notices for result in results)
        if never < len(results):
            return results
        left = session.left()._replace(paid=0)
        rest = render_left(left._replace(unsent=never), batch) if never else render_left(left)
        print(f"nbimg: there was nothing to fetch. {rest}".rstrip())
        return None


def _read(line: str) -> tuple[str | None, str | None, bool]:
    """Read the line of `%imgresume`: id, variable, whether the rest is sent, too."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise OptionError(f"{line!r}: {error}.") from None
    batch, var, remaining = None, None, False
    while words:
        word = words.pop(0)
        if word in ("-v", "--var"):
            var = words.pop(0) if words else ""
            if not var.isidentifier():
                raise OptionError(f"{word} needs a name for a variable.", allowed=_RESUME)
        elif word == "--remaining":
            remaining = True
        elif word == "--debug":
            continue
        elif word.startswith("-"):
            raise UnknownNameError("option", word, known=_RESUME)
        elif batch is not None:
            raise OptionError(f"%imgresume takes one id, and {word!r} is a second.")
        else:
            batch = word
    return batch, var, remaining


def _whole(batch: str, session: Session) -> str:
    """Return the id of a batch of this kernel that a part of it names; others are left to the journal."""
    try:
        return _named(batch, session.jobs()).id
    except UnknownNameError:
        return batch


def _named(part: str, jobs: Sequence[Job]) -> Job:
    """Return the job with an id, or with one that begins or ends like that."""
    found = [job for job in jobs if job.id == part] or [
        job for job in jobs if job.id.startswith(part) or job.id.endswith(part)
    ]
    if not found:
        known = [job.id for job in jobs]
        raise UnknownNameError("job", part, known=known, hint=_WHERE)
    if len(found) > 1:
        names = ", ".join(job.id for job in found[:3])
        raise InputError(
            f"{part!r} is the id of {len(found)} jobs: {names}.", hint="Write more of it."
        )
    return found[0]

"""Jobs beside their cells: in the background, listed, stopped, taken up."""

from __future__ import annotations

import re
import time

import pytest

from nbimg.testing import FAILURES, Outcome

from .test_kernel import IMAGE


@pytest.fixture
def hanging(server):
    """Jobs whose prompt has `hang` run until they are cancelled."""
    server.expect(Outcome(prompt_has="hang", running_s=10_000.0, times=None))
    server.expect(Outcome(prompt_has="slow", running_s=1.0, times=None))
    return server


def until(condition, seconds=15.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


# ------------------------------------------------------------------------- in the background


def test_a_cell_in_the_background_returns_at_once_and_becomes_the_grid(notebook, hanging):
    ran = notebook.run("%%imggen -b -v cats\na slow cat")
    assert ran.seconds < 10  # the job hangs, and a cell that waits for it would too
    assert "<progress" in ran.html
    assert "in the background · %imgcancel 2" in ran.html
    assert notebook.value("type(cats).__name__, cats is _img, cats.status") == "Job True running"
    notebook.run(
        "import time\nfor _ in range(60):\n    time.sleep(0.1)\n    if not hasattr(cats, 'wait'): break\ntime.sleep(0.5)"
    )
    assert (
        notebook.value("type(cats).__name__, cats is _img, len(cats.paths)") == "ResultSet True 1"
    )
    assert IMAGE.findall(ran.html) == ["a slow cat"], "in the place of the line, in its own cell"
    assert len(ran.outputs) == 1
    assert not [c for c in notebook.node.cells[1:] if any("data" in o for o in c.outputs)]


def test_the_line_under_the_cell_keeps_up(notebook, hanging):
    ran = notebook.run("%%imggen -b --lines -v cats\na cat\nhang")
    notebook.run("import time\ntime.sleep(2.5)")
    assert "1 of 2 images" in ran.html
    notebook.run("cats.cancel(); time.sleep(2.5)")
    assert IMAGE.findall(ran.html) == ["a cat"]
    assert notebook.value("[r.status.value for r in cats]") == "['ok', 'cancelled']"


def test_a_name_that_was_used_again_is_left_alone(notebook, hanging):
    notebook.run("%%imggen -b -v cats\na slow cat")
    notebook.run("job, cats = cats, 'mine'")
    assert notebook.run("%%imggen -v dogs\na dog").ok
    notebook.run("job.wait(); import time; time.sleep(0.5)")
    assert notebook.value("cats, _img is dogs") == "mine True"


def test_a_line_in_the_background_gives_the_job(notebook, hanging):
    ran = notebook.run("job = %imggen -b a slow cat")
    assert not ran.outputs
    assert notebook.value("type(job).__name__") == "Job"
    notebook.run("results = job.wait()")
    assert notebook.value("len(results.paths)") == "1"
    shown = notebook.run("job")
    assert "job 2" in shown.html
    assert "· done" in shown.html
    assert "1 of 1 image" in shown.text


def test_a_failure_in_the_background_is_said_under_its_cell(notebook, server):
    server.expect(Outcome(error=FAILURES["nsfw"]))
    ran = notebook.run("%%imggen -b\nbad")
    notebook.run("import time; time.sleep(1.5)")
    assert "NSFW content detected" in ran.html
    other = notebook.run("%%imggen -b -m flux-dve\nbad")
    notebook.run("time.sleep(1)")
    assert "Did you mean flux-dev?" in other.text + other.error


def test_strict_says_in_the_place_of_a_background_job_what_the_cell_would_have_said(
    notebook, server
):
    server.expect(Outcome(error=FAILURES["nsfw"], prompt_has="bad", running_s=1.0))
    ran = notebook.run("%%imggen -b --strict --lines -v cats\ngood\nbad")
    assert ran.ok
    notebook.run(
        "import time\nfor _ in range(60):\n    time.sleep(0.1)\n    if not hasattr(cats, 'wait'): break\ntime.sleep(0.5)"
    )
    assert IMAGE.findall(ran.html) == ["good"]
    assert "GenerationError: 1 of 2 tasks failed, the first: " in ran.html
    assert "GenerationError: 1 of 2 tasks failed, the first: " in ran.text
    assert len(ran.outputs) == 1
    assert notebook.value("len(cats.paths)") == "1"
    other = notebook.run("%%imggen -b --lines -v cats\ngood\nbetter")
    notebook.run("time.sleep(1.5)")
    assert "GenerationError" not in other.html


def test_nothing_is_shown_of_a_job_that_is_to_show_nothing(notebook):
    ran = notebook.run("%%imggen -b --display none -v cats\na cat")
    notebook.run("import time; time.sleep(1)")
    assert not ran.outputs
    assert notebook.value("len(cats.paths)") == "1"


# ------------------------------------------------------------------------- list and stop


def test_jobs_are_listed_with_the_newest_first(notebook, hanging):
    assert "No job was started" in notebook.run("%imgjobs").text
    notebook.run("%%imggen\na cat")
    notebook.run("%%imggen -b\nhang <b>up</b>")
    ran = notebook.run("%imgjobs")
    lines = ran.text.splitlines()
    assert re.match(r"id +state +progress +begun +about", lines[0])
    assert re.match(
        r"\d{8}-\d{6}-\w{6} +running +0 of 1 image.* \d\d:\d\d:\d\d  hang <b>up</b>", lines[1]
    )
    assert re.match(r"\d{8}-\d{6}-\w{6} +done +1 of 1 image", lines[2])
    assert "hang &lt;b&gt;up&lt;/b&gt;" in ran.html
    assert ran.html.count("<tr") == 3
    assert "Stopping" in notebook.run("%imgcancel").text


def test_cancel_stops_the_newest_or_the_named_or_all(notebook, hanging):
    assert notebook.run("%imgcancel").text.strip() == "No job runs."
    for name in "abc":
        notebook.run(f"%%imggen -b -v {name}\nhang {name}")
    jobs = notebook.value("a.id, b.id, c.id").split()
    until(lambda: [job.status for job in hanging.jobs].count("processing") == 3)
    assert f"Stopping job {jobs[2]} · hang c" in notebook.run("%imgcancel").text
    assert f"Stopping job {jobs[0]} · hang a" in notebook.run(f"%imgcancel {jobs[0][-6:]}").text
    until(lambda: [job.status for job in hanging.jobs].count("canceled") == 2)
    assert f"Stopping job {jobs[1]} · hang b" in notebook.run("%imgcancel all").text
    until(lambda: [job.status for job in hanging.jobs].count("canceled") == 3)
    until(lambda: "has ended already" in notebook.run(f"%imgcancel {jobs[0]}").text)


def test_a_job_that_is_not_there_is_answered_with_one_line(notebook, hanging):
    notebook.run("%%imggen -b -v a\nhang")
    ran = notebook.run("%imgcancel nope")
    assert ran.error_name == "UnknownNameError"
    assert "%imgjobs lists them" in ran.error
    notebook.run("%%imggen -b -v b\nhang")
    assert "is the id of 2 jobs" in notebook.run("%imgcancel 2").error
    notebook.run("%imgcancel all")


@pytest.mark.parametrize("magic", ["imgjobs", "imgcancel", "imgresume"])
def test_each_has_help(notebook, magic):
    assert f"%{magic}" in notebook.run(f"%{magic} --help").text
    assert f"%{magic}" in notebook.run(f"%{magic}?").reply["payload"][0]["data"]["text/plain"]


def test_tab_offers_the_ids_of_jobs(notebook, hanging):
    assert notebook.completions("%imgcancel ") == ["all"]
    notebook.run("%%imggen -b -v a\nhang")
    notebook.run("%%imggen -v b\na cat")
    job = notebook.value("a.id")
    assert notebook.completions("%imgcancel ") == [job, "all"]
    assert notebook.completions("%imgcancel al") == ["all"]
    assert job not in notebook.completions("%imgresume ")
    assert notebook.completions("r = %imgresume --r") == ["--remaining"]
    notebook.run("%imgcancel all")


def test_unloading_takes_them_away(notebook):
    notebook.run("%unload_ext nbimg")
    for magic in ("imgjobs", "imgcancel", "imgresume"):
        assert f"%{magic}" not in notebook.completions("%img")


# ------------------------------------------------------------------------- take up


DIE = """
import os, sys
import nbimg
job = nbimg.submit(['hang a', 'hang b'], model='flux-dev')
import time
while job.progress.running < 2 or sum('Submitted' in type(e).__name__ for e in job.events) < 2:
    time.sleep(0.02)
os._exit(1)
"""


def die(notebook, hanging, script):
    """A process works in the folder, and dies."""
    import os
    import subprocess
    import sys

    from .conftest import ROOT

    subprocess.run(
        [sys.executable, "-c", script],
        cwd=notebook.folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "REPLICATE_API_TOKEN": hanging.token,
            "NBIMG_REPLICATE_BASE_URL": hanging.base_url,
        },
        check=False,
        timeout=30,
    )


@pytest.fixture
def left(notebook, hanging):
    """A folder in which a process died while two jobs ran, which are ready by now."""
    die(notebook, hanging, DIE)
    assert len(hanging.jobs) == 2
    return notebook


def test_loading_says_what_a_dead_kernel_left(left):
    said = "nbimg: 2 images may be paid for and were not fetched. %imgresume fetches them."
    assert left.run("%reload_ext nbimg").text.strip() == said
    assert said.removeprefix("nbimg: ") in left.run("%imgjobs").text


def test_resume_fetches_it_with_progress_and_stop(left, hanging):
    def stop():
        left.sleep(1.5)
        left.interrupt()

    ran = left.run("%imgresume", meanwhile=stop)
    assert "Stopped: 0 images kept." in ran.error
    assert left.since_stop_s() < 5.0


def test_resume_gives_the_whole_batch_and_shows_it_once(left, hanging):
    for job in hanging.jobs:
        job.outcome = Outcome()
        job.running_s = 0.0
    ran = left.run("cats = %imgresume -v kept\ncats")
    assert ran.ok, ran.error
    assert len(IMAGE.findall(ran.html)) == 2
    assert left.value("len(cats.paths), kept is cats, _img is cats") == "2 True True"
    assert len(hanging.jobs) == 2, "nothing was created"
    assert "nothing to fetch" in left.run("%imgresume").text
    assert not left.run("%reload_ext nbimg").outputs


def test_resume_answers_mistakes_with_one_line(notebook):
    assert notebook.run("%imgresume --remainin").error_name == "UnknownNameError"
    assert "takes one id" in notebook.run("%imgresume a b").error
    assert "needs a name" in notebook.run("%imgresume -v").error
    assert notebook.run("%imgresume nope").error_name == "UnknownNameError"
    assert "nothing to fetch" in notebook.run("%imgresume").text


def test_what_a_dead_kernel_left_can_be_given_up(left, hanging):
    said = left.run("%imgcancel all --forget").text
    assert "nothing of it will be fetched or sent; 2 images may be paid for." in said
    assert not left.run("%reload_ext nbimg").outputs
    assert "nothing to fetch" in left.run("%imgresume").text
    batch = said.split()[1].rstrip(":")
    assert f"Nothing is left of {batch}" in left.run(f"%imgcancel {batch} --forget").text


DIE_BEFORE_SENDING = """
import os
from nbimg import session
from nbimg.store.journal import Row
from nbimg.types import Request
own, model = session.default(), 'replicate:black-forest-labs/flux-dev'
rows = [Row(k, Request(f'x{k}'), model, k, 1) for k in range(2)]
async def begin():
    await own._workshop().place().journal.begin('lost', rows, about={})
own.portal.call(begin)
os._exit(1)
"""


@pytest.mark.parametrize("named", [True, False])
def test_a_batch_of_which_nothing_was_sent_is_told_in_one_line(notebook, hanging, named):
    die(notebook, hanging, DIE_BEFORE_SENDING)
    sends = "2 tasks were never sent. %imgresume --remaining sends them."
    assert notebook.run("%reload_ext nbimg").text.strip() == f"nbimg: {sends}"
    ran = notebook.run("%imgresume lost" if named else "%imgresume")
    sends = sends.replace("%imgresume", "%imgresume lost") if named else sends
    assert ran.text.strip() == f"nbimg: there was nothing to fetch. {sends}"
    assert not ran.html
    assert len(hanging.jobs) == 0

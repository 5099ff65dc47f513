"""The table of jobs: the same in HTML and as text, and nothing escapes from it."""

from __future__ import annotations

from nbimg.calls.progress import Fold
from nbimg.display.jobs import JobRow, JobTable
from nbimg.events import Planned, Started


def row(number: int, about: str = "a cat") -> JobRow:
    fold = Fold()
    fold.add(Planned(tasks=2, images=2, at_utc=0.0))
    fold.add(Started(task=0, at_utc=1.0))
    return JobRow(f"job-{number}", "running", fold, 0.0, about)


def test_it_has_a_line_a_job_under_a_head_in_columns() -> None:
    lines = repr(JobTable([row(1), row(22)], 5.0)).splitlines()
    assert [line.split()[0] for line in lines] == ["id", "job-1", "job-22"]
    assert len({line.index("running") for line in lines[1:]}) == 1
    assert lines[0].index("state") == lines[1].index("running")
    assert "0 of 2 images · 5 s so far" in lines[1]


def test_what_a_job_makes_stays_text() -> None:
    shown = JobTable([row(1, "<script>x</script>")], 5.0, "note & more")._repr_mimebundle_()
    assert "<script" not in shown["text/html"]
    assert "&lt;script&gt;" in shown["text/html"]
    assert "note &amp; more" in shown["text/html"]
    assert shown["text/plain"].endswith("note & more")


def test_without_jobs_it_says_so() -> None:
    shown = JobTable([], 0.0, "2 images wait")._repr_mimebundle_()
    assert shown == {"text/plain": "No job was started in this kernel.\n2 images wait"}

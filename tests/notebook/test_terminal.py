"""IPython in a terminal: text and paths, no HTML, no progress where nobody watches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import nbimg
from nbimg.testing import FAILURES, Outcome

ROOT = Path(nbimg.__file__).parents[1]


@pytest.fixture
def terminal(server, tmp_path):
    """Runs lines in IPython, each as if it had been typed."""

    def run(*cells: str) -> subprocess.CompletedProcess[str]:
        code = "\n".join(f"get_ipython().run_cell({cell!r})" for cell in cells)
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "IPYTHONDIR": str(tmp_path / "profile"),
            "REPLICATE_API_TOKEN": server.token,
            "NBIMG_REPLICATE_BASE_URL": server.base_url,
        }
        command = [sys.executable, "-m", "IPython", "--no-banner", "--colors=nocolor", "-c", code]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_a_cell_prints_text_with_the_paths(terminal, tmp_path):
    ran = terminal("%load_ext nbimg", "%%imggen -n 2 -v houses\na red house", "len(houses.paths)")
    assert "2 images" in ran.stdout
    paths = [tmp_path / word for word in ran.stdout.split() if word.startswith("nbimg-images/")]
    assert len(paths) == 2
    assert all(path.is_file() for path in paths)
    assert "<img" not in ran.stdout
    assert not ran.stderr


def test_a_line_prints_its_value_once(terminal):
    ran = terminal("%load_ext nbimg", "%imggen a cat", "dogs = %imggen a dog")
    assert ran.stdout.count("1 image") == 1
    assert ran.stdout.count("a-cat") == 1
    assert "a-dog" not in ran.stdout


def test_help_and_mistakes_are_text(terminal, server):
    server.expect(Outcome(error=FAILURES["nsfw"]))
    ran = terminal("%load_ext nbimg", "%%imggen --help", "%%imggen -m flux-dve\na", "%%imggen\nbad")
    said = ran.stdout + ran.stderr
    assert "--negative" in said
    assert "Did you mean flux-dev?" in said
    assert "GenerationError: " in said
    assert "Traceback" not in said


def test_typing_a_cell_goes_on_until_a_blank_line(terminal):
    ran = terminal(
        "%load_ext nbimg",
        "check = get_ipython().input_transformer_manager.check_complete\n"
        "print([check(text)[0] for text in ('%%imggen\\n', '%%imggen\\na cat\\n', '%%imggen\\na\\n\\n')])",
    )
    assert "['incomplete', 'incomplete', 'complete']" in ran.stdout


def test_a_cell_in_the_background_prints_one_line_and_its_name_holds_the_result(terminal):
    ran = terminal(
        "%load_ext nbimg",
        "%%imggen -b -v cats\na red house",
        "job = cats\nprint(type(job).__name__)",
        "job.wait()\nimport time\ntime.sleep(0.5)\nprint(len(cats.paths), 'made')",
    )
    assert ran.stdout.count("goes on in the background. %imgjobs, %imgcancel 2") == 1
    assert "Job" in ran.stdout
    assert "1 made" in ran.stdout
    assert not ran.stderr


def test_jobs_are_lines_of_text(terminal):
    ran = terminal("%load_ext nbimg", "%imgjobs", "%%imggen\na cat", "%imgjobs", "%imgcancel")
    assert "No job was started in this kernel." in ran.stdout
    assert "done   1 of 1 image" in ran.stdout
    assert "No job runs." in ran.stdout

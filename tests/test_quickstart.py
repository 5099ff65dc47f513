import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nbimg import __main__, quickstart
from nbimg.errors import DependencyMissingError

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "quickstart.ipynb"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart")
    command = [sys.executable, "-m", "nbimg", "demo", "--folder", str(folder / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / "out", done.stdout


def test_the_command_says_where_the_pictures_are(ran):
    folder, said = ran
    pictures = list((folder / "nbimg-images").glob("*.png"))
    assert len(pictures) >= 15
    assert f"{len(pictures)} pictures" in said
    assert str((folder / "nbimg-images").resolve()) in said
    assert str((folder / "quickstart.html").resolve()) in said


def test_every_cell_ran_without_an_error(ran):
    folder, _ = ran
    cells = json.loads((folder / "quickstart.ipynb").read_text("utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    grids = [o for o in outputs if "text/html" in o.get("data", {})]
    assert len(grids) >= 6


def test_the_html_shows_the_pictures_without_a_kernel(ran):
    folder, _ = ran
    page = (folder / "quickstart.html").read_text("utf-8")
    thumbs = re.findall(r'<img[^>]+src="data:image/webp;base64,[^"]+"[^>]*>', page)
    assert len(thumbs) >= 15
    assert all('alt="' in thumb for thumb in thumbs)


def test_the_saved_notebook_is_small(ran):
    folder, _ = ran
    pictures = len(list((folder / "nbimg-images").glob("*.png")))
    assert (folder / "quickstart.ipynb").stat().st_size < 20_000 * pictures


def test_the_notebook_in_the_repository_has_no_outputs():
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]


def test_the_first_code_cell_installs_nothing_where_nbimg_is_there():
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    first = next("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert 'find_spec("nbimg") is None' in first
    assert "%pip install" in first


def test_a_missing_kernel_is_one_line(monkeypatch, capsys, tmp_path):
    real = quickstart.importlib.util.find_spec
    monkeypatch.setattr(
        quickstart.importlib.util, "find_spec", lambda n: None if n == "ipykernel" else real(n)
    )
    with pytest.raises(DependencyMissingError, match="needs ipykernel"):
        quickstart.run(tmp_path)
    assert __main__.main(["demo", "--folder", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_about_prints_what_a_bug_report_needs_and_no_secret(monkeypatch, capsys):
    monkeypatch.setenv("REPLICATE_API_TOKEN", "fake-planted-token")
    assert __main__.main(["about"]) == 0
    said = capsys.readouterr().out
    assert json.loads(said)["keys"]["replicate"] is True
    assert "fake-planted-token" not in said

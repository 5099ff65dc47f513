"""The notebook that shows how to add a provider, run as it is in a kernel of its own."""

import json
from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "new-provider.ipynb"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("new-provider")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=110,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--log-level=ERROR"],
    )
    client.execute()
    return notebook


def shown(ran, word):
    """What the first code cell with this word in it shows."""
    cell = next(c for c in ran.cells if c.cell_type == "code" and word in c.source)
    return json.dumps(cell.outputs)


def test_its_provider_makes_pictures(ran):
    grid = shown(ran, "%%imggen")
    assert "text/html" in grid
    assert grid.count("data:image/webp;base64,") >= 3
    assert "sketch:ink" in grid


def test_its_provider_passes_the_suite(ran):
    said = shown(ran, "no:cacheprovider")
    assert " passed" in said
    assert "failed" not in said
    assert "error" not in said


def test_the_key_of_its_provider_is_nowhere_in_what_it_shows(ran):
    assert "fake-sketch-key" not in json.dumps([c.get("outputs") for c in ran.cells])


def test_its_provider_is_less_than_forty_lines():
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    (source,) = [c.source for c in cells if "%%writefile sketch.py" in c.source]
    assert len(source.splitlines()) <= 40
    assert "class Sketch(PlainBackend)" in source


def test_the_notebook_in_the_repository_has_no_outputs():
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]

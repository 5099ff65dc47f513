"""The notebook as a file: what is in it, how large it is, what other tools make of it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import warnings
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

import nbimg
from nbimg.testing import FAILURES, Outcome

ROOT = Path(nbimg.__file__).parents[1]
BYTES_AN_IMAGE = 20_000


class Images(HTMLParser):
    """Collects the attributes of every `<img>`."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.found.append(dict(attrs))


def noise(key: str, file_format: str, width_px: int, height_px: int) -> bytes:
    """The picture that compresses worst."""
    pixels = np.random.default_rng(len(key)).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


def test_what_is_saved_is_the_grid_and_not_the_progress(notebook):
    notebook.run("%%imggen -n 2\na cat")
    saved = nbformat.read(notebook.save(), as_version=4)
    (output,) = saved.cells[0].outputs
    assert "<progress" not in output.data["text/html"]
    assert len(Images(output.data["text/html"]).found) == 2
    assert nbformat.validate(saved) is None


@pytest.mark.parametrize("n", [1, 4, 9])
def test_a_saved_notebook_has_at_most_20_kb_an_image(notebook, monkeypatch, n):
    monkeypatch.setattr("nbimg.testing.replicate.render_picture", noise)
    empty_bytes = notebook.save().stat().st_size
    assert notebook.run(f"%%imggen -n {n}\na cat").ok
    size_bytes = notebook.save().stat().st_size - empty_bytes
    assert 2_000 * n < size_bytes <= BYTES_AN_IMAGE * n


def test_the_key_is_nowhere_in_the_notebook_or_beside_it(notebook, server):
    key = "fake-planted-8c1f"
    server.token = key
    notebook.run(f"import os; os.environ['REPLICATE_API_TOKEN'] = {key[:5]!r} + {key[5:]!r}")
    server.expect(Outcome(error=f"the key {key} is odd", prompt_has="bad"))
    assert notebook.run("%%imggen -n 2\na cat").ok
    notebook.run("%%imggen --debug\nbad")
    notebook.run("_img")
    notebook.run("_img.failed[0].error")
    notebook.run("import nbimg; nbimg.about()")
    notebook.run("from nbimg import session; session.default().keys.find('replicate')")
    server.token = "fake-other"
    notebook.run("%%imggen --debug\na cat")
    assert key not in notebook.save().read_text()
    beside = [path for path in notebook.folder.rglob("*") if path.is_file()]
    assert len(beside) > 3
    assert not [path for path in beside if key.encode() in path.read_bytes()]


def test_nbconvert_shows_every_image_with_its_alt_text(notebook):
    notebook.run("%%imggen -n 3\na red house")
    notebook.run("%imggen -n 2 a cat")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of nbconvert's own
        from nbconvert import HTMLExporter

        page, _ = HTMLExporter().from_notebook_node(notebook.node)
    ours = [image for image in Images(page).found if image["src"].startswith("data:image/webp")]
    assert [image["alt"] for image in ours] == ["a red house"] * 3 + ["a cat"] * 2


def execute(folder: Path, server, *cells: str) -> tuple[subprocess.CompletedProcess[str], dict]:
    """Run a notebook without a front end, as a scheduled job would."""
    node = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    path = folder / "job.ipynb"
    nbformat.write(node, path)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "REPLICATE_API_TOKEN": server.token,
        "NBIMG_REPLICATE_BASE_URL": server.base_url,
    }
    ran = subprocess.run(
        [sys.executable, "-m", "jupyter", "execute", "--inplace", path.name],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ran, json.loads(path.read_text())


def test_a_run_without_a_front_end_succeeds_with_exit_code_0(tmp_path, server):
    server.expect(Outcome(error=FAILURES["nsfw"], prompt_has="bad"))
    ran, saved = execute(tmp_path, server, "%load_ext nbimg", "%%imggen --lines\na cat\nbad")
    assert ran.returncode == 0, ran.stderr
    assert len(Images("".join(saved["cells"][1]["outputs"][0]["data"]["text/html"])).found) == 1
    assert len(list((tmp_path / "nbimg-images").glob("*.webp"))) == 1


def test_a_run_without_a_front_end_fails_when_its_images_do(tmp_path, server):
    server.expect(Outcome(error=FAILURES["nsfw"]))
    ran, _ = execute(tmp_path, server, "%load_ext nbimg", "%%imggen\nbad", "%%imggen\na cat")
    assert ran.returncode != 0
    assert "GenerationError" in ran.stderr
    assert len(server.jobs) == 1, "the cells after the failed one are not run"

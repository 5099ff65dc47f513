"""The notebook about batches, executed twice in one folder: what it makes, and that again costs nothing."""

from __future__ import annotations

import json
import re

import pytest
from PIL import Image, ImageStat

from .executed import NOTEBOOKS, Executed

NOTEBOOK = NOTEBOOKS / "batches.ipynb"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batches")
    first = Executed(NOTEBOOK, folder)
    made = {path.name: path.read_bytes() for path in first.images.iterdir() if path.is_file()}
    return first, made, Executed(NOTEBOOK, folder)


@pytest.fixture
def ran(runs):
    return runs[0]


@pytest.fixture
def made(runs):
    return runs[1]


@pytest.fixture
def again(runs):
    return runs[2]


def brightness(path):
    with Image.open(path) as image:
        return ImageStat.Stat(image.convert("L")).mean[0]


def test_nothing_goes_wrong_and_nobody_complains(ran, again):
    for run in (ran, again):
        code = [cell for cell in run.node.cells if cell.cell_type == "code"]
        assert all(cell.execution_count for cell in code)
        outputs = [output for cell in code for output in cell.outputs]
        assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]


def test_the_dry_run_tells_and_makes_nothing(ran):
    said = ran.text("--dry-run")
    assert "6 tasks, 6 images" in said
    assert "Nothing was sent." in said
    assert not [o for o in ran.outputs("--dry-run") if "data" in o]


def test_the_axes_fan_out_in_order(ran, made):
    prompts = [f"a {c} {t} at sunset" for c in ("red", "yellow") for t in ("house", "tree", "boat")]
    assert ran.pictures("-v sunset") == prompts
    assert len({made[f"{prompt.replace(' ', '-')}-3.png"] for prompt in prompts}) == 6


def test_every_task_of_a_list_has_what_it_asks_for(ran, made):
    assert {"a-white-cat-at-night-1.png", "circles.jpg", "flower.jpg"} <= set(made)
    assert {f"a-yellow-star-on-a-blue-background-{seed}.png" for seed in (1, 2)} <= set(made)
    assert {f"a-blue-heart-on-a-white-background-{seed}.png" for seed in (40, 41)} <= set(made)
    with Image.open(ran.images / "circles.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (192, 192))
    row = ran.value("to_dicts()")
    assert row["task_index"] == 1
    assert len(row["generated_files"]) == 2


def test_a_list_of_seeds_gives_one_to_each_task(ran, made):
    assert ran.value("record.seed") == [11, 12, 13, 14]
    assert len({made[f"a-black-cat-by-day-{seed}.png"] for seed in (11, 12, 13, 14)}) == 4


def test_the_job_in_the_background_is_listed_and_becomes_the_grid_of_its_cell(ran):
    assert re.search(r"\d{8}-\d{6}-\w{6} +(running|done) .*a red boat by day", ran.text("%imgjobs"))
    assert len(ran.pictures("%%imggen -b")) == 8
    assert ran.value("await job\njob.status, job.progress") == ("done", 2, 2)


def test_the_failure_is_told_and_only_what_is_missing_is_made(ran):
    assert "no file 'photo.png'" in ran.text("nbimg.batch(")
    assert ran.pictures("nbimg.batch(") == ["a green house by day"]
    assert ran.pictures("retry_failed") == ["a green house by day", "make it night"]
    day, night = ran.images / "a-green-house-by-day-2.png", ran.images / "make-it-night-2.png"
    assert (ran.folder / "photo.png").read_bytes() == day.read_bytes()
    assert brightness(night) < 0.7 * brightness(day)


def test_a_stopped_job_keeps_what_is_done_and_is_taken_up(ran, again):
    for run in (ran, again):
        status, there, asked = run.value("job.cancel()")
        assert status == "stopped"
        assert 1 <= there < asked == 24
        assert len(run.pictures("nbimg.resume(")) == 24
        assert "24 images" in run.text("nbimg.resume(")


def test_the_same_cell_again_is_shown_from_the_store(ran):
    assert "all cached" in ran.text("-v again")
    assert ran.value("result.cached") == (True, True)


def test_copies_are_what_was_made(ran, made):
    names = ["flower.jpg", *(f"a-blue-heart-on-a-white-background-{n}.png" for n in (40, 41))]
    assert "flower.jpg" in ran.text("pages.save")
    assert all((ran.folder / "album" / name).read_bytes() == made[name] for name in names)


def test_run_all_in_a_new_kernel_shows_what_is_there(again, made):
    for piece in ("-v sunset", "--tasks --seed", "--tasks album", "nbimg.generate("):
        assert "all cached" in again.text(piece), piece
    now = {path.name: path.read_bytes() for path in again.images.iterdir() if path.is_file()}
    assert {name: now[name] for name in made} == made


def test_the_notebook_in_the_repository_has_no_outputs_and_installs_only_where_it_must():
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]
    first = next("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert 'find_spec("nbimg") is None' in first

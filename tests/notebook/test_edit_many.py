"""The notebook about editing many pictures, executed: which came of which, and how they look."""

from __future__ import annotations

import ast
import json
import re

import pytest
from PIL import Image, ImageChops, ImageStat

from .executed import NOTEBOOKS, Executed

NOTEBOOK = NOTEBOOKS / "edit-many.ipynb"
SIZES = {"1-red": (192, 192), "2-yellow": (320, 240), "3-purple": (240, 320)}

pytestmark = pytest.mark.timeout(200)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    return Executed(NOTEBOOK, tmp_path_factory.mktemp("edit-many"))


def brightness(path):
    with Image.open(path) as image:
        return ImageStat.Stat(image.convert("L")).mean[0]


def wall(path):
    """The colour of the house: the mean of a spot between door and window, as red, green, blue."""
    with Image.open(path) as image:
        square = image.convert("RGB")
        side = min(square.size)
        left, top = (square.width - side) // 2, (square.height - side) // 2
        square = square.crop((left, top, left + side, top + side)).resize((192, 192))
        return ImageStat.Stat(square.crop((106, 146, 116, 156))).mean


def nearest(path, known):
    """Which of the known colours the house has."""

    def gap(name):
        return sum((a - b) ** 2 for a, b in zip(wall(path), known[name], strict=True))

    return min(known, key=gap)


def test_nothing_goes_wrong_and_nobody_complains(ran):
    code = [cell for cell in ran.node.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    outputs = [output for cell in code for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]


def test_the_photos_are_drawn_in_three_sizes(ran):
    for name, size in SIZES.items():
        with Image.open(ran.folder / "photos" / f"{name}.png") as photo:
            assert photo.size == size


def test_every_photo_becomes_night_and_keeps_its_house(ran):
    photos = [ran.folder / "photos" / f"{name}.png" for name in SIZES]
    nights = ran.made("-v nights")
    assert len(nights) == len(ran.pictures("-v nights")) == 3
    known = {name: wall(photo) for name, photo in zip(SIZES, photos, strict=True)}
    for name, photo, night in zip(SIZES, photos, nights, strict=True):
        assert brightness(night) < 0.6 * brightness(photo)
        assert nearest(night, known) == name


def test_a_picture_is_the_same_alone(ran):
    assert int(ran.text("ImageChops")) <= 2


def test_each_photo_has_a_prompt_of_its_own(ran):
    night, sunset, blue = ran.made("-v wishes")
    assert [path.name.rpartition("-")[0] for path in (sunset, blue)] == [
        "make-it-sunset",
        "make-the-house-blue",
    ]
    assert night == ran.made("-v nights")[0]  # the same wish, from the store
    assert brightness(night) < brightness(sunset) < brightness(blue)
    red, _, more_blue = wall(blue)
    assert more_blue > red + 60


def test_variations_stand_in_the_order_of_the_photos_with_seeds_of_their_own(ran):
    doubles = ran.made("-v doubles")
    assert len(doubles) == len(ran.pictures("-v doubles")) == 6
    assert ast.literal_eval(ran.text("for result in doubles")) == [[4, 5]] * 3
    one, other = (Image.open(path).convert("RGB") for path in doubles[:2])
    assert ImageChops.difference(one, other).getbbox() is not None
    reds = [wall(path)[0] - wall(path)[1] for path in doubles]
    assert min(reds[:2]) > max(reds[2:4])  # both of the first photo show its red house


def test_one_that_fails_costs_no_other_and_only_it_is_made_again(ran):
    first = ran.made("evening = nbimg.batch")
    assert "no file 'photos/4-green.png'" in ran.text("evening = nbimg.batch")
    again = ran.made("retry_failed")
    assert len(first) == 2
    assert len(again) == len(ran.pictures("retry_failed")) == 3
    assert [again[0], again[2]] == first
    red, green, _ = wall(again[1])
    assert green > red


def test_what_it_took_is_told(ran):
    told = ran.text("evening.usage")
    assert "generated_images=3" in told
    assert "input_images=3" in told
    peak = re.search(r"peak_memory_bytes=(\d+)", told)
    assert peak is not None
    assert int(peak[1]) > 0


def test_results_are_edited_again(ran):
    painted = ran.made("-v painted")
    assert len(painted) == 3
    for path in painted:
        red, _, blue = wall(path)
        assert blue > red + 60
        assert brightness(path) < 110


def test_the_notebook_in_the_repository_has_no_outputs_and_installs_only_where_it_must():
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]
    first = next("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert 'find_spec("nbimg") is None' in first

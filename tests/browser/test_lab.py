"""What a person sees in JupyterLab and Notebook 7."""

from __future__ import annotations

import re

import nbformat
import pytest

from nbimg.testing import Outcome

FRONT_ENDS = ["lab", "notebook"]
LOAD = "%load_ext nbimg"


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_images_appear_are_saved_and_are_there_again_without_a_kernel(
    opened, lab, screenshots, front_end
):
    name = f"saved-{front_end}.ipynb"
    page = opened(front_end, name, LOAD, "%%imggen -n 4\na red house at night")
    page.run(0)
    page.wait_for_end(0)
    page.run(1)
    page.wait_for_end(1)
    images = page.wait_for_images(1, 4)
    assert {images.nth(k).get_attribute("alt") for k in range(4)} == {"a red house at night"}
    assert all(images.nth(k).evaluate("image => image.naturalWidth") >= 192 for k in range(4))
    page.screenshot(screenshots / f"{front_end}-light.png")
    saved = nbformat.read(page.save(), as_version=4)
    assert len(saved.cells[1].outputs) == 1

    saved.cells.append(nbformat.v4.new_markdown_cell("changed elsewhere: not trusted any more"))
    nbformat.write(saved, lab.notebooks / f"other-{name}")
    again = opened(front_end, f"other-{name}", kernel=False)
    images = again.wait_for_images(1, 4)
    assert all(images.nth(k).evaluate("image => image.naturalWidth") >= 192 for k in range(4))
    again.screenshot(screenshots / f"{front_end}-reopened.png")


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_stop_ends_a_cell_that_waits_and_what_is_done_is_shown(
    opened, server, screenshots, front_end
):
    server.expect(Outcome(prompt_has="hang", running_s=10_000.0, times=None))
    cell = "%%imggen --lines -v mine\na cat\nhang on\nhang on there"
    page = opened(front_end, f"stop-{front_end}.ipynb", LOAD, cell, "len(mine.paths)")
    page.run(0)
    page.wait_for_end(0)
    page.run(1)
    page.outputs(1).filter(has_text="1 of 3 images").first.wait_for()
    page.screenshot(screenshots / f"{front_end}-running.png")
    if front_end == "lab":
        page.tab.locator('[data-command="notebook:interrupt-kernel"]').first.click()
    else:
        page.tab.keyboard.press("Escape")
        page.tab.keyboard.press("i")
        page.tab.keyboard.press("i")
    page.cell(1).get_by_text("Stopped: 1 image kept.").wait_for()
    page.wait_for_end(1)
    assert page.wait_for_images(1, 1).first.get_attribute("alt") == "a cat"
    page.screenshot(screenshots / f"{front_end}-stopped.png")
    page.run(2)
    page.wait_for_end(2)
    assert page.outputs(2).inner_text().strip() == "1"
    assert {job.status for job in server.jobs if "hang" in job.input["prompt"]} == {"canceled"}


def test_a_cell_says_at_once_that_it_runs_and_counts(opened, server, screenshots):
    server.expect(Outcome(prompt_has="slow", running_s=1.0, times=None))
    page = opened("lab", "progress.ipynb", LOAD, "%%imggen --lines -c 2\n" + "slow\n" * 4)
    page.run(0)
    page.wait_for_end(0)
    page.run(1)
    line = page.outputs(1).filter(has_text=re.compile(r"\d of 4 images"))
    line.first.wait_for()
    page.screenshot(screenshots / "lab-progress.png")
    page.outputs(1).filter(has_text=re.compile(r"2 of 4 images")).wait_for()
    page.wait_for_end(1)
    page.wait_for_images(1, 4)
    assert page.cell(1).locator("progress").count() == 0


def test_the_grid_can_be_read_on_a_dark_page(opened, server, screenshots):
    server.expect(Outcome(error="NSFW content detected", prompt_has="in oil"))
    cells = (LOAD, "%%imggen\na {cat|dog} in {ink|oil|chalk}")
    page = opened("lab", "dark.ipynb", *cells, theme="JupyterLab Dark")
    page.run(0)
    page.wait_for_end(0)
    page.run(1)
    page.wait_for_end(1)
    page.wait_for_images(1, 5)
    page.screenshot(screenshots / "lab-dark.png")
    label = page.outputs(1).get_by_text("chalk").first
    colour = label.evaluate("node => getComputedStyle(node).color")
    assert min(map(int, re.findall(r"\d+", colour)[:3])) > 128, "light on dark"


def test_a_mistake_an_assigned_line_and_help_take_no_more_room_than_they_need(opened, screenshots):
    line = "print('above')\nr = %imggen a cat\nprint('below')"
    mistake = "%%imggen -m flux-dve\na cat"
    page = opened("lab", "mistake.ipynb", LOAD, mistake, "%%imggen --help", line)
    page.run(0)
    page.wait_for_end(0)
    page.run(1)
    page.wait_for_end(1)
    assert page.outputs(1).count() == 1
    assert page.outputs(1).inner_text().strip().splitlines() == [
        "UnknownNameError: no model 'flux-dve'.",
        "  Did you mean flux-dev? %imgmodels lists all.",
    ]
    page.run(2)
    page.wait_for_end(2)
    assert "--negative" in page.outputs(2).inner_text()
    page.screenshot(screenshots / "lab-mistake.png")
    page.run(3)
    page.wait_for_end(3)
    page.outputs(3).filter(has_text="below").wait_for()
    area = page.cell(3).locator(".jp-OutputArea").first
    assert "above" in area.inner_text()
    assert area.evaluate("area => area.offsetHeight") < 70, "two lines of text and nothing between"

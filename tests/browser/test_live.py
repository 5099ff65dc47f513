"""The live grid in a real page: pictures as they come, Stop while the cell blocks, and what is left in the end."""

from __future__ import annotations

import re

import nbformat
import pytest

from nbimg.testing import Outcome

LOAD = "%load_ext nbimg"
BLOCKING = "%%time\n"  # within another magic a cell cannot be awaited
FRONT_ENDS = ["lab", "notebook"]
DELAY = re.compile(r"\d of \d images")


@pytest.fixture
def slow(server):
    """Jobs that take two seconds, and those with `hang` for ever."""
    server.expect(
        Outcome(prompt_has="hang", running_s=10_000.0, times=None),
        Outcome(prompt_has="nude", error="NSFW content detected", running_s=0.5, times=None),
        Outcome(prompt_has="slow", running_s=2.0, times=None),
    )
    return server


def begin(page, *numbers):
    page.run(0)
    page.wait_for_end(0)
    for number in numbers:
        page.run(number)


@pytest.mark.parametrize("front_end", FRONT_ENDS)
@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_tiles_arrive_one_by_one_and_the_grid_takes_their_place(
    opened, slow, screenshots, front_end, theme
):
    cell = "%%imggen --lines -c 1\na cat\nslow nude\na slow dog\na slow bird"
    page = opened(front_end, f"tiles-{front_end}.ipynb", LOAD, cell, theme=f"JupyterLab {theme}")
    begin(page, 1)
    page.tiles(1, "ok").first.wait_for()
    page.tiles(1, "refused").wait_for()
    assert "NSFW content" in page.tiles(1, "refused").inner_text()
    assert page.tiles(1, "ok").locator("img").get_attribute("alt") == "a cat"
    page.tiles(1, "running").wait_for()
    assert page.tiles(1, "queued").count() == 1
    numbers = page.live(1).locator(".nbimg-numbers")
    numbers.filter(has_text="1 of 4 images").wait_for()
    assert "$0.025" in numbers.inner_text()
    assert "⊘ 1 refused" in numbers.inner_text()
    page.screenshot(screenshots / f"live-{front_end}-{theme.lower()}.png")
    page.wait_for_end(1)
    page.wait_for_images(1, 3)
    assert page.live(1).count() == 0
    (output,) = nbformat.read(page.save(), as_version=4).cells[1].outputs
    assert set(output.data) == {"text/html", "text/plain", "image/jpeg"}
    assert "nbimg-live" not in output.data["text/html"]


@pytest.mark.parametrize("front_end", FRONT_ENDS)
@pytest.mark.parametrize("wrap", ["", BLOCKING], ids=["awaited", "blocking"])
def test_the_stop_button_ends_the_cell_and_what_is_done_is_kept(opened, slow, front_end, wrap):
    cell = f"{wrap}%%imggen --lines -v mine\na cat\nhang on\nhang there"
    name = f"button-{front_end}-{bool(wrap)}.ipynb"
    page = opened(front_end, name, LOAD, cell, "len(mine.paths)")
    begin(page, 1)
    page.tiles(1, "ok").first.wait_for()
    page.live(1).get_by_role("button", name="Stop").click()
    page.cell(1).get_by_text("Stopped: 1 image kept.").wait_for(timeout=5_000)
    page.wait_for_end(1)
    page.wait_for_images(1, 1)
    assert page.live(1).count() == 0
    page.run(2)
    page.wait_for_end(2)
    assert page.outputs(2).inner_text().strip() == "1"
    assert {job.status for job in slow.jobs if "hang" in job.input["prompt"]} == {"canceled"}


def test_stop_is_pressed_by_keyboard_and_interrupts_a_kernel_that_does_not_hear(opened, slow):
    """As with ipykernel 6, where a cell that blocks hears nothing of its page."""
    deaf = (
        "from nbimg.notebook.screen import Screen\n"
        "_hear = Screen._hear\n"
        "Screen._hear = lambda self, w, m, b: None if m.get('kind') == 'stop' else _hear(self, w, m, b)"
    )
    cell = f"{BLOCKING}%%imggen --lines\na cat\nhang on"
    page = opened("lab", "deaf.ipynb", LOAD, cell, deaf)
    page.run(0)
    page.run(2)
    page.wait_for_end(2)
    page.run(1)
    page.tiles(1, "ok").first.wait_for()
    page.live(1).get_by_role("button", name="Stop").focus()
    page.tab.keyboard.press("Enter")
    page.live(1).get_by_role("button", name="Stopping").wait_for()
    page.cell(1).get_by_text("Stopped: 1 image kept.").wait_for(timeout=8_000)
    page.wait_for_images(1, 1)


def test_cells_that_queue_up_each_end_with_their_own_grid(opened, slow):
    cells = [f"%%imggen -n 2\na slow {name}" for name in ("cat", "dog", "bird")]
    page = opened("lab", "queue.ipynb", LOAD, *cells)
    begin(page, 1, 2, 3)
    for number, name in enumerate(("cat", "dog", "bird"), 1):
        page.wait_for_end(number)
        images = page.wait_for_images(number, 2)
        assert images.first.get_attribute("alt") == f"a slow {name}"
        assert page.live(number).count() == 0


def test_a_job_in_the_background_ends_in_its_own_cell_while_another_one_runs(opened, slow):
    page = opened(
        "lab", "beside.ipynb", LOAD, "%%imggen -b -n 2\na slow cat", "import time; time.sleep(6)"
    )
    begin(page, 1)
    page.wait_for_end(1)
    page.run(2)
    page.tiles(1, "running").first.wait_for()
    assert "in the background" in page.live(1).inner_text()
    page.wait_for_images(1, 2)
    assert page.cell(2).locator(".jp-InputPrompt").inner_text().strip() == "[*]:"
    page.wait_for_end(2)
    assert page.images(2).count() == 0
    assert page.outputs(2).count() == 0


def test_stop_of_a_job_in_the_background_leaves_the_cell_that_runs_alone(opened, slow):
    page = opened(
        "lab",
        "besides.ipynb",
        LOAD,
        "%%imggen -b --lines\na cat\nhang on",
        "import time\ntime.sleep(4)\nprint('whole')",
    )
    begin(page, 1)
    page.wait_for_end(1)
    page.run(2)
    page.tiles(1, "ok").first.wait_for()
    page.live(1).get_by_role("button", name="Stop").click()
    page.wait_for_images(1, 1)
    page.wait_for_end(2)
    assert page.outputs(2).inner_text().strip() == "whole"


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_after_a_reload_the_live_grid_goes_on_and_the_saved_cell_holds_the_grid(
    opened, slow, screenshots, front_end
):
    slow.expect(Outcome(prompt_has="long", running_s=9.0, times=None))
    name = f"reload-{front_end}.ipynb"
    page = opened(front_end, name, LOAD, "%%imggen --lines -b\na cat\na long dog")
    begin(page, 1)
    page.tiles(1, "ok").first.wait_for()
    saved = nbformat.read(page.save(), as_version=4)
    assert "application/vnd.jupyter.widget-view+json" in saved.cells[1].outputs[0].data
    page.tab.reload()
    page.tab.wait_for_selector(".jp-Notebook .jp-CodeCell")
    page.tiles(1, "ok").first.wait_for()
    assert page.tiles(1, "ok").locator("img").first.evaluate("i => i.naturalWidth") >= 192
    page.screenshot(screenshots / f"reload-{front_end}.png")
    page.wait_for_images(1, 2)
    page.tab.wait_for_timeout(500)
    (output,) = nbformat.read(page.save(), as_version=4).cells[1].outputs
    assert set(output.data) == {"text/html", "text/plain", "image/jpeg"}


def test_previews_show_while_a_local_picture_is_made(opened, screenshots):
    pytest.importorskip("diffusers")
    page = opened(
        "lab", "preview.ipynb", LOAD, "%%imggen -m demo --steps 200 -n 2\na red house at night"
    )
    begin(page, 1)
    page.tab.set_default_timeout(60_000)
    page.live(1).locator(".nbimg-preview img").first.wait_for()
    assert page.live(1).locator(".nbimg-meter").count()
    assert re.search(r"step \d+ / 200", page.live(1).inner_text())
    page.screenshot(screenshots / "preview.png")
    page.live(1).get_by_role("button", name="Stop").click()
    page.wait_for_end(1)


def test_the_header_says_what_is_waited_for(opened, slow, screenshots):
    slow.credit = "low"  # six creates a minute, one at once
    try:
        page = opened("lab", "waits.ipynb", LOAD, "%%imggen --lines\na cat\na dog\na bird")
        begin(page, 1)
        said = page.live(1).locator(".nbimg-said").filter(has_text=re.compile("next try|again in"))
        said.wait_for()
        page.screenshot(screenshots / "waits.png")
        page.live(1).get_by_role("button", name="Stop").click()
        page.wait_for_end(1)
    finally:
        slow.credit = "ok"


def test_the_header_says_which_model_goes_on_in_the_place_of_another(opened, slow):
    slow.expect(
        Outcome(error="it broke", prompt_has="fall", model="black-forest-labs", times=None),
        Outcome(running_s=3.0, prompt_has="fall", times=None),
    )
    page = opened("lab", "falls.ipynb", LOAD, "%%imggen -m flux-dev\nleaves fall")
    begin(page, 1)
    page.live(1).locator(".nbimg-said").filter(has_text="qwen-image").wait_for()
    page.wait_for_end(1)
    page.wait_for_images(1, 1)

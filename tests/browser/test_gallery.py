"""The gallery in JupyterLab, by mouse and by keyboard, while the kernel is free and while it is not."""

from __future__ import annotations

import io
import json
import re
import zipfile

import pytest
from PIL import Image

from nbimg.testing import OpenAIServer
from tests.browser.folder import fill_folder

LOAD = "%load_ext nbimg"


@pytest.fixture(scope="module")
def filled(lab):
    """A folder beside the notebooks has 300 images, and none that other tests make."""
    folder = lab.notebooks / "filled" / "nbimg-images"
    folder.parent.mkdir()
    fill_folder(folder, 300)
    return folder


@pytest.fixture
def gallery(opened, filled):
    """Opens a notebook with a gallery in its second cell."""

    def open_gallery(
        name, query="", *, front_end="lab", theme="JupyterLab Light", after=(), width_px=1280
    ):
        cells = (f"%cd -q filled\n{LOAD}", f"g = %imggallery {query}\ng", *after)
        page = opened(front_end, name, *cells, theme=theme, width_px=width_px)
        page.run(0)
        page.wait_for_end(0)
        page.run(1)
        page.tab.locator(".nbimg-photo img:not([hidden])").first.wait_for()
        return page

    return open_gallery


def wall(page):
    return page.tab.locator(".nbimg-gallery .nbimg-wall")


def count(page):
    return page.tab.locator(".nbimg-gallery .nbimg-tools .nbimg-count")


def test_a_gallery_is_driven_by_keys_alone_and_the_notebook_hears_none_of_them(
    gallery, filled, screenshots, axe
):
    page = gallery("keys.ipynb")
    keys = page.tab.keyboard
    assert count(page).inner_text() == "297 images"
    axe(page.tab, ".nbimg-gallery")
    wall(page).focus()
    keys.press("ArrowRight")
    keys.press("s")
    keys.press("ArrowDown")
    keys.press("Home")
    keys.press("ArrowRight")
    # what a tile is called comes with its picture, and not all come at once
    page.tab.locator('.nbimg-at:visible[aria-label$=", starred"]').wait_for()
    keys.press("/")
    keys.type("fox -night")
    page.tab.locator(".nbimg-count", has_text="30 of 297 images").wait_for()
    page.tab.screenshot(path=screenshots / "gallery-search.png")
    keys.press("ArrowDown")
    keys.press(" ")
    box = page.tab.locator("dialog.nbimg-lightbox")
    box.locator("img:not(.nbimg-small)").first.wait_for()
    box.get_by_text("2 attempts").wait_for()
    axe(page.tab, "dialog.nbimg-lightbox")
    page.tab.screenshot(path=screenshots / "gallery-lightbox.png")
    keys.press("ArrowRight")
    box.get_by_text("2 of 30").wait_for()
    keys.press("z")
    box.get_by_role("button", name=re.compile("Zoom (1[0-9][0-9]|[2-9][0-9][0-9]) %")).wait_for()
    keys.press("Escape")
    box.wait_for(state="detached")
    for key in ("x", "ArrowRight", "x"):
        keys.press(key)
    comparison = page.tab.locator("dialog.nbimg-compare")
    comparison.locator("figure").nth(1).wait_for()
    page.tab.wait_for_timeout(600)
    axe(page.tab, "dialog.nbimg-compare")
    page.tab.screenshot(path=screenshots / "gallery-compare.png")
    keys.press("l")
    divider = comparison.get_by_role("slider")
    divider.wait_for()
    for _ in range(4):
        keys.press("ArrowLeft")
    assert float(divider.input_value()) < 50
    page.tab.screenshot(path=screenshots / "gallery-slider.png")
    keys.press("Escape")
    comparison.wait_for(state="detached")
    keys.press("Escape")
    keys.press("Delete")
    page.tab.get_by_text("1 image moved to the trash.").wait_for()
    page.tab.locator(".nbimg-count", has_text="29 of 296 images").wait_for()
    assert len(list((filled / ".nbimg" / "trash").rglob("*.png"))) == 1
    keys.press("z")
    page.tab.locator(".nbimg-count", has_text="30 of 297 images").wait_for()
    assert not list((filled / ".nbimg" / "trash").rglob("*.png"))
    assert page.tab.locator(".jp-Notebook .jp-Cell").count() == 3  # as many as before
    assert page.cell(1).locator(".cm-content").inner_text().startswith("g = ")


@pytest.mark.parametrize("front_end", ["lab", "notebook"])
def test_a_gallery_is_driven_by_the_mouse(gallery, filled, screenshots, front_end):
    page = gallery(f"mouse-{front_end}.ipynb", front_end=front_end)
    tab = page.tab
    tab.get_by_label("Model", exact=True).select_option("qwen-image")
    tab.locator(".nbimg-count", has_text="of 297 images").wait_for()
    assert "model:qwen-image" in tab.get_by_label("Search prompts").first.input_value()
    tile = lambda place: tab.locator(f'.nbimg-photo:visible[data-place="{place}"]')  # noqa: E731
    loved = {"lab": 3, "notebook": 5}[front_end]  # the folder is the same
    tile(loved).hover()
    tile(loved).locator(".nbimg-star").click()
    tab.locator(".nbimg-photo.nbimg-starred:visible").first.wait_for()
    tile(0).locator(".nbimg-tick").click()
    tile(2).click(modifiers=["Control"])
    tab.get_by_text("2 selected").wait_for()
    with tab.expect_download() as given:
        tab.get_by_role("button", name="Download").click()
    archive = zipfile.ZipFile(io.BytesIO(given.value.path().read_bytes()))
    assert len(archive.namelist()) == 3
    assert len(json.loads(archive.read("results.json"))) == 2
    tab.get_by_role("button", name="Starred", exact=True).click()
    tab.locator(".nbimg-count", has_text=re.compile(r"^[1-3] of 297")).wait_for()
    page.tab.screenshot(path=screenshots / f"gallery-starred-{front_end}.png")
    tile(0).dblclick()
    box = tab.locator("dialog.nbimg-lightbox")
    box.locator("img:not(.nbimg-small)").first.wait_for()
    stage = box.locator(".nbimg-stage")
    stage.hover()
    tab.mouse.wheel(0, -600)
    box.get_by_role("button", name=re.compile("Zoom [2-9][0-9][0-9] %")).wait_for()
    box.get_by_role("button", name="Close").click()


def test_a_gallery_answers_while_a_cell_blocks_the_kernel(gallery):
    page = gallery("busy.ipynb", after=("import time; time.sleep(12)",))
    page.run(2)
    page.tab.wait_for_timeout(500)
    page.tab.get_by_label("Search prompts").first.fill("violin")
    page.tab.locator(".nbimg-count", has_text="of 297 images").wait_for(timeout=8000)
    tile = page.tab.locator('.nbimg-photo:visible[aria-label*="violin"]').first
    tile.wait_for(timeout=6000)
    assert page.cell(2).locator(".jp-InputPrompt", has_text="[*]").count() == 1


def test_the_gallery_is_there_again_after_the_page_was_loaded_again(gallery):
    page = gallery("again.ipynb", "kettle")
    page.save()
    page.tab.reload()
    page.wait_for_kernel()
    page.tab.locator(".nbimg-photo img:not([hidden])").first.wait_for()
    page.holds(page.tab.get_by_label("Search prompts").first, "kettle")
    assert "of 297 images" in count(page).inner_text()


def test_the_gallery_can_be_read_on_a_dark_page(gallery, screenshots, axe):
    page = gallery("gallery-dark.ipynb", theme="JupyterLab Dark")
    page.tab.wait_for_timeout(500)
    axe(page.tab, ".nbimg-gallery")
    page.tab.screenshot(path=screenshots / "gallery-dark.png")


def paint(tab, x, y):
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x + 60, y + 30, steps=5)
    tab.mouse.up()


def test_more_like_this_and_an_edit_with_a_mask_arrive_in_the_gallery(
    opened, lab, server, screenshots
):
    cells = (LOAD, "r = %imggen a red house\nr.gallery()", "%imggallery", "nbimg.stats()")
    page = opened(
        "lab",
        "edits.ipynb",
        "import os; os.makedirs('edits', exist_ok=True); os.chdir('edits')",
        *cells,
    )
    for k in range(4):
        page.run(k)
        page.wait_for_end(k)
    first = page.cell(2).locator(".nbimg-gallery")
    assert first.locator(".nbimg-count").inner_text() == "1 image"
    whole = page.cell(3).locator(".nbimg-gallery")
    whole.locator(".nbimg-photo img:not([hidden])").first.wait_for()
    whole.locator(".nbimg-wall").focus()
    page.tab.keyboard.press("m")
    whole.locator(".nbimg-count", has_text="2 images").wait_for()
    assert len({job.input["seed"] for job in server.jobs[-2:]}) == 2
    whole.locator(".nbimg-wall").focus()
    page.tab.keyboard.press("e")
    dialog = page.tab.locator("dialog.nbimg-edit")
    dialog.locator(".nbimg-layers img").first.wait_for()
    stage = dialog.locator(".nbimg-stage").bounding_box()
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    paint(page.tab, x, y)
    page.tab.screenshot(path=screenshots / "gallery-edit.png")
    dialog.get_by_text("No model that can be used now takes a mask.").wait_for()
    dialog.get_by_label("What is to change").first.fill("a lit window")
    dialog.get_by_role("button", name="Make the edit").click()
    dialog.get_by_text("Clear the mask to change the whole picture").wait_for()
    dialog.get_by_role("button", name="Clear").click()
    dialog.get_by_role("button", name="Make the edit").click()
    whole.locator(".nbimg-count", has_text="3 images").wait_for()
    assert server.jobs[-1].input["prompt"] == "a lit window"


def test_a_painted_mask_reaches_a_model_that_takes_one_with_its_picture(opened, screenshots, axe):
    with OpenAIServer() as openai:
        begin = (
            "import os; os.makedirs('masks', exist_ok=True); os.chdir('masks')\n"
            f"os.environ |= {{'OPENAI_API_KEY': {openai.key!r},"
            f" 'NBIMG_OPENAI_BASE_URL': {openai.base_url!r}}}"
        )
        page = opened("lab", "masks.ipynb", begin, LOAD, "%%imggen\na red house", "%imggallery")
        for k in range(4):
            page.run(k)
            page.wait_for_end(k)
        tab = page.tab
        tab.locator(".nbimg-photo img:not([hidden])").first.wait_for()
        tab.locator(".nbimg-gallery .nbimg-wall").focus()
        tab.keyboard.press("e")
        dialog = tab.locator("dialog.nbimg-edit")
        dialog.locator(".nbimg-layers img").first.wait_for()
        stage = dialog.locator(".nbimg-stage").bounding_box()
        paint(tab, stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2)
        dialog.get_by_text("The mask goes to gpt-image").wait_for()
        dialog.get_by_label("Model", exact=True).select_option("flux-kontext-max")
        dialog.get_by_text("flux-kontext-max takes no mask.").wait_for()
        axe(tab, "dialog.nbimg-edit")
        tab.screenshot(path=screenshots / "gallery-mask.png")
        dialog.get_by_role("button", name="Use gpt-image").click()
        dialog.get_by_text("It changes what is painted").wait_for()
        dialog.get_by_label("What is to change").first.fill("a lit window")
        dialog.get_by_role("button", name="Make the edit").click()
        tab.locator(".nbimg-count", has_text="2 images").wait_for()
        (asked,) = [job.asked for job in openai.jobs]
    picture = Image.open(io.BytesIO(asked.images[0]))
    cut = Image.open(io.BytesIO(asked.mask)).getchannel("A")
    assert asked.fields["prompt"] == "a lit window"
    assert cut.size == picture.size
    middle = cut.width // 2, cut.height // 2
    assert cut.getpixel(middle) == 0, "what is painted is to change"
    assert cut.getpixel((3, 3)) == cut.getpixel((cut.width - 3, 3)) == 255, "the rest is kept"

"""The panel in JupyterLab and Notebook 7, by mouse and by keyboard."""

from __future__ import annotations

import re

import pytest
from PIL import Image

from nbimg.testing import Outcome

LOAD = "%load_ext nbimg"
OPEN = "import os; os.makedirs({0!r}, exist_ok=True); os.chdir({0!r})\npanel = %imgpanel\npanel"


@pytest.fixture
def panel(opened):
    """Opens a notebook with a panel in its second cell, in an output folder of its own."""

    def open_panel(name, *after, front_end="lab", theme="JupyterLab Light", width_px=1400):
        cells = (LOAD, OPEN.format(name), *after)
        page = opened(front_end, f"{name}.ipynb", *cells, theme=theme, width_px=width_px)
        page.run(0)
        page.wait_for_end(0)
        page.run(1)
        page.tab.get_by_text("Best at hand: flux-dev").wait_for()
        return page

    return open_panel


def prompt(page):
    return page.tab.get_by_label("Prompt", exact=True)


def made(page):
    return page.tab.get_by_role("button", name="Open: ")


@pytest.mark.parametrize("front_end", ["lab", "notebook"])
def test_a_panel_is_driven_by_keys_alone(panel, server, screenshots, axe, front_end):
    server.expect(Outcome(prompt_has="slow", running_s=1.5, times=None))
    page = panel(
        f"panel-keys-{front_end}",
        "print(len(_img.paths), panel.results is _img)",
        front_end=front_end,
    )
    tab, keys = page.tab, page.tab.keyboard
    axe(tab, ".nbimg-panel")
    prompt(page).focus()
    keys.type("a slow {red|blue} house")
    tab.get_by_text("2 images, about $0.05").wait_for()
    tab.get_by_text("2 prompts").wait_for()
    keys.press("Control+Enter")
    tab.locator('.nbimg-place[data-state="running"]').first.wait_for()
    axe(tab, ".nbimg-panel")
    tab.screenshot(path=screenshots / f"panel-running-{front_end}.png")
    made(page).nth(1).wait_for()
    tab.get_by_text(re.compile(r"2 of 2 images")).wait_for()
    tab.screenshot(path=screenshots / f"panel-{front_end}.png")
    made(page).first.focus()
    keys.press("Enter")
    box = tab.locator("dialog.nbimg-lightbox")
    box.get_by_text("Made with").wait_for()
    axe(tab, "dialog.nbimg-lightbox")
    keys.press("r")
    box.wait_for(state="detached")
    tab.get_by_role("button", name=re.compile("^Remove a-slow")).wait_for()
    assert tab.locator(".jp-Notebook .jp-Cell").count() == 3
    page.run(2)
    page.wait_for_end(2)
    assert page.outputs(2).inner_text().strip() == "2 True"


def test_models_are_searched_and_their_form_appears(panel, screenshots, axe):
    page = panel("panel-models")
    tab = page.tab
    tab.get_by_text("Best at hand: flux-dev").click()
    search = tab.get_by_role("combobox", name="Search models")
    options = tab.get_by_role("listbox", name="Models").get_by_role("option")
    options.nth(5).wait_for()
    axe(tab, ".nbimg-panel")
    tab.screenshot(path=screenshots / "panel-models.png")
    search.fill("gpt-image-2")
    assert "no key" in options.first.inner_text()
    search.fill("qwen letter")
    options.first.wait_for()
    tab.keyboard.press("Enter")
    tab.get_by_label("Guidance", exact=True).wait_for()
    prompt(page).fill("a cat")
    tab.get_by_label("Guidance", exact=True).fill("99")
    assert tab.get_by_label("Guidance", exact=True).get_attribute("aria-invalid") == "true"
    tab.get_by_label("Guidance", exact=True).fill("2.5")
    tab.get_by_role("radio", name="3:4").check(force=True)
    tab.get_by_role("button", name="Draw a seed and keep it").click()
    tab.get_by_role("button", name="Copy as cell").click()
    copied = tab.get_by_text(re.compile(r"Copied: %%imggen -m qwen-image --seed \d+ --ar 3:4"))
    copied.wait_for()


def test_stop_works_while_a_cell_blocks_and_the_form_is_there_after_a_reload(panel, server):
    server.expect(Outcome(prompt_has="hang", running_s=10_000.0, times=None))
    page = panel("panel-stop", "import time; time.sleep(15)")
    tab = page.tab
    prompt(page).fill("{a cat|hang on}")
    tab.get_by_text("2 images, about $0.05").wait_for()
    page.run(2)
    tab.wait_for_timeout(500)
    tab.get_by_role("button", name="Generate").click()
    made(page).first.wait_for(timeout=10_000)
    tab.get_by_role("button", name="Stop", exact=True).first.click()
    cancelled = tab.locator('.nbimg-place[data-state="cancelled"]')
    cancelled.wait_for(timeout=8000)
    assert page.cell(2).locator(".jp-InputPrompt", has_text="[*]").count() == 1
    page.wait_for_end(2)
    page.save()
    tab.reload()
    page.wait_for_kernel()
    made(page).first.wait_for()
    page.holds(prompt(page), "{a cat|hang on}")
    assert cancelled.count() == 1


def test_images_are_dropped_pasted_picked_and_taken_from_the_gallery(
    panel, screenshots, tmp_path, axe
):
    page = panel("panel-refs")
    tab = page.tab
    Image.new("RGB", (300, 200), "teal").save(tmp_path / "teal.png")
    with tab.expect_file_chooser() as chooser:
        tab.get_by_role("button", name="Add images").click()
    chooser.value.set_files(tmp_path / "teal.png")
    tab.get_by_role("img", name="teal.png").wait_for()
    script = """async (way) => {
        const canvas = document.createElement("canvas");
        canvas.width = canvas.height = 64;
        canvas.getContext("2d").fillRect(0, 0, 32, 64);
        const blob = await new Promise((done) => canvas.toBlob(done));
        const data = new DataTransfer();
        data.items.add(new File([blob], `${way}.png`, { type: "image/png" }));
        const panel = document.querySelector(".nbimg-panel");
        const kinds = { drop: DragEvent, paste: ClipboardEvent };
        const about = { bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data };
        panel.dispatchEvent(new kinds[way](way, about));
    }"""
    tab.evaluate(script, "drop")
    tab.get_by_role("img", name="drop.png").wait_for()
    tab.evaluate(script, "paste")
    tab.get_by_role("button", name="Remove drop.png").click()
    prompt(page).fill("make it night")
    tab.get_by_text("Best at hand: flux-kontext-max").wait_for()
    tab.get_by_role("button", name=re.compile("^Remove")).first.click()
    tab.get_by_role("button", name="Generate").click()
    made(page).first.wait_for()
    tab.get_by_text(re.compile("1 of 1 images?")).wait_for()
    tab.get_by_role("button", name="From the gallery").click()
    dialog = tab.locator("dialog.nbimg-choose")
    dialog.locator(".nbimg-photo img:not([hidden])").first.wait_for()
    axe(tab, "dialog.nbimg-choose")
    tab.keyboard.press("Enter")
    dialog.wait_for(state="detached")
    tab.get_by_role("img", name=re.compile("make-it-night")).wait_for()
    tab.screenshot(path=screenshots / "panel-references.png")


def test_pictures_go_from_the_gallery_to_the_panel_by_mouse_and_by_key(panel, screenshots):
    page = panel("panel-drag", "%%imggen --lines -c 1\na red cat\na blue dog", "%imggallery")
    tab = page.tab
    tab.set_viewport_size({"width": 1400, "height": 2400})  # both are in sight
    for k in (2, 3):
        page.run(k)
        page.wait_for_end(k)
    photo = lambda words: tab.locator(f'.nbimg-photo[aria-label^="{words}"]')  # noqa: E731
    photo("a red cat").locator("img:not([hidden])").wait_for()
    references = tab.get_by_role("list", name="References")
    photo("a red cat").drag_to(tab.locator(".nbimg-panel .nbimg-drop"))
    references.get_by_role("img", name=re.compile("a-red-cat")).wait_for()
    assert tab.locator(".nbimg-dropping").count() == 0
    photo("a blue dog").click()
    tab.keyboard.press("r")
    references.get_by_role("img", name=re.compile("a-blue-dog")).wait_for()
    photo("a blue dog").drag_to(tab.locator(".nbimg-panel .nbimg-feed"))
    tab.get_by_text("2 images added").wait_for(state="detached")
    assert references.get_by_role("img").count() == 2, "a picture is referred to once"
    tab.screenshot(path=screenshots / "panel-drag.png")
    prompt(page).fill("both of them")
    tab.get_by_text("Best at hand: flux-kontext-max").wait_for()
    tab.get_by_role("button", name="Generate").click()
    made(page).first.wait_for()
    tab.get_by_text(re.compile("1 of 1 images?")).wait_for()
    references.get_by_role("button", name=re.compile("^Remove a-red")).click()
    made(page).first.drag_to(tab.locator(".nbimg-panel .nbimg-drop"))
    references.get_by_role("img", name=re.compile("both-of-them")).wait_for()


def test_previews_of_local_pictures_show_in_the_panel(panel, screenshots):
    pytest.importorskip("diffusers")
    page = panel("panel-preview")
    tab = page.tab
    tab.get_by_text("Best at hand: flux-dev").click()
    tab.get_by_role("combobox", name="Search models").fill("demo")
    tab.get_by_role("listbox", name="Models").get_by_role("option").first.wait_for()
    tab.keyboard.press("Enter")
    tab.get_by_label("Sampler", exact=True).wait_for()  # the form is the model's
    prompt(page).fill("a red house at night")
    tab.set_default_timeout(60_000)
    steps = tab.get_by_label("Steps", exact=True)
    steps.fill("200")
    tab.get_by_role("button", name="Generate").click()
    tab.locator('.nbimg-place img[alt="preview: a red house at night"]').wait_for()
    tab.get_by_text(re.compile(r"making · step \d+ / 200")).wait_for()
    assert tab.locator(".nbimg-place .nbimg-share").count() == 1
    tab.screenshot(path=screenshots / "panel-preview.png")
    tab.get_by_role("button", name="Stop", exact=True).first.click()
    tab.locator('.nbimg-place[data-state="cancelled"]').wait_for()


def test_the_panel_can_be_read_on_a_dark_page_and_has_its_history(panel, screenshots, axe):
    page = panel("panel-dark", theme="JupyterLab Dark")
    tab = page.tab
    prompt(page).fill("a {red|yellow|green} kite over the sea, in {ink|oil}")
    tab.get_by_text("6 images, about $0.15").wait_for()
    tab.get_by_role("button", name="Generate").click()
    made(page).nth(5).wait_for()
    tab.get_by_text("6 of 6 images").wait_for()
    axe(tab, ".nbimg-panel")
    tab.screenshot(path=screenshots / "panel-dark.png")
    tab.get_by_role("button", name="History").click()
    past = tab.locator("dialog.nbimg-history")
    past.get_by_role("button", name=re.compile("green kite")).first.wait_for()
    axe(tab, "dialog.nbimg-history")
    tab.screenshot(path=screenshots / "panel-history.png")
    past.get_by_role("button", name=re.compile("a green kite over the sea, in oil")).click()
    past.wait_for(state="detached")
    page.holds(prompt(page), "a green kite over the sea, in oil")

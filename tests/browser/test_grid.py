"""The grid as people meet it: in a saved notebook, on a phone, exported, with its styles taken away, by ear."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from nbimg.testing import Outcome

LOAD = "%load_ext nbimg"
CELLS = (
    LOAD,
    "%%imggen --lines\na red house at night\na nude house\na house by the sea with many small windows",
    "%%imggen\na {cat|dog} in {ink|oil|chalk}",
)


@pytest.fixture(scope="module")
def made(browser, lab, replicate, tmp_path_factory):
    """A notebook that was run and saved; its path."""
    from .page import Page, write_notebook

    replicate.expect(Outcome(prompt_has="nude", error="NSFW content detected", times=None))
    write_notebook(lab.notebooks / "made.ipynb", *CELLS)
    lab.set_theme("JupyterLab Light")
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    tab.set_default_timeout(20_000)
    page = Page(tab, lab, "lab", "made.ipynb")
    page.wait_for_kernel()
    for number in range(len(CELLS)):
        page.run(number)
        page.wait_for_end(number)
    page.wait_for_images(2, 6)
    path = page.save()
    context.close()
    lab.stop_kernels()
    replicate._outcomes.clear()
    return path


@pytest.fixture
def sheet(browser, tmp_path):
    """Opens a page of HTML."""
    contexts = []

    def open_sheet(html: str, *, width_px: int = 1100, dark: bool = False):
        path = tmp_path / "page.html"
        path.write_text(html, "utf-8")
        scheme = "dark" if dark else "light"
        size = {"width": width_px, "height": 800}
        context = browser.new_context(viewport=size, color_scheme=scheme)
        contexts.append(context)
        tab = context.new_page()
        tab.goto(path.as_uri())
        return tab

    yield open_sheet
    for context in contexts:
        context.close()


def html_of(path: Path) -> list[str]:
    cells = nbformat.read(path, as_version=4).cells
    return [o.data["text/html"] for cell in cells for o in cell.outputs if "data" in o]


def page_of(path: Path, style: str = "") -> str:
    body = "<hr>".join(html_of(path))
    style = f"body {{ font-family: sans-serif; {style} }}"
    return (
        f'<!doctype html><html lang="en"><title>x</title><style>{style}</style><main>{body}</main>'
    )


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_the_grid_is_right_for_those_who_listen_or_see_little(
    opened, made, axe, screenshots, theme
):
    page = opened("lab", made.name, theme=f"JupyterLab {theme}")
    # what is out of sight is not checked
    page.tab.set_viewport_size({"width": 1280, "height": 1800})
    page.wait_for_images(2, 6)
    page.outputs(1).locator("details").first.evaluate("details => { details.open = true }")
    page.screenshot(screenshots / f"grid-{theme.lower()}.png")
    axe(page.tab, ".jp-OutputArea-output")


def test_the_live_grid_is_right_for_those_who_listen_or_see_little(opened, server, axe):
    server.expect(Outcome(prompt_has="slow", running_s=20.0, times=None))
    server.expect(Outcome(prompt_has="nude", error="NSFW content detected", times=None))
    for theme in ("Light", "Dark"):
        page = opened(
            "lab",
            f"live-access-{theme}.ipynb",
            LOAD,
            "%%imggen --lines\na cat\na slow dog\nnude",
            theme=f"JupyterLab {theme}",
        )
        page.run(0)
        page.run(1)
        page.tiles(1, "ok").first.wait_for()
        page.tiles(1, "refused").wait_for()
        page.tab.wait_for_timeout(400)
        axe(page.tab, ".nbimg-live")
        page.live(1).get_by_role("button", name="Stop").click()
        page.wait_for_end(1)


def test_on_a_phone_two_pictures_stand_beside_each_other_and_nothing_sticks_out(
    sheet, made, screenshots
):
    tab = sheet(
        page_of(made).replace(
            "<title>", '<meta name="viewport" content="width=device-width"><title>'
        ),
        width_px=375,
    )
    tab.screenshot(path=screenshots / "phone.png", full_page=True)
    first, second = (tab.locator("img").nth(k).bounding_box() for k in (0, 1))
    assert first["width"] >= 120
    assert second["x"] + second["width"] <= 375
    assert tab.evaluate("document.documentElement.scrollWidth") <= 375


def test_without_styles_as_on_github_it_is_a_table_that_can_be_read(sheet, made, screenshots):
    stripped = re.sub(r' style="[^"]*"', "", page_of(made).replace("<style>", "<template>"))
    stripped = stripped.replace("</style>", "</template>")
    tab = sheet(stripped)
    tab.screenshot(path=screenshots / "github.png", full_page=True)
    images = tab.locator("img")
    assert images.count() == 8
    boxes = [images.nth(k).bounding_box() for k in range(8)]
    assert all(150 < box["width"] < 400 for box in boxes)
    assert boxes[0]["y"] == boxes[1]["y"], "beside each other"
    assert tab.get_by_text("NSFW content detected").first.is_visible()


def test_exported_as_html_and_printed_it_shows_every_picture(browser, made, tmp_path, screenshots):
    subprocess.run(
        [sys.executable, "-m", "nbconvert", "--to", "html", "--output-dir", tmp_path, made],
        check=True,
        capture_output=True,
        timeout=100,
    )
    context = browser.new_context(viewport={"width": 1100, "height": 900}, offline=True)
    tab = context.new_page()
    tab.goto((tmp_path / "made.html").as_uri(), wait_until="domcontentloaded")
    images = tab.locator(".jp-OutputArea-output img[alt]")
    assert images.count() == 8
    assert all(
        images.nth(k).evaluate("i => i.decode().then(() => i.naturalWidth)") for k in range(8)
    )
    tab.screenshot(path=screenshots / "nbconvert.png", full_page=True)
    pdf = tab.pdf(path=tmp_path / "made.pdf", format="A4")
    assert pdf.count(b"/Subtype /Image") >= 8
    context.close()


def test_as_latex_it_keeps_the_contact_sheets(made, tmp_path):
    subprocess.run(
        [sys.executable, "-m", "nbconvert", "--to", "latex", "--output-dir", tmp_path, made],
        check=True,
        capture_output=True,
        timeout=100,
    )
    assert len(list((tmp_path / "made_files").glob("*.jpg"))) == 2
    assert (tmp_path / "made.tex").read_text().count("{made_files/") == 2


def test_five_hundred_pictures_open_well(sheet, screenshots):
    from PIL import Image

    from nbimg.display import grid
    from nbimg.media import pixels
    from nbimg.types import ImageRecord, Request, Result

    smalls = [
        pixels.encode(Image.effect_mandelbrot((side, side), (-2, -1.5, 1, 1.5), 60), "image/webp")
        for side in (256, 128)
    ]
    results = [
        Result(
            k,
            Request(f"house {k}"),
            "demo",
            images=(ImageRecord(Path(f"{k}.png"), width=512, height=512, seed=k),),
        )
        for k in range(500)
    ]
    plan = grid.plan(results, thumb=lambda _image, side_px: smalls[side_px == 128], base=Path.cwd())
    tab = sheet(f"<!doctype html><title>x</title><main>{grid.render(plan)}</main>")
    opened_ms = tab.evaluate(
        "() => { const n = performance.getEntriesByType('navigation')[0]; return n.loadEventEnd - n.responseEnd }"
    )
    assert opened_ms < 3_000
    assert tab.locator("img:visible").count() == 60
    tab.get_by_text("440 more").click()
    tab.locator("img:visible").nth(199).wait_for()
    tab.screenshot(path=screenshots / "five-hundred.png")
    assert tab.get_by_role("link", name="499.png").count() == 1

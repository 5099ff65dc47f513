"""Make the pictures of the README: real cells in a real JupyterLab, in headless Chromium.

    python docs/shoot.py [--folder docs] [grid] [live] [panel] [gallery] [grid-dark]

It needs Chromium, JupyterLab and Playwright, and draws with the model that ships with nbimg.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.browser.lab import CHROMIUM_ARGUMENTS, Lab, find_chromium
from tests.browser.page import Page, write_notebook

LOAD = "%load_ext nbimg"
HOUSES = "%%imggen --seed 3\na {red|yellow} house {by day|at sunset|at night}"
SLOW = "%%imggen -n 3 --seed 7\na yellow house at sunset\n--- --steps 200\na red boat at night"
MANY = (
    "%%imggen --seed 5 --display none\n"
    "a {red|yellow|blue|white} {house|boat|tree|flower} {by day|at sunset|at night}"
)
END_S = 90
#: More colours are not seen, and make a file three times as large.
COLOURS = 256
SCALE = 1.25

Open = Callable[..., Page]


def grid(opened: Open) -> Any:
    """A fan-out under its cell."""
    page = opened(LOAD, HOUSES)
    page.wait_for_images(1, 6)
    return page.cell(1)


def grid_dark(opened: Open) -> Any:
    """The same on a dark page."""
    page = opened(LOAD, HOUSES, theme="JupyterLab Dark")
    page.wait_for_images(1, 6)
    return page.cell(1)


def live(opened: Open) -> Any:
    """A cell that runs: some pictures are there, others are on their way."""
    page = opened(LOAD, SLOW, waits=False)
    page.tiles(1, "ok").nth(2).wait_for()
    page.live(1).locator(".nbimg-preview img").first.wait_for()
    page.live(1).get_by_text(re.compile(r"step 1?\d\d / 200")).first.wait_for()
    return page.cell(1)


def panel(opened: Open) -> Any:
    """The form, and what it has made."""
    page = opened(LOAD, "%imgpanel", height_px=860)
    tab = page.tab
    tab.get_by_text("Best at hand").or_(tab.get_by_text("demo")).first.wait_for()
    tab.get_by_label("Sampler", exact=True).wait_for()
    tab.get_by_label("Prompt", exact=True).fill("a {yellow|blue} boat {by day|at sunset|at night}")
    tab.get_by_label("Seed", exact=True).fill("6")
    tab.get_by_role("button", name="Generate").click()
    tab.get_by_text(re.compile("6 of 6 images")).wait_for()
    tab.evaluate("document.activeElement.blur()")
    return page.cell(1).locator(".nbimg-panel")


def gallery(opened: Open) -> Any:
    """What was made, some of it with stars."""
    page = opened(LOAD, MANY, "%imggallery", height_px=740)
    tab = page.tab
    tab.locator(".nbimg-photo img:not([hidden])").nth(20).wait_for()
    tab.locator(".nbimg-wall").focus()
    for key in ("ArrowRight", "s", "ArrowDown", "ArrowRight", "s", "ArrowRight"):
        tab.keyboard.press(key)
    tab.wait_for_timeout(400)
    return page.cell(2).locator(".nbimg-gallery")


SHOTS = {"grid": grid, "grid-dark": grid_dark, "live": live, "panel": panel, "gallery": gallery}


@contextmanager
def pages() -> Iterator[Open]:
    """Give what opens a notebook and runs its cells, each time in a folder of its own."""
    with sync_playwright() as play, tempfile.TemporaryDirectory() as folder:
        browser = play.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_ARGUMENTS)
        with Lab(Path(folder), {"NBIMG_MODEL": "demo"}) as lab:
            count = 0

            def opened(
                *cells: str,
                theme: str = "JupyterLab Light",
                waits: bool = True,
                height_px: int = 1100,
            ) -> Page:
                nonlocal count
                count += 1
                lab.set_theme(theme)
                name = f"{count}/pictures.ipynb"
                (lab.notebooks / name).parent.mkdir()
                write_notebook(lab.notebooks / name, *cells)
                size = {"width": 1180, "height": height_px}
                tab = browser.new_context(viewport=size, device_scale_factor=SCALE).new_page()
                tab.set_default_timeout(END_S * 1000)
                page = Page(tab, lab, "lab", name)
                page.wait_for_kernel()
                tab.keyboard.press("Control+b")  # the files take room
                for number in range(len(cells)):
                    page.run(number)
                    if waits or number + 1 < len(cells):
                        page.wait_for_end(number)
                tab.mouse.move(0, 0)
                return page

            yield opened
        browser.close()


def shoot(folder: Path, names: list[str]) -> None:
    """Write the pictures that are named."""
    with pages() as opened:
        for name in names:
            path = folder / f"{name}.png"
            SHOTS[name](opened).screenshot(path=path)
            shrink(path)
            print(f"{path}: {path.stat().st_size // 1000} kB")


def shrink(path: Path) -> None:
    """Write a picture with few colours, of which its ground is exactly one."""
    picture = Image.open(path).convert("RGB")
    few = picture.quantize(COLOURS - 1)
    few = picture.quantize(palette=few, dither=Image.Dither.FLOYDSTEINBERG)
    _, ground = max(picture.getcolors(picture.width * picture.height))
    apart = ImageChops.difference(picture, Image.new("RGB", picture.size, ground)).convert("L")
    few.putpalette([*few.getpalette()[: 3 * (COLOURS - 1)], *ground])
    few.paste(COLOURS - 1, mask=apart.point(lambda level: 255 * (level == 0)))
    few.save(path, optimize=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent)
    parser.add_argument("names", nargs="*", default=list(SHOTS), metavar="NAME")
    asked = parser.parse_args()
    shoot(asked.folder.resolve(), asked.names)


if __name__ == "__main__":
    main()

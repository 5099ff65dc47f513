"""Make the picture of the README: a real JupyterLab with the quick start's cells, in headless Chromium.

    python docs/shoot.py [--folder docs]

It needs Chromium, JupyterLab and Playwright, and draws with the model that ships with nbimg.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.browser.lab import CHROMIUM_ARGUMENTS, Lab, find_chromium
from tests.browser.page import Page, write_notebook

CELLS = (
    "%load_ext nbimg",
    "%%imggen --seed 3\na {red|yellow} house {by day|at sunset|at night}",
)
THEMES = {"grid": "JupyterLab Light", "grid-dark": "JupyterLab Dark"}
END_S = 60


def shoot(folder: Path) -> None:
    """Run the cells in each theme and write a picture of the page."""
    with Lab(Path(tempfile.mkdtemp()), {"NBIMG_MODEL": "demo"}) as lab, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_ARGUMENTS)
        for name, theme in THEMES.items():
            lab.set_theme(theme)
            write_notebook(lab.notebooks / f"{name}.ipynb", *CELLS)
            size = {"width": 1100, "height": 1100}
            tab = browser.new_context(viewport=size, device_scale_factor=1.5).new_page()
            tab.set_default_timeout(END_S * 1000)
            page = Page(tab, lab, "lab", f"{name}.ipynb")
            page.wait_for_kernel()
            page.run(0)
            page.wait_for_end(0)
            page.run(1)
            page.wait_for_end(1)
            page.wait_for_images(1, 6)
            tab.mouse.move(0, 0)
            page.cell(1).screenshot(path=folder / f"{name}.png")
            print(folder / f"{name}.png")
        browser.close()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent)
    shoot(parser.parse_args().folder.resolve())


if __name__ == "__main__":
    main()

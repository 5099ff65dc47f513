"""A notebook in a tab of a real browser, as a person works with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat

from tests.browser.lab import Lab

__all__ = ["Page", "write_notebook"]


def write_notebook(path: Path, *cells: str) -> None:
    """Write a notebook of code cells for the kernel of this environment."""
    node = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, cells)))
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    node.metadata["kernelspec"] = spec
    nbformat.write(node, path)


class Page:
    """A notebook that is open in a tab of the browser."""

    def __init__(self, tab: Any, lab: Lab, front_end: str, name: str) -> None:
        self.tab, self.lab, self.front_end, self.name = tab, lab, front_end, name
        address = {"lab": "lab/tree", "notebook": "notebooks"}[front_end]
        query = "?reset" if front_end == "lab" else ""
        tab.goto(f"{lab.url}/{address}/{name}{query}")
        tab.wait_for_selector(".jp-Notebook .jp-CodeCell")

    def wait_for_kernel(self) -> None:
        if self.front_end == "lab":
            self.tab.get_by_text("(ipykernel) | Idle").wait_for()
        self.tab.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]')

    def cell(self, number: int) -> Any:
        return self.tab.locator(".jp-Notebook .jp-CodeCell").nth(number)

    def run(self, number: int) -> None:
        """Start a cell, as Shift-Enter does; a page that was too busy to hear it is told again, once."""
        blank = self.cell(number).locator(".jp-InputPrompt", has_text="[ ]:")
        for _ in range(2):
            self.cell(number).locator(".cm-content").click()
            self.tab.keyboard.press("Shift+Enter")
            for _ in range(50):
                if not blank.count():
                    return
                self.tab.wait_for_timeout(100)

    def outputs(self, number: int) -> Any:
        return self.cell(number).locator(".jp-OutputArea-output")

    def live(self, number: int) -> Any:
        """The live grid of a cell."""
        return self.cell(number).locator(".nbimg-live")

    def tiles(self, number: int, state: str) -> Any:
        """The tiles of the live grid that are in a state."""
        return self.live(number).locator(f'.nbimg-tile[data-state="{state}"]')

    def images(self, number: int) -> Any:
        return self.cell(number).locator(".jp-OutputArea-output img[alt]")

    def wait_for_images(self, number: int, count: int) -> Any:
        """Wait until the cell shows so many images, each decoded; return them."""
        images = self.images(number)
        images.nth(count - 1).wait_for()
        for image in images.all():
            image.evaluate("image => image.decode()")
        assert images.count() == count
        return images

    def wait_for_end(self, number: int) -> None:
        """Wait until the cell has its number in place of the star."""
        prompt = self.cell(number).locator(".jp-InputPrompt")
        prompt.filter(has_text=re.compile(r"\[\d+\]:")).wait_for()

    def holds(self, field: Any, text: str) -> None:
        """Wait until a field holds a text; it may come from the kernel."""
        from playwright.sync_api import expect

        expect(field).to_have_value(text)

    def screenshot(self, path: Path) -> None:
        """Take a picture, without the dialog that says that there is no kernel."""
        for name in ("Close", "No Kernel"):
            button = self.tab.get_by_role("button", name=name, exact=True)
            if button.count():
                button.first.click()
        self.tab.screenshot(path=path)

    def save(self) -> Path:
        path = self.lab.notebooks / self.name
        before = path.stat().st_mtime_ns
        self.tab.keyboard.press("Control+s")
        for _ in range(100):
            if path.stat().st_mtime_ns != before and path.read_text().rstrip().endswith("}"):
                return path
            self.tab.wait_for_timeout(50)
        raise AssertionError(f"{self.name} was not saved")

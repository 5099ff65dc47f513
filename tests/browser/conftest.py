"""A browser with a JupyterLab in it; without Chromium the tests of this folder are reported as not run."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

import nbimg
from nbimg.testing import ReplicateServer

from .lab import CHROMIUM_ARGUMENTS, Lab, find_chromium

ROOT = Path(nbimg.__file__).parents[1]
SCREENSHOTS = os.environ.get("NBIMG_SCREENSHOTS")
NEEDED = ("jupyterlab", "notebook", "playwright")


def _missing() -> list[str]:
    missing = [] if find_chromium() else ["chromium"]
    return missing + [name for name in NEEDED if importlib.util.find_spec(name) is None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = _missing()
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if missing:
                item.add_marker(pytest.mark.skip(reason=f"not run: needs {', '.join(missing)}"))


@pytest.fixture(scope="module")
def server() -> Iterator[ReplicateServer]:
    with ReplicateServer(image_side_px=512) as running:
        yield running


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, server: ReplicateServer) -> Iterator[Lab]:
    environment = {
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": str(ROOT),
        "REPLICATE_API_TOKEN": server.token,
        "NBIMG_REPLICATE_BASE_URL": server.base_url,
    }
    with Lab(tmp_path_factory.mktemp("lab"), environment) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=find_chromium(), args=list(CHROMIUM_ARGUMENTS)
        )
        yield chromium
        chromium.close()


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
        """Start a cell, as Shift-Enter does."""
        self.cell(number).locator(".cm-content").click()
        self.tab.keyboard.press("Shift+Enter")

    def outputs(self, number: int) -> Any:
        return self.cell(number).locator(".jp-OutputArea-output")

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

    def screenshot(self, path: Path) -> None:
        """Take a picture, without the dialog that says that there is no kernel."""
        close = self.tab.get_by_role("button", name="Close", exact=True)
        if close.count():
            close.first.click()
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


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    """Where pictures of the pages go: NBIMG_SCREENSHOTS, or away with the test."""
    folder = Path(SCREENSHOTS or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def opened(browser: Any, lab: Lab) -> Iterator[Any]:
    """Opens a notebook with the cells given, in a browser that has never seen it."""
    contexts = []

    def open_page(
        front_end: str,
        name: str,
        *cells: str,
        theme: str = "JupyterLab Light",
        width_px: int = 1280,
        kernel: bool = True,
    ) -> Page:
        if cells:
            node = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, cells)))
            spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
            node.metadata["kernelspec"] = spec
            nbformat.write(node, lab.notebooks / name)
        lab.set_theme(theme)
        context = browser.new_context(viewport={"width": width_px, "height": 900})
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(20_000)
        if not kernel:
            tab.route("**/api/sessions*", lambda route: route.abort())
            tab.route("**/api/kernels*", lambda route: route.abort())
        page = Page(tab, lab, front_end, name)
        if kernel:
            page.wait_for_kernel()
        return page

    yield open_page
    for context in contexts:
        context.close()
    lab.stop_kernels()

"""A browser with a JupyterLab in it; without Chromium the tests of this folder are reported as not run."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nbimg
from nbimg.testing import ReplicateServer

from .lab import CHROMIUM_ARGUMENTS, Lab, find_chromium
from .page import Page, write_notebook
from .tools import find

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


@pytest.fixture(scope="session")
def replicate() -> Iterator[ReplicateServer]:
    with ReplicateServer(image_side_px=512) as running:
        yield running


@pytest.fixture
def server(replicate: ReplicateServer) -> Iterator[ReplicateServer]:
    """The local Replicate; what a test expects of it is forgotten after the test."""
    yield replicate
    replicate._outcomes.clear()
    replicate._faults.clear()


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, replicate: ReplicateServer) -> Iterator[Lab]:
    environment = {
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": str(ROOT),
        "REPLICATE_API_TOKEN": replicate.token,
        "NBIMG_REPLICATE_BASE_URL": replicate.base_url,
    }
    with Lab(tmp_path_factory.mktemp("lab"), environment) as running:
        yield running


# not the session's: while it is open, no other test of this process can run a loop of its own
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=find_chromium(), args=list(CHROMIUM_ARGUMENTS)
        )
        yield chromium
        chromium.close()


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
            write_notebook(lab.notebooks / name, *cells)
        lab.set_theme(theme)
        context = browser.new_context(viewport={"width": width_px, "height": 900})
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(45_000)  # other work may slow the machine down
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


# JupyterLab's body is 0 px high and clips, and so do others around an output: to axe-core the text in them,
# and in dialogs opened from them, is out of sight, and its contrast passes without a look.
LOOK = """async ([part, rules]) => {
    const around = [], node = document.querySelector(part);
    for (let one = node?.parentElement; one; one = one.parentElement) {
        around.push([one, one.style.cssText]);
        one.style.setProperty("overflow", "visible", "important");
    }
    try {
        return await axe.run(part, {runOnly: rules});
    } finally {
        for (const [one, style] of around) one.style.cssText = style;
    }
}"""


@pytest.fixture
def axe() -> Any:
    """Looks for what keeps people from using a page: WCAG 2.2 AA, by axe-core where npm has brought it here."""
    found = find("axe-core/axe.min.js")

    def check(tab: Any, part: str) -> None:
        if found is None:
            pytest.skip("axe-core is not installed: python tests/browser/tools.py")
        tab.evaluate(found.read_text("utf-8"))
        rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
        report = tab.evaluate(LOOK, [part, rules])
        told = [
            f"{rule['id']}: {rule['help']}: {node['html'][:200]}"
            for rule in report["violations"]
            for node in rule["nodes"][:3]
        ]
        assert not told, "\n".join(told)
        looked = {rule["id"] for kind in ("passes", "incomplete") for rule in report[kind]}
        assert "color-contrast" in looked, "the contrast of no text was looked at"

    return check

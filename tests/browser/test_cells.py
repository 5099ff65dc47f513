"""The colours of `%%imggen` and `%%imgedit` cells: prompts are no Python, and what is expanded stands out."""

from __future__ import annotations

import re

import pytest

CELL = """%%imggen -n 4 -m flux-dev  # hm
a {red|blue} house in {style} for while {{x}}
--- --ar 4:3 -o "a b.jpg"
import a castle, {not so}"""
PYTHON = "for house in range(3):\n    x = {'a': 1}"


def parts(page, number):
    """The text of each part, by what it is."""
    nodes = page.cell(number).locator("[class*=cm-nbimg-]:not(.cm-line)")
    found = {}
    for node in nodes.all():
        kind = re.search(r"cm-nbimg-(\w+)", node.get_attribute("class"))[1]
        found.setdefault(kind, []).append(node.inner_text())
    return found


@pytest.mark.parametrize("front_end", ["lab", "notebook"])
def test_what_is_expanded_stands_out_and_prompts_have_no_colours_of_python(
    opened, screenshots, front_end
):
    page = opened(front_end, f"colours-{front_end}.ipynb", CELL, PYTHON)
    page.cell(0).locator(".cm-nbimg-magic").wait_for()
    found = parts(page, 0)
    assert "".join(found["magic"]) == "%%imggen"
    assert "".join(found["option"]) == "-n-m--ar-o"
    assert "".join(found["choice"]) == "{red|blue}"
    assert "".join(found["variable"]) == "{style}"
    assert "".join(found["escape"]) == "{{}}"
    assert "".join(found["wrong"]) == "{not so}"
    assert "".join(found["separator"]) == "---"
    assert page.cell(0).locator(".cm-line.cm-nbimg-rule").count() == 1
    looks = (
        page.cell(0)
        .locator(".cm-nbimg-prompt")
        .evaluate_all(
            "nodes => [...new Set(nodes.map(n => getComputedStyle(n).color + getComputedStyle(n).fontWeight))]"
        )
    )
    assert len(looks) == 1, "`for`, `while` and `import` look like all other words"
    assert not parts(page, 1), "a cell of Python is left alone"
    page.cell(0).locator(".cm-content").click()
    page.tab.keyboard.press("Control+End")
    page.tab.keyboard.type(" {tower}")
    page.cell(0).locator(".cm-nbimg-variable", has_text="tower").wait_for()
    page.screenshot(screenshots / f"colours-{front_end}.png")


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_the_colours_have_enough_contrast(opened, axe, screenshots, theme):
    page = opened("lab", f"contrast-{theme}.ipynb", CELL, theme=f"JupyterLab {theme}")
    page.cell(0).locator(".cm-nbimg-magic").wait_for()
    page.screenshot(screenshots / f"colours-{theme.lower()}.png")
    axe(page.tab, ".cm-line")

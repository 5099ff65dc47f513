"""The scripts of the widgets: each parses as it is joined, and all are sound by their types."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import nbimg
from nbimg.notebook.widget import script, style
from tests.browser.tools import find

HERE = Path(__file__).parent
WEB = Path(nbimg.__file__).parent / "notebook" / "web"
NODE, TSC = shutil.which("node"), find(".bin/tsc")
NAMES = sorted(path.stem for path in WEB.glob("*.js"))


@pytest.mark.skipif(NODE is None, reason="not run: needs node")
@pytest.mark.parametrize("name", ["gallery", "panel"])
def test_a_widget_is_one_script_that_parses_and_imports_nothing(name, tmp_path):
    text = script(name)
    path = tmp_path / "widget.mjs"
    path.write_text(text, "utf-8")
    done = subprocess.run([NODE, "--check", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not re.search(r"^(import|export (?!default))", text, re.MULTILINE)
    assert text.count("export default") == 1


@pytest.mark.skipif(TSC is None, reason="not run: needs python tests/browser/tools.py")
def test_the_scripts_are_sound_by_their_types():
    command = [TSC, "--project", HERE / "tsconfig.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_a_script_fetches_nothing_from_anywhere(name):
    text = (WEB / f"{name}.js").read_text("utf-8")
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    addresses = re.findall(r"https?://[^\"'` )]+", text)
    assert set(addresses) <= {"http://www.w3.org/2000/svg"}
    for asks in ("fetch(", "XMLHttpRequest", "import(", "new WebSocket", "eval("):
        assert not re.search(rf"(?<![\w.]){re.escape(asks)}", text), asks


def test_no_text_of_a_person_is_ever_read_as_html():
    for name in NAMES:
        text = (WEB / f"{name}.js").read_text("utf-8")
        for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write"):
            assert way not in text, name


def test_the_live_grid_and_the_widgets_share_no_name_as_their_sheets_share_a_page():
    theirs = "".join(path.read_text("utf-8") for path in WEB.iterdir())
    ours = "".join(WEB.parent.joinpath(f"grid.{kind}").read_text("utf-8") for kind in ("js", "css"))
    names = [set(re.findall(r"nbimg-[a-z-]+", text)) for text in (ours, theirs)]
    assert not names[0] & names[1]


def test_the_sheets_stay_with_what_is_ours():
    text = re.sub(
        r"/\*.*?\*/", "", style("base", "wall", "viewer", "gallery", "panel"), flags=re.DOTALL
    )
    text = re.sub(r"@keyframes [\w-]+ \{.*?\}\s*\}", "", text, flags=re.DOTALL)
    selectors = re.findall(r"([^{};@]+)\{", re.sub(r"@(media|container)[^{]+\{", "", text))
    for several in selectors:
        for one in several.split(","):
            assert "nbimg" in one or not one.strip() or ")" in one, one

"""The scripts of the package are checked as strictly as its Python, and load nothing from anywhere."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.browser.tools import find

PACKAGE = Path(__file__).parents[2] / "nbimg"
WEB = PACKAGE / "notebook" / "web"  # has tests of its own, see tests/web
SCRIPTS = sorted(path for path in PACKAGE.rglob("*.js") if WEB not in path.parents)
OPTIONS = {
    "allowJs": True,
    "checkJs": True,
    "strict": True,
    "noEmit": True,
    "noImplicitReturns": True,
    "noUnusedLocals": True,
    "noUnusedParameters": True,
    "moduleDetection": "force",
    "target": "es2022",
    "module": "es2022",
    "lib": ["es2023", "dom", "dom.iterable"],
    "types": [],
}


def test_the_scripts_hold_what_their_types_say(tmp_path):
    compiler = find("typescript/bin/tsc")
    if compiler is None or shutil.which("node") is None:
        pytest.skip("not run: needs node, and python tests/browser/tools.py")
    config = tmp_path / "tsconfig.json"
    config.write_text(json.dumps({"compilerOptions": OPTIONS, "files": list(map(str, SCRIPTS))}))
    done = subprocess.run(
        ["node", str(compiler), "-p", str(config)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", [*SCRIPTS, *PACKAGE.rglob("*.css")], ids=lambda path: path.name)
def test_nothing_is_loaded_from_anywhere(path):
    text = path.read_text("utf-8")
    assert not re.search(r"(?:import|from|url|src|href)\s*[(=]?\s*[\"'`(]\s*(?:https?:)?//", text)
    assert not re.search(r"@import|importScripts", text)


def test_every_script_is_small():
    assert SCRIPTS
    for path in SCRIPTS:
        assert path.stat().st_size < 30_000, path.name

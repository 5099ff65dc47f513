#!/usr/bin/env python3
"""Two commands for a fresh clone: `python3 run.py demo` and `python3 run.py test`.

Each makes a virtual environment in `.venv`, installs what it needs, and does its job. Only Python 3.11+
and git are needed before.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
HOME = ROOT / ".venv"
PYTHON = HOME / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
# two workers, a file of tests is one's: what a file starts is started once, and a small run needs no workers
TOGETHER = ["--numprocesses", "2", "--dist", "loadfile"]


def install(extra: str) -> None:
    """Install the package with an extra into the virtual environment, once per change of its needs."""
    wanted = (ROOT / "pyproject.toml").read_text("utf-8") + extra
    stamp = HOME / "nbimg-installed.txt"
    if stamp.is_file() and stamp.read_text("utf-8") == wanted:
        return
    if not PYTHON.is_file():
        print(f"Making a virtual environment in {HOME.name} …", flush=True)
        venv.create(HOME, with_pip=True)
    print("Installing what is needed; torch makes this take a few minutes …", flush=True)
    constraints = str(ROOT / "constraints.txt")
    # torch first and by itself: a resolver that meets it in passing may take a build of gigabytes
    pip = ["-m", "pip", "--disable-pip-version-check", "install", "--quiet", "-c", constraints]
    run(*pip, "torch")
    run(*pip, "-e", f"{ROOT}[{extra}]")
    stamp.write_text(wanted, "utf-8")


def run(*words: str) -> None:
    """Run the environment's Python; leave with its exit code when it fails."""
    code = subprocess.run([str(PYTHON), *words], cwd=ROOT, check=False).returncode
    if code:
        sys.exit(code)


def demo() -> None:
    """Run the quick-start notebook in a real kernel."""
    install("all")
    run("-m", "nbimg", "demo")


def test(words: list[str]) -> None:
    """Check style and types, then run every test; further words go to pytest."""
    install("dev")
    if not words:
        run("-m", "ruff", "check", ".")
        run("-m", "ruff", "format", "--check", ".")
        run("-m", "mypy")
    if shutil.which("npm") is not None:
        run("tests/browser/tools.py")
    if shutil.which("chromium") is None:
        print("Chromium is not installed: the browser tests are listed as not run.", flush=True)
    run("-m", "pytest", *(words or TOGETHER))


def main() -> None:
    """Read the command line."""
    if sys.version_info < (3, 11):
        sys.exit("nbimg needs Python 3.11 or newer; this is " + sys.version.split()[0])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("demo", help="run the quick-start notebook; prints where its pictures are")
    commands.add_parser("test", help="run the tests; further words go to pytest")
    known, words = parser.parse_known_args()
    if known.command == "demo":
        demo()
    else:
        test(words)


if __name__ == "__main__":
    main()

"""What comes from npm, for checks alone: axe-core looks at pages, TypeScript at scripts.

    python tests/browser/tools.py

installs both, in the versions of `package-lock.json`, beside the virtual environment. Without them the
checks that need them are reported as not run.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["find", "install"]

HERE = Path(__file__).parent
FOLDER = Path(sys.prefix) / "node"


def find(path: str) -> Path | None:
    """Return a file of an installed package, for example `axe-core/axe.min.js`, or None."""
    found = FOLDER / "node_modules" / path
    return found if found.exists() else None


def install() -> None:
    """Install what `package-lock.json` names."""
    FOLDER.mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(HERE / name, FOLDER / name)
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("npm is not there: https://nodejs.org")
    command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    subprocess.run(command, cwd=FOLDER, check=True)


if __name__ == "__main__":
    install()

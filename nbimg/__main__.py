"""`python -m nbimg`: the quick-start notebook in a real kernel, and what a bug report needs."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from nbimg import __version__, quickstart
from nbimg.api import about
from nbimg.errors import NbimgError


def main(words: list[str] | None = None) -> int:
    """Read the command line and do what it says; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m nbimg", description=__doc__)
    parser.add_argument("--version", action="version", version=f"nbimg {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser(
        "demo", help="run the quick-start notebook; print where its pictures are"
    )
    demo.add_argument("--folder", type=Path, default=Path("nbimg-demo"), help="[%(default)s]")
    commands.add_parser("about", help="print what a bug report needs, without secrets")
    known = parser.parse_args(words)
    try:
        if known.command == "about":
            print(json.dumps(about(), indent=2, default=str))
        else:
            print(quickstart.run(known.folder))
    except NbimgError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

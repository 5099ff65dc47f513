"""`python -m nbimg`: the quick-start notebook in a real kernel, what a bug report needs, the models."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from nbimg import __version__, models, quickstart, refresh, session
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
    listed = commands.add_parser("models", help="list the models, and what each takes")
    listed.add_argument("pattern", nargs="?", default="", help="part of a name, or a full name")
    listed.add_argument(
        "--refresh", metavar="PROVIDER", help="say what changed since the catalogue was written"
    )
    listed.add_argument(
        "--write", type=Path, metavar="FILE", help="with --refresh: mend this catalog.toml"
    )
    known = parser.parse_args(words)
    try:
        if known.command == "models":
            return _models(known)
        if known.command == "about":
            print(json.dumps(about(), indent=2, default=str))
        else:
            print(quickstart.run(known.folder))
    except NbimgError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _models(known: argparse.Namespace) -> int:
    """List models; or report, and mend, what changed. 1: something did and was not mended."""
    own = session.default()
    if known.refresh is None:
        print(models.render(known.pattern, own))
        return 0
    found = refresh.changes(known.refresh, own)
    print("\n".join(change.text for change in found) or "nothing has changed.")
    left = [change for change in found if not change.key] if known.write else found
    if known.write:
        text = known.write.read_text("utf-8")
        known.write.write_text(refresh.mended(text, found), "utf-8")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())

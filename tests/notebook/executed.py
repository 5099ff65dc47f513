"""A shipped notebook, executed in a real kernel with no key and no network, and what its cells show."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient

import nbimg

__all__ = ["NOTEBOOKS", "Executed"]

ROOT = Path(nbimg.__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"
SETTINGS = ("NBIMG_", "REPLICATE_", "OPENAI_", "HUNYUAN_", "SPEEDPIX_")
NOWHERE = "http://127.0.0.1:9"  # nothing listens there
PICTURE = re.compile(r'<img[^>]+alt="([^"]*)"')


class Executed:
    """A notebook after a run, its cells found by a piece of their text."""

    def __init__(self, notebook: Path, folder: Path) -> None:
        self.folder = folder
        self.images = folder / "nbimg-images"
        self.node = nbformat.read(notebook, as_version=4)
        for cell in self.node.cells:
            cell.metadata.pop("execution", None)
        environ = {k: v for k, v in os.environ.items() if not k.startswith(SETTINGS)}
        environ |= {"HTTP_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE, "PYTHONPATH": str(ROOT)}
        client = NotebookClient(
            self.node,
            timeout=200,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
            extra_arguments=["--log-level=ERROR"],
        )
        client.execute(env=environ)  # raises when a cell fails

    def outputs(self, piece):
        found = [c for c in self.node.cells if c.cell_type == "code" and piece in c.source]
        assert found, piece
        return found[0].outputs

    def text(self, piece):
        """What a cell prints and shows as text."""
        return "\n".join(
            o.text if o.output_type == "stream" else o.data.get("text/plain", "")
            for o in self.outputs(piece)
        ).strip()

    def value(self, piece):
        """The value that a cell shows."""
        return ast.literal_eval(self.text(piece))

    def made(self, piece):
        """The files that the grid of a cell lists, in its order."""
        names = re.findall(r"nbimg-images/\S+\.png", self.text(piece))
        return [self.folder / name for name in names]

    def pictures(self, piece):
        """The texts of the pictures in the grid of a cell."""
        html = [
            o.data["text/html"] for o in self.outputs(piece) if "text/html" in o.get("data", {})
        ]
        return PICTURE.findall(html[-1])

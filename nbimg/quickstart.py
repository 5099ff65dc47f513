"""Run the quick-start notebook in a real kernel, and leave what a person would look at.

Stage: the top. Comes in: a folder. Goes out: the executed notebook, its HTML and its pictures in it.
"""

from __future__ import annotations

import importlib.util
import time
from importlib import resources
from pathlib import Path

from nbimg.errors import DependencyMissingError, NbimgError

__all__ = ["run", "source"]


def source() -> str:
    """Return the notebook as it is shipped."""
    shipped = resources.files("nbimg.notebook").joinpath("quickstart.ipynb")
    if shipped.is_file():
        return shipped.read_text("utf-8")
    return (Path(__file__).parents[1] / "notebooks" / "quickstart.ipynb").read_text("utf-8")


def run(folder: Path) -> str:
    """Execute the quick-start notebook in `folder`; return lines that say where everything is.

    Raises:
        DependencyMissingError: When there is no kernel to run it in.
        NbimgError: When a cell fails.
    """
    for name in ("nbclient", "nbconvert", "ipykernel"):
        if importlib.util.find_spec(name) is None:
            raise DependencyMissingError(
                f"running a notebook needs {name}, which is not installed.",
                hint="pip install 'nbimg[notebook,local]'",
            )
    import nbclient
    import nbformat
    from nbclient.exceptions import CellExecutionError
    from nbconvert import HTMLExporter

    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    notebook = nbformat.reads(source(), as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--log-level=ERROR"],  # the kernel's own log is not the notebook's output
    )
    try:
        client.execute()
    except CellExecutionError as error:
        raise NbimgError(
            f"the quick-start notebook failed: {error.ename}: {error.evalue}"
        ) from error
    finally:
        nbformat.write(notebook, folder / "quickstart.ipynb")
    html, _ = HTMLExporter().from_notebook_node(notebook)
    page = folder / "quickstart.html"
    page.write_text(html, "utf-8")
    images = folder / "nbimg-images"
    pictures = [path for path in images.iterdir() if path.is_file()]
    lines = [
        f"Ran the quick-start notebook in {time.monotonic() - began:.0f} s: {len(pictures)} pictures.",
        f"Pictures:  {(folder / 'nbimg-images').resolve()}",
        f"Notebook:  {(folder / 'quickstart.ipynb').resolve()}",
        f"HTML:      {page.resolve()}",
    ]
    return "\n".join(lines)

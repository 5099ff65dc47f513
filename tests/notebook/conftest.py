"""A real kernel that runs cells as a notebook would, with a local Replicate behind it.

One kernel serves all tests of this folder, since starting one costs more than the tests. Each test gets
an empty folder, an empty namespace and a new session in it.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.notebooknode import NotebookNode

import nbimg
from nbimg.testing import ReplicateServer

ROOT = Path(nbimg.__file__).parents[1]
CELL_S = 30

FRESH = """
def _fresh():
    import os, sys
    shell = get_ipython()
    if "nbimg" in shell.extension_manager.loaded:
        from nbimg import session
        shell.run_line_magic("unload_ext", "nbimg")
        session.default().close()
        session._default = None
    shell.reset(new_session=False)
    for name in [name for name in os.environ if name.startswith(("NBIMG_", "REPLICATE_"))]:
        del os.environ[name]
    os.environ.update({environment!r})
    os.chdir({folder!r})
    if {load!r}:
        shell.run_line_magic("load_ext", "nbimg")
_fresh()
"""


@dataclass
class Ran:
    """What a cell left behind."""

    cell: NotebookNode
    seconds: float = 0.0
    outputs: list[NotebookNode] = field(default_factory=list)

    @property
    def error(self) -> str:
        """What the notebook shows of the error, without colours; empty when there is none."""
        return next(
            ("\n".join(o.traceback) for o in self.outputs if o.output_type == "error"), ""
        )

    @property
    def error_name(self) -> str:
        return next((o.ename for o in self.outputs if o.output_type == "error"), "")

    @property
    def bundles(self) -> list[dict[str, Any]]:
        """The MIME bundles that are shown, in order, empty ones left out."""
        found = [o.data for o in self.outputs if "data" in o]
        return [data for data in found if data.get("text/html") != "" or "text/plain" not in data]

    @property
    def html(self) -> str:
        return "\n".join(data.get("text/html", "") for data in self.bundles)

    @property
    def text(self) -> str:
        """All that is printed or shown as text."""
        streams = [o.text for o in self.outputs if o.output_type == "stream"]
        return "\n".join([*streams, *(data.get("text/plain", "") for data in self.bundles)])


class Notebook:
    """A notebook with a kernel of its own: `run` adds a cell, runs it and returns what it left."""

    def __init__(self, folder: Path) -> None:
        self.node = nbformat.v4.new_notebook()
        self.folder = folder
        self._client = NotebookClient(
            self.node,
            timeout=CELL_S,
            allow_errors=True,
            resources={"metadata": {"path": str(folder)}},
        )
        self._running = self._client.setup_kernel(env={**os.environ, "PYTHONPATH": str(ROOT)})
        self._running.__enter__()

    def close(self) -> None:
        self._running.__exit__(None, None, None)

    def begin(self, folder: Path, environment: dict[str, str], *, load: bool = True) -> None:
        """Forget all that was there."""
        self.folder = folder
        code = FRESH.format(environment=environment, folder=str(folder), load=load)
        ran = self.run(code)
        assert not ran.outputs, ran.outputs
        self.node.cells.clear()

    def run(self, source: str, *, meanwhile: Callable[[], None] | None = None) -> Ran:
        """Run a cell; `meanwhile` runs in a thread beside it."""
        cell = nbformat.v4.new_code_cell(source)
        self.node.cells.append(cell)
        beside = threading.Thread(target=meanwhile, daemon=True) if meanwhile else None
        if beside:
            beside.start()
        at = time.monotonic()
        self._client.execute_cell(cell, len(self.node.cells) - 1)
        seconds = time.monotonic() - at
        if beside:
            beside.join(CELL_S)
        return Ran(cell, seconds, list(cell.outputs))

    def value(self, expression: str) -> str:
        """Return what an expression prints."""
        ran = self.run(f"print({expression})")
        assert not ran.error, ran.error
        return ran.text.strip()

    def interrupt(self) -> None:
        """Press Stop, from another thread."""
        asyncio.run(self._client.km.interrupt_kernel())

    def completions(self, code: str) -> list[str]:
        """Return what Tab offers at the end of `code`, as the front end gets it."""

        async def ask() -> list[str]:
            client = self._client.kc
            message = client.complete(code, len(code))
            while True:
                reply = await client.get_shell_msg(timeout=10)
                if reply["parent_header"].get("msg_id") == message:
                    return list(reply["content"]["matches"])

        return self._client.loop_run(ask()) if hasattr(self._client, "loop_run") else _run(ask())


def _run(work: Any) -> Any:
    from jupyter_core.utils import run_sync

    async def awaited() -> Any:
        return await work

    return run_sync(awaited)()


@pytest.fixture(scope="session")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """The kernel that all tests share."""
    notebook = Notebook(tmp_path_factory.mktemp("kernel"))
    yield notebook
    notebook.close()


@pytest.fixture
def server() -> Iterator[ReplicateServer]:
    """A local Replicate of the test's own."""
    with ReplicateServer() as running:
        yield running


@pytest.fixture
def notebook(kernel: Notebook, server: ReplicateServer, tmp_path: Path) -> Notebook:
    """An empty notebook in an empty folder, with nbimg loaded and a key for the local Replicate."""
    environment = {
        "REPLICATE_API_TOKEN": server.token,
        "NBIMG_REPLICATE_BASE_URL": server.base_url,
    }
    kernel.begin(tmp_path, environment)
    return kernel

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_core.utils import run_sync
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
        from nbimg import config, session
        shell.run_line_magic("unload_ext", "nbimg")
        session.default().close()
        session._default = None
        config.kernel.cache_clear()
    shell.reset(new_session=False)
    for each in [shell, *shell.configurables]:
        each.config.pop("NbImg", None)
    for name in [name for name in os.environ if name.startswith(("NBIMG_", "REPLICATE_"))
                 or name.lower().endswith("_proxy")]:
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
    seconds: float
    reply: dict[str, Any]

    @property
    def outputs(self) -> list[NotebookNode]:
        return list(self.cell.outputs)

    @property
    def ok(self) -> bool:
        """Whether the kernel says that the cell succeeded, and nothing it shows says otherwise."""
        return self.reply["status"] == "ok" and not self.error

    @property
    def error(self) -> str:
        """What the notebook shows of the error, without colours; empty when there is none."""
        return next(("\n".join(o.traceback) for o in self.outputs if o.output_type == "error"), "")

    @property
    def error_name(self) -> str:
        return next((o.ename for o in self.outputs if o.output_type == "error"), "")

    @property
    def bundles(self) -> list[dict[str, Any]]:
        """The MIME bundles that are shown, in order."""
        return [o.data for o in self.outputs if "data" in o]

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
            on_cell_executed=lambda execute_reply, **_: self._replies.append(execute_reply),
        )
        self._replies: list[dict[str, Any]] = []
        self._stopped_at = self._ended_at = 0.0
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
        self._ended_at = time.monotonic()
        seconds = self._ended_at - at
        if beside:
            beside.join(CELL_S)
        return Ran(cell, seconds, self._replies.pop()["content"])

    def value(self, expression: str) -> str:
        """Return what an expression prints."""
        ran = self.run(f"print({expression})")
        assert not ran.error, ran.error
        return ran.text.strip()

    def run_watched(self, source: str) -> list[tuple[float, dict[str, Any]]]:
        """Run a cell and return each bundle that is shown on the way, with the time it took."""
        begun, shown = time.monotonic(), []
        process = self._client.process_message

        def watched(message: Any, cell: NotebookNode, index: int) -> Any:
            if "data" in message["content"]:
                shown.append((time.monotonic() - begun, message["content"]["data"]))
            return process(message, cell, index)

        self._client.process_message = watched  # type: ignore[method-assign]
        try:
            ran = self.run(source)
        finally:
            del self._client.process_message
        assert ran.ok, ran.error
        return shown

    def interrupt(self) -> None:
        """Press Stop, from another thread."""
        self._stopped_at = time.monotonic()
        asyncio.run(self._client.km.interrupt_kernel())

    def save(self, name: str = "notebook.ipynb") -> Path:
        """Write the notebook as a front end would."""
        path = self.folder / name
        nbformat.write(self.node, path)
        return path

    def since_stop_s(self) -> float:
        """Return how long the last cell went on after Stop."""
        return self._ended_at - self._stopped_at

    @staticmethod
    def sleep(seconds: float) -> None:
        time.sleep(seconds)

    def completions(self, code: str) -> list[str]:
        """Return what Tab offers at the end of `code`, as the front end gets it."""

        async def ask() -> list[str]:
            client = self._client.kc
            message = client.complete(code, len(code))
            while True:
                reply = await client.get_shell_msg(timeout=10)
                if reply["parent_header"].get("msg_id") == message:
                    return list(reply["content"]["matches"])

        return list(run_sync(ask)())


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

"""A JupyterLab, with Notebook 7 beside it, on a loopback port and in a folder of its own.

    python tests/browser/lab.py

starts one by hand, with a local Replicate behind it, and ends both at Ctrl-C. Nothing of the user's own
configuration is read or written, and only processes that were started here are ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["CHROMIUM_ARGUMENTS", "Lab", "find_chromium"]

EXTENSION = Path(__file__).parents[2] / "nbimg" / "labextension"
START_S = 60.0
END_S = 10.0

CHROMIUM_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

_SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
}


def find_chromium() -> str | None:
    """Return the path of a Chromium, or None."""
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    return next((path for path in found if path), None)


class Lab:
    """A server; use it in a `with` block.

    Args:
        folder: Where everything of it is: notebooks below `notebooks`, settings, run-time files.
        environment: What its kernels see on top of this process's environment.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.notebooks = folder / "notebooks"
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def set_theme(self, name: str) -> None:
        """Choose the theme that pages opened from now on have, for example `JupyterLab Dark`."""
        self._write_setting("@jupyterlab/apputils-extension/themes", {"theme": name})

    def _write_setting(self, plugin: str, value: Mapping[str, object]) -> None:
        path = self.folder / "settings" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value), "utf-8")

    def __enter__(self) -> Self:
        self.notebooks.mkdir(parents=True, exist_ok=True)
        for plugin, value in _SETTINGS.items():
            self._write_setting(plugin, value)
        # as the wheel does; an editable install may be older than what is tested
        place = self.folder / "data" / "labextensions" / "nbimg-cells"
        shutil.copytree(EXTENSION, place, dirs_exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        places = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
            "IPYTHONDIR": "ipython",
        }
        environment = {**os.environ, **self._environment}
        environment |= {name: str(self.folder / place) for name, place in places.items()}
        with (self.folder / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
                    "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}",
                    "--ServerApp.port_retries=0", f"--ServerApp.root_dir={self.notebooks}",
                    "--IdentityProvider.token=", "--ServerApp.password=",
                    "--ServerApp.disable_check_xsrf=True", "--LabApp.extension_manager=readonly",
                ],
                env=environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _wait(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                self._ask("GET", "/api/status")
            except OSError:
                time.sleep(0.1)
            else:
                return
        log = (self.folder / "server.log").read_text("utf-8", "replace")
        raise RuntimeError(f"JupyterLab did not start:\n{log[-3000:]}")

    def _ask(self, method: str, path: str) -> bytes:
        http_request = urllib.request.Request(self.url + path, method=method)
        with urllib.request.urlopen(http_request, timeout=5) as reply:
            return bytes(reply.read())

    def stop_kernels(self) -> None:
        """End every kernel of the server."""
        for kernel in json.loads(self._ask("GET", "/api/kernels")):
            self._ask("DELETE", f"/api/kernels/{kernel['id']}")

    def stop(self) -> None:
        """End the kernels, then the server, and wait until both are gone."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            with contextlib.suppress(OSError, ValueError):  # else its kernels end when it does
                self.stop_kernels()
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()


def main() -> None:
    """Run a Lab until Ctrl-C."""
    from nbimg.testing import ReplicateServer

    with (
        tempfile.TemporaryDirectory() as folder,
        ReplicateServer(running_s=2.0) as server,
        Lab(
            Path(folder),
            {
                "PYTHONPATH": str(Path(__file__).parents[2]),
                "REPLICATE_API_TOKEN": server.token,
                "NBIMG_REPLICATE_BASE_URL": server.base_url,
            },
        ) as lab,
    ):
        print(f"JupyterLab: {lab.url}/lab   Notebook: {lab.url}/tree   (Ctrl-C ends them)")
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("ending")


if __name__ == "__main__":
    main()

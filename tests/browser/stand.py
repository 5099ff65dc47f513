"""A page with one of our widgets and nothing else: no Jupyter, but the same scripts and the same Python.

    python tests/browser/stand.py 2000

serves a gallery of so many drawn images by hand, until Ctrl-C. What the widget's model does over a kernel's
socket in a notebook, it does here over one of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import tornado.httpserver
import tornado.netutil
import tornado.web
import tornado.websocket

from nbimg.notebook.widget import Widget

__all__ = ["Stand"]

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>nbimg</title>
<style>%(css)s
body { margin: 16px; font-family: system-ui; background: %(ground)s; %(variables)s }</style>
<body data-jp-theme-light="%(light)s"><main id="place"></main>
<script type="module">
import widget from "/widget.js";
const socket = new WebSocket(`ws://${location.host}/socket`);
socket.binaryType = "arraybuffer";
const listeners = {};
const values = %(values)s;
const model = {
  get: (name) => values[name],
  set: (name, value) => { values[name] = value; },
  save_changes: () => socket.send(JSON.stringify({ save: values })),
  send: (content, _callbacks, buffers = []) => {
    const text = new TextEncoder().encode(JSON.stringify(content));
    const head = new Uint32Array([buffers.length + 1, text.length, ...buffers.map((one) => one.byteLength)]);
    socket.send(new Blob([head, text, ...buffers]));
  },
  on: (name, listener) => (listeners[name] ??= new Set()).add(listener),
  off: (name, listener) => listeners[name]?.delete(listener),
};
socket.onmessage = ({ data }) => {
  const [count] = new Uint32Array(data, 0, 1);
  const sizes = new Uint32Array(data, 4, count);
  let at = 4 + 4 * count;
  const parts = [...sizes].map((size) => { const part = new DataView(data, at, size); at += size; return part; });
  const content = JSON.parse(new TextDecoder().decode(parts[0]));
  if (content.set) {
    Object.assign(values, content.set);
    for (const name of Object.keys(content.set)) for (const one of listeners[`change:${name}`] ?? []) one();
    return;
  }
  for (const listener of listeners["msg:custom"] ?? []) listener(content, parts.slice(1));
};
socket.onopen = () => {
  window.close_widget = widget.render({ model, el: document.getElementById("place") });
  document.body.dataset.ready = "yes";
};
</script></body></html>"""

DARK = (
    "--jp-layout-color1: #111111; --jp-ui-font-color0: #ffffff; --jp-ui-font-color1: #dddddd;"
    "--jp-ui-font-family: system-ui, sans-serif;"
)


class Stand:
    """A server of one widget; use it in a `with` block.

    Args:
        widget: Panel or gallery.
    """

    def __init__(self, widget: Widget) -> None:
        self.widget = widget
        self.url = ""
        self._sockets: set[Any] = set()
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        widget.send = self._tell

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5)
        self.widget.close()

    async def _serve(self) -> None:
        stand = self
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()

        class Home(tornado.web.RequestHandler):
            def get(self) -> None:
                self.write(stand.page(dark=self.get_argument("dark", "") == "1"))

        class Script(tornado.web.RequestHandler):
            def get(self) -> None:
                self.set_header("Content-Type", "text/javascript")
                self.write(stand.widget._esm)

        class Socket(tornado.websocket.WebSocketHandler):
            def open(self) -> None:
                stand._sockets.add(self)

            def on_close(self) -> None:
                stand._sockets.discard(self)

            def on_message(self, message: str | bytes) -> None:
                stand._heard(message)

        app = tornado.web.Application(
            [("/", Home), ("/widget.js", Script), ("/socket", Socket)],
            websocket_max_message_size=10 << 20,
        )
        sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
        server = tornado.httpserver.HTTPServer(app)
        server.add_sockets(sockets)
        self.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}/"
        self._started.set()
        await self._stop.wait()
        server.stop()

    def page(self, *, dark: bool) -> str:
        values = {
            name: getattr(self.widget, name)
            for name in ("query", "view", "whole", "form")
            if hasattr(self.widget, name)
        }
        return PAGE % {
            "css": self.widget._css,
            "values": json.dumps(values),
            "light": "false" if dark else "true",
            "ground": "#111" if dark else "#fff",
            "variables": DARK if dark else "",
        }

    def _heard(self, message: str | bytes) -> None:
        if isinstance(message, str):
            for name, value in json.loads(message)["save"].items():
                setattr(self.widget, name, value)
            return
        (count,) = struct.unpack_from("<I", message)
        sizes = struct.unpack_from(f"<{count}I", message, 4)
        at, parts = 4 + 4 * count, []
        for size in sizes:
            parts.append(message[at : at + size])
            at += size
        self.widget._heard(self.widget, json.loads(parts[0]), parts[1:])

    def _tell(self, content: Any, buffers: Sequence[bytes] = ()) -> None:
        text = json.dumps(content).encode()
        sizes = [len(text), *map(len, buffers)]
        data = struct.pack(f"<{1 + len(sizes)}I", len(sizes), *sizes) + text + b"".join(buffers)
        assert self._loop is not None
        for socket in list(self._sockets):
            self._loop.call_soon_threadsafe(
                lambda one=socket: one.ws_connection and one.write_message(data, binary=True)
            )


def main() -> None:
    """Serve a gallery until Ctrl-C."""
    from nbimg import session
    from nbimg.notebook.gallery import open_gallery
    from tests.browser.folder import fill_folder

    folder = Path(tempfile.mkdtemp())
    fill_folder(folder, int(sys.argv[1]) if len(sys.argv) > 1 else 500)
    os.environ["NBIMG_OUTPUT_DIR"] = str(folder)
    session.default()
    with Stand(open_gallery()) as stand:
        print(stand.url, stand.url + "?dark=1")
        threading.Event().wait()


if __name__ == "__main__":
    main()

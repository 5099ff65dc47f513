"""A hub of models on loopback, as far as huggingface_hub asks it: what a repository holds, and its files."""

import asyncio
import hashlib
import json
import threading
from pathlib import Path

from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves folders as repositories.

    Args:
        repositories: `owner/name` → folder.

    Attributes:
        asked: Path of every request, oldest first.
        gated: Names that need a token.
    """

    def __init__(self, repositories):
        self.repositories = {name: Path(folder) for name, folder in repositories.items()}
        self.asked, self.gated = [], set()

    def __enter__(self):
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _serve(self, ready):
        async def main():
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            socket, port = bind_unused_port(address="127.0.0.1")
            known = {"hub": self}
            server = HTTPServer(
                Application(
                    [
                        (r"/api/models/([^/]+/[^/]+)(?:/revision/.+)?", Repository, known),
                        (r"/api/models/([^/]+/[^/]+)/tree/.+", Tree, known),
                        (r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", File, known),
                    ]
                )
            )
            server.add_socket(socket)
            self.url = f"http://127.0.0.1:{port}"
            ready.set()
            await self._stop.wait()
            server.stop()
            await server.close_all_connections()

        asyncio.run(main())

    @property
    def fetched(self):
        """The names of the files whose bytes were sent, without those of tiny JSON files."""
        return [
            path.partition("/resolve/")[2].partition("/")[2]
            for kind, path in self.asked
            if kind == "GET" and "/resolve/" in path
        ]


class _Handler(RequestHandler):
    def initialize(self, hub):
        self.hub = hub

    def log_exception(self, *_):
        pass

    def prepare(self):
        self.hub.asked.append((self.request.method, self.request.path))

    def folder(self, name):
        if name in self.hub.gated:
            self.set_header("X-Error-Code", "GatedRepo")
            self.set_status(403)
            self.finish({"error": "gated"})
            return None
        if name not in self.hub.repositories:
            self.set_header("X-Error-Code", "RepoNotFound")
            self.set_status(404)
            self.finish({"error": "not found"})
            return None
        return self.hub.repositories[name]


class Repository(_Handler):
    def get(self, name):
        folder = self.folder(name)
        if folder is not None:
            files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
            self.write(
                {
                    "id": name,
                    "sha": COMMIT,
                    "siblings": [
                        {
                            "rfilename": path.relative_to(folder).as_posix(),
                            "size": path.stat().st_size,
                        }
                        for path in files
                    ],
                }
            )


class Tree(_Handler):
    def get(self, name):
        folder = self.folder(name)
        if folder is None:
            return
        rows = [
            {
                "type": "file",
                "path": path.relative_to(folder).as_posix(),
                "size": path.stat().st_size,
                "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
            }
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ]
        self.set_header("Content-Type", "application/json")
        self.write(json.dumps(rows))


class File(_Handler):
    def head(self, name, path):
        self.get(name, path)

    def get(self, name, path):
        folder = self.folder(name)
        if folder is None:
            return
        file = folder / path
        if not file.is_file():
            self.set_header("X-Error-Code", "EntryNotFound")
            self.set_status(404)
            return
        data = file.read_bytes()
        self.set_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.set_header("X-Repo-Commit", COMMIT)
        self.set_header("Content-Length", str(len(data)))
        if self.request.method == "GET":
            self.write(data)

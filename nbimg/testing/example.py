"""An invented provider that is as small as one can be, and its local server: what a new one starts from.

Stage: tests, and the notebook that shows how to add a provider. In: the requests of a client of the "Sketch
API". Out: jobs that wait, are drawn, and are ready, and small pictures on a second port. It keeps a list
of the jobs that it accepted, so that a test sees what would have been paid.

    POST   /images          {"model": "ink", "prompt": …, "seed": …, "width": …, "height": …} → a job, 201
    GET    /images/ID       → the job
    DELETE /images/ID       → the job, stopped unless it was ready
    GET    /files/ID.png    → its picture, on the second port

    a job:    {"id", "state": waiting | drawing | ready | broken | stopped, "images": [address], "error": text}
    an error: {"error": {"message": text}} with 401, 402, 404, 422 or 429 (`Retry-After`)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nbimg.testing.pictures import render_picture
from nbimg.testing.server import Fault, LocalServer, Recorded, Reply

__all__ = ["SketchJob", "SketchServer"]

TOKEN = "fake-sketch-key"
_SIDES = ("width", "height")


@dataclass(slots=True)
class SketchJob:
    """A picture that was asked for.

    Attributes:
        id: Its id.
        input: As it was sent.
        ready_s: When it is ready, on the server's clock.
        error: Why it breaks; None: it does not.
        stopped: Whether its client stopped it.
    """

    id: str
    input: dict[str, Any]
    ready_s: float
    error: str | None = None
    stopped: bool = False


class SketchServer(LocalServer):
    """The Sketch API.

    Args:
        token: The only key that is accepted.
        running_s: How long a picture takes, in seconds.
        breaks: The error of every job to come; None: they become ready.
    """

    def __init__(
        self, *, token: str = TOKEN, running_s: float = 0.01, breaks: str | None = None
    ) -> None:
        super().__init__(hosts=("api", "files"))
        self.token = token
        self.running_s = running_s
        self.breaks = breaks
        self.jobs: list[SketchJob] = []

    def answer(self, call: Recorded) -> Reply:
        """Answer a call to the API or to the host of the pictures."""
        path = tuple(call.path.strip("/").split("/"))
        if call.host == "files":
            return self._picture(path[-1].removesuffix(".png"))
        if call.headers.get("Authorization") != f"Bearer {self.token}":
            return _error(401, "this key is not known")
        match (call.method, *path):
            case ("POST", "images"):
                return self._accept(call.json())
            case ("GET" | "DELETE" as method, "images", job_id):
                found = self._find(job_id)
                if found is None:
                    return _error(404, "there is no such picture")
                if method == "DELETE" and self.now_s() < found.ready_s:
                    found.stopped = True
                return Reply.of(self._show(found))
        return _error(404, "there is nothing here")

    def error_reply(self, fault: Fault) -> Reply:
        """Make the body of an error."""
        headers = {} if fault.status != 429 else {"Retry-After": str(fault.retry_after_s or 1)}
        return _error(fault.status, "this was asked of the server", headers)

    def _accept(self, asked: dict[str, Any]) -> Reply:
        if asked.get("model") != "ink":
            return _error(422, "there is only the model ink")
        if any(not 16 <= asked.get(side, 64) <= 512 for side in _SIDES):
            return _error(422, "width and height are from 16 to 512")
        number = len(self.jobs) + 1
        job = SketchJob(f"sketch-{number}", asked, self.now_s() + self.running_s, self.breaks)
        self.jobs.append(job)
        return Reply.of(self._show(job), 201)

    def _find(self, job_id: str) -> SketchJob | None:
        return next((job for job in self.jobs if job.id == job_id), None)

    def _show(self, job: SketchJob) -> dict[str, Any]:
        state, images = "drawing", []
        if job.stopped:
            state = "stopped"
        elif self.now_s() >= job.ready_s:
            state = "broken" if job.error else "ready"
            images = [] if job.error else [f"{self.url('files')}/files/{job.id}.png"]
        error = job.error if state == "broken" else None
        return {"id": job.id, "state": state, "images": images, "error": error}

    def _picture(self, job_id: str) -> Reply:
        job = self._find(job_id)
        if job is None:
            return _error(404, "there is no such picture")
        sides = [job.input.get(side, 64) for side in _SIDES]
        return Reply(body=render_picture(str(job.input), "png", *sides), content_type="image/png")


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Reply:
    return Reply.of({"error": {"message": message}}, status, headers)

import inspect

from nbimg.backends.base import Output, Prediction, State
from nbimg.backends.plain import PlainBackend
from nbimg.errors import ContentRefusedError, JobFailedError
from nbimg.testing.conformance import BackendConformance, Place
from nbimg.testing.example import SketchServer
from nbimg.types import Capabilities, Field, Size

STATES = {
    "waiting": State.QUEUED,
    "drawing": State.RUNNING,
    "ready": State.DONE,
    "broken": State.FAILED,
    "stopped": State.CANCELLED,
}
SIDE = {"type": "integer", "minimum": 16, "maximum": 512}
INK = Capabilities(
    options={
        "seed": Field("seed", "integer"),
        "width": Field("width", **SIDE),
        "height": Field("height", **SIDE),
    },
    default_size=Size(256, 256),
)


class Sketch(PlainBackend):
    name = "sketch"
    base_url = "https://api.sketch.example"
    key = "SKETCH_KEY"
    models = dict.fromkeys(["ink"], INK)

    async def order(self, call):
        return "/images", {"model": call.ref.model, "prompt": call.prompt, **call.arguments}

    def look(self, job_id):
        return f"/images/{job_id}"

    def stop(self, job_id):
        return "DELETE", f"/images/{job_id}"

    def read(self, data):
        error = None
        if data["error"]:
            kind = ContentRefusedError if "refused" in data["error"] else JobFailedError
            error = kind(data["error"], backend=self.name, job_id=data["id"])
        outputs = tuple(Output(url=url) for url in data["images"])
        return Prediction(data["id"], STATES[data["state"]], outputs, error)


def breaking(error):
    return lambda server: setattr(server, "breaks", error)


FAILING = {"refused": breaking("refused: not this"), "failed": breaking("out of ink")}


class TestSketch(BackendConformance):
    provider, model, backend = "sketch", "sketch:ink", Sketch
    keys = ("SKETCH_KEY",)
    create = Place("POST", "/images")
    poll = Place("GET", "/images/*")
    output = Place("GET", "/files/*")
    failures = FAILING
    cancels = seeds = True

    def make_server(self):
        return SketchServer()

    def environ(self, server):
        return {"NBIMG_SKETCH_BASE_URL": server.base_url, "SKETCH_KEY": server.token}

    def stopped(self, server):
        return sum(job.stopped for job in server.jobs)

    def sent_seeds(self, server):
        return [job.input["seed"] for job in server.jobs]


def test_a_whole_backend_is_less_than_forty_lines():
    assert len(inspect.getsource(Sketch).splitlines()) + 16 < 40

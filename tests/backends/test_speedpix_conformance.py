from nbimg.testing import Fault
from nbimg.testing.conformance import BackendConformance, Place
from nbimg.testing.speedpix import FAKE_APP_KEY, FAKE_APP_SECRET, SAID, SpeedPixServer
from nbimg.testing.speedpix_jobs import SpeedPixOutcome

CREATE = Place("POST", "/scc/comfy_prompt")


FAILURES = {
    "bad_key": Fault("error", *CREATE, status=400, variant="key", times=None),
    "no_money": Fault("error", *CREATE, status=403, variant="quota", times=None),
    "bad_input": Fault("error", *CREATE, status=200, variant="invalid", times=None),
    "refused": Fault("error", *CREATE, status=200, variant="refused", times=None),
    "failed": lambda server: server.expect(SpeedPixOutcome(SAID["failed"], times=None)),
    "rate": Fault("error", *CREATE, status=403, variant="throttled", times=None),
    "crowded": Fault("error", *CREATE, status=200, variant="crowded", times=None),
}
NEWER = {**FAILURES, "rate": Fault("error", *CREATE, status=429, times=None)}
STEPS = {"params": {"steps": 4}}


class TestSpeedPix(BackendConformance):
    provider = "speedpix"
    model = "speedpix:1001"
    keys = ("SPEEDPIX_APP_KEY", "SPEEDPIX_APP_SECRET")
    create = CREATE
    poll = Place("POST", "/scc/comfy_get_progress")
    output = Place("GET", "/out/*")
    seeds = True
    failures = FAILURES

    def make_server(self):
        return SpeedPixServer()

    def environ(self, server):
        return {
            "SPEEDPIX_ENDPOINT": server.base_url,
            "SPEEDPIX_APP_KEY": FAKE_APP_KEY,
            "SPEEDPIX_APP_SECRET": FAKE_APP_SECRET,
            "NBIMG_SPEEDPIX_INPUTS": "seed=seed width=width height=height",
        }

    def sent_seeds(self, server):
        return [job.inputs["seed"] for job in server.jobs]


class TestSpeedPixEdits(TestSpeedPix):
    model = "speedpix:1003@test"
    edits = True
    references = 2
    seeds = False
    options = STEPS
    failures = NEWER

    def make_server(self):
        return SpeedPixServer(success="succeeded")

    def environ(self, server):
        names = "prompt=text image=person,garment"
        return {**super().environ(server), "NBIMG_SPEEDPIX_INPUTS": names}

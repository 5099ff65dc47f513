from nbimg.testing import FAILURES, Outcome, ReplicateServer
from nbimg.testing.conformance import BackendConformance, Place


def failing(name):
    return lambda server: server.expect(Outcome(error=FAILURES[name], times=None))


FAILING = {"refused": failing("E005"), "failed": failing("E1001")}


class TestReplicate(BackendConformance):
    provider = "replicate"
    model = "flux-dev"
    keys = ("REPLICATE_API_TOKEN",)
    create = Place("POST", "*/predictions")
    poll = Place("GET", "/v1/predictions/*")
    output = Place("GET", "/xezq/*")
    failures = FAILING
    finds = cancels = edits = seeds = True

    def make_server(self):
        return ReplicateServer()

    def environ(self, server):
        return {
            "NBIMG_REPLICATE_BASE_URL": server.base_url,
            "REPLICATE_API_TOKEN": server.token,
        }

    def stopped(self, server):
        return sum(job.canceled_s is not None for job in server.jobs)

    def sent_seeds(self, server):
        return [job.input["seed"] for job in server.jobs]


class TestReplicateWithoutSeeds(TestReplicate):
    model = "nano-banana"
    references = 3
    seeds = finds = False

from typing import ClassVar

import pytest

from nbimg.testing import Fault
from nbimg.testing.conformance import BackendConformance, Place
from nbimg.testing.hunyuan import HunyuanServer
from nbimg.testing.hunyuan_jobs import HunyuanOutcome


def answering(place, code, **more):
    return Fault("error", *place, variant=code, times=None, **more)


def failing(code):
    return lambda server: server.expect(HunyuanOutcome(code=code, times=None))


class _Hunyuan(BackendConformance):
    provider = "hunyuan"
    model = "hunyuan-image-3"
    output = Place("GET", "/results/*.jpg")
    edits = seeds = True
    references = 3

    def make_server(self):
        return HunyuanServer(slots=2)

    def sent_seeds(self, server):
        assert [job.seed for job in server.jobs] == [job.input["seed"] for job in server.jobs]
        return [job.seed for job in server.jobs]


class TestTheSignedApi(_Hunyuan):
    keys = ("HUNYUAN_SECRET_ID", "HUNYUAN_SECRET_KEY")
    create = Place("POST", "SubmitTextToImageJob")
    poll = Place("POST", "QueryTextToImageJob")
    failures: ClassVar = {
        "bad_key": answering(create, "AuthFailure.SecretIdNotFound"),
        "no_money": answering(create, "ResourceUnavailable.InArrears"),
        "bad_input": answering(create, "InvalidParameterValue.ParameterValueError"),
        "refused": failing("OperationDenied.TextIllegalDetected"),
        "failed": failing("FailedOperation.Mystery"),
        "rate": answering(create, "RequestLimitExceeded"),
        "crowded": answering(create, "RequestLimitExceeded.JobNumExceed"),
    }

    def environ(self, server):
        return {
            "NBIMG_HUNYUAN_BASE_URL": server.base_url,
            "HUNYUAN_SECRET_ID": server.secret_id,
            "HUNYUAN_SECRET_KEY": server.secret_key,
        }


class _WithKey(_Hunyuan):
    keys = ("HUNYUAN_API_KEY",)
    api = ""

    def environ(self, server):
        return {
            "NBIMG_HUNYUAN_BASE_URL": server.base_url,
            "NBIMG_HUNYUAN_API": self.api,
            "HUNYUAN_API_KEY": server.api_key,
        }


class TestTokenHub(_WithKey):
    create = Place("POST", "/v1/wand/hunyuan-image/v3-generation")
    failures: ClassVar = {
        "refused": answering(create, "451001"),
        "failed": lambda server: server.expect(HunyuanOutcome(detail="nothing", times=None)),
    }


class TestTokenHubsJobs(_WithKey):
    api = "tokenhub-jobs"
    create = Place("POST", "/v1/api/image/submit")
    poll = Place("POST", "/v1/api/image/query")
    failures: ClassVar = {
        "refused": failing("OperationDenied.ImageIllegalDetected"),
        "failed": failing("FailedOperation.Mystery"),
        "crowded": answering(create, "RequestLimitExceeded.JobNumExceed"),
    }


class TestTheJobGateway(_WithKey):
    api = "jobs"
    create = Place("POST", "/v1/aiart/submit")
    poll = Place("POST", "/v1/aiart/query")
    failures: ClassVar = {
        "refused": failing("FailedOperation.ModerationFailed"),
        "failed": failing("Mystery"),
        "crowded": answering(create, "RequestLimitExceeded.JobNumExceed"),
    }


pytestmark = pytest.mark.timeout(60)

"""The local Hunyuan does what the real one is known to do, and fails as asked."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from PIL import Image

from nbimg.testing import Fault
from nbimg.testing.hunyuan import FAKE_API_KEY, HunyuanServer
from nbimg.testing.hunyuan_jobs import HunyuanOutcome

pytestmark = pytest.mark.timeout(20)

TOKENHUB = "/v1/wand/hunyuan-image/v3-generation"


@pytest.fixture
def server() -> Iterator[HunyuanServer]:
    with HunyuanServer(shrink=16) as server:
        yield server


class Api:
    """A bare client, so that what is on the wire is what the test says."""

    def __init__(self, server: HunyuanServer) -> None:
        self.server = server
        self.client = httpx.Client(verify=False)  # plain HTTP: certificates only cost time

    def signed(self, action: str, body: Any, **change: Any) -> dict[str, Any]:
        """A request of the signed API; `change` spoils one part of it."""
        data = change.get("data", json.dumps(body).encode())
        host = self.server.base_url.removeprefix("http://")
        at = int(time.time()) + change.get("late_s", 0)
        day = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
        kind = change.get("content_type", "application/json")
        names = change.get("names", "content-type;host")
        values = {"content-type": kind, "host": host, "x-tc-action": action.lower()}
        lines = "".join(f"{name}:{values[name]}\n" for name in names.split(";"))
        head = f"POST\n/\n\n{lines}\n{names}\n{hashlib.sha256(data).hexdigest()}"
        scope = f"{change.get('day', day)}/{change.get('service', 'aiart')}/tc3_request"
        text = f"TC3-HMAC-SHA256\n{at}\n{scope}\n{hashlib.sha256(head.encode()).hexdigest()}"
        key = ("TC3" + change.get("key", self.server.secret_key)).encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        who = change.get("id", self.server.secret_id)
        headers = {
            "content-type": kind,
            "x-tc-action": action,
            "x-tc-version": change.get("version", "2022-12-29"),
            "x-tc-region": "ap-guangzhou",
            "x-tc-timestamp": str(at),
            "authorization": change.get(
                "authorization",
                f"TC3-HMAC-SHA256 Credential={who}/{scope}, SignedHeaders={names}, Signature={signature}",
            ),
        }
        sent = change.get("sent", data)
        reply = self.client.post(self.server.base_url, content=sent, headers=headers)
        assert reply.status_code == 200
        assert reply.headers["content-type"] == "application/json"
        found: dict[str, Any] = reply.json()["Response"]
        assert found["RequestId"]
        return found

    def submit(self, **words: Any) -> dict[str, Any]:
        return self.signed("SubmitTextToImageJob", {"Prompt": "a fox", **words})

    def query(self, job_id: str) -> dict[str, Any]:
        return self.signed("QueryTextToImageJob", {"JobId": job_id})

    def finish(self, job_id: str) -> dict[str, Any]:
        for _ in range(18):
            found = self.query(job_id)
            if found.get("JobStatusCode") not in {"1", "2"}:
                return found
            time.sleep(0.005)
        raise AssertionError(found)

    def post(self, path: str, key: str = f"Bearer {FAKE_API_KEY}", **body: Any) -> httpx.Response:
        url = self.server.base_url + path
        return self.client.post(url, json=body, headers={"authorization": key})

    def code(self, *args: Any, **change: Any) -> str:
        code: str = self.signed(*args, **change)["Error"]["Code"]
        return code


@pytest.fixture
def api(server: HunyuanServer) -> Iterator[Api]:
    api = Api(server)
    yield api
    api.client.close()


def picture(side: int = 60, form: str = "PNG") -> str:
    target = io.BytesIO()
    Image.new("RGB", (side, side)).save(target, form)
    return base64.b64encode(target.getvalue()).decode()


# ------------------------------------------------------------ the signed API


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"key": "wrong"}, "AuthFailure.SignatureFailure"),
        ({"id": "AKIDnobody"}, "AuthFailure.SecretIdNotFound"),
        ({"late_s": -310}, "AuthFailure.SignatureExpire"),
        ({"late_s": 310}, "AuthFailure.SignatureExpire"),
        ({"day": "2001-01-01"}, "AuthFailure.SignatureFailure"),
        ({"service": "cvm"}, "AuthFailure.SignatureFailure"),
        ({"sent": b'{"Prompt": "other"}'}, "AuthFailure.SignatureFailure"),
        ({"names": "content-type"}, "AuthFailure.SignatureFailure"),
        ({"content_type": "application/json; charset=utf-8"}, "UnsupportedProtocol"),
        ({"authorization": "Bearer x"}, "AuthFailure.InvalidAuthorization"),
        ({"version": "2017-03-12"}, "NoSuchVersion"),
        ({"data": b"x" * (10 * 1024 * 1024 + 1)}, "RequestSizeLimitExceeded"),
    ],
)
def test_a_wrong_signature_is_refused_with_status_200(
    api: Api, server: HunyuanServer, change: dict[str, Any], code: str
) -> None:
    assert api.code("SubmitTextToImageJob", {"Prompt": "a fox"}, **change) == code
    assert server.jobs == []


def test_a_signature_over_more_headers_is_right_as_well(api: Api, server: HunyuanServer) -> None:
    names = "content-type;host;x-tc-action"
    assert api.signed("SubmitTextToImageJob", {"Prompt": "x"}, names=names)["JobId"]


def test_a_job_goes_from_waiting_to_running_to_done(api: Api, server: HunyuanServer) -> None:
    server.waiting_s = server.running_s = 10
    job_id = api.submit()["JobId"]
    seen = []
    for _ in range(3):
        found = api.query(job_id)
        seen.append(found["JobStatusCode"])
        assert bool(found["ResultImage"]) is (seen[-1] == "5")
        server.advance(10)
    assert seen == ["1", "2", "5"]
    assert found["ResultDetails"] == ["Success"]
    assert found["JobErrorCode"] == ""


def test_jobs_beyond_the_slots_queue_or_are_refused(api: Api, server: HunyuanServer) -> None:
    server.waiting_s, server.running_s = 0, 10
    first, second = api.submit()["JobId"], api.submit()["JobId"]
    states = []
    for _ in range(2):
        states.append([api.query(job)["JobStatusCode"] for job in (first, second)])
        server.advance(10)
    assert states == [["2", "1"], ["5", "2"]]
    server.over_limit = "refuse"
    api.submit()
    refused = api.submit()
    assert refused["Error"]["Code"] == "RequestLimitExceeded.JobNumExceed"
    assert len(server.jobs) == 3


def test_twenty_requests_a_second_for_each_action(api: Api, server: HunyuanServer) -> None:
    server.speed = 0.001  # nothing comes back meanwhile
    codes = [api.submit().get("Error", {}).get("Code") for _ in range(21)]
    assert codes == [None] * 20 + ["RequestLimitExceeded"]
    assert api.query("x")["Error"]["Code"] == "FailedOperation.JobNotExist"
    server.advance(1)
    assert "JobId" in api.submit()


@pytest.mark.parametrize("code", ["ServerError", "OperationDenied.ImageIllegalDetected"])
def test_a_job_fails_as_asked(api: Api, server: HunyuanServer, code: str) -> None:
    server.expect(HunyuanOutcome(code=code))
    found = api.finish(api.submit()["JobId"])
    assert (found["JobStatusCode"], found["JobErrorCode"]) == ("4", code)
    assert found["JobErrorMsg"]
    assert server.billed_jobs == []


def test_a_job_may_be_done_without_success(api: Api, server: HunyuanServer) -> None:
    server.expect(HunyuanOutcome(detail="ImageIllegalDetected"))
    found = api.finish(api.submit()["JobId"])
    assert (found["JobStatusCode"], found["ResultImage"]) == ("5", [])
    assert found["ResultDetails"] == ["ImageIllegalDetected"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ({"Prompt": ""}, "InvalidParameter.InvalidParameter"),
        ({"Prompt": "x" * 8193}, "InvalidParameterValue.TextLengthExceed"),
        ({"Nonsense": 1}, "UnknownParameter"),
        ({"Num": 2}, "UnknownParameter"),
        ({"Resolution": "1024x1024"}, "InvalidParameterValue.ParameterValueError"),
        ({"Resolution": "256:256"}, "InvalidParameterValue.ParameterValueError"),
        ({"Resolution": "2048:1024"}, "InvalidParameterValue.ParameterValueError"),
        ({"Seed": 0}, "InvalidParameterValue.ParameterValueError"),
        ({"Seed": 2**32}, "InvalidParameterValue.ParameterValueError"),
        ({"Images": [picture()] * 4}, "InvalidParameterValue.ParameterValueError"),
        ({"Images": [picture(40)]}, "FailedOperation.ImageResolutionExceed"),
        ({"Images": [picture(form="GIF")]}, "FailedOperation.ImageDecodeFailed"),
        ({"Images": ["!"]}, "FailedOperation.ImageDecodeFailed"),
        ({"Images": ["A" * 6_000_000]}, "FailedOperation.ImageSizeExceed"),
        (
            {"Images": [f"data:image/png;base64,{picture()}"]},
            "InvalidParameterValue.UrlIllegal",
        ),
    ],
)
def test_a_wrong_order_is_refused(
    api: Api, server: HunyuanServer, words: dict[str, Any], code: str
) -> None:
    assert api.submit(**words)["Error"]["Code"] == code
    assert server.jobs == []


def test_an_unknown_parameter_is_named(api: Api) -> None:
    assert "`Nonsense`" in api.submit(Nonsense=1)["Error"]["Message"]


def test_an_action_may_be_taken_off_and_an_account_be_empty(
    api: Api, server: HunyuanServer
) -> None:
    assert api.code("TextToImageLite", {}) == "InvalidAction"
    server.balance = "none"
    assert api.submit()["Error"]["Code"] == "ResourceUnavailable.InArrears"
    server.offline = frozenset({"SubmitTextToImageJob"})
    assert api.submit()["Error"]["Code"] == "ActionOffline"


def test_a_seed_is_ignored_while_the_prompt_is_rewritten(api: Api, server: HunyuanServer) -> None:
    def made(**words: Any) -> tuple[bytes, str]:
        found = api.finish(api.submit(**words)["JobId"])
        return api.client.get(found["ResultImage"][0]).content, found["RevisedPrompt"][0]

    first, prompt = made(Seed=7)
    assert prompt != "a fox"
    assert made(Seed=7)[0] != first
    fixed, prompt = made(Seed=7, Revise=0)
    assert prompt == "a fox"
    assert made(Seed=7, Revise=0)[0] == fixed
    assert made(Seed=8, Revise=0)[0] != fixed


def test_the_watermark_is_in_the_pixels_and_the_size_is_what_was_ordered(
    api: Api, server: HunyuanServer
) -> None:
    server.shrink = 1
    for logo, marked in ((0, False), (1, True), (5, True), (None, True)):
        words = {} if logo is None else {"LogoAdd": logo}
        found = api.finish(api.submit(Resolution="1280:720", **words)["JobId"])
        with Image.open(io.BytesIO(api.client.get(found["ResultImage"][0]).content)) as image:
            assert image.size == (1280, 720)
            assert (image.convert("L").getpixel((1279, 719)) > 128) is marked  # type: ignore[operator]


def test_an_image_is_there_for_an_hour_and_only_at_its_whole_address(
    api: Api, server: HunyuanServer
) -> None:
    job_id = api.submit()["JobId"]
    url = api.finish(job_id)["ResultImage"][0]
    assert url.startswith(server.files_url)
    assert api.client.get(url).headers["content-type"] == "image/jpeg"
    assert api.client.get(url.partition("?")[0]).status_code == 403
    server.advance(3601)
    assert api.client.get(url).status_code == 403
    server.advance(86_400)
    assert api.query(job_id)["Error"]["Code"] == "FailedOperation.JobNotExist"


@pytest.mark.parametrize(
    ("delivery", "status", "kind"),
    [("truncated", 200, "image/jpeg"), ("empty", 200, "image/jpeg"),
     ("wrong_type", 200, "text/plain"), ("html", 200, "text/html"), ("missing", 404, "application/xml")],
)  # fmt: skip
def test_the_file_host_spoils_an_image_as_asked(
    api: Api, server: HunyuanServer, delivery: Any, status: int, kind: str
) -> None:
    server.expect(HunyuanOutcome(delivery=delivery))
    reply = api.client.get(api.finish(api.submit()["JobId"])["ResultImage"][0])
    assert (reply.status_code, reply.headers["content-type"]) == (status, kind)


def test_a_fault_finds_its_action(api: Api, server: HunyuanServer) -> None:
    fault = Fault("error", path="QueryTextToImageJob", variant="FailedOperation.RpcFail")
    server.inject(fault)
    job_id = api.submit()["JobId"]
    assert api.query(job_id)["Error"]["Code"] == "FailedOperation.RpcFail"
    assert api.finish(job_id)["JobStatusCode"] == "5"


def test_an_outcome_is_used_as_often_as_it_says(api: Api, server: HunyuanServer) -> None:
    server.expect(
        HunyuanOutcome(code="A", times=2), HunyuanOutcome(code="B", prompt_has="cat", times=None)
    )
    server.action_limit = None
    codes = [
        api.finish(api.submit(Prompt=prompt)["JobId"])["JobErrorCode"]
        for prompt in ("x", "cat", "x", "cat", "cat")
    ]
    assert codes == ["A", "A", "", "B", "B"]


def test_the_ledger_finds_what_was_ordered_twice(api: Api, server: HunyuanServer) -> None:
    api.submit(Seed=1)
    api.submit(Seed=2)
    assert server.duplicates() == []
    api.submit(Seed=1)
    assert [[job.sent["Seed"] for job in group] for group in server.duplicates()] == [[1, 1]]


# ------------------------------------------------------------ the gateways


@pytest.mark.parametrize("key", [FAKE_API_KEY, f"Bearer {FAKE_API_KEY}"])
def test_the_job_gateway_takes_an_order_and_says_how_it_stands(
    api: Api, server: HunyuanServer, key: str
) -> None:
    body = {"model": "HY-Image-V3.0", "prompt": "x", "size": "1024:768", "extra_body": {"seed": 3}}
    job_id = api.post("/v1/aiart/submit", key, **body).json()["job_id"]
    assert api.post("/v1/aiart/query", key, job_id=job_id).json()["status"] in {"1", "2"}
    server.advance(1)
    found = api.post("/v1/aiart/query", key, job_id=job_id).json()
    assert found["status"] == "5"
    assert api.client.get(found["data"][0]["url"]).status_code == 200
    assert server.jobs[0].input["resolution"] == "1024:768"


def test_tokenhubs_jobs_say_it_in_words(api: Api, server: HunyuanServer) -> None:
    model = "hy-image-v3.0"
    server.waiting_s = server.running_s = 10
    job_id = api.post("/v1/api/image/submit", model=model, prompt="x").json()["id"]
    seen = []
    for _ in range(3):
        seen.append(api.post("/v1/api/image/query", model=model, id=job_id).json()["status"])
        server.advance(10)
    assert seen == ["pending", "in_progress", "completed"]


def test_a_gateway_says_tencent_clouds_codes_with_status_200(
    api: Api, server: HunyuanServer
) -> None:
    reply = api.post("/v1/aiart/submit", model="HY-Image-V3.0", prompt="x", images=["!"])
    assert reply.status_code == 200
    assert reply.json()["error"]["code"] == "FailedOperation.ImageDecodeFailed"
    reply = api.post("/v1/aiart/query", job_id="nobody")
    assert reply.json()["error"]["code"] == "FailedOperation.JobNotExist"
    server.expect(HunyuanOutcome(code="ServerError"))
    job = api.post("/v1/aiart/submit", model="HY-Image-V3.0", prompt="x").json()["job_id"]
    server.advance(1)
    found = api.post("/v1/aiart/query", job_id=job).json()
    assert (found["status"], found["error"]["code"]) == ("4", "ServerError")


def test_tokenhub_answers_when_the_image_is_there(api: Api, server: HunyuanServer) -> None:
    server.running_s = 0.2
    began = time.monotonic()
    reply = api.post(TOKENHUB, model="hy-image-v3", prompt="x", size="1024x768", footnote="AI")
    assert time.monotonic() - began > 0.2
    url = reply.json()["data"][0]["url"]
    server.advance(43_000)
    assert api.client.get(url).status_code == 200
    server.advance(1000)
    assert api.client.get(url).status_code == 403


@pytest.mark.parametrize(
    "words",
    [{"size": "1024:768"}, {"size": "4096x4096"}, {"footnote": "x" * 17}, {"seed": -1},
     {"images": [picture(form="WEBP")]}, {"model": "gpt"}, {"logo_add": 0}],
)  # fmt: skip
def test_tokenhub_refuses_a_wrong_order(
    api: Api, server: HunyuanServer, words: dict[str, Any]
) -> None:
    reply = api.post(TOKENHUB, **{"model": "hy-image-v3", "prompt": "x", **words})
    assert "error" in reply.json()
    assert server.jobs == []


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [("429001", 429, "rate_limit_error"), ("451001", 451, "content_filter_error"),
     ("401007", 402, "permission_error"), ("403001", 403, "permission_error"),
     ("502001", 502, "upstream_error")],
)  # fmt: skip
def test_tokenhub_fails_with_a_status_of_its_own(
    api: Api, server: HunyuanServer, code: str, status: int, kind: str
) -> None:
    server.expect(HunyuanOutcome(code=code))
    reply = api.post(TOKENHUB, model="hy-image-v3", prompt="x")
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["type"]) == (status, code, kind)
    assert error["request_id"]
    assert server.billed_jobs == []


def test_tokenhub_has_a_rate_and_wants_its_key(api: Api, server: HunyuanServer) -> None:
    server.rpm = 1
    replies = [api.post(TOKENHUB, model="hy-image-v3", prompt="x").status_code for _ in range(2)]
    assert replies == [200, 429]
    assert api.post(TOKENHUB, "Bearer sk-wrong").json()["error"]["code"] == "401002"
    assert api.post("/v1/images/generations").status_code == 404

"""The local SpeedPix does what the real one is known to do, and fails as asked."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import time
import uuid
from collections.abc import Iterator, Mapping
from email.utils import formatdate
from typing import Any

import httpx
import pytest
from PIL import Image

from nbimg.testing import Fault, RateLimit
from nbimg.testing.speedpix import FAKE_APP_KEY, FAKE_APP_SECRET, SAID, SpeedPixServer
from nbimg.testing.speedpix_jobs import SpeedPixOutcome, Workflow

pytestmark = pytest.mark.timeout(20)

JSON = "application/json; charset=utf-8"
NO_VERIFY = False  # plain HTTP: reading the certificates would cost more than the tests
PROMPT = {"workflow_id": "1001", "inputs": {"prompt": "a fox"}}


class Api:
    """A bare client, so that what is on the wire is what the test says."""

    def __init__(self, server: SpeedPixServer, client: httpx.Client) -> None:
        self.server = server
        self.client = client

    def headers(
        self, path: str, body: bytes, *, at_s: float | None = None, **changed: str
    ) -> dict[str, str]:
        at_s = time.time() if at_s is None else at_s
        found = {
            "accept": JSON,
            "content-md5": base64.b64encode(hashlib.md5(body).digest()).decode(),
            "content-type": JSON,
            "date": formatdate(at_s, usegmt=True),
            "x-ca-key": FAKE_APP_KEY,
            "x-ca-nonce": str(uuid.uuid4()),
            "x-ca-signature-method": "HmacSHA256",
            "x-ca-timestamp": str(int(at_s * 1000)),
        }
        found |= {name.replace("_", "-"): value for name, value in changed.items()}
        plain = [found[n] for n in ("accept", "content-md5", "content-type", "date")]
        pairs = [f"{n}:{found[n]}" for n in sorted(found) if n.startswith("x-ca-")]
        text = "\n".join(["POST", *plain, *pairs, path])
        digest = hmac.new(FAKE_APP_SECRET.encode(), text.encode(), hashlib.sha256).digest()
        found["x-ca-signature-headers"] = "x-ca-timestamp,x-ca-key,x-ca-nonce,x-ca-signature-method"
        return {**found, "x-ca-signature": base64.b64encode(digest).decode()}

    def send(self, path: str, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
        return self.client.post(self.server.base_url + path, content=body, headers=headers)

    def post(self, path: str, body: object, **headers: str) -> httpx.Response:
        content = json.dumps(body).encode()
        return self.send(path, content, {**self.headers(path, content), **headers})

    def data(self, path: str, body: object) -> dict[str, Any]:
        answer = self.post(path, body).json()
        assert answer["status"] == 10, answer
        return dict(answer["data"])

    def submit(self, workflow: str = "1001", **inputs: Any) -> str:
        body = {"workflow_id": workflow, "inputs": {"prompt": "a fox", **inputs}}
        return str(self.data("/scc/comfy_prompt", body)["taskId"])

    def progress(self, task: str) -> dict[str, Any]:
        return self.data("/scc/comfy_get_progress", {"taskId": task})

    def result(self, task: str) -> dict[str, Any]:
        return self.data("/scc/comfy_get_result", {"taskId": task})

    def run(self, workflow: str = "1001", **inputs: Any) -> dict[str, Any]:
        task = self.submit(workflow, **inputs)
        self.server.advance(1)
        return self.result(task)

    def refused(self, response: httpx.Response) -> tuple[int, str]:
        return response.status_code, response.headers["X-Ca-Error-Message"].partition(",")[0]


@pytest.fixture
def api() -> Iterator[Api]:
    with SpeedPixServer() as server, httpx.Client(verify=NO_VERIFY) as client:
        yield Api(server, client)


# The gateway.


def test_what_is_signed_right_passes_once(api: Api) -> None:
    body = json.dumps(PROMPT).encode()
    headers = api.headers("/scc/comfy_prompt", body)
    assert api.send("/scc/comfy_prompt", body, headers).json()["status"] == 10
    assert api.refused(api.send("/scc/comfy_prompt", body, headers)) == (400, "Nonce Used")
    assert len(api.server.jobs) == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"x_ca_key": "other"}, "Invalid AppKey"),
        ({"content_md5": "AAAA"}, "Invalid Content-MD5"),
    ],
)
def test_what_is_signed_but_wrong_is_refused(api: Api, changed: dict[str, str], said: str) -> None:
    body = json.dumps(PROMPT).encode()
    headers = api.headers("/scc/comfy_prompt", body, **changed)
    assert api.refused(api.send("/scc/comfy_prompt", body, headers)) == (400, said)
    assert api.server.jobs == []


@pytest.mark.parametrize(
    "name", ["x-ca-nonce", "x-ca-timestamp", "date", "accept", "x-ca-signature"]
)
def test_any_header_that_was_changed_after_signing_is_noticed(api: Api, name: str) -> None:
    body = json.dumps(PROMPT).encode()
    headers = api.headers("/scc/comfy_prompt", body)
    now = str(int(time.time() * 1000) + 1)
    headers[name] = now if name == "x-ca-timestamp" else headers[name] + "x"
    status, said = api.refused(api.send("/scc/comfy_prompt", body, headers))
    assert (status, said) == (400, "Invalid Signature")


def test_a_body_or_a_path_that_was_changed_after_signing_is_noticed(api: Api) -> None:
    body = json.dumps(PROMPT).encode()
    headers = api.headers("/scc/comfy_prompt", body)
    assert (
        api.refused(api.send("/scc/comfy_prompt", body + b" ", headers))[1] == "Invalid Content-MD5"
    )
    assert api.refused(api.send("/scc/other", body, headers))[1] == "Invalid Signature"


def test_a_missing_header_and_an_old_signature_are_refused(api: Api) -> None:
    body = json.dumps(PROMPT).encode()
    assert api.send("/scc/comfy_prompt", body, {}).headers["X-Ca-Error-Code"] == "I400MH"
    old = api.headers("/scc/comfy_prompt", body, at_s=time.time() - 1000)
    assert api.refused(api.send("/scc/comfy_prompt", body, old))[1] == "Timestamp Expired"


def test_a_body_that_is_too_large_is_refused(api: Api) -> None:
    api.server.body_limit_bytes = 100
    answer = api.post("/scc/comfy_prompt", {**PROMPT, "more": "x" * 100})
    assert api.refused(answer) == (413, "Request body too Large")


@pytest.mark.parametrize("path", ["/scc/comfy_cancel", "/scc/comfy_list"])
def test_there_is_no_cancel_and_no_list(api: Api, path: str) -> None:
    assert api.post(path, {"taskId": "1"}).status_code == 404


@pytest.mark.parametrize(("throttle", "code"), [(403, None), (429, "T429AP")])
def test_a_limit_is_told_as_classic_and_as_newer_gateways_do(
    api: Api, throttle: Any, code: str | None
) -> None:
    api.server.limit, api.server.throttle = RateLimit(60, 1), throttle
    api.submit()
    answer = api.post("/scc/comfy_prompt", PROMPT)
    assert api.refused(answer) == (throttle, "Throttled by APP Flow Control")
    assert answer.headers.get("X-Ca-Error-Code") == code


# Tasks.


def test_a_task_passes_through_its_states_with_rising_progress(api: Api) -> None:
    api.server.waiting_s = api.server.running_s = 10
    task = api.submit()
    seen = []
    for _ in range(5):
        data = api.progress(task)
        seen.append((data["status"], round(data["progress"], 1)))
        api.server.advance(5.05)
    assert [status for status, _ in seen] == [
        "waiting",
        "waiting",
        "running",
        "running",
        "successed",
    ]
    assert [share for _, share in seen] == sorted(share for _, share in seen)
    assert api.result(task)["status"] == "succeeded"


def test_the_queue_gets_shorter(api: Api) -> None:
    api.server.waiting_s = 10
    first, second = api.submit(), api.submit()
    assert [api.progress(task)["lastQueueRemaining"] for task in (first, second)] == [0, 1]


def test_a_task_that_runs_has_no_outputs_yet(api: Api) -> None:
    api.server.running_s = 100
    data = api.result(api.submit())
    assert "images" not in data
    assert "result" not in data


@pytest.mark.parametrize(
    ("outputs", "keys"),
    [
        ("images", {"images"}),
        ("result", {"result"}),
        ("both", {"images", "result"}),
        ("none", set()),
    ],
)
def test_outputs_stand_where_the_workflow_puts_them(api: Api, outputs: Any, keys: set[str]) -> None:
    api.server.workflows["9"] = Workflow("9", outputs=outputs)
    assert api.run("9").keys() & {"images", "result"} == keys


@pytest.mark.parametrize("workflow", ["1001", "2001"])
def test_the_same_inputs_give_the_same_bytes_unless_seeds_are_drawn(
    api: Api, workflow: str
) -> None:
    def made(**more: Any) -> bytes:
        body = {"workflow_id": workflow, "inputs": PROMPT["inputs"], **more}
        task = api.data("/scc/comfy_prompt", body)["taskId"]
        api.server.advance(1)
        return api.client.get(api.result(task)["result"]["images"]["url"]).content

    assert made() == made()
    assert made(randomise_seeds=True) != made(randomise_seeds=True)


def test_a_picture_has_the_size_that_was_asked_for(api: Api) -> None:
    output = api.run(width=40, height=20)["result"]["images"]
    picture = Image.open(io.BytesIO(api.client.get(output["url"]).content))
    assert picture.size == (40, 20) == (output["width"], output["height"])


def test_several_outputs_are_a_list(api: Api) -> None:
    outputs = api.run(batch_size=3)["result"]["images"]
    assert len({api.client.get(output["url"]).content for output in outputs}) == 3


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({**PROMPT, "workflow_id": "7"}, SAID["missing"]),
        ({**PROMPT, "alias_id": "gone"}, "版本"),
        ({**PROMPT, "version_id": "v9"}, "版本"),
        ({**PROMPT, "inputs": {}}, "prompt"),
        ({"workflow_id": "1001"}, "prompt"),
    ],
)
def test_a_bad_create_is_a_business_error_with_200(api: Api, body: object, said: str) -> None:
    answer = api.post("/scc/comfy_prompt", body)
    assert answer.status_code == 200
    assert answer.json()["status"] == 20
    assert said in answer.json()["subErrMessage"]
    assert api.server.jobs == []


def test_a_task_that_nobody_knows_is_a_business_error(api: Api) -> None:
    for path in ("/scc/comfy_get_progress", "/scc/comfy_get_result"):
        assert api.post(path, {"taskId": "x"}).json()["subErrMessage"] == SAID["no_task"]


def test_outcomes_choose_their_jobs_and_are_used_up(api: Api) -> None:
    api.server.expect(SpeedPixOutcome("no luck", prompt_has="owl"))
    tasks = [api.submit(), api.submit(prompt="an owl"), api.submit(prompt="an owl")]
    api.server.advance(1)
    assert [api.progress(task)["status"] for task in tasks] == ["successed", "failed", "successed"]
    assert (
        api.post("/scc/comfy_get_result", {"taskId": tasks[1]}).json()["subErrMessage"] == "no luck"
    )
    assert [job.billed for job in api.server.jobs] == [True, False, True]


def test_a_failed_look_recovers(api: Api) -> None:
    task = api.submit()
    api.server.inject(Fault("error", path="/scc/comfy_get_progress", status=200))
    answer = api.post("/scc/comfy_get_progress", {"taskId": task}).json()
    assert (answer["status"], answer["data"]) == (20, None)
    assert api.progress(task)["taskId"] == task


# Files.


def signed_upload(api: Api) -> dict[str, Any]:
    asked = {"contentType": "image/png", "originalFilename": "a.png"}
    return api.data("/scc/sp_create_temp_file_upload_sign", asked)


def put(api: Api, url: str, kind: str = "image/png") -> int:
    return api.client.put(url, content=b"data", headers={"Content-Type": kind}).status_code


def test_a_file_is_taken_at_its_signed_address_only(api: Api) -> None:
    data = signed_upload(api)
    assert put(api, data["accessUrl"]) == 403
    assert put(api, data["uploadUrl"], "image/jpeg") == 403
    assert put(api, data["uploadUrl"]) == 200
    assert [file.data for file in api.server.uploads] == [b"data"]
    assert not api.server.leaks


def test_a_signed_address_expires(api: Api) -> None:
    data = signed_upload(api)
    api.server.advance(601)
    assert put(api, data["uploadUrl"]) == 403


@pytest.mark.parametrize(
    "value",
    ["cat.png", "data:;base64,eA==", "data:image/png;base64,*", "data:image/png,x", 3, "gone"],
)
def test_a_file_that_cannot_be_used_fails_the_task(api: Api, value: object) -> None:
    sent = f"{api.server.url('files')}/temp/gone.png" if value == "gone" else value
    task = api.submit("1002", image=sent)
    api.server.advance(1)
    assert api.progress(task)["status"] == "failed"


def test_addresses_and_base64_can_be_used(api: Api) -> None:
    data = signed_upload(api)
    put(api, data["uploadUrl"])
    for value in (data["accessUrl"], "data:image/png;base64,eA==", "https://example.com/a.png"):
        assert api.run("1002", image=value)["status"] == "succeeded"


def test_outputs_are_there_for_some_time(api: Api) -> None:
    url = api.run()["result"]["images"]["url"]
    assert api.client.get(url).status_code == 200
    assert api.client.get(url.replace("out-0", "out-1")).status_code == 404
    api.server.advance(86401)
    assert api.client.get(url).status_code == 403


def test_a_credential_at_the_store_of_files_is_noticed(api: Api) -> None:
    url = api.run()["result"]["images"]["url"]
    api.client.get(url, headers={"x-ca-key": FAKE_APP_KEY})
    assert len(api.server.leaks) == 1

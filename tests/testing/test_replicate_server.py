"""The local Replicate does what the real one is known to do, and fails as asked."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image

from nbimg.testing import (
    BUILTIN_MODELS,
    COMMUNITY_MODEL,
    FAILURES,
    FAKE_TOKEN,
    Fault,
    LocalServer,
    Outcome,
    RateLimit,
    Recorded,
    ReplicateServer,
    Reply,
)

pytestmark = pytest.mark.timeout(20)

FLUX = "black-forest-labs/flux-dev"
KONTEXT = "black-forest-labs/flux-kontext-max"
CREATE = f"/v1/models/{FLUX}/predictions"
AUTH = {"Authorization": f"Bearer {FAKE_TOKEN}"}
NO_VERIFY = False  # plain HTTP: reading the certificates would cost more than the tests


class Api:
    """A bare client, so that what is on the wire is what the test says."""

    def __init__(self, server: ReplicateServer, client: httpx.Client) -> None:
        self.server = server
        self.client = client

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.client.get(self.server.base_url + path, headers=AUTH, **more)

    def post(
        self, path: str, body: object = None, headers: Mapping[str, str] | None = None, **more: Any
    ) -> httpx.Response:
        url = self.server.base_url + path
        return self.client.post(url, json=body, headers={**AUTH, **(headers or {})}, **more)

    def create(
        self, model: str = FLUX, headers: Mapping[str, str] | None = None, **inputs: Any
    ) -> httpx.Response:
        body = {"input": {"prompt": "a fox", **inputs}}
        return self.post(f"/v1/models/{model}/predictions", body, headers)

    def finish(self, job: Mapping[str, Any]) -> dict[str, Any]:
        for _ in range(500):
            found: dict[str, Any] = self.get(f"/v1/predictions/{job['id']}").json()
            if found["status"] not in {"starting", "processing"}:
                return found
            time.sleep(0.002)
        raise AssertionError(found)

    def run(self, model: str = FLUX, **inputs: Any) -> dict[str, Any]:
        return self.finish(self.create(model, **inputs).json())

    def download(self, url: str) -> httpx.Response:
        return self.client.get(url)


@pytest.fixture
def api() -> Iterator[Api]:
    with ReplicateServer() as server, httpx.Client(verify=NO_VERIFY) as client:
        yield Api(server, client)


def open_image(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


# Jobs.


def test_a_job_passes_through_its_states_and_is_paid_for_once(api: Api) -> None:
    api.server.starting_s = api.server.running_s = 10
    answer = api.create(seed=1)
    assert answer.status_code == 201
    seen = [answer.json()["status"]]
    for _ in range(2):
        assert not api.server.billed_jobs or seen[-1] == "processing"
        api.server.advance(10.5)
        seen.append(api.get(f"/v1/predictions/{answer.json()['id']}").json()["status"])
    assert seen == ["starting", "processing", "succeeded"]
    (job,) = api.server.billed_jobs
    assert (job.model, job.input) == (FLUX, {"prompt": "a fox", "seed": 1})


def test_a_finished_job_tells_its_times_seed_and_steps(api: Api) -> None:
    job = api.run(seed=77, num_inference_steps=4)
    assert job["created_at"] <= job["started_at"] <= job["completed_at"]
    assert job["metrics"]["predict_time"] == pytest.approx(0.005)
    assert "Using seed: 77" in job["logs"]
    assert "4/4" in job["logs"]
    assert job["error"] is None


def test_zero_delays_finish_a_job_by_its_first_poll(api: Api) -> None:
    api.server.starting_s = api.server.running_s = 0
    created = api.create().json()
    assert created["status"] == "starting"
    assert api.get(urlsplit(created["urls"]["get"]).path).json()["status"] == "succeeded"


@pytest.mark.parametrize("name", sorted(FAILURES))
def test_a_job_fails_with_the_text_asked_for(api: Api, name: str) -> None:
    api.server.expect(Outcome(error=FAILURES[name]))
    job = api.run()
    assert (job["status"], job["error"], job["output"]) == ("failed", FAILURES[name], None)
    assert api.server.billed_jobs == []
    assert api.run()["status"] == "succeeded"  # the outcome is used up


def test_outcomes_choose_their_jobs_by_model_and_prompt(api: Api) -> None:
    api.server.expect(
        Outcome(error="one", model="google/", times=None), Outcome(error="two", prompt_has="owl")
    )
    assert api.run(prompt="a hen")["error"] is None
    assert api.run(prompt="an owl")["error"] == "two"
    assert [api.run("google/imagen-4-ultra")["error"] for _ in range(2)] == ["one", "one"]


@pytest.mark.parametrize("model", [m.name for m in BUILTIN_MODELS if m.official])
def test_every_official_model_delivers_in_its_own_shape(api: Api, model: str) -> None:
    images = {"image": ["https://example.com/a.png"]} if model.endswith("edit-plus") else {}
    output = api.run(model, **images)["output"]
    expected = api.server.models[model].output
    assert isinstance(output, {"list": list, "str": str}[expected])
    url = output if isinstance(output, str) else output[0]
    default = api.server.models[model].inputs["output_format"]["default"]
    answer = api.download(url)
    assert answer.headers["Content-Type"] == {"jpg": "image/jpeg"}.get(default, f"image/{default}")
    assert open_image(answer.content).width > 0


@pytest.mark.parametrize("shape", ["empty", "null", "dict", "data_uri"])
def test_a_job_may_succeed_in_an_unusual_shape(api: Api, shape: Any) -> None:
    api.server.expect(Outcome(output=shape))
    job = api.run(seed=3)
    assert job["status"] == "succeeded"
    output = job["output"]
    if shape == "dict":
        assert open_image(api.download(output["images"][0]).content).width == 64
    elif shape == "data_uri":
        assert output.startswith("data:image/webp;base64,")
        assert open_image(base64.b64decode(output.partition(",")[2])).format == "WEBP"
    else:
        assert output == {"empty": [], "null": None}[shape]


# Cancelling and deadlines.


@pytest.mark.parametrize(("passed_s", "billed"), [(1, False), (15, True)])
def test_canceling_ends_a_job_and_costs_only_when_it_ran(
    api: Api, passed_s: float, billed: bool
) -> None:
    api.server.starting_s = api.server.running_s = 10
    job = api.create().json()
    api.server.advance(passed_s)
    answer = api.post(f"/v1/predictions/{job['id']}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "canceled")
    assert api.server.jobs[0].billed is billed


def test_canceling_a_finished_job_changes_nothing(api: Api) -> None:
    done = api.run()
    assert api.post(f"/v1/predictions/{done['id']}/cancel").json() == done


@pytest.mark.parametrize(
    ("starting_s", "status", "billed"), [(60, "aborted", False), (5, "canceled", True)]
)
def test_a_deadline_aborts_what_waits_and_cancels_what_runs(
    api: Api, starting_s: float, status: str, billed: bool
) -> None:
    api.server.starting_s, api.server.running_s = starting_s, 60
    job = api.create(headers={"Cancel-After": "30s"}).json()
    assert job["deadline"] > job["created_at"]
    api.server.advance(31)
    assert api.finish(job)["status"] == status
    assert api.server.jobs[0].billed is billed


@pytest.mark.parametrize(
    ("asked", "status"), [("1h30m", 201), ("90", 201), ("4s", 400), ("soon", 400), ("", 400)]
)
def test_cancel_after_takes_durations_of_five_seconds_and_more(
    api: Api, asked: str, status: int
) -> None:
    assert api.create(headers={"Cancel-After": asked}).status_code == status
    assert len(api.server.jobs) == (status == 201)


# Holding.


def test_prefer_wait_holds_until_the_job_is_over(api: Api) -> None:
    answer = api.create(headers={"Prefer": "wait"})
    assert (answer.status_code, answer.json()["status"]) == (201, "succeeded")


def test_prefer_wait_gives_up_when_the_time_is_over(api: Api) -> None:
    api.server.speed = 50
    api.server.starting_s, api.server.running_s = 0, 500
    began_s = time.monotonic()
    answer = api.create(headers={"Prefer": "wait=5"})
    assert 0.09 < time.monotonic() - began_s < 5
    assert (answer.status_code, answer.json()["status"]) == (202, "processing")
    assert answer.json()["output"] is None


@pytest.mark.parametrize("hold", ["starting", "processing", "processing_with_output"])
def test_a_held_create_may_answer_early_in_three_ways(api: Api, hold: Any) -> None:
    api.server.hold = hold
    job = api.create(headers={"Prefer": "wait=10"}).json()
    assert job["status"] == hold.partition("_")[0]
    assert bool(job["output"]) is hold.endswith("output")
    assert api.finish(job)["status"] == "succeeded"


@pytest.mark.parametrize("prefer", ["wait=0", "wait=61", "wait=100", "wait=x", "respond-async"])
def test_prefer_outside_its_pattern_is_refused(api: Api, prefer: str) -> None:
    assert api.create(headers={"Prefer": prefer}).status_code == 400
    assert api.server.jobs == []


def test_a_cancel_ends_a_hold(api: Api) -> None:
    api.server.running_s = 500
    held: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: held.append(api.create(headers={"Prefer": "wait=60"})))
    thread.start()
    while not api.server.jobs:
        time.sleep(0.002)
    api.post(f"/v1/predictions/{api.server.jobs[0].id}/cancel")
    thread.join(5)
    assert held[0].json()["status"] == "canceled"


def test_a_change_of_speed_lets_no_time_jump() -> None:
    server = ReplicateServer()
    server.advance(100)
    server.speed = 1e-6
    assert server.now_s() == pytest.approx(100, abs=1)
    server.speed = 1e6
    time.sleep(0.001)
    assert server.now_s() > 900


# What runs what.


def test_a_community_model_runs_by_version_only(api: Api) -> None:
    body = {"input": {"prompt": "x"}}
    assert api.post(f"/v1/models/{COMMUNITY_MODEL.name}/predictions", body).status_code == 404
    for version in (COMMUNITY_MODEL.version, f"{COMMUNITY_MODEL.name}:{COMMUNITY_MODEL.version}"):
        answer = api.post("/v1/predictions", {**body, "version": version})
        assert answer.json()["version"] == COMMUNITY_MODEL.version


def test_an_official_model_runs_by_name_only(api: Api) -> None:
    version = api.server.models[FLUX].version
    answer = api.post("/v1/predictions", {"version": version, "input": {"prompt": "x"}})
    assert answer.status_code == 422
    assert answer.json()["title"] == "Invalid version or not permitted"
    assert "invalid_fields" not in answer.json()
    answer = api.post("/v1/predictions", {"version": FLUX, "input": {"prompt": "x"}})
    assert answer.json()["model"] == FLUX


def test_a_deployment_runs_its_model(api: Api) -> None:
    api.server.deployments["acme/fast"] = FLUX
    body = {"input": {"prompt": "x"}}
    assert api.post("/v1/deployments/acme/fast/predictions", body).json()["model"] == FLUX
    assert api.post("/v1/deployments/acme/none/predictions", body).status_code == 404


def test_versions_of_official_models_are_missing_or_empty(api: Api) -> None:
    assert api.get(f"/v1/models/{FLUX}/versions").status_code == 404
    api.server.official_versions = "empty"
    assert api.get(f"/v1/models/{FLUX}/versions").json()["results"] == []
    (version,) = api.get(f"/v1/models/{COMMUNITY_MODEL.name}/versions").json()["results"]
    path = f"/v1/models/{COMMUNITY_MODEL.name}/versions/{version['id']}"
    assert api.get(path).json() == version


def test_the_schema_hides_enums_behind_references(api: Api) -> None:
    model = api.get(f"/v1/models/{FLUX}").json()
    schemas = model["latest_version"]["openapi_schema"]["components"]["schemas"]
    properties = schemas["Input"]["properties"]
    assert properties["aspect_ratio"]["allOf"] == [{"$ref": "#/components/schemas/aspect_ratio"}]
    assert "enum" not in properties["aspect_ratio"]
    assert schemas["output_format"]["enum"] == ["webp", "jpg", "png"]
    assert properties["seed"]["nullable"] is True
    orders = [p["x-order"] for p in properties.values()]
    assert orders == list(range(len(orders)))
    assert schemas["Input"]["required"] == ["prompt"]
    assert schemas["Output"]["items"]["format"] == "uri"


# Refusals.


@pytest.mark.parametrize(
    ("inputs", "kind", "place"),
    [
        ({"seed": "7"}, "invalid_type", "input.seed"),
        ({"seed": True}, "invalid_type", "input.seed"),
        ({"go_fast": 1}, "invalid_type", "input.go_fast"),
        ({"num_outputs": 5}, "number_lte", "input.num_outputs"),
        ({"num_outputs": 0}, "number_gte", "input.num_outputs"),
        ({"guidance": None}, "invalid_type", "input.guidance"),
        ({"aspect_ratio": "7:5"}, "enum", "input.aspect_ratio"),
        ({"image": "fox.png"}, "format", "input.image"),
    ],
)
def test_inputs_that_do_not_fit_the_schema_are_refused_unpaid(
    api: Api, inputs: dict[str, Any], kind: str, place: str
) -> None:
    answer = api.create(**inputs)
    assert answer.status_code == 422
    (field,) = answer.json()["invalid_fields"]
    assert (field["type"], field["field"]) == (kind, place)
    assert answer.json()["detail"] == f"- {place}: {field['description']}\n"
    assert api.server.jobs == []


def test_what_the_schema_allows_is_accepted(api: Api) -> None:
    answer = api.create(seed=None, guidance=3, num_outputs=4, surprise="ignored")
    assert answer.status_code == 201


def test_required_inputs_closed_bodies_and_unknown_inputs_are_checked(api: Api) -> None:
    missing = api.post(CREATE, {"input": {}}).json()
    assert missing["detail"] == "- input: prompt is required\n"
    assert api.post(CREATE, {"input": {"prompt": "x"}, "wait": True}).status_code == 422
    assert api.post("/v1/predictions", {"input": {"prompt": "x"}}).status_code == 422
    assert api.post(CREATE, {"prompt": "x"}).status_code == 422
    api.server.unknown_inputs = "reject"
    assert api.create(surprise=1).status_code == 422
    assert api.server.jobs == []


@pytest.mark.parametrize("token", ["", "Bearer other-fake-token", FAKE_TOKEN])
def test_a_wrong_key_is_refused(api: Api, token: str) -> None:
    headers = {"Authorization": token} if token else {}
    answer = api.client.get(f"{api.server.base_url}/v1/account", headers=headers)
    assert (answer.status_code, answer.json()["title"]) == (401, "Unauthenticated")
    assert api.get("/v1/account").json()["username"] == "example"


@pytest.mark.parametrize(
    "path", ["/v1/predictions/nope", "/v1/models/no/pe", "/v1/files/nope", "/v2", "/"]
)
def test_what_is_not_there_answers_404_with_a_problem(api: Api, path: str) -> None:
    answer = api.get(path)
    assert (answer.status_code, answer.json()["status"]) == (404, 404)


def test_without_credit_creates_cost_402_and_looking_is_free(api: Api) -> None:
    api.server.credit = "none"
    assert api.create().status_code == 402
    assert api.get("/v1/predictions").status_code == 200
    assert api.server.jobs == []


@pytest.mark.parametrize(("status", "detail"), [(400, "EOF"), (413, "too large")])
def test_an_oversize_data_uri_is_refused(api: Api, status: Any, detail: str) -> None:
    api.server.oversize_status = status

    def uri(size_bytes: int) -> str:
        return f"data:image/png;base64,{base64.b64encode(bytes(size_bytes)).decode()}"

    answer = api.create(image=uri(256_010))
    assert answer.status_code == status
    assert detail in answer.json()["detail"]
    assert api.create(image=uri(255_990)).status_code == 201


# Rates.


def test_creates_and_other_calls_have_limits_of_their_own(api: Api) -> None:
    api.server.create_limit, api.server.other_limit = RateLimit(60, 2), RateLimit(60, 3)
    assert [api.create().status_code for _ in range(3)] == [201, 201, 429]
    assert [api.get("/v1/account").status_code for _ in range(4)] == [200, 200, 200, 429]


def test_a_refused_call_uses_up_budget_too(api: Api) -> None:
    api.server.create_limit = RateLimit(60, 1)
    assert [api.create().status_code for _ in range(3)] == [201, 429, 429]
    api.server.advance(2)
    assert api.create().status_code == 429  # one a second comes back, two were wasted
    api.server.advance(4)
    assert api.create().status_code == 201


@pytest.mark.parametrize("hints", [("text",), ("body",), ("header",), ("text", "body", "header")])
def test_a_429_tells_when_to_return_in_the_ways_selected(api: Api, hints: Any) -> None:
    api.server.create_limit = RateLimit(6, 1)
    api.server.hints = frozenset(hints)
    api.create()
    answer = api.create()
    assert ("resets in ~20s" in answer.json()["detail"]) is ("text" in hints)
    assert answer.json().get("retry_after") == (20 if "body" in hints else None)
    assert answer.headers.get("Retry-After") == ("20" if "header" in hints else None)
    api.server.advance(20)
    assert api.create().status_code == 201  # what it said was true


def test_low_credit_allows_six_a_minute(api: Api) -> None:
    api.server.credit = "low"
    assert api.create().status_code == 201
    answer = api.create().json()
    assert "reduced to 6 requests per minute with a burst of 1 requests" in answer["detail"]
    assert answer["retry_after"] == 20


def test_limits_can_be_off(api: Api) -> None:
    api.server.create_limit = api.server.other_limit = None
    assert {api.create().status_code for _ in range(30)} == {201}


# The list.


def test_the_list_pages_backwards_without_shifting(api: Api) -> None:
    api.server.page_size = 2
    ids = [api.create(seed=n).json()["id"] for n in range(5)]
    page = api.get("/v1/predictions").json()
    seen = [job["id"] for job in page["results"]]
    assert page["previous"] is None
    ids.append(api.create(seed=9).json()["id"])  # arrives between two pages
    while page["next"]:
        page = api.client.get(page["next"], headers=AUTH).json()
        seen += [job["id"] for job in page["results"]]
    assert seen == ids[4::-1]
    back = api.client.get(page["previous"], headers=AUTH).json()
    assert [job["id"] for job in back["results"]] == ids[2:0:-1]


# Files.


def test_an_upload_gets_an_address_without_extension(api: Api) -> None:
    data = b"not really a picture"
    answer = api.client.post(
        f"{api.server.base_url}/v1/files",
        headers=AUTH,
        files={"content": ("fox.png", data, "image/png")},
        data={"metadata": json.dumps({"a": 1})},
    )
    upload = answer.json()
    assert answer.status_code == 201
    assert (upload["size"], upload["content_type"]) == (len(data), "image/png")
    assert upload["checksums"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert upload["metadata"] == {"a": 1}
    assert "." not in urlsplit(upload["urls"]["get"]).path
    assert api.get(f"/v1/files/{upload['id']}").json() == upload
    assert api.get("/v1/files").json()["results"] == [upload]
    gone = api.client.delete(f"{api.server.base_url}/v1/files/{upload['id']}", headers=AUTH)
    assert gone.status_code == 204
    assert api.get(f"/v1/files/{upload['id']}").status_code == 404


def upload_url(api: Api) -> str:
    url = f"{api.server.base_url}/v1/files"
    files = {"content": ("fox.png", b"fox", "image/png")}
    return str(api.client.post(url, headers=AUTH, files=files).json()["urls"]["get"])


def test_some_models_reject_an_upload_for_its_missing_extension(api: Api) -> None:
    url = upload_url(api)
    assert api.run(KONTEXT, input_image=url)["status"] == "succeeded"
    body = {"version": COMMUNITY_MODEL.version, "input": {"prompt": "x", "image": url}}
    job = api.finish(api.post("/v1/predictions", body).json())
    assert job["error"].startswith("Invalid image format ''. Supported formats: .bmp, .png")


def test_an_upload_that_expired_fails_the_job(api: Api) -> None:
    url = upload_url(api)
    api.server.advance(86_401)
    assert "404" in api.run(KONTEXT, input_image=url)["error"]
    assert api.get(urlsplit(url).path).status_code == 404


# Pictures and the file host.


def test_the_same_request_and_seed_give_the_same_bytes(api: Api) -> None:
    def picture(**inputs: Any) -> bytes:
        return api.download(api.run(**inputs)["output"][0]).content

    first = picture(seed=1)
    assert picture(seed=1) == first
    assert picture(seed=1, num_outputs=3) == first
    others = [picture(seed=2), picture(seed=1, prompt="a hen"), picture(), picture()]
    assert len({first, *others}) == 5


def test_pictures_have_the_format_count_and_ratio_asked_for(api: Api) -> None:
    job = api.run(num_outputs=4, output_format="jpg", aspect_ratio="16:9", seed=1)
    pictures = [api.download(url).content for url in job["output"]]
    assert len(set(pictures)) == 4
    assert {(open_image(p).format, open_image(p).size) for p in pictures} == {("JPEG", (64, 36))}


def test_pictures_have_the_pixels_asked_for(api: Api) -> None:
    inputs = {"prompt": "x", "width": 80, "height": 128}
    created = api.post("/v1/predictions", {"version": COMMUNITY_MODEL.version, "input": inputs})
    url = api.finish(created.json())["output"][0]
    assert open_image(api.download(url).content).size == (80, 128)


@pytest.mark.parametrize("delivery", ["truncated", "empty", "wrong_type", "html", "missing"])
def test_the_file_host_delivers_badly_on_cue(api: Api, delivery: Any) -> None:
    api.server.expect(Outcome(delivery=delivery))
    bad = api.download(api.run(seed=1)["output"][0])
    good = api.download(api.run(seed=1)["output"][0])
    assert good.headers["Content-Type"] == "image/webp"
    match delivery:
        case "truncated":
            assert bad.content == good.content[: len(good.content) // 2]
        case "empty":
            assert (bad.status_code, bad.content) == (200, b"")
        case "wrong_type":
            assert bad.headers["Content-Type"] == "text/plain"
            assert bad.content == good.content
        case "html":
            assert (bad.status_code, bad.headers["Content-Type"]) == (200, "text/html")
        case "missing":
            assert bad.status_code == 404


def test_data_is_removed_after_an_hour_and_the_files_with_it(api: Api) -> None:
    job = api.run()
    api.server.advance(3599)
    assert api.download(job["output"][0]).status_code == 200
    api.server.advance(2)
    purged = api.finish(job)
    assert (purged["status"], purged["output"]) == ("succeeded", None)
    assert (purged["data_removed"], purged["input"], purged["logs"]) == (True, {}, "")
    assert api.download(job["output"][0]).status_code == 404
    assert api.server.jobs[0].input == {"prompt": "a fox"}  # the ledger forgets nothing


def test_the_file_host_is_another_port_and_notes_a_leaked_key(api: Api) -> None:
    url = api.run()["output"][0]
    assert urlsplit(url).port != urlsplit(api.server.base_url).port
    api.download(url)
    assert api.server.leaks == []
    api.client.get(url, headers=AUTH)
    assert [call.path for call in api.server.leaks] == [urlsplit(url).path]


def test_pillow_is_loaded_by_the_first_picture_only() -> None:
    code = "import sys, nbimg.testing; sys.exit('PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# The ledger and the log.


def test_two_paid_jobs_for_one_request_are_told(api: Api) -> None:
    api.run(seed=1)
    api.run(seed=2)
    assert api.server.duplicates() == []
    api.run(seed=1)
    (pair,) = api.server.duplicates()
    assert [job.input["seed"] for job in pair] == [1, 1]


def test_the_log_keeps_every_request_in_order(api: Api) -> None:
    job = api.run(seed=5)
    first = api.server.requests[0]
    assert (first.method, first.path, first.host) == ("POST", CREATE, "api")
    assert first.json() == {"input": {"prompt": "a fox", "seed": 5}}
    assert first.headers["authorization"] == f"Bearer {FAKE_TOKEN}"
    assert [c.index for c in api.server.requests] == list(range(len(api.server.requests)))
    times = [c.at_s for c in api.server.requests]
    assert times == sorted(times)
    assert api.server.count("POST", "/v1/models/*") == 1
    assert api.server.count("GET", f"/v1/predictions/{job['id']}") >= 1
    assert api.server.count(host="files") == 0


# Faults.


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(("when", "jobs"), [("before", 0), ("after", 1)])
def test_a_dropped_create_was_accepted_or_not(api: Api, when: Any, jobs: int, reset: bool) -> None:
    api.server.inject(Fault("drop", "POST", when=when, reset=reset))
    expected = httpx.ReadError if reset else httpx.RemoteProtocolError
    with pytest.raises(expected):
        api.create()
    assert len(api.server.jobs) == jobs
    assert api.server.faults_left == []
    assert api.create().status_code == 201


@pytest.mark.parametrize(("when", "jobs"), [("before", 0), ("after", 1)])
def test_a_hanging_create_never_answers(api: Api, when: Any, jobs: int) -> None:
    api.server.inject(Fault("hang", "POST", when=when))
    with pytest.raises(httpx.ReadTimeout):
        api.post(CREATE, {"input": {"prompt": "x"}}, timeout=0.1)
    assert len(api.server.jobs) == jobs


@pytest.mark.parametrize("status", [502, 503, 504])
@pytest.mark.parametrize(("when", "jobs"), [("before", 0), ("after", 1)])
def test_a_proxy_answers_in_html(api: Api, status: int, when: Any, jobs: int) -> None:
    api.server.inject(Fault("html", "POST", CREATE, when=when, status=status))
    answer = api.create()
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "text/html")
    assert f"<title>{status} " in answer.text
    assert len(api.server.jobs) == jobs


@pytest.mark.parametrize(
    ("status", "variant", "key"),
    [
        (401, "", "title"),
        (402, "", "title"),
        (404, "", "title"),
        (422, "input", "invalid_fields"),
        (422, "version", "title"),
        (429, "low_credit", "retry_after"),
        (429, "", "detail"),
        (500, "", "detail"),
    ],
)
def test_errors_come_on_cue_in_the_shape_of_the_service(
    api: Api, status: int, variant: str, key: str
) -> None:
    api.server.inject(Fault("error", "POST", status=status, variant=variant, retry_after_s=3))
    answer = api.create()
    assert answer.status_code == status
    assert key in answer.json()
    assert ("invalid_fields" in answer.json()) is (variant == "input")
    if status == 429:
        assert "resets in ~3s" in answer.json()["detail"]
    assert api.server.jobs == []


def test_a_truncated_reply_breaks_its_promise_of_length(api: Api) -> None:
    url = api.run()["output"][0]
    api.server.inject(Fault("truncate", path="/xezq/*"))
    with pytest.raises(httpx.RemoteProtocolError, match=r"incomplete|without sending complete"):
        api.download(url)
    assert api.download(url).status_code == 200


def test_cut_json_cannot_be_decoded(api: Api) -> None:
    api.server.inject(Fault("cut", "POST"))
    answer = api.create()
    assert answer.status_code == 201
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        answer.json()
    assert len(api.server.jobs) == 1


def test_a_reply_may_claim_another_type(api: Api) -> None:
    api.server.inject(Fault("content_type", content_type="application/xml"))
    assert api.create().headers["Content-Type"] == "application/xml"


def test_delays_and_drips_take_their_time_and_arrive_whole(api: Api) -> None:
    api.server.inject(Fault("delay", "POST", delay_s=0.1), Fault("drip", "GET", delay_s=0.1))
    began_s = time.monotonic()
    job = api.create().json()
    assert 0.1 <= time.monotonic() - began_s < 5
    began_s = time.monotonic()
    assert api.get(f"/v1/predictions/{job['id']}").json()["id"] == job["id"]
    assert 0.09 <= time.monotonic() - began_s < 5


@pytest.mark.parametrize(("when", "jobs"), [("before", 0), ("after", 1)])
def test_a_delay_comes_before_or_after_the_effect(api: Api, when: Any, jobs: int) -> None:
    api.server.inject(Fault("delay", "POST", delay_s=0.4, when=when))
    with pytest.raises(httpx.ReadTimeout):
        api.post(CREATE, {"input": {"prompt": "x"}}, timeout=0.1)
    assert len(api.server.jobs) == jobs


def test_a_connection_may_be_closed_between_requests(api: Api) -> None:
    api.server.inject(Fault("close", path="/v1/account", skip=1))
    ask = f"GET /v1/account HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {FAKE_TOKEN}\r\n\r\n"
    port = urlsplit(api.server.base_url).port
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(ask.encode())
        assert b'"username": "example"' in connection.recv(65536)  # kept alive
        connection.sendall(ask.encode())
        reply = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b'"username": "example"' in reply
    assert b"connection: close" not in reply.lower()


def test_faults_are_used_up_by_the_requests_they_are_meant_for(api: Api) -> None:
    api.server.inject(
        Fault("html", "POST", skip=1, times=2), Fault("error", "GET", status=500, times=None)
    )
    assert [api.create().status_code for _ in range(4)] == [201, 502, 502, 201]
    assert [api.get("/v1/account").status_code for _ in range(3)] == [500, 500, 500]
    assert [fault.kind for fault in api.server.faults_left] == ["error"]


def test_latency_may_be_different_for_each_call(api: Api) -> None:
    def latency_s(call: Recorded) -> float:
        return 0.1 if call.method == "POST" else 0.0

    api.server.latency_s = latency_s
    began_s = time.monotonic()
    api.create()
    assert 0.1 <= time.monotonic() - began_s < 5


# Start and stop.


def test_nothing_is_left_when_the_block_is_left() -> None:
    before = set(threading.enumerate())
    with ReplicateServer(faults=[Fault("hang")]) as server:
        port = urlsplit(server.base_url).port
        with httpx.Client(verify=NO_VERIFY) as client, pytest.raises(httpx.ReadTimeout):
            client.get(server.base_url, timeout=0.05)
        with socket.create_connection(("127.0.0.1", port)):  # a client that says nothing
            server.stop()
    assert set(threading.enumerate()) == before
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port))


def test_a_server_starts_once_only() -> None:
    with ReplicateServer() as server, pytest.raises(RuntimeError, match="starts once"):
        server.start()


def test_a_failure_of_the_server_itself_is_not_hidden() -> None:
    class Broken(LocalServer):
        def answer(self, call: Recorded) -> Reply:
            raise KeyError(call.path)

    server = Broken().start()
    assert httpx.get(server.base_url + "/x").status_code == 500
    with pytest.raises(RuntimeError, match="failed while answering") as caught:
        server.stop()
    assert isinstance(caught.value.__cause__, KeyError)


def test_many_jobs_at_once_are_each_paid_for_once() -> None:
    async def run_all(server: ReplicateServer) -> set[bytes]:
        async with httpx.AsyncClient(verify=NO_VERIFY, headers=AUTH) as client:

            async def one(number: int) -> bytes:
                body = {"input": {"prompt": f"fox {number}", "seed": number}}
                created = (await client.post(server.base_url + CREATE, json=body)).json()
                job = (await client.get(created["urls"]["get"])).json()
                return (await client.get(job["output"][0])).content

            return set(await asyncio.gather(*(one(number) for number in range(50))))

    with ReplicateServer(starting_s=0, running_s=0) as server:
        assert len(asyncio.run(run_all(server))) == 50
        assert len(server.billed_jobs) == 50
        assert server.duplicates() == []

"""The official Python client (speedpix 1.0.x) works against the local server.

What it does wrong is asserted, too, where the local server must provoke it: a client that trips over a
state proves that the state was sent.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from nbimg.testing import Fault
from nbimg.testing.pictures import render_picture
from nbimg.testing.speedpix import FAKE_APP_KEY, FAKE_APP_SECRET, SAID, SpeedPixServer
from nbimg.testing.speedpix_jobs import SpeedPixOutcome

speedpix = pytest.importorskip("speedpix", reason="the cross-check needs speedpix 1.0.x")
pytest.importorskip("dataclass_wizard", reason="speedpix needs dataclass-wizard<1")

pytestmark = pytest.mark.timeout(20)

INPUT = {"prompt": "a fox 狐狸"}
QUICK = {"polling_interval": 0.005}


@pytest.fixture
def server() -> Iterator[SpeedPixServer]:
    with SpeedPixServer(success="succeeded") as server:
        yield server
        assert not server.leaks


@pytest.fixture
def client(server: SpeedPixServer) -> Iterator[Any]:
    with speedpix.Client(FAKE_APP_KEY, FAKE_APP_SECRET, server.base_url) as client:
        yield client


def run_async(client: Any, *arguments: Any, **options: Any) -> Any:
    async def run() -> Any:
        async with client:
            return await client.async_run(*arguments, **QUICK, **options)

    return asyncio.run(run())


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_run_gives_the_chosen_output(client: Any, server: SpeedPixServer) -> None:
    output = client.run("1001", INPUT, **QUICK)
    picture = opened(output["images"]["url"].read())
    assert (picture.format, picture.size) == ("PNG", (64, 64))
    assert (output["images"]["width"], output["images"]["type"]) == (64, "image")
    (job,) = server.jobs
    assert (job.inputs, job.version, job.resource, job.billed) == (INPUT, "v1", "default", True)


def test_async_run_gives_the_chosen_output(client: Any, server: SpeedPixServer) -> None:
    output = run_async(client, "1001", INPUT)
    assert output["images"]["url"].url.startswith(server.url("files"))
    assert len(server.jobs) == 1


def test_a_video_comes_out(client: Any) -> None:
    output = client.run("2001", INPUT, **QUICK)
    assert output["images"]["type"] == "video"
    assert output["images"]["url"].read()[4:8] == b"ftyp"


def test_alias_version_and_resources_arrive(client: Any, server: SpeedPixServer) -> None:
    client.run("1001", INPUT, alias_id="test", resource_config_id="pool-1", **QUICK)
    client.run("1001", INPUT, version_id="v1", randomise_seeds=True, **QUICK)
    first, second = server.jobs
    assert (first.version, first.resource) == ("v2", "pool-1")
    assert (second.version, second.randomise) == ("v1", True)


def test_a_prediction_is_created_and_waited_for(client: Any, server: SpeedPixServer) -> None:
    prediction = client.run("1001", INPUT, wait=False)
    assert (prediction.status, prediction.id) == ("waiting", server.jobs[0].id)
    assert prediction.wait(0.005).status == "succeeded"
    assert client.predictions.get(prediction.id).output["images"]["format"] == "png"


def test_files_are_uploaded_and_named_by_their_address(
    client: Any, server: SpeedPixServer, tmp_path: Path
) -> None:
    path = tmp_path / "fox.png"
    path.write_bytes(render_picture("fox", "png", 8, 8))
    client.run("1002", {"image": path}, **QUICK)
    (upload,) = server.uploads
    assert (upload.name, upload.content_type) == ("fox.png", "image/png")
    assert upload.data == path.read_bytes()
    assert server.jobs[0].inputs["image"] == f"{server.url('files')}/temp/{upload.key}"


def test_files_go_inside_as_base64(client: Any, server: SpeedPixServer, tmp_path: Path) -> None:
    path = tmp_path / "fox.png"
    path.write_bytes(render_picture("fox", "png", 8, 8))
    options = {"file_encoding_strategy": "base64"}
    client.predictions.create("1002", {"image": path}, **options).wait(0.005)
    assert server.jobs[0].inputs["image"].startswith("data:image/png;base64,")
    assert server.jobs[0].status == "succeeded"


def test_an_uploaded_file_has_its_address(client: Any, server: SpeedPixServer) -> None:
    file = client.files.create(io.BytesIO(b"fox"), filename="fox.png")
    assert (file.name, file.size, file.content_type) == ("fox.png", 3, "image/png")
    assert str(file) == file.access_url
    assert server.uploads[0].data == b"fox"


@pytest.mark.parametrize("secret", ["wrong", FAKE_APP_SECRET + " "])
def test_a_wrong_secret_is_refused(server: SpeedPixServer, secret: str) -> None:
    client = speedpix.Client(FAKE_APP_KEY, secret, server.base_url)
    with client, pytest.raises(httpx.HTTPStatusError) as refused:
        client.run("1001", INPUT)
    assert refused.value.response.headers["X-Ca-Error-Message"].startswith("Invalid Signature")
    assert server.jobs == []


def test_errors_reach_the_caller(client: Any, server: SpeedPixServer) -> None:
    with pytest.raises(Exception, match="工作流不存在"):
        client.run("7", INPUT)
    server.expect(SpeedPixOutcome(SAID["failed"]))
    with pytest.raises(speedpix.PredictionError, match="KSampler"):
        client.run("1001", INPUT, **QUICK)


# What is known of this client.


def test_the_other_spelling_of_success_is_too_much_for_it(
    client: Any, server: SpeedPixServer
) -> None:
    server.success = "successed"
    with pytest.raises(Exception, match="successed"):
        client.run("1001", INPUT, **QUICK)
    assert server.jobs[0].billed


def test_it_does_not_see_the_default_list_of_outputs(client: Any, server: SpeedPixServer) -> None:
    image = "data:image/png;base64,eA=="
    assert client.run("1002", {"image": image}, **QUICK) is None
    assert server.jobs[0].billed


def test_one_failed_look_loses_a_task_that_goes_on(client: Any, server: SpeedPixServer) -> None:
    server.inject(Fault("error", path="/scc/comfy_get_progress", status=200))
    with pytest.raises(speedpix.PredictionError, match="No progress data"):
        client.run("1001", INPUT, **QUICK)
    assert server.jobs[0].outcome.error is None


def test_a_failed_task_in_a_good_envelope_comes_out_as_nothing(
    client: Any, server: SpeedPixServer
) -> None:
    server.expect(SpeedPixOutcome("out of memory", told="data"))
    assert client.run("1001", INPUT, **QUICK) is None


def test_its_async_way_takes_a_prompt_for_a_file(
    client: Any, server: SpeedPixServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cat").write_text("a diary")
    run_async(client, "1001", {"prompt": "cat"})
    assert server.uploads[0].data == b"a diary"


def test_its_cancel_sends_nothing(client: Any, server: SpeedPixServer) -> None:
    prediction = client.run("1001", INPUT, wait=False)
    sent = len(server.requests)
    assert client.predictions.cancel(prediction.id).status == "failed"
    assert len(server.requests) == sent

"""The official Python client (replicate 1.0.x) works against the local server.

What it does wrong is asserted, too, where the local server must provoke it: a client that hides a
state proves that the state was sent.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from nbimg.testing import COMMUNITY_MODEL, FAILURES, FAKE_TOKEN, Outcome, ReplicateServer

replicate = pytest.importorskip("replicate", reason="the cross-check needs replicate 1.0.x")
from replicate.exceptions import ModelError, ReplicateError  # noqa: E402
from replicate.helpers import FileOutput  # noqa: E402

pytestmark = pytest.mark.timeout(20)

FLUX = "black-forest-labs/flux-dev"
INPUT = {"prompt": "a fox", "seed": 1}


@pytest.fixture
def server() -> Iterator[ReplicateServer]:
    with ReplicateServer() as server:
        yield server


@pytest.fixture
def client(server: ReplicateServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("REPLICATE_POLL_INTERVAL", "0.005")
    client = replicate.Client(api_token=FAKE_TOKEN, base_url=server.base_url)
    client.poll_interval = 0.005
    yield client
    client._client.close()  # it has no public way to close


@pytest.mark.parametrize("wait", [True, False, 5])
def test_run_gives_the_output(client: Any, server: ReplicateServer, wait: Any) -> None:
    output = client.run(FLUX, input=INPUT, wait=wait)
    assert output == [f"{server.files_url}/xezq/{server.jobs[0].id}/out-0.webp"]
    held = [c for c in server.matching("POST") if "Prefer" in c.headers]
    assert len(held) == (wait is not False)
    assert len(server.billed_jobs) == 1


@pytest.mark.parametrize("wait", [True, False])
def test_async_run_gives_the_output(client: Any, server: ReplicateServer, wait: bool) -> None:
    async def run() -> Any:
        try:
            return await client.async_run(FLUX, input=INPUT, wait=wait)
        finally:
            await client._async_client.aclose()

    assert asyncio.run(run()) == [f"{server.files_url}/xezq/{server.jobs[0].id}/out-0.webp"]
    assert server.duplicates() == []


def test_run_makes_a_file_output_of_a_data_uri(client: Any, server: ReplicateServer) -> None:
    server.expect(Outcome(output="data_uri"))
    output = client.run(FLUX, input={**INPUT, "output_format": "png"})
    assert isinstance(output, FileOutput)
    image = Image.open(io.BytesIO(output.read()))
    assert (image.format, image.size) == ("PNG", (64, 64))


def test_a_file_output_downloads_from_the_file_host_with_the_key(
    client: Any, server: ReplicateServer
) -> None:
    (url,) = client.run(FLUX, input=INPUT)
    assert FileOutput(url, client).read().startswith(b"RIFF")
    assert len(server.leaks) == 1  # known of this client, and what the server is to notice


def test_run_by_version_reads_the_version(client: Any, server: ReplicateServer) -> None:
    reference = f"{COMMUNITY_MODEL.name}:{COMMUNITY_MODEL.version}"
    assert client.run(reference, input={"prompt": "x"})[0].endswith(".png")
    assert server.count("GET", f"/v1/models/*/versions/{COMMUNITY_MODEL.version}") == 1


def test_a_prediction_is_created_read_and_waited_for(client: Any, server: ReplicateServer) -> None:
    prediction = client.models.predictions.create(FLUX, input=INPUT)
    assert prediction.status == "starting"
    prediction.wait()
    assert prediction.status == "succeeded"
    again = client.predictions.get(prediction.id)
    assert again.output == prediction.output
    assert again.input == INPUT
    assert again.progress.percentage == 1.0
    assert [job.id for job in server.billed_jobs] == [prediction.id]


def test_a_prediction_is_canceled(client: Any, server: ReplicateServer) -> None:
    server.running_s = 500
    prediction = client.predictions.create(version=COMMUNITY_MODEL.version, input={"prompt": "x"})
    prediction.cancel()
    assert prediction.status == "canceled"
    assert server.jobs[0].status == "canceled"


def test_predictions_are_listed_page_by_page(client: Any, server: ReplicateServer) -> None:
    server.page_size = 2
    ids = [client.models.predictions.create(FLUX, input=INPUT).id for _ in range(3)]
    first = client.predictions.list()
    assert [p.id for p in first] == ids[:0:-1]
    second = client.predictions.list(first.next)
    assert [p.id for p in second] == ids[:1]
    assert second.next is None


def test_a_deployment_runs(client: Any, server: ReplicateServer) -> None:
    server.deployments["acme/fast"] = FLUX
    prediction = client.deployments.predictions.create("acme/fast", input=INPUT)
    prediction.wait()
    assert prediction.status == "succeeded"


def test_files_are_created_read_listed_and_deleted(client: Any, server: ReplicateServer) -> None:
    data = io.BytesIO(b"fox")
    upload = client.files.create(data, filename="fox.png", metadata={"a": 1})
    assert (upload.size, upload.content_type, upload.metadata) == (3, "image/png", {"a": 1})
    assert server.uploads[0].data == b"fox"
    assert client.files.get(upload.id).checksums == upload.checksums
    assert [f.id for f in client.files.list()] == [upload.id]
    assert client.files.delete(upload.id)
    assert server.uploads == []


def test_a_file_input_is_uploaded_and_named_by_its_address(
    client: Any, server: ReplicateServer
) -> None:
    model = "black-forest-labs/flux-kontext-max"
    output = client.run(model, input={"prompt": "x", "input_image": io.BytesIO(b"fox")})
    assert output.endswith("/out-0.png")
    address = f"{server.base_url}/v1/files/{server.uploads[0].id}"
    assert server.jobs[0].input["input_image"] == address


def test_a_model_and_its_schema_are_read(client: Any) -> None:
    model = client.models.get(FLUX)
    assert model.id == FLUX
    schemas = model.latest_version.openapi_schema["components"]["schemas"]
    assert schemas["output_format"]["enum"] == ["webp", "jpg", "png"]
    (version,) = client.models.get(COMMUNITY_MODEL.name).versions.list()
    assert version.id == COMMUNITY_MODEL.version


def test_errors_reach_the_caller(client: Any, server: ReplicateServer) -> None:
    with pytest.raises(ReplicateError) as refused:
        client.run(FLUX, input={"prompt": "x", "seed": "seven"})
    assert refused.value.status == 422
    assert "input.seed" in str(refused.value.detail)
    server.expect(Outcome(error=FAILURES["E005"]))
    with pytest.raises(ModelError, match="E005"):
        client.run(FLUX, input=INPUT)


def test_a_held_create_that_claims_to_run_comes_out_as_nothing(
    client: Any, server: ReplicateServer
) -> None:
    server.hold = "processing"
    assert client.run(FLUX, input=INPUT) is None  # known of this client; the job is paid for
    server.hold = "starting"
    assert client.run(FLUX, input=INPUT) is not None

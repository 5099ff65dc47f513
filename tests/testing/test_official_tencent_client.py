"""The official Python client (tencentcloud-sdk-python-aiart 3.1.82) works against the local server.

What it does wrong is asserted, too, where the local server must provoke it: a client that stumbles
over a reply proves that the reply was sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from nbimg.testing import Fault
from nbimg.testing.hunyuan import HunyuanServer
from nbimg.testing.hunyuan_jobs import HunyuanOutcome

aiart = pytest.importorskip(
    "tencentcloud.aiart.v20221229.aiart_client", reason="the cross-check needs the aiart client"
)
from tencentcloud.aiart.v20221229 import aiart_client_async, models  # noqa: E402
from tencentcloud.common import credential  # noqa: E402
from tencentcloud.common.exception import TencentCloudSDKException  # noqa: E402
from tencentcloud.common.profile.client_profile import ClientProfile  # noqa: E402
from tencentcloud.common.profile.http_profile import HttpProfile  # noqa: E402

pytestmark = [
    pytest.mark.timeout(20),
    pytest.mark.filterwarnings("ignore:datetime.datetime.utcfromtimestamp:DeprecationWarning"),
]


@pytest.fixture
def server() -> Iterator[HunyuanServer]:
    with HunyuanServer(shrink=16) as server:
        yield server


def made(server: HunyuanServer, kind: Any, key: str | None = None) -> Any:
    endpoint = server.base_url.removeprefix("http://")
    profile = ClientProfile(httpProfile=HttpProfile(protocol="http", endpoint=endpoint))
    who = credential.Credential(server.secret_id, key or server.secret_key)
    return kind(who, "ap-guangzhou", profile)


@pytest.fixture
def client(server: HunyuanServer) -> Any:
    return made(server, aiart.AiartClient)


def order(**words: Any) -> Any:
    request = models.SubmitTextToImageJobRequest()
    request._deserialize({"Prompt": "雨中, 竹林", **words})
    return request


def question(job_id: str) -> Any:
    request = models.QueryTextToImageJobRequest()
    request.JobId = job_id
    return request


def test_a_job_is_submitted_queried_and_downloaded(client: Any, server: HunyuanServer) -> None:
    server.waiting_s = server.running_s = 5
    words = {"Resolution": "1280:720", "Seed": 7, "Revise": 0, "LogoAdd": 0}
    job_id = client.SubmitTextToImageJob(order(**words)).JobId
    seen = []
    for _ in range(3):
        found = client.QueryTextToImageJob(question(job_id))
        seen.append(found.JobStatusCode)
        server.advance(5)
    assert seen == ["1", "2", "5"]
    assert found.ResultDetails == ["Success"]
    assert httpx.get(found.ResultImage[0], verify=False).headers["content-type"] == "image/jpeg"
    (job,) = server.jobs
    assert (job.seed, job.input["resolution"], job.input["logo_add"]) == (7, "1280:720", False)


def test_the_asynchronous_client_does_the_same(server: HunyuanServer) -> None:
    async def run() -> Any:
        async with made(server, aiart_client_async.AiartClient) as client:
            job_id = (await client.SubmitTextToImageJob(order(Seed=7))).JobId
            server.advance(5)
            return await client.QueryTextToImageJob(question(job_id))

    found = asyncio.run(run())
    assert (found.JobStatusCode, len(found.ResultImage)) == ("5", 1)
    assert len(server.jobs) == 1


def test_a_logo_of_ones_own_arrives(client: Any, server: HunyuanServer) -> None:
    logo = {"LogoUrl": "https://example.com/x.png", "LogoRect": {"X": 1, "Y": 2, "Width": 3}}
    client.SubmitTextToImageJob(order(LogoParam=logo))
    assert server.jobs[0].sent["LogoParam"] == logo


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ({"Resolution": "1x1"}, "InvalidParameterValue.ParameterValueError"),
        ({"Prompt": ""}, "InvalidParameter.InvalidParameter"),
    ],
)
def test_an_error_reaches_the_caller(client: Any, words: dict[str, Any], code: str) -> None:
    with pytest.raises(TencentCloudSDKException) as refused:
        client.SubmitTextToImageJob(order(**words))
    assert refused.value.code == code
    assert refused.value.requestId


def test_a_wrong_key_is_a_wrong_signature(server: HunyuanServer) -> None:
    with pytest.raises(TencentCloudSDKException) as refused:
        made(server, aiart.AiartClient, "wrong").SubmitTextToImageJob(order())
    assert refused.value.code == "AuthFailure.SignatureFailure"


def test_a_refused_crowd_reaches_the_caller(client: Any, server: HunyuanServer) -> None:
    server.over_limit, server.running_s = "refuse", 100
    client.SubmitTextToImageJob(order())
    with pytest.raises(TencentCloudSDKException, match="JobNumExceed"):
        client.SubmitTextToImageJob(order())
    assert len(server.jobs) == 1


def test_a_job_that_failed_and_one_that_is_not_known(client: Any, server: HunyuanServer) -> None:
    server.expect(HunyuanOutcome(code="FailedOperation.ServerError"))
    job_id = client.SubmitTextToImageJob(order()).JobId
    server.advance(5)
    assert client.QueryTextToImageJob(question(job_id)).JobErrorCode.endswith("ServerError")
    with pytest.raises(TencentCloudSDKException, match="JobNotExist"):
        client.QueryTextToImageJob(question("nobody"))


def test_an_error_with_a_charset_comes_out_as_a_success_without_a_job(
    client: Any, server: HunyuanServer
) -> None:
    server.inject(Fault("content_type", content_type="application/json; charset=utf-8"))
    found = client.SubmitTextToImageJob(order(Prompt=""))
    assert found.JobId is None  # known of this client, and why the server sends the bare type
    assert server.jobs == []


def test_a_page_of_a_proxy_is_a_network_error(client: Any, server: HunyuanServer) -> None:
    server.inject(Fault("html", when="after"))
    with pytest.raises(TencentCloudSDKException) as lost:
        client.SubmitTextToImageJob(order())
    assert lost.value.code == "ServerNetworkError"
    assert len(server.jobs) == 1  # paid for, and its id is lost

"""The signature against the vectors that are published, and against the official client's own."""

import json
import time

import pytest

from nbimg.backends import tc3


def test_the_example_of_the_documentation():
    # https://www.tencentcloud.com/document/product/267/37447
    body = (
        rb'{"Limit": 1, "Filters": [{"Values": ["\u672a\u547d\u540d"], "Name": "instance-name"}]}'
    )
    assert tc3.authorization(
        "AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE",
        "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE",
        host="cvm.tencentcloudapi.com",
        service="cvm",
        body=body,
        at_utc=1551113065,
        content_type="application/json; charset=utf-8",
    ) == (
        "TC3-HMAC-SHA256 Credential=AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE/2019-02-25/cvm/tc3_request, "
        "SignedHeaders=content-type;host, "
        "Signature=72e494ea809ad7a8c8f7a4507b9bddcbaa8e581f516e8da2f66e2c5a96525168"
    )


def test_the_vector_of_the_image_api():
    header = tc3.authorization(
        "AKIDEXAMPLE",
        "SECRETEXAMPLE",
        host="aiart.tencentcloudapi.com",
        service="aiart",
        body=b'{"Prompt": "rain, bamboo"}',
        at_utc=1700000000,
    )
    assert header.endswith("6651c0b6ef4c912afa051caf6466530a8c1459d66aba5139fc605fb27f08a3b8")


NOW = pytest.param(int(time.time()), id="now")  # named, or workers of a run would not agree


@pytest.mark.parametrize("at_utc", [1, 1700006399, 1700006400, NOW])
@pytest.mark.parametrize("params", [{}, {"Prompt": "竹林 🐈", "Seed": 7}])
@pytest.mark.filterwarnings("ignore:datetime.datetime.utcfromtimestamp:DeprecationWarning")
def test_it_is_what_the_official_client_signs(monkeypatch, at_utc, params):
    aiart = pytest.importorskip("tencentcloud.aiart.v20221229.aiart_client")
    from tencentcloud.common import credential
    from tencentcloud.common.http.request import RequestInternal

    monkeypatch.setattr(time, "time", lambda: at_utc)
    client = aiart.AiartClient(credential.Credential("AKIDx", "KEYx"), "ap-guangzhou")
    request = RequestInternal(host="aiart.tencentcloudapi.com", method="POST", uri="/", header={})
    client._build_req_inter("SubmitTextToImageJob", params, request)
    assert request.header["Authorization"] == tc3.authorization(
        "AKIDx",
        "KEYx",
        host="aiart.tencentcloudapi.com",
        service="aiart",
        body=json.dumps(params).encode(),
        at_utc=at_utc,
    )

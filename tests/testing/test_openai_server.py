"""The local server of the OpenAI images API, and that the official client (openai 3) works against it.

What the client does badly is asserted, too, where the server must provoke it: that it pays twice for what
it lost, and asks again when there is no money.
"""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from nbimg.testing import FAKE_OPENAI_KEY, Fault, OpenAIServer, RateLimit
from nbimg.testing.pictures import render_picture

openai = pytest.importorskip("openai", reason="the cross-check needs the official client")

pytestmark = pytest.mark.timeout(30)

CREATE = ("POST", "/v1/images/*")
MODEL = {
    "openai": "gpt-image-2",
    "relay": "some-painter",
    "vllm": "Qwen/Qwen-Image",
    "sglang": "black-forest-labs/FLUX.1-dev",
    "localai": "stablediffusion",
}


@pytest.fixture
def start() -> Iterator[Callable[..., tuple[OpenAIServer, Any]]]:
    """Start a server and the official client of it, which asks once unless told otherwise."""
    running: list[OpenAIServer] = []
    clients: list[Any] = []

    def begin(dialect: Any = "openai", *, tries: int = 1, **knobs: Any) -> tuple[OpenAIServer, Any]:
        running.append(OpenAIServer(dialect, **knobs).start())
        base = f"{running[-1].base_url}/v1"
        clients.append(
            openai.OpenAI(api_key=FAKE_OPENAI_KEY, base_url=base, max_retries=tries - 1, timeout=5)
        )
        return running[-1], clients[-1]

    yield begin
    for client in clients:
        client.close()
    for server in running:
        server.stop()


def picture(text: str) -> tuple[bytes, tuple[int, int], str | None]:
    data = base64.b64decode(text)
    image = Image.open(io.BytesIO(data))
    return data, image.size, image.format


# ------------------------------------------------------------------ OpenAI


def test_the_client_gets_pictures_and_tokens(start: Any) -> None:
    server, client = start()
    answer = client.images.generate(
        model="gpt-image-2", prompt="a fox", n=2, size="128x64", output_format="webp"
    )
    assert [picture(row.b64_json)[1:] for row in answer.data] == [((128, 64), "WEBP")] * 2
    assert answer.data[0].b64_json != answer.data[1].b64_json
    assert answer.usage.output_tokens == 2000
    assert answer.usage.input_tokens_details.text_tokens == 5
    assert len(server.jobs) == 1


def test_the_client_edits_several_images_with_a_mask(start: Any) -> None:
    server, client = start()
    images = [render_picture(name, "png", 16, 8) for name in "ab"]
    mask = io.BytesIO()
    Image.new("RGBA", (16, 8)).save(mask, "PNG")
    files = [(f"{number}.png", data, "image/png") for number, data in enumerate(images)]
    client.images.edit(
        model="gpt-image-2",
        prompt="a fox",
        image=files,
        mask=("m.png", mask.getvalue(), "image/png"),
        n=2,
    )
    (job,) = server.jobs
    assert job.asked.images == tuple(images)
    assert job.asked.image_fields == ("image[]", "image[]")
    assert job.asked.mask == mask.getvalue()
    assert (job.count, job.fields["n"]) == (2, 2)


def test_one_image_of_the_client_comes_as_image(start: Any) -> None:
    server, client = start()
    file = ("a.png", render_picture("a", "png", 8, 8), "image/png")
    client.images.edit(model="gpt-image-1.5", prompt="a fox", image=file)
    assert server.jobs[0].asked.image_fields == ("image",)


@pytest.mark.parametrize("band", ["RGB", "L"])
def test_a_mask_that_is_not_cut_out_is_refused(start: Any, band: str) -> None:
    server, client = start()
    mask = io.BytesIO()
    Image.new(band, (8, 8)).save(mask, "PNG")
    file = ("a.png", render_picture("a", "png", 8, 8), "image/png")
    with pytest.raises(openai.BadRequestError, match="alpha"):
        client.images.edit(
            model="gpt-image-2",
            prompt="x",
            image=file,
            mask=("m.png", mask.getvalue(), "image/png"),
        )
    assert server.jobs == []


@pytest.mark.parametrize("edits", [False, True])
def test_the_client_reads_the_stream_of_partial_images(start: Any, edits: bool) -> None:
    _, client = start()
    common: dict[str, Any] = {"model": "gpt-image-2", "prompt": "a fox", "stream": True}
    file = ("a.png", render_picture("a", "png", 8, 8), "image/png")
    if edits:
        stream = client.images.edit(image=file, partial_images=2, **common)
    else:
        stream = client.images.generate(partial_images=2, **common)
    events = list(stream)
    kind = "image_edit" if edits else "image_generation"
    assert [event.type for event in events] == [f"{kind}.partial_image"] * 2 + [f"{kind}.completed"]
    assert picture(events[-1].b64_json)[1] == (64, 64)
    assert events[-1].usage.output_tokens == 1200


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"response_format": "b64_json"}, "Unknown parameter: 'response_format'"),
        ({"extra_body": {"seed": 1}}, "Unknown parameter: 'seed'"),
        ({"n": 11}, "'n'"),
        ({"size": "100x100"}, "'size'"),
        ({"size": "4096x1024"}, "'size'"),
        ({"quality": "ultra"}, "'quality'"),
        ({"prompt": ""}, "'prompt'"),
    ],
)
def test_what_openai_does_not_take_is_a_400(start: Any, fields: Any, text: str) -> None:
    server, client = start()
    with pytest.raises(openai.BadRequestError, match=text):
        client.images.generate(**{"model": "gpt-image-2", "prompt": "a fox", **fields})
    assert server.jobs == []


def test_a_refused_prompt_has_its_code(start: Any) -> None:
    _, client = start(refuses="dragon")
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(model="gpt-image-2", prompt="a dragon")
    assert caught.value.code == "moderation_blocked"


def test_a_key_and_a_model_that_do_not_exist(start: Any) -> None:
    server, client = start()
    with pytest.raises(openai.NotFoundError) as caught:
        client.images.generate(model="gpt-image-1", prompt="x")
    assert caught.value.code == "model_not_found"
    server.key = "another"
    with pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_the_client_waits_for_a_rate_limit(start: Any) -> None:
    server, client = start(tries=3, image_limit=RateLimit(600, 1))
    for _ in range(2):
        client.images.generate(model="gpt-image-2", prompt="x")
    assert len(server.jobs) == 2
    (refused,) = [call for call in server.requests[1:-1] if call.method == "POST"]
    assert refused.path == "/v1/images/generations"


def test_a_rate_limit_says_in_headers_and_text_when_to_come_back(start: Any) -> None:
    _, client = start(image_limit=RateLimit(60, 1))
    client.images.generate(model="gpt-image-2", prompt="x")
    with pytest.raises(openai.RateLimitError) as caught:
        client.images.generate(model="gpt-image-2", prompt="x")
    assert caught.value.code == "rate_limit_exceeded"
    headers = caught.value.response.headers
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert headers["x-ratelimit-reset-requests"].endswith("s")
    assert "try again in" in str(caught.value)


def test_the_client_asks_again_when_there_is_no_money(start: Any) -> None:
    server, client = start(tries=3, money="none")
    with pytest.raises(openai.RateLimitError) as caught:
        client.images.generate(model="gpt-image-2", prompt="x")
    assert caught.value.code == "insufficient_quota"
    assert (server.count(*CREATE), server.jobs) == (3, [])


def test_the_ledger_shows_that_the_client_pays_twice_for_what_it_lost(start: Any) -> None:
    server, client = start(tries=3, faults=[Fault("drop", *CREATE, when="after")])
    client.images.generate(model="gpt-image-2", prompt="x")
    assert len(server.jobs) == 2
    assert server.duplicates() == server.jobs[1:]


def test_the_asynchronous_client_works_too(start: Any) -> None:
    server, _ = start()

    async def make() -> int:
        async with openai.AsyncOpenAI(
            api_key=FAKE_OPENAI_KEY, base_url=f"{server.base_url}/v1", max_retries=0
        ) as client:
            made = [client.images.generate(model="gpt-image-2", prompt=f"{n}") for n in range(5)]
            return len(await asyncio.gather(*made))

    assert asyncio.run(make()) == len(server.jobs) == 5


# ------------------------------------------------------------------ those who copy it


def test_every_dialect_lists_its_models_in_its_way(start: Any) -> None:
    owners = {}
    for dialect in MODEL:
        _, client = start(dialect)
        card = client.models.list().data[0]
        owners[dialect] = getattr(card, "owned_by", None)
        assert (getattr(card, "task_type", None) is not None) is (dialect == "sglang")
    assert owners == {
        "openai": "system",
        "relay": "relay",
        "vllm": "vllm",
        "sglang": "sglang",
        "localai": None,
    }


@pytest.mark.parametrize("dialect", ["relay", "vllm", "sglang", "localai"])
def test_a_copy_gives_base64_when_asked(start: Any, dialect: str) -> None:
    _, client = start(dialect)
    answer = client.images.generate(
        model=MODEL[dialect], prompt="x", size="128x64", response_format="b64_json"
    )
    size = (64, 64) if dialect == "localai" else (128, 64)
    assert picture(answer.data[0].b64_json)[1] == size


@pytest.mark.parametrize("dialect", ["relay", "sglang", "localai"])
def test_a_copy_gives_addresses_by_itself(start: Any, dialect: str) -> None:
    server, client = start(dialect)
    url = client.images.generate(model=MODEL[dialect], prompt="x").data[0].url
    begins = {"relay": server.files_url, "localai": server.base_url, "sglang": "/v1/images/"}
    assert url.startswith(begins[dialect])
    headers = {"Authorization": f"Bearer {FAKE_OPENAI_KEY}"} if dialect == "sglang" else {}
    whole = server.base_url + url if url.startswith("/") else url
    found = httpx.get(whole, headers=headers, verify=False)
    assert found.content.startswith(b"\x89PNG")
    assert not server.leaks


def test_a_seed_makes_the_same_picture_again(start: Any) -> None:
    _, client = start("vllm")

    def make(seed: int | None) -> str:
        body = {} if seed is None else {"seed": seed}
        answer = client.images.generate(model=MODEL["vllm"], prompt="x", extra_body=body)
        return str(answer.data[0].b64_json)

    assert make(1) == make(1) != make(2)
    assert make(None) != make(None)


def test_vllm_gives_raw_bytes_when_asked(start: Any) -> None:
    _, client = start("vllm")
    body = {"model": MODEL["vllm"], "prompt": "x", "response_format": "file"}
    answer = client.post("/images/generations", body=body, cast_to=httpx.Response)
    assert answer.content.startswith(b"\x89PNG")
    assert "attachment" in answer.headers["content-disposition"]


def test_the_text_of_vllms_errors_is_lost_by_the_client(start: Any) -> None:
    _, client = start("vllm")
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.images.generate(model=MODEL["vllm"], prompt="x", response_format="url")
    assert (caught.value.code, caught.value.type) == (None, None)
    assert "b64_json" in caught.value.response.text


def test_vllm_is_not_ready_at_first(start: Any) -> None:
    server, client = start("vllm", not_ready=1, tries=2)
    client.images.generate(model=MODEL["vllm"], prompt="x")
    assert (server.count(*CREATE), len(server.jobs)) == (2, 1)


def test_vllm_loses_answers_when_many_ask_at_once(start: Any) -> None:
    server, _ = start("vllm", making_s=0.05, loses_above=1)

    async def make() -> list[Any]:
        async with openai.AsyncOpenAI(
            api_key="any", base_url=f"{server.base_url}/v1", max_retries=0, timeout=0.5
        ) as client:
            made = [client.images.generate(model=MODEL["vllm"], prompt=f"{n}") for n in range(4)]
            return await asyncio.gather(*made, return_exceptions=True)

    server.key = None
    found = asyncio.run(make())
    assert sum(isinstance(one, openai.APITimeoutError) for one in found) == 3
    assert len(server.jobs) == 4


def test_an_old_sglang_makes_the_picture_and_refuses_to_show_it(start: Any) -> None:
    server, client = start("sglang", old=True)
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(model=MODEL["sglang"], prompt="x")
    assert "response_format" in caught.value.response.text
    assert len(server.jobs) == 1


def test_localai_has_integer_codes_and_no_edits(start: Any) -> None:
    _, client = start("localai", old=True)
    with pytest.raises(openai.InternalServerError) as caught:
        client.images.generate(model=MODEL["localai"], prompt="x", response_format="b64_json")
    assert caught.value.body["code"] == 500
    file = ("a.png", render_picture("a", "png", 8, 8), "image/png")
    with pytest.raises(openai.NotFoundError):
        client.images.edit(model=MODEL["localai"], prompt="x", image=file)


@pytest.mark.parametrize(("counts", "number"), [("honour", 3), ("one", 1), ("fewer", 2)])
def test_the_number_is_honoured_ignored_or_almost_reached(
    start: Any, counts: Any, number: int
) -> None:
    _, client = start(counts=counts)
    answer = client.images.generate(model="gpt-image-2", prompt="x", n=3)
    assert len(answer.data) == number

import base64
import io
import json
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import nbimg
from nbimg.backends import openai, openai_dialects, openai_replies
from nbimg.backends.base import Call, Context, State, report, reporting
from nbimg.backends.http import Reply
from nbimg.backends.openai_dialects import (
    LOCALAI,
    OPENAI,
    RELAY,
    SGLANG,
    VLLM,
    capabilities,
    fields,
    recognise,
)
from nbimg.calls.jobs import Job
from nbimg.config import Settings
from nbimg.credentials.keys import Keys
from nbimg.errors import BackendError, KeyMissingError, ReplyError, UnknownNameError
from nbimg.events import Finished, Preview
from nbimg.testing import FAKE_OPENAI_KEY, Fault, OpenAIServer, RateLimit, conformance
from nbimg.testing.conformance import BackendConformance, Place, inline
from nbimg.testing.pictures import render_picture
from nbimg.types import ModelRef, Status

CREATE = Place("POST", "/v1/images/*")
PICTURE = render_picture("a picture", "png", 8, 8)
MODELS = {
    "openai": "openai:gpt-image-2",
    "relay": "openai:some-painter",
    "vllm": "openai:Qwen/Qwen-Image",
    "sglang": "openai:black-forest-labs/FLUX.1-dev",
    "localai": "openai:stablediffusion",
}
EVERY = pytest.mark.parametrize("dialect", MODELS)


@pytest.fixture
def serve(monkeypatch):
    """Start a server in a dialect, with which the default session speaks; nothing leaks to its files."""
    running = []

    def start(dialect="openai", **knobs):
        running.append(OpenAIServer(dialect, **knobs).start())
        monkeypatch.setenv("NBIMG_OPENAI_BASE_URL", f"{running[-1].base_url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", FAKE_OPENAI_KEY)
        return running[-1]

    yield start
    for one in running:
        one.stop()
        assert not one.leaks


def make(prompt="a red house", dialect="openai", **options):
    (result,) = nbimg.generate([prompt], model=MODELS[dialect], fallback=(), **options)
    return result


def call(**values):
    return Call(ModelRef("openai", "m"), "a fox", **values)


def answer(value, status=200, headers=None):
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Reply(status, headers or {}, content, "http://h:1/v1/images/generations")


def body_of(server):
    return server.jobs[-1].fields


# ------------------------------------------------------------------ who is there


@pytest.mark.parametrize(
    ("listing", "dialect"),
    [
        ({"data": [{"id": "a", "owned_by": "vllm", "created": 1}]}, VLLM),
        ({"data": [{"id": "a", "owned_by": "sglang", "created": 1}]}, SGLANG),
        ({"data": [{"id": "a", "owned_by": "me", "task_type": "T2I"}]}, SGLANG),
        ({"model_path": "a", "task_type": "T2I"}, SGLANG),
        ({"object": "list", "data": [{"id": "a", "object": "model"}]}, LOCALAI),
        ({"data": [{"id": "a", "owned_by": "system", "created": 1}]}, RELAY),
        ({"data": []}, RELAY),
        ({"data": [None, 1]}, RELAY),
        ([], RELAY),
        (None, RELAY),
    ],
)
def test_a_server_is_told_by_its_list_of_models(listing, dialect):
    assert recognise(listing).dialect is dialect


def test_a_relay_passes_openais_models_on_in_openais_dialect():
    served = recognise({"data": [{"id": "gpt-image-2", "owned_by": "x"}]})
    assert served.of("gpt-image-2") is served.of("openai/gpt-image-1.5") is OPENAI
    assert served.of("chatgpt-image-latest") is OPENAI
    assert served.of("some-painter") is RELAY


@pytest.mark.parametrize(
    ("url", "near"),
    [
        ("http://127.0.0.1:1/v1", True),
        ("http://[::1]/v1", True),
        ("http://10.1.2.3/v1", True),
        ("http://localhost/v1", True),
        ("http://gpu.local/v1", True),
        ("https://api.example.com/v1", False),
        ("https://8.8.8.8/v1", False),
    ],
)
def test_a_local_address_is_told_from_a_public_one(url, near):
    assert openai_dialects.local(url) is near


@pytest.mark.parametrize(
    ("url", "at_once"),
    [(None, 4), ("http://localhost:8000/v1", 1), ("https://relay.example/v1", 4)],
)
def test_a_server_of_ones_own_gets_one_call_at_a_time(url, at_once):
    environ = {"NBIMG_OPENAI_BASE_URL": url} if url else {}
    backend = openai.OpenAIBackend(Context(Settings(environ), Keys(environ)))
    assert backend.concurrency == at_once


def test_a_known_server_of_ones_own_gets_one_call_at_a_time_wherever_it_is():
    environ = {"NBIMG_OPENAI_BASE_URL": "https://gpu.example/v1"}
    backend = openai.OpenAIBackend(Context(Settings(environ), Keys(environ)))
    backend._served["https://gpu.example/v1"] = (0.0, openai_dialects.Served(VLLM))
    assert backend.concurrency == 1


@pytest.mark.parametrize(
    ("environ", "dotenv", "base"),
    [
        ({}, "", "https://api.openai.com/v1"),
        ({"OPENAI_BASE_URL": "http://a/v1/"}, "", "http://a/v1"),
        ({"OPENAI_BASE_URL": "http://a"}, "", "http://a/v1"),
        ({}, "OPENAI_BASE_URL=http://b/api\n", "http://b/api"),
        (
            {"OPENAI_BASE_URL": "http://a/v1", "NBIMG_OPENAI_BASE_URL": "http://c/v1"},
            "",
            "http://c/v1",
        ),
    ],
)
def test_the_base_url_is_found_where_the_official_client_and_people_put_it(environ, dotenv, base):
    Path(".env").write_text(dotenv)
    backend = openai.OpenAIBackend(Context(Settings(environ), Keys(environ)))
    assert backend._base == base


def test_a_server_is_asked_once_what_it_is(serve):
    server = serve("vllm")
    for _ in range(3):
        assert make(dialect="vllm").status is Status.OK
    assert server.count("GET", "/v1/models") == 1


def test_an_old_sglang_is_found_by_its_own_list(serve):
    server = serve("sglang", old=True)
    result = make(dialect="sglang", seed=3)
    assert (result.status, result.images[0].seed) == (Status.OK, 3)
    assert server.count("GET", "/models") == 1


def test_a_server_without_any_list_is_an_unknown_one(serve):
    server = serve("relay")
    server.inject(Fault("error", method="GET", path="*/models", status=404, times=None))
    assert make(dialect="relay").status is Status.OK


def test_a_model_that_a_server_of_one_model_does_not_have_names_what_it_has(serve):
    server = serve("vllm")
    with pytest.raises(UnknownNameError, match="openai:Qwen/Qwen-Image"):
        nbimg.generate("x", model="openai:Qwen/Qwen-Image-Edit", fallback=())
    assert server.count(*CREATE) == 0


def test_openai_itself_is_not_asked_what_it_is_and_needs_a_key(monkeypatch):
    with pytest.raises(KeyMissingError, match="OPENAI_API_KEY"):
        nbimg.generate("x", model="gpt-image-2", fallback=())


@pytest.mark.parametrize("dialect", ["vllm", "sglang", "localai"])
def test_a_server_of_ones_own_needs_no_key(serve, monkeypatch, dialect):
    server = serve(dialect, key=None)
    monkeypatch.delenv("OPENAI_API_KEY")
    assert make(dialect=dialect).status is Status.OK
    assert not any("Authorization" in one.headers for one in server.requests)


def test_a_key_alone_chooses_the_catalogues_model_for_making_and_for_editing(serve):
    server = serve()
    assert nbimg.generate(["x"])[0].model == "openai:gpt-image-2"
    assert nbimg.edit([PICTURE], ["x"])[0].status is Status.OK
    assert [job.fields["model"] for job in server.jobs] == ["gpt-image-2"] * 2


# ------------------------------------------------------------------ what is taken


def test_openais_newer_models_take_any_size_and_the_older_ones_three():
    new, old = (capabilities(recognise(None), f"gpt-image-{n}") for n in ("2.5-flare", "1.5"))
    assert {"width", "height", "n", "format", "image", "mask"} == set(new.options)
    assert new.extra["quality"].allowed[-1] == "max"
    assert old.options["size"].allowed == ("auto", "1024x1024", "1536x1024", "1024x1536")
    assert "max" not in old.extra["quality"].allowed
    assert "input_fidelity" in old.extra
    assert "input_fidelity" not in new.extra


@pytest.mark.parametrize(
    ("task", "makes", "edits"), [("T2I", True, 0), ("I2I", False, 16), ("TI2I", True, 16)]
)
def test_sglang_says_whether_its_model_makes_or_edits(task, makes, edits):
    can = capabilities(recognise({"data": [{"id": "m", "task_type": task}]}), "m")
    assert (can.makes, can.max_images) == (makes, edits)


@pytest.mark.parametrize(
    ("model", "name"), [("Qwen/Qwen-Image", "true_cfg_scale"), ("flux", "guidance_scale")]
)
def test_guidance_reaches_the_parameter_that_has_an_effect(model, name):
    can = capabilities(recognise({"data": [{"id": model, "owned_by": "vllm"}]}), model)
    assert can.options["guidance"].name == name


@pytest.mark.parametrize(
    ("dialect", "arguments", "body"),
    [
        (OPENAI, {"width": 64, "height": 32}, {"size": "64x32"}),
        (OPENAI, {"width": 64, "height": 32, "size": "auto"}, {"size": "auto"}),
        (OPENAI, {"aspect_ratio": "2:3"}, {"size": "1024x1536"}),
        (OPENAI, {"partial_images": 2}, {"partial_images": 2, "stream": True}),
        (OPENAI, {"partial_images": 0}, {}),
        (RELAY, {"aspect_ratio": "2:3"}, {"aspect_ratio": "2:3"}),
        (LOCALAI, {"negative_prompt": "fog", "step": 3}, {"prompt": "a fox|fog", "step": 3}),
    ],
)
def test_our_options_become_the_fields_of_a_dialect(dialect, arguments, body):
    sent = fields(dialect, call(arguments=arguments), asks_base64=False)
    assert sent == {"model": "m", "prompt": "a fox", **body}


def test_a_bar_in_a_prompt_is_no_negative_prompt():
    sent = fields(LOCALAI, Call(ModelRef("openai", "m"), "cat | dog"), asks_base64=False)
    assert sent["prompt"] == "cat , dog"


def test_base64_is_asked_for_unless_the_user_asks_for_something_else():
    assert fields(RELAY, call(), asks_base64=True)["response_format"] == "b64_json"
    own = call(arguments={"response_format": "url"})
    assert fields(RELAY, own, asks_base64=True)["response_format"] == "url"


@EVERY
def test_every_dialect_makes_several_pictures_of_a_size(serve, dialect):
    server = serve(dialect)
    result = make(dialect=dialect, n=3, size="128x64", output="x.jpg")
    assert result.status is Status.OK, result.error
    wanted = (64, 64) if dialect == "localai" else (128, 64)  # it ignores the size
    assert [(i.width, i.height, i.mime) for i in result.images] == [(*wanted, "image/jpeg")] * 3
    assert len({image.sha256 for image in result.images}) == 3
    assert len(server.jobs) == (1 if dialect == "openai" else 3)
    assert body_of(server)["size"] == "128x64"


@EVERY
def test_a_seed_is_sent_where_the_dialect_takes_one_and_only_there(serve, dialect):
    server = serve(dialect)
    result = make(dialect=dialect, n=2, seed=7)
    assert result.status is Status.OK, result.error
    takes = dialect in {"vllm", "sglang", "localai"}
    assert [job.fields.get("seed") for job in server.jobs] == (
        [7, 8] if takes else [None] * len(server.jobs)
    )
    assert [image.seed for image in result.images] == ([7, 8] if takes else [None, None])
    assert any("takes no seed" in text for text in result.notices) is not takes


def test_a_ratio_becomes_the_nearest_of_three_sizes(serve):
    server = serve()
    (result,) = nbimg.generate(["x"], model="gpt-image-1.5", ar="16:9", fallback=())
    assert result.status is Status.OK, result.error
    assert body_of(server)["size"] == "1536x1024"
    assert any("3:2" in text for text in result.notices)


def test_the_format_of_the_file_is_asked_for(serve):
    server = serve()
    result = make(output="house.webp")
    assert body_of(server)["output_format"] == "webp"
    assert result.images[0].path.name == "house.webp"


def test_a_parameter_that_openai_does_not_have_is_refused_before_anything_is_sent(serve):
    server = serve()
    (result,) = nbimg.generate(["x"], model="gpt-image-2", params={"qualty": "low"}, fallback=())
    assert "quality" in str(result.error)
    assert server.count(*CREATE) == 0


# ------------------------------------------------------------------ edits


@pytest.mark.parametrize("dialect", ["openai", "relay", "vllm", "sglang", "localai"])
@pytest.mark.parametrize("number", [1, 3])
def test_images_go_along_in_order_under_the_name_that_the_dialect_knows(serve, dialect, number):
    server = serve(dialect)
    images = [render_picture(f"{n}", "png", 16, 16) for n in range(number)]
    (result,) = nbimg.edit(images, "together", mode="combine", model=MODELS[dialect])
    assert result.status is Status.OK, result.error
    (job,) = server.jobs
    assert job.asked.images == tuple(images)
    several = {"openai": "image[]", "relay": "image[]"}.get(dialect, "image")
    names = () if dialect == "localai" else (("image",) if number == 1 else (several,) * number)
    assert job.asked.image_fields == names


def test_an_unusual_format_goes_along_as_png(serve):
    server = serve()
    target = io.BytesIO()
    PIL.Image.new("RGB", (9, 7), "red").save(target, "BMP")
    (result,) = nbimg.edit([target.getvalue()], "x", model="gpt-image-2")
    assert result.status is Status.OK, result.error
    assert PIL.Image.open(io.BytesIO(server.jobs[0].asked.images[0])).format == "PNG"


def half_white(size=(20, 10), mode="L"):
    target = io.BytesIO()
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[:, : size[0] // 2] = 255
    PIL.Image.fromarray(pixels).convert(mode).save(target, "PNG")
    return target.getvalue()


@pytest.mark.parametrize("mode", ["L", "RGB", "1"])
def test_what_is_white_in_a_mask_is_cut_out_for_openai(serve, mode):
    server = serve()
    image = render_picture("x", "png", 40, 20)
    (result,) = nbimg.edit([image], "x", mask=half_white(mode=mode), model="gpt-image-2")
    assert result.status is Status.OK, result.error
    mask = PIL.Image.open(io.BytesIO(server.jobs[0].asked.mask))
    assert mask.size == (40, 20)
    assert (mask.getpixel((1, 1))[3], mask.getpixel((38, 1))[3]) == (0, 255)


def test_a_mask_that_is_cut_out_already_stays_as_it_is(serve):
    server = serve()
    cut = PIL.Image.new("RGBA", (40, 20), (255, 255, 255, 255))
    cut.paste((0, 0, 0, 0), (0, 0, 10, 20))
    target = io.BytesIO()
    cut.save(target, "PNG")
    image = render_picture("x", "png", 40, 20)
    nbimg.edit([image], "x", mask=target.getvalue(), model="gpt-image-2")
    mask = PIL.Image.open(io.BytesIO(server.jobs[0].asked.mask))
    assert (mask.getpixel((1, 1))[3], mask.getpixel((38, 1))[3]) == (0, 255)


def test_vllm_gets_a_mask_that_is_white_where_the_picture_is_to_change(serve):
    server = serve("vllm")
    image = render_picture("x", "png", 20, 10)
    nbimg.edit([image], "x", mask=half_white(), model=MODELS["vllm"])
    mask = PIL.Image.open(io.BytesIO(server.jobs[0].asked.mask))
    assert (mask.mode, mask.getpixel((1, 1)), mask.getpixel((18, 1))) == ("L", 255, 0)


# ------------------------------------------------------------------ what comes back


@pytest.mark.parametrize("dialect", ["relay", "sglang", "localai"])
@pytest.mark.parametrize("n", [1, 2])
def test_addresses_are_fetched_relative_ones_too(serve, dialect, n):
    server = serve(dialect)
    result = make(dialect=dialect, params={"response_format": "url", "n": n})
    assert result.status is Status.OK, result.error
    assert len(result.images) == n
    home = server.files_url if dialect == "relay" else server.base_url
    assert all(image.url.startswith(home + "/") for image in result.images)
    asked = server.matching(host="files" if dialect == "relay" else "api", method="GET")[-1]
    assert ("Authorization" in asked.headers) is (dialect != "relay")


def test_raw_bytes_are_a_picture(serve):
    serve("vllm")
    result = make(dialect="vllm", params={"response_format": "file"})
    assert result.status is Status.OK, result.error


def test_an_address_that_is_gone_says_so(serve):
    server = serve("relay")
    server.inject(Fault("error", method="GET", path="/*.png", status=404, times=None))
    result = make(dialect="relay", params={"response_format": "url"})
    assert result.error.http_status == 404
    assert "limited time" in result.error.hint


@pytest.mark.parametrize(
    ("row", "data", "url"),
    [
        ({"b64_json": base64.b64encode(PICTURE).decode()}, PICTURE, None),
        (
            {"b64_json": "data:image/png;base64," + base64.b64encode(PICTURE).decode()},
            PICTURE,
            None,
        ),
        ({"url": "data:image/png;base64," + base64.b64encode(PICTURE).decode()}, PICTURE, None),
        ({"url": "/v1/images/1/content", "b64_json": None}, None, "http://h:1/v1/images/1/content"),
        ({"url": "x.png"}, None, "http://h:1/x.png"),
        ({"url": "https://other/x.png"}, None, "https://other/x.png"),
        ({"b64_json": "!"}, b"", None),
    ],
)
def test_a_row_holds_base64_or_an_address(row, data, url):
    (output,) = openai_replies.prediction(RELAY, answer({"data": [row]})).outputs
    assert (output.data, output.url) == (data, url)


@pytest.mark.parametrize("rows", [[], [{}], [None], [{"b64_json": "", "url": None}]])
def test_an_answer_without_a_picture_is_a_failure(rows):
    found = openai_replies.prediction(OPENAI, answer({"data": rows}))
    assert (found.state, found.outputs) == (State.FAILED, ())
    assert "without an image" in str(found.error)


@pytest.mark.parametrize("body", [{}, None, [1], b"<html>", b"", {"data": None}, b"data: {}\n\n"])
def test_what_is_no_answer_of_this_api_is_a_reply_error(body):
    with pytest.raises(ReplyError):
        openai_replies.prediction(OPENAI, answer(body))


def test_an_error_that_comes_with_200_is_an_error():
    with pytest.raises(BackendError, match="quota"):
        openai_replies.prediction(RELAY, answer({"error": {"message": "quota", "code": "x"}}))


def test_tokens_are_carried_into_result_and_set(serve):
    serve()
    results = nbimg.generate(["abc", "de"], model="gpt-image-2", n=2, fallback=())
    assert results[0].usage["output_tokens"] == 2000
    assert results[0].usage["input_text_tokens"] == 3
    assert (results.usage.input_tokens, results.usage.output_tokens) == (5, 4000)
    again = type(results[0]).from_dict(json.loads(json.dumps(results[0].to_dict())))
    assert again.usage == results[0].usage


# ------------------------------------------------------------------ how many


def test_a_list_that_is_too_short_keeps_what_came(serve):
    server = serve(counts="fewer")
    result = make(n=3)
    assert (result.status, len(result.images)) == (Status.PARTIAL, 2)
    assert len(server.jobs) == 1


def test_a_server_that_ignores_the_number_is_asked_one_by_one_from_then_on(serve):
    server = serve(counts="one")
    assert (make(n=3).status, len(server.jobs)) == (Status.PARTIAL, 1)
    again = make(n=3)
    assert (again.status, len(again.images), len(server.jobs)) == (Status.OK, 3, 4)


# ------------------------------------------------------------------ response_format, both readings


@pytest.mark.parametrize(
    ("dialect", "knobs", "creates"),
    [("relay", {}, 1), ("localai", {"old": True}, 2), ("sglang", {"old": True}, 1)],
)
def test_a_server_that_does_not_want_the_field_is_asked_without_it_and_remembered(
    serve, dialect, knobs, creates
):
    server = serve(dialect, **knobs)
    assert make(dialect=dialect).status is Status.OK
    assert server.count(*CREATE) == creates
    assert make(dialect=dialect).status is Status.OK
    assert server.count(*CREATE) == creates + 1
    assert len(server.jobs) == 2


# ------------------------------------------------------------------ previews


@pytest.fixture
def events(monkeypatch):
    """Everything that any job hears, with the time."""
    heard, hear = [], Job._hear

    def listen(job, event):
        heard.append((time.monotonic(), event))
        hear(job, event)

    monkeypatch.setattr(Job, "_hear", listen)
    return heard


@pytest.mark.parametrize("edits", [False, True])
def test_partial_images_become_small_previews_while_the_picture_is_on_its_way(serve, events, edits):
    server = serve(side_px=700)
    server.inject(Fault("drip", *CREATE, delay_s=0.5))
    options = {"model": "gpt-image-2", "params": {"partial_images": 2}, "fallback": ()}
    if edits:
        (result,) = nbimg.edit([PICTURE], ["x"], **options)
    else:
        (_, result) = nbimg.generate(["first", "x"], concurrency=1, **options)
    assert result.status is Status.OK, result.error
    assert body_of(server)["stream"] is True
    previews = [(at, event) for at, event in events if isinstance(event, Preview)]
    (done,) = [at for at, e in events if isinstance(e, Finished) and e.task == result.index]
    assert len([1 for _, event in previews if event.task == result.index]) == 2
    assert all(len(event.data) < 20_000 and event.data[:4] == b"RIFF" for _, event in previews)
    assert any(done - at > 0.1 for at, _ in previews if edits) or not edits
    assert result.images[0].width == 700


def test_a_preview_that_is_no_picture_costs_nothing(serve):
    server = serve()
    event = {"type": "image_generation.partial_image", "b64_json": "bm8="}
    done = {"type": "image_generation.completed", "b64_json": base64.b64encode(PICTURE).decode()}
    text = "".join(f"data: {json.dumps(one)}\n\n" for one in (event, done))
    server.inject(Fault("body", *CREATE, body=text.encode()))
    assert make(params={"partial_images": 1}).status is Status.OK


def test_a_stream_that_breaks_off_is_of_unknown_fate(serve):
    server = serve()
    server.inject(Fault("cut", *CREATE))
    result = make(params={"partial_images": 1})
    assert result.status is Status.UNKNOWN
    assert len(server.jobs) == 1


def test_what_a_backend_reports_reaches_the_listener_with_the_tasks_number():
    seen = []
    with reporting(seen.append):
        report(Preview(data=b"x"))
    report(Preview(data=b"y"))
    assert [event.data for event in seen] == [b"x"]


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_events_are_read_however_they_are_cut(size):
    text = b': hi\r\nevent: a\r\ndata: {"n":\r\ndata: 1}\r\n\r\ndata: [DONE]\n\ndata: {"n": 2}'
    events, found = openai_replies.Events(), []
    for start in range(0, len(text), size):
        found += events.feed(text[start : start + size])
    found += events.end()
    assert [event["n"] for event in found] == [1, 2]


def test_a_stream_that_ends_with_an_error_is_that_error():
    text = b'data: {"type": "error", "error": {"message": "no", "code": "moderation_blocked"}}\n\n'
    with pytest.raises(BackendError, match="refused"):
        openai_replies.prediction(OPENAI, answer(text))


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("dialect", "status", "body", "kind"),
    [
        (OPENAI, 401, {"error": {"message": "no", "code": "invalid_api_key"}}, "KeyRejectedError"),
        (OPENAI, 403, {"error": {"message": "Country not supported"}}, "KeyRejectedError"),
        (OPENAI, 403, {"error": {"message": "must be verified to use the model"}}, "RejectedError"),
        (OPENAI, 429, {"error": {"message": "x", "code": "rate_limit_exceeded"}}, "BusyError"),
        (
            OPENAI,
            429,
            {"error": {"message": "x", "code": "insufficient_quota"}},
            "QuotaExceededError",
        ),
        (
            OPENAI,
            429,
            {"error": {"message": "x", "type": "insufficient_quota"}},
            "QuotaExceededError",
        ),
        (
            OPENAI,
            400,
            {"error": {"message": "x", "code": "billing_hard_limit_reached"}},
            "QuotaExceededError",
        ),
        (OPENAI, 402, b"", "QuotaExceededError"),
        (
            OPENAI,
            400,
            {"error": {"message": "x", "code": "moderation_blocked"}},
            "ContentRefusedError",
        ),
        (
            RELAY,
            400,
            {"error": {"message": "x", "code": "content_policy_violation"}},
            "ContentRefusedError",
        ),
        (RELAY, 400, {"error": "rejected by our safety system"}, "ContentRefusedError"),
        (RELAY, 451, b"", "ContentRefusedError"),
        (OPENAI, 400, {"error": {"message": "Unknown parameter: 'x'."}}, "RejectedError"),
        (OPENAI, 404, {"error": {"message": "no such model"}}, "RejectedError"),
        (VLLM, 422, {"detail": [{"loc": ["body", "n"], "msg": "too many"}]}, "RejectedError"),
        (VLLM, 503, {"detail": "engine not initialized"}, "BusyError"),
        (OPENAI, 503, {"error": {"message": "overloaded"}}, "BusyError"),
        (OPENAI, 503, b"<html>", "OutcomeUnknownError"),
        (OPENAI, 500, {"error": {"message": "x"}}, "OutcomeUnknownError"),
        (
            LOCALAI,
            500,
            {"error": {"code": 500, "message": "bad size", "type": ""}},
            "JobFailedError",
        ),
        (LOCALAI, 502, b"<html>", "OutcomeUnknownError"),
    ],
)
def test_every_error_has_its_class(dialect, status, body, kind):
    error = openai_replies.failure(dialect, answer(body, status))
    assert (type(error).__name__, error.http_status) == (kind, status)


def test_the_detail_of_a_validation_error_is_not_lost():
    error = openai_replies.failure(
        VLLM, answer({"detail": [{"loc": ["body", "n"], "msg": "too many", "type": "x"}]}, 422)
    )
    assert "n: too many" in str(error)


@pytest.mark.parametrize(
    ("headers", "text", "seconds"),
    [
        ({"retry-after-ms": "1500", "retry-after": "9"}, "", 1.5),
        ({"retry-after": "2"}, "try again in 9s", 2),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, "", 360),
        ({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "6m0s"}, "", None),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "20ms",
            },
            "",
            1,
        ),
        ({}, "Please try again in 12s.", 12),
        ({}, "Please try again in 1m2s.", 62),
        ({"retry-after": "soon"}, "", None),
        ({}, "", None),
    ],
)
def test_a_429_says_when_to_come_back(headers, text, seconds):
    assert openai_replies.retry_after_s(headers, text) == seconds


def test_no_money_is_said_at_once_and_a_rate_limit_is_waited_for(serve):
    server = serve(money="none")
    assert make().error.kind == "QuotaExceededError"
    assert server.count(*CREATE) == 1
    server.money, server.image_limit = "ok", RateLimit(600, 1)
    results = nbimg.generate(["a", "b"], model="gpt-image-2", retries=5, fallback=())
    assert [result.status for result in results] == [Status.OK] * 2
    assert len(server.jobs) == 2


def test_a_server_that_is_not_ready_yet_is_asked_again(serve):
    server = serve("vllm", not_ready=2)
    assert make(dialect="vllm", retries=3).status is Status.OK
    assert len(server.jobs) == 1


def test_a_request_that_is_never_answered_ends_with_its_time_out(serve, monkeypatch):
    monkeypatch.setattr(openai, "CREATE_S", 0.3)
    monkeypatch.setattr("nbimg.backends.http.CONNECT_S", 0.1)
    server = serve("vllm", making_s=0.05, loses_above=0)
    began = time.monotonic()
    result = make(dialect="vllm")
    assert time.monotonic() - began < 5
    assert result.status is Status.UNKNOWN
    assert len(server.jobs) == 1


def test_one_at_a_time_loses_nothing_where_two_at_once_would(serve, monkeypatch):
    monkeypatch.setattr(openai, "CREATE_S", 2)
    server = serve("vllm", making_s=0.02, loses_above=1)
    results = nbimg.generate([f"{n}" for n in range(5)], model=MODELS["vllm"], fallback=())
    assert [result.status for result in results] == [Status.OK] * 5
    assert len(server.jobs) == 5


# ------------------------------------------------------------------ the suite of all backends


ADDRESSES = {"params": {"response_format": "url"}}
FAILING = {
    "no_money": Fault("error", *CREATE, status=429, variant="quota", times=None),
    "refused": Fault("error", *CREATE, status=400, variant="refused", times=None),
}
OWN_FAILING = {"no_money": None, "failed": Fault("error", *CREATE, status=500, times=None)}


class Suite(BackendConformance):
    provider = "openai"
    keys = ("OPENAI_API_KEY",)
    create = CREATE
    edits = True
    references = 4
    dialect = "openai"

    @property
    def model(self):
        return MODELS[self.dialect]

    def make_server(self):
        return OpenAIServer(self.dialect)

    def environ(self, server):
        return {"NBIMG_OPENAI_BASE_URL": f"{server.base_url}/v1", "OPENAI_API_KEY": FAKE_OPENAI_KEY}

    def deliver(self, server, data):
        server.inject(Fault("body", *CREATE, body=inline(data), times=None))

    def sent_seeds(self, server):
        return [job.fields["seed"] for job in server.jobs]


class TestOpenAI(Suite):
    failures = FAILING


class TestRelay(Suite):
    dialect = "relay"
    failures = FAILING
    options = ADDRESSES
    output = Place("GET", "/*.png")

    def deliver(self, server, data):
        server.inject(Fault("body", *self.output, body=data, times=None))


class Own(Suite):
    """A server of one's own: what it says with a 500 is its last word."""

    seeds = True
    failures = OWN_FAILING

    @pytest.mark.parametrize("fault", [f for f in conformance._CREATE_FAULTS if "500" not in f])
    def test_a_create_is_never_accepted_twice(self, server, fault):
        super().test_a_create_is_never_accepted_twice(server, fault)


class TestVLLM(Own):
    dialect = "vllm"

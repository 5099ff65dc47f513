import base64
import io
import os
import time
from pathlib import Path

import PIL.Image
import pytest

import nbimg
from nbimg import config, session
from nbimg.backends.base import State
from nbimg.backends.http import Reply
from nbimg.backends.speedpix_inputs import mapped, target
from nbimg.backends.speedpix_replies import job_error, opened, prediction, reason
from nbimg.backends.speedpix_signing import content_md5, signed
from nbimg.config import Settings
from nbimg.credentials.keys import Secret
from nbimg.errors import (
    BusyError,
    ContentRefusedError,
    InputError,
    KeyRejectedError,
    QuotaExceededError,
    RejectedError,
    ReplyError,
    SettingError,
    UnreachableError,
)
from nbimg.media import pixels
from nbimg.testing import Fault
from nbimg.testing.speedpix import FAKE_APP_KEY, FAKE_APP_SECRET, SAID, SpeedPixServer
from nbimg.testing.speedpix_jobs import SpeedPixOutcome, Workflow
from nbimg.types import Status
from nbimg.uploads import upload

CREATE = ("POST", "/scc/comfy_prompt")
PROGRESS = ("POST", "/scc/comfy_get_progress")
RESULT = ("POST", "/scc/comfy_get_result")
SIGN = ("POST", "/scc/sp_create_temp_file_upload_sign")
PUT = ("PUT", "/temp/*")
SEEDED = "seed=seed width=width height=height"


@pytest.fixture
def speedpix(monkeypatch):
    with SpeedPixServer() as running:
        monkeypatch.setenv("SPEEDPIX_ENDPOINT", running.base_url)
        monkeypatch.setenv("SPEEDPIX_APP_KEY", FAKE_APP_KEY)
        monkeypatch.setenv("SPEEDPIX_APP_SECRET", FAKE_APP_SECRET)
        yield running
        assert not running.leaks


def picture(side=8, noise=False):
    target_ = io.BytesIO()
    data = os.urandom(side * side * 3) if noise else bytes(side * side * 3)
    PIL.Image.frombytes("RGB", (side, side), data).save(target_, "PNG")
    return target_.getvalue()


def inputs_of(server):
    return [job.inputs for job in server.jobs]


def bodies(server):
    return [call.json() for call in server.matching(*CREATE)]


# ------------------------------------------------------------------ signature


def test_the_signature_is_that_of_the_published_vector():
    headers = signed(
        Secret("APPKEY"),
        Secret("APPSECRET"),
        "/scc/comfy_get_progress",
        b'{"taskId":"T1"}',
        nonce="00000000-0000-4000-8000-000000000001",
        at_utc=1700000000.123,
    )
    assert headers["content-md5"] == "cvco4SmNhDkp2BZKcsgBiw=="
    assert headers["date"] == "Tue, 14 Nov 2023 22:13:20 GMT+00:00"
    assert headers["x-ca-timestamp"] == "1700000000123"
    assert headers["x-ca-signature"] == "3I5f/gZA5G2eNlF5MJoyzcIlpdO6ksBo7GzBThszgSw="


def test_an_empty_body_has_no_checksum():
    assert content_md5(b"") == ""
    assert "content-md5" not in signed(Secret("APPKEY"), Secret("APPSECRET"), "/x", b"")


def test_every_try_has_a_nonce_of_its_own(speedpix):
    speedpix.inject(Fault("error", *CREATE, status=400, variant="nonce"))
    speedpix.inject(Fault("html", *PROGRESS, times=2))
    assert nbimg.generate("x", model="speedpix:1001")[0].status is Status.OK
    nonces = [c.headers["x-ca-nonce"] for c in speedpix.requests if c.host == "api"]
    assert len(set(nonces)) == len(nonces) >= 5


@pytest.mark.parametrize("prompt", ["猫 🐈", 'a "b" \\ c', "half \ud800 of a pair", "a\u2028b\x7f"])
def test_the_signature_covers_the_very_bytes_of_any_prompt(speedpix, prompt):
    assert nbimg.generate(prompt, model="speedpix:1001")[0].status is Status.OK


# ------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("model", "pointer"),
    [
        ("1001", {"alias_id": "main"}),
        ("1001@test", {"alias_id": "test"}),
        ("1001@v2", {"version_id": "v2"}),
        ("1001@2", {"version_id": "2"}),
    ],
)
def test_a_workflow_is_named_with_an_alias_or_a_version(speedpix, model, pointer):
    assert target(model) == ("1001", pointer)
    nbimg.generate("x", model=f"speedpix:{model}")
    (body,) = bodies(speedpix)
    assert {key: body[key] for key in body if key.endswith("_id")} == {
        "workflow_id": "1001",
        **pointer,
    }


def test_an_alias_that_looks_like_a_version_is_named_by_a_parameter(speedpix):
    with pytest.raises(nbimg.GenerationError, match="版本不存在"):
        nbimg.generate("x", model="speedpix:1001@test", params={"alias_id": "v7"})
    (body,) = bodies(speedpix)
    assert body["alias_id"] == "v7"
    assert "version_id" not in body
    assert body["inputs"] == {"prompt": "x"}


@pytest.mark.parametrize("model", ["", "@main", "1@", "1@a@b"])
def test_a_name_of_no_known_form_is_refused(model):
    with pytest.raises(InputError, match="no workflow"):
        target(model)


def test_resources_are_shared_unless_dedicated_ones_are_named(speedpix, monkeypatch):
    nbimg.generate("a", model="speedpix:1001")
    nbimg.generate("b", model="speedpix:1001", params={"resource_config_id": "pool-1"})
    monkeypatch.setenv("NBIMG_SPEEDPIX_RESOURCE_CONFIG_ID", "pool-2")
    nbimg.generate("c", model="speedpix:1001")
    assert [job.resource for job in speedpix.jobs] == ["default", "pool-1", "pool-2"]
    assert inputs_of(speedpix) == [{"prompt": "a"}, {"prompt": "b"}, {"prompt": "c"}]


# ------------------------------------------------------------------ inputs


def configured(text):
    Path("nbimg.toml").write_text(text)
    config.kernel.cache_clear()


def test_options_go_under_the_names_that_the_user_gave(speedpix):
    configured(
        "[providers.speedpix.inputs]\nprompt = 'text'\nseed = 'noise_seed'\nsteps = 'steps'\n"
        "[providers.speedpix.inputs.1001]\nprompt = 'prompt'\nwidth = 'w'\nheight = 'h'\n"
    )
    nbimg.generate("x", model="speedpix:1001", seed=7, steps=9, size="64x32")
    assert inputs_of(speedpix) == [{"prompt": "x", "noise_seed": 7, "steps": 9, "w": 64, "h": 32}]


def test_an_option_that_is_not_listed_is_dropped_and_said(speedpix):
    (result,) = nbimg.generate("x", model="speedpix:1001", steps=9)
    assert inputs_of(speedpix) == [{"prompt": "x"}]
    assert any("step count" in notice for notice in result.notices)


def test_any_parameter_is_passed_on_as_it_is(speedpix):
    params = {"cfg": 3.5, "sampler": "euler", "tiled": True, "list": [1, {"a": None}]}
    nbimg.generate("x", model="speedpix:1001", params=params)
    assert inputs_of(speedpix) == [{"prompt": "x", **params}]


def test_a_workflow_without_a_prompt_is_sent_none():
    assert mapped({"prompt": ""}, "1").of("prompt") is None


def test_a_parameter_goes_before_the_prompt(speedpix):
    nbimg.generate("x", model="speedpix:1001", params={"prompt": "y"})
    assert inputs_of(speedpix) == [{"prompt": "y"}]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"sed": "seed"}, "seed"),
        ({"mask": ["a", "b"]}, "several"),
        ("prompt", "OPTION=INPUT"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(setting, said):
    with pytest.raises(SettingError) as caught:
        mapped(setting, "1")
    assert said in f"{caught.value} {caught.value.hint}"


def test_the_endpoint_is_that_of_the_official_client(monkeypatch):
    settings = Settings({"SPEEDPIX_ENDPOINT": "https://a.example"})
    assert settings.provider("speedpix", "base_url") == "https://a.example"
    settings = Settings({"SPEEDPIX_ENDPOINT": "a", "NBIMG_SPEEDPIX_BASE_URL": "b"})
    assert settings.provider("speedpix", "base_url") == "b"
    Path(".env").write_text("SPEEDPIX_ENDPOINT=https://c.example\n")
    assert Settings({}).provider("speedpix", "base_url") == "https://c.example"


def test_variants_without_a_seed_are_not_the_same_picture_again(speedpix):
    (result,) = nbimg.generate("x", model="speedpix:1001", n=3)
    assert len({image.sha256 for image in result.images}) == 3
    assert all(body["randomise_seeds"] is True for body in bodies(speedpix))


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 7},
        {"params": {"noise_seed": 7}},
        {"params": {"randomise_seeds": False}},
    ],
)
def test_a_seed_that_is_given_takes_effect(speedpix, monkeypatch, options):
    if "seed" in options:
        monkeypatch.setenv("NBIMG_SPEEDPIX_INPUTS", SEEDED)
    made = [
        nbimg.generate("x", model="speedpix:1001", cache=False, **options)[0].images[0].sha256
        for _ in range(2)
    ]
    assert made[0] == made[1]
    assert not any(body.get("randomise_seeds") for body in bodies(speedpix))


# ------------------------------------------------------------------ files


def decoded(address):
    head, _, payload = address.partition(",")
    assert head == "data:image/png;base64"
    return base64.b64decode(payload)


def test_a_small_image_goes_inside_and_a_large_one_is_uploaded_first(speedpix):
    small, large = picture(), picture(640, noise=True)
    assert len(large) > 1024 * 1024
    nbimg.edit([small, large], "x", model="speedpix:1002")
    sent = sorted(inputs["image"] for inputs in inputs_of(speedpix))
    assert decoded(sent[0]) == small
    (upload,) = speedpix.uploads
    assert (upload.data, upload.content_type) == (large, "image/png")
    assert sent[1] == f"{speedpix.url('files')}/temp/{upload.key}"


def test_images_that_are_small_one_by_one_are_not_too_large_together(speedpix, monkeypatch):
    monkeypatch.setenv("NBIMG_SPEEDPIX_INPUTS", "prompt=text image=person,garment")
    images = [picture(460, noise=True) for _ in range(2)]
    assert 600_000 < len(images[0]) < 700_000
    (result,) = nbimg.edit(images, "x", mode="combine", model="speedpix:1003")
    assert result.status is Status.OK
    assert len(speedpix.uploads) == 1


@pytest.mark.parametrize(("strategy", "uploads"), [("url", 1), ("base64", 0), ("auto", 0)])
def test_the_strategy_is_honoured(speedpix, monkeypatch, strategy, uploads):
    params = {"file_encoding_strategy": strategy}
    nbimg.edit(picture(), "x", model="speedpix:1002", params=params)
    assert len(speedpix.uploads) == uploads
    assert "file_encoding_strategy" not in inputs_of(speedpix)[0]
    monkeypatch.setenv("NBIMG_SPEEDPIX_FILE_ENCODING_STRATEGY", strategy)
    nbimg.edit(picture(9), "x", model="speedpix:1002")
    assert len(speedpix.uploads) == 2 * uploads


def test_base64_of_more_than_a_megabyte_is_refused_before_anything_is_sent(speedpix):
    params = {"file_encoding_strategy": "base64"}
    with pytest.raises(nbimg.NbimgError, match=r"1,048,576"):
        nbimg.edit(picture(640, noise=True), "x", model="speedpix:1002", params=params)
    assert speedpix.requests == []


def test_a_strategy_that_does_not_exist_is_refused(speedpix):
    with pytest.raises(nbimg.NbimgError, match="auto, base64, url"):
        nbimg.edit(picture(), "x", model="speedpix:1002", params={"file_encoding_strategy": "ftp"})


def test_an_image_that_several_tasks_take_is_uploaded_once(speedpix):
    params = {"file_encoding_strategy": "url"}
    nbimg.edit(picture(), "x", model="speedpix:1002", n=4, params=params)
    assert len(speedpix.jobs) == 4
    assert len(speedpix.uploads) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault("drop", *PUT, when="after"),
        Fault("html", *PUT),
        Fault("error", *PUT, status=403),
        Fault("drop", *SIGN, when="after"),
        Fault("error", *SIGN, status=200),
        Fault("body", *SIGN, body=b'{"status":10,"data":{"uploadUrl":"x"}}'),
        Fault("cut", *SIGN),
    ],
    ids=str,
)
def test_an_upload_that_is_lost_is_sent_again(speedpix, fault):
    speedpix.inject(fault)
    params = {"file_encoding_strategy": "url"}
    (result,) = nbimg.edit(picture(), "x", model="speedpix:1002", params=params)
    assert result.status is Status.OK, result.error
    assert len(speedpix.jobs) == 1


def test_a_mask_goes_to_its_own_input(speedpix):
    nbimg.edit(picture(), "x", mask=picture(9), model="speedpix:1002")
    (sent,) = inputs_of(speedpix)
    assert decoded(sent["image"]) == picture()
    assert decoded(sent["mask"]) == picture(9)


@pytest.mark.parametrize(
    "value", [Path("cat.png"), Path("cat.png").absolute, "./cat.png", "cat.png"], ids=str
)
def test_a_path_as_the_value_of_a_file_input_is_sent_as_its_file(speedpix, value):
    Path("cat.png").write_bytes(picture())
    value = value() if callable(value) else value
    nbimg.generate("x", model="speedpix:1002", params={"image": value})
    assert decoded(inputs_of(speedpix)[0]["image"]) == picture()


def test_a_path_as_the_value_of_any_other_input_is_written_as_one(speedpix):
    Path("cat.png").write_bytes(picture())
    params = {"style": "cat.png", "face": "./cat.png", "more": [Path("cat.png"), "cat.png"]}
    nbimg.generate("x", model="speedpix:1001", params=params)
    (sent,) = inputs_of(speedpix)
    assert sent["style"] == "cat.png"
    assert decoded(sent["face"]) == picture()
    assert decoded(sent["more"][0]) == picture()
    assert sent["more"][1] == "cat.png"


def test_a_prompt_is_never_taken_for_the_name_of_a_file(speedpix, monkeypatch):
    monkeypatch.setenv("NBIMG_SPEEDPIX_INPUTS", "negative=negative")
    Path("cat").write_bytes(picture())
    prompts = ["cat", "./cat", str(Path("cat").absolute()), "x" * 300, "/" * 5000]
    nbimg.generate(prompts, model="speedpix:1001", negative="./cat")
    nbimg.generate("y", model="speedpix:1001", params={"prompt": "./cat"})
    sent = [inputs["prompt"] for inputs in inputs_of(speedpix)]
    assert sorted(sent) == sorted([*prompts, "./cat"])
    assert {inputs.get("negative") for inputs in inputs_of(speedpix)} == {"./cat", None}


@pytest.mark.parametrize(
    "text", ["/imagine a cat", "~", "./gone.png", "/", "~nobody/x.png", "./a\0b"]
)
def test_a_text_that_only_looks_like_a_path_stays_a_text(speedpix, text):
    nbimg.generate("x", model="speedpix:1001", params={"text": text})
    assert inputs_of(speedpix)[0]["text"] == text


def test_a_file_that_is_no_picture_video_or_sound_does_not_leave_this_machine(speedpix):
    Path("key.txt").write_text("a secret")
    nbimg.generate("x", model="speedpix:1001", params={"text": "./key.txt"})
    assert inputs_of(speedpix) == [{"prompt": "x", "text": "./key.txt"}]


def test_a_photo_is_sent_without_the_place_where_it_was_taken(speedpix):
    exif = PIL.Image.Exif()
    exif[0x010F] = "a camera"
    PIL.Image.new("RGB", (8, 8)).save("photo.jpg", exif=exif)
    nbimg.generate("x", model="speedpix:1002", params={"image": Path("photo.jpg")})
    payload = base64.b64decode(inputs_of(speedpix)[0]["image"].partition(",")[2])
    assert not pixels.decode(payload).getexif()


@pytest.mark.parametrize("data", [picture(), b"a sound"], ids=["picture", "other"])
def test_a_file_can_be_uploaded_beforehand(speedpix, data):
    file = upload(data, provider="speedpix", name="a.png")
    assert speedpix.uploads[0].data == data
    (result,) = nbimg.generate("x", model="speedpix:1002", params={"image": file.url})
    assert result.status is Status.OK
    assert inputs_of(speedpix)[0]["image"] == str(file)


# ------------------------------------------------------------------ what it says


def reply(body, status=200, **headers):
    import json

    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(status, headers, content, "https://s.example/x")


def bad(text):
    return reply({"status": 20, "errMessage": "failed", "subErrMessage": text, "data": None})


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (bad("触发限流"), BusyError),
        (bad("Throttled by APP Flow Control"), BusyError),
        (bad(SAID["crowded"]), BusyError),
        (bad(SAID["money"]), QuotaExceededError),
        (bad(SAID["refused"]), ContentRefusedError),
        (bad(SAID["refused_output"]), ContentRefusedError),
        (bad("illegal parameter: steps"), RejectedError),
        (bad("image size exceeds the limit"), RejectedError),
        (bad(SAID["error"]), RejectedError),
        (reply({"status": 20}), RejectedError),
        (reply(b"", 403, **{"x-ca-error-message": "Throttled by API Flow Control"}), BusyError),
        (reply(b"", 429), BusyError),
        (reply(b"", 403, **{"x-ca-error-message": "User Arrears"}), QuotaExceededError),
        (reply(b"", 400, **{"x-ca-error-message": "Invalid AppKey"}), KeyRejectedError),
        (reply(b"", 401), KeyRejectedError),
        (reply(b"", 400, **{"x-ca-error-message": "Timestamp Expired"}), RejectedError),
        (reply(b"", 400, **{"x-ca-error-message": "Nonce Used"}), UnreachableError),
        (reply(b"", 413, **{"x-ca-error-code": "I413RL"}), RejectedError),
        (reply(b"", 500, **{"x-ca-error-code": "X500ED"}), UnreachableError),
        (reply(b"<html>", 200), ReplyError),
        (reply([1]), ReplyError),
        (reply({"data": {}}), ReplyError),
        (reply({"status": 10, "data": None}), ReplyError),
    ],
)
def test_each_answer_has_its_error(answer, error):
    with pytest.raises(error) as caught:
        opened(answer, read=False)
    assert type(caught.value) is error


def test_too_many_at_once_is_told_from_too_fast():
    for text, crowded in ((SAID["crowded"], True), (SAID["busy"], False)):
        with pytest.raises(BusyError) as caught:
            opened(bad(text), read=True)
        assert caught.value.crowded is crowded


def test_a_look_that_fails_for_no_known_reason_may_pass_but_a_task_that_is_not_there_does_not():
    with pytest.raises(UnreachableError):
        opened(bad(SAID["error"]), read=True)
    with pytest.raises(RejectedError):
        opened(bad(SAID["no_task"]), read=True)


def test_what_was_signed_is_not_repeated():
    text = "Invalid Signature, Server StringToSign:`POST#x-ca-key:some-key`"
    with pytest.raises(KeyRejectedError) as caught:
        opened(reply(b"", 400, **{"x-ca-error-message": text}), read=False)
    assert "some-key" not in str(caught.value)


@pytest.mark.parametrize("word", ["succeeded", "successed", "Succeeded"])
def test_both_spellings_of_success_are_understood(word):
    found = prediction({"status": word, "images": ["https://x/1.png"]}, "T")
    assert (found.state, [o.url for o in found.outputs]) == (State.DONE, ["https://x/1.png"])


@pytest.mark.parametrize(
    ("data", "urls"),
    [
        ({"images": ["https://x/1", "https://x/2"]}, ["https://x/1", "https://x/2"]),
        ({"result": {"a": {"url": "https://x/1", "object_key": "k"}}}, ["https://x/1"]),
        (
            {
                "result": {"a": {"url": "https://x/1?s=1"}},
                "images": ["https://x/1?s=2", "https://x/2"],
            },
            ["https://x/1?s=1", "https://x/2"],
        ),
        (
            {"result": {"a": [{"url": "https://x/1"}, "https://x/2"], "b": "text"}},
            ["https://x/1", "https://x/2"],
        ),
        ({"images": [{"url": "https://x/1"}], "result": None}, ["https://x/1"]),
    ],
)
def test_outputs_are_found_in_the_list_in_the_object_and_in_both(data, urls):
    assert [o.url for o in prediction({"status": "succeeded", **data}, "T").outputs] == urls


@pytest.mark.parametrize("data", [{}, {"images": []}, {"result": {"text": "a caption"}}])
def test_a_success_without_an_output_is_a_failure(data):
    found = prediction({"status": "succeeded", **data}, "T")
    assert found.state is State.FAILED
    assert "without" in str(found.error)


def test_a_task_that_runs_tells_how_far_it_is():
    found = prediction({"status": "running", "progress": 0.25}, "T")
    assert (found.state, found.progress) == (State.RUNNING, 0.25)
    assert prediction({"status": "waiting"}, "T").state is State.QUEUED


@pytest.mark.parametrize("data", [{}, {"status": "new"}, {"status": 3}])
def test_a_status_that_nobody_knows_is_a_reply_error(data):
    with pytest.raises(ReplyError):
        prediction(data, "T")


@pytest.mark.parametrize(
    ("text", "refused", "passing"),
    [
        (SAID["refused_output"], True, False),
        (SAID["failed"], False, False),
        ("GPU lost, please retry", False, True),
        ("", False, False),
    ],
)
def test_a_refusal_is_told_from_a_failure(text, refused, passing):
    error = job_error(text, "T")
    assert isinstance(error, ContentRefusedError) is refused
    assert error.transient is passing


@pytest.mark.parametrize("told", ["envelope", "data", "nowhere"])
def test_a_failed_task_says_why_wherever_that_stands(speedpix, told):
    speedpix.expect(SpeedPixOutcome(SAID["failed"], told=told))
    with pytest.raises(nbimg.GenerationError, match="job failed") as caught:
        nbimg.generate("x", model="speedpix:1001")
    assert ("KSampler" in str(caught.value)) is (told != "nowhere")
    assert caught.value.result.error.job_id == speedpix.jobs[0].id


def test_a_refused_task_is_refused(speedpix):
    speedpix.expect(SpeedPixOutcome(SAID["refused_output"]))
    (result,) = nbimg.generate(["x"], model="speedpix:1001")
    assert result.status is Status.REFUSED


@pytest.mark.parametrize("answer", [b"null", b"<html>", b"[]"])
def test_an_answer_about_a_failed_task_that_is_spoilt_is_asked_for_again(answer):
    with pytest.raises(ReplyError) as caught:
        reason(reply(answer))
    assert caught.value.transient


# ------------------------------------------------------------------ waiting


@pytest.mark.parametrize("success", ["succeeded", "successed"])
@pytest.mark.parametrize("workflow", ["1001", "1002", "1003"])
def test_every_kind_of_output_arrives_with_every_spelling(speedpix, monkeypatch, success, workflow):
    monkeypatch.setenv(
        "NBIMG_SPEEDPIX_INPUTS", f"prompt={'text' if workflow == '1003' else 'prompt'}"
    )
    speedpix.success = success
    params = {"image": "data:image/png;base64,eA=="} if workflow == "1002" else {}
    (result,) = nbimg.generate("x", model=f"speedpix:{workflow}", params=params)
    assert result.status is Status.OK
    assert len(result.images) == 1


@pytest.mark.parametrize("place", [PROGRESS, RESULT])
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "error", "status": 200},
        {"kind": "error", "status": 200, "variant": "busy"},
        {"kind": "error", "status": 403},
        {"kind": "error", "status": 500},
        {"kind": "html"},
        {"kind": "drop", "when": "after"},
        {"kind": "body", "body": b'{"status":10,"data":null}'},
        {"kind": "body", "body": b'{"status":10,"data":{"taskId":"T"}}'},
    ],
    ids=str,
)
def test_temporary_failures_of_a_look_are_survived(speedpix, place, fault):
    speedpix.inject(Fault(method=place[0], path=place[1], **fault))
    (result,) = nbimg.generate("x", model="speedpix:1001")
    assert result.status is Status.OK, result.error
    assert len(speedpix.jobs) == 1


def test_what_makes_one_image_takes_one_result(speedpix):
    nbimg.generate("x", model="speedpix:1001")
    assert speedpix.count(*RESULT) == 1


def test_a_call_that_is_stopped_can_be_fetched_later(speedpix):
    speedpix.running_s = 0.6
    job = nbimg.submit(["x"], model="speedpix:1001")
    while not speedpix.jobs:
        time.sleep(0.01)
    time.sleep(0.1)
    job.cancel()
    job.wait()
    (result,) = nbimg.resume()
    assert result.status is Status.OK
    assert len(speedpix.jobs) == 1


def test_a_job_is_taken_up_by_its_id_of_the_provider(speedpix):
    speedpix.inject(Fault("html", *PROGRESS, times=2))
    nbimg.generate(["x"], model="speedpix:1001", retries=2)
    session._default.close()  # another kernel
    session._default = None
    (result,) = nbimg.job(speedpix.jobs[0].id).wait()
    assert result.status is Status.OK
    assert len(speedpix.jobs) == 1


def test_an_output_whose_address_has_expired_says_so(speedpix):
    speedpix.retention_s = 0
    (result,) = nbimg.generate(["x"], model="speedpix:1001")
    assert "expired" in str(result.error)
    assert speedpix.count("GET", "/out/*") == 1


# ------------------------------------------------------------------ videos


@pytest.mark.parametrize(("workflow", "form"), [("2001", "mp4"), ("2002", "webm")])
def test_a_video_is_made_saved_and_shown(speedpix, workflow, form):
    params = {"image": "data:image/png;base64,eA=="} if workflow == "2002" else {}
    results = nbimg.generate("a cat runs", model=f"speedpix:{workflow}", params=params)
    (film,) = results.videos
    assert (film.kind, film.mime, film.path.suffix) == ("video", f"video/{form}", f".{form}")
    assert (film.width, film.height) == (64, 64)
    html = results._repr_mimebundle_()[0]["text/html"]
    assert f'href="nbimg-images/{film.path.name}"' in html
    assert "▶ video" in html
    assert "data:image/webp" in html
    assert "1 video" in html


def test_an_image_becomes_a_video(speedpix):
    results = nbimg.edit(picture(), "walk", model="speedpix:2002")
    assert len(results.videos) == 1
    assert decoded(inputs_of(speedpix)[0]["image"]) == picture()


@pytest.mark.parametrize("kind", ["truncate", "cut", "drop", "html"])
def test_a_video_that_did_not_arrive_whole_is_fetched_again_not_paid_again(speedpix, kind):
    speedpix.inject(Fault(kind, method="GET", path="/out/*"))
    results = nbimg.generate("x", model="speedpix:2001")
    assert len(results.videos) == 1
    assert len(speedpix.jobs) == 1
    assert speedpix.count("GET", "/out/*") == 2


def test_a_video_in_the_store_is_shown_from_there(speedpix, monkeypatch):
    monkeypatch.setenv("NBIMG_SPEEDPIX_INPUTS", SEEDED)
    first = nbimg.generate("x", model="speedpix:2001", seed=1, output="a.mp4")
    again = nbimg.generate("x", model="speedpix:2001", seed=1, output="b.mp4")
    assert again[0].cached
    assert again.videos[0].kind == "video"
    assert [path.name for path in (*first.paths, *again.paths)] == ["a.mp4", "b.mp4"]
    assert len(speedpix.jobs) == 1


def test_a_video_that_was_not_fetched_is_resumed(speedpix):
    speedpix.inject(Fault("html", method="GET", path="/out/*", times=2))
    nbimg.generate(["x"], model="speedpix:2001", retries=2)
    results = nbimg.resume()
    assert results[0].status is Status.OK
    assert len(results.videos) == 1
    assert len(speedpix.jobs) == 1


def test_a_cover_of_the_provider_becomes_the_poster_and_costs_nothing_when_it_is_gone(speedpix):
    speedpix.workflows["3001"] = Workflow("3001", "mp4", cover=True)
    with_cover = nbimg.generate("x", model="speedpix:3001")
    speedpix.inject(Fault("error", "GET", "*/cover-0.png", status=404))
    without = nbimg.generate("y", model="speedpix:3001")
    assert len(with_cover.videos) == len(without.videos) == 1
    thumbs = [made._thumb(made.videos[0], 256) for made in (with_cover, without)]
    assert thumbs[1] == pixels.poster(64, 64)
    assert thumbs[0] != thumbs[1]


def test_an_address_of_a_video_that_is_not_downloaded_is_one_of_a_video(speedpix):
    results = nbimg.generate("x", model="speedpix:2001", url_only=True)
    assert [record.kind for record in results.videos] == ["video"]
    assert results.videos[0].path is None

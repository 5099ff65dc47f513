import pytest

from nbimg.backends.base import Call, State
from nbimg.backends.hunyuan_forms import FORMS, MODEL, SIZES
from nbimg.errors import (
    BusyError,
    ContentRefusedError,
    JobFailedError,
    OutcomeUnknownError,
    ReplyError,
    UnknownNameError,
)
from nbimg.types import ModelRef

REF = ModelRef("hunyuan", MODEL)
WORDS = {"resolution": "1280:720", "seed": 7, "watermark": False}


def call(**arguments):
    return Call(REF, "rain", arguments, seed=arguments.get("seed"))


def sent(form, images=(), **arguments):
    return FORMS[form]().create(call(**arguments), list(images))


# ------------------------------------------------------------------ orders


def test_the_order_of_the_signed_api():
    message = sent("signed", ["AAAA"], **WORDS)
    assert message.target == "SubmitTextToImageJob"
    assert message.body == {
        "Prompt": "rain",
        "Images": ["AAAA"],
        "Resolution": "1280:720",
        "Seed": 7,
        "Revise": 0,
        "LogoAdd": 0,
    }


def test_the_order_of_the_job_gateway():
    message = sent("jobs", ["AAAA"], **WORDS)
    assert message.target == "/v1/aiart/submit"
    assert message.body == {
        "model": "HY-Image-V3.0",
        "prompt": "rain",
        "size": "1280:720",
        "images": ["AAAA"],
        "extra_body": {"seed": 7, "revise": 0, "logo_add": 0},
    }


def test_the_order_of_tokenhub():
    message = sent("tokenhub", ["AAAA"], resolution="1280:720", seed=7, watermark="made by AI")
    assert message.target == "/v1/wand/hunyuan-image/v3-generation"
    assert message.body == {
        "model": "hy-image-v3",
        "prompt": "rain",
        "images": ["AAAA"],
        "size": "1280x720",
        "seed": 7,
        "revise": False,
        "footnote": "made by AI",
    }


def test_the_order_of_tokenhubs_jobs():
    message = sent("tokenhub-jobs", **WORDS)
    assert message.target == "/v1/api/image/submit"
    assert message.body == {
        "model": "hy-image-v3.0",
        "prompt": "rain",
        "resolution": "1280:720",
        "seed": 7,
        "revise": 0,
        "logo_add": 0,
    }


def test_a_size_in_pixels_is_written_as_each_form_writes_it():
    assert sent("signed", size="1024x768").body["Resolution"] == "1024:768"
    assert sent("jobs", size="1024x768").body["size"] == "1024:768"
    assert sent("tokenhub", size="1024x768").body["size"] == "1024x768"


def test_a_logo_is_translated_to_its_last_word():
    logo = {"logo_url": "https://x/y.png", "logo_rect": {"x": 1, "width": 2}}
    assert sent("signed", logo_param=logo).body["LogoParam"] == {
        "LogoUrl": "https://x/y.png",
        "LogoRect": {"X": 1, "Width": 2},
    }
    assert sent("jobs", logo_param=logo).body["extra_body"]["logo_param"] == logo


@pytest.mark.parametrize("form", FORMS)
def test_a_seed_goes_with_a_prompt_that_is_not_rewritten(form):
    def inner(message):
        body = {name.lower(): value for name, value in message.body.items()}
        return {**body, **body.get("extra_body", {})}

    assert inner(sent(form, seed=7))["revise"] == 0
    assert "seed" not in inner(sent(form, seed=7, revise=True))
    assert inner(sent(form, seed=7, revise=True))["revise"] == 1
    assert inner(sent(form))["revise"] == 1
    assert inner(sent(form, seed=0))["seed"] == 2**32 - 1  # 0 is a random one there


def test_a_model_that_is_not_known_is_passed_on_but_where_the_name_is_not_sent():
    other = Call(ModelRef("hunyuan", "hy-image-v9"), "rain")
    assert FORMS["tokenhub"]().create(other, []).body["model"] == "hy-image-v9"
    assert FORMS["jobs"]().create(other, []).body["model"] == "hy-image-v9"
    with pytest.raises(UnknownNameError, match=r"hunyuan:image-3\.0"):
        FORMS["signed"]().capabilities("image-3")


@pytest.mark.parametrize("form", FORMS)
def test_the_sizes_are_the_ones_that_are_listed(form):
    assert len(SIZES) == len({*SIZES}) == 37
    assert all(512 <= side <= 2048 for size in SIZES for side in (size.width, size.height))
    assert max(size.width * size.height for size in SIZES) == 1024 * 1024
    can = FORMS[form]().capabilities(MODEL)
    assert can.max_images == 3
    assert can.composes


# ------------------------------------------------------------------ answers


def signed(**answer):
    return FORMS["signed"]().looked({"Response": {"RequestId": "r", **answer}}, 200, "j")


@pytest.mark.parametrize(
    ("code", "state"), [("1", State.QUEUED), ("2", State.RUNNING), (1, State.QUEUED)]
)
def test_the_states_of_the_signed_api_are_texts(code, state):
    assert signed(JobStatusCode=code, ResultImage=["https://x"]).state is state


def test_a_signed_job_that_is_done_has_its_images():
    found = signed(JobStatusCode="5", ResultImage=["https://x"], ResultDetails=["Success"])
    assert (found.id, found.state) == ("j", State.DONE)
    assert [one.url for one in found.outputs] == ["https://x"]


@pytest.mark.parametrize("urls", [[], [""], ["https://x"]])
def test_a_job_that_is_done_but_not_a_success_has_failed(urls):
    found = signed(JobStatusCode="5", ResultImage=urls, ResultDetails=["ImageIllegalDetected"])
    assert found.state is State.FAILED
    assert isinstance(found.error, ContentRefusedError)
    assert found.outputs == ()


def test_of_several_images_the_successes_are_kept():
    found = signed(
        JobStatusCode="5", ResultImage=["https://x", "https://y"], ResultDetails=["no", "SUCCESS"]
    )
    assert [one.url for one in found.outputs] == ["https://y"]


@pytest.mark.parametrize("code", ["ServerError", "FailedOperation.ServerError"])
def test_a_job_that_failed_says_whether_it_may_pass(code):
    found = signed(JobStatusCode="4", JobErrorCode=code, JobErrorMsg="oh")
    assert found.state is State.FAILED
    assert isinstance(found.error, JobFailedError)
    assert found.error.transient
    assert found.error.job_id == "j"


def test_a_job_without_a_code_has_failed_too():
    found = signed(JobStatusCode="4", JobErrorCode="", JobErrorMsg="", JobStatusMsg="处理失败")
    assert isinstance(found.error, JobFailedError)
    assert not found.error.transient


@pytest.mark.parametrize("form", ["jobs", "tokenhub-jobs", "signed"])
def test_a_job_that_is_not_known_is_over(form):
    problem = {"code": "FailedOperation.JobNotExist", "message": "gone"}
    data = {"error": problem, "Response": {"Error": {"Code": problem["code"], "Message": "gone"}}}
    found = FORMS[form]().looked(data, 200, "j")
    assert found.state is State.FAILED
    assert isinstance(found.error, JobFailedError)
    assert not found.error.transient


@pytest.mark.parametrize(
    ("status", "state"),
    [("1", State.QUEUED), (2, State.RUNNING), ("pending", State.QUEUED), ("queued", State.QUEUED),
     ("in_progress", State.RUNNING), ("processing", State.RUNNING), ("5", State.DONE),
     ("completed", State.DONE), ("4", State.FAILED), ("6", State.FAILED), ("failed", State.FAILED)],
)  # fmt: skip
@pytest.mark.parametrize("form", ["jobs", "tokenhub-jobs"])
def test_the_gateways_say_states_by_number_or_by_word(form, status, state):
    found = FORMS[form]().looked({"status": status, "data": [{"url": "https://x"}]}, 200, "j")
    assert found.state is state
    assert bool(found.outputs) is (state is State.DONE)


@pytest.mark.parametrize(
    "data",
    [{}, {"status": ""}, {"status": "new"}, {"status": "", "error": {"type": "api_error"}}],
)
def test_a_state_that_nobody_knows_is_asked_for_again(data):
    with pytest.raises(ReplyError):
        FORMS["jobs"]().looked(data, 200, "j")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("data", [{}, {"Response": {}}, {"Response": None}, {"id": ""}, {"id": 7}])
def test_an_answer_to_an_order_that_says_nothing_is_not_taken_for_one(form, data):
    with pytest.raises(ReplyError):
        FORMS[form]().created(data, 200)


def test_tokenhub_answers_with_the_image_and_has_no_job():
    found = FORMS["tokenhub"]().created({"id": "x", "data": [{"url": "https://x"}]}, 200)
    assert (found.id, found.state) == (None, State.DONE)
    assert FORMS["tokenhub"]().created({"data": []}, 200).state is State.FAILED


def refused(status=502, **problem):
    with pytest.raises(Exception) as caught:  # noqa: PT011  # its type is what the test is about
        FORMS["tokenhub"]().created({"error": {"type": "upstream_error", **problem}}, status)
    return caught.value


def test_a_fault_behind_tokenhub_is_what_was_answered_there_or_unknown():
    assert isinstance(refused(code="502001"), OutcomeUnknownError)
    assert isinstance(refused(code="502001", upstream_status=504), OutcomeUnknownError)
    failed = refused(code="502001", upstream_status=500)
    assert isinstance(failed, JobFailedError)
    assert failed.transient
    busy = refused(code="502001", upstream_code="RequestLimitExceeded.JobNumExceed")
    assert isinstance(busy, BusyError)
    assert busy.crowded
    assert isinstance(refused(code="502001", upstream_status="429"), BusyError)


def test_a_limit_on_what_runs_at_once_is_told_from_one_on_requests():
    many = {"type": "rate_limit_error", "code": "429001"}
    slow = refused(429, **many, message="rate limit exceeded on dimension: rpm")
    full = refused(429, **many, message="rate limit exceeded on dimension: concurrency")
    assert (slow.crowded, full.crowded) == (False, True)

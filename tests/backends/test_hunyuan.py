import base64
import io
import os
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import nbimg
from nbimg import config
from nbimg.concurrency.semaphore import own_limit
from nbimg.config import Settings
from nbimg.errors import KeyMissingError, SettingError, UnknownNameError
from nbimg.testing import Fault
from nbimg.testing.hunyuan import HunyuanServer
from nbimg.testing.hunyuan_jobs import HunyuanOutcome
from nbimg.types import Status

MODEL = "hunyuan-image-3"
SUBMIT = ("POST", "SubmitTextToImageJob")
QUERY = ("POST", "QueryTextToImageJob")
PATHS = {
    "signed": "SubmitTextToImageJob",
    "jobs": "/v1/aiart/submit",
    "tokenhub-jobs": "/v1/api/image/submit",
    "tokenhub": "/v1/wand/hunyuan-image/v3-generation",
}


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith("HUNYUAN_"):
            monkeypatch.delenv(name)


@pytest.fixture
def service(monkeypatch):
    """A local Hunyuan that the default session talks to; its file host never sees a credential."""
    with HunyuanServer(slots=2, shrink=16) as running:
        monkeypatch.setenv("NBIMG_HUNYUAN_BASE_URL", running.base_url)
        yield running
        assert not running.leaks
        assert not running.duplicates()


def use(monkeypatch, service, api):
    if api == "signed":
        monkeypatch.setenv("HUNYUAN_SECRET_ID", service.secret_id)
        monkeypatch.setenv("HUNYUAN_SECRET_KEY", service.secret_key)
    else:
        monkeypatch.setenv("HUNYUAN_API_KEY", service.api_key)
        monkeypatch.setenv("NBIMG_HUNYUAN_API", api)


@pytest.fixture
def signed(monkeypatch, service):
    use(monkeypatch, service, "signed")
    return service


def made(prompt="x", **options):
    """The result of one task, which does not raise."""
    return nbimg.generate([prompt], **{"model": MODEL, "fallback": (), **options})[0]


def picture(width, height=None, form="PNG", noise=False):
    pixels = np.zeros((height or width, width, 3), np.uint8)
    if noise:
        pixels[:] = np.random.default_rng(1).integers(0, 255, pixels.shape, np.uint8)
    target = io.BytesIO()
    PIL.Image.fromarray(pixels).save(target, form)
    return target.getvalue()


# ------------------------------------------------------------------ which API


@pytest.mark.parametrize("api", PATHS)
def test_each_api_makes_an_image(monkeypatch, service, api):
    use(monkeypatch, service, api)
    result = made()
    assert result.status is Status.OK, result.error
    assert service.count("POST", PATHS[api]) == 1
    assert [job.api for job in service.jobs] == [api]


def test_an_api_key_alone_means_tokenhub(monkeypatch, service):
    monkeypatch.setenv("HUNYUAN_API_KEY", service.api_key)
    assert made().status is Status.OK
    assert service.jobs[0].api == "tokenhub"


def test_a_base_url_of_tencents_says_which_api_it_is(monkeypatch):
    from nbimg.backends.base import Context
    from nbimg.backends.hunyuan import HunyuanBackend
    from nbimg.credentials.keys import Keys

    def name(url, **keys):
        settings = Settings({"NBIMG_HUNYUAN_BASE_URL": url})
        return HunyuanBackend(Context(settings, Keys(keys)))._form()[0].name

    assert name("https://api.cloudai.tencent.com", HUNYUAN_API_KEY="k") == "jobs"
    assert name("https://tokenhub.tencentmaas.com", HUNYUAN_API_KEY="k") == "tokenhub"
    both = {"HUNYUAN_SECRET_ID": "i", "HUNYUAN_SECRET_KEY": "k"}
    assert name("https://aiart.intl.tencentcloudapi.com", **both) == "signed"
    with pytest.raises(KeyMissingError, match="takes HUNYUAN_SECRET_ID and HUNYUAN_SECRET_KEY"):
        name("https://aiart.tencentcloudapi.com", HUNYUAN_API_KEY="k")


def test_an_api_that_there_is_not_is_named(monkeypatch, service):
    use(monkeypatch, service, "sync")
    with pytest.raises(SettingError, match=r"no API 'sync'.*tokenhub, tokenhub-jobs, jobs, signed"):
        nbimg.generate("x", model=MODEL)


def test_without_a_credential_both_ways_are_named(service):
    with pytest.raises(KeyMissingError, match="HUNYUAN_API_KEY, or HUNYUAN_SECRET_ID and"):
        nbimg.generate("x", model=MODEL)
    assert service.requests == []


def test_action_version_and_region_can_be_set(monkeypatch, signed):
    monkeypatch.setenv("NBIMG_HUNYUAN_ACTION", "SubmitTextToImageProJob")
    monkeypatch.setenv("NBIMG_HUNYUAN_VERSION", "2099-01-01")
    monkeypatch.setenv("HUNYUAN_REGION", "ap-singapore")
    made()
    (call,) = signed.matching("POST")
    sent = {name: call.headers[name] for name in ("X-TC-Action", "X-TC-Version", "X-TC-Region")}
    assert [*sent.values()] == ["SubmitTextToImageProJob", "2099-01-01", "ap-singapore"]


def test_an_api_that_was_taken_off_says_what_to_do(signed):
    signed.offline = frozenset({"SubmitTextToImageJob"})
    error = made().error
    assert error.kind == "RejectedError"
    assert "does not offer this API any more" in error.message
    assert "HUNYUAN_API_KEY" in error.hint
    assert signed.count(*SUBMIT) == 1


def test_a_job_of_another_api_is_not_asked_for_where_there_are_none(monkeypatch, service):
    use(monkeypatch, service, "signed")
    service.inject(Fault("html", *QUERY, times=2))
    assert made(retries=2).status is Status.FAILED
    monkeypatch.setenv("HUNYUAN_API_KEY", service.api_key)
    (later,) = nbimg.resume()
    assert "another one made this" in later.error.message
    monkeypatch.delenv("HUNYUAN_API_KEY")
    (later,) = nbimg.resume()
    assert later.status is Status.OK


# ------------------------------------------------------------------ settings


def test_how_many_at_once_is_read_from_its_own_variable(tmp_path):
    assert own_limit(Settings({}, tmp_path), "hunyuan") is None
    own = {"HUNYUAN_MAX_CONCURRENT": "5"}
    assert own_limit(Settings(own, tmp_path), "hunyuan") == 5
    both = {**own, "NBIMG_HUNYUAN_CONCURRENCY": "3"}
    assert own_limit(Settings(both, tmp_path), "hunyuan") == 3
    with pytest.raises(SettingError, match="'many' of hunyuan"):
        own_limit(Settings({"HUNYUAN_MAX_CONCURRENT": "many"}, tmp_path), "hunyuan")
    assert own_limit(Settings(own, tmp_path), "replicate") is None


def test_its_own_variables_are_read_from_the_env_file_too(tmp_path):
    (tmp_path / ".env").write_text("HUNYUAN_MAX_CONCURRENT=4\nHUNYUAN_REGION=ap-x\nOTHER=1\n")
    (tmp_path / "nbimg.toml").write_text("[providers.hunyuan]\nregion = 'ap-y'\napi = 'jobs'\n")
    settings = Settings({}, tmp_path)
    found = [settings.provider("hunyuan", key) for key in ("concurrency", "region", "api")]
    assert found == ["4", "ap-x", "jobs"]
    assert Settings({"HUNYUAN_REGION": "z"}, tmp_path).provider("hunyuan", "region") == "z"


def test_an_env_file_without_them_changes_nothing(tmp_path):
    (tmp_path / ".env").write_text("HUNYUAN_API_KEY=abc\n")
    assert not [source for source, _ in Settings({}, tmp_path)._files() if source.endswith(".env")]


def test_a_setting_that_it_does_not_have_is_named():
    with pytest.raises(SettingError, match="no provider setting 'regoin'"):
        config.kernel().set("providers", {"hunyuan": {"regoin": "x"}})


# ------------------------------------------------------------------ seeds, sizes, watermark


@pytest.mark.parametrize("api", PATHS)
def test_a_seed_takes_effect(monkeypatch, service, api):
    use(monkeypatch, service, api)
    first, again, other = (made(seed=seed, cache=False) for seed in (7, 7, 8))
    assert first.images[0].sha256 == again.images[0].sha256 != other.images[0].sha256
    assert [job.seed for job in service.jobs] == [7, 7, 8]
    service._jobs.clear()  # the first two are the same by intent


def test_seed_0_is_a_seed_like_any_other(signed):
    images = [made(seed=0, cache=False).images[0] for _ in range(2)]
    assert images[0].sha256 == images[1].sha256
    assert [image.seed for image in images] == [0, 0]
    signed._jobs.clear()


def test_it_is_said_that_the_prompt_is_not_rewritten(signed):
    said = "hunyuan-image-3: revise is off, so that the seed takes effect."
    assert made(seed=7).notices == (said,)
    assert made("y", n=2).notices == (said,)
    assert made("z", params={"revise": False}).notices == ()


def test_the_rewriting_of_the_prompt_can_be_turned_on(signed):
    result = made(seed=7, n=2, params={"revise": True})
    assert [image.seed for image in result.images] == [None, None]
    assert "with revise on no seed takes effect" in result.notices[0]
    signed.jobs[1].sent["Prompt"] = "the same by intent"
    assert signed.jobs[0].sent["Revise"] == 1
    assert "Seed" not in signed.jobs[0].sent


@pytest.mark.parametrize("api", ["signed", "tokenhub"])
@pytest.mark.parametrize(
    ("shape", "resolution"),
    [({"size": "1024x768"}, "1024:768"), ({"size": "1920x1080"}, "1280:720"),
     ({"ar": "16:9"}, "1280:720"), ({"ar": "1:1"}, "1024:1024"), ({"ar": "9:16"}, "720:1280"),
     ({"ar": "4:1"}, "2048:512"), ({"ar": "10:1"}, "2048:512"), ({"size": "512x512"}, "1024:1024")],
)  # fmt: skip
def test_a_shape_becomes_the_nearest_that_is_allowed(monkeypatch, service, api, shape, resolution):
    use(monkeypatch, service, api)
    result = made(**shape)
    assert result.status is Status.OK, result.error
    assert service.jobs[0].input["resolution"] == resolution
    width, height = map(int, resolution.split(":"))
    assert (result.images[0].width, result.images[0].height) == (width // 16, height // 16)


def test_a_shape_that_was_changed_is_said(signed):
    assert "became the nearest allowed, 1280x720" in " ".join(made(size="1920x1080").notices)
    assert "nearest aspect ratio" in " ".join(made("y", ar="10:1").notices)


def test_the_watermark_can_be_chosen(monkeypatch, signed):
    def corner(result):
        return result.images[0].pil().convert("L").getpixel((63, 63)) > 128

    assert corner(made())
    assert not corner(made("y", params={"watermark": False}))
    use(monkeypatch, signed, "tokenhub")
    assert not corner(made("z"))
    assert corner(made("zz", params={"watermark": "made by AI"}))
    with pytest.raises(nbimg.NbimgError, match="watermark is a string"):
        nbimg.generate("x", model=MODEL, params={"watermark": True})


def test_an_unknown_parameter_is_refused_before_anything_is_sent(signed):
    with pytest.raises(UnknownNameError, match="watermark"):
        nbimg.generate("x", model=MODEL, params={"watermrk": False})
    assert signed.requests == []


def test_a_negative_prompt_is_dropped_and_that_is_said(signed):
    assert "takes no negative prompt" in " ".join(made(negative="fog").notices)


# ------------------------------------------------------------------ images in


def sent_images(service):
    job = service.jobs[-1]
    texts = job.sent.get("Images") or job.sent.get("images")
    return [base64.b64decode(text.rpartition(",")[2]) for text in texts]


@pytest.mark.parametrize("api", PATHS)
def test_up_to_three_references_go_inside_the_order(monkeypatch, service, api):
    use(monkeypatch, service, api)
    images = [picture(side) for side in (60, 61, 62)]
    (result,) = nbimg.edit(images, "x", mode="combine", model=MODEL)
    assert result.status is Status.OK, result.error
    assert sent_images(service) == images
    with pytest.raises(nbimg.NbimgError, match="takes 3 input images, not 4"):
        nbimg.edit([*images, picture(63)], "x", mode="combine", model=MODEL)


def test_an_image_is_a_data_address_where_that_is_taken_and_bare_where_not(monkeypatch, service):
    for api, head in (("signed", "iVBOR"), ("tokenhub", "data:image/png;base64,iVBOR")):
        use(monkeypatch, service, api)
        nbimg.edit(picture(60), api, model=MODEL)
        sent = service.jobs[-1].sent
        assert (sent.get("Images") or sent["images"])[0].startswith(head)


def test_an_image_that_is_too_small_is_enlarged(signed):
    nbimg.edit(picture(20, 12), "x", model=MODEL)
    (data,) = sent_images(signed)
    assert PIL.Image.open(io.BytesIO(data)).size == (100, 60)


def test_an_image_of_too_many_pixels_is_shrunk(signed):
    nbimg.edit(picture(6000, 60), "x", model=MODEL)
    (data,) = sent_images(signed)
    assert PIL.Image.open(io.BytesIO(data)).size == (5000, 50)


def test_images_of_too_many_bytes_are_shrunk_until_the_order_fits(signed):
    photo = picture(2200, form="JPEG", noise=True)
    assert 2_500_000 < len(photo) < 4_500_000  # one would fit
    (result,) = nbimg.edit([photo] * 3, "x", mode="combine", model=MODEL)
    assert result.status is Status.OK, result.error
    assert len(signed.matching(*SUBMIT)[0].body) < 10_000_000
    assert sent_images(signed)[0] != photo


def test_a_single_image_of_too_many_bytes_is_shrunk(signed):
    nbimg.edit(picture(1400, noise=True), "x", model=MODEL)
    (data,) = sent_images(signed)
    assert data.startswith(b"\xff\xd8")


def test_a_type_that_is_not_taken_becomes_png(monkeypatch, service):
    webp = picture(64, form="WEBP")
    use(monkeypatch, service, "signed")
    nbimg.edit(webp, "x", model=MODEL)
    assert sent_images(service) == [webp]
    use(monkeypatch, service, "tokenhub")
    nbimg.edit(webp, "x", model=MODEL)
    assert sent_images(service)[0].startswith(b"\x89PNG")


# ------------------------------------------------------------------ limits and failures


def test_a_refused_crowd_waits_and_nothing_is_paid_twice(signed):
    signed.slots, signed.over_limit, signed.running_s = 1, "refuse", 0.03
    results = nbimg.generate([f"p{k}" for k in range(6)], model=MODEL, retries=8, fallback=())
    assert [result.status for result in results] == [Status.OK] * 6
    assert len(signed.jobs) == 6


def test_a_job_that_failed_for_a_passing_reason_is_ordered_anew(signed):
    signed.expect(HunyuanOutcome(code="ServerError"))
    assert made().status is Status.OK
    assert [job.billed for job in signed.jobs] == [False, True]


def test_an_order_that_was_answered_with_a_fault_is_ordered_anew(signed):
    signed.inject(Fault("error", *SUBMIT, variant="InternalError"))
    assert made().status is Status.OK
    assert len(signed.jobs) == 1


def test_an_order_that_timed_out_within_their_system_is_not_sent_again(signed):
    signed.inject(Fault("error", *SUBMIT, variant="FailedOperation.RequestTimeout"))
    assert made().status is Status.UNKNOWN
    assert signed.count(*SUBMIT) == 1


def test_a_job_that_is_not_known_any_more_ends_and_is_not_asked_for_again(signed):
    signed.inject(Fault("error", *QUERY, variant="FailedOperation.JobNotExist"))
    result = made()
    assert result.status is Status.FAILED
    assert "does not know the job any more" in result.error.message
    assert signed.count(*QUERY) == 1
    assert list(nbimg.resume()) == []


def test_an_image_that_has_expired_says_how_long_it_was_kept(signed):
    signed.inject(Fault("html", "GET", "/results/*", times=1))
    assert made(retries=1).status is Status.FAILED
    signed.advance(3700)
    (later,) = nbimg.resume()
    assert "keeps images for an hour (403)" in later.error.message


def test_a_clock_that_is_off_is_named(signed):
    signed.ahead_s = 400
    error = made().error
    assert error.kind == "KeyRejectedError"
    assert "clock of this machine" in error.hint


def test_a_job_cannot_be_stopped_and_is_fetched_later(signed):
    signed.running_s = 0.6
    job = nbimg.submit(["x"], model=MODEL, fallback=())
    until = time.monotonic() + 5
    while not signed.jobs and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.1)  # its id is in the journal
    job.cancel()
    (result,) = job.wait()
    assert result.status is Status.CANCELLED
    (later,) = nbimg.resume()
    assert later.status is Status.OK
    assert len(signed.jobs) == 1


def test_a_page_of_a_proxy_that_refuses_is_no_order(signed):
    signed.inject(Fault("html", *SUBMIT, status=404))
    result = made()
    assert result.status is Status.FAILED
    assert result.error.http_status == 404


def test_tokenhub_is_waited_for_as_long_as_it_needs(monkeypatch, service):
    use(monkeypatch, service, "tokenhub")
    service.running_s = 0.5
    result = made()
    assert result.status is Status.OK
    assert service.count("POST") == 1


def test_the_rate_of_tokenhub_is_waited_out(monkeypatch, service):
    use(monkeypatch, service, "tokenhub")
    service.rpm, service.speed = 2, 3000  # a minute in 0.02 s
    results = nbimg.generate(["a", "b", "c"], model=MODEL, retries=10, fallback=())
    assert [result.status for result in results] == [Status.OK] * 3


def test_no_file_that_is_left_behind_holds_a_credential(signed):
    made(output="{index}.png")
    for path in Path().rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert signed.secret_id.encode() not in data, path
            assert signed.secret_key.encode() not in data, path

import io

import PIL.Image
import pytest

import nbimg
from nbimg.backends import replicate_files
from nbimg.backends.replicate_files import MAX_INLINE_BYTES, smaller
from nbimg.media import pixels
from nbimg.testing import COMMUNITY_MODEL, Fault
from nbimg.testing.conformance import noise
from nbimg.testing.pictures import render_picture
from nbimg.types import Status

VERSIONED = f"replicate:{COMMUNITY_MODEL.name}:{COMMUNITY_MODEL.version}"
SMALL = render_picture("small", "png", 20, 20)
LARGE = noise(400)


def edit(images, model="flux-kontext-max", **options):
    return list(nbimg.edit(images, "x", model=model, fallback=(), **options))


def test_a_large_picture_that_many_tasks_take_is_uploaded_once(server):
    results = edit([LARGE] * 4, concurrency=4)
    assert [result.status for result in results] == [Status.OK] * 4
    assert server.count("POST", "/v1/files") == 1
    assert len({job.input["input_image"] for job in server.jobs}) == 1


@pytest.mark.parametrize("status", [400, 413])
def test_a_limit_that_is_lower_than_documented_is_learned(server, status):
    server.data_uri_limit_bytes, server.oversize_status = 50, status
    first, second = edit([SMALL, render_picture("b", "png", 20, 20)], concurrency=1)
    assert (first.status, second.status) == (Status.OK, Status.OK)
    assert len(server.uploads) == 2
    assert server.count("POST", "*/predictions") == 3
    assert len(server.jobs) == 2


def test_a_model_that_looks_at_the_extension_is_given_a_smaller_picture_inside(server):
    (result,) = edit([LARGE], VERSIONED)
    assert result.status is Status.OK, result.error
    addressed, inside = (job.input["image"] for job in server.jobs)
    assert addressed.startswith(server.base_url)
    assert inside.startswith("data:image/jpeg;base64,")
    assert len(inside) < MAX_INLINE_BYTES + 100
    assert len(server.billed_jobs) == 1


def test_what_a_model_rejects_is_not_tried_on_it_twice(server):
    edit([LARGE], VERSIONED)
    (result,) = edit([noise(410)], VERSIONED)
    assert result.status is Status.OK
    assert len(server.jobs) == 3
    assert server.count("POST", "/v1/files") == 1


def test_a_smaller_picture_that_was_lost_is_found(server):
    edit([LARGE], VERSIONED)
    server.inject(Fault("drop", method="POST", path="*/predictions", when="after"))
    (result,) = nbimg.batch([{"prompt": "x", "image": LARGE}], model=VERSIONED)
    assert result.status is Status.OK
    assert len(server.jobs) == 3


def test_a_smaller_picture_of_another_pillow_is_not_taken_for_absent(server, monkeypatch):
    edit([LARGE], VERSIONED)
    server.inject(Fault("drop", method="POST", path="*/predictions", when="after"))
    made = []
    real = replicate_files.smaller

    def other(data, *args):
        made.append(data)
        return real(data, *args) if len(made) == 1 else real(data, 50_000)

    monkeypatch.setattr(replicate_files, "smaller", other)
    (result,) = nbimg.batch([{"prompt": "x", "image": LARGE}], model=VERSIONED, cache=False)
    assert result.status is Status.UNKNOWN
    assert len(server.jobs) == 3


def test_a_picture_is_made_smaller_only_as_far_as_needed():
    picture = io.BytesIO()
    PIL.Image.effect_mandelbrot((1200, 900), (-3, -2.5, 2, 2.5), 100).save(picture, "PNG")
    data, mime = smaller(picture.getvalue(), 300_000)
    assert (mime, pixels.decode(data).size) == ("image/jpeg", (1200, 900))
    data, _ = smaller(LARGE, 20_000)
    assert len(data) <= 20_000
    assert max(pixels.decode(data).size) > 64


def test_a_transparent_picture_stays_transparent():
    picture = io.BytesIO()
    PIL.Image.new("RGBA", (40, 40), (255, 0, 0, 0)).save(picture, "PNG")
    data, mime = smaller(picture.getvalue(), 20_000)
    assert mime == "image/webp"
    assert pixels.decode(data).mode == "RGBA"

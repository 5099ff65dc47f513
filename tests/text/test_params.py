import base64
import io
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import nbimg
from nbimg.testing import Fault
from nbimg.testing.pictures import render_picture
from nbimg.testing.speedpix import FAKE_APP_KEY, FAKE_APP_SECRET, SpeedPixServer
from nbimg.types import Status

PNG = render_picture("a", "png", 8, 6)


@pytest.fixture
def speedpix(monkeypatch):
    with SpeedPixServer() as running:
        monkeypatch.setenv("SPEEDPIX_ENDPOINT", running.base_url)
        monkeypatch.setenv("SPEEDPIX_APP_KEY", FAKE_APP_KEY)
        monkeypatch.setenv("SPEEDPIX_APP_SECRET", FAKE_APP_SECRET)
        monkeypatch.setenv("NBIMG_SPEEDPIX_INPUTS", "seed=seed")
        yield running
        assert not running.leaks


@pytest.mark.parametrize(
    "value",
    [
        lambda: PNG,
        lambda: Path("cat.png"),
        lambda: io.BytesIO(PNG),
        lambda: PIL.Image.open(io.BytesIO(PNG)),
        lambda: np.asarray(PIL.Image.open(io.BytesIO(PNG))),
    ],
    ids=["bytes", "path", "open file", "picture", "array"],
)
def test_a_file_as_the_value_of_a_parameter_is_sent(speedpix, value):
    Path("cat.png").write_bytes(PNG)
    (result,) = nbimg.generate("x", model="speedpix:1002", params={"image": value(), "more": [PNG]})
    assert result.status is Status.OK
    (job,) = speedpix.jobs
    data = base64.b64decode(job.inputs["image"].partition(",")[2])
    assert PIL.Image.open(io.BytesIO(data)).size == (8, 6)
    assert job.inputs["more"][0].startswith("data:image/png;base64,")


def test_the_same_bytes_are_the_same_request_whatever_they_are_called(speedpix):
    Path("a.png").write_bytes(PNG)
    Path("b.png").write_bytes(PNG)
    first = nbimg.generate("x", model="speedpix:1002", seed=1, params={"image": Path("a.png")})
    again = nbimg.generate("x", model="speedpix:1002", seed=1, params={"image": Path("b.png")})
    assert (first[0].cached, again[0].cached) == (False, True)
    Path("b.png").write_bytes(render_picture("b", "png", 8, 6))
    other = nbimg.generate("x", model="speedpix:1002", seed=1, params={"image": Path("b.png")})
    assert not other[0].cached


def test_what_is_saved_does_not_say_where_an_input_was(speedpix):
    Path("diary.png").write_bytes(PNG)
    (result,) = nbimg.generate("x", model="speedpix:1002", params={"image": Path("diary.png")})
    assert result.status is Status.OK
    told = PIL.Image.open(result.images[0].path).text["nbimg"]
    assert "diary" not in told
    assert str(Path.cwd()) not in told
    assert len(json.loads(told)["arguments"]["image"]["sha256"]) == 64


def test_a_task_with_a_file_is_resumed(speedpix):
    speedpix.inject(Fault("html", method="GET", path="/out/*", times=2))
    nbimg.generate(["x"], model="speedpix:1002", retries=2, params={"image": PNG})
    (result,) = nbimg.resume()
    assert result.status is Status.OK
    assert result.request.params["image"]["width"] == 8


def test_a_parameter_that_is_no_picture_is_an_error_of_its_task(speedpix):
    results = nbimg.batch(
        [
            {"prompt": "x", "model": "speedpix:1002", "params": {"image": b"text"}},
            {"prompt": "y", "model": "speedpix:1001"},
        ]
    )
    assert [result.status for result in results] == [Status.FAILED, Status.OK]
    assert len(speedpix.jobs) == 1

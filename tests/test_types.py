import asyncio
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbimg.errors import GenerationError, OptionError, ResultMissingError, UnknownNameError
from nbimg.types import (
    Attempt,
    Capabilities,
    ErrorRecord,
    Field,
    ImageRecord,
    InputImage,
    Request,
    Result,
    Seconds,
    Size,
    Status,
    parse_ratio,
)

TEXT = st.text(max_size=30)
NUMBER = st.floats(0, 1, allow_nan=False)
SIDES = st.integers(1, 99_999)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
PICTURES = st.builds(InputImage, TEXT, TEXT, SIDES, SIDES, TEXT, st.none() | TEXT)
REQUESTS = st.builds(
    Request,
    TEXT,
    model=st.none() | TEXT,
    n=st.integers(1, 1000),
    size=st.none() | st.builds(Size, SIDES, SIDES),
    ar=st.none() | st.builds("{}:{}".format, SIDES, SIDES),
    seed=st.none() | st.integers(0, 2**32 - 1),
    negative=st.none() | TEXT,
    steps=st.none() | st.integers(1, 1000),
    guidance=st.none() | NUMBER,
    strength=st.none() | NUMBER,
    image=st.lists(PICTURES | TEXT, max_size=2).map(tuple),
    mask=st.none() | PICTURES,
    lora=st.lists(TEXT, max_size=2).map(tuple),
    scheduler=st.none() | TEXT,
    params=st.dictionaries(TEXT, JSON, max_size=3),
    output=st.none() | TEXT,
    task_id=st.none() | TEXT,
)
SECONDS = st.floats(0, 1e6, allow_nan=False)
RESULTS = st.builds(
    Result,
    st.integers(0, 999),
    REQUESTS,
    TEXT,
    model_asked=st.none() | TEXT,
    status=st.sampled_from(Status),
    images=st.lists(
        st.builds(
            ImageRecord,
            st.none() | st.sampled_from([Path("/a/b.png"), Path("c d/é.webp")]),
            st.none() | TEXT,
            mime=TEXT,
            width=SIDES,
            height=SIDES,
            sha256=TEXT,
            seed=st.none() | st.integers(0, 9),
        ),
        max_size=2,
    ).map(tuple),
    error=st.none()
    | st.builds(ErrorRecord, TEXT, TEXT, st.none() | TEXT, st.none() | st.integers()),
    attempts=st.lists(st.builds(Attempt, TEXT, TEXT, SECONDS, SECONDS, TEXT), max_size=2).map(
        tuple
    ),
    notices=st.lists(TEXT, max_size=2).map(tuple),
    seconds=st.builds(Seconds, SECONDS, SECONDS, SECONDS),
    cost_usd=st.none() | SECONDS,
    cached=st.booleans(),
)


@given(REQUESTS)
def test_a_request_survives_the_way_through_json(request):
    again = Request.from_dict(json.loads(json.dumps(request.to_dict())))
    assert again == request
    assert again.key == request.key
    assert hash(again) == hash(request)


@given(RESULTS)
def test_a_result_survives_the_way_through_json(result):
    assert Result.from_dict(json.loads(json.dumps(result.to_dict()))) == result


@given(REQUESTS, TEXT, TEXT)
def test_the_key_ignores_names_of_files_and_tasks(request, output, task_id):
    assert request.but(output=output, task_id=task_id).key == request.key
    renamed = tuple(
        InputImage(i.sha256, i.mime, i.width, i.height, "/elsewhere", "other")
        if isinstance(i, InputImage)
        else i
        for i in request.image
    )
    assert request.but(image=renamed).key == request.key


@pytest.mark.parametrize(
    "change",
    [{"prompt": "b"}, {"seed": 2}, {"n": 2}, {"params": {"a": 1}}, {"model": "m"}, {"ar": "1:1"}],
)
def test_the_key_tells_apart_what_makes_other_pixels(change):
    assert Request("a", seed=1).but(**change).key != Request("a", seed=1).key


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean prompt"):
        Request.from_dict({"promt": "x"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": 0}, {"n": 1001}, {"n": True}, {"n": 1.5}, {"seed": -1}, {"seed": 2**32}, {"steps": 0},
        {"guidance": math.nan}, {"guidance": "high"}, {"strength": 1.1}, {"size": "big"}, {"ar": "0:1"},
    ],
)  # fmt: skip
def test_a_value_that_can_mean_nothing_is_refused(wrong):
    with pytest.raises(OptionError):
        Request("x", **wrong)


def test_a_prompt_is_a_text():
    with pytest.raises(OptionError, match="not int"):
        Request(3)


@given(SIDES, SIDES)
def test_sizes_and_ratios_are_read_as_they_are_written(width, height):
    assert Size.parse(str(Size(width, height))) == Size(width, height)
    across, down = parse_ratio(f"{width}:{height}")
    assert math.gcd(across, down) == 1
    assert across * height == down * width


def test_params_cannot_be_changed_afterwards():
    given = {"a": 1}
    request = Request("x", params=given)
    given["a"] = 2
    assert request.params == {"a": 1}
    with pytest.raises(TypeError):
        request.params["a"] = 3


@pytest.mark.parametrize(
    "kind", ["BusyError", "StoreWriteError", "ImageInputError", "GenerationError"]
)
def test_a_recorded_error_can_be_raised_again(kind):
    error = ErrorRecord(kind, "what happened.", "what to do").exception()
    assert "what happened." in str(error)
    assert error.hint == "what to do"
    assert not isinstance(error, GenerationError) or error.result is None


def test_a_record_reads_saves_and_decodes_its_file(tmp_path):
    from nbimg.testing.pictures import render_picture

    data = render_picture("x", "png", 8, 4)
    path = tmp_path / "a.png"
    path.write_bytes(data)
    record = ImageRecord(path)
    assert record.read() == data == asyncio.run(record.aread())
    assert record.pil().size == (8, 4)
    assert record.save(tmp_path / "b.png").read_bytes() == data
    assert asyncio.run(record.asave(tmp_path / "c.png")).read_bytes() == data
    with pytest.raises(ResultMissingError):
        ImageRecord(None, "https://x").read()
    with pytest.raises(ResultMissingError):
        ImageRecord(tmp_path / "gone.png").read()


def test_capabilities_say_how_many_images_a_model_takes():
    assert Capabilities().max_images == 0
    assert Capabilities({"image": Field("i", "file")}).max_images == 1
    assert Capabilities({"image": Field("i", "files", maximum=3)}).max_images == 3

"""A task's dict, with the names that people bring along, becomes a request."""

import json
import pathlib
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbimg.errors import InputError, NbimgError, OptionError, UnknownNameError
from nbimg.text.tasks import NAMES, read_task, requests_of, spread_seeds
from nbimg.types import InputImage, Request, Size

TEXT = st.text(min_size=1, max_size=9)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT | st.floats(-1e6, 1e6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)
#: Requests as people write them: paths and addresses for images, not yet their bytes.
REQUESTS = st.builds(
    Request,
    prompt=TEXT.filter(str.strip),
    model=st.none() | TEXT,
    n=st.integers(1, 1000),
    size=st.none() | st.builds(Size, st.integers(1, 9999), st.integers(1, 9999)),
    ar=st.sampled_from([None, "1:1", "16:9"]),
    seed=st.none() | st.integers(0, 2**32 - 1),
    negative=st.none() | st.text(max_size=9),
    steps=st.none() | st.integers(1, 1000),
    guidance=st.none() | st.floats(0, 100),
    strength=st.none() | st.floats(0, 1),
    image=st.lists(TEXT, max_size=2).map(tuple),
    mask=st.none() | TEXT,
    lora=st.lists(TEXT, max_size=2).map(tuple),
    scheduler=st.none() | TEXT,
    params=st.dictionaries(TEXT, JSON, max_size=2),
    output=st.none() | TEXT,
    task_id=st.none() | TEXT,
)


def fail(task, **defaults):
    with pytest.raises(InputError) as caught:
        requests_of([{"prompt": "a"}, task], defaults)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("brought", "own"),
    [
        ({"output_filename": "a.jpg"}, {"output": "a.jpg"}),
        ({"output_path": pathlib.PurePosixPath("x/a.jpg")}, {"output": "x/a.jpg"}),
        ({"output_filepath": "x/a.jpg"}, {"output": "x/a.jpg"}),
        ({"filename": "a.jpg"}, {"output": "a.jpg"}),
        ({"model_name": "flux-dev"}, {"model": "flux-dev"}),
        ({"resolution": "16:9"}, {"ar": "16:9"}),
        ({"resolution": "1024x768"}, {"size": Size(1024, 768)}),
        ({"resolution": "1024*768"}, {"size": Size(1024, 768)}),
        ({"resolution": "1024:768"}, {"size": Size(1024, 768)}),
        ({"width": 640, "height": "480"}, {"size": Size(640, 480)}),
        ({"size": [640, 480]}, {"size": Size(640, 480)}),
        ({"num_outputs": 4}, {"n": 4}),
        ({"negative_prompt": "people"}, {"negative": "people"}),
        ({"num_inference_steps": 28}, {"steps": 28}),
        ({"guidance_scale": 3}, {"guidance": 3.0}),
        ({"aspect_ratio": "4:3"}, {"ar": "4:3"}),
        ({"image_path": "a.png"}, {"image": ("a.png",)}),
        ({"images": ["a.png", "b.png"]}, {"image": ("a.png", "b.png")}),
        ({"lora": "a:0.8"}, {"lora": ("a:0.8",)}),
        ({"kwargs": {"a": 1}, "params": {"b": 2}}, {"params": {"a": 1, "b": 2}}),
        ({"id": 17}, {"task_id": "17"}),
        ({"Output Filename": "a.jpg", "negative-prompt": "x"}, {"output": "a.jpg", "negative": "x"}),
        ({"style": "watercolor"}, {"prompt": "a car, watercolor"}),
        ({"n": "3", "guidance": "0.5", "seed": " 7 "}, {"n": 3, "guidance": 0.5, "seed": 7}),
        ({"params": '{"a": 1}', "image": '["a.png", "b.png"]'},
         {"params": {"a": 1}, "image": ("a.png", "b.png")}),
        ({"params": "output_quality=95"}, {"params": {"output_quality": 95}}),
        ({"seed": "3.0", "steps": 4.0}, {"seed": 3, "steps": 4}),
        ({"seed": np.int64(5), "guidance": np.float32(0.5)}, {"seed": 5, "guidance": 0.5}),
    ],
)  # fmt: skip
def test_the_names_and_values_that_people_bring_along_are_understood(brought, own):
    assert Request(**read_task({"prompt": "a car", **brought})) == Request(
        **{"prompt": "a car", **own}
    )


@pytest.mark.parametrize("nothing", [None, "", float("nan"), pd.NA, pd.NaT, np.float64("nan")])
def test_an_empty_cell_of_a_table_is_a_field_that_was_not_given(nothing):
    blank = {
        name: nothing for name in NAMES if name not in ("prompt", "negative", "negative_prompt")
    }
    assert read_task({"prompt": "a", **blank}) == {"prompt": "a"}


def test_no_negative_prompt_can_be_asked_for_where_the_call_has_one():
    (request,) = requests_of([{"prompt": "a", "negative": ""}], {"negative": "people"})
    assert request.negative == ""


def test_numbers_of_a_table_are_numbers_of_python():
    (request,) = requests_of([{"prompt": "a", "seed": np.int64(5)}], {})
    assert type(request.seed) is int
    assert json.dumps(request.to_dict())


def test_an_image_of_any_kind_is_passed_on_as_it_is():
    array = np.zeros((2, 2, 3))
    task = read_task({"prompt": "a", "image": array, "mask": array})
    assert task["image"][0] is array
    assert task["mask"] is array


def test_an_image_that_was_read_before_is_one_again():
    image = InputImage("ab", "image/png", 1, 2, "/x.png")
    (request,) = requests_of([Request("a", image=image, mask=image).to_dict()], {})
    assert (request.image, request.mask) == ((image,), image)


def test_an_unknown_key_is_named_with_the_nearest_and_its_place():
    error = fail({"prompt": "a", "output_filname": "x.jpg"})
    assert isinstance(error, UnknownNameError)
    assert error.closest[0] == "output_filename"
    assert "no key 'output_filname'. Did you mean output_filename" in str(error)
    assert "task 2" in str(error)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"prompt": "a", "n": "many"}, "task 2: n 'many' is not a whole number."),
        ({"prompt": "a", "n": 1.5}, "task 2: n 1.5 is not a whole number."),
        ({"prompt": "a", "seed": True}, "task 2: seed True is not a whole number."),
        ({"prompt": "a", "seed": [1, 2]}, "task 2: seed [1, 2] is not a whole number."),
        ({"prompt": "a", "num_outputs": 0}, "task 2: n 0 is not a whole number from 1 to 1000."),
        ({"prompt": "a", "guidance_scale": "x"}, "task 2: guidance_scale 'x' is not a number."),
        ({"prompt": 7}, "task 2: prompt 7 is not a text."),
        ({"prompt": ["a", "b"]}, "task 2: prompt ['a', 'b'] is not a text."),
        ({"prompt": "a", "kwargs": [1]}, "task 2: kwargs [1] is not a dict."),
        ({"prompt": "a", "kwargs": "{"}, "task 2: kwargs '{' is not KEY=VALUE or a dict in JSON."),
        ({"prompt": "a", "size": "big"}, "task 2: size 'big' is not WxH in pixels"),
        ({"prompt": "a", "size": [1, 2, 3]}, "task 2: size [1, 2, 3] is not WxH in pixels"),
        ({"prompt": "a", "ar": 1.5}, "task 2: ar 1.5 is not W:H"),
        ({"prompt": "a", "resolution": "2K"}, "task 2: resolution '2K' is not W:H or WxH"),
        ({"prompt": "a", "width": 512}, "task 2: there is a width, but no height."),
        ({"prompt": "a", "width": 512, "height": 0}, "task 2: size '512x0' is not WxH in pixels"),
        ({"prompt": "a", "lora": 3}, "task 2: lora 3 is not a text or a list of texts."),
        ({"prompt": "a", "image": {"x": 1}}, "task 2: image {'x': 1} is not an image."),
        ({"seed": 1}, "task 2 has no prompt."),
        ({"prompt": " ", "output": "a.jpg"}, "task 2 has no prompt."),
        ({"prompt": "a", "timeout": 3}, "task 2: timeout holds for the whole call."),
        (7, "task 2: 7 is neither a text, a dict nor a Request."),
        (None, "task 2: None is neither a text, a dict nor a Request."),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_said_in_one_line_with_the_task(task, message):
    assert str(fail(task)).startswith(message)


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ({"output": "a.jpg", "output_filename": "b.jpg"}, "'output' and 'output_filename'"),
        ({"size": "1x2", "width": 2, "height": 2}, "'size' and 'width'"),
        ({"ar": "1:1", "resolution": "16:9"}, "'ar' and 'resolution'"),
        ({"params": {"a": 1}, "kwargs": {"a": 2}}, "'params' and 'kwargs'"),
        ({"n": 1, "N": 2}, "'n' and 'N'"),
        ({"image": "a.png", "images": [np.zeros((1, 1))]}, "'image' and 'images'"),
    ],
)
def test_two_names_of_one_thing_must_say_the_same(task, names):
    assert f"task 2: {names} say different things." in str(fail({"prompt": "a", **task}))
    assert requests_of([{"prompt": "a", "n": 2, "num_outputs": "2"}], {})[0].n == 2


def test_a_task_with_an_image_or_with_the_models_own_prompt_needs_no_text():
    (edit,) = requests_of([{"image": "a.png"}], {})
    assert (edit.prompt, edit.image) == ("", ("a.png",))
    assert requests_of([{"seed": 1}], {"image": ["a.png"]})[0].image == ("a.png",)
    array = np.zeros((2, 2, 3))
    assert requests_of([{"seed": 1}], {"image": array})[0].image[0] is array
    assert requests_of([{"params": {"prompt": "a"}}], {})[0].prompt == ""
    assert requests_of([{"seed": 1}], {}, images_follow=True)[0].seed == 1


def test_a_style_alone_is_the_prompt_of_a_task_with_an_image():
    assert read_task({"image": "a.png", "style": "watercolor"})["prompt"] == "watercolor"


def test_the_tasks_own_values_win_over_those_of_the_call():
    defaults = {"seed": 1, "n": 2, "model": ("m",), "params": {"a": 1, "b": 1}}
    texts, dicts, requests = requests_of(
        [
            "x",
            {"prompt": "y", "seed": 5, "kwargs": {"b": 2}},
            Request("z", n=3, params={"a": 3}),
        ],
        defaults,
    )
    assert texts == Request("x", "m", 2, seed=1, params={"a": 1, "b": 1})
    assert dicts == Request("y", "m", 2, seed=5, params={"a": 1, "b": 2})
    assert requests == Request("z", "m", 3, seed=1, params={"a": 3, "b": 1})


def test_the_tasks_own_aspect_ratio_wins_over_a_size_of_the_call():
    for task in ({"prompt": "a", "ar": "1:1"}, Request("a", ar="1:1")):
        (request,) = requests_of([task], {"size": Size(640, 480)})
        assert (request.ar, request.size) == ("1:1", None)


def test_several_models_of_the_call_are_refused():
    with pytest.raises(OptionError, match="one model"):
        requests_of(["x"], {"model": ("a", "b")})


def test_a_single_task_is_not_numbered():
    with pytest.raises(OptionError, match=r"^n 'x' is not a whole number"):
        requests_of([{"prompt": "a", "n": "x"}], {})


def test_a_list_of_seeds_gives_one_a_task():
    requests = spread_seeds([Request("a"), Request("b", seed=9)], np.array([1, 2]))
    assert [request.seed for request in requests] == [1, 9]
    assert type(requests[0].seed) is int


def test_seeds_that_do_not_pair_are_refused_with_both_numbers():
    with pytest.raises(OptionError, match="2 tasks cannot share 3 seeds"):
        spread_seeds([Request("a"), Request("b")], [1, 2, 3])
    with pytest.raises(OptionError, match="task 2: seed 'x' is not a whole number"):
        spread_seeds([Request("a"), Request("b")], [1, "x"])


def test_every_field_of_a_request_is_a_key():
    assert {spec.name for spec in fields(Request)} <= set(NAMES)


@given(REQUESTS)
def test_what_a_request_writes_is_read_as_the_same_request(request):
    plain = json.loads(json.dumps(request.to_dict()))
    kept = {key: value for key, value in plain.items() if value != ""}
    assert Request.from_dict(read_task(plain)) == request
    assert requests_of([plain], {}) == requests_of([request], {}) == [request]
    assert requests_of([kept], {})[0].prompt == request.prompt


@given(
    st.dictionaries(
        st.sampled_from([*NAMES, "promt", "", " "]) | st.text(max_size=4) | st.integers(),
        JSON | st.floats() | st.binary(max_size=3) | st.dates() | st.tuples(st.integers()),
        max_size=5,
    )
)
def test_any_dict_is_a_request_or_refused_in_one_line(task):
    try:
        assert requests_of([task], {})[0].prompt is not None
    except NbimgError as error:
        assert "\n" not in str(error)  # noqa: PT017

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbimg.errors import InputError, OptionError, UnknownNameError
from nbimg.planning.plan import Origin, lacks, plan
from nbimg.types import Capabilities, Field, InputImage, ModelRef, Request, Size

REF = ModelRef("replicate", "x/y", "model-y")
PICTURE = InputImage("0" * 64, "image/png", 8, 8, "/tmp/x.png")
SEED = Field("seed", "integer", maximum=2**31 - 1)
RATIO = Field("aspect_ratio", allowed=("match_input_image", "1:1", "16:9", "4:3", "3:4"))


def planned_with(request, base, **options):
    return plan(0, request, REF, Capabilities(options=options), seed=base)


# ------------------------------------------------------------------ seeds and counts


def test_variant_k_has_seed_plus_k_in_calls_of_their_own():
    planned = planned_with(
        Request("x", n=3, seed=7), 1, seed=SEED, n=Field("num_outputs", maximum=4)
    )
    assert [(call.seed, call.arguments["seed"], call.count) for call in planned.calls()] == [
        (7, 7, 1),
        (8, 8, 1),
        (9, 9, 1),
    ]


def test_without_a_seed_the_drawn_one_is_sent():
    assert [call.seed for call in planned_with(Request("x", n=2), 55, seed=SEED).calls()] == [
        55,
        56,
    ]


def test_a_seed_among_the_params_is_the_base_too():
    planned = planned_with(Request("x", n=2, params={"seed": 5}), 55, seed=SEED)
    assert [call.seed for call in planned.calls()] == [5, 6]


@given(st.integers(0, 2**32 - 1), st.integers(1, 20))
def test_every_seed_that_is_sent_is_one_the_model_takes(seed, n):
    planned = planned_with(Request("x", n=n, seed=seed), 0, seed=SEED)
    assert len(planned.calls()) == n
    assert all(0 <= call.seed <= SEED.maximum for call in planned.calls())
    changed = seed > SEED.maximum
    assert any("became" in notice for notice in planned.notices) is changed


def test_the_count_is_sent_only_where_no_seed_is_taken():
    count = Field("num_outputs", "integer", maximum=4)
    (call,) = planned_with(Request("x", n=3), 0, n=count).calls()
    assert (call.count, call.arguments["num_outputs"], call.seed) == (3, 3, None)
    many = planned_with(Request("x", n=5), 0, n=count)
    assert len(many.calls()) == 5
    assert any("5 requests" in notice for notice in many.notices)


def test_a_seed_for_a_model_without_one_is_said():
    planned = planned_with(Request("x", seed=1), 0)
    assert planned.notices == ("model-y takes no seed: it cannot make the same image again.",)
    assert planned.calls()[0].seed is None


# ------------------------------------------------------------------ shape


@pytest.mark.parametrize(
    ("asked", "wanted", "notice"),
    [
        ({"ar": "16:9"}, "16:9", None),
        ({"ar": "8:6"}, "4:3", None),
        ({"ar": "21:9"}, "16:9", "aspect ratio 7:3 became the nearest aspect ratio, 16:9"),
        ({"size": "1024x768"}, "4:3", "size 1024x768 became 4:3"),
        ({"size": "1000x1001"}, "1:1", "nearest aspect ratio, 1:1"),
    ],
)
def test_a_shape_becomes_a_ratio_that_the_model_has(asked, wanted, notice):
    planned = planned_with(Request("x", **asked), 0, ar=RATIO)
    assert planned.calls()[0].arguments == {"aspect_ratio": wanted}
    assert (notice in planned.notices[0]) if notice else planned.notices == ()


def test_a_model_with_free_ratios_gets_the_ratio_in_lowest_terms():
    planned = planned_with(Request("x", size="1024x768"), 0, ar=Field("aspect_ratio"))
    assert planned.calls()[0].arguments == {"aspect_ratio": "4:3"}


def test_width_and_height_are_kept_in_their_bounds_and_multiples():
    sides = {
        k: Field(k, "integer", minimum=64, maximum=1000, multiple=8) for k in ("width", "height")
    }
    planned = planned_with(Request("x", size="1500x123"), 0, **sides)
    assert planned.calls()[0].arguments == {"width": 1000, "height": 120}
    assert "size 1500x123 became 1000x120" in planned.notices[0]
    square = planned_with(Request("x", ar="1:1"), 0, **sides)
    assert square.calls()[0].arguments == {"width": 1000, "height": 1000}
    assert not square.notices  # smaller than it could be, and still the ratio that was asked for
    wide = planned_with(Request("x", ar="3:1"), 0, **sides)
    assert wide.calls()[0].arguments == {"width": 1000, "height": 592}
    assert wide.notices == (f"{REF}: aspect ratio 3:1 became 1000x592.",)


def test_the_size_wins_over_the_ratio():
    size = Field("size", allowed=("1024x1024", "1536x1024", "auto"))
    planned = planned_with(Request("x", size="1500x1000", ar="1:1"), 0, size=size, ar=RATIO)
    assert planned.calls()[0].arguments == {"size": "1536x1024"}
    assert "nearest allowed" in planned.notices[0]


def test_a_model_with_one_size_says_that_the_shape_was_dropped():
    assert (
        "has one size only: size 8x8 dropped"
        in planned_with(Request("x", size="8x8"), 0).notices[0]
    )
    fixed = Capabilities(default_size=Size(8, 8))
    assert plan(0, Request("x", size="8x8"), REF, fixed, seed=0).notices == ()
    unknown = plan(0, Request("x", ar="1:1"), REF, Capabilities(open=True), seed=0)
    assert unknown.notices == ("model-y does not tell what it takes: aspect ratio 1:1 dropped.",)


# ------------------------------------------------------------------ options and params


@pytest.mark.parametrize(
    ("option", "value", "called"),
    [
        ("negative", "dogs", "negative prompt"),
        ("steps", 5, "step count"),
        ("guidance", 2.0, "guidance"),
        ("strength", 0.5, "strength"),
        ("scheduler", "euler", "scheduler"),
        ("lora", ("x",), "LoRA"),
    ],
)
def test_what_a_model_does_not_take_is_dropped_and_said_in_words(option, value, called):
    planned = planned_with(Request("x", **{option: value}), 0)
    assert planned.notices == (f"model-y takes no {called}: dropped.",)
    assert planned.calls()[0].arguments == {}


def test_numbers_are_kept_in_their_bounds_and_said():
    steps = Field("num_inference_steps", "integer", minimum=1, maximum=50)
    planned = planned_with(Request("x", steps=80), 0, steps=steps)
    assert planned.calls()[0].arguments == {"num_inference_steps": 50}
    assert planned.notices == ("model-y: step count 80 became 50.",)


def test_a_scheduler_that_a_model_does_not_have_names_those_it_has():
    with pytest.raises(OptionError, match="DDIM, K_EULER"):
        planned_with(
            Request("x", scheduler="x"), 0, scheduler=Field("s", allowed=("DDIM", "K_EULER"))
        )


@pytest.mark.parametrize(
    ("value", "field", "message"),
    [
        (0, Field("q", "integer", minimum=1, maximum=9), "between 1 and 9"),
        (0, Field("q", "integer", minimum=1), "at least 1"),
        (10, Field("q", "integer", maximum=9), "at most 9"),
        (1234567, Field("q", "integer", maximum=1000000), "at most 1000000"),
        ("a", Field("q", "integer"), "is a integer"),
        (True, Field("q", "integer"), "is a integer"),
        (1, Field("q", "boolean"), "is a boolean"),
        ("c", Field("q", allowed=("a", "b")), "It takes: a, b"),
    ],
)
def test_a_parameter_that_does_not_fit_is_refused_before_anything_is_sent(value, field, message):
    with pytest.raises(OptionError, match=message):
        plan(0, Request("x", params={"q": value}), REF, Capabilities(extra={"q": field}), seed=0)


def test_a_parameter_that_fits_is_passed_on_under_its_own_name():
    extra = {"q": Field("q", "number", minimum=0), "f": Field("f", "boolean")}
    planned = plan(
        0, Request("x", params={"q": 3, "f": True}), REF, Capabilities(extra=extra), seed=0
    )
    assert planned.calls()[0].arguments == {"q": 3, "f": True}


def test_an_unknown_parameter_names_the_nearest_unless_the_model_is_open():
    request = Request("x", params={"go_fats": True})
    with pytest.raises(UnknownNameError, match="go_fast"):
        plan(0, request, REF, Capabilities(extra={"go_fast": Field("go_fast", "boolean")}), seed=0)
    assert plan(0, request, REF, Capabilities(open=True), seed=0).calls()[0].arguments == {
        "go_fats": True
    }


USUAL_FORM = {
    "ar": RATIO,
    "guidance": Field("cfg", "number", minimum=1, maximum=10),
    "format": Field("output_format", allowed=("jpg", "png")),
}


def usual(params, **fields):
    can = Capabilities(options=USUAL_FORM, extra={"go_fast": Field("go_fast", "boolean")})
    planned = plan(0, Request("x", params=params, **fields), REF, can, seed=0)
    return planned.calls()[0].arguments, planned.notices


@pytest.mark.parametrize(
    ("params", "sent", "notices"),
    [
        ({"output_quality": 95}, {}, ("model-y takes no output_quality: dropped.",)),
        ({"guidance_scale": 3}, {"cfg": 3}, ("model-y: guidance_scale became cfg.",)),
        (
            {"guidance_scale": 30},
            {"cfg": 10},
            ("model-y: guidance_scale became cfg.", "model-y: guidance_scale 30 became 10."),
        ),
        (
            {"cfg": 2, "guidance_scale": 3},
            {"cfg": 2},
            ("model-y takes no guidance_scale: dropped.",),
        ),
        ({"guidance": "much"}, {}, ("model-y has no guidance 'much': dropped.",)),
        ({"ratio": "16:9"}, {"aspect_ratio": "16:9"}, ("model-y: ratio became aspect_ratio.",)),
    ],
)
def test_a_usual_parameter_that_the_model_lacks_is_translated_or_dropped(params, sent, notices):
    assert usual(params) == (sent, notices)


@pytest.mark.parametrize("name", ["go_fats", "output_formt", "frobnicate", "output_qualty"])
def test_a_parameter_that_nobody_knows_is_an_error(name):
    with pytest.raises(UnknownNameError, match="no parameter of model-y"):
        usual({name: 1})


@pytest.mark.parametrize(
    ("output", "words", "wanted"),
    [
        ("x.jpg", ("webp", "jpg", "png"), "jpg"),
        ("x.jpeg", ("jpg", "png"), "jpg"),
        ("x.jpg", ("jpeg",), "jpeg"),
        ("x.PNG", ("jpg", "png"), "png"),
        ("x.webp", ("jpg", "png"), None),
        ("x", ("jpg", "png"), None),
    ],
)
def test_the_provider_is_asked_for_the_format_of_the_file_name(output, words, wanted):
    form = Field("output_format", allowed=words)
    arguments = planned_with(Request("x", output=output), 0, format=form).calls()[0].arguments
    assert arguments.get("output_format") == wanted


# ------------------------------------------------------------------ images, words, price


def test_images_that_do_not_fit_are_refused():
    one, several = Field("image", "file"), Field("images", "files", maximum=2)
    with pytest.raises(InputError, match="takes no input image"):
        planned_with(Request("x", image=(PICTURE,)), 0)
    with pytest.raises(InputError, match="takes 1 input image, not 2"):
        planned_with(Request("x", image=(PICTURE, PICTURE)), 0, image=one)
    with pytest.raises(InputError, match="takes 2 input images, not 3"):
        planned_with(Request("x", image=(PICTURE,) * 3), 0, image=several)
    with pytest.raises(InputError, match="needs an input image"):
        plan(0, Request("x"), REF, Capabilities(options={"image": one}, makes=False), seed=0)
    with pytest.raises(InputError, match="takes no mask"):
        planned_with(Request("x", image=(PICTURE,), mask=PICTURE), 0, image=one)


def test_words_outside_a_closed_vocabulary_are_named():
    can = Capabilities(
        vocabulary=frozenset({"a", "red", "house"}), about_vocabulary="It knows houses."
    )
    planned = plan(0, Request("A red Zeppelin"), REF, can, seed=0)
    assert planned.notices == ("model-y does not know 'zeppelin'. It knows houses.",)
    assert plan(0, Request("a red house"), REF, can, seed=0).notices == ()


def test_the_price_is_that_of_all_images_or_unknown():
    assert plan(0, Request("x", n=3), REF, Capabilities(price_usd=0.5), seed=0).cost_usd == 1.5
    assert planned_with(Request("x"), 0).cost_usd is None


# ------------------------------------------------------------------ light, and a part of it


def test_50_000_planned_tasks_stay_small():
    can = Capabilities(options={"seed": SEED}, price_usd=0.03)
    request = Request("x", negative="dogs", n=4)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    tasks = [plan(k, request, REF, can, seed=10**6 + k) for k in range(2000)]
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (after - before) / len(tasks) < 300
    assert tasks[0].notices is tasks[-1].notices
    assert tasks[0].number == 4


def test_a_seed_that_a_request_has_is_kept_once():
    request = Request("x", seed=10**6)
    (call,) = plan(0, request, REF, Capabilities(options={"seed": SEED}), seed=1).calls()
    assert call.seed is request.seed


def test_the_calls_are_made_anew_and_are_the_same_each_time():
    planned = planned_with(Request("x", n=2), 5, seed=SEED)
    assert planned.calls() == planned.calls()
    assert planned.number == len(planned.calls())


@pytest.mark.parametrize("options", [{"seed": SEED}, {}, {"n": Field("num_outputs", maximum=2)}])
@pytest.mark.parametrize("request_", [{}, {"seed": 2**31 - 2}, {"params": {"seed": 9}}])
def test_a_part_is_one_call_of_the_task_with_its_seed(options, request_):
    can = Capabilities(options=options, open=True, price_usd=0.5)
    planned = plan(0, Request("x", n=4, **request_), REF, can, seed=77)
    parts = [planned.part(k) for k in range(planned.number)]
    assert [call for part in parts for call in part.calls()] == list(planned.calls())
    assert [part.cost_usd for part in parts] == [0.5] * 4


def test_a_part_keeps_its_own_seed_for_a_model_that_takes_one():
    planned = planned_with(Request("x", n=3, seed=7), 0)  # this one takes none
    part = planned.part(2)
    stand_in = plan(0, part.request, REF, Capabilities(options={"seed": SEED}), seed=part.seed)
    assert [call.seed for call in stand_in.calls()] == [9]
    drawn = planned_with(Request("x", n=3), 50).part(1)
    assert (drawn.request.seed, drawn.seed) == (None, 51)


# ------------------------------------------------------------------ in the words of another model


def stand_in(request, mine, its, names=(), seed=0):
    origin = Origin(ModelRef("replicate", "a/b", "first"), mine, dict(names))
    planned = plan(0, request, REF, its, seed=seed, origin=origin)
    assert planned.calls()
    return planned


STEPS = Field("num_inference_steps", "integer", minimum=1, maximum=50)


def test_params_are_translated_by_what_they_mean_to_us():
    mine = Capabilities(
        options={"strength": Field("prompt_strength", "number"), "steps": STEPS, "seed": SEED}
    )
    its = Capabilities(
        options={
            "strength": Field("strength", "number", minimum=0, maximum=1),
            "steps": Field("steps", "integer", maximum=20),
            "seed": SEED,
        }
    )
    params = {"prompt_strength": 0.4, "num_inference_steps": 30, "seed": 12}
    planned = stand_in(Request("x", params=params), mine, its)
    assert planned.calls()[0].arguments == {"strength": 0.4, "steps": 20, "seed": 12}
    assert planned.notices == ("model-y: num_inference_steps 30 became 20.",)


def test_a_name_that_both_have_is_kept_where_its_value_fits_and_others_are_dropped():
    flag, quality = Field("go_fast", "boolean"), Field("output_quality", "integer", maximum=100)
    form = {"format": Field("output_format", allowed=("webp", "png"))}
    mine = Capabilities(options=form, extra={"go_fast": flag, "output_quality": quality})
    its = Capabilities(
        options={"format": Field("output_format", allowed=("jpg", "png"))},
        extra={"go_fast": flag},
    )
    params = {"go_fast": True, "output_quality": 90, "output_format": "webp"}
    planned = stand_in(Request("x", params=params), mine, its)
    assert planned.calls()[0].arguments == {"go_fast": True}
    assert planned.notices == (
        "model-y takes no output_quality: dropped.",
        "model-y has no output_format 'webp': dropped.",
    )


def test_what_the_rule_says_of_a_parameter_wins():
    field = Field("quality", "integer", maximum=10)
    mine = Capabilities(options={"steps": STEPS})
    its = Capabilities(options={"steps": STEPS}, extra={"quality": field})
    request = Request("x", params={"num_inference_steps": 9})
    names = {"num_inference_steps": "quality"}
    assert stand_in(request, mine, its, names).calls()[0].arguments == {"quality": 9}
    gone = {"num_inference_steps": "nowhere"}
    assert stand_in(request, mine, its, gone).calls()[0].arguments == {"num_inference_steps": 9}


def test_a_ratio_among_the_params_becomes_the_nearest_and_a_word_is_dropped():
    mine = Capabilities(options={"ar": Field("ratio", allowed=("21:9", "auto"))})
    its = Capabilities(options={"ar": Field("aspect_ratio", allowed=("1:1", "16:9"))})
    planned = stand_in(Request("x", params={"ratio": "21:9"}), mine, its)
    assert planned.calls()[0].arguments == {"aspect_ratio": "16:9"}
    assert "became the nearest aspect ratio, 16:9" in planned.notices[0]
    planned = stand_in(Request("x", params={"ratio": "auto"}), mine, its)
    assert planned.calls()[0].arguments == {}
    assert planned.notices == ("model-y has no ratio 'auto': dropped.",)


def test_an_address_of_an_image_becomes_a_list_where_a_list_is_taken_and_back():
    one = Capabilities(options={"image": Field("image", "file")})
    many = Capabilities(options={"image": Field("images", "files")})
    there = stand_in(Request("x", params={"image": "https://x/y.png"}), one, many)
    assert there.calls()[0].arguments == {"images": ["https://x/y.png"]}
    back = stand_in(Request("x", params={"images": ["https://x/y.png"]}), many, one)
    assert back.calls()[0].arguments == {"image": "https://x/y.png"}


def test_a_value_that_is_dropped_is_not_shown_at_full_length():
    one = Capabilities(options={"seed": SEED}, extra={"x": Field("x", "boolean")})
    (notice,) = stand_in(Request("x", params={"x": "data:" + "A" * 10**6}), one, one).notices
    assert len(notice) < 100


def test_a_scheduler_that_a_stand_in_does_not_have_is_dropped_not_refused():
    its = Capabilities(options={"scheduler": Field("s", allowed=("DDIM",))})
    planned = stand_in(Request("x", scheduler="euler"), its, its)
    assert planned.calls()[0].arguments == {}
    assert planned.notices == ("model-y has no scheduler 'euler': dropped.",)


def test_what_is_essential_and_missing_has_the_name_of_a_rule():
    one = Capabilities(options={"image": Field("image", "file")})
    picture, two = Request("x", image=(PICTURE,)), Request("x", image=(PICTURE, PICTURE))
    assert lacks(picture, Capabilities()) == "reference_image"
    assert lacks(picture, one) is None
    assert lacks(two, one) == "reference_image"
    assert lacks(picture.but(mask=PICTURE), one) == "parameter"
    assert lacks(picture, Capabilities(open=True)) is None
    assert lacks(Request("x", negative="dogs"), Capabilities()) is None

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbimg.backends import registry, schema
from nbimg.backends.base import Context
from nbimg.backends.registry import Registry
from nbimg.config import Settings
from nbimg.credentials.keys import Keys
from nbimg.engine.retry import Policy
from nbimg.errors import (
    ContentRefusedError,
    InputError,
    JobFailedError,
    KeyRejectedError,
    OptionError,
    OutcomeUnknownError,
    QuotaExceededError,
    RejectedError,
    SettingError,
    StoreWriteError,
    UnknownNameError,
)
from nbimg.planning import catalog
from nbimg.planning.plan import Planned, plan
from nbimg.planning.planner import Planner
from nbimg.testing import Fault
from nbimg.testing.replicate_models import BUILTIN_MODELS
from nbimg.types import Capabilities, Field, InputImage, ModelRef, Request

PICTURE = InputImage("0" * 64, "image/png", 8, 8, "/tmp/x.png")
BROKEN = JobFailedError("the job failed: CUDA out of memory.")
POLICY = Policy(2, 0.001, 0.002)


class Bench:
    """A planner of its own, driven from the outside."""

    def __init__(self):
        self.settings, self.keys = Settings(), Keys()
        self.registry = Registry(Context(self.settings, self.keys))
        self.planner = Planner(self.settings, self.keys, self.registry)
        self.loop = asyncio.Runner()

    def plan(self, *requests, **options):
        known = {"task": "generate", "groups": (), "policy": POLICY, **options}
        return self.loop.run(self.planner.plan(requests, {}, **known))

    def one(self, request, **options):
        made = self.plan(request, **options)
        for error in made.refused.values():
            raise error
        return made.tasks[0]

    def next(self, planned, error=BROKEN, tried=()):
        tried = {*tried, planned.ref.full}
        return self.loop.run(self.planner.alternative(planned, error, tried, POLICY))

    def chain(self, planned, error=BROKEN):
        """The models that are tried when all of them fail with `error`."""
        used, tried = [], set()
        while planned is not None:
            used.append(str(planned.ref))
            tried.add(planned.ref.full)
            planned = self.next(planned, error, tried)
        return used

    def close(self):
        for backend in self.registry.made():
            self.loop.run(backend.close())
        self.loop.close()


class Fixed:
    """A backend of which only what its models take is asked."""

    def __init__(self, models):
        self.models = models

    async def capabilities(self, model):
        return self.models[model]

    async def close(self):
        pass


@pytest.fixture
def bench(server):
    made = Bench()
    yield made
    made.close()


# ------------------------------------------------------------------ the model fails for good


def test_flux_dev_gives_way_to_qwen_image_and_that_to_imagen(bench):
    planned = bench.one(Request("a cat", model="flux-dev"))
    assert bench.chain(planned) == ["flux-dev", "qwen-image", "imagen-4-ultra"]


def test_the_next_model_keeps_index_seed_and_request_and_says_why(bench):
    planned = bench.one(Request("a cat", model="flux-dev", negative="dogs"))
    following = bench.next(planned)
    assert following.notices == (
        "flux-dev takes no negative prompt: dropped.",
        "qwen-image replaces flux-dev: the job failed: CUDA out of memory.",
    )
    assert (following.index, following.request) == (planned.index, planned.request)
    assert following.asked == "flux-dev"
    assert following.calls()[0].seed == planned.calls()[0].seed
    assert following.calls()[0].arguments["negative_prompt"] == "dogs"


def test_a_part_of_a_task_keeps_the_seed_of_its_variant_even_past_a_model_without_seeds(bench):
    planned = bench.one(Request("a cat", model="flux-dev", n=3, seed=5))
    third = bench.next(planned.part(2))
    assert [call.seed for call in third.calls()] == [7]
    rule = {"condition": "api_error", "model": "imagen-4-ultra", "use": ["flux-dev"]}
    bench.settings.set("fallbacks", [rule])
    imagen = bench.one(Request("a cat", model="imagen-4-ultra", n=3, seed=5))
    assert [call.seed for call in bench.next(imagen.part(1)).calls()] == [6]


def test_params_of_the_first_model_reach_each_of_the_chain_in_its_own_words(bench):
    params = {"prompt_strength": 0.3, "go_fast": False, "megapixels": "1", "output_format": "png"}
    planned = bench.one(Request("a cat", model="flux-dev", params=params, image=(PICTURE,)))
    qwen = bench.next(planned)
    sent = dict(qwen.calls()[0].arguments)
    sent.pop("seed")
    assert sent == {"strength": 0.3, "go_fast": False, "output_format": "png"}
    assert qwen.notices[-1] == "qwen-image takes no megapixels: dropped."
    text_only = bench.one(Request("a cat", model="flux-dev", params={"megapixels": "1"}))
    qwen = bench.next(text_only)
    imagen = bench.next(qwen, tried={"replicate:black-forest-labs/flux-dev"})
    assert imagen.notices[-1] == "imagen-4-ultra takes no megapixels: dropped."
    assert imagen.calls()[0].arguments == {}


def test_a_rule_says_what_a_parameter_is_called_elsewhere(bench):
    rule = {
        "condition": "api_error",
        "model": "qwen-image",
        "use": ["flux-kontext-max"],
        "parameters": {"enhance_prompt": "prompt_upsampling"},
    }
    bench.settings.set("fallbacks", [rule])
    planned = bench.one(Request("a cat", model="qwen-image", params={"enhance_prompt": True}))
    following = bench.next(planned)
    assert following.calls()[0].arguments["prompt_upsampling"] is True


@pytest.mark.parametrize(
    "error",
    [
        OutcomeUnknownError("x"),
        ContentRefusedError("x"),
        StoreWriteError("x"),
        InputError("x"),
        OptionError("x"),
    ],
)
def test_an_error_that_another_model_does_not_answer_ends_the_chain(bench, error):
    assert bench.next(bench.one(Request("a cat", model="flux-dev")), error) is None


@pytest.mark.parametrize("error", [KeyRejectedError("x"), QuotaExceededError("x")])
def test_an_account_that_is_refused_is_refused_for_all_models_of_its_provider(bench, error):
    planned = bench.one(Request("a cat", model="flux-dev"))
    assert bench.next(planned, error) is None
    named = bench.one(Request("a cat", model="flux-dev"), fallback=("qwen-image", "demo"))
    assert str(bench.next(named, error).ref) == "demo"


def test_a_refused_prompt_goes_on_only_under_a_rule_for_it(bench):
    refused = ContentRefusedError("NSFW")
    named = bench.one(Request("a cat", model="flux-dev"), fallback=("qwen-image",))
    assert bench.next(named, refused) is None
    rule = {"condition": "refused", "model": "flux-dev", "use": ["imagen-4-ultra"]}
    bench.settings.set("fallbacks", [rule])
    planned = bench.one(Request("a cat", model="flux-dev"))
    assert str(bench.next(planned, refused).ref) == "imagen-4-ultra"
    assert str(bench.next(planned, BROKEN).ref) == "qwen-image"  # the shipped rule still holds


def test_what_the_call_names_wins_over_every_rule(bench):
    request = Request("a cat", model="flux-dev")
    named = bench.one(request, fallback=("imagen-4-ultra", "flux-dev", "demo"))
    assert bench.chain(named) == ["flux-dev", "imagen-4-ultra", "demo"]
    assert bench.chain(bench.one(request, fallback=())) == ["flux-dev"]


def test_the_users_rules_are_read_from_the_file_beside_the_notebook(bench, tmp_path):
    table = '[[fallbacks]]\ncondition = "api_error"\nuse = ["nano-banana"]\n'
    (tmp_path / "nbimg.toml").write_text(table)
    assert bench.chain(bench.one(Request("a cat", model="flux-dev"))) == [
        "flux-dev",
        "nano-banana",
    ]


def test_a_model_that_does_not_exist_is_named_before_anything_is_sent(bench, server):
    with pytest.raises(UnknownNameError, match="Did you mean qwen-image"):
        bench.plan(Request("a cat", model="flux-dev"), fallback=("qwen-imag",))
    bench.settings.set("fallbacks", [{"condition": "api_error", "use": ["qwen-imag"]}])
    with pytest.raises(SettingError, match=r"api_error of \*, in %config.*qwen-imag"):
        bench.plan(Request("a cat", model="flux-dev"))
    assert server.requests == []


def test_a_model_without_a_credential_is_passed_over(bench, monkeypatch):
    planned = bench.one(Request("a cat", model="flux-dev"), fallback=("qwen-image", "demo"))
    monkeypatch.delenv("REPLICATE_API_TOKEN")
    assert str(bench.next(planned).ref) == "demo"


def test_a_model_whose_schema_cannot_be_read_is_passed_over_and_not_asked_by_every_task(
    bench, server
):
    planned = bench.one(Request("a cat", model="flux-dev"))
    server.inject(Fault("error", method="GET", path="*/qwen/qwen-image", status=404, times=None))
    for _ in range(5):
        assert str(bench.next(planned).ref) == "imagen-4-ultra"
    assert server.count("GET", "*/qwen/qwen-image") == 1


def test_a_model_whose_own_schema_cannot_be_read_has_failed(bench, server):
    server.inject(Fault("error", method="GET", path="*/flux-dev", status=422, times=None))
    planned = bench.one(Request("a cat", model="flux-dev"))
    assert str(planned.ref) == "qwen-image"
    assert planned.notices[0].startswith("qwen-image replaces flux-dev: replicate refused")
    with pytest.raises(RejectedError):
        bench.one(Request("a cat", model="flux-dev"), fallback=())


# ------------------------------------------------------------------ the model lacks something


def test_a_model_without_image_input_is_replaced_for_an_edit(bench):
    planned = bench.one(Request("at night", model="imagen-4-ultra", image=(PICTURE,)))
    assert str(planned.ref) == "flux-kontext-max"
    assert planned.asked == "imagen-4-ultra"
    assert planned.notices == (
        "flux-kontext-max replaces imagen-4-ultra, which takes no input image.",
    )
    (call,) = planned.calls()
    assert (call.image_field, call.images) == ("input_image", (PICTURE,))


def test_flux_dev_keeps_an_image_that_it_takes(bench):
    planned = bench.one(Request("x", model="flux-dev", image=(PICTURE,), strength=0.5))
    assert str(planned.ref) == "flux-dev"
    assert planned.calls()[0].arguments["prompt_strength"] == 0.5
    assert planned.notices == ()


def test_several_references_go_to_the_first_model_that_takes_so_many(bench):
    planned = bench.one(Request("both", model="flux-dev", image=(PICTURE,) * 3))
    assert str(planned.ref) == "nano-banana"
    assert planned.notices == ("nano-banana replaces flux-dev, which takes 1 input image, not 3.",)
    assert len(planned.calls()[0].images) == 3


def test_without_a_fallback_a_missing_image_input_is_an_error(bench):
    request = Request("at night", model="imagen-4-ultra", image=(PICTURE,))
    with pytest.raises(InputError, match="imagen-4-ultra takes no input image"):
        bench.one(request, fallback=())
    with pytest.raises(InputError, match="imagen-4-ultra takes no input image"):
        bench.one(request, fallback=("imagen-4-ultra",))
    named = bench.one(request, fallback=("imagen-4-ultra", "qwen-image"))
    assert str(named.ref) == "qwen-image"


def test_a_picture_never_goes_from_this_machine_to_a_provider_unasked(bench):
    request = Request("both", model="demo", image=(PICTURE, PICTURE))
    with pytest.raises(InputError, match="demo takes 1 input image, not 2"):
        bench.one(request)
    assert str(bench.one(request, fallback=("nano-banana",)).ref) == "nano-banana"


def test_a_mask_goes_to_a_model_of_the_rule_that_takes_one(bench, monkeypatch):
    request = Request("x", model="flux-dev", image=(PICTURE,), mask=PICTURE)
    with pytest.raises(InputError, match="flux-dev takes no mask"):
        bench.one(request)
    fill = Capabilities(
        options={"image": Field("image", "file"), "mask": Field("mask_image", "file")}
    )
    monkeypatch.setitem(registry._added, "fill", lambda _context: Fixed({"x/fill": fill}))
    rule = {"condition": "parameter", "model": "flux-dev", "use": ["qwen-image", "fill:x/fill"]}
    bench.settings.set("fallbacks", [rule])
    planned = bench.one(request)
    assert planned.ref.full == "fill:x/fill"
    assert planned.notices == ("fill:x/fill replaces flux-dev, which takes no mask.",)
    assert planned.calls()[0].mask_field == "mask_image"


def test_one_task_that_is_replaced_or_refused_costs_no_other(bench):
    made = bench.plan(
        Request("a", model="flux-dev"),
        Request("b", model="imagen-4-ultra", image=(PICTURE,)),
        Request("c", model="flux-dve"),
        Request("d", model="flux-dev", params={"no": 1}),
    )
    assert [str(task.ref) for task in made.tasks] == ["flux-dev", "flux-kontext-max"]
    assert sorted(made.refused) == [2, 3]
    assert made.chains["replicate:black-forest-labs/flux-dev"] == (
        "qwen-image",
        "imagen-4-ultra",
    )
    assert made.chains["replicate:black-forest-labs/flux-kontext-max"] == ()


def test_a_task_can_be_planned_for_a_given_model_whatever_it_names(bench):
    ref = catalog.resolve("qwen-image", ("replicate",))
    made = bench.plan(Request("a", model="flux-dev"), Request("b"), choices={0: ref, 1: ref})
    assert [str(task.ref) for task in made.tasks] == ["qwen-image"] * 2
    assert made.note is None


# ------------------------------------------------------------------ whatever is asked of any two models

CAN = {
    f"replicate:{model.name}": schema.capabilities(model.openapi_schema["components"]["schemas"])
    for model in BUILTIN_MODELS
}
NAMES = sorted({field.name for can in CAN.values() for field in can.options.values()} | {
    name for can in CAN.values() for name in can.extra
})  # fmt: skip
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.floats(),
    st.sampled_from(["16:9", "1:1", "5:1", "match_input_image", "png", "https://x/y.png", ""]),
    st.lists(st.just("https://x/y.png"), max_size=2),
)
REQUESTS = st.builds(
    Request,
    prompt=st.sampled_from(["a cat", ""]),
    n=st.integers(1, 5),
    size=st.sampled_from([None, "512x512", "1x9999"]),
    ar=st.sampled_from([None, "21:9", "1:1"]),
    seed=st.none() | st.integers(0, 2**32 - 1),
    negative=st.sampled_from([None, "dogs"]),
    steps=st.none() | st.integers(1, 1000),
    guidance=st.none() | st.floats(0, 100),
    strength=st.none() | st.floats(0, 1),
    scheduler=st.sampled_from([None, "DDIM"]),
    lora=st.sampled_from([(), ("a",)]),
    image=st.integers(0, 3).map(lambda n: (PICTURE,) * n),
    mask=st.sampled_from([None, PICTURE]),
    output=st.sampled_from([None, "x.jpg", "x.webp"]),
    params=st.dictionaries(st.sampled_from([*NAMES, "unheard_of"]), VALUES, max_size=5),
)


class Schemas:
    """A registry whose one backend knows the built-in models without a network."""

    def names(self):
        return ("replicate",)

    def get(self, provider):
        return Fixed({model.partition(":")[2]: can for model, can in CAN.items()})


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(REQUESTS, st.sampled_from(sorted(CAN)), st.sampled_from(sorted(CAN)), st.integers(0, 2**31))
def test_no_stand_in_is_ever_sent_a_field_or_value_that_it_does_not_have(
    monkeypatch, request_, first, second, seed
):
    monkeypatch.setenv("REPLICATE_API_TOKEN", "r8_test")
    planner = Planner(Settings(), Keys(), Schemas())
    ref = ModelRef("replicate", first.partition(":")[2])
    old = Planned(0, request_, ref, CAN[first], seed, chain=(second,))
    found = asyncio.run(planner.alternative(old, BROKEN, {first}, POLICY))
    if found is None:
        return
    assert (found.ref.full, found.seed, found.index) == (second, seed, 0)
    model = next(one for one in BUILTIN_MODELS if f"replicate:{one.name}" == second)
    calls = found.calls()
    assert len(calls) == found.number
    assert sum(call.count for call in calls) == request_.n
    for call in calls:
        sent = {"prompt": call.prompt, **call.arguments}
        if call.images:
            several = "image" in CAN[second].options and CAN[second].max_images > 1
            sent[call.image_field] = ["https://x/y.png"] if several else "https://x/y.png"
        assert model.find_problems(sent, closed=True) == []


@settings(max_examples=200)
@given(REQUESTS, st.sampled_from(sorted(CAN)), st.integers(0, 2**31))
def test_what_is_planned_is_what_is_called_and_parts_are_the_whole(request_, model, seed):
    try:
        planned = plan(0, request_, ModelRef("replicate", "x/y"), CAN[model], seed=seed)
    except InputError:
        return
    calls = planned.calls()
    assert len(calls) == planned.number
    parts = [planned.part(k).calls() for k in range(planned.number)]
    assert [part[0].seed for part in parts] == [call.seed for call in calls]

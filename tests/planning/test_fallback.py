import pytest

from nbimg import errors
from nbimg.errors import SettingError
from nbimg.planning import catalog, fallback
from nbimg.planning.fallback import Rule, Rules, condition_of
from nbimg.types import ModelRef

PROVIDERS = ("demo", "local", "replicate")
FLUX = catalog.resolve("flux-dev", PROVIDERS)
QWEN = catalog.resolve("qwen-image", PROVIDERS)


def read(*tables):
    return fallback.read(tables, "%config", PROVIDERS)


def test_a_table_becomes_a_rule():
    (rule,) = read(
        {
            "condition": "api_error",
            "model": "flux-dev",
            "use": ["qwen-image", "replicate:x/y"],
            "description": "for people",
            "parameters": {"output_quality": "quality"},
        }
    )
    assert rule == Rule(
        "api_error",
        "flux-dev",
        ("qwen-image", "replicate:x/y"),
        "for people",
        {"output_quality": "quality"},
    )
    assert read({"condition": "refused", "use": "demo"}) == (Rule("refused", "*", ("demo",)),)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"condition": "api_eror", "use": []}, "no condition 'api_eror'. Did you mean api_error"),
        ({"use": ["demo"]}, "There are reference_image, parameter, api_error, refused"),
        ({"condition": "refused", "models": []}, "no key 'models'. Did you mean model"),
        (
            {"condition": "api_error", "model": "flux-dev", "use": ["qwen-imag"]},
            r"rule 1 \(api_error of flux-dev, in %config\): no model 'qwen-imag'. Did .* qwen-image",
        ),
        ({"condition": "refused", "model": "flux-dve"}, "no model 'flux-dve'"),
        ({"condition": "refused", "use": ["replicat:x/y"]}, "no provider 'replicat'"),
        ({"condition": "refused", "use": 5}, "is no rule"),
        ({"condition": "refused", "use": [5]}, "is no rule"),
        ({"condition": [], "use": []}, "is no rule"),
        ({"condition": "refused", "parameters": ["x"]}, "is no rule"),
    ],
)
def test_what_is_no_rule_is_one_clear_line(table, message):
    with pytest.raises(SettingError, match=message) as caught:
        read(table)
    assert "\n" not in str(caught.value)


def test_the_models_own_rule_goes_before_a_pattern_wherever_it_stands():
    rules = Rules(
        [
            Rule("api_error", "*", ("demo",)),
            Rule("api_error", "flux-dev", ("qwen-image",)),
            Rule("api_error", "replicate:google/*", ()),
        ]
    )
    assert rules.of(FLUX, "api_error").use == ("qwen-image",)
    assert rules.of(QWEN, "api_error").use == ("demo",)
    assert rules.of(FLUX, "refused") is None


def test_a_model_can_be_named_in_full():
    rules = Rules([Rule("api_error", FLUX.full, ("demo",))])
    assert rules.of(FLUX, "api_error").use == ("demo",)
    assert rules.of(QWEN, "api_error") is None


def test_the_users_rules_go_before_those_that_ship_and_can_take_them_away():
    shipped = fallback.read(catalog.fallbacks(), "the catalogue", PROVIDERS)
    assert Rules((), shipped).of(FLUX, "api_error").use == ("qwen-image", "imagen-4-ultra")
    assert Rules(read({"condition": "api_error"}), shipped).of(FLUX, "api_error").use == ()


def test_the_rules_that_ship_send_nothing_of_this_machine_to_a_provider():
    rules = Rules(fallback.read(catalog.fallbacks(), "the catalogue", PROVIDERS))
    for condition in fallback.CONDITIONS:
        assert rules.of(ModelRef("demo", "", "demo"), condition) is None
        assert rules.of(ModelRef("local", "folder"), condition) is None


@pytest.mark.parametrize(
    ("kind", "condition"),
    [
        (errors.JobFailedError, "api_error"),
        (errors.UnreachableError, "api_error"),
        (errors.BusyError, "api_error"),
        (errors.RejectedError, "api_error"),
        (errors.KeyRejectedError, "api_error"),
        (errors.QuotaExceededError, "api_error"),
        (errors.ReplyError, "api_error"),
        (errors.ContentRefusedError, "refused"),
        (errors.OutcomeUnknownError, None),
        (errors.InputError, None),
        (errors.StoreWriteError, None),
        (errors.BudgetError, None),
        (errors.KeyMissingError, None),
    ],
)
def test_only_a_failure_of_the_model_is_answered_by_another(kind, condition):
    assert condition_of(kind("x")) == condition

import time

import pytest

import nbimg
from nbimg import session
from nbimg.testing import Fault, Outcome
from nbimg.types import Status

CREATE = {"method": "POST", "path": "*/predictions"}
FLUX = {"method": "POST", "path": "/v1/models/black-forest-labs/flux-dev/predictions"}
QWEN = {"method": "POST", "path": "/v1/models/qwen/qwen-image/predictions"}
FLUX_NAME = "replicate:black-forest-labs/flux-dev"
QWEN_NAME = "replicate:qwen/qwen-image"


def generate(*prompts, **options):
    return nbimg.generate(list(prompts), **{"model": "flux-dev", **options})


def test_a_model_that_fails_for_good_is_followed_by_the_next_of_its_chain(server):
    server.expect(Outcome(status="failed", error="broken", model="black-forest-labs/flux-dev"))
    (result,) = generate("a cat", seed=5)
    assert result.status is Status.OK
    assert (result.model_asked, result.model) == ("flux-dev", QWEN_NAME)
    assert result.images[0].seed == 5
    assert any("qwen-image" in notice and "broken" in notice for notice in result.notices)
    assert [a.model for a in result.attempts if a.stage == "create"] == [FLUX_NAME, QWEN_NAME]
    assert "qwen-image" in repr(nbimg.results.ResultSet([result]))


def test_only_the_call_that_failed_goes_to_the_next_model(server):
    server.inject(Fault("error", **FLUX, status=422, skip=1))
    (result,) = generate("a cat", n=3, seed=5, concurrency=1)
    assert result.status is Status.OK
    assert [image.seed for image in result.images] == [5, 6, 7]
    assert server.count(**FLUX) == 3
    assert server.count(**QWEN) == 1
    assert result.model == FLUX_NAME  # the one that was asked for, where several were used


@pytest.mark.parametrize("options", [{"fallback": ()}, {"fallback": []}])
def test_without_fallback_the_first_failure_is_the_answer(server, options):
    server.inject(Fault("error", **FLUX, status=422))
    (result,) = generate("a cat", **options)
    assert result.status is Status.FAILED
    assert server.count(**CREATE) == 1


def test_a_chain_of_the_call_is_followed_in_its_order(server):
    server.inject(Fault("error", **FLUX, status=422))
    (result,) = generate("a cat", fallback=["imagen-4-ultra", "qwen-image"])
    assert result.model == "replicate:google/imagen-4-ultra"


def test_the_whole_chain_can_fail_and_the_last_error_is_told(server):
    server.inject(Fault("error", **CREATE, status=422, times=None))
    (result,) = generate("a cat")
    assert result.status is Status.FAILED
    assert server.count(**CREATE) == 3
    assert len(server.jobs) == 0


def test_a_refused_prompt_goes_nowhere_else_unless_a_rule_says_so(server):
    refused = Outcome(
        status="failed", error="flagged as sensitive (E005)", model="black-forest-labs/flux-dev"
    )
    server.expect(refused)
    (result,) = generate("a cat")
    assert result.status is Status.REFUSED
    assert server.count(**CREATE) == 1
    rule = {"condition": "refused", "model": "flux-dev", "use": ["qwen-image"]}
    session.default().settings.set("fallbacks", [rule])
    server.expect(refused)
    (result,) = generate("a dog")
    assert result.model == QWEN_NAME


def test_a_paid_image_that_cannot_be_fetched_is_not_made_again_elsewhere(server):
    server.inject(Fault("html", method="GET", path="/xezq/*", status=503, times=None))
    (result,) = generate("a cat")
    assert result.status is Status.FAILED
    assert len(server.jobs) == 1


def test_a_create_of_unknown_fate_is_not_followed(server):
    server.inject(Fault("drop", **CREATE, when="after"))
    server.inject(Fault("html", method="GET", path="/v1/predictions", status=502, times=None))
    (result,) = generate("a cat")
    assert result.status is Status.UNKNOWN
    assert len(server.jobs) == 1


def test_a_job_that_runs_into_the_time_out_is_not_followed(server):
    server.running_s = 30
    (result,) = generate("a cat", timeout=0.3)
    assert result.status is Status.FAILED
    assert "time-out" in result.error.message
    assert len(server.jobs) == 1


def test_a_model_that_keeps_failing_is_left_out(server):
    server.inject(Fault("error", **FLUX, status=404, times=None))
    results = generate(*(f"cat {n}" for n in range(30)), concurrency=2)
    assert all(result.model == QWEN_NAME for result in results)
    assert server.count(**FLUX) <= 6  # those that were under way when it was left out, and no more
    assert all(any("qwen-image" in n for n in result.notices) for result in results)


def test_a_key_that_is_refused_is_not_tried_five_hundred_times(server):
    server.inject(Fault("error", **CREATE, status=401, times=None))
    results = generate(*(f"cat {n}" for n in range(30)), concurrency=2)
    assert {result.error.kind for result in results} == {"KeyRejectedError"}
    assert server.count(**CREATE) <= 6


def test_a_fallback_stays_inside_the_budget(server):
    server.inject(Fault("error", **FLUX, status=422, times=None))
    (result,) = generate("a cat", budget=1.0)
    assert result.status is Status.FAILED  # the price of the next model is unknown
    assert server.count(**CREATE) == 1
    assert nbimg.stats().cost_usd == 0


def test_a_call_over_its_budget_is_refused_before_anything_is_sent(server):
    with pytest.raises(nbimg.NbimgError, match=r"12 images cost about \$0\.30"):
        generate("a cat", n=12, budget=0.2)
    assert server.count(**CREATE) == 0


def test_a_kernel_spends_no_more_than_its_budget(server):
    session.default().settings.set("budget", 0.06)
    generate("a cat", n=2)
    with pytest.raises(nbimg.NbimgError, match="budget"):
        generate("a dog")
    assert len(server.jobs) == 2


def test_what_failed_gives_its_money_back(server):
    session.default().settings.set("budget", 0.03)
    server.inject(Fault("error", **FLUX, status=422))
    assert generate("a cat", fallback=())[0].status is Status.FAILED
    assert generate("a cat")[0].status is Status.OK


def test_an_edit_with_a_model_that_takes_no_image_goes_to_one_that_does(server):
    (made,) = generate("a cat")
    results = nbimg.edit(made.images[0], "make it night", model="imagen-4-ultra")
    assert "flux-kontext" in results[0].model
    assert any("takes no input image" in notice for notice in results[0].notices)


def test_an_account_that_is_refilled_is_used_again_at_once(server):
    server.credit = "none"
    generate(*(f"cat {n}" for n in range(5)), fallback=())
    server.credit = "ok"
    assert generate("a cat", fallback=())[0].status is Status.OK


def test_the_time_out_bounds_the_whole_task_not_each_of_its_calls(server):
    server.running_s = 0.6
    began = time.monotonic()
    (result,) = generate("a cat", n=4, timeout=1.0, concurrency=1)
    assert time.monotonic() - began < 2.0
    assert result.status is Status.PARTIAL
    assert 0 < len(result.images) < 4


def test_a_task_that_is_paid_for_and_not_fetched_has_cost_its_price(server):
    session.default().settings.set("budget", 0.06)
    server.expect(Outcome(delivery="truncated"), Outcome(delivery="truncated"))
    results = generate("a", "b", retries=1)
    assert [r.status for r in results] == [Status.FAILED] * 2
    assert [r.cost_usd for r in results] == [pytest.approx(0.025)] * 2
    with pytest.raises(nbimg.NbimgError, match="budget"):
        generate("c")


def test_a_file_that_is_gone_is_told_once_and_not_made_elsewhere(server):
    server.expect(Outcome(delivery="missing"))
    (result,) = generate("a")
    assert result.status is Status.FAILED
    assert len(server.jobs) == 1
    assert session.default().left() == (0, 0, 0)

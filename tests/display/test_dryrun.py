from nbimg.display.dryrun import render_plan
from nbimg.errors import InputError
from nbimg.planning.plan import plan
from nbimg.planning.planner import Plan
from nbimg.types import Capabilities, Field, ModelRef, Request

FLUX = ModelRef("replicate", "x/flux", "flux")
PRICED = Capabilities(
    options={"seed": Field("seed", "integer")}, price_usd=0.04, price_at="2026-10-07"
)
CHAINS = {FLUX.full: ("qwen-image", "imagen-4-ultra")}


def a_plan(can=PRICED, n=3, count=1):
    tasks = tuple(plan(k, Request("a cat", n=n), FLUX, can, seed=7) for k in range(count))
    return Plan(tasks, {count: InputError("no file 'x'.")}, "Model: flux.", CHAINS)


def test_it_says_what_is_sent_what_it_costs_and_what_happens_if_it_fails():
    lines = render_plan(a_plan(), "1 task: starts at once.").splitlines()
    assert lines[0] == "Dry run: 1 task, 3 images, 3 requests, about $0.12. Nothing was sent."
    assert lines[1] == "1 task: starts at once."
    assert lines[2] == (
        "flux: $0.04 an image (read 2026-10-07); if it fails: qwen-image, imagen-4-ultra"
    )
    assert "'a cat'" in lines[3]
    assert '{"seed": 7}' in lines[3]
    assert lines[4] == "   2  cannot be sent: no file 'x'."
    assert lines[5] == "Model: flux."


def test_a_model_is_described_once_and_long_plans_are_cut():
    text = render_plan(a_plan(count=30))
    assert text.count("if it fails") == 1
    assert "… and 10 more" in text


def test_it_says_how_a_call_stands_to_its_budget():
    assert "Within the budget of $0.12." in render_plan(a_plan(), budget_usd=0.12)
    assert "Over the budget of $0.10: this would be refused." in render_plan(
        a_plan(), budget_usd=0.1
    )
    unknown = render_plan(a_plan(Capabilities()), budget_usd=1)
    assert "price unknown" in unknown
    assert "A price is unknown: under the budget of $1.00 this would be refused." in unknown

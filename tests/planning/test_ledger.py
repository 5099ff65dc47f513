import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbimg.errors import BudgetError
from nbimg.planning.ledger import Ledger
from nbimg.planning.plan import plan
from nbimg.types import Capabilities, ModelRef, Request


def task(price, n=1, name="flux-dev"):
    ref, can = ModelRef("replicate", f"x/{name}", name), Capabilities(price_usd=price)
    return plan(0, Request("x", n=n), ref, can, seed=0)


def test_what_fits_the_budget_is_set_aside_and_the_rest_comes_back():
    ledger = Ledger()
    allowance = ledger.reserve([task(0.04, 2), task(0.02)], call_usd=0.10)
    assert ledger.reserved_usd == pytest.approx(0.10)
    assert ledger.spent_usd == 0
    allowance.close(0.04)
    assert ledger.reserved_usd == 0
    assert ledger.spent_usd == pytest.approx(0.04)


def test_a_sum_that_is_the_budget_to_the_cent_fits_in_spite_of_rounding():
    Ledger().reserve([task(0.1)] * 3, call_usd=0.3, kernel_usd=0.3)


def test_a_call_over_its_budget_is_refused_and_sets_nothing_aside():
    ledger = Ledger()
    with pytest.raises(BudgetError) as caught:
        ledger.reserve([task(0.04, 12)], call_usd=0.30)
    assert caught.value.message == "12 images cost about $0.48, over the budget of $0.30."
    assert "fewer images" in caught.value.hint
    assert ledger.reserved_usd == 0


def test_an_unknown_price_is_refused_only_under_a_budget():
    ledger = Ledger()
    with pytest.raises(
        BudgetError, match="the price of qwen-image is unknown, and a budget is set"
    ):
        ledger.reserve([task(0.04), task(None, name="qwen-image")], kernel_usd=100)
    with pytest.raises(BudgetError, match="unknown"):
        ledger.reserve([task(None)], call_usd=100)
    ledger.reserve([task(None)]).close(0.0)


def test_the_budget_of_the_kernel_counts_what_was_spent_and_what_is_under_way():
    ledger = Ledger()
    ledger.reserve([task(0.04, 5)]).close(0.2)
    under_way = ledger.reserve([task(0.04, 5)], kernel_usd=0.5)
    with pytest.raises(BudgetError) as caught:
        ledger.reserve([task(0.04, 5)], kernel_usd=0.5)
    assert caught.value.message == (
        "5 images cost about $0.20; of this kernel's budget of $0.50 $0.10 is left."
    )
    under_way.close(0.0)
    ledger.reserve([task(0.04, 5)], kernel_usd=0.5)


def test_a_model_that_costs_nothing_is_never_over_a_budget():
    ledger = Ledger()
    ledger.reserve([task(0.5)]).close(0.5)
    ledger.reserve([task(0.0, 1000)], call_usd=0.0, kernel_usd=0.1)


def test_a_stand_in_stays_inside_both_budgets():
    allowance = Ledger().reserve([task(0.04, 2)], call_usd=0.10)
    assert allowance.covers(0.04, 0.06)
    assert not allowance.covers(0.04, 0.06)
    assert allowance.covers(0.04, 0.01)
    assert allowance.covers(0.04, 0.06)
    assert not allowance.covers(0.04, None)
    of_kernel = Ledger().reserve([task(0.04)], kernel_usd=0.05)
    assert not of_kernel.covers(0.04, 0.06)
    assert not of_kernel.covers(0.04, None)
    assert of_kernel.covers(0.04, 0.05)


def test_without_a_budget_a_stand_in_of_any_price_will_do():
    ledger = Ledger()
    allowance = ledger.reserve([task(0.04)])
    assert allowance.covers(0.04, None)
    assert allowance.covers(None, 5.0)
    allowance.close(5.0)
    assert ledger.reserved_usd == 0
    assert ledger.spent_usd == 5.0


def test_threads_cannot_spend_the_same_dollar_twice():
    ledger, got = Ledger(), []

    def spend():
        for _ in range(50):
            try:
                ledger.reserve([task(0.01)], kernel_usd=1.0)
                got.append(1)
            except BudgetError:
                pass

    threads = [threading.Thread(target=spend) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(got) == 100


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 2)), max_size=20),
    st.floats(0, 5),
    st.floats(0, 5),
)
def test_whatever_replaces_what_no_budget_is_exceeded(changes, call_usd, kernel_usd):
    ledger = Ledger()
    try:
        allowance = ledger.reserve(
            [task(old) for old, _ in changes], call_usd=call_usd, kernel_usd=kernel_usd
        )
    except BudgetError:
        assert ledger.reserved_usd == 0
        return
    cost = sum(new if allowance.covers(old, new) else old for old, new in changes)
    assert cost <= min(call_usd, kernel_usd) + 1e-6
    assert ledger.reserved_usd == pytest.approx(cost)

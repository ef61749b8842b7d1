"""pipelines.prices: a known model has its price, an unknown one is never guessed."""

from __future__ import annotations

import pytest

from lgsrr.errors import ConfigError
from pipelines.calls import Request, Usage
from pipelines.prices import PRICES, Price, price_of, settled_price


@pytest.mark.parametrize(
    ("model", "price"),
    [
        ("gpt-3.5-turbo", Price(input=0.50, output=1.50)),
        ("gpt-3.5-turbo-0125", Price(input=0.50, output=1.50)),
        ("gpt-3.5-turbo-0613", Price(input=1.50, output=2.00)),
        ("gpt-4o-mini-2024-07-18", Price(input=0.15, output=0.60)),
        ("gpt-4o-2024-05-13", Price(input=5.00, output=15.00)),
        ("gpt-4o-2024-08-06", Price(input=2.50, output=10.00)),
        ("gpt-4.1-nano-2025-04-14", Price(input=0.10, output=0.40)),
    ],
)
def test_a_dated_name_has_the_price_of_the_longest_name_that_is_known(model: str, price: Price) -> None:
    assert price_of(model) == price


@pytest.mark.parametrize("model", ["gpt-4-vision-preview", "gpt-4o-audio-preview", "my-model", "", "gpt-4", "gpt-4ox"])
def test_another_model_is_not_taken_for_a_dated_one(model: str) -> None:
    assert price_of(model) == PRICES.get(model)


def test_dollars_are_those_of_a_million_tokens() -> None:
    price = Price(input=0.50, output=1.50)
    assert price.cost(2_000_000, 1_000_000) == 2.5
    assert price.cost_of(Usage(input_tokens=1_000_000, output_tokens=0)) == 0.5


def test_the_most_that_a_call_may_cost_is_its_input_and_all_the_output_it_may_have() -> None:
    message = {"role": "user", "content": "x" * 3000}
    price = Price(input=1.0, output=10.0)
    limited = Request(model="m", messages=(message,), parameters={"max_tokens": 100})
    assert price.at_most(limited) == price.cost(limited.estimated_tokens() - 100, 100)
    open_ended = Request(model="m", messages=(message,))
    assert price.at_most(open_ended) == pytest.approx(open_ended.estimated_tokens() * 10 / 1e6)


def test_what_the_user_says_wins() -> None:
    assert settled_price("gpt-4o", price_in=0.0, price_out=0.0, budget_usd=1.0) == Price(input=0.0, output=0.0)


def test_a_limit_of_dollars_without_a_price_is_refused_with_the_flags_that_help() -> None:
    assert settled_price("my-model") is None
    with pytest.raises(ConfigError, match=r"'my-model'.*--price-in and --price-out"):
        settled_price("my-model", budget_usd=5.0)


@pytest.mark.parametrize("given", ["price_in", "price_out"])
def test_one_price_without_the_other_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match="is given without"):
        settled_price("my-model", **{given: 1.0})


def test_a_price_below_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="--price-out is -1"):
        Price(input=0.0, output=-1.0)

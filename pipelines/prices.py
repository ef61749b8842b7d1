"""What calls cost: dollars per million tokens of the models whose price is known, in and out.

List prices of the providers' pages as of the model's launch or last change; a provider can change them any day, so
`--price-in` and `--price-out` win. Names with a date ("gpt-4o-mini-2024-07-18") go by the longest known prefix. A model
that is not in the table has no price: a limit of dollars is then refused rather than guessed.
"""

from __future__ import annotations

import dataclasses
import math

from lgsrr.errors import ConfigError

from .calls import Request, Usage


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Dollars per million tokens."""

    input: float
    output: float

    def __post_init__(self) -> None:
        for field, value in (("--price-in", self.input), ("--price-out", self.output)):
            if not 0 <= value < math.inf:
                raise ConfigError(f"{field} is {value}; expected dollars per million tokens, 0 or more.")

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """Dollars for so many tokens."""
        return (input_tokens * self.input + output_tokens * self.output) / 1e6

    def cost_of(self, usage: Usage) -> float:
        """Dollars for the tokens of `usage`, whatever it says of its cost."""
        return self.cost(usage.input_tokens, usage.output_tokens)

    def at_most(self, request: Request) -> float:
        """Dollars that a call may cost: its estimated input and as many tokens as it may be answered with."""
        output = request.parameters.get("max_completion_tokens") or request.parameters.get("max_tokens")
        if not output:  # the estimate holds some output where no limit is asked for: all at the dearer price
            return request.estimated_tokens() * max(self.input, self.output) / 1e6
        return self.cost(max(0, request.estimated_tokens() - int(output)), int(output))


PRICES = {
    "gpt-3.5-turbo": Price(input=0.50, output=1.50),
    "gpt-3.5-turbo-1106": Price(input=1.00, output=2.00),
    "gpt-3.5-turbo-0613": Price(input=1.50, output=2.00),
    "gpt-4": Price(input=30.00, output=60.00),
    "gpt-4-turbo": Price(input=10.00, output=30.00),
    "gpt-4o": Price(input=2.50, output=10.00),
    "gpt-4o-2024-05-13": Price(input=5.00, output=15.00),
    "gpt-4o-mini": Price(input=0.15, output=0.60),
    "gpt-4.1": Price(input=2.00, output=8.00),
    "gpt-4.1-mini": Price(input=0.40, output=1.60),
    "gpt-4.1-nano": Price(input=0.10, output=0.40),
    "gpt-5": Price(input=1.25, output=10.00),
    "gpt-5-mini": Price(input=0.25, output=2.00),
    "gpt-5-nano": Price(input=0.05, output=0.40),
    "o3-mini": Price(input=1.10, output=4.40),
    "o4-mini": Price(input=1.10, output=4.40),
}
"""Model → price."""


def price_of(model: str) -> Price | None:
    """The price of a model, or of the one that its name is a dated form of; None where it is not known."""
    known = [name for name in PRICES if model == name or _is_dated(model, name)]
    return PRICES[max(known, key=len)] if known else None


def _is_dated(model: str, name: str) -> bool:
    """ "gpt-4-0613" is gpt-4 of a day; "gpt-4-vision-preview" is another model, of which nothing is known."""
    rest = model.removeprefix(name)
    return rest != model and rest.startswith("-") and rest.replace("-", "").isdecimal()


def settled_price(
    model: str, *, price_in: float | None = None, price_out: float | None = None, budget_usd: float | None = None
) -> Price | None:
    """The price to reckon with: what the user says, else what is known, else None.

    Raises ConfigError where one of the two flags is missing, or dollars are limited and no price is known.
    """
    if price_in is not None and price_out is not None:
        return Price(input=price_in, output=price_out)
    if price_in is not None or price_out is not None:
        given, missing = ("--price-in", "--price-out") if price_out is None else ("--price-out", "--price-in")
        raise ConfigError(f"{given} is given without {missing}; expected both, in dollars per million tokens.")
    price = price_of(model)
    if price is None and budget_usd is not None:
        raise ConfigError(
            f"--budget-usd is {budget_usd:g}, but the price of {model!r} is not known; give --price-in and --price-out "
            "in dollars per million tokens (0 and 0 for a server of your own), or leave --budget-usd out."
        )
    return price

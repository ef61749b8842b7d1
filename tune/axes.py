"""Where a setting lies on its axis: the same ticks, ends and places for every plot, by whatever it is drawn.

An axis covers the dimension that was searched and every value that a trial has on it: the paper's setting may lie
outside of the range, and text alone (K = 0) is no choice of K.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal, Protocol

from tune.records import Trial

_EDGE = 0.1
"""Share of a range at either end in which a winner says that the range may be too narrow."""
_APART = 0.12
"""Share of an axis that ticks keep from each other."""


class Dimension(Protocol):
    """A setting that is searched: choices, or a range with a low and a high end."""

    @property
    def name(self) -> str: ...
    @property
    def log(self) -> bool: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...
    @property
    def choices(self) -> tuple[Any, ...] | None: ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """The axis of one dimension."""

    name: str
    log: bool
    low: float
    high: float
    categories: tuple[Any, ...] = ()
    """Values side by side at equal distances; empty for a range."""

    def number(self, value: Any) -> float:
        """A value as a number between `low` and `high`: itself, or the place of its category."""
        return float(self.categories.index(value)) if self.categories else float(value)

    def share(self, value: Any) -> float:
        """How far up the axis a value lies, from 0 to 1."""
        return self.share_of(self.number(value))

    def share_of(self, number: float) -> float:
        """The same of a number between `low` and `high`."""
        low, high = self.low, self.high
        if self.log:
            number, low, high = math.log(number), math.log(low), math.log(high)
        return 0.5 if high == low else (number - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """Numbers between the ends, the ends among them, and how they are written."""
        if self.categories:
            return [(float(place), written(value)) for place, value in enumerate(self.categories)]
        ends = [self.low] if self.low == self.high else [self.low, self.high]
        taken = list(ends)
        for tick in _round_numbers(self.low, self.high, log=self.log):
            if all(abs(self.share_of(tick) - self.share_of(other)) >= _APART for other in taken):
                taken.append(tick)
        return [(tick, written(tick)) for tick in sorted(taken)]


def axis_of(dimension: Dimension, trials: Sequence[Trial]) -> Axis:
    """The axis of a dimension that holds every trial's value."""
    values = [trial.settings[dimension.name] for trial in trials if dimension.name in trial.settings]
    if dimension.low is None or dimension.high is None:
        categories = tuple(_in_order(dict.fromkeys([*(dimension.choices or ()), *values])))
        return Axis(
            name=dimension.name, log=False, low=0.0, high=max(0.0, len(categories) - 1.0), categories=categories
        )
    low, high = min(dimension.low, *values, dimension.high), max(dimension.high, *values, dimension.low)
    return Axis(name=dimension.name, log=dimension.log and low > 0, low=float(low), high=float(high))


def _in_order(values: Sequence[Any] | dict[Any, None]) -> list[Any]:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return sorted(values) if numbers else list(values)


def _round_numbers(low: float, high: float, *, log: bool) -> list[float]:
    """Powers of ten, then their double and their five-fold, or steps of 1, 2 or 5; the roundest first."""
    if high <= low:
        return []
    if log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        candidates = [digit * 10.0**decade for digit in (1, 2, 5) for decade in decades]
    else:
        rough = (high - low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * digit for digit in (1, 2, 5, 10) if power * digit >= rough)
        candidates = [step * count for count in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return [number for number in candidates if low < number < high]


def written(value: Any) -> str:
    """A setting as a person writes it: three digits, 2.88e-4 and not 0.000288 or 2.88e-04."""
    if not isinstance(value, float):
        return str(value)
    mantissa, e, exponent = (f"{value:.2e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}").partition("e")
    if not e:
        return mantissa
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"


Edge = Literal["lower", "upper"]


def edge(dimension: Dimension, value: Any) -> Edge | None:
    """Whether a value lies at an end of what was searched, or beyond it, so that a better one may lie further out.

    Choices have ends where they are three numbers or more. K is bounded by the aspects of the data, and has none.
    """
    low, high = dimension.low, dimension.high
    if low is None or high is None:
        choices = dimension.choices or ()
        numbers = [c for c in choices if isinstance(c, int | float) and not isinstance(c, bool)]
        if dimension.name == "k" or len(numbers) < max(3, len(choices)) or not isinstance(value, int | float):
            return None
        return "lower" if value <= min(numbers) else "upper" if value >= max(numbers) else None
    if not isinstance(value, int | float) or low >= high:
        return None
    if value <= low:
        return "lower"
    share = Axis(name=dimension.name, log=dimension.log, low=low, high=high).share(value)
    return "lower" if share <= _EDGE else "upper" if share >= 1 - _EDGE else None

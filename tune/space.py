"""The space of a search as data: for each field of `TrainConfig` that is searched, a range or a list of choices.

A file says the same in TOML or JSON:

    [lr]
    log = [1e-5, 1e-3]        # log-uniform
    [dropout]
    uniform = [0.1, 0.5]
    [k]
    choices = [1, 2, 3]

A range has as many points in a grid as `grid = N` says, 3 by default.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
import typing
from collections.abc import Mapping
from typing import Any

import numpy as np

from lgsrr import storage
from lgsrr.config import TrainConfig
from lgsrr.errors import ConfigError
from lgsrr.tables import did_you_mean
from tune.records import Settings

GRID_POINTS = 3
_NOT_SEARCHED = frozenset(
    {"dataset", "data", "limit", "seed", "epochs", "workers", "gpu", "cpus_per_worker", "max_failures", "runs"}
    | {"storage", "experiment", "again"}
)
"""What says where and how long a search runs, not what it looks for."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """One field that is searched: choices, or a range with a low and a high end."""

    name: str
    log: bool = False
    """Whether the range is even in the logarithm."""
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] | None = None
    whole: bool = False
    """Whether its values are whole numbers."""
    points: int = GRID_POINTS
    """Of a range in a grid."""

    def grid(self) -> tuple[Any, ...]:
        """Its values in a grid, from low to high."""
        if self.choices is not None:
            return self.choices
        assert self.low is not None
        assert self.high is not None
        if self.points == 1:
            middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
            return (self.fit(middle),)
        spaced = np.geomspace if self.log else np.linspace
        return tuple(dict.fromkeys(self.fit(float(v)) for v in spaced(self.low, self.high, self.points)))

    def draw(self, random: np.random.Generator) -> Any:
        """A value at random."""
        if self.choices is not None:
            return self.choices[int(random.integers(len(self.choices)))]
        assert self.low is not None
        assert self.high is not None
        if self.log:
            return self.fit(math.exp(random.uniform(math.log(self.low), math.log(self.high))))
        return self.fit(random.uniform(self.low, self.high))

    def fit(self, value: float) -> Any:
        """As a setting: three significant digits: what a person types to get the same configuration again."""
        return round(value) if self.whole else float(f"{value:.3g}")

    def describe(self) -> str:
        """In a few words."""
        if self.choices is not None:
            return "one of " + ", ".join(map(str, self.choices))
        return f"{self.low:g} to {self.high:g}{', log-uniform' if self.log else ''}"


Space = tuple[Dimension, ...]


def default_space(base: TrainConfig, num_aspects: int) -> Space:
    """λ, τ, the learning rate and K around the paper's values, for the dataset and encoder of `base`.

    Where no layer of the encoder is trained, only the new layers learn, and they want a far higher rate. K is searched
    where `base` leaves it open.
    """
    frozen = base.trainable_layers == 0
    low, high = (base.lr * 5, base.lr * 300) if frozen else (base.lr / 4, base.lr * 4)
    space = [
        Dimension(name="lr", log=True, low=low, high=high),
        Dimension(name="rank_weight", log=True, low=0.03, high=3.0),
        Dimension(name="tau", log=True, low=0.1, high=5.0),
    ]
    if base.k is None and num_aspects > 1:
        space.append(Dimension(name="k", choices=tuple(range(1, num_aspects + 1))))
    return tuple(space)


def read_space(path: str) -> Space:
    """A space from a TOML or JSON file.

    Raises:
        DataError: the file cannot be read.
        ConfigError: it is no table of dimensions; names the field and what was expected.
    """
    content = storage.read_bytes(path).decode("utf-8", errors="replace")
    try:
        table = json.loads(content) if path.lower().endswith(".json") else tomllib.loads(content)
    except ValueError as error:
        kind = "JSON" if path.lower().endswith(".json") else "TOML"
        raise ConfigError(
            f"{path} is no {kind} ({error}); expected a table for each field, such as\n{_EXAMPLE}"
        ) from None
    if not isinstance(table, Mapping) or not table:
        raise ConfigError(f"{path} names no field; expected a table for each field, such as\n{_EXAMPLE}")
    return tuple(_dimension(path, name, spec) for name, spec in table.items())


_EXAMPLE = "[lr]\nlog = [1e-5, 1e-3]\n[k]\nchoices = [1, 2, 3]"


def _dimension(path: str, name: str, spec: Any) -> Dimension:
    where = f"{path}: {name}"
    fields = [f.name for f in dataclasses.fields(TrainConfig) if f.name not in _NOT_SEARCHED]
    if name not in fields:
        hint = "it says where or how long a run goes" if name in _NOT_SEARCHED else "no field of the training settings"
        known = ", ".join(fields)
        raise ConfigError(f"{where} cannot be searched: {hint}; expected one of {known}.{did_you_mean(name, fields)}")
    kinds = {"log", "uniform", "choices"}
    given = kinds & set(spec) if isinstance(spec, Mapping) else set()
    if len(given) != 1 or set(spec) - kinds - {"grid"}:
        raise ConfigError(
            f"{where} is {spec!r}; expected one of log = [low, high], uniform = [low, high], choices = [...]"
        )
    points = spec.get("grid", GRID_POINTS)
    if not isinstance(points, int) or points < 1:
        raise ConfigError(f"{where}: grid is {points!r}; expected a number of points, 1 or more")
    kind = given.pop()
    values = spec[kind]
    if kind == "choices":
        return _choices(where, name, values)
    return _range(where, name, values, log=kind == "log", points=points)


def _choices(where: str, name: str, values: Any) -> Dimension:
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{where}: choices is {values!r}; expected a list with one value or more")
    return Dimension(name=name, choices=tuple(dict.fromkeys(values)))


def _range(where: str, name: str, values: Any, *, log: bool, points: int) -> Dimension:
    numbers = isinstance(values, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if not numbers or len(values) != 2:
        raise ConfigError(f"{where} is {values!r}; expected two numbers: [low, high]")
    low, high = map(float, values)
    if not low < high:
        raise ConfigError(
            f"{where}: the range from {low:g} to {high:g} is empty; expected low < high, or choices = [{low:g}]"
        )
    if log and low <= 0:
        raise ConfigError(f"{where}: a log range from {low:g} is not possible; expected low > 0, or uniform = [...]")
    return Dimension(name=name, log=log, low=low, high=high, whole=_is_whole(name), points=points)


def _is_whole(name: str) -> bool:
    kind = typing.get_type_hints(TrainConfig)[name]
    return int in (kind, *typing.get_args(kind)) and float not in (kind, *typing.get_args(kind))


def check_space(space: Space, base: TrainConfig, num_aspects: int) -> None:
    """Refuse a space that holds what no run can have: each end and choice is tried on the settings.

    Raises:
        ConfigError: names the field and the value; K beyond the aspects of the data among them.
    """
    for dimension in space:
        for value in dimension.choices or (dimension.low, dimension.high):
            apply({dimension.name: value if dimension.choices else dimension.fit(float(value))}, base)
            if dimension.name == "k" and value is not None and value > num_aspects:
                raise ConfigError(
                    f"the space has k = {value:g}, but {base.dataset} has {num_aspects} aspects; "
                    f"use {num_aspects} or less, or describe more aspects with pipelines/extract.py"
                )


def apply(settings: Settings, base: TrainConfig) -> TrainConfig:
    """The settings of a run: those of `base` with a trial's in their place."""
    try:
        return dataclasses.replace(base, **settings)
    except TypeError as error:
        raise ConfigError(f"{settings} does not fit the training settings: {error}") from None


def grid(space: Space) -> list[Settings]:
    """Every combination, the last dimension running fastest."""
    points: list[Settings] = [{}]
    for dimension in space:
        points = [point | {dimension.name: value} for point in points for value in dimension.grid()]
    return points

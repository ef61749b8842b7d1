"""What the plots of a search show, in numbers: charts for a browser and pictures are drawn from the same ones.

F1 is in percent here. The scores of a search reach from a few that never learned to many close to each other at the
top; a plot keeps the top readable and shows what lies far below on its lower edge, marked as such.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tune.axes import Axis, Dimension, axis_of, written
from tune.looks import Look, count, kind, look, mean_and_sd
from tune.records import SeedResult
from tune.standings import Standing

MISSING = -0.12
"""Share of an axis, under its lower end, at which a trial is drawn that does not have the setting."""
_TOP = 2.5
"""How many times the distance from the best to the median the plots reach down from the best."""
_LEAST = 2.0
"""Points of F1 that they show at least."""
_JITTER = 0.28
"""How far trials of the same choice are spread, in distances between choices."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """A trial in a plot."""

    standing: Standing
    look: Look
    words: str
    """What is shown where one points at it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Point(Marked):
    """A trial's mean against one of its settings."""

    x: float
    y: float
    """Percent; on the lower edge where it lies under it."""
    sd: float | None
    under: bool
    """Whether it lies under the lower edge."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Line(Marked):
    """A trial's way across or along a plot."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    ended: bool = False
    """Whether it was stopped or dropped where the line ends."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class F1Axis:
    """The part of the F1 axis that is shown, percent."""

    low: float
    high: float
    cut: bool
    """Whether a trial lies under `low`."""


def shown(listed: Sequence[Standing]) -> list[Standing]:
    """Trials that can be drawn: with a score, the ones to be drawn over the others last."""
    return sorted((s for s in listed if s.mean is not None), key=lambda s: (look(s).over, -s.place))


def kinds(listed: Sequence[Standing]) -> list[tuple[str, Look]]:
    """The kinds of the trials that are drawn, the most prominent first: a legend."""
    found = {kind(standing): look(standing) for standing in shown(listed)}
    return sorted(found.items(), key=lambda item: -item[1].over)


def f1_axis(listed: Sequence[Standing]) -> F1Axis:
    """The F1 that the plots show."""
    means = [100 * standing.mean for standing in listed if standing.mean is not None]
    if not means:
        return F1Axis(low=0.0, high=100.0, cut=False)
    low, cut = _floor(means)
    return F1Axis(low=low, high=max(means), cut=cut)


def _floor(scores: Sequence[float]) -> tuple[float, bool]:
    """The lower edge of a plot of these scores, and whether some lie under it."""
    low = max(scores) - max(_LEAST, _TOP * (max(scores) - statistics.median(scores)))
    return max(low, min(scores)), min(scores) < low


def across(listed: Sequence[Standing], dimensions: Sequence[Dimension]) -> tuple[list[Axis], list[Line]]:
    """Parallel coordinates: the axes, and a line per trial with its share of each axis, that of F1 last."""
    axes = [axis_of(dimension, [standing.trial for standing in listed]) for dimension in dimensions]
    range_ = f1_axis(listed)
    f1 = Axis(name="dev F1 (%)", log=False, low=range_.low, high=range_.high)
    lines = []
    for standing in shown(listed):
        settings = standing.trial.settings
        shares = [axis.share(settings[axis.name]) if axis.name in settings else MISSING for axis in axes]
        shares.append(f1.share(max(100 * (standing.mean or 0.0), range_.low)))
        lines.append(Line(**_marked(standing), x=tuple(range(len(shares))), y=tuple(shares)))
    return [*axes, f1], lines


def against(listed: Sequence[Standing], dimension: Dimension) -> tuple[Axis, list[Point]]:
    """F1 against one setting: the axis, and a point per trial that has the setting."""
    axis = axis_of(dimension, [standing.trial for standing in listed])
    low = f1_axis(listed).low
    having = [standing for standing in shown(listed) if dimension.name in standing.trial.settings]
    values = [axis.number(standing.trial.settings[dimension.name]) for standing in having]
    places = _spread(values, [standing.trial.id for standing in having]) if axis.categories else values
    return axis, [
        Point(**_marked(s), x=x, y=max(mean, low), sd=None if s.sd is None else 100 * s.sd, under=mean < low)
        for s, x in zip(having, places, strict=True)
        for mean in [100 * (s.mean or 0.0)]
    ]


def _spread(values: Sequence[float], ids: Sequence[str]) -> list[float]:
    """Trials of the same choice side by side, so that they do not hide each other; by id, so that no order is seen."""
    places = list(values)
    for value in set(values):
        same = sorted((id_, place) for place, id_ in enumerate(ids) if values[place] == value)
        for number, (_, place) in enumerate(same, 1):
            places[place] = value + _JITTER * (2 * number / (len(same) + 1) - 1)
    return places


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """How the halving went."""

    epochs: list[Line]
    """Best F1 so far over the epochs of the first seed."""
    seeds: list[Line]
    """Mean F1 over the first n seeds, by n."""
    stops: Mapping[int, int]
    """How many were stopped after which epoch."""
    reached: Mapping[int, int]
    """How many have so many seeds or more."""
    view: tuple[float, float]
    """Lower and upper edge of the plot over seeds, percent."""
    under: tuple[str, ...]
    """Trials that lie under it, and where."""


def halving(listed: Sequence[Standing], results: Sequence[SeedResult]) -> Race:
    """How the halving went, from the results of every seed."""
    first = min((result.seed for result in results), default=0)
    firsts = {result.trial: result for result in results if result.seed == first}
    epochs, seeds = [], []
    for standing in shown(listed):
        marked = _marked(standing)
        result = firsts.get(standing.trial.id)
        if result is not None and result.history:
            best = _best_so_far([100 * figures["dev_f1"] for figures in result.history])
            epochs.append(Line(**marked, x=tuple(range(1, len(best) + 1)), y=best, ended=result.stopped))
        if standing.state != "stopped":
            means = _means(list(standing.scores.values()))
            ended = standing.state in ("dropped", "failed")
            seeds.append(Line(**marked, x=tuple(range(1, len(means) + 1)), y=means, ended=ended))
    stops = Counter(result.epochs for result in firsts.values() if result.stopped)
    most = max((len(line.x) for line in seeds), default=0)
    reached = {n: sum(len(line.x) >= n for line in seeds) for n in range(1, most + 1)}
    low, _ = _floor([line.y[-1] for line in seeds] or [0.0])
    top = max((max(line.y) for line in seeds), default=100.0)
    margin = 0.07 * (top - low) + 0.1
    return Race(
        epochs=epochs,
        seeds=seeds,
        stops=dict(sorted(stops.items())),
        reached=reached,
        view=(low - margin, top + margin),
        under=tuple(f"{line.standing.name} at {line.y[-1]:.1f}" for line in seeds if line.y[-1] < low),
    )


def shown_under(under: Sequence[str]) -> str:
    """What is said on the lower edge of the plot over seeds; empty where nothing lies under it."""
    more = f" and {len(under) - 2} more" if len(under) > 2 else ""
    return f"below: {', '.join(under[:2])}{more}" if under else ""


def missing(lines: Sequence[Line], place: int) -> bool:
    """Whether a trial does not have the setting of an axis of the parallel coordinates."""
    return any(line.y[place] == MISSING for line in lines)


def columns(dimensions: int) -> int:
    """How many plots stand side by side."""
    return 2 if dimensions == 4 else max(1, min(3, dimensions))


def _best_so_far(scores: Sequence[float]) -> tuple[float, ...]:
    return tuple(max(scores[: place + 1]) for place in range(len(scores)))


def _means(scores: Sequence[float]) -> tuple[float, ...]:
    return tuple(100 * sum(scores[:number]) / number for number in range(1, len(scores) + 1))


def _marked(standing: Standing) -> dict[str, Any]:
    after = f" ({standing.reason})" if standing.reason else ""
    words = "\n".join(
        (
            f"{standing.place}. {standing.name}{after}",
            f"dev F1 {mean_and_sd(standing.mean, standing.sd)} % over {count(len(standing.scores), 'seed')}",
            *(f"{name} = {written(value)}" for name, value in standing.trial.settings.items()),
        )
    )
    return {"standing": standing, "look": look(standing), "words": words}

"""The plots of a search as PNGs, by matplotlib: what `tune.charts` draws for a browser, in the same colours.

Drawn without pyplot, as in `lgsrr.plots`, so that nothing is kept between pictures and no display is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lgsrr.files import atomic_path
from tune.axes import Axis, Dimension
from tune.drawn import MISSING, Line, Point, across, against, columns, f1_axis, halving, kinds, missing, shown_under
from tune.looks import LOOKS, count
from tune.records import SeedResult
from tune.standings import Standing, best_of

_DPI = 130
_GRID, _AXIS = "#eceff2", "#7a8591"


def parallel_picture(listed: Sequence[Standing], dimensions: Sequence[Dimension], path: Path) -> None:
    """Draw parallel coordinates: a line per trial through all its settings to its dev F1."""
    lanes, lines = across(listed, dimensions)
    figure = _figure(max(6.0, 2.1 * len(lanes) + 1.0), 5.0)
    axes = figure.subplots()
    for line in lines:
        _line(axes, line)
    for place, lane in enumerate(lanes):
        _lane(axes, place, lane, cut=f1_axis(listed).cut and place == len(lanes) - 1)
        if missing(lines, place):
            _mark(axes, place, MISSING, "not set")
    axes.set_xlim(-0.45, len(lanes) - 0.75)
    axes.set_ylim(MISSING - 0.04, 1.14)
    axes.axis("off")
    _legend(figure, listed)
    _save(figure, path)


def _lane(axes: Any, place: int, lane: Axis, *, cut: bool) -> None:
    axes.plot([place, place], [0, 1], color=_AXIS, linewidth=1, zorder=0.5)
    title = lane.name + (" (log)" if lane.log else "")
    axes.text(place, 1.06, title, ha="center", va="bottom", fontweight="bold", fontsize=10, parse_math=False)
    for number, (tick, text) in enumerate(lane.ticks()):
        _mark(axes, place, lane.share_of(tick), f"≤ {text}" if cut and number == 0 else text)


def _mark(axes: Any, place: int, share: float, text: str) -> None:
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6}
    axes.text(place - 0.05, share, text, ha="right", va="center", fontsize=8, bbox=box, zorder=20, parse_math=False)


def hyperparameters_picture(listed: Sequence[Standing], dimensions: Sequence[Dimension], path: Path) -> None:
    """Draw dev F1 against each setting, with the deviation over seeds; dashed: the best of text alone."""
    wide = columns(len(dimensions))
    rows = max(1, math.ceil(len(dimensions) / wide))
    figure = _figure(4.0 * wide + 0.6, 3.5 * rows + 0.5)
    grid = figure.subplots(rows, wide, sharey=True, squeeze=False)
    alone = best_of(listed, "text alone")
    for place, axes in enumerate(grid.flat):
        if place >= len(dimensions):
            axes.axis("off")
            continue
        axis, dots = against(listed, dimensions[place])
        for dot in dots:
            _dot(axes, dot)
        if alone is not None and alone.mean is not None:
            axes.axhline(100 * alone.mean, color=LOOKS["text alone"].colour, linewidth=1.1, linestyle="--", zorder=0.8)
        _x_axis(axes, axis)
        _dress(axes, "dev macro F1 (%)" if place % wide == 0 else "")
    _legend(figure, listed)
    _save(figure, path)


def _dot(axes: Any, dot: Point) -> None:
    size = 8.0 if dot.look.over >= 5 else 5.5
    style = {"color": dot.look.colour, "zorder": dot.look.over, "markersize": size, "linestyle": "none"}
    if dot.under:
        axes.plot([dot.x], [dot.y], marker="v", **style)
    elif dot.sd is None:
        axes.plot([dot.x], [dot.y], marker="o", fillstyle="none", **style)
    else:
        axes.errorbar([dot.x], [dot.y], yerr=[dot.sd], marker="o", capsize=3, elinewidth=1.3, **style)


def _x_axis(axes: Any, axis: Axis) -> None:
    if axis.log:
        axes.set_xscale("log")
    ticks = axis.ticks()
    axes.set_xticks([tick for tick, _ in ticks], [text for _, text in ticks], fontsize=9, parse_math=False)
    axes.set_xticks([], minor=True)
    axes.set_xlabel(axis.name + (" (log)" if axis.log else ""), parse_math=False)
    if axis.categories:
        axes.set_xlim(axis.low - 0.5, axis.high + 0.5)


def race_picture(listed: Sequence[Standing], results: Sequence[SeedResult], path: Path) -> None:
    """Draw how the halving went: best F1 so far by epoch of the first seed, then the mean over more and more seeds."""
    went = halving(listed, results)
    figure = _figure(12.0, 5.0)
    epochs, seeds = figure.subplots(1, 2, width_ratios=[3, 2])
    for axes, lines in ((epochs, went.epochs), (seeds, went.seeds)):
        for line in lines:
            _line(axes, line, marker="o")
            if line.ended:
                axes.plot(line.x[-1:], line.y[-1:], marker="X", markersize=8, color=line.look.colour, zorder=15)
    for epoch, number in went.stops.items():
        epochs.axvline(epoch, color=_AXIS, linewidth=1, linestyle=":", zorder=0.5)
        where = epochs.get_xaxis_transform()
        epochs.text(epoch, 0.01, f" {number} stopped", transform=where, fontsize=8, color=_AXIS, va="bottom")
    _whole_numbers(epochs)
    names = [f"{count(n, 'seed')}\n{count(left, 'trial')}" for n, left in went.reached.items()]
    seeds.set_xticks(list(went.reached), names)
    _dress(epochs, "dev macro F1 (%)")
    _dress(seeds, "")
    seeds.set_ylim(went.view)
    below = {"transform": seeds.transAxes, "ha": "right", "va": "bottom", "fontsize": 8, "color": _AXIS}
    seeds.text(0.99, 0.01, shown_under(went.under), parse_math=False, **below)
    epochs.set_xlabel("epoch")
    epochs.set_title("First seed: best so far", fontsize=11, loc="left")
    seeds.set_title("Mean over seeds", fontsize=11, loc="left")
    _legend(figure, listed)
    _save(figure, path)


def _whole_numbers(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def importance_picture(shares: Mapping[str, float], path: Path) -> None:
    """Draw the share of each hyperparameter in what was seen, as bars."""
    values = [100 * share for share in shares.values()]
    figure = _figure(8.0, 1.4 + 0.45 * len(values))
    axes = figure.subplots()
    bars = axes.barh(range(len(values)), values, color=LOOKS["paper"].colour, height=0.6)
    axes.bar_label(bars, labels=[f"{value:.0f} %" for value in values], padding=4)
    axes.set_yticks(range(len(values)), list(shares), parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, max(values, default=1.0) * 1.12)
    axes.set_xlabel("share of what the settings explain (%)")
    _dress(axes, "")
    axes.grid(False, axis="y")
    _save(figure, path)


def words_picture(words: str, path: Path) -> None:
    """A picture that says why there is none."""
    figure = _figure(8.0, 1.6)
    figure.text(0.5, 0.5, words, ha="center", va="center", fontsize=11, color=_AXIS, wrap=True, parse_math=False)
    _save(figure, path)


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _line(axes: Any, line: Line, **style: Any) -> None:
    drawn = {"color": line.look.colour, "linewidth": line.look.width, "zorder": line.look.over, "markersize": 3.5}
    axes.plot(line.x, line.y, **{"marker": "o", **drawn, **style})


def _legend(figure: Any, listed: Sequence[Standing]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=look.colour, linewidth=max(2.0, look.width), marker="o", markersize=5, label=look.words)
        for _, look in kinds(listed)
    ]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)


def _dress(axes: Any, name: str) -> None:
    axes.set_ylabel(name)
    axes.grid(color=_GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Any, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI, bbox_inches="tight", facecolor="white")

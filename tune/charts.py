"""The plots of a search for a browser, by plotly: point at a trial and it says what it is; click the legend to hide.

Everything is drawn as lines and dots of SVG. Plotly's own parallel coordinates want WebGL, which a remote desktop or a
locked browser may not have, and do not say which trial a line is; the price is that axes cannot be brushed.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tune.axes import Axis, Dimension
from tune.drawn import MISSING, Line, Point, across, against, columns, f1_axis, halving, kinds, missing, shown_under
from tune.looks import count, kind
from tune.records import SeedResult
from tune.standings import Standing, best_of

_FONT = {"family": 'system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif', "size": 13, "color": "#1b1f24"}
_GRID, _AXIS = "#eceff2", "#7a8591"
_CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["lasso2d", "select2d"],
    "showSendToCloud": False,  # on by default since plotly.js 4: a button that sends the data to plotly's servers
    "plotlyServerURL": "",
}
BRING_OUT = """
const plot = document.getElementById("{plot_id}");
plot.on("plotly_hover", event => {
  const chosen = event.points[0].curveNumber;
  Plotly.restyle(plot, {opacity: plot.data.map((_, place) => place === chosen ? 1 : 0.15)});
});
plot.on("plotly_unhover", () => Plotly.restyle(plot, {opacity: 1}));
"""
"""Pale all other lines while one points at a trial."""


def fragment(figure: Any, name: str, script: str | None = None) -> str:
    """A figure as a piece of HTML for a page that has plotly.js; `name` becomes its id."""
    drawn: str = figure.to_html(
        full_html=False, include_plotlyjs=False, div_id=name, config=_CONFIG, post_script=script
    )
    return drawn


def parallel(listed: Sequence[Standing], dimensions: Sequence[Dimension]) -> Any:
    """Parallel coordinates: a line per trial through all its settings to its dev F1."""
    from plotly.graph_objects import Figure

    axes, lines = across(listed, dimensions)
    figure = Figure()
    for line, first in _first_of_kind(lines):
        figure.add_scatter(
            **_trial(line, first), x=line.x, y=line.y, mode="lines+markers",
            line={"color": line.look.colour, "width": line.look.width}, marker={"size": 6},
        )  # fmt: skip
    for place, axis in enumerate(axes):
        cut = place == len(axes) - 1 and f1_axis(listed).cut
        _draw_axis(figure, place, axis, cut=cut, missing=missing(lines, place))
    _dress(figure, height=460)
    figure.update_xaxes(visible=False, range=[-0.3, len(axes) - 0.8])
    figure.update_yaxes(visible=False, range=[MISSING - 0.04, 1.04])
    return figure


def _draw_axis(figure: Any, place: int, axis: Axis, *, cut: bool, missing: bool) -> None:
    figure.add_shape(type="line", x0=place, x1=place, y0=0, y1=1, line={"color": _AXIS, "width": 1}, layer="below")
    title = html.escape(axis.name) + (" <i>(log)</i>" if axis.log else "")
    figure.add_annotation(x=place, y=1, yshift=22, text=f"<b>{title}</b>", showarrow=False)
    marks = [(axis.share_of(tick), html.escape(text)) for tick, text in axis.ticks()]
    if cut:
        marks[0] = (0.0, f"≤ {marks[0][1]}")
    if missing:
        marks.append((MISSING, "<i>not set</i>"))
    for share, text in marks:
        figure.add_annotation(
            x=place, y=share, text=text, showarrow=False, xshift=-8, xanchor="right", font={"size": 11},
            bgcolor="rgba(255,255,255,.75)", borderpad=1,
        )  # fmt: skip


def hyperparameters(listed: Sequence[Standing], dimensions: Sequence[Dimension]) -> Any:
    """Dev F1 against each setting, a plot each, with the deviation over seeds; dashed: the best of text alone."""
    from plotly.subplots import make_subplots

    wide = columns(len(dimensions))
    rows = math.ceil(len(dimensions) / wide)
    figure = make_subplots(
        rows=rows, cols=wide, shared_yaxes=True, horizontal_spacing=0.04, vertical_spacing=0.35 / rows
    )
    legend: set[str] = set()
    for place, dimension in enumerate(dimensions):
        where = {"row": place // wide + 1, "col": place % wide + 1}
        axis, dots = against(listed, dimension)
        for key, _ in reversed(kinds(listed)):
            own = [dot for dot in dots if kind(dot.standing) == key]
            for some in ([dot for dot in own if not _has_bar(dot)], [dot for dot in own if _has_bar(dot)]):
                _add_dots(figure, some, key not in legend, where)
                legend |= {key} if some else set()
        figure.update_xaxes(**_x_axis(axis), **where)
        figure.update_yaxes(title="dev macro F1 (%)" if where["col"] == 1 else None, **where)
    alone = best_of(listed, "text alone")
    if alone is not None and alone.mean is not None:
        figure.add_hline(y=100 * alone.mean, line={"color": "#009e73", "width": 1.2, "dash": "dash"}, layer="below")
    _dress(figure, height=140 + 310 * rows)
    return figure


def _has_bar(dot: Point) -> bool:
    """Plotly draws a bar of no length as a dash, so that those without one are drawn apart."""
    return dot.sd is not None and not dot.under


def _add_dots(figure: Any, dots: Sequence[Point], first: bool, where: Mapping[str, int]) -> None:
    if not dots:
        return
    shapes = ["triangle-down" if dot.under else "circle-open" if dot.sd is None else "circle" for dot in dots]
    look = dots[0].look
    figure.add_scatter(
        x=[dot.x for dot in dots], y=[dot.y for dot in dots], mode="markers", name=look.words, showlegend=first,
        legendgroup=look.words, legendrank=1000 - look.over, hovertext=[_hover(dot.words) for dot in dots],
        hoverinfo="text",
        marker={
            "color": look.colour, "symbol": shapes, "size": 11 if look.over >= 5 else 8,
            "line": {"color": look.colour, "width": 1.5},
        },
        error_y={"array": [dot.sd for dot in dots], "thickness": 1.4, "width": 4} if _has_bar(dots[0]) else None,
        **where,
    )  # fmt: skip


def _x_axis(axis: Axis) -> dict[str, Any]:
    ticks = axis.ticks()
    margin = 0.5 if axis.categories else 0.05 * (axis.high - axis.low) or 1.0
    ends = [axis.low - margin, axis.high + margin]
    if axis.log:
        low, high = math.log10(axis.low), math.log10(axis.high)
        margin = 0.05 * (high - low) or 0.5
        ends = [low - margin, high + margin]
    return {
        "title": html.escape(axis.name) + (" (log)" if axis.log else ""), "type": "log" if axis.log else "linear",
        "tickvals": [tick for tick, _ in ticks], "ticktext": [html.escape(text) for _, text in ticks], "range": ends,
        "tickangle": 0,
    }  # fmt: skip


def race(listed: Sequence[Standing], results: Sequence[SeedResult]) -> Any:
    """How the halving went: best F1 so far over the first seed's epochs, then the mean over more and more seeds."""
    from plotly.subplots import make_subplots

    went = halving(listed, results)
    figure = make_subplots(
        rows=1, cols=2, horizontal_spacing=0.08, column_widths=[0.6, 0.4],
        subplot_titles=("First seed: best so far", "Mean over seeds"),
    )  # fmt: skip
    legend: set[str] = set()
    for column, lines in ((1, went.epochs), (2, went.seeds)):
        for line in lines:
            last = len(line.x) - 1
            marks = {
                "symbol": ["x" if line.ended and place == last else "circle" for place in range(last + 1)],
                "size": [9 if line.ended and place == last else 5 for place in range(last + 1)],
            }
            figure.add_scatter(
                **_trial(line, line.look.words not in legend), x=line.x, y=line.y, mode="lines+markers", marker=marks,
                line={"color": line.look.colour, "width": line.look.width}, row=1, col=column,
            )  # fmt: skip
            legend.add(line.look.words)
    for epoch, number in went.stops.items():
        figure.add_vline(x=epoch, line={"color": _AXIS, "width": 1, "dash": "dot"}, layer="below", row=1, col=1)
        figure.add_annotation(
            x=epoch, y=0, yref="y domain", text=f"{number} stopped", showarrow=False, xanchor="left", xshift=4,
            yanchor="bottom", font={"size": 11, "color": _AXIS}, row=1, col=1,
        )  # fmt: skip
    names = [f"{count(n, 'seed')}<br>{count(left, 'trial')}" for n, left in went.reached.items()]
    figure.update_xaxes(range=[0.5, _longest(went.epochs) + 0.5], row=1, col=1)
    figure.update_xaxes(title="epoch", tick0=1, dtick=max(1, _longest(went.epochs) // 10), row=1, col=1)
    figure.update_xaxes(tickvals=list(went.reached), ticktext=names, row=1, col=2)
    figure.update_xaxes(range=[0.8, max(went.reached, default=1) + 0.2], row=1, col=2)
    figure.update_yaxes(title="dev macro F1 (%)", row=1, col=1)
    figure.update_yaxes(range=went.view, row=1, col=2)
    figure.add_annotation(
        x=1, xref="x2 domain", xanchor="right", y=0, yref="y2 domain", yanchor="bottom", showarrow=False,
        text=html.escape(shown_under(went.under)), font={"size": 11, "color": _AXIS},
    )  # fmt: skip
    _dress(figure, height=480)
    return figure


def _longest(lines: Sequence[Line]) -> int:
    return max((len(line.x) for line in lines), default=1)


def importances(shares: Mapping[str, float]) -> Any:
    """Share of each hyperparameter in what was seen, as bars."""
    from plotly.graph_objects import Bar, Figure

    values = [100 * share for share in shares.values()]
    bars = Bar(
        x=values, y=[html.escape(name) for name in shares], orientation="h", marker={"color": "#0072b2"},
        text=[f"{value:.0f} %" for value in values], textposition="outside", hoverinfo="skip", cliponaxis=False,
    )  # fmt: skip
    figure = Figure(bars)
    _dress(figure, height=115 + 42 * len(values))
    figure.update_xaxes(title="share of what the settings explain (%)", range=[0, max(values, default=1.0) * 1.12])
    figure.update_yaxes(autorange="reversed", showgrid=False, automargin=True, ticklabelstandoff=4)
    figure.update_layout(margin={"t": 40, "b": 56})
    return figure


def _first_of_kind(lines: Sequence[Line]) -> Iterator[tuple[Line, bool]]:
    seen: set[str] = set()
    for line in lines:
        yield line, line.look.words not in seen
        seen.add(line.look.words)


def _trial(line: Line, first: bool) -> dict[str, Any]:
    return {
        "name": line.look.words, "legendgroup": line.look.words, "showlegend": first, "hovertext": _hover(line.words),
        "hoverinfo": "text", "legendrank": 1000 - line.look.over,
    }  # fmt: skip


def _hover(words: str) -> str:
    head, *rest = html.escape(words).split("\n")
    return "<br>".join((f"<b>{head}</b>", *rest))


def _dress(figure: Any, height: int) -> None:
    figure.update_layout(
        template="none", font=_FONT, height=height, margin={"l": 64, "r": 24, "t": 64, "b": 120}, hovermode="closest",
        paper_bgcolor="#fff", plot_bgcolor="#fff", hoverlabel={"align": "left", "bgcolor": "#fff", "font": _FONT},
        legend={
            "orientation": "h", "yref": "container", "y": 0.01, "yanchor": "bottom", "x": 0, "itemsizing": "constant",
        },
    )  # fmt: skip
    figure.update_xaxes(
        gridcolor=_GRID, zeroline=False, linecolor=_AXIS, showline=True, ticks="outside", title_standoff=10
    )
    figure.update_yaxes(gridcolor=_GRID, zeroline=False, linecolor=_AXIS, showline=False)

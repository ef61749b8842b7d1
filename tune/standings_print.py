"""Standings as a table on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tune.axes import written
from tune.looks import how_far, mean_and_sd, percent
from tune.standings import Standing, differing


def print_standings(listed: Sequence[Standing], console: Console, limit: int = 20) -> None:
    """The best `limit` trials, the winner in bold; ≈ marks those that cannot be told from it.

    Labels and the words of errors are shown as they are: no markup of them is followed.
    """
    names = differing([standing.trial for standing in listed])
    table = Table(box=None, pad_edge=False)
    for title in ("", "trial", *names, "seeds", "dev F1 %", "at least", "state"):
        right = title not in ("trial", "state")
        table.add_column(Text(title), justify="right" if right else "left", no_wrap=title != "state")
    for standing in listed[:limit]:
        table.add_row(*map(Text, _cells(standing, names)), style="bold green" if standing.state == "winner" else None)
    console.print(table)
    for words in _below(listed, limit):
        console.print(Text(words, style="dim"))


def _cells(standing: Standing, names: Sequence[str]) -> list[str]:
    settings = standing.trial.settings
    near = " ≈" if standing.close and standing.state != "winner" else "  "
    return [
        f"{standing.place}{near}",
        standing.trial.id,
        *(written(settings[name]) if name in settings else "–" for name in names),
        str(len(standing.scores)),
        mean_and_sd(standing.mean, standing.sd),
        percent(standing.lower),
        _state(standing),
    ]


def _state(standing: Standing) -> str:
    reason = " ".join(how_far(standing).split())
    reason = reason if len(reason) <= 80 else reason[:78].rstrip() + " …"
    return f"{standing.trial.label}: {reason}" if standing.trial.label else reason


def _below(listed: Sequence[Standing], limit: int) -> list[str]:
    lines = []
    if len(listed) > limit:
        lines.append(f"and {len(listed) - limit} more")
    if any(standing.close and standing.state != "winner" for standing in listed[:limit]):
        lines.append("≈ cannot be told from the winner by a paired test over seeds (p > 0.05)")
    return lines

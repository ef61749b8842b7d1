"""The report of a search in a folder: a page to read, a table to compute with, and pictures to show.

search.html            the note, all trials, four plots that answer to the mouse; opens without a network
table.csv              a row per trial, scores as fractions
parallel.png  hyperparameters.png  halving.png  importance.png
"""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lgsrr.files import atomic_path
from tune.page import NO_DIMENSIONS, NO_IMPORTANCE, NO_SCORES, has_scores, search_page
from tune.pictures import hyperparameters_picture, importance_picture, parallel_picture, race_picture, words_picture
from tune.reported import SearchReport
from tune.standings import Standing

__all__ = ["SearchReport", "table_csv", "write_report"]


def write_report(folder: Path, report: SearchReport) -> list[Path]:
    """Write the report's files, each whole or not at all; returns their paths, the page first."""
    page, table = folder / "search.html", folder / "table.csv"
    _write(page, search_page(report))
    _write(table, table_csv(report.standings))
    drawn = []
    for name, draw in _pictures(report).items():
        draw(folder / name)
        drawn.append(folder / name)
    return [page, table, *drawn]


def _pictures(report: SearchReport) -> dict[str, Callable[[Path], None]]:
    """What draws each picture. Where there is nothing to draw, it says so: a report always has the same files."""
    listed, dimensions, shares = report.standings, report.dimensions, report.importance
    draw: dict[str, Callable[[Path], None]] = {
        "parallel.png": lambda path: parallel_picture(listed, dimensions, path),
        "hyperparameters.png": lambda path: hyperparameters_picture(listed, dimensions, path),
        "halving.png": lambda path: race_picture(listed, report.results, path),
        "importance.png": lambda path: importance_picture(shares, path),
    }
    reasons = {} if shares else {"importance.png": NO_IMPORTANCE}
    if not dimensions:
        reasons |= dict.fromkeys(("parallel.png", "hyperparameters.png"), NO_DIMENSIONS)
    if not has_scores(report):
        reasons |= dict.fromkeys(draw, NO_SCORES)
    return draw | {name: functools.partial(words_picture, words) for name, words in reasons.items()}


def table_csv(listed: Sequence[Standing]) -> str:
    """All standings as CSV: settings, scores by seed, mean, deviation, bound, test; fractions, empty where none is."""
    settings = list(dict.fromkeys(name for s in listed for name in s.trial.settings))
    seeds = sorted({seed for s in listed for seed in s.scores})
    metrics = list(dict.fromkeys(name for s in listed for name in s.test))
    rows = [_record(s, settings, seeds, metrics) for s in listed]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]) if rows else ["place"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _record(s: Standing, settings: Sequence[str], seeds: Sequence[int], metrics: Sequence[str]) -> dict[str, Any]:
    none: tuple[None, None] = (None, None)
    return {
        "place": s.place,
        "trial": s.trial.id,
        "label": s.trial.label,
        "origin": s.trial.origin,
        **{name: s.trial.settings.get(name) for name in settings},
        "seeds": len(s.scores),
        "dev_f1_mean": s.mean,
        "dev_f1_sd": s.sd,
        "dev_f1_lower": s.lower,
        "p": s.p,
        "close": s.close,
        "epochs": s.epochs,
        "state": s.state,
        "reason": s.reason,
        **{f"dev_f1_seed_{seed}": s.scores.get(seed) for seed in seeds},
        **{
            f"test_{name}_{what}": s.test.get(name, none)[at]
            for name in metrics
            for at, what in ((0, "mean"), (1, "sd"))
        },
    }


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

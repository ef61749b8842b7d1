"""What each part of the method brings: rows in the order given, against the full method and beside the paper's number.

The differences are of dev macro F1, over seeds that both rows ran. The paper's numbers are of the test split and of
another encoder and other lengths of training, so that they show a direction and are no target.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tune.looks import mean_and_sd, points, probability
from tune.marks import plain
from tune.marks import table as markdown_table
from tune.records import SeedResult, Trial
from tune.standings import Measured, Tested
from tune.stats import mean, paired_p, sd


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AblationRow:
    """One row. Scores are fractions."""

    trial: str
    """Id of the trial."""
    label: str
    seeds: int
    """With a score."""
    mean: float | None
    """Dev macro F1; None where no seed has one."""
    sd: float | None
    difference: float | None
    """Mean of the differences to the full method, over seeds that both ran; None for the full method itself."""
    p: float | None
    """Of a paired t-test against the full method."""
    test: Measured | None
    """Test macro F1, where it was looked at."""
    paper: float | None
    """The paper's number, percent as printed there."""
    failure: str | None
    """Why a seed of it failed."""


def ablation_table(
    trials: Sequence[Trial],
    results: Sequence[SeedResult],
    *,
    full: str,
    paper: Mapping[str, float] | None = None,
    tested: Tested | None = None,
) -> list[AblationRow]:
    """A row per trial, in the order of `trials`.

    Args:
        trials: the rows; a trial without a label goes by its id.
        results: of their seeds, in any order.
        full: id of the full method's trial.
        paper: the paper's number by trial, percent as printed.
        tested: metrics on test by trial, fractions for each seed; the row shows "f1".

    Raises:
        ValueError: the full method is not among the trials.
    """
    if full not in {trial.id for trial in trials}:
        raise ValueError(f"the full method {full!r} is not among the trials {[trial.id for trial in trials]}")
    scores = {t.id: {r.seed: r.dev_f1 for r in results if r.trial == t.id and r.dev_f1 is not None} for t in trials}
    failures = {r.trial: f"seed {r.seed}: {r.failure}" for r in results if r.failure is not None}
    return [
        _row(trial, scores[trial.id], scores[full], (paper or {}).get(trial.id), failures.get(trial.id), tested or {})
        for trial in trials
    ]


def _row(
    trial: Trial,
    own: Mapping[int, float],
    full: Mapping[int, float],
    paper: float | None,
    failure: str | None,
    tested: Tested,
) -> AblationRow:
    f1 = tested.get(trial.id, {}).get("f1")
    itself = own is full
    differences = [own[seed] - full[seed] for seed in sorted(own.keys() & full.keys())]
    ordered = [own[seed] for seed in sorted(own)]
    return AblationRow(
        trial=trial.id,
        label=trial.label or trial.id,
        seeds=len(own),
        mean=mean(ordered) if ordered else None,
        sd=sd(ordered),
        difference=mean(differences) if differences and not itself else None,
        p=None if itself else paired_p(own, full),
        test=(mean(f1), sd(f1)) if f1 else None,
        paper=paper,
        failure=failure,
    )


def _titles(rows: Sequence[AblationRow]) -> list[str]:
    test = ["test F1 %"] if any(row.test is not None for row in rows) else []
    paper = ["paper's F1 %"] if any(row.paper is not None for row in rows) else []
    return ["", "seeds", "dev F1 %", "difference", "p", *test, *paper]


def _cells(row: AblationRow, titles: Sequence[str]) -> list[str]:
    values = {
        "": row.label + (f" (failed: {row.failure})" if row.failure else ""),
        "seeds": str(row.seeds),
        "dev F1 %": mean_and_sd(row.mean, row.sd),
        "difference": "–" if row.difference is None else points(row.difference),
        "p": probability(row.p),
        "test F1 %": "–" if row.test is None else mean_and_sd(*row.test),
        "paper's F1 %": "–" if row.paper is None else f"{row.paper:.2f}",
    }
    return [values[title] for title in titles]


def ablation_markdown(rows: Sequence[AblationRow]) -> str:
    """The rows as a markdown table."""
    titles = _titles(rows)
    return markdown_table(titles, [list(map(plain, _cells(row, titles))) for row in rows], words=("",))


def ablation_csv(rows: Sequence[AblationRow]) -> str:
    """The rows as CSV, fractions but for the paper's number; empty where there is none."""
    stream = io.StringIO()
    names = [field.name for field in dataclasses.fields(AblationRow) if field.name != "test"]
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*names, "test_f1_mean", "test_f1_sd"])
    for row in rows:
        writer.writerow([*(getattr(row, name) for name in names), *(row.test or (None, None))])
    return stream.getvalue()


def print_ablation(rows: Sequence[AblationRow], console: Console) -> None:
    """The rows as a table on a terminal."""
    titles = _titles(rows)
    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, justify="right" if title else "left")
    for row in rows:
        table.add_row(*map(Text, _cells(row, titles)), style="bold" if row.difference is None and row.seeds else None)
    console.print(table)

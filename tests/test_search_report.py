"""tune.report: the note says what the standings say, the page holds all of it and runs nothing of others."""

from __future__ import annotations

import csv
import dataclasses
import html
import itertools
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from matplotlib.image import imread

from tests.made_up_search import SPACE, made_up_report
from tune.axes import Axis, axis_of, edge, written
from tune.note import MOST_CHARACTERS, note
from tune.records import Origin, SeedResult, Trial
from tune.report import SearchReport, table_csv, write_report
from tune.space import Dimension
from tune.standings import standings

FILES = ["search.html", "table.csv", "parallel.png", "hyperparameters.png", "halving.png", "importance.png"]
HOSTILE = "</script><script>alert(1)</script> **bold** `code` | pipe $x$ [link](javascript:alert(2))"


def report_of(trials: Sequence[Trial], scores: Sequence[Sequence[float]], seeds: int = 3) -> SearchReport:
    """A small report: scores by trial and seed; None of it is raced."""
    results = [
        SeedResult(trial=trial.id, seed=seed, history=({"epoch": 1, "dev_f1": score},))
        for trial, row in zip(trials, scores, strict=True)
        for seed, score in enumerate(row)
    ]
    return SearchReport(
        name="small",
        dataset="sample",
        standings=standings(trials, results, seeds, 1),
        dimensions=(Dimension(name="lr", log=True, low=1e-5, high=1e-3),),
        trials=trials,
        results=results,
        seeds=seeds,
        epochs=1,
        spent=len(results),
        exhaustive=len(trials) * seeds,
    )


def a_trial(origin: Origin, lr: float, label: str = "") -> Trial:
    return Trial(settings={"lr": lr}, origin=origin, label=label, kept=origin == "paper")


PAPER, ALONE, DRAWN = (
    a_trial("paper", 1e-4, "the paper's setting"),
    a_trial("text alone", 2e-4, "text alone"),
    a_trial("random", 3e-4),
)
LOW, MIDDLE, HIGH = (0.30, 0.31, 0.29), (0.35, 0.36, 0.34), (0.40, 0.412, 0.387)


def test_the_note_says_who_won_by_how_much_and_what_it_cost() -> None:
    report = made_up_report()
    best = report.winner
    assert best is not None
    text = note(report)
    assert text.startswith(f"**`{best.trial.id}` won** among 16 configurations on mintrec2")
    for words in ("Over the paper's setting", "Over text alone", "On test", "Not distinguishable", "What mattered"):
        assert f"**{words}" in text
    assert f"**Cost**: {report.spent} seed-epochs of the 640" in text
    assert "**1 trial failed**" in text
    assert len(text) <= MOST_CHARACTERS


def test_the_table_of_the_note_has_ten_trials_and_as_many_cells_in_every_row() -> None:
    rows = [line for line in note(made_up_report()).splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 10
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1


def test_a_note_of_many_trials_with_long_labels_still_fits() -> None:
    trials = [a_trial("random", n * 1e-5, label=f"{HOSTILE} {n} " * 9) for n in range(1, 60)]
    failing = report_of(trials, [[0.4 + n / 1000] * 2 for n in range(len(trials))], seeds=3)
    results = [dataclasses.replace(r, failure=HOSTILE * 30) for r in failing.results if r.seed == 0]
    broken = dataclasses.replace(failing, standings=standings(trials, results, 3, 1), results=results)
    for report in (failing, broken):
        assert len(note(report)) <= MOST_CHARACTERS


def test_text_alone_as_the_winner_says_that_descriptions_did_not_help() -> None:
    text = note(report_of([PAPER, ALONE, DRAWN], [LOW, HIGH, MIDDLE]))
    assert text.startswith("**text alone won**")
    assert "the descriptions did not help" in text
    assert "**Over the paper's setting** (30.0 ± 1.0 %): +10.0 points" in text
    assert f"the best of what was searched, `{DRAWN.id}`" in text
    assert "Over text alone" not in text


def test_the_papers_setting_as_the_winner_is_held_against_the_best_of_the_search() -> None:
    text = note(report_of([PAPER, ALONE, DRAWN], [HIGH, LOW, MIDDLE]))
    assert text.startswith("**the paper's setting won**")
    assert "No other setting came out above it." in text
    assert "Over the paper's setting" not in text


def test_a_difference_within_the_noise_is_not_called_one() -> None:
    text = note(report_of([PAPER, ALONE, DRAWN], [(0.40, 0.36, 0.41), LOW, HIGH]))
    assert (
        "**Over the paper's setting** (39.0 ± 2.6 %): +1.0 points, but over 3 seeds the two cannot be told apart"
        in text
    )
    assert "a difference that holds over 3 seeds" in text


def test_one_seed_claims_nothing() -> None:
    text = note(report_of([PAPER, ALONE, DRAWN], [LOW[:1], MIDDLE[:1], HIGH[:1]], seeds=1))
    assert "over 1 seed." in text
    assert "no telling whether by chance" in text
    assert "may be a lucky seed" in text


def test_a_search_in_which_nothing_won_says_so() -> None:
    trials = [PAPER, DRAWN]
    results = [SeedResult(trial=t.id, seed=0, history=(), failure="out of memory") for t in trials]
    report = dataclasses.replace(report_of(trials, [(), ()]), standings=standings(trials, results, 3, 1))
    assert note(report).startswith("**Nothing won**: none of 2 trials ran 3 seeds to the end.")
    assert "out of memory" in note(report)


def test_what_was_not_among_the_trials_or_failed_is_not_compared() -> None:
    assert "**Over the paper's setting**: not known, it was not among the trials." in note(report_of([DRAWN], [HIGH]))
    report = report_of([PAPER, DRAWN], [(), HIGH])
    results = [*report.results, SeedResult(trial=PAPER.id, seed=0, history=(), failure="the loss is not finite")]
    broken = dataclasses.replace(report, standings=standings([PAPER, DRAWN], results, 3, 1))
    assert "it has no result (seed 0 failed: the loss is not finite)" in note(broken)


def test_a_winner_at_the_edge_says_which_range_to_widen_and_whereto() -> None:
    text = note(report_of([PAPER, a_trial("random", 9e-4)], [LOW, HIGH]))
    assert "`lr = 9e-4` lies at the upper end of what was searched (1e-5 to 0.001): widen it upwards" in text
    assert "lies at the" not in note(report_of([PAPER, DRAWN], [LOW, HIGH]))


@pytest.mark.parametrize(
    ("dimension", "value", "expected"),
    [
        (Dimension(name="lr", log=True, low=1e-5, high=1e-3), 1.1e-5, "lower"),
        (Dimension(name="lr", log=True, low=1e-5, high=1e-3), 6e-6, "lower"),
        (Dimension(name="lr", log=True, low=1e-5, high=1e-3), 1e-4, None),
        (Dimension(name="dropout", low=0.0, high=0.5), 0.5, "upper"),
        (Dimension(name="batch_size", choices=(16, 32, 64)), 64, "upper"),
        (Dimension(name="batch_size", choices=(16, 32)), 32, None),
        (Dimension(name="k", choices=(1, 2, 3)), 3, None),
        (Dimension(name="encoder", choices=("a", "b", "c")), "c", None),
        (Dimension(name="tau", log=True, low=0.1, high=5.0), None, None),
    ],
)
def test_edges_are_where_a_better_value_may_lie_beyond(dimension: Dimension, value: object, expected: str) -> None:
    assert edge(dimension, value) == expected


def test_an_axis_holds_every_value_even_outside_of_what_was_searched() -> None:
    trials = [Trial(settings={"lr": 6e-6, "k": 0}, origin="paper"), Trial(settings={"k": 3}, origin="random")]
    rates, aspects = axis_of(SPACE[0], trials), axis_of(SPACE[3], trials)
    assert (rates.low, rates.high, rates.share(6e-6), rates.share(1e-3)) == (6e-6, 1e-3, 0.0, 1.0)
    assert aspects.categories == (0, 1, 2, 3)
    assert rates.ticks()[0] == (6e-6, "6e-6")


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize(("low", "high"), [(1e-5, 1e-3), (0.1, 0.5), (2.0, 2.0), (0.03, 3000.0), (7.0, 7.1)])
def test_ticks_lie_within_the_axis_and_apart(low: float, high: float, log: bool) -> None:
    axis = Axis(name="x", log=log, low=low, high=high)
    shares = [axis.share_of(tick) for tick, _ in axis.ticks()]
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)
    assert all(later - earlier > 0.05 for earlier, later in itertools.pairwise(shares))


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-5, "1e-5"), (2.88e-4, "2.88e-4"), (0.03, "0.03"), (1.0, "1"), (32, "32"), (True, "True"), (None, "None")],
)
def test_settings_are_written_as_a_person_writes_them(value: object, text: str) -> None:
    assert written(value) == text


def test_a_report_has_all_its_files_and_they_open(tmp_path: Path) -> None:
    report = made_up_report()
    assert [path.name for path in write_report(tmp_path, report)] == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    for name in FILES[2:]:
        height, width = imread(tmp_path / name).shape[:2]
        assert width > 600, name
        assert height > 150, name


def test_the_page_holds_the_note_every_trial_and_four_plots_and_needs_nothing_else(tmp_path: Path) -> None:
    report = made_up_report()
    page = write_report(tmp_path, report)[0].read_text(encoding="utf-8")
    assert page.count("plotly.js v") == 1
    for name in ("parallel", "hyperparameters", "halving", "importance"):
        assert f'id="{name}"' in page
    assert page.count("<tr") == 1 + len(report.trials)
    assert not re.search(r'<(script|link|img|iframe)[^>]+(src|href)="', page)
    assert "default-src 'none'" in page


def test_nothing_is_offered_to_be_sent_to_somebody_elses_servers(tmp_path: Path) -> None:
    page = write_report(tmp_path, made_up_report())[0].read_text(encoding="utf-8")
    assert page.count('"showSendToCloud": false') == 4


ONE = report_of([DRAWN], [HIGH])
BROKEN = [SeedResult(trial=DRAWN.id, seed=0, history=(), failure="out of memory")]
ODD = {
    "one trial": ONE,
    "one seed": report_of([PAPER, ALONE, DRAWN], [LOW[:1], MIDDLE[:1], HIGH[:1]], seeds=1),
    "no dimension": dataclasses.replace(ONE, dimensions=()),
    "no result": dataclasses.replace(ONE, standings=standings([DRAWN], BROKEN, 3, 1), results=BROKEN),
    "all equal": report_of([PAPER, ALONE, DRAWN], [(0.3,) * 3] * 3),
    "nothing learned": report_of([PAPER, DRAWN], [(0.0,) * 3, (0.0,) * 3]),
}


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("case", ODD)
def test_a_report_is_written_whatever_came_of_the_search(case: str, tmp_path: Path) -> None:
    assert [path.name for path in write_report(tmp_path, ODD[case])] == FILES
    assert note(ODD[case])


def test_what_others_wrote_is_shown_and_not_followed(tmp_path: Path) -> None:
    hostile = a_trial("random", 2e-4, label=HOSTILE)
    base = report_of([PAPER, hostile, DRAWN], [LOW, HIGH, ()])
    results = [*base.results, SeedResult(trial=DRAWN.id, seed=0, history=(), failure=HOSTILE)]
    report = dataclasses.replace(
        base,
        name=HOSTILE,
        dataset=HOSTILE,
        standings=standings(base.trials, results, 3, 1),
        results=results,
        links={"bad": "javascript:alert(3)", HOSTILE: "https://example.org/?a=1&b=2"},
    )
    page = write_report(tmp_path, report)[0].read_text(encoding="utf-8")
    assert "<script>alert(1)" not in page
    assert "javascript:alert(3)" not in page
    assert 'href="javascript' not in page
    assert html.escape(HOSTILE) in page
    rendered = MarkdownIt("commonmark").enable("table").render(note(report))  # as a server that follows HTML would
    assert "<script" not in rendered
    assert "<strong>bold" not in rendered
    assert "<a " not in rendered


def test_the_table_has_a_row_per_trial_with_fractions_and_no_figure_rounded() -> None:
    report = made_up_report()
    rows = list(csv.DictReader(table_csv(report.standings).splitlines()))
    assert [row["trial"] for row in rows] == [standing.trial.id for standing in report.standings]
    assert float(rows[0]["dev_f1_mean"]) == report.standings[0].mean
    assert rows[0]["test_f1_mean"] != ""
    assert rows[-1]["dev_f1_mean"] == ""
    assert {"lr", "tau", "k", "dev_f1_seed_0", "dev_f1_seed_4", "dev_f1_lower", "reason"} <= rows[0].keys()


def test_no_window_system_is_touched(tmp_path: Path) -> None:
    sys.modules.pop("matplotlib.pyplot", None)
    write_report(tmp_path, report_of([PAPER, DRAWN], [LOW, HIGH]))
    assert "matplotlib.pyplot" not in sys.modules

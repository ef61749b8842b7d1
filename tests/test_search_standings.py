"""tune.standings: who wins a search, who cannot be told from the winner, and why the others went no further."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.made_up_search import made_up_report
from tune.ablation_table import ablation_csv, ablation_markdown, ablation_table, print_ablation
from tune.records import Origin, SeedResult, Trial
from tune.standings import best_of, differing, standings, winner
from tune.standings_print import print_standings


def trial(number: int, origin: Origin = "random", *, kept: bool = False, label: str = "") -> Trial:
    return Trial(settings={"lr": float(number)}, origin=origin, kept=kept, label=label)


def ran(of: Trial, *scores: float, stopped: bool = False) -> list[SeedResult]:
    return [
        SeedResult(trial=of.id, seed=seed, history=({"epoch": 1, "dev_f1": score},), stopped=stopped)
        for seed, score in enumerate(scores)
    ]


def failed(of: Trial, seed: int = 0, why: str = "out of memory") -> SeedResult:
    return SeedResult(trial=of.id, seed=seed, history=({"epoch": 1, "dev_f1": 0.9},), failure=why)


def test_a_lucky_seed_does_not_win() -> None:
    lucky, steady = trial(1), trial(2)
    results = [*ran(lucky, 0.53, 0.45, 0.45), *ran(steady, 0.47, 0.475, 0.468)]  # lucky has the better mean, too
    best = winner(standings([lucky, steady], results, 3, 1))
    assert best is not None
    assert best.trial == steady


def test_the_steadier_of_two_equal_means_wins() -> None:
    wild, steady = trial(1), trial(2)
    results = [*ran(wild, 0.43, 0.47, 0.51), *ran(steady, 0.469, 0.47, 0.471)]
    assert standings([wild, steady], results, 3, 1)[0].trial == steady


def test_the_lower_bound_finds_the_best_more_often_than_the_best_single_run() -> None:
    """24 configurations, one better by one and a half deviations; five seeds each, every noise of its own size."""
    numbers = np.random.default_rng(0)
    trials = [trial(number) for number in range(24)]
    by_bound = by_best_run = 0
    for _ in range(60):
        noise = 0.01 * np.exp(0.4 * numbers.standard_normal(24))
        scores = 0.45 + noise[:, None] * numbers.standard_normal((24, 5))
        scores[0] += 0.015
        results = [result for t, row in zip(trials, scores, strict=True) for result in ran(t, *row)]
        by_bound += standings(trials, results, 5, 1)[0].trial == trials[0]
        by_best_run += int(scores.max(axis=1).argmax()) == 0
    assert by_bound >= 40
    assert by_bound > 2 * by_best_run


@given(st.randoms(use_true_random=False))
def test_the_standings_do_not_depend_on_the_order_of_the_results(shuffler: random.Random) -> None:
    trials = [trial(number) for number in range(5)]
    results = [*ran(trials[0], 0.4, 0.5, 0.6), *ran(trials[1], 0.5, 0.5, 0.5), *ran(trials[2], 0.4)]
    results += [*ran(trials[3], 0.3, stopped=True), failed(trials[4])]
    expected = standings(trials, results, 3, 8)
    shuffler.shuffle(results)
    shuffled = list(trials)
    shuffler.shuffle(shuffled)
    assert standings(shuffled, results, 3, 8) == expected


def test_equal_trials_stand_in_the_order_of_their_ids() -> None:
    trials = [trial(number) for number in range(6)]
    results = [result for t in trials for result in ran(t, 0.5, 0.5)]
    assert [s.trial.id for s in standings(trials, results, 2, 1)] == sorted(t.id for t in trials)


def test_each_trial_says_why_it_went_no_further() -> None:
    paper, better, good, poor, slow, broken = (trial(n, kept=n == 0) for n in range(6))
    rates = [trial(10 + n, "text alone") for n in range(2)]
    results = [*ran(paper, 0.4, 0.4, 0.4), *ran(better, 0.5, 0.5, 0.51), *ran(good, 0.49, 0.48, 0.5)]
    results += [*ran(poor, 0.3), *ran(slow, 0.2, stopped=True), failed(broken, why="the loss is not finite")]
    results += [*ran(rates[0], 0.3), *ran(rates[1], 0.35, 0.35, 0.36)]
    listed = standings([paper, better, good, poor, slow, broken, *rates], results, 3, 8)
    assert {s.trial.id: (s.state, s.reason) for s in listed} == {
        better.id: ("winner", ""),
        good.id: ("finished", ""),
        paper.id: ("finished", ""),
        rates[1].id: ("finished", ""),
        poor.id: ("dropped", "not among the best 2 of 5 after 1 seed"),
        rates[0].id: ("dropped", "not the best of text alone after 1 seed"),
        slow.id: ("stopped", "stopped after epoch 1 of 8"),
        broken.id: ("failed", "seed 0 failed after epoch 1: the loss is not finite"),
    }
    assert [s.place for s in listed] == list(range(1, 9))
    assert [s.state for s in listed][-3:] == ["dropped", "stopped", "failed"]


def test_a_search_that_has_not_ended_drops_nobody() -> None:
    trials = [trial(0), trial(1), trial(2)]
    listed = standings(trials, [*ran(trials[0], 0.4), *ran(trials[1], 0.5)], 3, 8)
    assert [(s.state, s.reason) for s in listed] == [
        ("waiting", "1 of 3 seeds so far"),
        ("waiting", "1 of 3 seeds so far"),
        ("waiting", "not trained yet"),
    ]
    assert winner(listed) is None


def test_a_trial_of_which_a_seed_failed_does_not_win() -> None:
    fragile, sound = trial(0), trial(1)
    results = [*ran(fragile, 0.9, 0.9), failed(fragile, seed=2), *ran(sound, 0.4, 0.41, 0.42)]
    listed = standings([fragile, sound], results, 3, 1)
    assert [s.trial for s in listed] == [sound, fragile]
    assert listed[1].scores == {0: 0.9, 1: 0.9}
    assert listed[1].state == "failed"


def test_nothing_wins_where_all_failed() -> None:
    trials = [trial(0), trial(1)]
    assert winner(standings(trials, [failed(t) for t in trials], 1, 1)) is None
    assert winner(standings([], [], 1, 1)) is None


def test_with_one_seed_the_best_mean_wins_and_nothing_is_claimed() -> None:
    trials = [trial(0), trial(1)]
    first, second = standings(trials, [*ran(trials[0], 0.4), *ran(trials[1], 0.5)], 1, 1)
    assert (first.trial, first.state, first.lower, first.sd) == (trials[1], "winner", None, None)
    assert (second.p, second.close) == (None, False)


def test_close_is_what_the_seeds_do_not_tell_apart() -> None:
    best, near, far = trial(0), trial(1), trial(2)
    results = [*ran(best, 0.50, 0.51, 0.49), *ran(near, 0.495, 0.515, 0.486), *ran(far, 0.401, 0.412, 0.388)]
    listed = standings([best, near, far], results, 3, 1)
    assert [(s.trial, s.close) for s in listed] == [(best, True), (near, True), (far, False)]


def test_test_numbers_are_summed_up_by_metric() -> None:
    only = trial(0)
    [standing] = standings([only], ran(only, 0.4, 0.5), 2, 1, {only.id: {"f1": [0.4, 0.6], "acc": [0.5]}})
    assert standing.test == {"f1": (0.5, pytest.approx(0.1414, abs=1e-4)), "acc": (0.5, None)}


def test_a_result_of_another_search_or_a_seed_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="none of the 1 trials"):
        standings([trial(0)], ran(trial(1), 0.4), 1, 1)
    with pytest.raises(ValueError, match="two results of seed 0"):
        standings([trial(0)], ran(trial(0), 0.4) * 2, 1, 1)


def test_the_best_of_text_alone_is_the_one_that_stands_highest() -> None:
    first, second = trial(0, "text alone"), trial(1, "text alone")
    listed = standings([first, second], [*ran(first, 0.3), *ran(second, 0.4)], 1, 1)
    best = best_of(listed, "text alone")
    assert best is not None
    assert best.trial == second
    assert best_of(listed, "paper") is None


def test_only_settings_that_differ_are_shown() -> None:
    same = [Trial(settings={"lr": rate, "k": 2}, origin="random") for rate in (0.1, 0.2)]
    assert differing(same) == ["lr"]
    assert differing([*same, Trial(settings={"lr": 0.1}, origin="text alone")]) == ["lr", "k"]


def printed(width: int = 160) -> str:
    stream = io.StringIO()
    print_standings(made_up_report().standings, Console(file=stream, width=width), limit=8)
    return stream.getvalue()


def test_the_table_on_a_terminal_marks_what_is_close_and_says_what_it_leaves_out() -> None:
    lines = printed().splitlines()
    assert lines[0].split() == [
        "trial",
        "lr",
        "rank_weight",
        "tau",
        "k",
        "seeds",
        "dev",
        "F1",
        "%",
        "at",
        "least",
        "state",
    ]
    assert lines[1].split()[0] == "1"
    assert "winner" in lines[1]
    assert any(line.lstrip()[:3] == "2 ≈" for line in lines)
    assert "and 8 more" in lines
    assert all(len(line) <= 100 for line in printed(100).splitlines())


def test_words_of_others_are_not_followed_as_markup_on_a_terminal() -> None:
    marked, stream = trial(0, label="[red]me[/red]"), io.StringIO()
    print_standings(standings([marked], [failed(marked, why="[bold]no")], 1, 1), Console(file=stream, width=120))
    assert "[red]me[/red]: seed 0 failed after epoch 1: [bold]no" in stream.getvalue()


ROWS = [trial(n, "ablation", kept=True, label=label) for n, label in enumerate(("full", "no | ranking", "broken"))]
ABLATED = [*ran(ROWS[0], 0.50, 0.51, 0.52), *ran(ROWS[1], 0.48, 0.491, 0.499), failed(ROWS[2])]


def test_ablations_stand_in_the_order_given_against_the_full_method() -> None:
    full, less, broken = ablation_table(ROWS, ABLATED[::-1], full=ROWS[0].id, paper={ROWS[1].id: 57.1})
    assert (full.difference, full.p, full.paper) == (None, None, None)
    assert less.difference == pytest.approx(-0.02)
    assert less.p is not None
    assert less.p < 0.05
    assert less.paper == 57.1
    assert (broken.mean, broken.difference, broken.failure) == (None, None, "seed 0: out of memory")


def test_ablations_come_as_a_terminal_table_as_markdown_and_as_csv() -> None:
    rows = ablation_table(ROWS, ABLATED, full=ROWS[0].id, paper={ROWS[1].id: 57.1}, tested={ROWS[0].id: {"f1": [0.4]}})
    stream = io.StringIO()
    print_ablation(rows, Console(file=stream, width=120))
    assert "−2.0" in stream.getvalue()
    assert ablation_markdown(rows).splitlines()[3].startswith("| no \\| ranking | 3 | 49.0 ± 1.0 | −2.0 | ")
    assert ablation_csv(rows).splitlines()[1].startswith(f"{ROWS[0].id},full,3,0.51,")


def test_an_ablation_without_the_full_method_is_refused() -> None:
    with pytest.raises(ValueError, match="not among the trials"):
        ablation_table(ROWS[1:], ABLATED, full=ROWS[0].id)

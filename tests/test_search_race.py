"""Who goes on is decided by what was reported, not by when; a lucky seed does not win."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.race import Curve, Race, cuts, promoted, seeds_due, settled
from tune.records import SeedResult, Trial
from tune.scheduler import EpochRace
from tune.trial import RUN

RACE = Race(seeds=5, epochs=8, halving=3.0)


def drawn(number: int) -> list[Trial]:
    return [Trial(settings={"k": 3, "lr": index + 1}, origin="random") for index in range(number)]


PAPER = Trial(settings={"k": 3}, origin="paper", kept=True)
ALONE = [Trial(settings={"k": 0, "lr": rate}, origin="text alone") for rate in (0.1, 0.2)]


def result(trial: Trial, seed: int, *scores: float, failure: str | None = None) -> SeedResult:
    history = tuple({"epoch": e, "dev_f1": score} for e, score in enumerate(scores, 1))
    return SeedResult(trial=trial.id, seed=seed, history=history, failure=failure)


def flat(trial: Trial, seed: int, score: float) -> SeedResult:
    return result(trial, seed, *[score] * RACE.epochs)


@pytest.mark.parametrize(
    ("seeds", "rungs"), [(1, (1,)), (2, (1, 2)), (3, (1, 3)), (4, (1, 3, 4)), (5, (1, 3, 5)), (9, (1, 3, 5, 9))]
)
def test_seeds_are_raced_one_then_three_then_five(seeds: int, rungs: tuple[int, ...]) -> None:
    assert dataclasses.replace(RACE, seeds=seeds).seed_rungs == rungs


@pytest.mark.parametrize(("epochs", "rungs"), [(1, ()), (3, ()), (5, (2,)), (8, (3,)), (20, (3, 7)), (100, (12, 34))])
def test_epochs_are_raced_at_a_ninth_and_a_third_but_never_at_the_first(epochs: int, rungs: tuple[int, ...]) -> None:
    assert dataclasses.replace(RACE, epochs=epochs).epoch_rungs == rungs


def test_without_halving_nobody_is_stopped_or_dropped() -> None:
    race = dataclasses.replace(RACE, halving=1.0)
    trials = drawn(6)
    results = [flat(t, 0, i / 10) for i, t in enumerate(trials)]
    assert race.epoch_rungs == ()
    assert {t.id for t, _ in seeds_due(trials, results, race)} == {t.id for t in trials}


def test_a_first_seed_below_the_best_third_of_those_before_it_is_stopped() -> None:
    trials = drawn(3)
    curves = {
        t.id: Curve(scores=(0.1, 0.1, score), ended=False) for t, score in zip(trials, (0.5, 0.4, 0.6), strict=True)
    }
    assert cuts(trials, curves, RACE) == {trials[1].id: 3}


def test_a_run_is_not_judged_before_those_in_front_of_it_have_come_to_its_rung() -> None:
    trials = drawn(3)
    curves = {
        trials[0].id: Curve(scores=(0.5, 0.5), ended=False),
        trials[1].id: Curve(scores=(0.1, 0.1, 0.1, 0.1), ended=False),
    }
    assert cuts(trials, curves, RACE) == {}
    curves[trials[0].id] = Curve(scores=(0.5, 0.5, 0.5), ended=False)
    assert cuts(trials, curves, RACE) == {trials[1].id: 3}


def test_one_that_fails_holds_up_nobody_and_is_judged_by_nobody() -> None:
    trials = drawn(2)
    curves = {
        trials[0].id: Curve(scores=(0.9, 0.9), ended=True, failed=True),
        trials[1].id: Curve(scores=(0.1, 0.1, 0.1), ended=False),
    }
    assert cuts(trials, curves, RACE) == {}


def test_one_out_of_patience_stands_at_the_rungs_that_it_did_not_come_to() -> None:
    trials = drawn(2)
    curves = {
        trials[0].id: Curve(scores=(0.9, 0.8), ended=True),
        trials[1].id: Curve(scores=(0.1, 0.1, 0.1), ended=False),
    }
    assert cuts(trials, curves, RACE) == {trials[1].id: 3}


def test_the_papers_setting_is_never_stopped_and_text_alone_is_raced_against_text_alone() -> None:
    first = drawn(1)[0]
    trials = [first, PAPER, *ALONE]
    scores = dict(zip((t.id for t in trials), (0.9, 0.1, 0.2, 0.3), strict=True))
    curves = {id_: Curve(scores=(s, s, s), ended=False) for id_, s in scores.items()}
    assert cuts(trials, curves, RACE) == {}  # the second of text alone is the better one, and the first came first
    curves[ALONE[1].id] = Curve(scores=(0.1, 0.1, 0.1), ended=False)
    assert cuts(trials, curves, RACE) == {ALONE[1].id: 3}


@given(
    scores=st.lists(st.lists(st.floats(0, 1), min_size=8, max_size=8), min_size=1, max_size=12),
    order=st.randoms(use_true_random=False),
)
def test_whatever_order_reports_come_in_the_same_runs_are_stopped_at_the_same_epochs(
    scores: list[list[float]], order: np.random.Generator
) -> None:
    race = Race(seeds=1, epochs=8, halving=2.0)
    trials = drawn(len(scores))
    whole = settled(trials, [result(t, 0, *row) for t, row in zip(trials, scores, strict=True)], race)
    stopped = {r.trial: r.epochs for r in whole if r.stopped}

    # Runs advance one epoch at a time in any order, each until the scheduler says stop or its end.
    reached = dict.fromkeys((t.id for t in trials), 0)
    rows = {t.id: row for t, row in zip(trials, scores, strict=True)}
    running = [t.id for t in trials]
    while running:
        id_ = order.choice(running)
        reached[id_] += 1
        curves = {i: Curve(scores=tuple(rows[i][:n]), ended=n == 8) for i, n in reached.items() if n}
        stop = cuts(trials, curves, race)
        assert stop.items() <= stopped.items()  # nobody is stopped who would not be in the end
        running = [i for i in running if i not in stop and reached[i] < 8]
    trained = [result(t, 0, *rows[t.id][: reached[t.id]]) for t in trials]
    assert [(r.epochs, r.stopped, r.dev_f1) for r in settled(trials, trained, race)] == [
        (r.epochs, r.stopped, r.dev_f1) for r in whole
    ]


def test_what_was_trained_beyond_the_stop_does_not_count() -> None:
    first, second = drawn(2)
    counted = settled([first, second], [flat(first, 0, 0.5), result(second, 0, 0.1, 0.1, 0.1, 0.9)], RACE)
    assert counted[1].dev_f1 == 0.1
    assert counted[1].stopped
    assert counted[1].epochs == 3


def test_a_failure_behind_the_stop_does_not_count_either() -> None:
    first, second = drawn(2)
    late = result(second, 0, 0.1, 0.1, 0.1, failure="the loss is not finite")
    assert settled([first, second], [flat(first, 0, 0.5), late], RACE)[1].failure is None


def test_a_rung_begins_when_all_of_the_one_before_have_ended() -> None:
    trials = drawn(9)
    results = [flat(t, 0, 0.5) for t in trials[:-1]]
    assert seeds_due(trials, results, RACE) == [(trials[-1], 0)]


def test_a_third_goes_on_to_three_seeds_and_a_third_of_those_to_five() -> None:
    trials = drawn(9)
    results = [flat(t, 0, i / 10) for i, t in enumerate(trials)]
    due = seeds_due(trials, results, RACE)
    assert due == [(t, s) for t in trials[6:] for s in (1, 2)]
    results += [flat(t, s, 0.5 + i / 100) for i, t in enumerate(trials[6:]) for s in (1, 2)]
    assert seeds_due(trials, results, RACE) == [(trials[8], 3), (trials[8], 4)]
    results += [flat(trials[8], s, 0.5) for s in (3, 4)]
    assert seeds_due(trials, results, RACE) == []


def test_a_lucky_first_seed_is_found_out_by_the_next_seeds() -> None:
    trials = drawn(9)
    lucky, steady = trials[0], trials[1]
    results = [flat(t, 0, 0.2) for t in trials[2:]] + [flat(lucky, 0, 0.9), flat(steady, 0, 0.6)]
    results += [flat(lucky, s, 0.3) for s in (1, 2)] + [flat(steady, s, 0.6) for s in (1, 2)]
    third = next(t for t, _ in seeds_due(trials, results, RACE))
    results += [flat(third, s, 0.2) for s in (1, 2)]
    assert [t.id for t, _ in seeds_due(trials, results, RACE)] == [steady.id, steady.id]


def test_the_papers_setting_and_the_best_of_text_alone_get_every_seed() -> None:
    trials = [PAPER, *ALONE, *drawn(3)]
    results = [flat(t, 0, score) for t, score in zip(trials, (0.1, 0.2, 0.3, 0.7, 0.8, 0.9), strict=True)]
    kept = promoted(trials, trials, results, RACE, 1)
    assert [t.id for t in kept] == [PAPER.id, ALONE[1].id, trials[-1].id]


def test_a_trial_of_which_a_seed_failed_gets_no_more_seeds() -> None:
    trials = drawn(3)
    results = [flat(trials[0], 0, 0.5), flat(trials[1], 0, 0.6), result(trials[2], 0, failure="memory ran out")]
    assert {t.id for t, _ in seeds_due(trials, results, RACE)} == {trials[1].id}


def test_seeds_are_counted_from_the_first() -> None:
    race = dataclasses.replace(RACE, seeds=2, first_seed=7)
    trial = drawn(1)
    assert seeds_due(trial, [], race) == [(trial[0], 7)]
    assert seeds_due(trial, [flat(trial[0], 7, 0.5)], race) == [(trial[0], 8)]


def test_the_same_settings_have_the_same_id_whatever_their_order() -> None:
    one = Trial(settings={"k": 3, "lr": 1e-4}, origin="random")
    other = Trial(settings={"lr": 1e-4, "k": 3}, origin="grid")
    assert one.id == other.id != Trial(settings={"k": 2, "lr": 1e-4}, origin="random").id


# ---- as Tune's scheduler -------------------------------------------------------------------------------------------


def in_tune(run: str) -> Any:
    return SimpleNamespace(config={RUN: run})


def test_a_run_that_tune_tries_again_still_holds_up_the_decision_on_those_behind_it() -> None:
    first, second = drawn(2)
    race = EpochRace([first, second], {}, {"first": first.id, "second": second.id}, RACE)
    low = {"history": [{"dev_f1": score} for score in (0.1, 0.1, 0.1)]}
    race.on_trial_result(None, in_tune("first"), {"history": [{"dev_f1": 0.9}]})
    race.on_trial_error(None, in_tune("first"))  # as Tune says it of one whose node is gone
    race.on_trial_add(None, in_tune("first"))
    assert race.on_trial_result(None, in_tune("second"), low) == "CONTINUE"
    race.on_trial_result(None, in_tune("first"), {"history": [{"dev_f1": 0.9}] * 3})
    assert race.on_trial_result(None, in_tune("second"), low) == "STOP"


def test_a_run_that_failed_for_good_holds_up_nobody_behind_it() -> None:
    first, second, third = drawn(3)
    race = EpochRace([first, second, third], {}, {t.id: t.id for t in (first, second, third)}, RACE)
    race.on_trial_result(None, in_tune(second.id), {"history": [{"dev_f1": 0.9}] * 3})
    low = {"history": [{"dev_f1": 0.1}] * 3}
    assert race.on_trial_result(None, in_tune(third.id), low) == "CONTINUE"
    race.failed(first.id)
    assert race.on_trial_result(None, in_tune(third.id), low) == "STOP"

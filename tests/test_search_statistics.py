"""tune.stats and tune.importance: what a few seeds say about a mean, about a difference, and about a hyperparameter."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.made_up_search import SPACE, draw_trials, train
from tune.importance import MIN_TRIALS, importance
from tune.records import SeedResult
from tune.stats import Noise, lower_bound, mean, moderated_variance, paired_p, pooled_noise, sd

fractions = st.floats(0, 1, allow_nan=False)
several = st.lists(fractions, min_size=2, max_size=5)


def test_mean_and_deviation_are_those_of_numpy() -> None:
    scores = [0.41, 0.45, 0.40, 0.47]
    assert mean(scores) == pytest.approx(np.mean(scores))
    assert sd(scores) == pytest.approx(np.std(scores, ddof=1))


def test_one_seed_has_a_mean_and_no_deviation() -> None:
    assert (mean([0.4]), sd([0.4])) == (0.4, None)


def test_a_mean_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no score"):
        mean([])


def test_noise_is_pooled_within_configurations_not_between_them() -> None:
    noise = pooled_noise([[0.10, 0.12], [0.80, 0.82, 0.84], [0.5]])
    assert noise is not None
    assert noise.variance == pytest.approx((0.0002 + 0.0008) / 3)
    assert noise.df == 3


def test_noise_is_not_known_where_no_configuration_has_two_seeds() -> None:
    assert pooled_noise([[0.4], [0.5], []]) is None
    assert lower_bound([0.4], None) is None


def test_a_variance_is_drawn_towards_the_shared_one_as_smyth_does() -> None:
    noise = Noise(variance=4e-4, df=20)
    variance, df = moderated_variance([0.40, 0.42, 0.44], noise)
    assert variance == pytest.approx((4 * 4e-4 + 2 * 4e-4) / 6)
    assert df == 4 + 2
    agreeing, _ = moderated_variance([0.42, 0.42, 0.42], noise)
    assert agreeing == pytest.approx(4 * 4e-4 / 6)


def test_few_seeds_in_all_weigh_no_more_than_they_are() -> None:
    assert moderated_variance([0.40, 0.42], Noise(variance=1e-4, df=1))[1] == 2


def test_three_seeds_that_happen_to_agree_are_not_certain() -> None:
    others = [[0.40, 0.42, 0.44], [0.39, 0.41, 0.43]]
    agreeing = [0.42, 0.42, 0.42]
    bound = lower_bound(agreeing, pooled_noise([*others, agreeing]))
    assert bound is not None
    assert bound < 0.41


def test_the_bound_lies_under_the_true_mean_nineteen_times_in_twenty() -> None:
    random = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        scores = [list(0.45 + 0.01 * random.standard_normal(3)) for _ in range(8)]
        noise = pooled_noise(scores)
        held += sum((lower_bound(values, noise) or 1.0) < 0.45 for values in scores)
    # Not quite 0.95: four degrees of freedom are fewer than eight configurations give, so that the bound is careful.
    assert 0.94 < held / 3200 < 0.985


@given(st.lists(several, min_size=1, max_size=6))
def test_a_bound_never_lies_above_its_mean(scores: list[list[float]]) -> None:
    noise = pooled_noise(scores)
    for values in scores:
        bound = lower_bound(values, noise)
        assert bound is not None
        assert bound <= mean(values) + 1e-12


def test_seeds_are_paired_by_their_number() -> None:
    good, bad = {0: 0.50, 1: 0.40, 2: 0.45}, {2: 0.441, 0: 0.490, 1: 0.391}
    p = paired_p(good, bad)
    assert p is not None
    assert p < 0.01  # a hundredth below in every seed, though the seeds differ by ten hundredths
    assert paired_p(good, {7: 0.1, 2: 0.4}) is None


def test_differences_that_are_all_the_same_are_no_division_by_zero() -> None:
    scores = {0: 0.1, 1: 0.2, 2: 0.3}
    assert paired_p(scores, scores) == 1.0
    assert paired_p(scores, {seed: score + 0.1 for seed, score in scores.items()}) == 0.0


@given(several, several)
def test_a_p_is_a_probability_and_the_same_both_ways(first: list[float], second: list[float]) -> None:
    one, other = dict(enumerate(first)), dict(enumerate(second))
    p, again = paired_p(one, other), paired_p(other, one)
    assert p is not None
    assert again is not None
    assert 0 <= p <= 1
    assert math.isclose(p, again, abs_tol=1e-9)


def test_the_setting_that_matters_comes_first_and_shares_add_up() -> None:
    trials = draw_trials(30)
    shares = importance(trials, [train(trial, 0, 4) for trial in trials], SPACE)
    assert next(iter(shares)) == "lr"
    assert set(shares) == {"lr", "rank_weight", "tau", "k"}
    assert sum(shares.values()) == pytest.approx(1)


def test_a_log_range_counts_in_all_its_decades() -> None:
    """What the learning rate does, it does below 1e-4 here; of an even range that would be the lowest tenth."""
    trials = [t for t in draw_trials(60) if t.origin == "random"]
    scores = [min(0.4, 0.4 + 0.1 * (math.log10(t.settings["lr"]) + 4)) + 0.01 * t.settings["tau"] for t in trials]
    results = [SeedResult(trial=t.id, seed=0, history=({"dev_f1": s},)) for t, s in zip(trials, scores, strict=True)]
    assert importance(trials, results, SPACE)["lr"] > 0.6


def test_importance_is_the_same_every_time_whatever_the_order_of_results() -> None:
    trials = draw_trials(12)
    results = [train(trial, seed, 3) for trial in trials for seed in (0, 1)]
    assert importance(trials, results, SPACE) == importance(trials, results[::-1], SPACE)


def test_importance_is_not_told_from_a_handful_of_trials() -> None:
    trials = [trial for trial in draw_trials(MIN_TRIALS) if trial.origin == "random"][: MIN_TRIALS - 1]
    assert importance(trials, [train(trial, 0, 3) for trial in trials], SPACE) == {}


def test_importance_is_not_told_where_all_trials_came_out_equal() -> None:
    trials = draw_trials(10)
    results = [dataclasses.replace(train(t, 0, 1), history=({"epoch": 1, "dev_f1": 0.4},)) for t in trials]
    assert importance(trials, results, SPACE) == {}


def test_importance_says_nothing_and_leaves_the_logging_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    import optuna

    before = optuna.logging.get_verbosity()
    trials = draw_trials(10)
    importance(trials, [train(trial, 0, 2) for trial in trials], SPACE)
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == before

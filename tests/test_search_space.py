"""A space is data, checked before anything starts; what is proposed from it depends on the seed alone."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from lgsrr.config import TrainConfig, iemocap_da, mintrec2
from lgsrr.errors import ConfigError
from tune.proposals import GENERATION, propose, standing_trials
from tune.space import Dimension, apply, check_space, default_space, grid, read_space

BASE = mintrec2()
FROZEN = dataclasses.replace(BASE, trainable_layers=0)


def written(folder: Path, text: str, name: str = "space.toml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_a_space_of_toml_and_one_of_json_are_the_same(tmp_path: Path) -> None:
    toml = read_space(
        written(tmp_path, "[lr]\nlog = [1e-5, 1e-3]\ngrid = 4\n[k]\nchoices = [1, 3]\n[dropout]\nuniform = [0.1, 0.5]")
    )
    table = {"lr": {"log": [1e-5, 1e-3], "grid": 4}, "k": {"choices": [1, 3]}, "dropout": {"uniform": [0.1, 0.5]}}
    assert read_space(written(tmp_path, json.dumps(table), "space.json")) == toml
    assert toml[0] == Dimension(name="lr", log=True, low=1e-5, high=1e-3, points=4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[learning_rate]\nlog = [1e-5, 1e-3]", "learning_rate cannot be searched: no field of the training settings"),
        ("[epochs]\nchoices = [1, 2]", "epochs cannot be searched: it says where or how long a run goes"),
        ("[lr]\nlog = [1e-3, 1e-5]", "the range from 0.001 to 1e-05 is empty"),
        ("[lr]\nlog = [1e-3, 1e-3]", "is empty"),
        ("[lr]\nlog = [0, 1]", "a log range from 0 is not possible"),
        ("[lr]\nlog = [1]", "expected two numbers"),
        ('[lr]\nlog = ["a", "b"]', "expected two numbers"),
        ("[k]\nchoices = []", "a list with one value or more"),
        ("[k]\nvalues = [1]", "expected one of log"),
        ("[lr]\nlog = [1e-5, 1e-3]\nuniform = [1, 2]", "expected one of log"),
        ("[lr]\nlog = [1e-5, 1e-3]\ngrid = 0", "1 or more"),
        ("lr = 3", "expected one of log"),
        ("", "names no field"),
        ("[lr", "is no TOML"),
    ],
)
def test_a_space_that_cannot_be_names_the_field_and_what_was_expected(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_space(written(tmp_path, text))
    assert words in str(caught.value)
    assert "space.toml" in str(caught.value)


def test_a_misspelled_field_is_guessed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rank_weight"):
        read_space(written(tmp_path, "[rank_wieght]\nlog = [0.1, 1]"))


def test_k_beyond_the_data_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match=r"k = 4, but mintrec2 has 3 aspects; use 3 or less"):
        check_space((Dimension(name="k", choices=(1, 4)),), BASE, 3)


def test_a_value_that_no_run_can_have_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match=r"dropout is 1\.5"):
        check_space((Dimension(name="dropout", low=0.1, high=1.5),), BASE, 3)


def test_ranges_lie_around_the_papers_values_for_each_dataset() -> None:
    for base in (mintrec2("bert-large-uncased"), iemocap_da("bert-large-uncased")):
        by_name = {d.name: d for d in default_space(base, 3)}
        assert set(by_name) == {"lr", "rank_weight", "tau", "k"}
        for name in ("lr", "rank_weight", "tau"):
            low, high = by_name[name].low, by_name[name].high
            assert low is not None
            assert high is not None
            assert low < getattr(base, name) < high
            assert by_name[name].log
        assert by_name["k"].choices == (1, 2, 3)


def test_k_that_is_given_is_not_searched() -> None:
    assert "k" not in {d.name for d in default_space(dataclasses.replace(BASE, k=2), 3)}


def test_without_a_trained_layer_rates_are_higher() -> None:
    trained, frozen = (default_space(base, 3)[0] for base in (BASE, FROZEN))
    assert trained.high is not None
    assert frozen.high is not None
    assert frozen.high > 10 * trained.high


def test_a_log_range_is_drawn_evenly_in_its_logarithm() -> None:
    dimension = Dimension(name="lr", log=True, low=1e-5, high=1e-1)
    random = np.random.default_rng(0)
    drawn = np.log10([dimension.draw(random) for _ in range(4000)])
    counts, _ = np.histogram(drawn, bins=4, range=(-5, -1))
    assert abs(counts - 1000).max() < 120
    assert dimension.grid() == (1e-5, 1e-3, 1e-1)


def test_a_whole_field_is_drawn_whole() -> None:
    (dimension,) = (Dimension(name="batch_size", log=True, low=8, high=64, whole=True),)
    assert all(isinstance(dimension.draw(np.random.default_rng(i)), int) for i in range(20))


def test_a_grid_has_every_combination() -> None:
    space = (Dimension(name="lr", choices=(1, 2)), Dimension(name="tau", low=0.1, high=1.0, log=True, points=2))
    assert grid(space) == [{"lr": 1, "tau": 0.1}, {"lr": 1, "tau": 1.0}, {"lr": 2, "tau": 0.1}, {"lr": 2, "tau": 1.0}]


def test_a_grid_is_searched_in_an_order_of_chance_that_the_seed_decides() -> None:
    space = (Dimension(name="lr", choices=(1e-4, 1e-3, 1e-2)), Dimension(name="tau", choices=(0.1, 0.3, 1.0, 3.0)))
    first, again, other = (
        [
            t.settings
            for t in propose("grid", space, dataclasses.replace(FROZEN, seed=s), 3, 12, {})
            if t.origin == "grid"
        ]
        for s in (0, 0, 1)
    )
    assert first == again != other
    points = [{**point, "k": 3} for point in grid(space)]
    assert first != points
    assert len(first) == len(points)
    assert all(point in first for point in points)


@pytest.mark.parametrize("algorithm", ["random", "grid", "tpe"])
def test_the_papers_setting_and_text_alone_are_always_tried(algorithm: str) -> None:
    trials = propose(algorithm, default_space(FROZEN, 3), FROZEN, 3, 12, {})  # type: ignore[arg-type]
    assert trials[0].origin == "paper"
    assert trials[0].kept
    assert apply(trials[0].settings, FROZEN) == dataclasses.replace(FROZEN, k=3, lr=trials[0].settings["lr"])
    alone = [t for t in trials if t.origin == "text alone"]
    assert len({t.settings["lr"] for t in alone}) == 3
    assert {t.settings["k"] for t in alone} == {0}


def test_the_papers_setting_has_the_papers_rate_but_where_no_layer_is_trained() -> None:
    assert standing_trials(default_space(BASE, 3), BASE, 3, 12)[0].settings == {"k": 3}
    low, high = default_space(FROZEN, 3)[0].low, default_space(FROZEN, 3)[0].high
    assert low is not None
    assert high is not None
    assert standing_trials(default_space(FROZEN, 3), FROZEN, 3, 12)[0].settings["lr"] == pytest.approx(
        (low * high) ** 0.5, 0.01
    )


def test_as_many_trials_as_asked_for_no_two_the_same_and_the_first_of_more() -> None:
    space = default_space(FROZEN, 3)
    few, many = (propose("random", space, FROZEN, 3, n, {}) for n in (16, 40))
    assert (len(few), len(many)) == (16, 40)
    assert len({t.id for t in many}) == 40
    assert [t.id for t in few[5:]] == [t.id for t in many[5:16]]


def test_another_seed_draws_other_trials() -> None:
    space = default_space(FROZEN, 3)
    one, other = (propose("random", space, dataclasses.replace(FROZEN, seed=s), 3, 12, {}) for s in (0, 1))
    assert {t.id for t in one[4:]}.isdisjoint(t.id for t in other[4:])


def test_a_space_with_fewer_points_than_trials_gives_what_it_has() -> None:
    trials = propose("random", (Dimension(name="k", choices=(1, 2)),), BASE, 3, 20, {})
    assert sorted(t.settings["k"] for t in trials) == [0, 1, 2, 3]


def test_too_few_trials_for_those_that_are_always_tried_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"trials is 1; expected 2 or more, because the paper's setting, text alone"):
        propose("random", default_space(BASE, 3), BASE, 3, 1, {})


def test_data_without_aspects_have_text_alone_only() -> None:
    assert {t.origin for t in standing_trials(default_space(BASE, 0), BASE, 0, 12)} == {"text alone"}


def lr_is_all(settings: dict[str, float]) -> float:
    return -abs(math.log(settings.get("lr", 1e-4) / 3e-3))


def test_tpe_waits_for_a_generation_and_then_looks_where_it_was_good() -> None:
    space = default_space(FROZEN, 3)
    scores: dict[str, float] = {}
    counts = []
    while len(trials := propose("tpe", space, FROZEN, 3, 44, scores)) < 44:
        counts.append(len(trials))
        scores |= {t.id: lr_is_all(t.settings) for t in trials}
    assert counts == [5 + GENERATION * n for n in range(1, 5)]
    first, last = trials[5 : 5 + GENERATION], trials[-GENERATION:]
    assert np.mean([lr_is_all(t.settings) for t in last]) > np.mean([lr_is_all(t.settings) for t in first])


def test_what_tpe_proposes_does_not_depend_on_the_order_in_which_scores_came() -> None:
    space = default_space(FROZEN, 3)
    scores = {t.id: lr_is_all(t.settings) for t in propose("tpe", space, FROZEN, 3, 30, {})}
    backwards = dict(reversed(scores.items()))
    assert propose("tpe", space, FROZEN, 3, 30, scores) == propose("tpe", space, FROZEN, 3, 30, backwards)


def test_a_setting_that_no_run_has_is_an_error_of_the_configuration() -> None:
    with pytest.raises(ConfigError, match="does not fit"):
        apply({"nonsense": 1}, TrainConfig(dataset="sample"))

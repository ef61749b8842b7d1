"""Which configurations are tried: those that are always tried, and those that an algorithm proposes.

The paper's own setting and text alone are in every search, because what it finds is held against them. What an
algorithm proposes is a function of the search's seed and, for `tpe`, of what the trials before have shown: it asks in
generations of a fixed size, so that neither the number of machines nor a resume changes what is proposed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from lgsrr.config import TrainConfig
from lgsrr.errors import ConfigError
from tune.records import Origin, Settings, Trial
from tune.space import Dimension, Space, grid

Algorithm = Literal["random", "grid", "tpe"]
GENERATION = 8
"""Proposals of `tpe` that are made at once; the next ones wait for what these show."""
_TRIES = 50


def standing_trials(space: Space, base: TrainConfig, num_aspects: int, trials: int) -> list[Trial]:
    """The paper's setting, and text alone at rates spread over the range: one for four trials, four at most.

    The paper trains the whole encoder. Where none of it is trained, its λ, τ and K are tried at a rate that fits: the
    middle of the range.
    """
    settings: Settings = {"k": num_aspects}
    for dimension in space:
        if dimension.name == "lr" and base.trainable_layers == 0:
            settings["lr"] = _spread(dimension, 1)[0]
    paper = Trial(settings=_plain(settings, base), origin="paper", label="the paper's setting", kept=True)
    rates: list[Any] = [base.lr]
    for dimension in space:
        if dimension.name == "lr":
            rates = _spread(dimension, max(1, min(4, trials // 4)))
    alone = [_alone({"lr": rate}, base) for rate in rates]
    return [paper, *alone] if num_aspects else alone


def _alone(settings: Settings, base: TrainConfig) -> Trial:
    plain = _plain({"k": 0, **settings}, base)
    return Trial(settings=plain, origin="text alone", label=f"text alone, lr {plain.get('lr', base.lr):g}")


def _plain(settings: Settings, base: TrainConfig) -> Settings:
    """Without what `base` says already; K always stays."""
    return {name: value for name, value in settings.items() if name == "k" or value != getattr(base, name)}


def _spread(dimension: Dimension, count: int) -> list[Any]:
    """So many values of a dimension, in the middles of as many equal parts of it."""
    if dimension.choices is not None:
        return list(dimension.choices[:count])
    assert dimension.low is not None
    assert dimension.high is not None
    low, high = (
        (math.log(dimension.low), math.log(dimension.high)) if dimension.log else (dimension.low, dimension.high)
    )
    middles = [low + (high - low) * (i + 0.5) / count for i in range(count)]
    return [dimension.fit(math.exp(m) if dimension.log else m) for m in middles]


def propose(
    algorithm: Algorithm,
    space: Space,
    base: TrainConfig,
    num_aspects: int,
    trials: int,
    scores: Mapping[str, float],
) -> list[Trial]:
    """The trials of a search, in its order, as far as they can be known.

    Args:
        trials: how many in all; a grid has as many as it has points, and those that are always there.
        scores: what the first seed of a trial came to, by id; missing where it has not ended. Only `tpe` asks.

    Raises:
        ConfigError: no room is left beside the trials that are always there.
    """
    found = standing_trials(space, base, num_aspects, trials)
    if algorithm == "grid":
        points = grid(space)
        # The race over epochs holds a trial against those before it: in the grid's own order each would meet its like.
        order = np.random.default_rng([base.seed, 5]).permutation(len(points))
        _add(found, [_trial(points[place], base, num_aspects, "grid") for place in order])
        return found
    if trials < len(found):
        always = ", ".join(trial.label for trial in found)
        raise ConfigError(f"trials is {trials}; expected {len(found)} or more, because {always} are always tried")
    if algorithm == "random":
        _add_random(found, space, base, num_aspects, trials)
    else:
        _add_by_tpe(found, space, base, num_aspects, trials, scores)
    return found


def _trial(settings: Settings, base: TrainConfig, num_aspects: int, origin: Origin) -> Trial:
    k = settings.get("k", num_aspects if base.k is None else base.k)
    return Trial(settings={**settings, "k": k}, origin=origin)


def _add(found: list[Trial], more: Sequence[Trial]) -> None:
    known = {trial.id for trial in found}
    for trial in more:
        if trial.id not in known:
            known.add(trial.id)
            found.append(trial)


def _add_random(found: list[Trial], space: Space, base: TrainConfig, num_aspects: int, trials: int) -> None:
    random = np.random.default_rng([base.seed, 5])
    for _ in range(trials * _TRIES):  # a space of few choices may have no more to give
        if len(found) >= trials:
            return
        _add(found, [_trial({d.name: d.draw(random) for d in space}, base, num_aspects, "random")])


def _add_by_tpe(
    found: list[Trial], space: Space, base: TrainConfig, num_aspects: int, trials: int, scores: Mapping[str, float]
) -> None:
    searcher = _searcher(space, base.seed)
    tries = 0
    while len(found) < trials:
        generation: list[tuple[str, Trial]] = []
        size = min(GENERATION, trials - len(found))
        while len(generation) < size and tries < trials * _TRIES:
            tries += 1
            name = f"proposal-{tries}"
            trial = _trial(_read(searcher.suggest(name), space), base, num_aspects, "tpe")
            before = len(found)
            _add(found, [trial])
            if len(found) > before:
                generation.append((name, trial))
        if not generation or any(trial.id not in scores for _, trial in generation):
            return  # the next generation waits for these
        for name, trial in generation:
            searcher.on_trial_complete(name, {_METRIC: scores[trial.id]})


_METRIC = "dev_f1"


def _searcher(space: Space, seed: int) -> Any:
    """Optuna's TPE behind Ray Tune's interface."""
    import logging

    import optuna
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("ray.tune.search.optuna").setLevel(logging.ERROR)

    def domain(dimension: Dimension) -> Any:
        if dimension.choices is not None:
            return tune.choice(list(range(len(dimension.choices))))
        return (tune.loguniform if dimension.log else tune.uniform)(dimension.low, dimension.high)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it calls experimental is what we ask for
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=GENERATION)
    return OptunaSearch({d.name: domain(d) for d in space}, metric=_METRIC, mode="max", sampler=sampler)


def _read(suggestion: Mapping[str, Any], space: Space) -> Settings:
    """A suggestion as settings: choices are suggested by their place."""
    return {d.name: d.fit(suggestion[d.name]) if d.choices is None else d.choices[suggestion[d.name]] for d in space}

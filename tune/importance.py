"""How much of what was seen each hyperparameter explains: Optuna's fANOVA (Hutter et al. 2014) over a search's trials.

A trial counts with the mean of the seeds that it has, and one that was stopped early with what it had by then; so a
hyperparameter that makes a bad start counts for a little more than it should. Text alone is left out: it has neither λ
nor τ, and what it lacks are the descriptions, not a setting.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tune.axes import Dimension
from tune.records import SeedResult, Trial
from tune.stats import mean

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

MIN_TRIALS = 6
"""With fewer, the shares are about chance."""
_NO_SPREAD = 1e-9


def importance(
    trials: Sequence[Trial], results: Sequence[SeedResult], dimensions: Sequence[Dimension]
) -> dict[str, float]:
    """Share of each hyperparameter, the largest first, together 1; empty with too few trials or where all are equal."""
    scored = [(trial.settings, score) for trial, score in _scored(trials, results, dimensions)]
    values = [score for _, score in scored]
    if len(scored) < MIN_TRIALS or max(values) - min(values) < _NO_SPREAD or not dimensions:
        return {}
    import optuna

    with _quiet():
        study = optuna.create_study(direction="maximize")
        space = {d.name: _distribution(d, [settings[d.name] for settings, _ in scored]) for d in dimensions}
        for settings, score in scored:
            params = {d.name: _value(d, settings[d.name]) for d in dimensions}
            study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=score))
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in sorted(shares.items(), key=lambda item: (-item[1], item[0]))}


def _scored(
    trials: Sequence[Trial], results: Sequence[SeedResult], dimensions: Sequence[Dimension]
) -> Iterator[tuple[Trial, float]]:
    """Trials with a score and a value on every dimension, in the order of the search."""
    scores: dict[str, list[float]] = {}
    for result in sorted(results, key=lambda r: (r.trial, r.seed)):
        if result.dev_f1 is not None:
            scores.setdefault(result.trial, []).append(result.dev_f1)
    for trial in trials:
        whole = all(d.name in trial.settings for d in dimensions) and trial.origin != "text alone"
        if whole and trial.id in scores:
            yield trial, mean(scores[trial.id])


def _distribution(dimension: Dimension, values: Sequence[Any]) -> BaseDistribution:
    """The dimension as Optuna knows it, widened where the paper's setting lies outside."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if dimension.low is None or dimension.high is None:
        choices = (*(dimension.choices or ()), *values)
        return CategoricalDistribution(tuple(dict.fromkeys(map(_plain, choices))))
    numbers = [_number(dimension, value) for value in (dimension.low, dimension.high, *values)]
    return FloatDistribution(min(numbers), max(numbers))


def _value(dimension: Dimension, value: Any) -> Any:
    return _plain(value) if dimension.low is None or dimension.high is None else _number(dimension, value)


def _number(dimension: Dimension, value: float) -> float:
    """Its logarithm on a log range: Optuna's fANOVA weighs a log range as an even one, which all but leaves out the
    lower decades, and so what a learning rate does there.
    """
    return math.log(value) if dimension.log and value > 0 else float(value)


def _plain(value: Any) -> Any:
    """Optuna's choices are None, numbers or texts."""
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Optuna tells of every study on stderr; here it is a means to an end."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)

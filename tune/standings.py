"""How the trials of a search stand: who won, who cannot be told from the winner, and why the others went no further.

The winner is the configuration with the best lower confidence bound among those that ran all seeds, not the one with
the best run. A configuration of which a seed failed cannot win, however good the seeds that survived: what ends in
an error in one of five seeds is not what to recommend, and the mean of survivors is not comparable. The price is
that an accident which had nothing to do with the configuration costs it the race; accidents are retried before.

Everything here is a pure function of trials and results, whatever order they came in.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from tune.records import SeedResult, Trial
from tune.stats import lower_bound, mean, paired_p, pooled_noise, sd

ALPHA = 0.05
"""With a p over it, two configurations are not told from each other."""

State = Literal["winner", "finished", "dropped", "stopped", "waiting", "failed"]
Measured = tuple[float, float | None]
"""Mean and standard deviation over seeds; no deviation with one seed."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a trial stands. Scores are dev macro F1, fractions."""

    place: int
    """From 1."""
    trial: Trial
    state: State
    """`finished`: ran all seeds. `dropped`: did not go on to the next number of seeds. `stopped`: by the race over
    epochs in its first seed. `waiting`: of a search that has not ended."""
    reason: str = ""
    """Why it went no further, in words; empty for one that ran all seeds."""
    scores: Mapping[int, float]
    """By seed; only seeds that have one."""
    mean: float | None
    sd: float | None
    lower: float | None
    """One-sided 95 % lower confidence bound of the mean; None where no configuration has two seeds."""
    epochs: int
    """Seed-epochs that were spent on it."""
    p: float | None = None
    """Of a paired t-test against the winner; None with fewer than two common seeds, and for the winner."""
    close: bool = False
    """Whether it cannot be told from the winner, or is the winner."""
    test: Mapping[str, Measured] = dataclasses.field(default_factory=dict)
    """Metrics on the test split, by their names in `lgsrr.metrics.SCORES`; empty where it was not looked at."""

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self.trial.label or self.trial.id


Tested = Mapping[str, Mapping[str, Sequence[float]]]
"""Metrics on the test split by trial: name of the metric -> a fraction for each seed."""


def standings(
    trials: Sequence[Trial], results: Sequence[SeedResult], seeds: int, epochs: int, tested: Tested | None = None
) -> list[Standing]:
    """The trials from the best to the worst.

    First those that ran all seeds, by lower bound (by mean where there is one seed only); then by how many seeds they
    ran, and by mean; then those that failed.

    Args:
        trials: of the search.
        results: of its seeds as they count (`tune.race.settled`), in any order.
        seeds: of a trial that runs to the end.
        epochs: of a seed that runs to the end.

    Raises:
        ValueError: a result is of no trial that was given, or there are two of the same seed.
    """
    by_trial = _by_trial(trials, results)
    scores = {id_: _scores(own) for id_, own in by_trial.items()}
    noise = pooled_noise(list(own.values()) for own in scores.values())
    counts = _Counts.of(trials, by_trial)
    listed = [
        Standing(
            place=0,
            trial=trial,
            state=state,
            reason=reason,
            scores=scores[trial.id],
            mean=mean(list(scores[trial.id].values())) if scores[trial.id] else None,
            sd=sd(list(scores[trial.id].values())),
            lower=lower_bound(list(scores[trial.id].values()), noise),
            epochs=sum(result.epochs for result in by_trial[trial.id]),
            test={name: (mean(values), sd(values)) for name, values in (tested or {}).get(trial.id, {}).items()},
        )
        for trial in trials
        for state, reason in [_state(trial, by_trial[trial.id], counts, seeds, epochs)]
    ]
    return _against_the_winner(sorted(listed, key=_order))


def winner(listed: Sequence[Standing]) -> Standing | None:
    """The winner; None where no trial ran all seeds."""
    return next((standing for standing in listed if standing.state == "winner"), None)


def best_of(listed: Sequence[Standing], origin: str) -> Standing | None:
    """The first of an origin that has a score: the paper's setting, or text alone at its best learning rate."""
    return next((s for s in listed if s.trial.origin == origin and s.mean is not None), None)


def differing(trials: Sequence[Trial]) -> list[str]:
    """Names of the settings that are not the same in all trials, in the order in which they come up."""
    names = list(dict.fromkeys(name for trial in trials for name in trial.settings))
    absent = object()
    return [name for name in names if len({repr(trial.settings.get(name, absent)) for trial in trials}) > 1]


def _by_trial(trials: Sequence[Trial], results: Sequence[SeedResult]) -> dict[str, list[SeedResult]]:
    grouped: dict[str, list[SeedResult]] = {trial.id: [] for trial in trials}
    for result in sorted(results, key=lambda r: (r.trial, r.seed)):
        if result.trial not in grouped:
            raise ValueError(f"seed {result.seed} of {result.trial} is of none of the {len(trials)} trials")
        if any(other.seed == result.seed for other in grouped[result.trial]):
            raise ValueError(f"there are two results of seed {result.seed} of {result.trial}; expected one")
        grouped[result.trial].append(result)
    return grouped


def _scores(results: Sequence[SeedResult]) -> dict[int, float]:
    return {result.seed: result.dev_f1 for result in results if result.dev_f1 is not None}


@dataclasses.dataclass(frozen=True, slots=True)
class _Counts:
    """How many of the trials that race against each other have so many seeds or more, by number of seeds."""

    raced: Mapping[int, int]
    text_alone: Mapping[int, int]

    @classmethod
    def of(cls, trials: Sequence[Trial], by_trial: Mapping[str, Sequence[SeedResult]]) -> _Counts:
        raced: Counter[int] = Counter()
        alone: Counter[int] = Counter()
        for trial in trials:
            if not trial.kept:
                counter = alone if trial.origin == "text alone" else raced
                counter.update(range(len(by_trial[trial.id]) + 1))
        return cls(raced, alone)


def _state(trial: Trial, results: Sequence[SeedResult], counts: _Counts, seeds: int, epochs: int) -> tuple[State, str]:
    failed = next((result for result in results if result.failure is not None), None)
    if failed is not None:
        return "failed", f"seed {failed.seed} failed{_after(failed)}: {failed.failure}"
    stopped = next((result for result in results if result.stopped), None)
    if stopped is not None:
        return "stopped", f"stopped after epoch {stopped.epochs} of {epochs}"
    if not results:
        return "waiting", "not trained yet"
    done = len(results)
    if done >= seeds:
        return "finished", ""
    group = counts.text_alone if trial.origin == "text alone" else counts.raced
    went_on = group.get(done + 1, 0)
    if trial.kept or not went_on:
        return "waiting", f"{done} of {seeds} seeds so far"
    if trial.origin == "text alone":
        return "dropped", f"not the best of text alone after {_seeds(done)}"
    # All that began are counted, those that were stopped too: they are what the others came out ahead of.
    return "dropped", f"not among the best {went_on} of {group[done if done > 1 else 0]} after {_seeds(done)}"


def _after(result: SeedResult) -> str:
    return f" after epoch {result.epochs}" if result.epochs else ""


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _order(standing: Standing) -> tuple[float | str, ...]:
    """What is smaller stands further up; the id decides between equals, so that the order never depends on chance."""
    value = -1.0 if standing.mean is None else standing.mean
    if standing.state == "finished":
        bound = value if standing.lower is None else standing.lower
        return (0, -bound, -value, 0, 0, standing.trial.id)
    halted = standing.state == "stopped"
    epochs = -standing.epochs if halted else 0
    return (2 if standing.state == "failed" else 1, -len(standing.scores), halted, epochs, -value, standing.trial.id)


def _against_the_winner(ordered: Sequence[Standing]) -> list[Standing]:
    best = ordered[0] if ordered and ordered[0].state == "finished" else None
    listed = []
    for place, standing in enumerate(ordered, 1):
        if standing is best:
            listed.append(dataclasses.replace(standing, place=place, state="winner", close=True))
            continue
        p = paired_p(best.scores, standing.scores) if best is not None else None
        close = p is not None and p > ALPHA
        listed.append(dataclasses.replace(standing, place=place, p=p, close=close))
    return listed

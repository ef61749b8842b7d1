"""Who goes on and who does not: pure functions of what has been reported, the same in whatever order it came.

Seeds are raced by successive halving (Jamieson and Talwalkar 2016): all configurations get one seed, the best of them
three, the best of those five. Within the first seed, epochs are raced as in ASHA (Li et al. 2020): at a rung of epochs
a configuration goes on if it is among the best of those that came there before it. "Before" is the order of the search,
not of the clock, so that neither more machines nor a kill and a resume change who is stopped; the price is that a run
may train on for a while until those before it have come to its rung. What it trained beyond is not counted.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from tune.records import SeedResult, Trial


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """The rules of a search's race."""

    seeds: int
    """Of a configuration that runs to the end."""
    epochs: int
    """Of a seed that runs to the end."""
    halving: float
    """One in so many goes on; 1 lets all of them run to the end."""
    first_seed: int = 0
    """Seeds are counted from it."""

    @property
    def seed_rungs(self) -> tuple[int, ...]:
        """How many seeds a configuration has after each rung: 1, 3, 5, and all of them at the end."""
        return (*(n for n in (1, 3, 5) if n < self.seeds), self.seeds)

    @property
    def epoch_rungs(self) -> tuple[int, ...]:
        """After which epochs of the first seed it is decided who goes on; never after the very first of several."""
        if self.halving <= 1:
            return ()
        shares = (math.ceil(self.epochs / self.halving**power) for power in (2, 1))
        return tuple(sorted({epoch for epoch in shares if 2 <= epoch < self.epochs}))

    def room(self, rung: int, trials: int) -> int:
        """How many of `trials` configurations may run the rung of that index; 0 is the first."""
        return max(1, math.ceil(trials / self.halving**rung))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Dev macro F1 of the first seed of a trial so far."""

    scores: tuple[float, ...]
    """By epoch."""
    ended: bool
    """Whether no further epoch will come."""
    failed: bool = False
    """Whether it ended by a failure."""

    def at(self, epoch: int) -> float | None:
        """The best score up to an epoch; None where the run has not come so far. One out of patience stands for all."""
        if not self.scores or (len(self.scores) < epoch and (self.failed or not self.ended)):
            return None
        return max(self.scores[:epoch])


def cuts(trials: Sequence[Trial], curves: Mapping[str, Curve], race: Race) -> dict[str, int]:
    """Trials (by id) that the race over epochs has stopped, and after which epoch each of them.

    Text alone is raced against text alone only, so that the best of it stays to be held against.

    Args:
        trials: in the order of the search.
        curves: of those that have begun, by id.
    """
    stopped: dict[str, int] = {}
    for alone in (False, True):
        group = [trial for trial in trials if (trial.origin == "text alone") is alone]
        stopped |= _cuts_in_group(group, curves, race)
    return stopped


def _cuts_in_group(trials: Sequence[Trial], curves: Mapping[str, Curve], race: Race) -> dict[str, int]:
    came: dict[int, list[float]] = {epoch: [] for epoch in race.epoch_rungs}
    closed = math.inf  # from this rung on, somebody before has yet to come or to be decided on
    stopped: dict[str, int] = {}
    for trial in trials:
        curve = curves.get(trial.id, Curve(scores=(), ended=False))
        for epoch in race.epoch_rungs:
            score = curve.at(epoch)
            if score is None:
                if not curve.ended:
                    closed = min(closed, epoch)
                break
            came[epoch].append(score)
            if epoch >= closed:
                closed = min(closed, epoch + 1)  # whether this one goes on is not known, so nothing beyond is
                break
            if not trial.kept and score < _bar(came[epoch], race.halving):
                stopped[trial.id] = epoch
                break
    return stopped


def _bar(scores: Sequence[float], halving: float) -> float:
    return float(np.percentile(scores, 100 * (1 - 1 / halving)))


def settled(trials: Sequence[Trial], results: Sequence[SeedResult], race: Race) -> list[SeedResult]:
    """The results as they count: first seeds cut where the race over epochs stops them, whatever was trained beyond."""
    firsts = {r.trial: r for r in results if r.seed == race.first_seed}
    stopped = cuts(trials, {id_: curve_of(result) for id_, result in firsts.items()}, race)
    return [_cut(result, stopped.get(result.trial)) if result.seed == race.first_seed else result for result in results]


def curve_of(result: SeedResult) -> Curve:
    """The curve of a seed that has ended."""
    scores = tuple(figures["dev_f1"] for figures in result.history)
    return Curve(scores=scores, ended=True, failed=result.failure is not None)


def _cut(result: SeedResult, epoch: int | None) -> SeedResult:
    """A failure behind the epoch at which it is stopped does not count either."""
    if epoch is None:
        return dataclasses.replace(result, stopped=False)
    return dataclasses.replace(result, history=result.history[:epoch], stopped=True, failure=None, checkpoint=None)


def seeds_due(trials: Sequence[Trial], results: Sequence[SeedResult], race: Race) -> list[tuple[Trial, int]]:
    """The seeds to train next, none where the race is over.

    A rung begins when the one before has ended, for all trials of it.

    Args:
        trials: all of the search, in its order.
        results: of the seeds that have ended, settled.
    """
    done = {(r.trial, r.seed): r for r in results}
    running = list(trials)
    for index, seeds in enumerate(race.seed_rungs):
        if index > 0:
            running = promoted(running, trials, results, race, index)
        wanted = range(race.first_seed, race.first_seed + seeds)
        due = [(t, s) for t in running for s in wanted if (t.id, s) not in done and not _failed(t, results)]
        if due:
            return due
    return []


def promoted(
    running: Sequence[Trial], trials: Sequence[Trial], results: Sequence[SeedResult], race: Race, rung: int
) -> list[Trial]:
    """Of the trials that ran the rung before, those that run this one; in the order of the search.

    They are the best by the mean of the seeds of the rung before, and those that are kept to be compared with: the
    paper's setting, and the best of text alone. What later seeds show does not change who was promoted.
    """
    shown = race.first_seed + race.seed_rungs[rung - 1]
    results = [r for r in results if r.seed < shown]
    means = {trial.id: mean for trial in running if (mean := mean_so_far(trial, results)) is not None}
    stopped = {r.trial for r in results if r.stopped}
    alone = [t for t in running if t.origin == "text alone" and t.id in means]
    best_alone = max(alone, key=lambda t: means[t.id], default=None)
    raced = [t for t in running if t.id in means and t.id not in stopped and not t.kept and t.origin != "text alone"]
    room = race.room(rung, sum(not t.kept and t.origin != "text alone" for t in trials))
    best = {t.id for t in sorted(raced, key=lambda t: -means[t.id])[:room]}
    if best_alone is not None:
        best.add(best_alone.id)
    return [t for t in running if t.id in best or (t.kept and t.id in means)]


def mean_so_far(trial: Trial, results: Sequence[SeedResult]) -> float | None:
    """Mean over the seeds of a trial that have a score; None where none has."""
    scores = [r.dev_f1 for r in results if r.trial == trial.id and r.dev_f1 is not None]
    return sum(scores) / len(scores) if scores else None


def _failed(trial: Trial, results: Sequence[SeedResult]) -> bool:
    """Whether a trial gets no further seed because one of its seeds failed."""
    return any(r.trial == trial.id and r.failure is not None for r in results)

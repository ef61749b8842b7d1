"""A search whose truth is known: made-up curves and seeds, raced by the real rules of `tune.race`."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from tune.race import Race, seeds_due, settled
from tune.records import SeedResult, Settings, Trial
from tune.reported import SearchReport
from tune.space import Dimension
from tune.standings import Tested, standings

SPACE = (
    Dimension(name="lr", log=True, low=1e-5, high=1e-3),
    Dimension(name="rank_weight", log=True, low=0.03, high=3.0),
    Dimension(name="tau", log=True, low=0.1, high=5.0),
    Dimension(name="k", choices=(1, 2, 3)),
)
PAPER: Settings = {"lr": 6e-6, "rank_weight": 1.0, "tau": 1.0, "k": 3}
NOISE = 0.006
"""Deviation of a seed, as a fraction of F1."""


def true_f1(settings: Settings) -> float:
    """A smooth truth: best at lr 5e-4, a small λ and K = 2; τ does nothing."""
    rate = abs(math.log10(settings["lr"] / 5e-4))
    if settings["k"] == 0:
        return float(0.462 - 0.03 * rate**2)
    loss = 0.012 * math.log10(settings["rank_weight"] / 0.1) ** 2
    return float(0.482 - 0.03 * rate**2 - loss - 0.006 * abs(settings["k"] - 2))


def draw_trials(number: int, seed: int = 0) -> list[Trial]:
    """The paper's setting, three of text alone, and `number` at random."""
    random = np.random.default_rng(seed)
    alone = [Trial(settings={"lr": lr, "k": 0}, origin="text alone", label=f"text alone, lr {lr:g}") for lr in ALONE]
    paper = Trial(settings=PAPER, origin="paper", label="the paper's setting", kept=True)
    drawn = [Trial(settings={d.name: d.draw(random) for d in SPACE}, origin="random") for _ in range(number)]
    return [paper, *alone, *drawn]


ALONE = (1e-4, 3e-4, 1e-3)


def train(trial: Trial, seed: int, epochs: int, noise: float = NOISE) -> SeedResult:
    """A seed's history: it rises to the truth of its settings and a little noise."""
    random = np.random.default_rng([seed, int(trial.id, 16)])
    top = true_f1(trial.settings) + noise * random.standard_normal()
    scores = [top * (1 - 0.6 * math.exp(-0.7 * epoch)) for epoch in range(1, epochs + 1)]
    history = tuple({"epoch": epoch, "dev_f1": score} for epoch, score in enumerate(scores, 1))
    return SeedResult(trial=trial.id, seed=seed, history=history)


def run(trials: list[Trial], race: Race, failing: dict[str, str] | None = None) -> list[SeedResult]:
    """All results of a search as they count; `failing` says which trials fail in their first seed, and of what."""
    results: list[SeedResult] = []
    while due := seeds_due(trials, settled(trials, results, race), race):
        for trial, seed in due:
            result = train(trial, seed, race.epochs)
            if trial.id in (failing or {}):
                result = dataclasses.replace(result, history=result.history[:1], failure=(failing or {})[trial.id])
            results.append(result)
    return settled(trials, results, race)


def made_up_report(number: int = 12, seeds: int = 5, epochs: int = 8, failures: int = 1) -> SearchReport:
    """The report of a whole made-up search."""
    trials = draw_trials(number)
    race = Race(seeds=seeds, epochs=epochs, halving=3)
    failing = {t.id: "CUDA out of memory: a smaller batch_size <needs> less | `see`" for t in trials[-failures:]}
    results = run(trials, race, failing if failures else None)
    listed = standings(trials, results, seeds, epochs)
    tested: Tested = {
        s.trial.id: {"f1": [score - 0.02 for score in s.scores.values()], "acc": [0.6 for _ in s.scores]}
        for s in listed
        if s.state == "winner" or s.trial.origin == "paper"
    }
    return SearchReport(
        name="mintrec2-12x5",
        dataset="mintrec2",
        standings=standings(trials, results, seeds, epochs, tested),
        dimensions=SPACE,
        trials=trials,
        results=results,
        seeds=seeds,
        epochs=epochs,
        spent=sum(result.epochs for result in results),
        exhaustive=len(trials) * seeds * epochs,
        created="2026-11-24 14:44 UTC",
        links={"The search in MLflow": "http://127.0.0.1:5000/#/experiments/1/runs/abc"},
    )

"""What a search would run, and how long it may take: `--explain`.

The time is that of a probe: a hundred utterances, trained for two epochs on the cluster as a trial would be. It runs to
none of the search's results, and what it computes of frozen layers is its own.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lgsrr.cluster import connected
from lgsrr.errors import TrainingError
from tune.ablations import ablations
from tune.folder import run_name
from tune.jobs import Jobs
from tune.plan import Plan
from tune.proposals import propose
from tune.race import Race
from tune.recording import trial_title
from tune.records import Trial
from tune.resources import settle_cpus, settle_gpus
from tune.step import room_for, run_step
from tune.trial import Work

PROBE = 128
"""Utterances of each split."""


def explain(plan: Plan, console: Console) -> None:
    """Print the plan; raises what the search itself would raise before it starts."""
    config, race = plan.config, plan.config.race
    trials = first_trials(plan)
    _print_trials(plan, trials, console)
    number = len(trials) if config.ablate or config.algorithm == "grid" else config.trials
    steps = most_runs(race, trials, number)
    table = Table(box=None, pad_edge=False)
    for name in ("rung", "configurations at most", "seeds each", "seed-epochs at most"):
        table.add_column(name, justify="right")
    for rung, (count, seeds) in enumerate(steps, 1):
        table.add_row(str(rung), str(count), str(seeds), str(count * seeds * race.epochs))
    console.print(table)
    most = sum(count * seeds for count, seeds in steps) * race.epochs
    whole = number * race.seeds * race.epochs
    console.print(f"{most} seed-epochs at most; every configuration with every seed would take {whole}")
    if race.epoch_rungs:
        rungs = " and ".join(map(str, race.epoch_rungs))
        console.print(
            f"a first seed that is not among the best after epoch {rungs} is stopped there, so it will be fewer"
        )
    _print_time(plan, trials[0], most, console)


def first_trials(plan: Plan) -> list[Trial]:
    """The trials that are known before anything has run."""
    config = plan.config
    if config.ablate:
        return [row.trial for row in ablations(config.training(), plan.num_aspects)]
    return propose(config.algorithm, plan.space, config.training(), plan.num_aspects, config.trials, {})


def most_runs(race: Race, trials: list[Trial], number: int) -> list[tuple[int, int]]:
    """For each rung, how many configurations run it at most, and how many seeds it adds to each."""
    kept = sum(trial.kept for trial in trials)
    alone = any(trial.origin == "text alone" for trial in trials)
    raced = number - kept - sum(trial.origin == "text alone" for trial in trials)
    steps, before = [], 0
    for rung, seeds in enumerate(race.seed_rungs):
        count = number if rung == 0 else kept + alone + min(raced, race.room(rung, raced))
        steps.append((count, seeds - before))
        before = seeds
    return steps


def _print_trials(plan: Plan, trials: list[Trial], console: Console) -> None:
    config = plan.config
    console.print(
        f"search {plan.folder.name} on {config.dataset}, {config.encoder}; {plan.folder.path}", highlight=False
    )
    for dimension in plan.space if not config.ablate else ():
        console.print(f"  {dimension.name:<16} {dimension.describe()}", highlight=False)
    for trial in trials:
        console.print(f"  {trial.id}  {trial.origin:<10}  {trial_title(trial)}", highlight=False, soft_wrap=True)
    if config.algorithm == "tpe" and not config.ablate:
        console.print(f"  and so on to {config.trials}, as the scores will say", highlight=False)


def _print_time(plan: Plan, trial: Trial, most: int, console: Console) -> None:
    config = plan.config
    with connected():
        work = Work(
            storage="",
            jobs={},
            cpus=settle_cpus(config),
            gpus=settle_gpus(config),
            workers=config.workers,
            in_group=config.in_group,
        )
        at_once = min(config.at_once or room_for(work), room_for(work))
        seconds = probe(plan, trial)
    hours = most * seconds / 3600
    units, unit = (work.gpus, "GPU") if work.gpus else (work.cpus, "CPU")
    console.print(
        f"an epoch takes about {seconds:.1f} s by a probe of {PROBE} utterances a split; {at_once} runs at once: "
        f"at most {hours * units * work.workers:.2f} {unit}-hours, {hours / at_once:.2f} hours",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def probe(plan: Plan, trial: Trial) -> float:
    """Seconds that an epoch of a trial takes, its evaluation on dev included, from a few utterances."""
    small = plan.dataset.head(PROBE)
    base = dataclasses.replace(plan.config.training(), epochs=2, patience=2)
    watcher = _Probe()
    with tempfile.TemporaryDirectory(prefix="lgsrr-probe-") as folder:
        job = Jobs(small, base, settle_cpus(plan.config)).make(trial, plan.config.seed)
        work = Work(
            storage=f"{folder}/checkpoints", jobs={run_name(trial.id, plan.config.seed): job},
            cpus=settle_cpus(plan.config), gpus=settle_gpus(plan.config), workers=plan.config.workers,
            in_group=plan.config.in_group,
        )  # fmt: skip
        run_step(work, None, watcher, scratch=Path(folder) / "tune", at_once=1, retries=0)
    if watcher.failure or not watcher.history:
        raise TrainingError(f"the probe failed: {watcher.failure or 'no epoch was finished'}")
    last = watcher.history[-1]
    share = len(plan.dataset.split("train")) / len(small.split("train"))
    return float(last["seconds"]) * share * _WITH_DEV


_WITH_DEV = 1.1
"""Answering dev takes about a tenth of an epoch: a fifth of the utterances, a third of the work for each."""


class _Probe:
    """Hears of the probe's run."""

    def __init__(self) -> None:
        self.history: list[Mapping[str, Any]] = []
        self.failure: str | None = None

    def began(self, run: str) -> None:
        pass

    def reported(self, run: str, figures: Mapping[str, Any]) -> None:
        self.history = list(figures.get("history", self.history))
        self.failure = figures.get("failure", self.failure)

    def ended(self, run: str, failure: str | None) -> None:
        self.failure = self.failure or failure

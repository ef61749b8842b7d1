"""One step of a search: runs that are due, given to Ray Tune, and what they came to.

A step ends when all of its runs have; what is due next is worked out anew from the results. That costs some waiting at
the end of a step and buys that a search depends on nothing but its results: not on the clock, not on Tune's own state.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler

from lgsrr.errors import ConfigError
from tune.scheduler import EpochRace
from tune.trial import RUN, Work, train_seed

_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # files for every trial that nobody reads
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the command, and the same command goes on
    "RAY_AIR_NEW_OUTPUT": "0",  # prints every failure, which we do ourselves
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "32",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Tune's own state is not what a search goes on from
    "TUNE_WARN_THRESHOLD_S": "5",
}


class Watcher(Protocol):
    """Who hears of the runs of a step, in the driver."""

    def began(self, run: str) -> None:
        """A run was started."""

    def reported(self, run: str, figures: Mapping[str, Any]) -> None:
        """A run has something new: `history`, `failure` or `tested`."""

    def ended(self, run: str, failure: str | None) -> None:
        """A run has ended: at its end, stopped, or for good by what `failure` says."""


class _Callback(tune.Callback):
    """Tune's callbacks as ours.

    Tune counts it twice when a process that it uses again is dead before the next run begins in it, and takes that run
    for failed whatever it may still retry. Such a run is lost, not failed: `take_lost` names it for another go.
    """

    def __init__(self, watcher: Watcher, race: EpochRace | None, retries: int) -> None:
        self._watcher, self._race, self._retries = watcher, race, retries
        self._underway: set[str] = set()
        self._losses: Counter[str] = Counter()
        self._lost: list[str] = []

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune keeps its callbacks with its own state, from which nobody goes on here."""
        return {}

    def take_lost(self) -> list[str]:
        """Runs that were lost since this was last asked."""
        lost, self._lost = self._lost, []
        return lost

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._underway.add(trial.config[RUN])
        self._watcher.began(trial.config[RUN])

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        self._watcher.reported(trial.config[RUN], result)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._watcher.ended(trial.config[RUN], None)

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._underway.discard(trial.config[RUN])

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        run = trial.config[RUN]
        if run not in self._underway and self._losses[run] < self._retries:
            self._losses[run] += 1
            self._lost.append(run)
            return
        if self._race is not None:
            self._race.failed(run)
        self._watcher.ended(run, _reason(trial))


def run_step(
    work: Work, race: EpochRace | None, watcher: Watcher, *, scratch: Path, at_once: int | None, retries: int
) -> None:
    """Train all jobs of `work`, as many at once as fit.

    Args:
        race: which may stop a run; None lets each come to its end.
        scratch: folder for Tune.
        at_once: runs at once at most; None is as many as the cluster holds.
        retries: how often a run whose process or node died is begun again.

    Raises:
        ConfigError: not one run fits the cluster.
    """
    room = room_for(work)
    trainable = tune.with_resources(tune.with_parameters(train_seed, work=work), work.resources())
    callback = _Callback(watcher, race, retries)
    runs = list(work.jobs)
    with _quiet():
        while runs:
            tune.Tuner(
                trainable,
                param_space={RUN: tune.grid_search(runs)},
                tune_config=tune.TuneConfig(
                    scheduler=race or FIFOScheduler(),
                    max_concurrent_trials=min(at_once or room, room),
                    reuse_actors=not work.in_group,
                    trial_name_creator=lambda trial: str(trial.config[RUN]),
                    trial_dirname_creator=lambda trial: str(trial.config[RUN]),
                ),
                run_config=tune.RunConfig(
                    name="step",
                    storage_path=str(scratch),
                    verbose=0,
                    callbacks=[callback],
                    failure_config=tune.FailureConfig(max_failures=retries),
                ),
            ).fit()
            runs = callback.take_lost()


def room_for(work: Work) -> int:
    """How many runs the cluster's nodes hold at once."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    per_node = [_workers_on(node, work) for node in nodes]
    room = sum(per_node) // work.workers
    if room == 0:
        what = f"{work.cpus} CPUs" + (f" and {work.gpus:g} GPUs" if work.gpus else "")
        has = f"{sum(n.get('CPU', 0) for n in nodes):g} CPUs and {sum(n.get('GPU', 0) for n in nodes):g} GPUs"
        raise ConfigError(
            f"{work.workers} worker{'s' * (work.workers > 1)} with {what} each do not fit: the cluster has {has}; "
            "use fewer --workers, --cpus-per-worker or --gpus-per-trial"
        )
    return room


def _workers_on(node: Mapping[str, float], work: Work) -> int:
    by_cpu = int(node.get("CPU", 0) // work.cpus)
    return min(by_cpu, int(node.get("GPU", 0) / work.gpus + 1e-9)) if work.gpus else by_cpu


def _reason(trial: Any) -> str:
    """Why a run failed for good: the last line of what Tune wrote down."""
    path = Path(trial.error_file or "")
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it ended without a word"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Tune's settings for the block, and its chatter off."""
    before = {name: os.environ.get(name) for name in _SETTINGS}
    os.environ.update(_SETTINGS)
    loggers = [logging.getLogger(name) for name in ("ray.tune", "ray.train", "ray.air")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

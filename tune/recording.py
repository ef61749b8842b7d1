"""A search as MLflow shows it: search -> configuration -> seed, nested runs that the driver alone records.

Every run has a key that is known before any server is asked: that of the search, with the trial's id and the seed
behind it. A command that goes on with a search finds the same runs by it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lgsrr import tracker as trackers
from lgsrr.config import TrainConfig
from lgsrr.destination import TrackingConfig, spool_folder
from lgsrr.sender import Sender, Sink
from lgsrr.spool import DataRef, Status
from lgsrr.tracker import Delivery, Tracker
from tune.folder import run_name
from tune.records import SeedResult, Trial
from tune.space import apply
from tune.standings import Standing

CLOSE_TIMEOUT_S = 60.0
"""How long the server is waited for at the end; what is left then is sent by the next command."""


class SearchRecord:
    """The runs of one search.

    Args:
        runs_dir: of the journals and the local store.
        tracking: where to.
        key: of the search's own run.
        base: the settings that trials change.
        sink: takes the place of MLflow in tests.
    """

    def __init__(
        self,
        runs_dir: Path,
        tracking: TrackingConfig,
        key: str,
        base: TrainConfig,
        data: DataRef,
        *,
        sink: Sink | None = None,
    ) -> None:
        self._runs_dir, self._tracking, self.key, self._base, self._data = runs_dir, tracking, key, base, data
        self._sink = sink or trackers.mlflow_sink(tracking.destination(runs_dir))
        self._sender = Sender(spool_folder(runs_dir), self._sink, follow=True)
        self._sender.start()
        self._open: dict[str, Tracker] = {}
        self._sent: dict[str, int] = {}

    # The search

    def begin(self, name: str, identity: Mapping[str, Any]) -> None:
        """The search begins, or goes on."""
        params = {key: str(value) for key, value in identity.items()}
        self._start(self.key, name, params=params, tags={"lgsrr.program": "search", "lgsrr.search": name})

    def answer(self, metrics: Mapping[str, float], note: str, files: Sequence[Path], *, time_ms: int) -> None:
        """What the search found: figures, the note that MLflow shows as the run's description, table and plots."""
        tracker = self._open[self.key]
        tracker.metrics(metrics, step=0, time_ms=time_ms)
        tracker.tags({"mlflow.note.content": note})
        for path in files:
            tracker.artifact(path, "report")
        tracker.finish()

    # Its seeds

    def seed_began(self, trial: Trial, seed: int) -> None:
        """A seed begins, or goes on; the run of its configuration is begun with its first."""
        self._trial(trial)
        key = self.seed_key(trial, seed)
        if key in self._open:
            return
        config = dataclasses.replace(apply(trial.settings, self._base), seed=seed)
        tags = {"seed": str(seed), "lgsrr.trial": trial.id, "lgsrr.origin": trial.origin}
        self._start(key, f"seed {seed}", params=dataclasses.asdict(config), tags=tags, parent=self.trial_key(trial))

    def epochs(self, trial: Trial, seed: int, history: Sequence[Mapping[str, float]]) -> None:
        """The figures of all epochs so far; what was told before is not told again."""
        key = self.seed_key(trial, seed)
        for figures in history[self._sent.get(key, 0) :]:
            values = {name: value for name, value in figures.items() if name not in ("epoch", "time_ms")}
            self._open[key].metrics(values, step=int(figures["epoch"]), time_ms=int(figures["time_ms"]))
        self._sent[key] = len(history)

    def seed_ended(self, trial: Trial, seed: int, result: SeedResult) -> None:
        """A seed has ended, or failed."""
        tracker = self._closing(trial, seed)
        if result.dev_f1 is not None:
            time_ms = int(result.history[-1]["time_ms"])
            tracker.metrics({"best_dev_f1": result.dev_f1}, step=0, time_ms=time_ms)
        if result.failure is not None:
            tracker.tags({"lgsrr.failure": result.failure})
        tracker.finish("FAILED" if result.failure else "FINISHED")
        tracker.close(timeout_s=0)

    def model(
        self,
        trial: Trial,
        seed: int,
        folder: Path,
        scores: Mapping[str, float],
        register: Mapping[str, Any],
        *,
        time_ms: int,
    ) -> Delivery:
        """Keep the winner's model with the run of its seed, and register it (`Tracker.register`'s arguments)."""
        tracker = self._closing(trial, seed)
        tracker.metrics(scores, step=0, time_ms=time_ms)
        tracker.model(folder)
        tracker.register(**register)
        tracker.finish()
        return tracker.close(timeout_s=CLOSE_TIMEOUT_S)

    def tested(self, trial: Trial, seed: int, scores: Mapping[str, float], *, time_ms: int) -> None:
        """The test scores of a seed."""
        tracker = self._closing(trial, seed)
        tracker.metrics(scores, step=0, time_ms=time_ms)
        tracker.finish()
        tracker.close(timeout_s=0)

    def untested(self, trial: Trial, seed: int) -> None:
        """The test of a seed failed; its training did not."""
        tracker = self._closing(trial, seed)
        tracker.finish()
        tracker.close(timeout_s=0)

    def _closing(self, trial: Trial, seed: int) -> Tracker:
        """The run of a seed, which nobody asks for again; of one whose process never came up it is begun here."""
        self.seed_began(trial, seed)
        return self._open.pop(self.seed_key(trial, seed))

    # Its configurations

    def _trial(self, trial: Trial) -> Tracker:
        key = self.trial_key(trial)
        if key not in self._open:
            params = dataclasses.asdict(apply(trial.settings, self._base))
            del params["seed"]
            tags = {"lgsrr.trial": trial.id, "lgsrr.origin": trial.origin, "lgsrr.settings": json.dumps(trial.settings)}
            self._start(key, trial_title(trial), params=params, tags=tags, parent=self.key)
        return self._open[key]

    def standing(self, standing: Standing, *, time_ms: int) -> None:
        """Where a configuration ended: mean, deviation, seeds; its run ends."""
        tracker = self._trial(standing.trial)
        values: dict[str, float | None] = {
            "place": standing.place,
            "seeds": len(standing.scores),
            "epochs_spent": standing.epochs,
            "dev_f1_mean": standing.mean,
            "dev_f1_sd": standing.sd,
            "dev_f1_lower": standing.lower,
            "p_against_winner": standing.p,
        }
        for name, (mean, sd) in standing.test.items():
            values |= {f"test_{name}_mean": mean, f"test_{name}_sd": sd}
        numbers = {name: float(value) for name, value in values.items() if value is not None}
        tracker.metrics(numbers, step=0, time_ms=time_ms)
        close = {"lgsrr.not_distinguishable_from_winner": "true"} if standing.close else {}
        tracker.tags({"lgsrr.state": standing.state, "lgsrr.reason": standing.reason, **close})
        tracker.finish("FAILED" if standing.state == "failed" else "FINISHED")

    # The end

    def interrupted(self, status: Status) -> None:
        """The command ends before the search does: whatever is open ends so; the same command goes on with it."""
        for key in sorted(self._open, key=len, reverse=True):
            self._open[key].finish(status)

    def close(self, timeout_s: float | None = None) -> Delivery:
        """Wait for the server, at most so long, and say how far the search's own run has come."""
        timeout_s = CLOSE_TIMEOUT_S if timeout_s is None else timeout_s
        delivery = self._open[self.key].close(timeout_s=timeout_s)
        self._sender.flush(timeout_s)
        self._sender.stop()
        return delivery

    # Names

    def trial_key(self, trial: Trial) -> str:
        """The key of a configuration's run."""
        return f"{self.key}-{trial.id}"

    def seed_key(self, trial: Trial, seed: int) -> str:
        """The key of a seed's run."""
        return f"{self.key}-{run_name(trial.id, seed)}"

    def _start(
        self, key: str, name: str, *, params: Mapping[str, object], tags: Mapping[str, str], parent: str | None = None
    ) -> None:
        tracker = Tracker(self._runs_dir, self._tracking, key, sink=self._sink, sender=self._sender)
        tracker.start(
            dataset=self._base.dataset, name=name, params=params, tags=tags, data=self._data, parent_run_key=parent
        )
        self._open[key] = tracker


def trial_title(trial: Trial) -> str:
    """A trial in a few words."""
    settings = ", ".join(f"{name} {_shown(value)}" for name, value in trial.settings.items())
    return f"{trial.label} ({settings})" if trial.label and "lr" not in trial.label else trial.label or settings


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

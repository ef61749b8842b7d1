"""The folder of one training run, and what a person finds in it.

runs/train/<dataset>-<encoder>-k<K>-seed<N>-<hash>/
  model/                      the classifier (`lgsrr.saved_model`)
  test_predictions.parquet    label, truth and the three relations of every test utterance
  per_class.csv  confusion.png  losses.png
  result.json                 scores and the figures of every epoch; written last: the mark that says "finished"
runs/checkpoints/<same name>/ what Ray Train goes on from
"""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from lgsrr.config import TrainConfig
from lgsrr.files import atomic_path, plain_name, write_json
from lgsrr.saved_model import ModelCard

RESULT = "result.json"
MODEL, PREDICTIONS, FINISHED = "model", "test_predictions.parquet", "finished.json"
PER_CLASS, CONFUSION, LOSSES = "per_class.csv", "confusion.png", "losses.png"


@dataclasses.dataclass(frozen=True, slots=True)
class RunFolder:
    """One run's folder; nothing is made before there is something to write."""

    path: Path

    @property
    def name(self) -> str:
        """Of the run, in Ray and in MLflow too."""
        return self.path.name

    @property
    def model(self) -> Path:
        return self.path / MODEL

    @property
    def is_finished(self) -> bool:
        return (self.path / RESULT).is_file()

    def storage(self, config: TrainConfig) -> str:
        """Where Ray keeps the checkpoints of all runs: a folder for each by its name."""
        return config.storage or str(self.path.parent.parent / "checkpoints")

    def scores(self) -> dict[str, float]:
        """Dev scores of the best epoch and test scores, as fractions."""
        scores: dict[str, float] = self._result()["scores"]
        return scores

    def history(self) -> list[dict[str, float]]:
        """The figures of every epoch."""
        history: list[dict[str, float]] = self._result()["history"]
        return history

    def _result(self) -> dict[str, Any]:
        path = self.path / RESULT if self.is_finished else self.path / FINISHED
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return result

    def take(self, checkpoint: Path) -> None:
        """Copy what the workers left at the end of the run."""
        self.path.mkdir(parents=True, exist_ok=True)
        for name in (MODEL, PREDICTIONS, FINISHED):
            with atomic_path(self.path / name) as temporary:
                if (checkpoint / name).is_dir():
                    shutil.copytree(checkpoint / name, temporary)
                else:
                    shutil.copyfile(checkpoint / name, temporary)

    def write_report(self, card: ModelCard) -> None:
        """Pictures and tables from the predictions and the history, then the mark that says "finished"."""
        from lgsrr.metrics import confusion, per_class
        from lgsrr.plots import confusion_picture, loss_curves

        table = pq.read_table(self.path / PREDICTIONS, columns=["truth", "label"])
        index = {label: i for i, label in enumerate(card.labels)}
        truth, predicted = (np.array([index[v] for v in table[c].to_pylist()]) for c in ("truth", "label"))
        confusion_picture(confusion(truth, predicted, len(index)), card.labels, self.path / CONFUSION)
        loss_curves(self.history(), self.path / LOSSES)
        rows = per_class(truth, predicted, card.labels)
        with atomic_path(self.path / PER_CLASS) as temporary, temporary.open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, fieldnames=[f.name for f in dataclasses.fields(rows[0])])
            writer.writeheader()
            writer.writerows(dataclasses.asdict(row) for row in rows)
        write_json(self.path / RESULT, self._result())
        (self.path / FINISHED).unlink()

    def artifacts(self) -> list[Path]:
        """Files that go to the tracking server beside the model."""
        return [self.path / name for name in (PREDICTIONS, PER_CLASS, CONFUSION, LOSSES, RESULT)]


def choose_run_folder(runs: Path, config: TrainConfig, fingerprint: str) -> RunFolder:
    """The folder of this very run; with `again`, one that is not finished: the same command goes on with that one."""
    encoder = plain_name(Path(config.encoder).name.lower(), 40)
    name = f"{config.dataset}-{encoder}-k{config.k}-seed{config.seed}-{fingerprint}"
    folder = RunFolder(runs / "train" / name)
    attempt = 1
    while config.again and folder.is_finished:
        attempt += 1
        folder = RunFolder(runs / "train" / f"{name}-{attempt}")
    return folder

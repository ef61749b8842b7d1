"""What the tests of tracking share: a runs folder with an empty database, a model and its loader, a whole run."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lgsrr.destination import TrackingConfig
from lgsrr.spool import DataRef
from lgsrr.tracker import Delivery, Tracker
from lgsrr.tracking import connect

DATA = DataRef(name="sample", digest="ab" * 32, source="/data", schema={"text": "string"}, profile={"train": 3})
STAND_IN = """
import json, pathlib
import pandas as pd

class Model:
    def __init__(self, weights):
        self.weights = weights

    def predict(self, frame, params=None):
        return pd.DataFrame({"label": [self.weights["label"]] * len(frame), "probability": [0.5] * len(frame)})

def _load_pyfunc(data_path):
    return Model(json.loads((pathlib.Path(data_path) / "weights.json").read_text()))
"""


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables: making them takes seconds, copying it does not."""
    path = tmp_path_factory.getbasetemp() / "mlflow" / "mlflow.db"
    if not path.exists():
        connect(f"sqlite:///{path}")
    return path


@pytest.fixture
def runs(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runs folder with a database that holds no run."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "runs"
    folder.mkdir()
    shutil.copy(empty_database, folder / "mlflow.db")
    return folder


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A model folder, and a package `standin` that loads it."""
    package = tmp_path / "site" / "standin"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(str(package.parent))
    folder = tmp_path / "kept-model"
    folder.mkdir()
    (folder / "weights.json").write_text('{"label": "Praise"}')
    columns = [{"name": "text", "type": "string"}, {"name": "Facial Expressions", "type": "string"}]
    outputs = [{"name": "label", "type": "string"}, {"name": "probability", "type": "double"}]
    (folder / "signature.json").write_text(json.dumps({"inputs": columns, "outputs": outputs}))
    (folder / "input_example.json").write_text('[{"text": "Well done!", "Facial Expressions": "smiles"}]')
    yield folder
    sys.modules.pop("standin", None)


def record(
    runs: Path, model: Path | None = None, run_key: str = "run", config: TrackingConfig | None = None
) -> Delivery:
    """A whole run: three epochs, a picture, a model where there is one, an end."""
    tracker = Tracker(runs, config or TrackingConfig(), run_key)
    tracker.start(dataset="sample", name="first", params={"lr": 1e-4}, tags={"seed": "0"}, data=DATA)
    for epoch in (1, 2, 3):
        tracker.metrics({"train_loss": 1 / epoch, "dev_f1": epoch / 10}, step=epoch)
    picture = runs / "curves.png"
    picture.write_bytes(b"a picture")
    tracker.artifact(picture, "plots")
    tracker.metrics({"test_f1": 0.5}, step=3)
    if model is not None:
        tracker.model(model, loader_module="standin")
    tracker.finish()
    return tracker.close(60)


def assert_nobody_waited(times: list[float]) -> None:
    """No call took as long as a server that hangs makes one wait (2 s); most took nothing, however busy the machine."""
    assert sorted(times)[len(times) * 3 // 4] < 0.05
    assert max(times) < 1.5


def the_runs(runs: Path, experiment: str = "lgsrr-sample") -> list[Any]:
    client = connect(TrackingConfig().destination(runs))
    return list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id]))


def history(runs: Path, run_id: str, name: str) -> list[tuple[int, float]]:
    client = connect(TrackingConfig().destination(runs))
    return [(point.step, point.value) for point in client.get_metric_history(run_id, name)]

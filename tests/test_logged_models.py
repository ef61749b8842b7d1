"""Logged models: packed without a pickle, found by every name that MLflow gives them, and loaded back."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from lgsrr.destination import TrackingConfig
from lgsrr.errors import ModelError, TrackingError
from lgsrr.logged_models import resolve_model
from lgsrr.provenance import pinned_requirements
from lgsrr.tracking import connect, load_mlflow
from tests.tracked_runs import empty_database, history, model, record, runs, the_runs

__all__ = ["empty_database", "model", "runs"]


def test_a_logged_model_comes_back_as_pyfunc_and_as_folder_by_every_name(runs: Path, model: Path) -> None:
    mlflow = load_mlflow()
    config = TrackingConfig()
    delivery = record(runs, model)
    destination = config.destination(runs)
    client = connect(destination)
    run = client.get_run(delivery.run_id)
    model_id = run.outputs.model_outputs[0].model_id
    mlflow.set_tracking_uri(destination)
    try:
        version = mlflow.register_model(f"models:/{model_id}", "lgsrr-sample")
        client.set_registered_model_alias("lgsrr-sample", "champion", version.version)
        loaded = mlflow.pyfunc.load_model(f"runs:/{delivery.run_id}/model")
    finally:
        mlflow.set_tracking_uri(None)
    frame = pd.DataFrame([{"text": "Great!", "Facial Expressions": "smiles"}])
    assert loaded.predict(frame).to_dict("records") == [{"label": "Praise", "probability": 0.5}]
    assert [column.name for column in loaded.metadata.signature.inputs] == ["text", "Facial Expressions"]
    names = [f"runs:/{delivery.run_id}", f"runs:/{delivery.run_id}/model", f"models:/{model_id}"]
    names += ["models:/lgsrr-sample/1", "models:/lgsrr-sample@champion"]
    folders = {resolve_model(name, runs, config) for name in names}
    assert len(folders) == 1
    [folder] = folders
    assert (folder / "weights.json").read_text() == (model / "weights.json").read_text()
    assert folder.is_relative_to(runs / "artifacts")
    assert resolve_model(str(folder), runs, config) == folder
    assert resolve_model(str(folder.parent.parent), runs, config) == folder


def test_a_logged_model_holds_no_pickle_its_package_alone_and_its_test_scores(runs: Path, model: Path) -> None:
    record(runs, model)
    [packed] = [path.parent for path in (runs / "artifacts").rglob("MLmodel")]
    assert not [path for path in packed.rglob("*") if path.suffix in (".pkl", ".pickle", ".pyc", ".bin", ".pt")]
    assert [path.name for path in (packed / "code").iterdir()] == ["standin"]
    assert (packed / "requirements.txt").read_text().split() == list(pinned_requirements())
    client = connect(TrackingConfig().destination(runs))
    [run] = the_runs(runs)
    logged = client.get_logged_model(run.outputs.model_outputs[0].model_id)
    assert {metric.key: metric.value for metric in logged.metrics} == {"test_f1": 0.5}
    assert logged.params == {"lr": "0.0001"}
    assert history(runs, run.info.run_id, "test_f1") == [(3, 0.5)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/such/folder", "there is no folder no/such/folder"),
        ("runs:/0123456789abcdef0123456789abcdef", "has no model runs:/0123"),
        ("models:/lgsrr-nothing@champion", "has no model models:/lgsrr-nothing@champion"),
        ("models:/lgsrr-nothing/1", "has no model models:/lgsrr-nothing/1"),
        ("models:/lgsrr-nothing", "expected runs:/ID"),
        ("runs:/0123456789abcdef0123456789abcdef/other", "expected runs:/ID"),
    ],
)
def test_a_name_that_leads_to_no_model_is_a_clear_error(runs: Path, name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        resolve_model(name, runs, TrackingConfig())


def test_a_run_without_a_model_says_so(runs: Path) -> None:
    delivery = record(runs)
    with pytest.raises(ModelError, match=r"\(first, FINISHED\) has no finished model"):
        resolve_model(f"runs:/{delivery.run_id}", runs, TrackingConfig())


def test_a_pyfunc_of_somebody_else_is_no_model_of_ours(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors:\n  python_function:\n    loader_module: sklearn\n    data: ../../etc\n")
    with pytest.raises(ModelError, match="is no model of this project"):
        resolve_model(str(tmp_path), tmp_path, TrackingConfig())


def test_a_server_that_is_away_is_a_tracking_error(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=r"http://127\.0\.0\.1:9 cannot be asked"):
        resolve_model("runs:/abc", tmp_path, TrackingConfig(uri="http://127.0.0.1:9"))

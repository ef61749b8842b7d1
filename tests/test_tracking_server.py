"""Tracking on a real `mlflow server` that is killed and comes back: everything arrives, exactly once, and nobody waits.

The tests share one server (it takes ten seconds to start on two cores) and leave it running or killed as they like.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lgsrr.destination import TrackingConfig, spool_folder
from lgsrr.logged_models import resolve_model
from lgsrr.spool import Journal
from lgsrr.tracker import Tracker
from lgsrr.tracking import connect, load_mlflow
from tests.mlflow_server import MlflowServer
from tests.tracked_runs import DATA, assert_nobody_waited, model, record

__all__ = ["model"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A server that has not been started yet."""
    found = MlflowServer(tmp_path_factory.mktemp("server"))
    yield found
    found.kill()


@pytest.fixture
def config(server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> TrackingConfig:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    return TrackingConfig(uri=server.uri)


def the_run(server: MlflowServer, run_key: str) -> Any:
    client = connect(server.uri)
    experiment = client.get_experiment_by_name("lgsrr-sample")
    [run] = client.search_runs([experiment.experiment_id], f"tags.`lgsrr.run_key` = '{run_key}'")
    return run


def history(server: MlflowServer, run_id: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in connect(server.uri).get_metric_history(run_id, "dev_f1")]


def test_what_a_server_that_was_never_there_missed_is_sent_by_the_next_command(
    server: MlflowServer, config: TrackingConfig, tmp_path: Path
) -> None:
    server.kill()
    tracker = Tracker(tmp_path, config, "never-there")
    tracker.start(dataset="sample", name="first", params={"lr": 1e-4}, data=DATA)
    for epoch in (1, 2, 3):
        tracker.metrics({"dev_f1": epoch / 10}, step=epoch)
    tracker.finish()
    assert tracker.close(0.5).pending == 5
    assert Journal(spool_folder(tmp_path), "never-there").pending() == 5
    server.start()
    command = [sys.executable, "-m", "lgsrr.tracking", "--runs", str(tmp_path), "--uri", server.uri]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "never-there" in done.stdout
    assert f"look at it: {server.uri}" in done.stdout
    run = the_run(server, "never-there")
    assert run.info.status == "FINISHED"
    assert history(server, run.info.run_id) == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert list(spool_folder(tmp_path).iterdir()) == []


def test_a_server_killed_in_mid_run_gets_everything_exactly_once_and_slows_nobody(
    server: MlflowServer, config: TrackingConfig, tmp_path: Path
) -> None:
    server.start()
    tracker = Tracker(tmp_path, config, "killed")
    tracker.start(dataset="sample", name="first", params={"lr": 1e-4}, data=DATA)
    times = []
    for epoch in range(60):
        began = time.perf_counter()
        tracker.metrics({"dev_f1": epoch / 100, "train_loss": 1.0}, step=epoch)
        times.append(time.perf_counter() - began)
        time.sleep(0.03)
        if epoch == 20:
            server.kill()
    picture = tmp_path / "curves.png"
    picture.write_bytes(b"a picture")
    tracker.artifact(picture)
    tracker.finish()
    server.start()
    delivery = tracker.close(60)
    assert (delivery.pending, delivery.refused) == (0, 0)
    assert_nobody_waited(times[21:])
    run = the_run(server, "killed")
    page = f"{server.uri}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    assert delivery.run_url == f"{page}?workflowType=machine_learning"
    assert history(server, run.info.run_id) == [(epoch, epoch / 100) for epoch in range(60)]
    assert [file.path for file in connect(server.uri).list_artifacts(run.info.run_id)] == ["curves.png"]


def test_a_replay_that_is_killed_is_completed_by_the_next(
    server: MlflowServer, config: TrackingConfig, tmp_path: Path
) -> None:
    server.start()
    dead = Tracker(tmp_path, TrackingConfig(uri="http://127.0.0.1:9"), "replayed")
    dead.start(dataset="sample", name="first", data=DATA)
    for epoch in range(200):
        dead.metrics({"dev_f1": epoch / 1000}, step=epoch)
    dead.finish()
    dead.close(0)
    journal = Journal(spool_folder(tmp_path), "replayed")
    journal.path.write_bytes(journal.path.read_bytes().replace(b"http://127.0.0.1:9", server.uri.encode()))
    command = [sys.executable, "-m", "lgsrr.tracking", "--runs", str(tmp_path), "--uri", server.uri]
    replay = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while journal.pending() > 120:
        time.sleep(0.002)
    replay.kill()
    replay.wait()
    left = journal.pending()
    assert 0 < left <= 120
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{left:>5} sent      0 pending" in done.stdout
    assert history(server, the_run(server, "replayed").info.run_id) == [(n, n / 1000) for n in range(200)]


def test_a_model_on_a_server_comes_back_by_alias_into_a_cache_that_is_whole(
    server: MlflowServer, config: TrackingConfig, tmp_path: Path, model: Path
) -> None:
    mlflow = load_mlflow()
    server.start()
    delivery = record(tmp_path, model, "with-model", config)
    client = connect(server.uri)
    model_id = client.get_run(delivery.run_id).outputs.model_outputs[0].model_id
    mlflow.set_tracking_uri(server.uri)
    try:
        version = mlflow.register_model(f"models:/{model_id}", "lgsrr-sample")
        client.set_registered_model_alias("lgsrr-sample", "champion", version.version)
        loaded = mlflow.pyfunc.load_model("models:/lgsrr-sample@champion")
    finally:
        mlflow.set_tracking_uri(None)
    frame = pd.DataFrame([{"text": "Great!", "Facial Expressions": "smiles"}])
    assert loaded.predict(frame)["label"].tolist() == ["Praise"]
    names = (f"runs:/{delivery.run_id}", "models:/lgsrr-sample/1", "models:/lgsrr-sample@champion")
    [folder] = {resolve_model(name, tmp_path, config) for name in names}
    assert json.loads((folder / "weights.json").read_text()) == {"label": "Praise"}
    assert folder.is_relative_to(tmp_path / "models" / model_id)
    assert [path.name for path in (tmp_path / "models").iterdir()] == [model_id]

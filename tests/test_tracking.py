"""Tracking on sqlite: every run is there exactly once, whatever was killed, and nobody waits for a server.

The same against a real server, which is killed and comes back, is in test_tracking_server.py.
"""

from __future__ import annotations

import ast
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lgsrr.destination import TrackingConfig, run_url, spool_folder, ui_hint, without_password
from lgsrr.errors import ConfigError, ModelError
from lgsrr.logged_models import resolve_model
from lgsrr.provenance import git_commit, package_versions, pinned_requirements
from lgsrr.records import Aspect, Dataset, Utterance
from lgsrr.replay import Replay
from lgsrr.sender import RunRef, deliver
from lgsrr.spool import Event, Journal, Metrics, RunStarted
from lgsrr.tracker import Tracker, describe
from lgsrr.tracking import MlflowSink, connect, load_mlflow
from tests.memory_sink import MemorySink
from tests.mlflow_server import hanging_server
from tests.tracked_runs import DATA, assert_nobody_waited, empty_database, history, model, record, runs, the_runs

__all__ = ["empty_database", "model", "runs"]

ROOT = Path(__file__).resolve().parent.parent

# ---- what a run holds ----------------------------------------------------------------------------------------------


def test_a_run_holds_all_that_was_recorded(runs: Path) -> None:
    delivery = record(runs)
    assert (delivery.pending, delivery.refused) == (0, 0)
    [run] = the_runs(runs)
    assert run.info.run_id == delivery.run_id
    assert (run.info.status, run.info.run_name) == ("FINISHED", "first")
    assert run.data.params == {"lr": "0.0001"}
    assert run.data.tags["seed"] == "0"
    assert run.data.tags["data.digest"] == DATA.digest
    assert run.data.tags["package.torch"] == package_versions()["torch"]
    [dataset] = [given.dataset for given in run.inputs.dataset_inputs]
    assert (dataset.name, dataset.digest) == ("sample", DATA.digest[:36])
    assert json.loads(dataset.source) == {"uri": "/data"}
    assert json.loads(dataset.schema) == {"mlflow_colspec": [{"type": "string", "name": "text"}]}
    assert history(runs, run.info.run_id, "dev_f1") == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert (runs / "artifacts" / "lgsrr-sample" / run.info.run_id / "artifacts/plots/curves.png").exists()
    assert list(spool_folder(runs).iterdir()) == []


def test_a_param_or_tag_longer_than_mlflow_takes_is_cut_and_says_so(runs: Path) -> None:
    tracker = Tracker(runs, TrackingConfig(), "run")
    params: dict[str, object] = {"space": "x" * 7000} | {f"p{n}": n for n in range(150)}
    tracker.start(dataset="sample", name="first", params=params, tags={"note": "y" * 9000})
    assert tracker.close(60).refused == 0
    [run] = the_runs(runs)
    assert len(run.data.params) == 151
    assert run.data.params["space"].endswith("... (7000 characters)")
    assert len(run.data.params["space"]) == 6000
    assert len(run.data.tags["note"]) == 8000


def test_an_epoch_is_one_call_to_the_server(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    calls: list[int] = []
    log_batch = MlflowClient.log_batch

    def counted(self: Any, run_id: str, metrics: Any = (), params: Any = (), tags: Any = (), **rest: Any) -> Any:
        calls.extend([len(metrics)] if metrics else [])
        return log_batch(self, run_id, metrics, params, tags, **rest)

    monkeypatch.setattr(MlflowClient, "log_batch", counted)
    tracker = Tracker(runs, TrackingConfig(), "run")
    tracker.start(dataset="sample", name="first")
    tracker.metrics({f"number{n}": n for n in range(20)}, step=1)
    tracker.close(60)
    assert calls == [20]


def test_describe_counts_a_dataset_and_carries_its_digest() -> None:
    said = Utterance(id="1", text="Hi", split="train", label="Greet", descriptions=("waves",))
    data = Dataset(name="d", source="/x", labels=("Greet",), aspects=(Aspect(name="Actions"),), utterances=(said,))
    ref = describe(data)
    assert ref.digest == data.digest
    assert ref.profile["train utterances"] == 1
    assert list(ref.schema) == ["id", "text", "split", "label", "Actions"]


def test_children_and_parents_find_each_other_whichever_comes_first(runs: Path) -> None:
    def start(run_key: str, parent: str | None) -> None:
        tracker = Tracker(runs, TrackingConfig(), run_key)
        tracker.start(dataset="sample", name=run_key, parent_run_key=parent)
        tracker.close(60)

    start("early-child", "search")
    start("search", None)
    start("late-child", "search")
    by_name = {run.info.run_name: run for run in the_runs(runs)}
    parents = {name: run.data.tags.get("mlflow.parentRunId") for name, run in by_name.items()}
    search = by_name["search"].info.run_id
    assert parents == {"early-child": search, "late-child": search, "search": None}


# ---- exactly once --------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


class KilledAfter:
    """A sink that dies right after it has delivered its n-th event, before anybody could write that down."""

    def __init__(self, sink: MlflowSink, events: int) -> None:
        self._sink = sink
        self._left = events

    def deliver(self, run: RunStarted, event: Event) -> None:
        self._sink.deliver(run, event)
        self._left -= 1
        if self._left == 0:
            raise Killed

    def find(self, run_key: str) -> RunRef | None:
        return self._sink.find(run_key)


def journal_of_a_run(runs: Path, model: Path) -> Journal:
    """The journal of a whole run that has reached nobody."""
    away = MemorySink()
    away.away = True
    tracker = Tracker(runs, TrackingConfig(), "run", sink=away)
    tracker.start(dataset="sample", name="first", params={"lr": 1e-4}, data=DATA)
    tracker.metrics({"dev_f1": 0.1}, step=1)
    tracker.artifact(model / "weights.json")
    tracker.model(model, loader_module="standin")
    tracker.finish()
    tracker.close(0)
    return Journal(spool_folder(runs), "run")


def test_a_sender_killed_after_any_event_makes_nothing_twice(runs: Path, model: Path) -> None:
    journal = journal_of_a_run(runs, model)
    destination = TrackingConfig().destination(runs)
    with journal.sending():
        for _ in range(journal.pending()):
            sink = KilledAfter(MlflowSink(destination), events=2)
            with pytest.raises(Killed) if journal.pending() > 1 else pytest.MonkeyPatch.context():
                deliver(journal, sink, go_on=lambda: True, delivered=lambda _: None)
    [run] = the_runs(runs)
    assert run.info.status == "FINISHED"
    assert history(runs, run.info.run_id, "dev_f1") == [(1, 0.1)]
    assert len(run.inputs.dataset_inputs) == 1
    assert len(run.outputs.model_outputs) == 1
    assert not journal.path.exists()


def test_a_model_whose_upload_was_cut_off_is_completed_not_logged_again(
    runs: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    journal = journal_of_a_run(runs, model)
    upload: Callable[..., None] = MlflowClient.log_model_artifacts

    def cut_off(self: Any, model_id: str, folder: str) -> None:
        upload(self, model_id, str(Path(folder) / "data"))
        raise Killed

    monkeypatch.setattr(MlflowClient, "log_model_artifacts", cut_off)
    with journal.sending(), pytest.raises(Killed):
        deliver(journal, MlflowSink(TrackingConfig().destination(runs)), go_on=lambda: True, delivered=lambda _: None)
    [run] = the_runs(runs)
    with pytest.raises(ModelError, match="has no finished model"):
        resolve_model(f"runs:/{run.info.run_id}", runs, TrackingConfig())
    monkeypatch.setattr(MlflowClient, "log_model_artifacts", upload)
    assert Replay(runs, TrackingConfig()).close(60) == 0
    assert len(list((runs / "artifacts").rglob("MLmodel"))) == 1
    assert (resolve_model(f"runs:/{run.info.run_id}", runs, TrackingConfig()) / "weights.json").exists()


def test_a_second_run_that_a_late_answer_left_behind_is_removed(runs: Path) -> None:
    client = connect(TrackingConfig().destination(runs))
    tracker = Tracker(runs, TrackingConfig(), "run")
    tracker.start(dataset="sample", name="first")
    tracker.metrics({"dev_f1": 0.1}, step=1)
    tracker.close(60)
    [run] = the_runs(runs)
    client.create_run(run.info.experiment_id, start_time=1, tags={"lgsrr.run_key": "run"})
    again = Tracker(runs, TrackingConfig(), "run")
    again.start(dataset="sample", name="first")
    assert again.close(60).run_id == run.info.run_id
    assert [found.info.run_id for found in the_runs(runs)] == [run.info.run_id]


def test_a_driver_killed_between_events_continues_the_same_run(runs: Path) -> None:
    code = textwrap.dedent("""
        import os, pathlib, signal, sys, time
        from lgsrr.destination import TrackingConfig
        from lgsrr.tracker import Tracker
        tracker = Tracker(pathlib.Path(sys.argv[1]), TrackingConfig(), "run")
        tracker.start(dataset="sample", name="first", params={"lr": 1e-4, "workers": 1})
        for epoch in (1, 2, 3):
            tracker.metrics({"dev_f1": epoch / 10}, step=epoch)
        while tracker._sender.pending() > 2:  # the kill hits in the middle of sending
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    done = subprocess.run([sys.executable, "-c", code, str(runs)], check=False)
    assert done.returncode == -signal.SIGKILL
    tracker = Tracker(runs, TrackingConfig(), "run")
    tracker.start(dataset="sample", name="first", params={"lr": 1e-4, "workers": 2})
    for epoch in (1, 2, 3, 4, 5):
        tracker.metrics({"dev_f1": epoch / 10}, step=epoch)
    tracker.finish()
    assert tracker.close(60).pending == 0
    [run] = the_runs(runs)
    assert run.info.status == "FINISHED"
    assert history(runs, run.info.run_id, "dev_f1") == [(n, n / 10) for n in (1, 2, 3, 4, 5)]
    assert run.data.params["workers"] == "1"
    assert run.data.tags["resumed.workers"] == "2"


def test_a_resumed_run_that_repeats_its_epochs_writes_only_what_is_new(tmp_path: Path) -> None:
    sink = MemorySink()
    for now in (1000, 2000):
        tracker = Tracker(tmp_path, TrackingConfig(), "run", sink=sink, now_ms=iter((now,) * 9).__next__)
        tracker.start(dataset="sample", name="first")
        for epoch in range(1, now // 1000 + 1):
            tracker.metrics({"dev_f1": epoch / 10}, step=epoch)
        tracker.close(5)
    assert [event for _, event in sink.events if isinstance(event, Metrics)] == [
        Metrics(values={"dev_f1": 0.1}, step=1, time_ms=1000),
        Metrics(values={"dev_f1": 0.2}, step=2, time_ms=2000),
    ]


def test_a_run_that_had_failed_runs_again_under_the_same_id(runs: Path) -> None:
    first = Tracker(runs, TrackingConfig(), "run")
    first.start(dataset="sample", name="first")
    first.metrics({"dev_f1": 0.1}, step=1, time_ms=1000)
    first.finish("FAILED")
    run_id = first.close(60).run_id
    assert [run.info.status for run in the_runs(runs)] == ["FAILED"]
    again = Tracker(runs, TrackingConfig(), "run")
    again.start(dataset="sample", name="first")
    again.metrics({"dev_f1": 0.1}, step=1, time_ms=1000)
    again.metrics({"dev_f1": 0.2}, step=2, time_ms=2000)
    assert again.close(60).run_id == run_id
    assert [run.info.status for run in the_runs(runs)] == ["RUNNING"]
    assert run_id is not None
    assert history(runs, run_id, "dev_f1") == [(1, 0.1), (2, 0.2)]


def test_an_artifact_that_is_gone_is_set_aside_and_the_run_ends_well(runs: Path) -> None:
    tracker = Tracker(runs, TrackingConfig(), "run")
    tracker.start(dataset="sample", name="first")
    tracker.artifact(runs / "never-written.png")
    tracker.finish()
    delivery = tracker.close(60)
    assert (delivery.pending, delivery.refused) == (0, 1)
    assert f"1 records were not taken, see {spool_folder(runs) / 'run.refused'}" in delivery.where
    assert "never-written.png is no longer there" in (spool_folder(runs) / "run.refused").read_text()
    assert [run.info.status for run in the_runs(runs)] == ["FINISHED"]


def test_a_server_that_fails_while_it_makes_the_experiment_loses_nothing(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = load_mlflow()
    create: Callable[..., str] = mlflow.MlflowClient.create_experiment
    answers = [mlflow.MlflowException("timed out")]

    def fails_once(self: Any, *arguments: Any, **named: Any) -> str:
        if answers:
            raise answers.pop()
        return create(self, *arguments, **named)

    monkeypatch.setattr(mlflow.MlflowClient, "create_experiment", fails_once)
    delivery = record(runs)
    assert (delivery.pending, delivery.refused) == (0, 0)
    assert len(the_runs(runs)) == 1


def test_an_experiment_deleted_in_the_ui_comes_back(runs: Path) -> None:
    record(runs)
    client = connect(TrackingConfig().destination(runs))
    client.delete_experiment(client.get_experiment_by_name("lgsrr-sample").experiment_id)
    assert record(runs, run_key="second").pending == 0
    assert len(the_runs(runs)) == 2


# ---- a server that is not there ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dead", "hanging"])
def test_a_server_that_is_away_holds_up_nobody_and_keeps_the_spool(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    with hanging_server() as hanging:
        config = TrackingConfig(uri=hanging if kind == "hanging" else "http://127.0.0.1:9")
        tracker = Tracker(tmp_path, config, "run")
        times = []
        for step in range(20):
            began = time.perf_counter()
            if step == 0:
                tracker.start(dataset="sample", name="first")
            tracker.metrics({"dev_f1": 0.1}, step=step)
            times.append(time.perf_counter() - began)
            time.sleep(0.02)
        began = time.perf_counter()
        delivery = tracker.close(0.5)
        assert time.perf_counter() - began < 3
    assert_nobody_waited(times)
    assert (delivery.pending, delivery.run_id, delivery.run_url) == (21, None, None)
    assert "the next command sends them" in delivery.where
    assert Journal(spool_folder(tmp_path), "run").pending() == 21


def test_a_password_in_the_uri_is_neither_stored_nor_shown(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, TrackingConfig(uri="http://me:s3cret@127.0.0.1:9"), "run")
    tracker.start(dataset="sample", name="first")
    delivery = tracker.close(1)
    assert delivery.pending == 1
    assert "127.0.0.1:9" in delivery.where
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert "s3cret" not in delivery.where
    assert b"s3cret" not in written


# ---- names and links -----------------------------------------------------------------------------------------------


def test_the_database_of_the_runs_folder_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert TrackingConfig().destination(Path("runs")) == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert TrackingConfig(uri="sqlite:///x.db").destination(Path("runs")) == f"sqlite:///{tmp_path}/x.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000/")
    assert TrackingConfig().destination(Path("runs")) == "http://server:5000"
    assert TrackingConfig(uri="http://other:1").destination(Path("runs")) == "http://other:1"


@pytest.mark.parametrize("uri", ["runs", "file:///tmp/mlruns", "/tmp/mlruns", "ftp://host", "databricks"])
def test_a_uri_that_mlflow_keeps_no_runs_in_is_refused(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="expected http://HOST:PORT"):
        TrackingConfig(uri=uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI"):
        TrackingConfig().destination(Path("runs"))


def test_links_lead_to_the_run_and_hide_passwords() -> None:
    run = RunRef(run_id="abc", experiment_id="7")
    assert (
        run_url("http://me:pw@host:5000", run)
        == "http://host:5000/#/experiments/7/runs/abc?workflowType=machine_learning"
    )
    assert run_url("sqlite:////a b/mlflow.db", run) == (
        "mlflow ui --backend-store-uri 'sqlite:////a b/mlflow.db' --workers 1"
        "   then open http://127.0.0.1:5000/#/experiments/7/runs/abc?workflowType=machine_learning"
    )
    assert ui_hint("http://me:pw@host:5000") == "http://host:5000"
    assert without_password("http://host:5000") == "http://host:5000"


def test_the_code_is_named_by_its_commit_and_a_folder_outside_git_by_nothing(tmp_path: Path) -> None:
    assert git_commit(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@t"]
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("1")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert git_commit(tmp_path / "code") is None
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
    git_commit.cache_clear()
    state = git_commit(tmp_path / "code")
    assert state is not None
    assert (len(state.commit), state.dirty) == (40, False)
    (tmp_path / "code" / "a.py").write_text("2")
    git_commit.cache_clear()
    changed = git_commit(tmp_path / "code")
    assert changed is not None
    assert changed.dirty
    (tmp_path / "installed").mkdir()
    assert git_commit(tmp_path / "installed") is None


def test_requirements_are_pinned_without_build_marks() -> None:
    assert all("==" in line and "+" not in line for line in pinned_requirements())
    assert not any(line.startswith("lgsrr") for line in pinned_requirements())


def test_mlflow_is_imported_by_one_file_and_by_nothing_at_import() -> None:
    code = "import sys, lgsrr.tracking, lgsrr.tracker, lgsrr.logged_models; print('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
    sources = [path for folder in ("lgsrr", "pipelines", "tune") for path in (ROOT / folder).rglob("*.py")]
    assert [path.name for path in sources if _imports_mlflow(path)] == ["tracking.py"]


def _imports_mlflow(path: Path) -> bool:
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if any(name.partition(".")[0] == "mlflow" for name in names):
            return True
    return False


# ---- many at once --------------------------------------------------------------------------------------------------


def write_a_run(runs: Path, number: int) -> None:
    tracker = Tracker(runs, TrackingConfig(), f"run{number}")
    tracker.start(dataset="sample", name=f"run{number}", data=DATA)
    for epoch in range(30):
        tracker.metrics({"dev_f1": epoch / 10, "train_loss": 1.0}, step=epoch)
    tracker.finish()
    delivery = tracker.close(100)
    os._exit(delivery.pending + delivery.refused)


@pytest.mark.slow
def test_eight_processes_that_write_to_one_new_database_lose_nothing(
    tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert empty_database.exists()  # made in this process, so that the eight have mlflow in memory and begin at once
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_a_run, args=(tmp_path, number)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 8
    assert "locked" not in capfd.readouterr().err
    found = the_runs(tmp_path)
    assert sorted(run.info.run_name for run in found) == [f"run{number}" for number in range(8)]
    for run in found:
        assert history(tmp_path, run.info.run_id, "dev_f1") == [(n, n / 10) for n in range(30)]

"""32 runs that are written at once lose nothing, on an sqlite file and on a server."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lgsrr.destination import TrackingConfig
from lgsrr.replay import Replay
from lgsrr.tracker import Tracker
from lgsrr.tracking import connect
from tests.mlflow_server import MlflowServer
from tests.tiny import ROOT

PROCESSES, RUNS_OF_EACH, STEPS = 2, 16, 3
"""Most of a writer's time is its start, that is, the import of MLflow."""

WRITE = """
import sys
from pathlib import Path
from tests.test_many_writers import write
write(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
"""


def write(runs: Path, uri: str, process: int) -> None:
    """What one of several programs does: a search and its seeds, all at once."""
    trackers = [Tracker(runs, TrackingConfig(uri=uri), f"run-{process}-{n}") for n in range(RUNS_OF_EACH)]
    with ThreadPoolExecutor(RUNS_OF_EACH) as pool:
        list(pool.map(lambda n: record(trackers[n], process, n), range(RUNS_OF_EACH)))


def record(tracker: Tracker, process: int, number: int) -> None:
    parent = None if number == 0 else f"run-{process}-0"
    tracker.start(dataset="sample", name=f"{process}-{number}", params={"n": number}, parent_run_key=parent)
    for step in range(1, STEPS + 1):
        tracker.metrics({"dev_f1": step / 10}, step=step)
    tracker.tags({"lgsrr.state": "finished"})
    tracker.finish()
    tracker.close(timeout_s=20)


def check(uri: str) -> None:
    client = connect(uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "lgsrr-sample"]
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id], max_results=1000)}
    assert runs.keys() == {f"{p}-{n}" for p in range(PROCESSES) for n in range(RUNS_OF_EACH)}
    for name, run in runs.items():
        points = client.get_metric_history(run.info.run_id, "dev_f1")
        assert [(p.step, p.value) for p in sorted(points, key=lambda p: p.step)] == [(1, 0.1), (2, 0.2), (3, 0.3)]
        assert (run.info.status, run.data.tags["lgsrr.state"]) == ("FINISHED", "finished")
        process, number = name.split("-")
        parent = None if number == "0" else runs[f"{process}-0"].info.run_id
        assert run.data.tags.get("mlflow.parentRunId") == parent


def write_from_all(runs: Path, uri: str) -> None:
    run_writers(runs, uri)
    send_the_rest(runs, uri)


def run_writers(runs: Path, uri: str) -> None:
    """All programs at once, each with its runs."""
    commands = [[sys.executable, "-c", WRITE, str(runs), uri, str(n)] for n in range(PROCESSES)]
    running = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for command in commands
    ]
    for process in running:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output.decode()


def send_the_rest(runs: Path, uri: str) -> None:
    """What a server could not take in time, as the next command sends it."""
    replay = Replay(runs, TrackingConfig(uri=uri))
    assert replay.close(timeout_s=200) == 0, replay.trouble


@pytest.mark.slow
def test_32_runs_written_at_once_to_an_sqlite_file_are_all_there_once(runs: Path) -> None:
    uri = f"sqlite:///{runs / 'mlflow.db'}"
    write_from_all(runs, uri)
    check(uri)


@pytest.mark.slow
def test_32_runs_written_at_once_to_a_server_are_all_there_once(tmp_path: Path) -> None:
    server = MlflowServer(tmp_path)
    server.start()
    try:
        write_from_all(tmp_path / "runs", server.uri)
        check(server.uri)
    finally:
        server.kill()

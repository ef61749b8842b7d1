"""A run whose worker, driver or person at the keyboard ends it goes on with the same command, to the same numbers."""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lgsrr.config import TrainConfig
from lgsrr.destination import TrackingConfig
from lgsrr.run_folder import RunFolder
from lgsrr.spool import RunFinished
from lgsrr.tracking import connect
from lgsrr.train import Trained, Watcher, train
from tests.conftest import tracked_in_memory
from tests.memory_sink import MemorySink
from tests.processes import Process, descendants, kill, training_workers, wait_until
from tests.tiny import ROOT, epochs_kept, flags, numbers, result, tiny_config

pytestmark = pytest.mark.slow
EPOCHS = 8


def long_config(tiny_bert: Path, runs: Path) -> TrainConfig:
    """Long enough to be disturbed in the middle."""
    return tiny_config(tiny_bert, runs, limit=120, epochs=EPOCHS, patience=EPOCHS, lr=1e-3)


@pytest.fixture(scope="module")
def undisturbed(ray_cluster: None, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    with tracked_in_memory():
        return train(long_config(tiny_bert, tmp_path_factory.mktemp("runs")), Console(file=io.StringIO()))


def assert_the_same(trained: Trained, undisturbed: Trained) -> None:
    assert numbers(trained.history) == numbers(undisturbed.history)
    assert trained.scores == undisturbed.scores
    ours, theirs = (run.folder / "model" / "model.safetensors" for run in (trained, undisturbed))
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.fixture
def resumed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """After how many epochs runs went on, each time that one did."""
    found: list[int] = []
    show = Watcher._show

    def note(watcher: Watcher, kind: str, value: Any) -> None:
        if kind == "resumed":
            found.append(len(value))
        show(watcher, kind, value)

    monkeypatch.setattr(Watcher, "_show", note)
    return found


# ---- workers -------------------------------------------------------------------------------------------------------


def test_a_run_whose_worker_is_killed_ends_with_the_numbers_of_an_undisturbed_one(
    undisturbed: Trained, tiny_bert: Path, tmp_path: Path, sink: MemorySink, resumed: list[int]
) -> None:
    runs = tmp_path / "runs"

    def kill_the_worker() -> None:
        wait_until(lambda: epochs_kept(runs) >= 1, 120, "the first checkpoint")
        kill(training_workers(os.getpid()))

    killer = threading.Thread(target=kill_the_worker)
    killer.start()
    output = io.StringIO()
    trained = train(long_config(tiny_bert, runs), Console(file=output))
    killer.join()
    assert len(resumed) == 1
    assert 1 <= resumed[0] < EPOCHS
    assert f"goes on after epoch {resumed[0]}" in output.getvalue()
    assert_the_same(trained, undisturbed)
    assert [event.status for _, event in sink.events if isinstance(event, RunFinished)] == ["FINISHED"]


# ---- the driver ----------------------------------------------------------------------------------------------------


class Driver:
    """`python -m lgsrr.train` in a process group of its own, with a Ray cluster of its own."""

    def __init__(self, config: TrainConfig, log: Path) -> None:
        self.runs, self._log = Path(config.runs), log
        line = [sys.executable, "-m", "lgsrr.train", *flags(config)]
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                line, cwd=ROOT, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL, start_new_session=True
            )
        self._below: set[Process] = set()

    def wait_for_epoch(self, epoch: int) -> None:
        """Wait until the driver could go on after that epoch."""
        wait_until(lambda: epochs_kept(self.runs) >= epoch or self.has_ended(), 180, f"the checkpoint of epoch {epoch}")
        assert not self.has_ended(), self.output()
        self._below |= descendants(self.process.pid)

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def send(self, number: signal.Signals) -> int:
        """Send a signal to the whole group, as a terminal or the kernel does; the exit code."""
        os.killpg(self.process.pid, number)
        return self.process.wait(timeout=60)

    def left_over(self) -> list[Process]:
        return [process for process in self._below if process.is_alive()]

    def output(self) -> str:
        return self._log.read_text()

    def end(self) -> None:
        if not self.has_ended():
            self._below |= descendants(self.process.pid)
            self.process.kill()
            self.process.wait()
        kill(self.left_over())


@pytest.fixture
def drive(runs: Path, tmp_path: Path) -> Iterator[Callable[[TrainConfig], Driver]]:
    """Starts drivers, each with a log of its own, and ends them with the test."""
    started: list[Driver] = []

    def start(config: TrainConfig) -> Driver:
        started.append(Driver(config, tmp_path / f"train{len(started)}.log"))
        return started[-1]

    yield start
    for driver in started:
        driver.end()


def test_a_killed_driver_is_followed_by_the_same_command(
    drive: Callable[[TrainConfig], Driver], undisturbed: Trained, tiny_bert: Path, runs: Path
) -> None:
    config = long_config(tiny_bert, runs)
    first = drive(config)
    first.wait_for_epoch(1)
    assert first.send(signal.SIGKILL) == -signal.SIGKILL
    wait_until(lambda: not first.left_over(), 60, "Ray's processes to follow their driver")
    [folder] = (runs / "checkpoints").iterdir()
    assert not (runs / "train" / folder.name).exists(), "killed in the middle, it has no results yet"

    second = drive(config)
    assert second.process.wait(timeout=240) == 0, second.output()
    assert "goes on after epoch" in second.output()
    assert "epoch 1/" not in second.output()
    found = result(runs / "train" / folder.name)
    assert numbers(found["history"]) == numbers(undisturbed.history)
    assert found["scores"] == undisturbed.scores

    started = time.monotonic()
    third = drive(config)
    assert third.process.wait(timeout=60) == 0, third.output()
    assert "this very run is finished already; --again trains it once more" in third.output()
    assert time.monotonic() - started < 30
    assert_tracked_once(runs, "FINISHED")


def test_ctrl_c_ends_a_run_that_the_same_command_continues(
    ray_cluster: None,
    drive: Callable[[TrainConfig], Driver],
    tiny_bert: Path,
    runs: Path,
    resumed: list[int],
) -> None:
    """It learns next to nothing, so that no epoch is better than the first: that one is to be found at the end."""
    config = dataclasses.replace(long_config(tiny_bert, runs), lr=1e-12)
    driver = drive(config)
    driver.wait_for_epoch(2)
    assert driver.send(signal.SIGINT) == 130, driver.output()
    said = driver.output()
    for words in (
        "interrupted; the same command continues where it can",
        "  safe ",
        "epochs, in",
        "  continue   python",
    ):
        assert words in said, said
    assert "Traceback" not in driver.output()
    wait_until(lambda: not driver.left_over(), 20, "Ray's processes to end")
    assert_tracked_once(runs, "KILLED")

    trained = train(config, Console(file=io.StringIO()))
    assert len(resumed) == 1
    assert 2 <= resumed[0] < EPOCHS
    assert len(trained.history) == EPOCHS
    assert trained.scores["best_epoch"] == 1
    assert trained.scores["dev_f1"] == trained.history[0]["dev_f1"]
    assert_tracked_once(runs, "FINISHED")


def assert_tracked_once(runs: Path, status: str) -> None:
    client = connect(TrackingConfig().destination(runs))
    experiment = client.get_experiment_by_name("lgsrr-sample")
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.status == status
    points = {(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "dev_f1")}
    assert sorted(step for step, _ in points) == list(range(1, len(points) + 1)), "one value of each epoch"


def test_a_driver_that_dies_at_the_very_end_trains_nothing_again(
    ray_cluster: None, tiny_bert: Path, tmp_path: Path, sink: MemorySink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is trained and the model lies in the run's folder, when the power goes before the report is written."""
    config = tiny_config(tiny_bert, tmp_path / "runs", epochs=1)

    def die(*_: object) -> None:
        raise RuntimeError("the power went")

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "write_report", die)
        with pytest.raises(RuntimeError, match="the power went"):
            train(config, Console(file=io.StringIO()))
    output = io.StringIO()
    trained = train(config, Console(file=output))
    assert "epoch 1/1" not in output.getvalue()
    assert (trained.folder / "result.json").is_file()
    assert len(trained.history) == 1


def test_a_damaged_checkpoint_is_one_clear_message(
    ray_cluster: None, tiny_bert: Path, tmp_path: Path, sink: MemorySink
) -> None:
    """A run that is to go on from a checkpoint that somebody has truncated says so, and not more than once."""
    from lgsrr.errors import LgsrrError

    config = tiny_config(tiny_bert, tmp_path / "runs", epochs=1, max_failures=0)
    trained = train(config, Console(file=io.StringIO()))
    shutil.rmtree(trained.folder)
    [finished] = (tmp_path / "runs" / "checkpoints").glob("*/checkpoint_*/finished.json")
    finished.unlink()
    with pytest.raises(LgsrrError, match=r"checkpoint .* is damaged .*remove the run's folder"):
        train(config, Console(file=io.StringIO()))

"""What the tests share: one tiny encoder, one local Ray cluster, one cache, and a trained and tracked model."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.memory_sink import MemorySink
from tests.tiny import tiny_config, write_tiny_bert

if TYPE_CHECKING:
    from lgsrr.train import Trained

# Before torch is imported: on tensors as small as these, two threads wait for each other longer than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")


# How long an example takes says nothing on a machine with other work.
hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """$LGSRR_CACHE of the whole session: set before Ray starts, so that its workers have it too."""
    before = os.environ.get("LGSRR_CACHE")
    folder = tmp_path_factory.mktemp("cache")
    os.environ["LGSRR_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["LGSRR_CACHE"]
    else:
        os.environ["LGSRR_CACHE"] = before


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an encoder of two layers, 32 wide."""
    return write_tiny_bert(tmp_path_factory.mktemp("encoders") / "tiny")


@pytest.fixture(scope="module")
def ray_cluster(cache: Path) -> Iterator[None]:
    """A local Ray of four CPUs, whatever the machine has; `lgsrr.train` finds itself connected to it."""
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@contextlib.contextmanager
def tracked_in_memory() -> Iterator[MemorySink]:
    """Runs of this block reach all of tracking but MLflow itself, which takes seconds a run."""
    memory = MemorySink()
    with pytest.MonkeyPatch.context() as patched:
        for module in ("tracker", "replay"):
            patched.setattr(f"lgsrr.{module}.mlflow_sink", lambda destination: memory)
        yield memory


@pytest.fixture
def sink() -> Iterator[MemorySink]:
    """What a test's runs have recorded."""
    with tracked_in_memory() as memory:
        yield memory


@pytest.fixture(scope="session")
def empty_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder whose database has MLflow's tables and no run: making them takes seconds, a copy does not."""
    from lgsrr.tracking import connect

    folder = tmp_path_factory.mktemp("empty") / "runs"
    folder.mkdir()
    connect(f"sqlite:///{folder / 'mlflow.db'}")
    return folder


@pytest.fixture
def runs(tmp_path: Path, empty_runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runs folder of the test's own."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Path(shutil.copytree(empty_runs, tmp_path / "runs"))


@pytest.fixture(scope="session")
def tracked(
    cache: Path, tiny_bert: Path, empty_runs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Trained]:
    """A finished run in `<runs>/train/<name>`, recorded in `<runs>/mlflow.db`; Ray is started for it where none is.

    All tests read it and none writes to it, or the order of the tests would matter: see `tracked_copy`.
    """
    from lgsrr.train import train

    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("MLFLOW_TRACKING_URI", raising=False)
        runs = Path(shutil.copytree(empty_runs, tmp_path_factory.mktemp("tracked") / "runs"))
        trained = train(tiny_config(tiny_bert, runs))
    before = _contents(runs)
    yield trained
    assert _contents(runs) == before, "a test has written to the runs that all tests share; `tracked_copy` is for that"


def _contents(runs: Path) -> dict[str, str]:
    """What a runs folder holds: digests of its files by name, locks left out."""
    files = (path for path in runs.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(runs)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def tracked_copy(tracked: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the runs folder of `tracked`, database and all, for a test that writes to it."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Path(shutil.copytree(tracked.folder.parent.parent, tmp_path / "tracked-copy"))

"""What Ray Tune runs: one seed of a trial.

In a worker group a seed is a `TorchTrainer` of its own, whose reports reach Tune by Ray's callback. The trial itself
asks for no CPU then, so that trials that wait for their workers never hold what the workers wait for. A run of one
worker needs no group: it is trained in the trial's own process, which Tune uses again for the next seed. To start a
group takes Ray four new processes, ten seconds on two cores: longer than a seed of a small model takes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lgsrr import storage
from lgsrr.cluster import set_environment
from lgsrr.errors import LgsrrError
from lgsrr.place import Place
from lgsrr.run_folder import FINISHED
from lgsrr.worker import Job, train_job, train_worker
from tune.own_process import OwnProcessChannel, local_copy

RUN = "run"
"""Key of a seed's run in Tune's config."""
TRIAL_MEMORY = 300 * 2**20
"""Bytes that the driver of several workers takes: what Tune places it by."""
_MEMORY = "memory ran out"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What all trials of a step share."""

    storage: str
    """Folder or URI under which every run has its own."""
    jobs: Mapping[str, Job]
    """By the name of the run."""
    cpus: int
    """Of each worker."""
    gpus: float
    """Of each worker; 0 trains on CPUs."""
    workers: int
    """Of each run."""
    in_group: bool
    """Whether a run is trained by a worker group of Ray Train, or in its trial's own process."""
    place: Place | None = None
    """The storage, if that is a folder of the driver's."""

    def folder(self, run: str) -> str:
        """Where a run's checkpoints lie."""
        return storage.join(self.storage, run)

    def resources(self) -> dict[str, float]:
        """What Tune sets aside for one trial."""
        if self.in_group:
            return {"memory": TRIAL_MEMORY}
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})}


class Notices:
    """Stands for the board where the worker is this process; keeps what stopped it."""

    def __init__(self) -> None:
        self.failure: str | None = None

    def post(self, kind: str, value: Any) -> None:
        if kind == "failed":
            self.failure = value


def train_seed(config: Mapping[str, Any], work: Work) -> None:
    """Train one seed to its end, or go on with it; what stops it for good is reported, not raised.

    What is raised (a lost node, a killed process) Tune tries again.
    """
    from ray import tune

    run = str(config[RUN])
    if work.place is not None and (problem := work.place.problem()) is not None:
        tune.report({"misplaced": problem})
        return
    with _reported_failures():
        failure = _in_worker_group(run, work) if work.in_group else _in_own_process(run, work)
        if failure is not None:
            tune.report({"failure": failure})
            return
        if work.jobs[run].test:
            tune.report({"tested": _finished(work.folder(run))})


def _in_own_process(run: str, work: Work) -> str | None:
    from ray import tune

    notices = Notices()
    train_job(dataclasses.replace(work.jobs[run], board=notices), OwnProcessChannel(work.folder(run), tune.report))
    return notices.failure


def _in_worker_group(run: str, work: Work) -> str | None:
    import ray.train
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    from lgsrr.board import Board

    set_environment()
    board = Board.on_this_node()
    job = dataclasses.replace(work.jobs[run], board=board)
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"job": job},
        scaling_config=ray.train.ScalingConfig(
            num_workers=work.workers,
            use_gpu=work.gpus > 0,
            resources_per_worker={"CPU": work.cpus, **({"GPU": work.gpus} if work.gpus else {})},
        ),
        run_config=ray.train.RunConfig(
            name=run,
            storage_path=work.storage,
            callbacks=[TuneReportCallback()],
            failure_config=ray.train.FailureConfig(max_failures=job.config.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1, checkpoint_score_attribute="keep_score"),
        ),
    )
    trainer.fit()
    return next((value for kind, value in board.take() if kind == "failed"), None)


@contextlib.contextmanager
def _reported_failures() -> Iterator[None]:
    """What the configuration itself is to blame for ends this trial alone, and is not tried again."""
    import torch
    from ray import tune

    try:
        yield
    except LgsrrError as error:
        tune.report({"failure": str(error)})
    except (MemoryError, torch.OutOfMemoryError) as error:
        first = (str(error).splitlines() or [""])[0]
        tune.report({"failure": f"{_MEMORY}: {first}; a smaller batch_size or fewer trials at once need less"})


def _finished(folder: str) -> dict[str, Any]:
    """What the workers left at the end of a run that was tested."""
    with local_copy(newest_finished(folder)) as here:
        summary: dict[str, Any] = json.loads((here / FINISHED).read_text(encoding="utf-8"))
    return summary


def newest_finished(folder: str) -> str:
    """The checkpoint of a run that holds its model and its test scores: a path or URI.

    Ray Train names its checkpoints by the time, our own channel by `finished`; both sort behind the older ones.
    """
    names = [name for name in storage.names_in(folder) if name == "finished" or name.startswith("checkpoint_2")]
    with_end = [name for name in names if storage.kind(storage.join(folder, name, FINISHED)) == "file"]
    assert with_end, f"{folder} holds no finished checkpoint"
    return storage.join(folder, with_end[-1])


def model_folder(checkpoint: str) -> Path:
    """The model within a finished checkpoint that lies on this machine."""
    from lgsrr.run_folder import MODEL

    return Path(checkpoint) / MODEL

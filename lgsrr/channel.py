"""What a worker needs of its surroundings: which one it is, and where what it makes goes and comes from.

Here it is Ray Train's worker group, whose checkpoints lie under the run's name. A search that trains a run in its
trial's own process is the other (`tune.own_process`).
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

Write = Callable[[Path], None]
"""Fills an empty folder."""


class Channel(Protocol):
    """See above; the same methods on all workers of a run."""

    @property
    def rank(self) -> int:
        """Number of this worker, from 0."""

    @property
    def world(self) -> int:
        """How many workers there are."""

    def device(self) -> torch.device:
        """Where this worker computes."""

    def parallel(self, model: torch.nn.Module) -> torch.nn.Module:
        """The model as it is called in training: its gradients are the means over all workers."""

    def latest(self) -> contextlib.AbstractContextManager[Path | None]:
        """The newest checkpoint of this run, as a folder for the block; None where there is none."""

    def of_epoch(self, epoch: int) -> contextlib.AbstractContextManager[Path]:
        """The checkpoint of an epoch that was reported with the highest `keep_score` of all."""

    def report(self, metrics: Mapping[str, Any], write: Write | None) -> None:
        """Hand over figures, and the checkpoint that `write` makes; called by all workers, a barrier for them.

        Kept are the newest checkpoint and the one with the highest `keep_score`. None hands over figures alone.
        """


class RayTrainChannel:
    """In a worker of a `TorchTrainer`."""

    @property
    def rank(self) -> int:
        import ray.train

        return int(ray.train.get_context().get_world_rank())

    @property
    def world(self) -> int:
        import ray.train

        return int(ray.train.get_context().get_world_size())

    def device(self) -> torch.device:
        import ray.train.torch

        device: torch.device = ray.train.torch.get_device()
        return device

    def parallel(self, model: torch.nn.Module) -> torch.nn.Module:
        import ray.train.torch

        prepared: torch.nn.Module = ray.train.torch.prepare_model(model, move_to_device=False)
        return prepared

    @contextlib.contextmanager
    def latest(self) -> Iterator[Path | None]:
        import ray.train

        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            yield None
            return
        with checkpoint.as_directory() as folder:
            yield Path(folder)

    @contextlib.contextmanager
    def of_epoch(self, epoch: int) -> Iterator[Path]:
        import ray.train

        for reported in ray.train.get_all_reported_checkpoints():
            if reported.metrics["epoch"] == epoch:
                with reported.checkpoint.as_directory() as folder:
                    yield Path(folder)
                return
        raise AssertionError(f"Ray did not keep the checkpoint of epoch {epoch}, which was the best")

    def report(self, metrics: Mapping[str, Any], write: Write | None) -> None:
        import ray.train

        if write is None or self.rank != 0:
            ray.train.report(dict(metrics))
            return
        with tempfile.TemporaryDirectory(prefix="lgsrr-") as folder:
            write(Path(folder))
            ray.train.report(dict(metrics), checkpoint=ray.train.Checkpoint.from_directory(folder))

"""Train the small VideoLLaMA2 on drawn clips, on Ray Train.

    python -m pipelines.videollama2.train_small --out pipelines/videollama2/small

Three stages (`small_school`): 43,200 single frames for the tower, then 36,800 clips for the rest, drawn as they are
needed and never twice. On two cores the steps took 55 minutes. The same command goes on where it stopped; the folder is
written at the end, whole, with its card.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lgsrr import cli
from lgsrr.board import Board, Post
from lgsrr.cluster import connected, ctrl_c_interrupts
from lgsrr.errors import ConfigError, TrainingError
from lgsrr.files import write_json
from lgsrr.run_state import load_optimizer, save_optimizer

from .muon import Muon

STEPS = ("glances", "practice", "lessons")
"""The settings that say how many steps a stage has, in the order of the stages."""
_DECAY = 0.02
"""Weight decay of matrices."""
WEIGHTS, HEADS, WHERE, MATRICES = "weights.safetensors", "heads.safetensors", "where.json", "matrices"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmallConfig:
    """How the small model is trained."""

    out: Path
    """Folder that the trained model is written to."""
    work: Path = Path("runs/small")
    """Folder of the checkpoints."""
    glances: int = 900
    """Steps of the first stage, in which the tower learns."""
    glances_batch: int = 48
    """Frames in one step, of all workers."""
    practice: int = 800
    """Steps of the second, in which tower and connector learn."""
    lessons: int = 1500
    """Steps of the third, in which connector and language model learn."""
    lessons_batch: int = 16
    """Clips in one step of these two, of all workers."""
    lr: float = 1.5e-3
    """Highest learning rate of each stage, for AdamW; it rises over the first twentieth and falls to 0."""
    matrices_lr: float = 8e-3
    """The same for Muon, to which the matrices within the layers are left."""
    workers: int = 2
    """Processes, a CPU each; the numbers depend on it by rounding alone."""
    keep_every: int = 100
    """Steps between two checkpoints."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (*STEPS, "workers", "keep_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 1 or more")
        for name in ("glances_batch", "lessons_batch"):
            if getattr(self, name) % self.workers or getattr(self, name) < self.workers:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected a multiple of the {self.workers} workers")


def train_small(config: SmallConfig) -> None:
    """Train, or go on, and write the folder. Raises TrainingError where a worker cannot go on."""
    import ray.train
    from ray.train.torch import TorchTrainer

    from .small_card import write_card

    steps = "-".join(str(getattr(config, name)) for name in STEPS)
    name = f"small-{config.seed}-{steps}-{config.glances_batch}-{config.lessons_batch}"
    with connected(), ctrl_c_interrupts():
        board = Board.on_this_node()
        trainer = TorchTrainer(
            _worker,
            train_loop_config={"config": config, "board": board},
            scaling_config=ray.train.ScalingConfig(num_workers=config.workers, resources_per_worker={"CPU": 1}),
            run_config=ray.train.RunConfig(
                name=name,
                storage_path=str(config.work.resolve()),
                failure_config=ray.train.FailureConfig(max_failures=3),
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
            ),
        )
        print(f"{len(STEPS)} stages; a line and a checkpoint every {config.keep_every} steps", flush=True)
        try:
            with _printed(board):
                result = trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise TrainingError(f"the small model's training stopped: {error}; the same command goes on") from error
        assert result.checkpoint is not None
        with result.checkpoint.as_directory() as folder:
            seconds = json.loads((Path(folder) / WHERE).read_text())["seconds"]
            write_card(config.out, load_file(Path(folder) / WEIGHTS), dataclasses.asdict(config), seconds)
    print(f"the small model is in {config.out}")


@contextlib.contextmanager
def _printed(board: Board) -> Iterator[None]:
    """Prints what workers post while the block runs."""
    over = threading.Event()

    def watch() -> None:
        is_last = False
        while not is_last:
            is_last = over.wait(1.0)
            for _, line in board.take():
                print(line, flush=True)

    thread = threading.Thread(target=watch, daemon=True, name="printer")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=5.0)


# ---- in a worker ---------------------------------------------------------------------------------------------------


def _worker(given: dict[str, Any]) -> None:
    """All stages, from the newest checkpoint."""
    from lgsrr.channel import RayTrainChannel

    from .processing import VideoLlama2Processor
    from .small import untrained, write_small_settings
    from .small_school import Glances, Lessons, Practice

    config: SmallConfig = given["config"]
    torch.set_num_threads(1)
    channel = RayTrainChannel()
    with tempfile.TemporaryDirectory() as folder:
        write_small_settings(Path(folder))
        model = untrained(Path(folder), config.seed)
        processor = VideoLlama2Processor.from_pretrained(folder)
    torch.manual_seed(config.seed)
    practice = Practice(model, processor)
    stages = (Glances(model, processor), practice, Lessons(practice))
    pupil = _Pupil(config, channel, model, given["board"])
    for number, stage in enumerate(stages):
        pupil.learn(number, stage)


class _Pupil:
    """A worker on its way through the stages."""

    def __init__(self, config: SmallConfig, channel: Any, model: nn.Module, board: Post) -> None:
        self.config, self.channel, self.model, self.board = config, channel, model, board
        with channel.latest() as folder:
            where = {"stage": 0, "step": 0, "seconds": 0.0} if folder is None else self._read(folder)
        self.stage, self.step, self.seconds = int(where["stage"]), int(where["step"]), where["seconds"]

    def _read(self, folder: Path) -> dict[str, float]:
        self.model.load_state_dict(load_file(folder / WEIGHTS), strict=False)  # lm_head is tied
        where: dict[str, float] = json.loads((folder / WHERE).read_text())
        return where

    def learn(self, number: int, stage: Any) -> None:
        """All steps of a stage that are not done yet."""
        if number < self.stage:
            return
        steps, batch = self._size(number)
        learned = stage.learned()
        trained, optimizer = list(learned.values()), _Optimizer(learned, self.config)
        start = self.step if number == self.stage else 0
        if start:
            with self.channel.latest() as folder:
                stage.heads.load_state_dict(load_file(folder / HEADS))
                optimizer.load(folder)
        stage.train()
        began, figures = time.perf_counter(), _Means()
        for step in range(start, steps):
            loss, seen = stage(list(self._batch(stage, number, step, batch)))
            stage.zero_grad()
            loss.backward()
            self._average(trained)
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step(_share(step, steps))
            figures.add({"loss": float(loss.detach()), **seen})
            if (step + 1) % self.config.keep_every == 0 or step + 1 == steps:
                self._report(number, step + 1, steps, stage, optimizer, figures, time.perf_counter() - began)
                began, figures = time.perf_counter(), _Means()

    def _size(self, number: int) -> tuple[int, int]:
        steps: int = getattr(self.config, STEPS[number])
        return steps, self.config.glances_batch if number == 0 else self.config.lessons_batch

    def _batch(self, stage: Any, number: int, step: int, batch: int) -> Iterator[Any]:
        from .small import small
        from .small_lessons import glance, lesson

        share = batch // self.channel.world
        for index in range(self.channel.rank * share, (self.channel.rank + 1) * share):
            name = f"{self.config.seed}/{number}/{step}/{index}"
            yield lesson(name, small().frames) if number else glance(name)

    def _average(self, parameters: Sequence[nn.Parameter]) -> None:
        """Each gradient becomes its mean over the workers. Not DDP: a stage leaves parts of the model without one."""
        if self.channel.world == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= self.channel.world
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def _report(
        self, number: int, step: int, steps: int, stage: Any, optimizer: Any, figures: _Means, seconds: float
    ) -> None:
        self.seconds += seconds
        where = {"stage": number, "step": step, "seconds": self.seconds}

        def write(folder: Path) -> None:
            weights: dict[str, Tensor] = {
                name: value.contiguous() for name, value in self.model.state_dict().items() if name != "lm_head.weight"
            }
            save_file(weights, folder / WEIGHTS)
            save_file(stage.heads.state_dict(), folder / HEADS)
            optimizer.save(folder)
            write_json(folder / WHERE, where)

        means = figures.means()
        self.channel.report({**means, **where}, write)
        if self.channel.rank == 0:
            told = "  ".join(f"{name} {value:.3f}" for name, value in means.items())
            self.board.post("line", f"stage {number + 1}, step {step} of {steps}  {told}  ({seconds:.0f} s)")


class _Means:
    """Means of figures over steps."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, figures: dict[str, float]) -> None:
        self._count += 1
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        return {name: value / self._count for name, value in self._sums.items()}


class _Optimizer:
    """Muon for the matrices within the layers, and AdamW for all else.

    After 400 steps of single frames the tower told 73 % of faces right, and 31 % with AdamW alone.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], config: SmallConfig) -> None:
        matrices = [p for name, p in parameters.items() if _is_matrix(name, p)]
        others = [p for name, p in parameters.items() if not _is_matrix(name, p)]
        self._muon = Muon(matrices, weight_decay=_DECAY)
        self._adamw = torch.optim.AdamW(_groups(others), betas=(0.9, 0.98))
        self._lrs = {self._muon: config.matrices_lr, self._adamw: config.lr}

    def step(self, share: float) -> None:
        """One step by the gradients, with that share of the highest learning rates."""
        for optimizer, lr in self._lrs.items():
            for group in optimizer.param_groups:
                group["lr"] = lr * share
            optimizer.step()

    def save(self, folder: Path) -> None:
        """Write what both remember."""
        (folder / MATRICES).mkdir()
        save_optimizer(folder / MATRICES, self._muon)
        save_optimizer(folder, self._adamw)

    def load(self, folder: Path) -> None:
        """Read it again."""
        load_optimizer(folder / MATRICES, self._muon)
        load_optimizer(folder, self._adamw)


def _is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Of a layer of the model; first and last layers, heads, biases and depthwise convolutions are not."""
    inner = any(part in name for part in (".layers.", "mm_projector."))
    return inner and parameter.ndim > 1 and parameter.shape[1] > 1


def _groups(parameters: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
    """Matrices decay, vectors do not."""
    matrices, vectors = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": _DECAY}, {"params": vectors, "weight_decay": 0.0}]


def _share(step: int, steps: int) -> float:
    """Of the highest learning rate: up over the first twentieth, then down a cosine to 0."""
    warm = max(1, steps // 20)
    return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def main() -> None:
    cli.run(
        train_small,
        SmallConfig,
        prog="python -m pipelines.videollama2.train_small",
        description=__doc__.split("\n\n")[0],
        example="python -m pipelines.videollama2.train_small --out pipelines/videollama2/small",
    )


if __name__ == "__main__":
    main()

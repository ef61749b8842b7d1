"""Train the small VideoLLaMA2 on drawn clips, on Ray Train.

    python -m pipelines.videollama2.train_small --out pipelines/videollama2/small

Eight stages (`small_school`): 72,000 single frames for the tower, then 68,800 clips for the rest, drawn as they are
needed and never twice. The same command goes on where it stopped; the folder is written at the end, whole, with its
card. By the seconds of its steps it takes two hours and a quarter on two cores.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lgsrr import cli
from lgsrr.cluster import connected, ctrl_c_interrupts
from lgsrr.errors import ConfigError, TrainingError
from lgsrr.files import write_json
from lgsrr.run_state import load_optimizer, save_optimizer

STEPS = ("glances", "lessons", "looks", "review", "practice", "recital", "rehearsal", "encore")
"""The settings that say how many steps a stage has, in the order of the stages."""
WEIGHTS, HEADS, WHERE = "weights.safetensors", "heads.safetensors", "where.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmallConfig:
    """How the small model is trained."""

    out: Path
    """Folder that the trained model is written to."""
    work: Path = Path("runs/small")
    """Folder of the checkpoints."""
    glances: int = 1500
    """Steps of the first stage."""
    glances_batch: int = 48
    """Frames in one step, of all workers."""
    lessons: int = 1200
    """Steps of the second stage."""
    looks: int = 300
    """Steps of the third stage."""
    review: int = 400
    """Steps of the fourth, in which the language model goes on to learn from what the third has put into the tokens."""
    practice: int = 600
    """Steps of the fifth, in which all parts learn together how heads and hands move, heads most of all."""
    recital: int = 700
    """Steps of the sixth, in which the language model learns to say what the fifth has put into the tokens."""
    rehearsal: int = 400
    """Steps of the seventh, as the fifth, with as many nods as there are waves."""
    encore: int = 700
    """Steps of the eighth, as the sixth, with clips as in the seventh."""
    lessons_batch: int = 16
    """Clips in one step of these seven, of all workers."""
    lr: float = 1.5e-3
    """Highest learning rate of each stage; it rises over the first twentieth and falls to 0."""
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

    name = f"small-{config.seed}-{config.glances}x{config.glances_batch}-{config.lessons}x{config.lessons_batch}"
    with connected(), ctrl_c_interrupts():
        trainer = TorchTrainer(
            _worker,
            train_loop_config={"config": config},
            scaling_config=ray.train.ScalingConfig(num_workers=config.workers, resources_per_worker={"CPU": 1}),
            run_config=ray.train.RunConfig(
                name=name,
                storage_path=str(config.work.resolve()),
                failure_config=ray.train.FailureConfig(max_failures=3),
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
            ),
        )
        try:
            result = trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise TrainingError(f"the small model's training stopped: {error}; the same command goes on") from error
        assert result.checkpoint is not None
        with result.checkpoint.as_directory() as folder:
            write_card(config.out, load_file(Path(folder) / WEIGHTS), dataclasses.asdict(config))
    print(f"the small model is in {config.out}")


# ---- in a worker ---------------------------------------------------------------------------------------------------


def _worker(given: dict[str, Any]) -> None:
    """All stages, from the newest checkpoint."""
    from lgsrr.channel import RayTrainChannel

    from .processing import VideoLlama2Processor
    from .small import untrained, write_small_settings
    from .small_school import Encore, Glances, Lessons, Looks, Practice, Recital, Rehearsal

    config: SmallConfig = given["config"]
    torch.set_num_threads(1)
    channel = RayTrainChannel()
    with tempfile.TemporaryDirectory() as folder:
        write_small_settings(Path(folder))
        model = untrained(Path(folder), config.seed)
        processor = VideoLlama2Processor.from_pretrained(folder)
    torch.manual_seed(config.seed)
    lessons = Lessons(model, processor)
    later = (Looks, Looks, Practice, Recital, Rehearsal, Encore)
    stages = (Glances(model, processor), lessons, *(stage(lessons) for stage in later))
    pupil = _Pupil(config, channel, model)
    for number, stage in enumerate(stages):
        pupil.learn(number, stage)


class _Pupil:
    """A worker on its way through the stages."""

    def __init__(self, config: SmallConfig, channel: Any, model: nn.Module) -> None:
        self.config, self.channel, self.model = config, channel, model
        with channel.latest() as folder:
            self.where = {"stage": 0, "step": 0} if folder is None else self._read(folder)

    def _read(self, folder: Path) -> dict[str, int]:
        import json

        self.model.load_state_dict(load_file(folder / WEIGHTS), strict=False)  # lm_head is tied
        where: dict[str, int] = json.loads((folder / WHERE).read_text())
        return where

    def learn(self, number: int, stage: Any) -> None:
        """All steps of a stage that are not done yet."""
        if number < self.where["stage"]:
            return
        steps, batch = self._size(number)
        optimizer = torch.optim.AdamW(_groups(stage.trained()), lr=self.config.lr, betas=(0.9, 0.98))
        start = self.where["step"] if number == self.where["stage"] else 0
        if start:
            with self.channel.latest() as folder:
                stage.heads.load_state_dict(load_file(folder / HEADS))
                load_optimizer(folder, optimizer)
        stage.train()
        began, figures = time.perf_counter(), _Means()
        for step in range(start, steps):
            for group in optimizer.param_groups:
                group["lr"] = self.config.lr * _share(step, steps)
            loss, seen = stage(list(self._batch(stage, number, step, batch)))
            optimizer.zero_grad()
            loss.backward()
            self._average(stage.trained())
            nn.utils.clip_grad_norm_(stage.trained(), 1.0)
            optimizer.step()
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
            yield lesson(name, small().frames, heads=stage.heads_turn) if number else glance(name)

    def _average(self, parameters: Sequence[nn.Parameter]) -> None:
        """Each gradient becomes its mean over the workers. Not DDP: the tower of the second stage has none."""
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
        where = {"stage": number, "step": step}

        def write(folder: Path) -> None:
            weights: dict[str, Tensor] = {
                name: value.contiguous() for name, value in self.model.state_dict().items() if name != "lm_head.weight"
            }
            save_file(weights, folder / WEIGHTS)
            save_file(stage.heads.state_dict(), folder / HEADS)
            save_optimizer(folder, optimizer)
            write_json(folder / WHERE, where)

        means = figures.means()
        self.channel.report({**means, **where, "seconds": seconds}, write)
        if self.channel.rank == 0:
            told = "  ".join(f"{name} {value:.3f}" for name, value in means.items())
            print(f"stage {number + 1}, step {step} of {steps}  {told}  ({seconds:.0f} s)", flush=True)


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


def _groups(parameters: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
    """Matrices decay, vectors do not."""
    matrices, vectors = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": 0.02}, {"params": vectors, "weight_decay": 0.0}]


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

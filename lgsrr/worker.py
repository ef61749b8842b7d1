"""One worker of a training run: what Ray Train calls in each of the DDP processes.

A global batch is cut among the workers, and each worker's loss is weighed so that the mean of their gradients is the
gradient of the whole batch: n workers train as one does. After every epoch the first worker hands Ray a checkpoint;
a run that is started again goes on from the last. Everything random is drawn from (seed, epoch, worker), so that an
epoch has the same numbers whether the run was interrupted before it or not.

Shapes: B utterance of this worker's share.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import time
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ray
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from lgsrr.batch import Rows
from lgsrr.board import Post
from lgsrr.channel import Channel, RayTrainChannel
from lgsrr.config import TrainConfig
from lgsrr.errors import LgsrrError, TrainingError
from lgsrr.features import Features, cache_folder
from lgsrr.frozen import digest_of_weights, kept_batches
from lgsrr.guard import LossGuard, check_answers
from lgsrr.inference import Answers, answer, dealt, merge
from lgsrr.loss import neural_ndcg_per_utterance, ranking_relevance
from lgsrr.memory import TRIM_EVERY, bound_caches, trim
from lgsrr.metrics import scores
from lgsrr.model import LGSRR, Relations, learns_importance
from lgsrr.optimizer import make_optimizer, rate_at, set_rate, uncorrected
from lgsrr.place import Place
from lgsrr.predictions import predictions_table, write_predictions
from lgsrr.pretrained import encoder_folder, load_encoder
from lgsrr.records import Split
from lgsrr.run_folder import FINISHED, MODEL, PREDICTIONS
from lgsrr.run_state import RunState, load_optimizer, load_trained, read_state, save_state
from lgsrr.saved_model import ModelCard, new_model, save_model
from lgsrr.signature import write_signature

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker is given."""

    config: TrainConfig
    """With `k` and `cpus_per_worker` settled."""
    card: ModelCard
    """Of the model to make; its scores are filled in at the end."""
    fingerprint: str
    features: ray.ObjectRef[Features]
    """In the object store, one copy per node; of the K aspects used, or of more."""
    board: Post
    """Where the first worker posts what the driver shows and records."""
    place: Place | None = None
    """Where checkpoints go, if that is a folder of the driver's."""
    test: bool = True
    """Whether the best epoch is tested, and its model saved, at the end. A search leaves the test split alone until it
    has chosen; the same job with True then goes on from where this one ended."""


def train_worker(loop_config: dict[str, Any]) -> None:
    """Entry point for Ray Train."""
    train_job(loop_config["job"], RayTrainChannel())


def train_job(job: Job, channel: Channel) -> None:
    """Train to the end, or to a loss that is not finite."""
    try:
        Worker(job, channel).run()
    except TrainingError as error:
        # Raised by all workers in the same step, and again however often Ray would try: the driver raises it.
        job.board.post("failed", str(error))
    except LgsrrError as error:
        job.board.post("failed", str(error))
        raise


class Worker:
    """The state of one worker between steps."""

    def __init__(self, job: Job, channel: Channel) -> None:
        self.job, self.config, self.channel = job, job.config, channel
        self.rank, self.world = channel.rank, channel.world
        self._check_place()
        torch.set_num_threads(self.config.cpus_per_worker or 1)
        bound_caches()
        torch.manual_seed(self.config.seed)
        self.device = channel.device()
        features: Features = ray.get(job.features)
        num_aspects = len(job.card.aspects)
        self.features = features.first_aspects(num_aspects)
        folder = encoder_folder(self.config.encoder)
        encoder = load_encoder(
            folder, self.config.pooling, self.config.trainable_layers, dropout=self.config.encoder_dropout
        )
        self.tokenizer_folder = folder
        self.model: LGSRR = new_model(job.card, encoder).to(self.device)
        weights = digest_of_weights(folder) if encoder.has_frozen else ""
        self.maker = kept_batches(features, encoder, weights, cache_folder(), num_aspects)
        self.parallel = channel.parallel(self.model)
        self.optimizer = make_optimizer(self.model, self.config)
        self.guard = LossGuard(self.features.ids)
        self.train_rows = self.features.indices("train")
        self.steps_per_epoch = math.ceil(len(self.train_rows) / self.config.batch_size)
        self.state = RunState(fingerprint=job.fingerprint)

    def _check_place(self) -> None:
        """Raises TrainingError, in all workers alike, where one of them does not see the driver's checkpoints."""
        problem = None if self.job.place is None else self.job.place.problem()
        if found := [told for told in self._gather(problem) if told is not None]:
            raise TrainingError(found[0])

    def run(self) -> None:
        """Train what is left to train, then test the best epoch."""
        with self.channel.latest() as checkpoint:
            if checkpoint is not None:
                if (checkpoint / FINISHED).is_file():
                    return
                self._go_on_from(checkpoint)
        while self.state.epochs_done < self.config.epochs and not self.state.out_of_patience(self.config.patience):
            self._epoch()
        if self.job.test:
            self._finish()
        else:
            self.channel.report({"history": list(self.state.history), "ended": True}, None)

    def _go_on_from(self, folder: Path) -> None:
        self.state = read_state(folder, self.job.fingerprint)
        load_trained(folder, self.model)
        load_optimizer(folder, self.optimizer)
        self._post("resumed", self.state.history)

    # One epoch

    def _epoch(self) -> None:
        started = time.monotonic()
        figures = self._train_epoch(self.state.epochs_done)
        seconds = time.monotonic() - started
        figures["utterances_per_second"] = len(self.train_rows) / seconds
        epoch = self.state.epochs_done + 1
        figures |= {f"dev_{name}": value for name, value in self._evaluate("dev", epoch)[1].items()}
        figures |= {"epoch": epoch, "seconds": seconds, "time_ms": int(time.time() * 1000)}
        is_best = self.state.add(figures)
        # Ray keeps the checkpoint of the highest score and the last one: the best epoch and the one to go on from.
        report = {"epoch": epoch, "dev_f1": figures["dev_f1"], "history": list(self.state.history)}
        self.channel.report(report | {"keep_score": epoch if is_best else 0}, self._write_state)
        self._post("epoch", figures)  # not before: an epoch whose checkpoint is lost is trained, and posted, once more

    def _write_state(self, folder: Path) -> None:
        save_state(folder, self.state, self.model, self.optimizer)

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        config = self.config
        self._seed(epoch)
        self.parallel.train()
        total_steps = self.steps_per_epoch * config.epochs
        sums_3 = torch.zeros(3, device=self.device)
        for step, batch_rows in enumerate(self._shuffled_batches(epoch)):
            steps_done = epoch * self.steps_per_epoch + step
            longer = 1.0 if config.bias_correction else uncorrected(steps_done)
            set_rate(self.optimizer, longer * rate_at(steps_done, total_steps, config.warmup))
            sums_3 += self._step(epoch, step, batch_rows)
            if self.device.type == "cpu" and step % TRIM_EVERY == TRIM_EVERY - 1:
                trim()
            self._post_progress(epoch, step)
        self.guard.check()
        if self.world > 1:
            dist.all_reduce(sums_3)
        cross_entropy, ranking, count = sums_3.tolist()
        return {
            "train_loss": (cross_entropy + config.rank_weight * ranking) / count,
            "train_cross_entropy": cross_entropy / count,
            "train_ranking_loss": ranking / count,
            "lr": max(group["lr"] for group in self.optimizer.param_groups),
        }

    def _seed(self, epoch: int) -> None:
        seeds = np.random.SeedSequence([self.config.seed, epoch, self.rank]).generate_state(1, dtype=np.uint64)
        torch.manual_seed(int(seeds[0]) >> 1)

    def _shuffled_batches(self, epoch: int) -> list[Rows]:
        order = np.random.default_rng([self.config.seed, epoch]).permutation(self.train_rows)
        size = self.config.batch_size
        return [order[start : start + size] for start in range(0, len(order), size)]

    def _step(self, epoch: int, step: int, batch_rows: Rows) -> Tensor:
        """One step on a global batch; returns this worker's sums of cross entropy, ranking loss and utterances."""
        rows = batch_rows[self.rank :: self.world]
        # A worker must take part in the reduction: one without a share takes an utterance at weight 0.
        weight = 1.0 if len(rows) else 0.0
        rows = rows if len(rows) else batch_rows[:1]
        batch = self.maker(rows).to(self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            relations = self.parallel(batch)
        cross_entropy_B = F.cross_entropy(relations.logits_BC, batch.labels_B, reduction="none")
        ranking_B = self._ranking_loss(relations, batch.positions_BK)
        loss_B = cross_entropy_B + self.config.rank_weight * ranking_B
        self.guard.add(epoch + 1, step + 1, rows, loss_B)

        self.optimizer.zero_grad(set_to_none=True)
        # DDP takes the mean over workers; this makes it the mean over the global batch.
        (loss_B.sum() * (weight * self.world / len(batch_rows))).backward()
        if self.config.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(self._trained, self.config.max_grad_norm)
        self.optimizer.step()
        sums = torch.stack([cross_entropy_B.detach().sum(), ranking_B.detach().sum(), loss_B.new_tensor(len(rows))])
        return sums * weight

    def _ranking_loss(self, relations: Relations, positions_BK: Tensor | None) -> Tensor:
        if positions_BK is None or self.config.rank_weight == 0 or not learns_importance(self.config.relations):
            return relations.importance_BS.new_zeros(len(relations.importance_BS))
        relevance_BS = ranking_relevance(positions_BK)
        return 1 - neural_ndcg_per_utterance(relations.importance_BS, relevance_BS, self.config.tau)

    @functools.cached_property
    def _trained(self) -> list[Tensor]:
        return [p for p in self.model.parameters() if p.requires_grad]

    # Evaluation

    def _evaluate(self, split: Split, epoch: int) -> tuple[Answers, dict[str, float]]:
        """Every utterance of a split once, whatever the number of workers; all workers get all answers."""
        rows = self.features.indices(split)
        mine = answer(self.model, self.maker, dealt(rows, self.config.batch_size, self.rank, self.world), self.device)
        answers = merge(self._gather(mine))
        check_answers(self.features.ids, answers, split, epoch)
        labels = self.features.labels_U[rows]
        figures = scores(labels, answers.predictions_B, len(self.job.card.labels))
        logits_BC = torch.from_numpy(answers.logits_BC)
        return answers, figures | {"loss": F.cross_entropy(logits_BC, torch.from_numpy(labels)).item()}

    def _gather(self, mine: T) -> list[T]:
        """What every worker has, for all of them."""
        if self.world == 1:
            return [mine]
        gathered: list[Any] = [None] * self.world
        dist.all_gather_object(gathered, mine)
        return gathered

    # The end

    def _finish(self) -> None:
        self._load_best()
        answers, figures = self._evaluate("test", self.state.best_epoch)
        best = self.state.history[self.state.best_epoch - 1]
        final = {f"test_{name}": value for name, value in figures.items()}
        final |= {name: value for name, value in best.items() if name.startswith("dev_")}
        card = dataclasses.replace(self.job.card, scores=final | {"best_epoch": self.state.best_epoch})

        def write(folder: Path) -> None:
            save_model(folder / MODEL, card, self.model, self.tokenizer_folder)
            write_signature(folder / MODEL, card)
            write_predictions(folder / PREDICTIONS, predictions_table(self.features, card, answers))
            summary = {"scores": card.scores, "history": self.state.history, "fingerprint": self.job.fingerprint}
            (folder / FINISHED).write_text(json.dumps(summary), encoding="utf-8")

        report = final | {"history": list(self.state.history), "keep_score": self.config.epochs + 1}
        self.channel.report(report, write)

    def _load_best(self) -> None:
        if self.state.best_epoch == self.state.epochs_done:
            return
        with self.channel.of_epoch(self.state.best_epoch) as folder:
            load_trained(folder, self.model)

    # What leaves the worker

    def _post(self, kind: str, value: Any) -> None:
        if self.rank == 0:
            self.job.board.post(kind, value)

    _posted_at = -math.inf

    def _post_progress(self, epoch: int, step: int) -> None:
        if time.monotonic() - self._posted_at > 0.5:
            self._posted_at = time.monotonic()
            self._post("step", {"epoch": epoch + 1, "step": step + 1, "steps": self.steps_per_epoch})

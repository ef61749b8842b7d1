"""Train LGSRR on Ray Train, and leave a reloadable model and a tracked run.

    python -m lgsrr.train --dataset mintrec2 --data DIR --epochs 5

The driver reads and checks the data, makes the features, starts the workers (`lgsrr.worker`), shows and records what
they post, and at the end lays the results into `runs/train/<name>/`. The name holds a hash of the settings and the
data: the same command finds the same folder, goes on from its last epoch, or says that it is done.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from lgsrr import cli, storage
from lgsrr.catalog import load_dataset
from lgsrr.config import TrainConfig, recipe
from lgsrr.destination import TrackingConfig
from lgsrr.early_end import Helps, accounted
from lgsrr.errors import TrainingError
from lgsrr.features import Features, Lengths, cache_folder, check_ranked, featurise
from lgsrr.model import learns_importance
from lgsrr.preflight import check_batches, check_encoder, check_labels
from lgsrr.pretrained import encoder_config, encoder_folder
from lgsrr.records import SPLITS, Dataset
from lgsrr.replay import Replay
from lgsrr.run_folder import RunFolder, choose_run_folder
from lgsrr.saved_model import ModelCard
from lgsrr.tracker import Delivery, Tracker, describe

PROG = "python -m lgsrr.train"
HELPS: Helps = (
    (r"memory|\boom\b", "a smaller --batch-size, or fewer --trainable-layers"),
    ("not finite", "a smaller --lr, or --bias-correction"),
    ("no space|disk|quota", "--runs on a disk with room"),
    ("store|s3://", "--storage on a store that all nodes reach"),
    ("more often than", "a larger --max-failures, where nodes come and go"),
)
EXAMPLE = f"{PROG} --dataset mintrec2 --data ../LGSRR/data --lr 1e-4 --epochs 5 --seed 0"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """What a run left."""

    folder: Path
    """Of the run; the model is in `model/` of it."""
    scores: dict[str, float]
    history: list[dict[str, float]]
    delivery: Delivery | None
    """How far its record came; None where the run was finished before."""


def train(config: TrainConfig, console: Console | None = None) -> Trained:
    """Train as configured; a run that is finished already is returned as it is.

    Raises:
        LgsrrError: of the kinds in `lgsrr.errors`, with one message for the user.
    """
    console = console or Console(stderr=True)
    dataset = load_dataset(config.dataset, config.data).head(config.limit)
    check_labels(dataset)
    check_batches(config, dataset)
    if config.k is None:
        config = dataclasses.replace(config, k=len(dataset.aspects))
    fingerprint = config.fingerprint(dataset.digest)
    folder = choose_run_folder(Path(config.runs).resolve(), config, fingerprint)
    if folder.is_finished:
        return Trained(folder=folder.path, scores=folder.scores(), history=folder.history(), delivery=None)
    encoder = encoder_folder(config.encoder)
    check_encoder(config, encoder_config(encoder))
    features = _features(config, dataset, encoder)
    card = model_card(config, dataset, encoder)
    tracking = TrackingConfig(experiment=config.experiment)
    replay = Replay(Path(config.runs).resolve(), tracking, skip=(folder.name,))
    tracker = Tracker(Path(config.runs).resolve(), tracking, folder.name)
    tracker.start(
        dataset=config.dataset, name=folder.name, params=dataclasses.asdict(config), data=describe(dataset),
        tags={"seed": str(config.seed), "lgsrr.folder": str(folder.path)},
    )  # fmt: skip
    try:
        _run(config, card, fingerprint, features, folder, tracker, console)
        folder.write_report(card)
        _record(folder, tracker)
    except BaseException as error:
        tracker.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        tracker.close(timeout_s=5.0)
        raise
    finally:
        replay.close()
    tracker.finish("FINISHED")
    delivery = tracker.close(timeout_s=60.0)
    return Trained(folder=folder.path, scores=folder.scores(), history=folder.history(), delivery=delivery)


def _features(config: TrainConfig, dataset: Dataset, encoder: Path) -> Features:
    assert config.k is not None
    lengths = Lengths(text=config.text_length, description=config.description_length)
    features = featurise(dataset, encoder=encoder, lengths=lengths, num_aspects=config.k, cache=cache_folder())
    if features.positions_UK is not None and config.rank_weight > 0 and learns_importance(config.relations):
        check_ranked(dataset, features.positions_UK)
    return features


def model_card(config: TrainConfig, dataset: Dataset, encoder: Path) -> ModelCard:
    """What a model trained by `config` will say of itself; its scores are filled in at the end."""
    return ModelCard(
        dataset=config.dataset,
        data=dataset.source,
        data_digest=dataset.digest,
        labels=dataset.labels,
        aspects=tuple(a.name for a in dataset.aspects[: config.k]),
        lengths=Lengths(text=config.text_length, description=config.description_length),
        encoder=encoder_config(encoder),
        pooling=config.pooling,
        importance_hidden=config.importance_hidden,
        inconsistency=config.inconsistency,
        relations=config.relations,
        batch_size=config.batch_size,
        settings=config.numbers(),
        scores={},
        described_by=dataset.described_by,
    )


def _run(
    config: TrainConfig,
    card: ModelCard,
    fingerprint: str,
    features: Features,
    folder: RunFolder,
    tracker: Tracker,
    console: Console,
) -> None:
    """Start the workers, wait for them, and fetch what they left into the run's folder."""
    import ray
    import ray.train
    from ray.train.torch import TorchTrainer

    from lgsrr.board import Board
    from lgsrr.cluster import connected, ctrl_c_interrupts, settle_cpus, settle_gpu
    from lgsrr.place import marked
    from lgsrr.progress import TrainingProgress
    from lgsrr.worker import Job, train_worker

    kept = storage.join(folder.storage(config), folder.name)
    with connected(), marked(kept, "--storage") as place:
        use_gpu = settle_gpu(config.gpu, config.workers)
        cpus = settle_cpus(config.cpus_per_worker, config.workers)
        board = Board.on_this_node()
        job = Job(
            config=dataclasses.replace(config, cpus_per_worker=cpus),
            card=card,
            fingerprint=fingerprint,
            features=ray.put(features),
            board=board,
            place=place,
        )
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={"job": job},
            scaling_config=ray.train.ScalingConfig(
                num_workers=config.workers, use_gpu=use_gpu, resources_per_worker={"CPU": cpus, "GPU": int(use_gpu)}
            ),
            run_config=ray.train.RunConfig(
                name=folder.name,
                storage_path=folder.storage(config),
                failure_config=ray.train.FailureConfig(max_failures=config.max_failures),
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1, checkpoint_score_attribute="keep_score"),
            ),
        )
        _say(console, config, features, folder, use_gpu, cpus)
        with (
            TrainingProgress(config.epochs, console) as progress,
            Watcher(board, progress, tracker) as watcher,
            accounted(
                lambda: f"{watcher.epochs_ended()} of {config.epochs} epochs, in {folder.storage(config)}",
                lambda seconds: f"{seconds / 60:.1f} minutes of {config.workers} worker{'s' * (config.workers > 1)}",
                HELPS,
            ),
        ):
            try:
                with ctrl_c_interrupts():
                    result = trainer.fit()
            except ray.train.TrainingFailedError as error:
                raise TrainingError(watcher.failure() or _why(error)) from error
            if failure := watcher.failure():
                raise TrainingError(failure)
        with result.checkpoint.as_directory() as checkpoint:
            folder.take(Path(checkpoint))


def _why(error: BaseException) -> str:
    reasons = str(error).strip().splitlines()
    return (
        f"the workers failed more often than --max-failures allows, last by: {reasons[-1] if reasons else error!r}."
        " What they finished is kept: the same command goes on from the last whole epoch"
    )


def _say(
    console: Console, config: TrainConfig, features: Features, folder: RunFolder, use_gpu: bool, cpus: int
) -> None:
    counts = " / ".join(str(len(features.indices(split))) for split in SPLITS)
    where = "a GPU each" if use_gpu else f"{cpus} CPU{'s' * (cpus > 1)} each"
    console.print(
        f"{config.dataset}: {counts} utterances (train / dev / test), {config.encoder}, K = {config.k}\n"
        f"{config.workers} worker{'s' * (config.workers > 1)}, {where}; {_short(folder.path)}",
        highlight=False,
        soft_wrap=True,
    )


class Watcher:
    """A thread of the driver that takes what workers post, shows it and records it."""

    def __init__(self, board: Any, progress: Any, tracker: Tracker) -> None:
        self._board, self._progress, self._tracker = board, progress, tracker
        self._failure: str | None = None
        self._epochs: set[int] = set()
        self._stop = threading.Event()
        self._taking = threading.Lock()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watcher")

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5.0)

    def failure(self) -> str | None:
        """What a worker gave up for; None where none did."""
        self._take()
        return self._failure

    def epochs_ended(self) -> int:
        """Epochs that are kept, those of earlier commands among them."""
        self._take()
        return len(self._epochs)

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            self._take()
        self._take()

    def _take(self) -> None:
        with self._taking:  # or a failure could be on its way in the thread while `failure` is asked
            for kind, value in self._board.take():
                self._show(kind, value)

    def _show(self, kind: str, value: Any) -> None:
        if kind == "step":
            self._progress.step(value)
        elif kind == "epoch":
            self._progress.epoch(value)
            self._metrics(value)
        elif kind == "resumed":
            self._progress.resumed(value)
            for figures in value:
                self._metrics(figures)
        else:
            self._failure = value

    def _metrics(self, figures: dict[str, float]) -> None:
        self._epochs.add(int(figures["epoch"]))
        values = {name: value for name, value in figures.items() if name not in ("epoch", "time_ms")}
        self._tracker.metrics(values, step=int(figures["epoch"]), time_ms=int(figures["time_ms"]))


def _record(folder: RunFolder, tracker: Tracker) -> None:
    scores = folder.scores()
    tracker.metrics({k: v for k, v in scores.items() if k.startswith("test_") or k == "best_epoch"}, step=0)
    for path in folder.artifacts():
        tracker.artifact(path)
    tracker.model(folder.model)


def print_result(trained: Trained, console: Console) -> None:
    """The short table at the end of a run, and where it is."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    names = {"acc": "ACC", "f1": "F1", "p": "P", "r": "R", "wf1": "WF1", "wp": "WP"}
    table.add_column("")
    for title in names.values():
        table.add_column(title, justify="right")
    for split in ("dev", "test"):
        table.add_row(split, *(f"{100 * trained.scores[f'{split}_{name}']:.2f}" for name in names))
    if trained.delivery is None:
        console.print("this very run is finished already; --again trains it once more", highlight=False)
    console.print(table)
    console.print(f"best epoch  {int(trained.scores['best_epoch'])}", highlight=False)
    console.print(f"model       {_short(trained.folder / 'model')}", highlight=False, soft_wrap=True)
    if trained.delivery is not None:
        console.print(f"MLflow      {trained.delivery.where}", highlight=False, soft_wrap=True)


def _short(path: Path) -> str:
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    arguments = sys.argv[1:] if argv is None else list(argv)
    default = recipe(named_flag(arguments, "--dataset") or "sample", named_flag(arguments, "--encoder") or "minilm")
    cli.run(
        lambda config: print_result(train(config), Console()),
        TrainConfig,
        prog=PROG,
        description=__doc__.split("\n\n")[0],
        example=EXAMPLE,
        argv=arguments,
        default=default,
    )


def named_flag(arguments: Sequence[str], flag: str) -> str | None:
    """The value of a flag, before the command line is parsed: the recipe, and so the defaults, hang on it."""
    for index, argument in enumerate(arguments):
        if argument == flag and index + 1 < len(arguments):
            return arguments[index + 1]
        if argument.startswith(flag + "="):
            return argument.removeprefix(flag + "=")
    return None


if __name__ == "__main__":
    main()

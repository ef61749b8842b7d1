"""Training on the real Ray Train: the same numbers for the same seed, for any number of workers, and for any K."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from lgsrr.config import TrainConfig
from lgsrr.errors import ConfigError, DataError, TrainingError
from lgsrr.evaluate import EvaluateConfig, evaluate
from lgsrr.spool import Artifact, Event, Metrics, ModelSaved, RunFinished, RunStarted
from lgsrr.train import Trained, Watcher, train
from tests.conftest import tracked_in_memory
from tests.memory_sink import MemorySink
from tests.tables_on_disk import write_extracted
from tests.tiny import LIMIT, numbers, sample_data, tiny_config, without_dropout

Train = Callable[..., Trained]
CLOSE = 1e-5


@pytest.fixture
def run(ray_cluster: None, tiny_bert: Path, tmp_path: Path, sink: MemorySink) -> Train:
    """Trains with the tiny settings and what is given of others."""

    def run(runs: Path = tmp_path / "runs", **changes: Any) -> Trained:
        return train(tiny_config(tiny_bert, runs, **changes), Console(file=io.StringIO()))

    return run


@contextlib.contextmanager
def noting_notices() -> Iterator[list[str]]:
    """The kinds of all that workers post."""
    kinds: list[str] = []
    show = Watcher._show

    def note(watcher: Watcher, kind: str, value: Any) -> None:
        kinds.append(kind)
        show(watcher, kind, value)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Watcher, "_show", note)
        yield kinds


def weights(trained: Trained) -> dict[str, torch.Tensor]:
    return load_file(trained.folder / "model" / "model.safetensors")


def predictions(trained: Trained) -> Any:
    return pq.read_table(trained.folder / "test_predictions.parquet")


def assert_close(ours: Trained, theirs: Trained) -> None:
    """The same numbers but for rounding: figures of every epoch, and answers.

    Weights are left out: some have no influence, such as the biases of keys. Their gradient is rounding alone, and Adam
    makes steps of full size of it.
    """
    for our_epoch, their_epoch in zip(numbers(ours.history), numbers(theirs.history), strict=True):
        assert our_epoch == pytest.approx(their_epoch, abs=CLOSE)
    assert ours.scores == pytest.approx(theirs.scores, abs=CLOSE)
    found, wanted = predictions(ours), predictions(theirs)
    assert found["id"] == wanted["id"]
    for name in wanted.column_names[3:]:
        np.testing.assert_allclose(found[name].to_numpy(), wanted[name].to_numpy(), atol=CLOSE, rtol=0)


# ---- what a run leaves ---------------------------------------------------------------------------------------------


def test_a_run_leaves_a_model_predictions_tables_and_pictures(tracked: Trained) -> None:
    names = {path.name for path in tracked.folder.iterdir()}
    assert names == {
        "model", "test_predictions.parquet", "per_class.csv", "confusion.png", "losses.png", "result.json",
    }  # fmt: skip
    assert len(tracked.history) == 2
    assert {"train_loss", "train_cross_entropy", "train_ranking_loss", "dev_f1", "lr"} <= tracked.history[0].keys()
    assert {"test_acc", "test_f1", "test_p", "test_r", "test_wf1", "test_wp", "dev_f1"} <= tracked.scores.keys()
    assert tracked.delivery is not None
    assert (tracked.delivery.pending, tracked.delivery.refused) == (0, 0)


def test_a_finished_run_is_returned_at_once(tracked: Trained, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("it started once more")

    monkeypatch.setattr("lgsrr.train._run", refuse)
    monkeypatch.setattr("lgsrr.train.featurise", refuse)
    again = train(tiny_config(tiny_bert, tracked.folder.parent.parent))
    assert (again.folder, again.scores, again.history) == (tracked.folder, tracked.scores, tracked.history)
    assert again.delivery is None


def test_k_above_what_the_data_has_is_refused_before_anything_starts(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="k is 4, but sample"):
        train(tiny_config(tiny_bert, tmp_path / "runs", k=4))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_length": 65}, "text_length is 65; the encoder .* reads 64 word pieces at most"),
        ({"description_length": 99}, "description_length is 99"),
        ({"trainable_layers": 3}, "trainable_layers is 3; the encoder .* has 2 layers"),
    ],
)
def test_more_than_the_encoder_has_is_refused(
    tiny_bert: Path, tmp_path: Path, changes: dict[str, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(tiny_config(tiny_bert, tmp_path / "runs", **changes))
    assert not (tmp_path / "runs").exists()


def test_a_ranking_loss_without_rankings_is_refused(tiny_bert: Path, tmp_path: Path, cache: Path) -> None:
    data = unranked(tmp_path / "data")
    with pytest.raises(DataError, match=r"6 training utterances of mine have no ranking .*--rank-weight 0"):
        train(tiny_config(tiny_bert, tmp_path / "runs", dataset="mine", data=str(data), limit=None))
    assert not (tmp_path / "runs").exists()


def test_a_batch_that_cannot_be_shared_is_refused_where_it_is_averaged_over(tiny_bert: Path, tmp_path: Path) -> None:
    """25 utterances in batches of 8: the last batch has one for two workers."""
    config = tiny_config(tiny_bert, tmp_path / "runs", workers=2, inconsistency="batch")
    with pytest.raises(ConfigError, match="last batch of an epoch has 1 utterances for 2 workers"):
        train(config)


def unranked(folder: Path) -> Path:
    write_extracted(folder)
    shutil.rmtree(folder / "rankings")
    return folder


# ---- seeds, and what is recorded -----------------------------------------------------------------------------------


class Recorded(NamedTuple):
    trained: Trained
    events: list[Event]
    notices: list[str]


@pytest.fixture(scope="module")
def seventh(ray_cluster: None, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """A run with seed 7, and what it told the tracking server."""
    config = tiny_config(tiny_bert, tmp_path_factory.mktemp("runs"), seed=7)
    with tracked_in_memory() as memory, noting_notices() as notices:
        trained = train(config, Console(file=io.StringIO()))
    return Recorded(trained, [event for _, event in memory.events], notices)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers_to_the_last_bit(
    tracked: Trained, tracked_copy: Path, tiny_bert: Path, run: Train
) -> None:
    again = run(tracked_copy, again=True)
    first = tracked_copy / "train" / tracked.folder.name
    assert again.folder == first.with_name(f"{first.name}-2")
    assert numbers(again.history) == numbers(tracked.history)
    assert again.scores == tracked.scores
    assert predictions(again).equals(predictions(tracked))
    assert all(torch.equal(value, weights(tracked)[name]) for name, value in weights(again).items())
    assert train(tiny_config(tiny_bert, tracked_copy)).folder == first


@pytest.mark.slow
def test_another_seed_gives_other_numbers(tracked: Trained, seventh: Recorded) -> None:
    other = seventh.trained
    assert other.folder.name != tracked.folder.name
    for ours, theirs in zip(numbers(other.history), numbers(tracked.history), strict=True):
        assert ours["train_loss"] != theirs["train_loss"]


@pytest.mark.slow
def test_a_run_records_its_whole_config_every_epoch_once_and_its_files(seventh: Recorded) -> None:
    start = next(event for event in seventh.events if isinstance(event, RunStarted))
    assert start.params.keys() == {f.name for f in dataclasses.fields(TrainConfig)}
    assert (start.params["k"], start.params["seed"], start.tags["seed"]) == ("3", "7", "7")
    assert start.data is not None
    assert start.data.digest == sample_data(LIMIT).digest
    epochs = [event for event in seventh.events if isinstance(event, Metrics) and "dev_f1" in event.values]
    assert [event.step for event in epochs] == [1, 2]
    assert [event.values["dev_f1"] for event in epochs] == [figures["dev_f1"] for figures in seventh.trained.history]
    files = {Path(event.path).name for event in seventh.events if isinstance(event, Artifact)}
    assert {"test_predictions.parquet", "per_class.csv", "confusion.png", "losses.png"} <= files
    models = [event.folder for event in seventh.events if isinstance(event, ModelSaved)]
    assert models == [str(seventh.trained.folder / "model")]
    assert [event.status for event in seventh.events if isinstance(event, RunFinished)] == ["FINISHED"]
    assert seventh.notices.count("epoch") == 2


# ---- workers -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_workers(
    ray_cluster: None, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], Trained]:
    """The same run on n workers: 25 utterances in batches of 8, so that workers share three batches unevenly, and of
    the last batch, which is one utterance, all but one worker have nothing."""
    made: dict[int, Trained] = {}

    def get(workers: int) -> Trained:
        if workers not in made:
            config = without_dropout(tiny_config(tiny_bert, tmp_path_factory.mktemp("runs"), workers=workers))
            with tracked_in_memory():
                made[workers] = train(config, Console(file=io.StringIO()))
        return made[workers]

    return get


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3])
def test_n_workers_give_what_one_gives(by_workers: Callable[[int], Trained], workers: int) -> None:
    assert_close(by_workers(workers), by_workers(1))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_test_utterance_is_answered_once(by_workers: Callable[[int], Trained], workers: int) -> None:
    expected = [u.id for u in sample_data(LIMIT).split("test")]
    assert predictions(by_workers(workers))["id"].to_pylist() == expected


@pytest.mark.slow
def test_n_workers_average_over_the_batch_of_all_where_gamma_is_of_the_batch(run: Train, tmp_path: Path) -> None:
    """27 utterances in batches of 8: the last batch has three, two for one worker and one for the other."""
    still: dict[str, Any] = {"limit": 27, "inconsistency": "batch", "dropout": 0.0, "encoder_dropout": 0.0}
    one, two = (run(tmp_path / str(workers), workers=workers, **still) for workers in (1, 2))
    assert_close(two, one)


# ---- the best epoch ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_training_stops_out_of_patience_and_keeps_the_best_epoch(run: Train) -> None:
    trained = run(patience=1, epochs=40, lr=1e-2)
    f1 = [figures["dev_f1"] for figures in trained.history]
    best = int(trained.scores["best_epoch"])
    assert best == int(np.argmax(f1)) + 1
    assert len(f1) == best + 1 < 40
    for split in ("dev", "test"):
        evaluated = evaluate(EvaluateConfig(model=str(trained.folder / "model"), split=split, limit=LIMIT))
        kept = {name: trained.scores[f"{split}_{name}"] for name in evaluated.scores}
        assert evaluated.scores == pytest.approx(kept, abs=1e-9)


# ---- K and the ranking loss ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("k", [0, 2])
def test_any_number_of_aspects_trains(run: Train, k: int) -> None:
    trained = run(k=k, epochs=1)
    columns = predictions(trained).column_names
    aspects = [a.name for a in sample_data().aspects]
    assert [name for name in columns if name.startswith("importance.")] == [
        f"importance.{name}" for name in ("text", *aspects[:k])
    ]
    assert trained.history[0]["train_ranking_loss"] >= (0 if k == 0 else 1e-3)


@pytest.mark.slow
def test_without_rankings_a_run_trains_on_cross_entropy_alone(run: Train, tmp_path: Path) -> None:
    data = unranked(tmp_path / "data")
    trained = run(dataset="mine", data=str(data), limit=None, rank_weight=0.0, batch_size=4, k=1)
    for figures in trained.history:
        assert figures["train_loss"] == figures["train_cross_entropy"]
        assert figures["train_ranking_loss"] == 0


# ---- a loss that is not finite -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_run_at_once(run: Train, sink: MemorySink, tmp_path: Path) -> None:
    message = r"not finite in step 2 of epoch 1, in 8 utterances: sample_\d+, .*--lr"
    with noting_notices() as notices, pytest.raises(TrainingError, match=message):
        run(lr=1e30, max_grad_norm=0.0, workers=2, max_failures=3)
    assert notices.count("failed") == 2, "each worker gives up once; nothing is tried again"
    assert [event.status for _, event in sink.events if isinstance(event, RunFinished)] == ["FAILED"]
    assert not (tmp_path / "runs" / "train").exists()

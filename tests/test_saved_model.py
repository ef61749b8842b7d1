"""A saved model gives the same numbers again; a damaged model or checkpoint is one clear message."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lgsrr.classifier import Asked, Classifier
from lgsrr.config import TrainConfig
from lgsrr.errors import EncoderError, ModelError
from lgsrr.features import Lengths
from lgsrr.model import LGSRR
from lgsrr.optimizer import make_optimizer
from lgsrr.pretrained import encoder_config, load_encoder
from lgsrr.run_state import RunState, load_optimizer, load_trained, read_state, save_state
from lgsrr.saved_model import ModelCard, load_model, new_model, read_card, save_model
from tests.tiny import sample_data

LABELS = ("Praise", "Taunt", "Complain")


def a_card(tiny_bert: Path) -> ModelCard:
    return ModelCard(
        dataset="sample", data="/data", data_digest="ab" * 32, labels=LABELS,
        aspects=tuple(a.name for a in sample_data().aspects), lengths=Lengths(text=12, description=16),
        encoder=encoder_config(tiny_bert), pooling="mean", importance_hidden=16, inconsistency="utterance",
        batch_size=8, settings={"lr": 1e-4}, scores={"test_f1": 0.5},
    )  # fmt: skip


def a_model(tiny_bert: Path, trainable_layers: int | None = None, seed: int = 0) -> LGSRR:
    torch.manual_seed(seed)
    return new_model(a_card(tiny_bert), load_encoder(tiny_bert, "mean", trainable_layers))


@pytest.fixture
def saved(tiny_bert: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    save_model(folder, a_card(tiny_bert), a_model(tiny_bert), tiny_bert)
    return folder


def asked() -> list[Asked]:
    return [Asked(id=u.id, text=u.text, descriptions=u.descriptions) for u in sample_data(4).utterances]


# ---- a model's folder ----------------------------------------------------------------------------------------------


def test_a_model_that_is_loaded_again_gives_the_same_answers(tiny_bert: Path, saved: Path, tmp_path: Path) -> None:
    again = tmp_path / "elsewhere"
    shutil.move(saved, again)
    loaded = load_model(again)
    assert loaded.card == a_card(tiny_bert)
    assert not loaded.model.training
    weights = a_model(tiny_bert).state_dict()
    assert loaded.model.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in loaded.model.state_dict().items())
    save_model(tmp_path / "copy", loaded.card, loaded.model, loaded.tokenizer_folder)
    assert Classifier.load(tmp_path / "copy").predict(asked()) == Classifier.load(again).predict(asked())


def test_a_model_folder_holds_safetensors_json_and_a_tokenizer_and_no_pickle(saved: Path) -> None:
    files = [path for path in saved.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".txt"}
    for path in files:
        start = path.read_bytes()[:4]
        assert not start.startswith((b"\x80", b"PK"))  # a pickle, or torch.save's zip of one


def damaged_card(change: Callable[[dict[str, object]], object]) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        raw = json.loads((folder / "model.json").read_text())
        change(raw)
        (folder / "model.json").write_text(json.dumps(raw))

    return damage


def truncate(name: str, size: int) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (shutil.rmtree, "no model in .*model.json is missing"),
    (lambda folder: (folder / "model.json").unlink(), "model.json is missing"),
    (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing"),
    (lambda folder: shutil.rmtree(folder / "tokenizer"), "no tokenizer in .*expected tokenizer.json or vocab.txt"),
    (truncate("tokenizer/tokenizer.json", 500), "no tokenizer can be read from"),
    (truncate("model.safetensors", 5_000), "model.safetensors is truncated or damaged"),
    (truncate("model.safetensors", -1), "model.safetensors is truncated or damaged"),
    (truncate("model.safetensors", 0), "model.safetensors is truncated or damaged"),
    (truncate("model.json", 100), "model.json is damaged"),
    (lambda folder: (folder / "model.json").write_text("[]"), "model.json is damaged"),
    (lambda folder: (folder / "model.json").write_bytes(b"\xff\xfe"), "model.json is damaged"),
    (damaged_card(lambda raw: raw.update(format=2)), "has format 2; this version of lgsrr reads 1"),
    (damaged_card(lambda raw: raw.pop("labels")), "model.json is damaged"),
    (damaged_card(lambda raw: raw.update(more=1)), "model.json is damaged"),
    (
        damaged_card(lambda raw: raw.update(lengths={"text": 1, "description": 5})),
        "model.json is damaged .text length is 1",
    ),
    (damaged_card(lambda raw: raw.update(labels=["Praise"])), "model.safetensors is truncated or damaged"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_a_damaged_model_is_one_clear_message(saved: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(saved)
    with pytest.raises((ModelError, EncoderError), match=message) as raised:
        Classifier.load(saved).predict(asked())
    assert str(saved) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_model_that_cannot_be_written_leaves_nothing(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("lgsrr.saved_model.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_model(tmp_path / "models" / "m", a_card(tiny_bert), a_model(tiny_bert), tiny_bert)
    assert list((tmp_path / "models").iterdir()) == []


def test_the_card_alone_says_what_a_model_is(tiny_bert: Path, saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    assert read_card(saved) == a_card(tiny_bert)


# ---- a checkpoint --------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tiny_bert: Path, tmp_path: Path) -> Path:
    """After one step of a model of which one layer is trained."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    model = a_model(tiny_bert, trainable_layers=1)
    optimizer = make_optimizer(model, TrainConfig(dataset="sample"))
    one_step(model, optimizer)
    save_state(folder, RunState(fingerprint="f", history=[{"dev_f1": 0.5}], best_epoch=1), model, optimizer)
    return folder


def one_step(model: LGSRR, optimizer: torch.optim.Optimizer) -> None:
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def test_a_run_goes_on_from_a_checkpoint_as_if_nothing_had_happened(tiny_bert: Path, checkpoint: Path) -> None:
    undisturbed = a_model(tiny_bert, trainable_layers=1)
    optimizer = make_optimizer(undisturbed, TrainConfig(dataset="sample"))
    one_step(undisturbed, optimizer)
    one_step(undisturbed, optimizer)

    resumed = a_model(tiny_bert, trainable_layers=1)
    optimizer = make_optimizer(resumed, TrainConfig(dataset="sample"))
    assert read_state(checkpoint, "f") == RunState(fingerprint="f", history=[{"dev_f1": 0.5}], best_epoch=1)
    load_trained(checkpoint, resumed)
    load_optimizer(checkpoint, optimizer)
    one_step(resumed, optimizer)
    for name, value in undisturbed.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_checkpoint_holds_what_is_trained_and_no_pickle(checkpoint: Path) -> None:
    from safetensors.torch import load_file

    assert {p.name for p in checkpoint.iterdir()} == {"state.json", "trained.safetensors", "optimizer.safetensors"}
    names = load_file(checkpoint / "trained.safetensors").keys()
    assert {name.split(".")[2] for name in names if name.startswith("encoder.")} == {"1"}


@pytest.mark.parametrize("name", ["state.json", "trained.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("size", [None, 0, 20, -1])
def test_a_truncated_checkpoint_is_one_clear_message(
    tiny_bert: Path, checkpoint: Path, name: str, size: int | None
) -> None:
    content = (checkpoint / name).read_bytes()
    if size is None:
        (checkpoint / name).unlink()
    else:
        (checkpoint / name).write_bytes(content.rstrip()[:size])
    model = a_model(tiny_bert, trainable_layers=1)

    def go_on() -> None:
        read_state(checkpoint, "f")
        load_trained(checkpoint, model)
        load_optimizer(checkpoint, make_optimizer(model, TrainConfig(dataset="sample")))

    with pytest.raises(ModelError, match=r"remove the run's folder") as raised:
        go_on()
    assert str(checkpoint) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_checkpoint_of_another_run_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ModelError, match=r"other data or settings \(fingerprint f, expected g\)"):
        read_state(checkpoint, "g")


def test_a_checkpoint_of_other_layers_is_refused(tiny_bert: Path, checkpoint: Path) -> None:
    with pytest.raises(ModelError, match="other parameters than this model trains"):
        load_trained(checkpoint, a_model(tiny_bert, trainable_layers=2))


def test_the_best_epoch_is_the_first_of_the_highest_dev_f1_and_patience_counts_from_it() -> None:
    state = RunState(fingerprint="f")
    bests = [state.add({"dev_f1": f1}) for f1 in (0.2, 0.4, 0.4, 0.3)]
    assert bests == [True, True, False, False]
    assert (state.best_epoch, state.epochs_done) == (2, 4)
    assert [state.out_of_patience(n) for n in (1, 2, 3)] == [True, True, False]


# ---- one utterance among others ------------------------------------------------------------------------------------


@pytest.mark.parametrize("among", [1, 70])
def test_a_prediction_does_not_depend_on_what_else_is_asked(saved: Path, among: int) -> None:
    classifier = Classifier.load(saved)
    utterances = sample_data(70).utterances[:70]
    every = [Asked(id=u.id, text=u.text, descriptions=u.descriptions) for u in utterances]
    together = classifier.predict(every)
    for start in range(0, 70, 14):
        alone = classifier.predict(every[start : start + among])[0]
        assert alone.label == together[start].label
        values = np.array(list(alone.flat().values())[2:], dtype=float)
        np.testing.assert_allclose(values, list(together[start].flat().values())[2:], atol=1e-5, rtol=0)


def test_nothing_asked_is_nothing_answered(saved: Path) -> None:
    assert Classifier.load(saved).predict([]) == []

"""What lies under the trained layers is computed once, and training on it is training without it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from lgsrr import frozen
from lgsrr.batch import Batch, BatchMaker
from lgsrr.encoder import Pooling
from lgsrr.features import Features, Lengths, featurise
from lgsrr.frozen import digest_of_weights, kept_batches
from lgsrr.model import LGSRR, SemanticRelations
from lgsrr.pretrained import load_encoder
from lgsrr.train import train
from tests.memory_sink import MemorySink
from tests.tiny import LAYERS, sample_data, tiny_config, write_tiny_bert


@pytest.fixture
def features(tiny_bert: Path, cache: Path) -> Features:
    lengths = Lengths(text=12, description=16)
    return featurise(sample_data(30), encoder=tiny_bert, lengths=lengths, num_aspects=3, cache=cache)


def a_model(tiny_bert: Path, trainable_layers: int, pooling: Pooling = "mean") -> LGSRR:
    torch.manual_seed(3)
    encoder = load_encoder(tiny_bert, pooling, trainable_layers, dropout=0.0)
    return LGSRR(encoder, SemanticRelations(32, 8, importance_hidden=16, dropout=0.0))


def kept(features: Features, model: LGSRR, cache: Path, digest: str = "weights") -> BatchMaker:
    return kept_batches(features, model.encoder, digest, cache)


def kept_files(cache: Path) -> list[Path]:
    return sorted((cache / "frozen").glob("*.npy"))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("trainable_layers", [0, 1, 2])
@pytest.mark.parametrize("tokens_per_pass", [100, 8192])
def test_what_is_kept_equals_what_is_computed(
    features: Features,
    tiny_bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pooling: Pooling,
    trainable_layers: int,
    tokens_per_pass: int,
) -> None:
    monkeypatch.setattr(frozen, "TOKENS_PER_PASS", tokens_per_pass)
    model = a_model(tiny_bert, trainable_layers, pooling).eval()
    rows = np.array([4, 80, 2, 2, 35, 89])
    expected = model(BatchMaker(features)(rows))
    found = model(kept(features, model, tmp_path)(rows))
    torch.testing.assert_close(found.logits_BC, expected.logits_BC, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.importance_BS, expected.importance_BS, atol=1e-5, rtol=0)


@pytest.mark.parametrize("trainable_layers", [0, 1, 2])
def test_training_on_what_is_kept_gives_the_numbers_of_training_without(
    features: Features, tiny_bert: Path, tmp_path: Path, trainable_layers: int
) -> None:
    def trained(make: Callable[[LGSRR], Callable[[np.ndarray], Batch]]) -> tuple[list[float], dict[str, Tensor]]:
        model = a_model(tiny_bert, trainable_layers).train()
        maker = make(model)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        losses = []
        for step in range(6):
            batch = maker(np.arange(5 * step, 5 * step + 5))
            loss = F.cross_entropy(model(batch).logits_BC, batch.labels_B)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses, model.state_dict()

    without, weights = trained(lambda model: BatchMaker(features))
    with_kept, kept_weights = trained(lambda model: kept(features, model, tmp_path))
    assert with_kept == pytest.approx(without, abs=1e-5)
    for name, value in kept_weights.items():
        torch.testing.assert_close(value, weights[name], atol=1e-5, rtol=0, msg=name)


def test_it_is_computed_once(
    features: Features, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = a_model(tiny_bert, 1)
    kept(features, first, tmp_path)

    def refuse(*_: object) -> None:
        raise AssertionError("it was computed again")

    monkeypatch.setattr(frozen, "_compute", refuse)
    kept(features, a_model(tiny_bert, 1), tmp_path)
    assert len(kept_files(tmp_path)) == 1


def test_other_weights_layers_tokens_or_pooling_are_kept_apart(
    features: Features, tiny_bert: Path, cache: Path, tmp_path: Path
) -> None:
    kept(features, a_model(tiny_bert, 1), tmp_path)
    kept(features, a_model(tiny_bert, 1), tmp_path, digest="other weights")
    kept(features, a_model(tiny_bert, 2), tmp_path)
    kept(features, a_model(tiny_bert, 0), tmp_path)
    kept(features, a_model(tiny_bert, 0, "cls"), tmp_path)
    lengths = Lengths(text=10, description=16)
    shorter = featurise(sample_data(30), encoder=tiny_bert, lengths=lengths, num_aspects=3, cache=cache)
    kept(shorter, a_model(tiny_bert, 1), tmp_path)
    assert len(kept_files(tmp_path)) == 6


def test_pooling_is_no_part_of_what_is_kept_under_a_trained_layer(
    features: Features, tiny_bert: Path, tmp_path: Path
) -> None:
    kept(features, a_model(tiny_bert, 1, "mean"), tmp_path)
    kept(features, a_model(tiny_bert, 1, "cls"), tmp_path)
    assert len(kept_files(tmp_path)) == 1


def test_a_computation_that_dies_leaves_no_half_file(
    features: Features, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    model = a_model(tiny_bert, 1)
    with monkeypatch.context() as patched:
        patched.setattr("lgsrr.files._flush", die)
        with pytest.raises(KeyboardInterrupt):
            kept(features, model, tmp_path)
    assert {path.suffix for path in (tmp_path / "frozen").iterdir()} <= {".lock"}


def test_other_weights_have_another_digest(tiny_bert: Path, tmp_path: Path) -> None:
    same, other = write_tiny_bert(tmp_path / "same"), write_tiny_bert(tmp_path / "other", seed=1)
    assert digest_of_weights(same) == digest_of_weights(tiny_bert)
    assert digest_of_weights(other) != digest_of_weights(tiny_bert)


@pytest.mark.slow
@pytest.mark.parametrize("trainable_layers", [0, 1])
def test_only_the_last_layers_change_in_a_run_of_two_workers(
    ray_cluster: None, cache: Path, tiny_bert: Path, tmp_path: Path, sink: MemorySink, trainable_layers: int
) -> None:
    before = kept_files(cache)
    trained = train(
        tiny_config(tiny_bert, tmp_path / "runs", trainable_layers=trainable_layers, workers=2),
        Console(file=io.StringIO()),
    )
    assert len(kept_files(cache)) == len(before) + 1
    weights = load_file(trained.folder / "model" / "model.safetensors")
    pretrained = load_encoder(tiny_bert).state_dict()
    names = {name for name, value in pretrained.items() if not torch.equal(value, weights["encoder." + name])}
    assert {name.split(".")[1] for name in names} == {str(n) for n in range(LAYERS - trainable_layers, LAYERS)}
    assert all(name.startswith("layers.") for name in names)

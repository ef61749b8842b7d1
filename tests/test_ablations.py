"""Each ablation is the formula that it is said to be, trains, is saved with what it is, and is one row of the table."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from rich.console import Console

from lgsrr import __version__
from lgsrr.batch import BatchMaker
from lgsrr.classifier import Asked, Classifier
from lgsrr.config import TrainConfig
from lgsrr.errors import ConfigError, ModelError
from lgsrr.features import Lengths, featurise
from lgsrr.loss import neural_ndcg_per_utterance, ranking_relevance
from lgsrr.model import RELATIONS, Inconsistency, Relation, SemanticRelations, learns_importance
from lgsrr.optimizer import make_optimizer
from lgsrr.pretrained import encoder_folder, load_encoder
from lgsrr.saved_model import load_model, new_model, read_card, save_model
from lgsrr.train import model_card, train
from tests.memory_sink import MemorySink
from tests.tiny import LIMIT, numbers, result, sample_data, tiny_config
from tune.ablations import Ablation, ablations
from tune.records import Trial
from tune.space import apply

B, K, D, C = 5, 3, 6, 4
NO_RANKING: tuple[Relation, ...] = ("no-importance", "sum", "or", "and", "not", "or-and-not")
CONFIG = TrainConfig(dataset="sample")
Floats = npt.NDArray[np.float64]


def a_module(
    relations: Relation, inconsistency: Inconsistency = "utterance", dropout: float = 0.0
) -> SemanticRelations:
    torch.manual_seed(1)
    return SemanticRelations(
        D, C, importance_hidden=8, dropout=dropout, inconsistency=inconsistency, relations=relations
    ).eval()


def pooled(num_aspects: int = K) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(B, D, generator=generator), torch.randn(B, num_aspects, D, generator=generator)


# ---- formulas ------------------------------------------------------------------------------------------------------


def learned(module: SemanticRelations, slots: Floats) -> Floats:
    w = {name: value.double().numpy() for name, value in module.state_dict().items()}
    hidden = np.maximum(slots @ w["importance.0.weight"].T + w["importance.0.bias"], 0)
    scores = (hidden @ w["importance.3.weight"].T + w["importance.3.bias"])[..., 0]
    return np.asarray(np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True))


def of_the_method(alpha: Floats, beta: Floats, gamma: Floats, text: Floats, desc: Floats) -> Floats:
    features = alpha[:, :1] * text
    for m in range(desc.shape[1]):
        features = features + (alpha[:, m + 1] * beta[:, m])[:, None] * desc[:, m]
        features = features - gamma[:, m, None] * (text - desc[:, m])
    return features


def expected_features(module: SemanticRelations, text: Floats, desc: Floats) -> Floats:
    slots = np.concatenate([text[:, None], desc], axis=1)
    alpha = learned(module, slots)
    lengths = np.linalg.norm(text, axis=-1)[:, None] * np.linalg.norm(desc, axis=-1)
    beta = (text[:, None] * desc).sum(axis=-1) / lengths
    gamma = ((text[:, None] - desc) ** 2).mean(axis=-1)
    if module.inconsistency == "batch":
        gamma = np.broadcast_to(gamma.mean(axis=0), gamma.shape)
    none_of_them = np.minimum(text, (-desc).min(axis=1)) if desc.shape[1] else text
    formulas: dict[Relation, Callable[[], Floats]] = {
        "all": lambda: of_the_method(alpha, beta, gamma, text, desc),
        "no-importance": lambda: of_the_method(np.full_like(alpha, 1 / alpha.shape[1]), beta, gamma, text, desc),
        "no-complementarity": lambda: of_the_method(alpha, np.ones_like(beta), gamma, text, desc),
        "no-inconsistency": lambda: of_the_method(alpha, beta, np.zeros_like(gamma), text, desc),
        "sum": lambda: text + desc.sum(axis=1),
        "or": lambda: slots.max(axis=1),
        "and": lambda: slots.min(axis=1),
        "not": lambda: none_of_them,
        "or-and-not": lambda: (slots.max(axis=1) + slots.min(axis=1) + none_of_them) / 3,
    }
    return formulas[module.relations]()


@pytest.mark.parametrize("inconsistency", ["utterance", "batch"])
@pytest.mark.parametrize("relations", RELATIONS)
def test_the_features_are_those_of_the_formula(relations: Relation, inconsistency: Inconsistency) -> None:
    module = a_module(relations, inconsistency)
    text, desc = pooled()
    found = module(text, desc)
    expected = expected_features(module, text.double().numpy(), desc.double().numpy())
    np.testing.assert_allclose(found.features_BD.detach().numpy(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.logits_BC, module.classifier(found.features_BD), atol=0, rtol=0)


@pytest.mark.parametrize("relations", RELATIONS)
def test_a_relation_that_is_not_used_has_the_value_that_leaves_it_out(relations: Relation) -> None:
    found, whole = a_module(relations)(*pooled()), a_module("all")(*pooled())
    uses_all = relations == "all"
    alpha_used = uses_all or relations in ("no-complementarity", "no-inconsistency")
    beta_used = uses_all or relations in ("no-importance", "no-inconsistency")
    gamma_used = uses_all or relations in ("no-importance", "no-complementarity")
    uniform, one, zero = torch.full((B, 1 + K), 0.25), torch.ones(B, K), torch.zeros(B, K)
    torch.testing.assert_close(found.importance_BS, whole.importance_BS if alpha_used else uniform)
    torch.testing.assert_close(found.complementarity_BK, whole.complementarity_BK if beta_used else one)
    torch.testing.assert_close(found.inconsistency_BK, whole.inconsistency_BK if gamma_used else zero)


def test_fuzzy_operators_on_features_are_those_on_degrees_of_truth() -> None:
    """Of sigmoids of the features: max, min, and min with 1 − x."""
    text, desc = pooled()
    truth = torch.sigmoid(torch.cat([text[:, None], desc], dim=1))
    denied = torch.cat([truth[:, :1], 1 - truth[:, 1:]], dim=1)
    choices: tuple[Relation, ...] = ("or", "and", "not")
    for relations, degree in zip(choices, (truth.amax(1), truth.amin(1), denied.amin(1)), strict=True):
        torch.testing.assert_close(torch.sigmoid(a_module(relations)(text, desc).features_BD), degree)


def test_a_logical_join_of_the_three_classic_relations_loses_them() -> None:
    """Why their combination is the mean: "or" absorbs the others, "and" wants an aspect and its denial at once."""
    text, desc = pooled()
    choices: tuple[Relation, ...] = ("or", "and", "not")
    three = torch.stack([a_module(relations)(text, desc).features_BD for relations in choices])
    assert torch.equal(three.amax(0), three[0])
    assert torch.equal(three.amin(0), torch.minimum(text, (-desc.abs()).amin(1)))


@pytest.mark.parametrize("relations", RELATIONS)
def test_without_aspects_every_choice_is_text_alone(relations: Relation) -> None:
    text, desc = pooled(0)
    found = a_module(relations)(text, desc)
    torch.testing.assert_close(found.features_BD, text)
    assert found.importance_BS.tolist() == [[1.0]] * B
    assert found.complementarity_BK.shape == found.inconsistency_BK.shape == (B, 0)


def test_one_seed_gives_every_choice_the_same_weights_by_the_same_names() -> None:
    whole = a_module("all").state_dict()
    parts = [f"importance.{layer}" for layer in (0, 3)] + ["classifier"]
    assert whole.keys() == {f"{part}.{name}" for part in parts for name in ("weight", "bias")}
    for relations in RELATIONS:
        own = a_module(relations).state_dict()
        assert own.keys() == whole.keys()
        assert all(torch.equal(value, whole[name]) for name, value in own.items())


# ---- gradients -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("relations", RELATIONS)
def test_every_parameter_that_is_trained_has_a_gradient(relations: Relation) -> None:
    """DDP waits for the gradient of each parameter that wants one."""
    module = a_module(relations).train()
    text, desc = (value.requires_grad_() for value in pooled())
    F.cross_entropy(module(text, desc).logits_BC, torch.arange(B) % C).backward()
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert {name for name, parameter in module.named_parameters() if parameter.grad is not None} == trained
    assert {"classifier.weight", "classifier.bias"} <= trained
    assert (len(trained) == 6) == learns_importance(relations)
    for value in (text, desc):
        assert value.grad is not None
        assert value.grad.abs().sum() > 0


def test_importance_is_learned_by_the_choices_that_use_it_and_no_others() -> None:
    assert tuple(choice for choice in RELATIONS if not learns_importance(choice)) == NO_RANKING


@pytest.mark.parametrize("relations", NO_RANKING)
def test_a_ranking_loss_changes_nothing_where_importance_is_not_learned(relations: Relation) -> None:
    relevance = ranking_relevance(torch.arange(K).expand(B, K))
    text, desc = (value.requires_grad_() for value in pooled())
    found = a_module(relations)(text, desc)
    loss = (1 - neural_ndcg_per_utterance(found.importance_BS, relevance)).sum()
    assert torch.isfinite(loss)
    assert not loss.requires_grad


# ---- settings and saved models -------------------------------------------------------------------------------------


def test_an_unknown_choice_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"relations is 'xor'; expected one of all, no-importance, .*or-and-not"):
        TrainConfig(dataset="sample", relations="xor")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="relations is 'xor'; it is one of all"):
        SemanticRelations(D, C, relations="xor")  # type: ignore[arg-type]


def test_a_run_of_the_method_keeps_the_name_it_had_before_there_was_a_choice() -> None:
    settings = {name: value for name, value in CONFIG.numbers().items() if name != "relations"}
    parts = {"settings": settings, "data": "d", "version": __version__}
    before = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
    assert CONFIG.fingerprint("d") == before
    names = {dataclasses.replace(CONFIG, relations=choice).fingerprint("d") for choice in RELATIONS}
    assert len(names) == len(RELATIONS)


def asked() -> list[Asked]:
    return [Asked(id=u.id, text=u.text, descriptions=u.descriptions) for u in sample_data(4).utterances]


def save(folder: Path, tiny_bert: Path, relations: Relation) -> Path:
    config = tiny_config(tiny_bert, folder, relations=relations)
    card = model_card(config, sample_data(LIMIT), encoder_folder(config.encoder))
    torch.manual_seed(0)
    save_model(folder / relations, card, new_model(card, load_encoder(tiny_bert, "mean", None)), tiny_bert)
    return folder / relations


def test_a_saved_model_predicts_by_its_own_relations(tiny_bert: Path, tmp_path: Path) -> None:
    """All have the same weights, so that only the relations tell them apart."""
    answers = []
    for relations in RELATIONS:
        folder = save(tmp_path, tiny_bert, relations)
        assert read_card(folder).relations == load_model(folder).model.relations.relations == relations
        answers.append([p.probability for p in Classifier.load(folder).predict(asked())])
    assert len({tuple(row) for row in answers}) == len(RELATIONS)


def test_a_model_saved_before_there_was_a_choice_is_the_method(tiny_bert: Path, tmp_path: Path) -> None:
    folder = save(tmp_path, tiny_bert, "all")
    before = Classifier.load(folder).predict(asked())
    raw = json.loads((folder / "model.json").read_text())
    del raw["relations"], raw["settings"]["relations"]
    (folder / "model.json").write_text(json.dumps(raw))
    assert read_card(folder).relations == "all"
    assert Classifier.load(folder).predict(asked()) == before


def test_a_model_with_relations_of_a_later_version_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    folder = save(tmp_path, tiny_bert, "or")
    raw = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(raw | {"relations": "xor"}))
    with pytest.raises(ModelError, match=r"model.json has relations 'xor'; this version of lgsrr knows all, "):
        load_model(folder)


# ---- the rows ------------------------------------------------------------------------------------------------------


def labels(rows: list[Ablation]) -> list[str]:
    return [row.trial.label for row in rows]


def test_the_rows_are_the_full_method_its_parts_classic_relations_and_each_k() -> None:
    rows = ablations(CONFIG, 3)
    assert [(row.trial.label, row.trial.settings) for row in rows] == [
        ("full method", {"k": 3}),
        ("without the ranking loss", {"k": 3, "rank_weight": 0.0}),
        ("without importance", {"k": 3, "relations": "no-importance", "rank_weight": 0.0}),
        ("without complementarity", {"k": 3, "relations": "no-complementarity"}),
        ("without inconsistency", {"k": 3, "relations": "no-inconsistency"}),
        ("without relations (sum)", {"k": 3, "relations": "sum", "rank_weight": 0.0}),
        ("classic or (max)", {"k": 3, "relations": "or", "rank_weight": 0.0}),
        ("classic and (min)", {"k": 3, "relations": "and", "rank_weight": 0.0}),
        ("classic not (text and no aspect)", {"k": 3, "relations": "not", "rank_weight": 0.0}),
        ("classic combination (mean of the three)", {"k": 3, "relations": "or-and-not", "rank_weight": 0.0}),
        ("text alone (K = 0)", {"k": 0}),
        ("K = 1", {"k": 1}),
        ("K = 2", {"k": 2}),
    ]
    assert [row.table for row in rows] == (
        ["full method"] + ["parts"] * 5 + ["classic relations"] * 4 + ["number of aspects"] * 3
    )
    assert {apply(row.trial.settings, CONFIG).relations for row in rows} == set(RELATIONS)


def test_every_row_is_there_once_and_runs_all_its_seeds() -> None:
    for base in (CONFIG, dataclasses.replace(CONFIG, k=2), dataclasses.replace(CONFIG, rank_weight=0.0)):
        trials = [row.trial for row in ablations(base, 3)]
        assert len({trial.id for trial in trials}) == len(trials)
        assert all(trial.kept and trial.origin == "ablation" for trial in trials)


def test_the_full_method_is_that_of_the_base_and_not_an_ablation_of_it() -> None:
    base = dataclasses.replace(CONFIG, k=2, relations="sum")
    first, *others = ablations(base, 3)
    assert first.trial.settings == {"k": 2, "relations": "all"}
    assert next(row for row in others if "sum" in row.trial.label).trial.settings == {"k": 2, "rank_weight": 0.0}
    assert {"text alone (K = 0)", "K = 1", "K = 3"} <= set(labels(others))


def test_a_method_that_has_no_ranking_loss_is_not_run_twice() -> None:
    assert "without the ranking loss" not in labels(ablations(dataclasses.replace(CONFIG, rank_weight=0.0), 3))


@pytest.mark.parametrize(("k", "num_aspects"), [(None, 0), (0, 3)])
def test_text_alone_has_no_relations_to_leave_out(k: int | None, num_aspects: int) -> None:
    rows = ablations(dataclasses.replace(CONFIG, k=k), num_aspects)
    assert labels(rows) == ["full method", "K = 1", "K = 2", "K = 3"][: num_aspects + 1]


def test_no_number_of_the_paper_is_shown_that_has_no_source() -> None:
    assert {row.paper for row in ablations(CONFIG, 3)} == {None}


# ---- training ------------------------------------------------------------------------------------------------------


def trials() -> list[Trial]:
    return [row.trial for row in ablations(CONFIG, 3)]


@pytest.mark.parametrize("trial", trials(), ids=lambda trial: trial.label)
def test_every_row_learns(trial: Trial, tiny_bert: Path, cache: Path) -> None:
    """The loss over one batch falls, in ten steps on the tiny encoder."""
    config = apply(trial.settings, tiny_config(tiny_bert, cache, encoder_dropout=0.0, dropout=0.0, lr=1e-2))
    assert config.k is not None
    lengths = Lengths(text=config.text_length, description=config.description_length)
    data = sample_data(LIMIT)
    features = featurise(data, encoder=tiny_bert, lengths=lengths, num_aspects=config.k, cache=cache)
    batch = BatchMaker(features)(features.indices("train")[:16])
    torch.manual_seed(0)
    card = model_card(config, data, encoder_folder(config.encoder))
    model = new_model(card, load_encoder(tiny_bert, config.pooling, None, dropout=0.0))
    optimizer = make_optimizer(model, config)
    losses = []
    for _ in range(10):
        loss = F.cross_entropy(model(batch).logits_BC, batch.labels_B)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_a_choice_without_importance_trains_on_two_workers(
    ray_cluster: None, tiny_bert: Path, tmp_path: Path, sink: MemorySink
) -> None:
    """DDP would stop with an error after the first step, were there a parameter without a gradient; which of them have
    one is tested above for every choice."""
    relations: Relation = "or-and-not"
    config = tiny_config(tiny_bert, tmp_path, relations=relations, rank_weight=0.0, epochs=1, workers=2)
    trained = train(config, Console(file=io.StringIO()))
    assert numbers(trained.history)[0]["train_ranking_loss"] == 0
    assert "test_f1" in result(trained.folder)["scores"]
    assert load_model(trained.folder / "model").card.relations == relations

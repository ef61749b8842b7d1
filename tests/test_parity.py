"""LGSRR's relations and ranking loss give the numbers of the authors' released program, gradients included."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lgsrr.loss import neural_ndcg_loss, ranking_relevance
from lgsrr.model import Inconsistency, SemanticRelations
from tests.shared import SHARED, needs_shared

pytestmark = needs_shared


@pytest.fixture(scope="module")
def recorded() -> dict[str, Tensor]:
    return load_file(SHARED / "parity" / "lgsrr.safetensors")


def relations_with_recorded_weights(recorded: dict[str, Tensor], inconsistency: Inconsistency) -> SemanticRelations:
    weights = {k: v for k, v in recorded.items() if k.startswith(("importance.", "classifier."))}
    module = SemanticRelations(
        hidden_size=recorded["text_BD"].shape[1],
        num_classes=len(recorded["classifier.bias"]),
        importance_hidden=len(recorded["importance.0.bias"]),
        inconsistency=inconsistency,
    )
    module.load_state_dict(weights)
    return module.eval()


@pytest.mark.parametrize("inconsistency", ["utterance", "batch"])
def test_relations_reproduce_the_released_code(recorded: dict[str, Tensor], inconsistency: Inconsistency) -> None:
    module = relations_with_recorded_weights(recorded, inconsistency)
    ours = module(recorded["text_BD"], recorded["desc_BKD"])
    name = "sample" if inconsistency == "utterance" else "batch"
    torch.testing.assert_close(ours.importance_BS, recorded["importance_BS"], atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.features_BD, recorded[f"{name}_features_BD"], atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.logits_BC, recorded[f"{name}_logits_BC"], atol=1e-5, rtol=0)


def test_relevance_is_five_for_the_text_then_three_two_one_by_place(recorded: dict[str, Tensor]) -> None:
    ours = ranking_relevance(recorded["rank_position_BK"])
    torch.testing.assert_close(ours, recorded["relevance_BS"].float(), atol=0, rtol=0)


@pytest.mark.parametrize("tau", [0.1, 0.5, 1.0, 2.0])
def test_ranking_loss_and_its_gradient_reproduce_the_released_code(recorded: dict[str, Tensor], tau: float) -> None:
    scores = recorded["scores_BS"].clone().requires_grad_()
    loss = neural_ndcg_loss(scores, recorded["relevance_BS"].float(), tau)
    loss.backward()
    assert scores.grad is not None
    torch.testing.assert_close(loss, recorded[f"ndcg_loss_tau{tau}"][0], atol=1e-5, rtol=0)
    torch.testing.assert_close(scores.grad, recorded[f"ndcg_grad_tau{tau}"], atol=1e-5, rtol=0)

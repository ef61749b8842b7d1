"""LGSRR: a shared text encoder, and the three relations by which it reasons over a text and its descriptions.

The relations (paper, section 3.4) are importance (or), complementarity (and) and inconsistency (not). Encoder and
relations are apart, so that the relations run alone on pooled features: that is what a frozen encoder trains.

Shapes: B utterance, K aspect, S importance slot (1 + K, the text first), D hidden, C class.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from lgsrr.batch import Batch
from lgsrr.encoder import PackedBert

Inconsistency = Literal["utterance", "batch"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Relations:
    """What `SemanticRelations` answers for a batch."""

    logits_BC: Tensor
    features_BD: Tensor
    """F_comp − F_inc, what the classifier sees."""
    importance_BS: Tensor
    """α: sums to one over the slots."""
    complementarity_BK: Tensor
    """β: −1 to 1."""
    inconsistency_BK: Tensor
    """γ: 0 or more."""


class SemanticRelations(nn.Module):
    """The relational reasoning of LGSRR over pooled features, for any K >= 0.

        α      = softmax over {T, M1..MK} of  W2 · dropout(ReLU(W1·F + b1)) + b2
        β_M    = cos(F_T, F_M)
        γ_M    = mean over the dimensions of (F_T − F_M)²                        (eq. 14)
        logits = W · (α_T·F_T + Σ α_M·β_M·F_M − Σ γ_M·(F_T − F_M)) + b

    With K = 0 the features are those of the text (α_T = 1): plain fine-tuning, the baseline.

    Args:
        hidden_size: D of the pooled features.
        num_classes: C.
        importance_hidden: width between W1 and W2.
        dropout: probability, in the importance network only.
        inconsistency: "utterance" is the paper's γ. "batch" averages γ over the batch as well, as the released code
            does: predictions then depend on which utterances share a batch. Under DDP in training the average is
            over the global batch.
    """

    def __init__(
        self,
        hidden_size: int,
        num_classes: int,
        importance_hidden: int = 768,
        dropout: float = 0.4,
        inconsistency: Inconsistency = "utterance",
    ) -> None:
        super().__init__()
        if inconsistency not in ("utterance", "batch"):
            raise ValueError(f'inconsistency is {inconsistency!r}; it is "utterance" or "batch"')
        self.inconsistency: Inconsistency = inconsistency
        self.importance = nn.Sequential(
            nn.Linear(hidden_size, importance_hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(importance_hidden, 1)
        )
        self.classifier = nn.Linear(hidden_size, num_classes)

    def forward(self, text_BD: Tensor, desc_BKD: Tensor) -> Relations:
        slots_BSD = torch.cat([text_BD[:, None], desc_BKD], dim=1)
        importance_BS = torch.softmax(self.importance(slots_BSD).squeeze(-1), dim=1)
        complementarity_BK = F.cosine_similarity(text_BD[:, None], desc_BKD, dim=-1)
        difference_BKD = text_BD[:, None] - desc_BKD
        inconsistency_BK = difference_BKD.square().mean(dim=-1)
        if self.inconsistency == "batch":
            inconsistency_BK = self._batch_mean(inconsistency_BK)

        weight_BK = importance_BS[:, 1:] * complementarity_BK
        complementary_BD = importance_BS[:, :1] * text_BD + _weighted_sum(weight_BK, desc_BKD)
        features_BD = complementary_BD - _weighted_sum(inconsistency_BK, difference_BKD)
        return Relations(
            logits_BC=self.classifier(features_BD),
            features_BD=features_BD,
            importance_BS=importance_BS,
            complementarity_BK=complementarity_BK,
            inconsistency_BK=inconsistency_BK,
        )

    def _batch_mean(self, inconsistency_BK: Tensor) -> Tensor:
        """Every utterance gets the mean of the batch; in training, of the batch of all workers together."""
        total_K = inconsistency_BK.sum(dim=0)
        count = torch.tensor(float(len(inconsistency_BK)), device=inconsistency_BK.device)
        if self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            total_K = _AllReduceSum.apply(total_K)  # type: ignore[no-untyped-call]
            dist.all_reduce(count)
        return (total_K / count).expand_as(inconsistency_BK)


class LGSRR(nn.Module):
    """The classifier: one encoder for texts and descriptions, each encoded by itself, and the relations over them."""

    def __init__(self, encoder: PackedBert, relations: SemanticRelations) -> None:
        super().__init__()
        self.encoder = encoder
        self.relations = relations

    def forward(self, batch: Batch) -> Relations:
        if batch.pooled_ND is None:
            assert batch.packed is not None
            pooled_ND = self.encoder(batch.packed)
        else:
            pooled_ND = batch.pooled_ND
        pooled_BSD = pooled_ND.view(-1, batch.num_slots, pooled_ND.shape[-1])
        # The relations are small, and their squares and cosines want float32 whatever the encoder ran in.
        with torch.autocast(pooled_BSD.device.type, enabled=False):
            pooled_BSD = pooled_BSD.float()
            relations: Relations = self.relations(pooled_BSD[:, 0], pooled_BSD[:, 1:])
        return relations


class _AllReduceSum(torch.autograd.Function):
    """Sum over the workers, whose gradient is the sum of the workers' gradients."""

    @staticmethod
    def forward(ctx: object, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def _weighted_sum(weight_BK: Tensor, value_BKD: Tensor) -> Tensor:
    return (weight_BK[:, :, None] * value_BKD).sum(dim=1)

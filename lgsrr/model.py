"""LGSRR: a shared text encoder, and the three relations by which it reasons over a text and its descriptions.

The relations (paper, section 3.4) are importance (or), complementarity (and) and inconsistency (not). Encoder and
relations are apart, so that the relations run alone on pooled features: that is what a frozen encoder trains. The
ablations are choices of the same module, with the same weights by the same names: what a choice does not use is there
all the same, so that one seed gives every choice the same classifier to start from.

Shapes: B utterance, K aspect, S importance slot (1 + K, the text first), D hidden, C class.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from lgsrr.batch import Batch
from lgsrr.encoder import PackedBert

Inconsistency = Literal["utterance", "batch"]

Relation = Literal[
    "all", "no-importance", "no-complementarity", "no-inconsistency", "sum", "or", "and", "not", "or-and-not"
]
"""How text and descriptions are brought together: the method, or an ablation of it.

    all                  F = α_T·F_T + Σ α_M·β_M·F_M − Σ γ_M·(F_T − F_M)        the method
    no-importance        α = 1/(1 + K) for every slot                            nothing to rank, no ranking loss
    no-complementarity   β = 1
    no-inconsistency     γ = 0
    sum                  F = F_T + Σ F_M                                         no relations at all
    or                   F = max(F_T, F_M1, ..., F_MK), dimension by dimension
    and                  F = min(F_T, F_M1, ..., F_MK)
    not                  F = min(F_T, −F_M1, ..., −F_MK)                         the text, and none of the aspects
    or-and-not           F = the mean of the three above

"or", "and" and "not" are the standard operators of fuzzy logic (Zadeh 1965: max, min, 1 − x). They want degrees of
truth between 0 and 1, and a feature is any real number: it is read as the logit of a degree. The sigmoid keeps the
order, so that max and min may be taken of the logits, and 1 − sigmoid(x) = sigmoid(−x) makes "not" a change of sign.
The mean, because a logical join of the three loses them: by "or" it is "or" again (absorption), by "and" it asks for an
aspect and its denial at once, min(F_T, −|F_M1|, ..., −|F_MK|). The paper has classic relations as well; its text could
not be read where these were written, and a fork of the released code (https://github.com/glad4enkonm/LGSRR) has the
full method alone, so that the paper's formulas may be others.

With K = 0, F = F_T under every choice.
"""
RELATIONS: tuple[Relation, ...] = get_args(Relation)

_PARTS: dict[Relation, tuple[str, ...]] = {
    "all": ("importance", "complementarity", "inconsistency"),
    "no-importance": ("complementarity", "inconsistency"),
    "no-complementarity": ("importance", "inconsistency"),
    "no-inconsistency": ("importance", "complementarity"),
}
"""What of the method a choice keeps; the others keep nothing of it."""


def learns_importance(relations: Relation) -> bool:
    """Whether α is learned: without that, no ranking loss can change anything."""
    return "importance" in _PARTS.get(relations, ())


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Relations:
    """What `SemanticRelations` answers for a batch. A relation that is not used has the value that leaves it out."""

    logits_BC: Tensor
    features_BD: Tensor
    """F_comp − F_inc, or what stands in its place: what the classifier sees."""
    importance_BS: Tensor
    """α: sums to one over the slots; 1/(1 + K) where it is not used."""
    complementarity_BK: Tensor
    """β: −1 to 1; 1 where it is not used."""
    inconsistency_BK: Tensor
    """γ: 0 or more; 0 where it is not used."""


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
        relations: the method, or an ablation of it, by the formulas at `Relation`. Where importance is not learned its
            network has its new weights to the end, and no gradient (DDP would wait for one).

    Raises:
        ValueError: an unknown `inconsistency` or `relations`.
    """

    def __init__(
        self,
        hidden_size: int,
        num_classes: int,
        importance_hidden: int = 768,
        dropout: float = 0.4,
        inconsistency: Inconsistency = "utterance",
        *,
        relations: Relation = "all",
    ) -> None:
        super().__init__()
        if inconsistency not in ("utterance", "batch"):
            raise ValueError(f'inconsistency is {inconsistency!r}; it is "utterance" or "batch"')
        if relations not in RELATIONS:
            raise ValueError(f"relations is {relations!r}; it is one of {', '.join(RELATIONS)}")
        self.inconsistency: Inconsistency = inconsistency
        self.relations: Relation = relations
        self.importance = nn.Sequential(
            nn.Linear(hidden_size, importance_hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(importance_hidden, 1)
        )
        self.importance.requires_grad_(learns_importance(relations))
        self.classifier = nn.Linear(hidden_size, num_classes)

    def forward(self, text_BD: Tensor, desc_BKD: Tensor) -> Relations:
        importance_BS = self._importance(text_BD, desc_BKD)
        complementarity_BK = self._complementarity(text_BD, desc_BKD)
        inconsistency_BK = self._inconsistency(text_BD, desc_BKD)
        if self.relations in _PARTS:
            weight_BK = importance_BS[:, 1:] * complementarity_BK
            complementary_BD = importance_BS[:, :1] * text_BD + _weighted_sum(weight_BK, desc_BKD)
            features_BD = complementary_BD - _weighted_sum(inconsistency_BK, text_BD[:, None] - desc_BKD)
        else:
            features_BD = _classic(self.relations, text_BD, desc_BKD)
        return Relations(
            logits_BC=self.classifier(features_BD),
            features_BD=features_BD,
            importance_BS=importance_BS,
            complementarity_BK=complementarity_BK,
            inconsistency_BK=inconsistency_BK,
        )

    def _uses(self, part: str) -> bool:
        return part in _PARTS.get(self.relations, ())

    def _importance(self, text_BD: Tensor, desc_BKD: Tensor) -> Tensor:
        slots_BSD = torch.cat([text_BD[:, None], desc_BKD], dim=1)
        if not self._uses("importance"):
            return slots_BSD.new_full(slots_BSD.shape[:2], 1 / slots_BSD.shape[1])
        return torch.softmax(self.importance(slots_BSD).squeeze(-1), dim=1)

    def _complementarity(self, text_BD: Tensor, desc_BKD: Tensor) -> Tensor:
        if not self._uses("complementarity"):
            return desc_BKD.new_ones(desc_BKD.shape[:2])
        return F.cosine_similarity(text_BD[:, None], desc_BKD, dim=-1)

    def _inconsistency(self, text_BD: Tensor, desc_BKD: Tensor) -> Tensor:
        if not self._uses("inconsistency"):
            return desc_BKD.new_zeros(desc_BKD.shape[:2])
        inconsistency_BK = (text_BD[:, None] - desc_BKD).square().mean(dim=-1)
        return self._batch_mean(inconsistency_BK) if self.inconsistency == "batch" else inconsistency_BK

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


def _classic(relations: Relation, text_BD: Tensor, desc_BKD: Tensor) -> Tensor:
    """The features of a choice that keeps nothing of the method, by its formula at `Relation`."""
    slots_BSD = torch.cat([text_BD[:, None], desc_BKD], dim=1)
    if relations == "sum":
        return slots_BSD.sum(dim=1)
    if relations == "or":
        return slots_BSD.amax(dim=1)
    if relations == "and":
        return slots_BSD.amin(dim=1)
    if relations == "not":
        return torch.cat([text_BD[:, None], -desc_BKD], dim=1).amin(dim=1)
    assert relations == "or-and-not"
    choices: tuple[Relation, ...] = ("or", "and", "not")
    return torch.stack([_classic(choice, text_BD, desc_BKD) for choice in choices]).mean(dim=0)


def _weighted_sum(weight_BK: Tensor, value_BKD: Tensor) -> Tensor:
    return (weight_BK[:, :, None] * value_BKD).sum(dim=1)

"""The losses of LGSRR: cross entropy over intents, and NeuralNDCG over the importance of text and aspects.

NeuralNDCG (Pobrotyn & Białobrzeski 2021) makes NDCG differentiable by a soft permutation matrix: NeuralSort (Grover et
al. 2019) sorts the scores at a temperature τ, Sinkhorn scaling makes rows and columns sum to one.

Shapes: B utterance, K aspect, S importance slot (1 + K, the text first).
"""

from __future__ import annotations

import torch
from torch import Tensor

SINKHORN_STEPS = 50
SINKHORN_TOLERANCE = 1e-6
_EPSILON = 1e-10


def ranking_relevance(rank_position_BK: Tensor) -> Tensor:
    """Relevance of every slot: K+2 for the text, then K, K−1, … 1 by place (5, 3, 2, 1 for K = 3).

    Args:
        rank_position_BK: place of each aspect in the utterance's ranking, 0 = most important.

    Returns:
        relevance_BS, float32.
    """
    num_utterances, num_aspects = rank_position_BK.shape
    text_B1 = torch.full((num_utterances, 1), num_aspects + 2.0, device=rank_position_BK.device)
    return torch.cat([text_B1, num_aspects - rank_position_BK.float()], dim=1)


def neural_sort(scores_BS: Tensor, tau: float) -> Tensor:
    """Soft permutation matrix that sorts the scores downwards (NeuralSort, eq. 4): rows are places, columns slots."""
    num_slots = scores_BS.shape[1]
    difference_BSS = (scores_BS[:, :, None] - scores_BS[:, None, :]).abs()
    distance_BS = difference_BSS.sum(dim=2)
    scale_S = num_slots + 1 - 2 * torch.arange(1, num_slots + 1, device=scores_BS.device, dtype=scores_BS.dtype)
    logits_BSS = scale_S[None, :, None] * scores_BS[:, None, :] - distance_BS[:, None, :]
    return torch.softmax(logits_BSS / tau, dim=-1)


def sinkhorn(matrix_BSS: Tensor) -> Tensor:
    """Scale columns and rows in turn until each sums to one within the tolerance, 50 times at most."""
    for _ in range(SINKHORN_STEPS):
        matrix_BSS = matrix_BSS / matrix_BSS.sum(dim=1, keepdim=True).clamp(min=_EPSILON)
        matrix_BSS = matrix_BSS / matrix_BSS.sum(dim=2, keepdim=True).clamp(min=_EPSILON)
        # Rows were scaled last and sum to one already: only the columns can still be off.
        if (matrix_BSS.detach().sum(dim=1) - 1).abs().max() < SINKHORN_TOLERANCE:
            break
    return matrix_BSS


def neural_ndcg_per_utterance(scores_BS: Tensor, relevance_BS: Tensor, tau: float = 1.0) -> Tensor:
    """NeuralNDCG_τ of every utterance (0 to 1, 1 = the scores put the slots in the order of their relevance).

    Deterministic, over all slots, with gains 2^relevance − 1 and discounts 1 / log2(place + 1).
    """
    permutation_BSS = sinkhorn(neural_sort(scores_BS, tau))
    gain_BS = torch.exp2(relevance_BS) - 1
    places_S = torch.arange(scores_BS.shape[1], device=scores_BS.device, dtype=scores_BS.dtype)
    discount_S = 1 / torch.log2(places_S + 2)
    dcg_B = ((permutation_BSS @ gain_BS[:, :, None]).squeeze(-1) * discount_S).sum(dim=1)
    ideal_B = (gain_BS.sort(dim=1, descending=True).values * discount_S).sum(dim=1)
    return dcg_B / (ideal_B + _EPSILON)


def neural_ndcg_loss(scores_BS: Tensor, relevance_BS: Tensor, tau: float = 1.0) -> Tensor:
    """1 − the mean NeuralNDCG_τ of the batch: the ranking loss of the paper (section 3.3).

    Args:
        scores_BS: importance of the slots, any real numbers.
        relevance_BS: relevance of the slots, all above 0, from `ranking_relevance`.
        tau: temperature of NeuralSort; the smaller, the nearer to a real sort.
    """
    return 1 - neural_ndcg_per_utterance(scores_BS, relevance_BS, tau).mean()

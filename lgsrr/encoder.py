"""The text encoder: BERT over packed sequences, so that nothing is computed for padding.

All sequences of a batch lie one after another in one row of tokens, those of one length side by side. Every linear
layer is one product over the real tokens of the whole batch, and attention stays within each sequence. The result is
that of transformers' padded `BertModel` (tests/test_encoder.py). The price: only BERT's architecture is supported.

Shapes: N sequence, T token (of all sequences), L length, D hidden, H head, E size of a head.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import groupby
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lgsrr.errors import EncoderError
from lgsrr.kernels import Groups, attention, dropout, linear, linear_gelu

Pooling = Literal["cls", "mean"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The shape of a BERT encoder; names as in its `config.json`."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    hidden_act: str = "gelu"

    def __post_init__(self) -> None:
        if self.hidden_act != "gelu":
            raise EncoderError(f"the encoder's hidden_act is {self.hidden_act!r}; only 'gelu' is supported")
        if self.hidden_size % self.num_attention_heads:
            raise EncoderError(f"{self.hidden_size} dimensions do not divide by {self.num_attention_heads} heads")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Sequences one after another, the shortest first. `restore_N` gives the caller's order back."""

    token_ids_T: Tensor
    positions_T: Tensor
    groups: Groups
    restore_N: Tensor
    """Index of every sequence, in the caller's order, among the packed ones."""
    hidden_TD: Tensor | None = None
    """What `PackedBert.lower` gives for the tokens, where it was computed before."""

    def to(self, device: torch.device) -> Packed:
        return Packed(
            token_ids_T=self.token_ids_T.to(device, non_blocking=True),
            positions_T=self.positions_T.to(device, non_blocking=True),
            groups=self.groups,
            restore_N=self.restore_N.to(device, non_blocking=True),
            hidden_TD=None if self.hidden_TD is None else self.hidden_TD.to(device, non_blocking=True),
        )


def packing_order(lengths: Sequence[int]) -> tuple[npt.NDArray[np.int64], Groups]:
    """The order in which sequences are packed (a stable sort by length), and their groups of one length."""
    order_N = np.argsort(np.asarray(lengths, dtype=np.int64), kind="stable")
    groups = tuple((len(list(same)), length) for length, same in groupby(int(lengths[i]) for i in order_N))
    return order_N, groups


def pack(sequences: Sequence[npt.NDArray[np.integer]]) -> Packed:
    """Pack token ids; every sequence holds at least one token."""
    order_N, groups = packing_order([len(s) for s in sequences])
    restore_N = np.empty_like(order_N)
    restore_N[order_N] = np.arange(len(order_N))
    return Packed(
        token_ids_T=torch.from_numpy(np.concatenate([sequences[i] for i in order_N]).astype(np.int64)),
        positions_T=torch.cat([torch.arange(length).repeat(count) for count, length in groups]),
        groups=groups,
        restore_N=torch.from_numpy(restore_N),
    )


class Embeddings(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        # One row of the two of BERT's token types: a text is never a pair here.
        self.token_type = nn.Parameter(torch.zeros(config.hidden_size))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = config.hidden_dropout_prob

    def forward(self, packed: Packed) -> Tensor:
        hidden_TD = self.word(packed.token_ids_T) + self.position(packed.positions_T) + self.token_type
        return dropout(self.norm(hidden_TD), self.dropout, self.training)


class Layer(nn.Module):
    """One transformer layer of BERT: attention and a two-layer network, each with dropout, a residual and LayerNorm."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.heads = config.num_attention_heads
        self.qkv = nn.Linear(size, 3 * size)
        self.context = nn.Linear(size, size)
        self.context_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.up = nn.Linear(size, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, size)
        self.down_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.dropout = config.hidden_dropout_prob
        self.attention_dropout = config.attention_probs_dropout_prob

    def forward(self, hidden_TD: Tensor, groups: Groups) -> Tensor:
        qkv_T3HE = linear(hidden_TD, self.qkv.weight, self.qkv.bias).view(len(hidden_TD), 3, self.heads, -1)
        context_TD = attention(qkv_T3HE, groups, self.attention_dropout if self.training else 0.0)
        context_TD = linear(context_TD, self.context.weight, self.context.bias)
        hidden_TD = self.context_norm(hidden_TD + dropout(context_TD, self.dropout, self.training))
        wide = linear_gelu(hidden_TD, self.up.weight, self.up.bias)
        output_TD = linear(wide, self.down.weight, self.down.bias)
        normed: Tensor = self.down_norm(hidden_TD + dropout(output_TD, self.dropout, self.training))
        return normed


class PackedBert(nn.Module):
    """BERT without its pooler: token ids in, one vector per sequence out.

    Args:
        config: shape of the encoder.
        pooling: `cls` takes the first token of a sequence, `mean` the mean over its real tokens.
        trainable_layers: train the last so many layers; the embeddings and the layers below are frozen, and run
            without dropout. None trains everything.
    """

    def __init__(self, config: EncoderConfig, pooling: Pooling = "mean", trainable_layers: int | None = None) -> None:
        super().__init__()
        total = config.num_hidden_layers
        if trainable_layers is not None and not 0 <= trainable_layers <= total:
            raise EncoderError(f"trainable_layers is {trainable_layers}; this encoder has 0 to {total} layers to train")
        self.config = config
        self.pooling: Pooling = pooling
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(total))
        self.has_frozen = trainable_layers is not None
        self.num_frozen_layers = 0 if trainable_layers is None else total - trainable_layers
        for module in self._frozen_modules():
            module.requires_grad_(False)

    def _frozen_modules(self) -> list[nn.Module]:
        return [self.embeddings, *self.layers[: self.num_frozen_layers]] if self.has_frozen else []

    def train(self, mode: bool = True) -> PackedBert:
        super().train(mode)
        for module in self._frozen_modules():
            module.train(False)
        return self

    def forward(self, packed: Packed) -> Tensor:
        """Pooled vectors ND, in the caller's order."""
        hidden_TD = self.lower(packed) if packed.hidden_TD is None else packed.hidden_TD
        return self.upper(hidden_TD, packed.groups)[packed.restore_N]

    def lower(self, packed: Packed) -> Tensor:
        """Hidden states TD under the trained layers: the embeddings, and the frozen layers where there are any."""
        hidden_TD: Tensor = self.embeddings(packed)
        for layer in self.layers[: self.num_frozen_layers]:
            hidden_TD = layer(hidden_TD, packed.groups)
        return hidden_TD

    def upper(self, hidden_TD: Tensor, groups: Groups) -> Tensor:
        """Pooled vectors ND from what `lower` gave, in the packed order."""
        for layer in self.layers[self.num_frozen_layers :]:
            hidden_TD = layer(hidden_TD, groups)
        return self.pool(hidden_TD, groups)

    def pool(self, hidden_TD: Tensor, groups: Groups) -> Tensor:
        """One vector per sequence, in the packed order."""
        parts = hidden_TD.split([count * length for count, length in groups])
        shaped = [part.view(count, length, -1) for part, (count, length) in zip(parts, groups, strict=True)]
        return torch.cat([part[:, 0] if self.pooling == "cls" else part.mean(dim=1) for part in shaped])

"""The arithmetic of the packed encoder: linear layers, dropout and attention over sequences without padding.

On a GPU these are torch's own operators. On a CPU three of them are written out, because they decide the speed:

- `linear` calls oneDNN, which torch holds but uses for float32 only when it compiles; MKL, its default, keeps to AVX2
  on processors that are not Intel's (measured by tests/benchmarks/speed.py, which prints both).
- `dropout` draws 16 random bits per element in place of a whole float.
- `attention` walks over groups of sequences of one length: every product is over real tokens, and forward and backward
  are one autograd node in place of a dozen per group.

Shapes: T token (all sequences one after another), D hidden, H head, E size of a head, N sequence, L length, O output.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Groups = tuple[tuple[int, int], ...]
"""(count, length) of sequences of one length, in the order in which they lie one after another."""

_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(input_TD: Tensor, weight_OD: Tensor, bias_O: Tensor) -> Tensor:
    """`input · weightᵀ + bias`, by oneDNN where that is the faster way (float32 on a CPU)."""
    if _uses_onednn(input_TD):
        output: Tensor = _OneDnnLinear.apply(input_TD, weight_OD, bias_O)  # type: ignore[no-untyped-call]
        return output
    return F.linear(input_TD, weight_OD, bias_O)


def linear_gelu(input_TD: Tensor, weight_OD: Tensor, bias_O: Tensor) -> Tensor:
    """`gelu(input · weightᵀ + bias)`; one pass over the result where oneDNN computes it and no gradient is wanted."""
    if not torch.is_grad_enabled() and _uses_onednn(input_TD):
        return _product(input_TD, weight_OD, bias_O, "gelu")
    return F.gelu(linear(input_TD, weight_OD, bias_O))


def _uses_onednn(input_TD: Tensor) -> bool:
    return _HAS_ONEDNN and input_TD.device.type == "cpu" and input_TD.dtype == torch.float32


def _product(left: Tensor, right: Tensor, bias: Tensor | None = None, then: str = "none") -> Tensor:
    """`left · rightᵀ (+ bias)`, perhaps with a function `then` of each element; any strides."""
    output: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, then, [], "none" if then == "gelu" else "")
    return output


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input_TD: Tensor, weight_OD: Tensor, bias_O: Tensor) -> Tensor:
        ctx.save_for_backward(input_TD, weight_OD)
        return _product(input_TD, weight_OD, bias_O)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (gradient_TO,) = gradients
        input_TD, weight_OD = ctx.saved_tensors
        needs_input, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            _product(gradient_TO, weight_OD.t()) if needs_input else None,
            # Through the transpose of the narrower side: the copy that oneDNN makes of it is the smaller one.
            _weight_gradient(gradient_TO, input_TD) if needs_weight else None,
            gradient_TO.sum(dim=0) if needs_bias else None,
        )


def _weight_gradient(gradient_TO: Tensor, input_TD: Tensor) -> Tensor:
    if input_TD.shape[1] <= gradient_TO.shape[1]:
        return _product(input_TD.t().contiguous(), gradient_TO.t()).t().contiguous()
    return _product(gradient_TO.t().contiguous(), input_TD.t())


def dropout(input_: Tensor, probability: float, training: bool) -> Tensor:
    """Dropout as `F.dropout`; on a CPU with masks of 16 random bits, so that `probability` is met to 1/65536."""
    if not training or probability == 0:
        return input_
    if input_.device.type != "cpu":
        return F.dropout(input_, probability)
    keep, scale = _keep_mask(input_.numel(), probability)
    output: Tensor = _MaskedScale.apply(input_, keep.view(input_.shape), scale)  # type: ignore[no-untyped-call]
    return output


def _keep_mask(size: int, probability: float) -> tuple[Tensor, float]:
    """A boolean mask (True = kept) and the factor that keeps the expectation."""
    words = torch.empty((size + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    dropped = round(probability * 65536)
    keep = words.view(torch.int16)[:size] >= dropped - 32768
    return keep, 65536 / (65536 - dropped)


class _MaskedScale(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input_: Tensor, keep: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(keep)
        ctx.scale = scale
        return (input_ * keep).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (keep,) = ctx.saved_tensors
        return (gradients[0] * keep).mul_(ctx.scale), None, None


def attention(qkv_T3HE: Tensor, groups: Groups, dropout_probability: float) -> Tensor:
    """Self-attention within every sequence: softmax(q·kᵀ / √E)·v, heads side by side again.

    Args:
        qkv_T3HE: queries, keys and values of all tokens, the sequences grouped by length.
        groups: the (count, length) of each group; together they cover all tokens.
        dropout_probability: of the attention weights; 0 outside training.

    Returns:
        context_TD with D = H·E.
    """
    if qkv_T3HE.device.type != "cpu":
        return _fused_attention(qkv_T3HE, groups, dropout_probability)
    output: Tensor = _GroupedAttention.apply(qkv_T3HE, groups, dropout_probability)  # type: ignore[no-untyped-call]
    return output


def _fused_attention(qkv_T3HE: Tensor, groups: Groups, dropout_probability: float) -> Tensor:
    """One kernel for all sequences, whatever their lengths: torch's ragged layout, flash attention under it."""
    lengths = [length for count, length in groups for _ in range(count)]
    offsets_N1 = torch.tensor([0, *lengths], device=qkv_T3HE.device).cumsum(0)
    shortest, longest = min(lengths), max(lengths)
    query, key, value = (
        torch.nested.nested_tensor_from_jagged(
            part.contiguous(), offsets_N1, min_seqlen=shortest, max_seqlen=longest
        ).transpose(1, 2)
        for part in qkv_T3HE.unbind(1)
    )
    context = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout_probability)
    return context.transpose(1, 2).values().flatten(1)


class _GroupedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv_T3HE: Tensor, groups: Groups, dropout_probability: float) -> Tensor:
        tokens, _, heads, size = qkv_T3HE.shape
        context_TD = qkv_T3HE.new_empty(tokens, heads * size)
        keeps_gradient = ctx.needs_input_grad[0]
        saved = []
        start = 0
        for count, length in groups:
            stop = start + count * length
            q, k, v = _by_head(qkv_T3HE[start:stop], count, length)
            weights = torch.bmm(q, k.transpose(1, 2)).mul_(1 / math.sqrt(size)).softmax(dim=-1)
            used, keep = weights, None
            if dropout_probability:
                keep, scale = _keep_mask(weights.numel(), dropout_probability)
                keep = keep.view(weights.shape)
                used = (weights * keep).mul_(scale)
            _store(context_TD[start:stop], torch.bmm(used, v), count, length)
            if keeps_gradient:
                saved += [weights, keep]
            start = stop
        ctx.save_for_backward(qkv_T3HE, *saved)
        ctx.groups, ctx.dropout_probability = groups, dropout_probability
        return context_TD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        qkv_T3HE, *saved = ctx.saved_tensors
        gradient_THE = gradients[0].view(qkv_T3HE.shape[0], *qkv_T3HE.shape[2:])
        output_T3HE = torch.empty_like(qkv_T3HE)
        dropped = round(ctx.dropout_probability * 65536)
        scale = 65536 / (65536 - dropped)
        factor = 1 / math.sqrt(qkv_T3HE.shape[-1])
        start = 0
        for index, (count, length) in enumerate(ctx.groups):
            stop = start + count * length
            weights, keep = saved[2 * index : 2 * index + 2]
            q, k, v = _by_head(qkv_T3HE[start:stop], count, length)
            (gradient,) = _by_head(gradient_THE[start:stop, None], count, length)
            used = weights if keep is None else (weights * keep).mul_(scale)
            d_weights = torch.bmm(gradient, v.transpose(1, 2))
            if keep is not None:
                d_weights.mul_(keep).mul_(scale)
            d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype).mul_(factor)
            target = output_T3HE[start:stop]
            _store(target[:, 0], torch.bmm(d_scores, k), count, length)
            _store(target[:, 1], torch.bmm(d_scores.transpose(1, 2), q), count, length)
            _store(target[:, 2], torch.bmm(used.transpose(1, 2), gradient), count, length)
            start = stop
        return output_T3HE, None, None


def _by_head(part_TPHE: Tensor, count: int, length: int) -> tuple[Tensor, ...]:
    """(P tensors of) count·H matrices of length by E, from the tokens of one group."""
    _, parts, heads, size = part_TPHE.shape
    split = part_TPHE.view(count, length, parts, heads, size).permute(2, 0, 3, 1, 4)
    return tuple(split.reshape(parts, count * heads, length, size).unbind(0))


def _store(target_T: Tensor, by_head: Tensor, count: int, length: int) -> None:
    """Write count·H matrices of length by E back to their tokens."""
    size = by_head.shape[-1]
    heads = by_head.shape[0] // count
    target_T.view(count, length, heads, size).copy_(by_head.view(count, heads, length, size).transpose(1, 2))

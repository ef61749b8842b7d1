"""Attention heads of a width that vLLM's kernels lack, widened with zeros.

The kernels of a platform know some widths of heads (those of the CPU: 32, 64, 80, …), and small checkpoints, such as
the one that parity is recorded on, have heads of 12. Zeros behind queries and keys change no product of the two, and
zeros behind values come out as zeros: the result is exact, and costs the kernel the wider head. The published
checkpoints have heads of 128 and are left alone.

T tokens, H heads, D width of a head.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from vllm.config import get_current_vllm_config
from vllm.model_executor.layers.attention import Attention


class WidenedAttention(Attention):  # type: ignore[misc]
    """Attention over heads of `head_size`, of which the model fills `filled`."""

    def __init__(self, *args: Any, filled: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.filled = filled

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        wide_TD: Tensor = super().forward(self._widen(query), self._widen(key), self._widen(value), *args, **kwargs)
        heads_THD = wide_TD.view(len(wide_TD), self.num_heads, self.head_size)
        return heads_THD[:, :, : self.filled].flatten(1)

    def _widen(self, heads_TD: Tensor) -> Tensor:
        heads_THD = heads_TD.reshape(len(heads_TD), -1, self.filled)
        return F.pad(heads_THD, (0, self.head_size - self.filled)).flatten(1)


def widen_heads(model: nn.Module) -> None:
    """Replaces every attention in `model` whose heads are narrower than its kernels take; to be called while it is
    made."""
    for module in list(model.modules()):
        attention = getattr(module, "attn", None)
        if isinstance(attention, Attention):
            sizes = sorted(attention.attn_backend.get_supported_head_sizes())
            wider = [size for size in sizes if size > attention.head_size]
            if wider and attention.head_size not in sizes:
                module.attn = _widened(attention, wider[0])


def _widened(attention: Attention, head_size: int) -> WidenedAttention:
    config = get_current_vllm_config()
    del config.compilation_config.static_forward_context[attention.layer_name]
    return WidenedAttention(
        attention.num_heads,
        head_size,
        attention.impl.scale,
        num_kv_heads=attention.num_kv_heads,
        cache_config=config.cache_config,
        quant_config=attention.quant_config,
        per_layer_sliding_window=attention.sliding_window,
        prefix=attention.layer_name,
        filled=attention.head_size,
    )

"""Muon: momentum whose matrices are made orthogonal before they are taken off the weights.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks", https://kellerjordan.github.io/posts/muon/.
`torch.optim.Muon` is the same in bfloat16, thirty times as slow on a processor that has none; this one stays in
float32, and takes convolutions as matrices of as many rows as they have outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

_QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the iteration: they bring every singular value to between 0.7 and 1.2 within `_STEPS` steps."""
_STEPS = 5


class Muon(torch.optim.Optimizer):
    """For parameters of two dimensions or more, within a network's layers.

    Args:
        parameters: what learns; those without a gradient stay as they are.
        lr: learning rate; a step changes an element by 0.2 of it (root mean square), as AdamW's would.
        momentum: share of the old mean of gradients that is kept.
        weight_decay: share of a weight that `lr` takes off.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step by the gradients; `closure` is not used."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, parameter.grad, group)

    def _step(self, parameter: nn.Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["mean"] = torch.zeros_like(parameter)
        mean = state["mean"].lerp_(gradient, 1 - group["momentum"])
        update_RC = orthogonal(gradient.lerp(mean, group["momentum"]).flatten(1))
        size = 0.2 * math.sqrt(max(update_RC.shape))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update_RC.view_as(parameter), alpha=-group["lr"] * size)


def orthogonal(matrix_RC: Tensor) -> Tensor:
    """The nearest matrix (R, C) whose singular values are about 1, by Newton and Schulz's iteration."""
    a, b, c = _QUINTIC
    wide = matrix_RC.T if len(matrix_RC) > matrix_RC.shape[1] else matrix_RC
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(_STEPS):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.T if len(matrix_RC) > matrix_RC.shape[1] else wide

"""AdamW with the paper's groups, and its schedule: linear warm-up, then linear decay to zero.

Weight decay spares biases and LayerNorm. The new layers may have a learning rate of their own. The released code runs
AdamW without bias correction (`correct_bias=False`), which makes its steps up to 6.6 times longer in the first hundreds
of steps: a matter of nothing over its 100 epochs, but not over five. `uncorrected` gives torch's AdamW that length.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lgsrr.config import TrainConfig

_HEAD = "relations."


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over the trained parameters; each group carries its `peak_lr`."""
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_head, decays = name.startswith(_HEAD), parameter.ndim > 1
            groups.setdefault((is_head, decays), []).append(parameter)
    head_lr = config.lr if config.head_lr is None else config.head_lr
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "peak_lr": head_lr if is_head else config.lr,
                "weight_decay": config.weight_decay if decays else 0.0,
            }
            for (is_head, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
        ],
        lr=config.lr,
        fused=True,
    )


def rate_at(step: int, total_steps: int, warmup: float) -> float:
    """Share of the peak learning rate in step 0, 1, ..., total_steps − 1."""
    warmup_steps = int(total_steps * warmup)
    if step < warmup_steps:
        return step / warmup_steps
    return (total_steps - step) / max(1, total_steps - warmup_steps)


def uncorrected(step: int, betas: tuple[float, float] = (0.9, 0.999)) -> float:
    """How much longer step 0, 1, ... of AdamW is without bias correction: (1 − β1ᵗ) / √(1 − β2ᵗ) with t = step + 1.

    Weight decay is scaled along, by some 10⁻⁵ of a weight.
    """
    first, second = (1 - beta ** (step + 1) for beta in betas)
    return first / math.sqrt(second)


def set_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Set every group's learning rate to a share of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * share

"""RegNet's stage, as the spatial part of VideoLLaMA2's connectors uses it.

The published connectors take `RegStage` from timm 1.0 with `act_layer=SiLU, norm_layer=LayerNorm2d`; the names of the
parameters here are timm's, so that a checkpoint loads as it is. What that call comes to, and all that is written
here: a bottleneck of ratio 1 with groups of one channel (the 3 x 3 convolution is depthwise), squeeze-and-excite by a
quarter of the block's input width, LayerNorm over the channels (epsilon 1e-5, that of timm's LayerNormAct2d), no
stride.

Radosavovic et al. 2020, "Designing Network Design Spaces", https://arxiv.org/abs/2003.13678.

N frames, C channels, H W patches.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class LayerNormChannels(nn.LayerNorm):
    """LayerNorm over the channels of (N, C, H, W), each position by itself."""

    def forward(self, features_NCHW: Tensor) -> Tensor:
        normed_NHWC = super().forward(features_NCHW.permute(0, 2, 3, 1))
        return normed_NHWC.permute(0, 3, 1, 2)


class ConvNorm(nn.Module):
    """Convolution without bias, LayerNorm, and SiLU where `activate`."""

    def __init__(self, width_in: int, width_out: int, kernel: int = 1, groups: int = 1, activate: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width_in, width_out, kernel, padding=kernel // 2, groups=groups, bias=False)
        self.bn = LayerNormChannels(width_out, eps=1e-5)
        self.activate = activate

    def forward(self, features_NCHW: Tensor) -> Tensor:
        normed_NCHW: Tensor = self.bn(self.conv(features_NCHW))
        return F.silu(normed_NCHW) if self.activate else normed_NCHW


class SqueezeExcite(nn.Module):
    """x · sigmoid(W2 · SiLU(W1 · mean(x))), the mean over all positions of a frame."""

    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, width, 1)

    def forward(self, features_NCHW: Tensor) -> Tensor:
        mean_NC11 = features_NCHW.mean((2, 3), keepdim=True)
        gate_NC11: Tensor = self.fc2(F.silu(self.fc1(mean_NC11)))
        return features_NCHW * gate_NC11.sigmoid()


class Bottleneck(nn.Module):
    """SiLU(conv3(SE(conv2(conv1(x)))) + shortcut(x)); the shortcut is a convolution where the width changes."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(width_in, width_out)
        self.conv2 = ConvNorm(width_out, width_out, kernel=3, groups=width_out)
        self.se = SqueezeExcite(width_out, round(width_in * 0.25))
        self.conv3 = ConvNorm(width_out, width_out, activate=False)
        same = width_in == width_out
        self.downsample = nn.Identity() if same else ConvNorm(width_in, width_out, activate=False)

    def forward(self, features_NCHW: Tensor) -> Tensor:
        inner_NCHW = self.conv3(self.se(self.conv2(self.conv1(features_NCHW))))
        return F.silu(inner_NCHW + self.downsample(features_NCHW))


class RegStage(nn.Module):
    """`depth` bottlenecks `b1`, `b2`, …; the first goes from `width_in` to `width_out`."""

    def __init__(self, depth: int, width_in: int, width_out: int) -> None:
        super().__init__()
        for index in range(depth):
            self.add_module(f"b{index + 1}", Bottleneck(width_in if index == 0 else width_out, width_out))

    def forward(self, features_NCHW: Tensor) -> Tensor:
        for block in self.children():
            features_NCHW = block(features_NCHW)
        return features_NCHW

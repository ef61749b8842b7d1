"""From the tower's patches to tokens of the language model, by each of the published connectors.

All names and shapes are those of the checkpoints (`model.mm_projector.*`). Which connector reduces what:

    stc_connector       RegStage, Conv3d 2x2x2 (padding 1), RegStage, MLP      VideoLLaMA2
    stc_connector_v35   the same without padding                                VideoLLaMA2.1
    stp_connector       average pooling in place of the convolution
    spatial_conv        Conv3d 1x2x2 (padding 1), MLP
    spatial_pool        average pooling 1x2x2, MLP
    linear, mlp2x_gelu  mean over the frames, then one or more layers

B clips, T frames, P patches of a frame, L tokens of a clip, D hidden of the tower, E hidden of the language model; G G
is the grid of patches.
"""

from __future__ import annotations

import math
import re
from typing import Protocol

from torch import Tensor, nn

from lgsrr.errors import ModelError

from .regstage import RegStage

Triple = tuple[int, int, int]


class ConnectorConfig(Protocol):
    """The part of a model's config that a connector is built from."""

    mm_projector_type: str
    mm_hidden_size: int
    hidden_size: int


def mlp(depth: int, width_in: int, width_out: int) -> nn.Sequential:
    """`depth` linear layers with GELU between them."""
    layers: list[nn.Module] = [nn.Linear(width_in, width_out)]
    for _ in range(depth - 1):
        layers += [nn.GELU(), nn.Linear(width_out, width_out)]
    return nn.Sequential(*layers)


class SpatialTemporal(nn.Module):
    """Mixes patches within a frame, halves time and space by `sampler`, mixes again, reads out."""

    def __init__(self, config: ConnectorConfig, sampler: nn.Module, blocks: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.s1 = RegStage(blocks, config.mm_hidden_size, width) if blocks else nn.Identity()
        self.sampler = nn.Sequential(sampler, nn.SiLU())
        self.s2 = RegStage(blocks, width, width) if blocks else nn.Identity()
        self.readout = mlp(2, width, width)

    def forward(self, features_BTPD: Tensor) -> Tensor:
        clips, frames, patches, _ = features_BTPD.shape
        side = math.isqrt(patches)
        frames_NDGG = features_BTPD.flatten(0, 1).transpose(1, 2).unflatten(2, (side, side))
        mixed_NEGG = self.s1(frames_NDGG)
        mixed_BETGG = mixed_NEGG.unflatten(0, (clips, frames)).transpose(1, 2)
        sampled_BETGG = self.sampler(mixed_BETGG)
        sampled_NEGG = self.s2(sampled_BETGG.transpose(1, 2).flatten(0, 1))
        tokens_BLE = sampled_NEGG.flatten(2).transpose(1, 2).unflatten(0, (clips, -1)).flatten(1, 2)
        read_BLE: Tensor = self.readout(tokens_BLE)
        return read_BLE


class MeanOverFrames(nn.Sequential):
    """`linear` and `mlp2x_gelu`: the clip's mean frame, patch by patch, through the layers."""

    def forward(self, features_BTPD: Tensor) -> Tensor:
        tokens_BLE: Tensor = super().forward(features_BTPD.mean(1))  # type: ignore[no-untyped-call]
        return tokens_BLE


class MeanLinear(nn.Linear):
    """`linear` has no list of layers: its parameters are `mm_projector.weight` and `.bias`."""

    def forward(self, features_BTPD: Tensor) -> Tensor:
        return super().forward(features_BTPD.mean(1))


_SAMPLERS: dict[str, tuple[Triple, int | None, int]] = {
    "stc_connector": ((2, 2, 2), 1, 4),
    "stc_connector_v35": ((2, 2, 2), 0, 4),
    "stp_connector": ((2, 2, 2), None, 4),
    "spatial_conv": ((1, 2, 2), 1, 0),
    "spatial_pool": ((1, 2, 2), None, 0),
}
"""Kernel and stride over time, height, width; padding of the convolution, None for pooling; blocks of each stage."""


def mlp_depth(name: str) -> int | None:
    """Layers of `linear` (1) or `mlp<n>x_gelu` (n); None for the connectors that see space and time."""
    match = re.fullmatch(r"mlp([1-9]\d*)x_gelu", name)
    return 1 if name == "linear" else int(match[1]) if match else None


def check_connector(name: str) -> None:
    if name not in _SAMPLERS and mlp_depth(name) is None:
        known = ", ".join([*_SAMPLERS, "linear", "mlp2x_gelu"])
        raise ModelError(f"mm_projector_type={name!r}: there is no such connector; known are {known}")


def build_connector(config: ConnectorConfig) -> nn.Module:
    """The connector that `mm_projector_type` names: (B, T, P, D) to (B, L, E)."""
    name, width = config.mm_projector_type, config.hidden_size
    check_connector(name)
    if name == "linear":
        return MeanLinear(config.mm_hidden_size, width)
    if depth := mlp_depth(name):
        return MeanOverFrames(*mlp(depth, config.mm_hidden_size, width))
    kernel, padding, blocks = _SAMPLERS[name]
    if not blocks and config.mm_hidden_size != width:
        raise ModelError(
            f"{name} has no layer between the tower's width {config.mm_hidden_size} and the language model's {width}; "
            "they must be equal"
        )
    if padding is None:
        return SpatialTemporal(config, nn.AvgPool3d(kernel), blocks)
    return SpatialTemporal(config, nn.Conv3d(width, width, kernel, stride=kernel, padding=padding), blocks)


def count_tokens(name: str, frames: int, side: int) -> int:
    """L, the tokens that a clip of `frames` frames with `side` x `side` patches becomes."""
    check_connector(name)
    if mlp_depth(name) is not None:
        return side * side
    kernel, padding, _ = _SAMPLERS[name]
    sizes = [(size + 2 * (padding or 0) - k) // k + 1 for size, k in zip((frames, side, side), kernel, strict=True)]
    return math.prod(sizes)

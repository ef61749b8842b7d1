"""Vision towers: which one a checkpoint names, how it wants its frames, and the module that computes patch features.

A checkpoint says `mm_vision_tower: openai/clip-vit-large-patch14-336` and carries the tower's weights itself, so that
all that is missing is a page of settings. Those of the towers that were published are written here: nothing is
fetched for them. Any other tower is a folder with `config.json` (and `preprocessor_config.json`), absolute or beside
the checkpoint.

N frames, C colour channels, H W pixels, P patches of a frame, D hidden.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, PretrainedConfig, SiglipVisionConfig, SiglipVisionModel

from lgsrr.errors import ModelError

Kind = Literal["clip", "siglip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How a tower wants its frames; the same keys as transformers' `preprocessor_config.json`."""

    shortest_edge: int | None
    """Pixels of the shorter side after resizing; None resizes to `height` x `width` without regard to the ratio."""
    height: int
    width: int
    """Pixels that reach the tower: cut from the middle, or resized to."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    rescale: float = 1 / 255
    resample: int = 3
    """Pillow's number of the filter; 3 is bicubic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerSettings:
    """What is known of a tower without its weights."""

    vision_config: dict[str, Any]
    preprocessing: Preprocessing


CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_CLIP_LARGE = {
    "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16, "patch_size": 14, "projection_dim": 768,
}  # fmt: skip
_SIGLIP_SO400M = {
    "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
    "num_attention_heads": 16, "patch_size": 14, "image_size": 384,
}  # fmt: skip
PUBLISHED: dict[str, dict[str, Any]] = {
    "openai/clip-vit-large-patch14": {**_CLIP_LARGE, "image_size": 224},
    "openai/clip-vit-large-patch14-336": {**_CLIP_LARGE, "image_size": 336},
    "google/siglip-so400m-patch14-384": _SIGLIP_SO400M,
}
"""Settings of the towers that VideoLLaMA2's checkpoints name, as their model cards have them."""


def tower_settings(name: str, checkpoint: Path | None) -> TowerSettings:
    """The settings of tower `name`: published, or of a folder, absolute or within `checkpoint`."""
    for folder in _folders(name, checkpoint):
        if (folder / "config.json").is_file():
            return _read_folder(folder)
    if name in PUBLISHED:
        vision_config = dict(PUBLISHED[name])
        return TowerSettings(vision_config=vision_config, preprocessing=default_preprocessing(vision_config))
    looked = ", ".join(str(f) for f in _folders(name, checkpoint))
    raise ModelError(
        f"the vision tower {name!r} is none of {', '.join(PUBLISHED)}, and there is no config.json in {looked}; "
        "put the tower's config.json (and preprocessor_config.json) there"
    )


def _folders(name: str, checkpoint: Path | None) -> list[Path]:
    if checkpoint is None or Path(name).is_absolute():
        return [Path(name)]
    return [checkpoint / name, checkpoint / Path(name).name]


def _read_folder(folder: Path) -> TowerSettings:
    config = _read_json(folder / "config.json")
    vision_config = {**config.get("vision_config", {}), "model_type": _vision_type(config, folder)}
    if "vision_config" not in config:
        vision_config = config
    preprocessor = folder / "preprocessor_config.json"
    default = default_preprocessing(vision_config)
    if not preprocessor.is_file():
        return TowerSettings(vision_config=vision_config, preprocessing=default)
    return TowerSettings(vision_config=vision_config, preprocessing=_preprocessing(_read_json(preprocessor), default))


def _vision_type(config: dict[str, Any], folder: Path) -> str:
    kind = str(config.get("model_type", ""))
    if kind.startswith("siglip") and not kind.startswith("siglip2"):
        return "siglip_vision_model"
    if kind in ("clip", "clip_vision_model"):
        return "clip_vision_model"
    raise ModelError(f"{folder / 'config.json'}: a vision tower of type {kind!r}; only CLIP and SigLIP are known")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def default_preprocessing(vision_config: dict[str, Any]) -> Preprocessing:
    """What the two families ask for: CLIP the middle of the frame, SigLIP the whole of it, squeezed."""
    side = int(vision_config.get("image_size", 224))
    if vision_config["model_type"] == "siglip_vision_model":
        half = (0.5, 0.5, 0.5)
        return Preprocessing(shortest_edge=None, height=side, width=side, mean=half, std=half)
    return Preprocessing(shortest_edge=side, height=side, width=side, mean=CLIP_MEAN, std=CLIP_STD)


def _preprocessing(settings: dict[str, Any], default: Preprocessing) -> Preprocessing:
    """Reads `preprocessor_config.json`; a key that is absent keeps the family's value."""
    size, crop = _sides(settings.get("size")), _sides(settings.get("crop_size"))
    target = crop if settings.get("do_center_crop", default.shortest_edge is not None) and crop else size
    changed = dataclasses.replace(
        default,
        shortest_edge=size.get("shortest_edge") if size else default.shortest_edge,
        mean=_triple(settings.get("image_mean"), default.mean),
        std=_triple(settings.get("image_std"), default.std),
        rescale=float(settings.get("rescale_factor", default.rescale)),
        resample=int(settings.get("resample", default.resample)),
    )
    if "height" in target:
        changed = dataclasses.replace(changed, height=target["height"], width=target["width"])
    return changed


def _sides(value: int | dict[str, int] | None) -> dict[str, int]:
    """Old files give one number for a square."""
    if value is None:
        return {}
    return {"height": value, "width": value, "shortest_edge": value} if isinstance(value, int) else value


def _triple(value: list[float] | None, default: tuple[float, float, float]) -> tuple[float, float, float]:
    return default if value is None else (float(value[0]), float(value[1]), float(value[2]))


def grid_side(vision_config: PretrainedConfig) -> int:
    """Patches along one side of a frame; a remainder of pixels is left out, as by the tower's convolution."""
    return int(vision_config.image_size) // int(vision_config.patch_size)


class TowerOwner(Protocol):
    """The part of a model's config that a tower is built from."""

    vision_config: PretrainedConfig
    mm_vision_select_layer: int
    mm_vision_select_feature: str


class _Nested(nn.Module):
    """Gives the tower the name that it has in the checkpoint: `vision_tower.vision_tower.vision_model`."""

    def __init__(self, vision_model: nn.Module) -> None:
        super().__init__()
        self.vision_model = vision_model


class VisionTower(nn.Module):
    """CLIP or SigLIP up to the layer that is asked for; the layers above it are loaded, and never computed."""

    def __init__(self, config: TowerOwner) -> None:
        super().__init__()
        vision = config.vision_config
        if config.mm_vision_select_feature != "patch":
            raise ModelError(f"mm_vision_select_feature={config.mm_vision_select_feature!r}; only 'patch' is known")
        self.layers_used = layers_used(config)
        self.has_class_token = isinstance(vision, CLIPVisionConfig)
        model = CLIPVisionModel(vision) if self.has_class_token else SiglipVisionModel(_siglip(vision))
        self.vision_tower = _Nested(model)

    def forward(self, pixels_NCHW: Tensor) -> Tensor:
        """Patch features (N, P, D): the hidden state after `layers_used` layers, without CLIP's class token."""
        tower: Any = self.vision_tower.vision_model
        weight = tower.embeddings.patch_embedding.weight
        hidden_NPD: Tensor = tower.embeddings(pixels_NCHW.to(weight))
        if self.has_class_token:
            hidden_NPD = tower.pre_layrnorm(hidden_NPD)
        for layer in tower.encoder.layers[: self.layers_used]:
            hidden_NPD = layer(hidden_NPD, attention_mask=None)
        return hidden_NPD[:, 1:] if self.has_class_token else hidden_NPD


def _siglip(vision: PretrainedConfig) -> SiglipVisionConfig:
    if not isinstance(vision, SiglipVisionConfig):
        raise ModelError(f"a vision tower of type {vision.model_type!r}; only CLIP and SigLIP are known")
    return vision


def layers_used(config: TowerOwner) -> int:
    """`hidden_states[select_layer]` in layers: index 0 is the embedding, -1 the last layer's output."""
    count, select = int(config.vision_config.num_hidden_layers), config.mm_vision_select_layer
    used = select if select >= 0 else count + 1 + select
    if not 0 <= used <= count:
        raise ModelError(f"mm_vision_select_layer={select} of a vision tower with {count} layers")
    return used


def pixel_shape(settings: Preprocessing) -> tuple[int, int, int]:
    """Channels, height, width of one frame as the tower takes it."""
    return 3, settings.height, settings.width


__all__ = ["Preprocessing", "TowerSettings", "VisionTower", "grid_side", "layers_used", "tower_settings"]
_ = torch

"""The config of a VideoLLaMA2 checkpoint, read in the published layout: the language model's fields and `mm_*` beside
them.

`model_type` says which language model it is, `videollama2_mistral` or `videollama2_qwen2`, and each has its own
class, since the fields are those of `MistralConfig` and `Qwen2Config`. The tower's config is looked up by
`mm_vision_tower` when the file is read and kept as `vision_config`; a file written by `save_pretrained` holds it too.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar, Self

from transformers import AutoConfig, MistralConfig, PretrainedConfig, Qwen2Config
from transformers.configuration_utils import SubConfigSpec

from lgsrr.errors import ModelError

from .connectors import check_connector, count_tokens
from .towers import grid_side, tower_settings

PUBLISHED_FRAMES = 8
"""Frames of a checkpoint that does not say `num_frames` (the authors' constant NUM_FRAMES)."""


class VideoLlama2Config(PretrainedConfig):
    """What both language models share. `from_pretrained` and `from_dict` give the subclass that `model_type` names."""

    model_type = "videollama2"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="clip_vision_model", optional=True)
    }
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]

    vision_config: Any = None
    mm_vision_tower: str = "openai/clip-vit-large-patch14-336"
    mm_hidden_size: int = 1024
    mm_projector_type: str = "linear"
    mm_vision_select_layer: int = -2
    mm_vision_select_feature: str = "patch"
    num_frames: int = PUBLISHED_FRAMES

    def __post_init__(self, **kwargs: Any) -> None:
        folder = kwargs.get("name_or_path")
        if self.vision_config is None:
            self.vision_config = tower_settings(self.mm_vision_tower, Path(folder) if folder else None).vision_config
        super().__post_init__(**kwargs)
        check_connector(self.mm_projector_type)
        width = int(self.vision_config.hidden_size)
        if width != self.mm_hidden_size:
            raise ModelError(f"mm_hidden_size={self.mm_hidden_size}, but the vision tower's features are {width} wide")

    @property
    def num_video_tokens(self) -> int:
        """L, the tokens that stand for a clip of `num_frames` frames."""
        return self.video_tokens(self.num_frames)

    def video_tokens(self, frames: int) -> int:
        """L for a clip of `frames` frames."""
        return count_tokens(self.mm_projector_type, frames, grid_side(self.vision_config))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> Self:
        check_folder(pretrained_model_name_or_path)
        content, kwargs = cls.get_config_dict(pretrained_model_name_or_path, **kwargs)
        return cls.from_dict(content, **{"name_or_path": str(pretrained_model_name_or_path), **kwargs})

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Self:
        model_type = config_dict.get("model_type")
        known = {c.model_type: c for c in (VideoLlama2MistralConfig, VideoLlama2Qwen2Config)}
        target = known.get(str(model_type))
        if target is None:
            where = kwargs.get("name_or_path") or config_dict.get("_name_or_path") or "the config"
            raise ModelError(
                f"{where} is not a VideoLLaMA2 checkpoint: "
                f"its model_type is {model_type!r}, expected {' or '.join(known)}"
            )
        if cls is VideoLlama2Config:
            return target.from_dict(config_dict, **kwargs)  # type: ignore[return-value]
        config: Self = super().from_dict(config_dict, **kwargs)
        return config


class VideoLlama2MistralConfig(VideoLlama2Config, MistralConfig):
    """VideoLLaMA2 over Mistral, such as VideoLLaMA2-7B-16F."""

    model_type = "videollama2_mistral"


class VideoLlama2Qwen2Config(VideoLlama2Config, Qwen2Config):
    """VideoLLaMA2.1 over Qwen2, such as VideoLLaMA2.1-7B-16F."""

    model_type = "videollama2_qwen2"


def check_folder(name: str | os.PathLike[str]) -> None:
    """A path that is no folder, or a folder without `config.json`, is one message; a name of the hub passes."""
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{path} is not a VideoLLaMA2 checkpoint: it has no config.json")
        return
    if path.is_absolute() or str(name).startswith((".", "~")) or len(path.parts) != 2:
        raise ModelError(f"there is no folder {path}; name one that holds a VideoLLaMA2 checkpoint")

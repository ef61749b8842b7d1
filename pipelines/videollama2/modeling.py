"""VideoLLaMA2 in transformers: tower, connector and language model under the names that the checkpoints use.

The language model is transformers' own; the clip's tokens take the places of `CLIP_ID` among its inputs. The
published code calls the model for one clip at a time and computes every layer of the tower; here a batch of clips and
prompts goes through at once, and the layers above the one that is read are left out.

N clips, B prompts, T frames (of a clip) or tokens (of a prompt), C H W colours and pixels, P patches, D hidden of the
tower, L tokens of a clip, E hidden of the language model.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    MistralModel,
    PreTrainedModel,
    Qwen2Model,
)
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

from lgsrr.errors import ModelError, PromptError

from .checkpoint import Shapes, check_tensors, tensor_shapes, weight_files
from .configuration import VideoLlama2Config, VideoLlama2MistralConfig, VideoLlama2Qwen2Config, check_folder
from .connectors import build_connector
from .processing import VideoLlama2Processor
from .prompts import CLIP_ID
from .towers import VisionTower


class VideoLlama2ForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """Describes clips: `generate(input_ids, attention_mask, pixel_values_videos)` gives the new tokens alone."""

    config_class = VideoLlama2Config
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("video", "text")
    supports_gradient_checkpointing = True
    _tied_weights_keys: ClassVar[dict[str, str]] = {"lm_head.weight": "model.embed_tokens.weight"}
    _no_split_modules: ClassVar[list[str]] = [
        "MistralDecoderLayer", "Qwen2DecoderLayer", "CLIPEncoderLayer", "SiglipEncoderLayer"
    ]  # fmt: skip
    _skip_keys_device_placement: ClassVar[list[str]] = ["past_key_values"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: VideoLlama2Config) -> None:
        super().__init__(config)
        backbone = MistralModel if isinstance(config, VideoLlama2MistralConfig) else Qwen2Model
        self.model = backbone(config)
        self.model.vision_tower = VisionTower(config)
        self.model.mm_projector = build_connector(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Self:
        """Reads a checkpoint in the published layout; the keywords are transformers' (`dtype`, `device_map`, …).

        Names and shapes are checked against the config before a tensor is allocated, and each tensor is then read
        straight to its place, so that two copies of the weights are never held.
        """
        folder = Path(pretrained_model_name_or_path)
        check_folder(folder)
        if not isinstance(kwargs.get("config"), VideoLlama2Config):
            kwargs["config"] = VideoLlama2Config.from_pretrained(pretrained_model_name_or_path)
        if folder.is_dir():
            check_tensors(folder, tensor_shapes(weight_files(folder)), cls.expected_shapes(kwargs["config"]))
        report = kwargs.pop("output_loading_info", False)
        model, info = super().from_pretrained(
            pretrained_model_name_or_path, *args, output_loading_info=True, weights_only=True, **kwargs
        )
        _refuse_incomplete(folder, info)
        return (model, info) if report else cast(Self, model)  # type: ignore[return-value]

    @classmethod
    def expected_shapes(cls, config: VideoLlama2Config) -> Shapes:
        """Name and shape of every tensor that a checkpoint with this config holds."""
        with torch.device("meta"):
            shapes = {name: tuple(tensor.shape) for name, tensor in cls(config).state_dict().items()}
        if config.tie_word_embeddings:
            del shapes["lm_head.weight"]
        return shapes

    def get_input_embeddings(self) -> nn.Module:
        return cast(nn.Module, self.model.embed_tokens)

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.embed_tokens = value

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def get_decoder(self) -> nn.Module:
        return cast(nn.Module, self.model)

    def vision_features(self, pixel_values_videos: Tensor) -> Tensor:
        """The tower's patch features (N, T, P, D) of clips (N, T, C, H, W)."""
        if pixel_values_videos.ndim != 5:
            raise ValueError(f"clips are (N, T, C, H, W), these are {tuple(pixel_values_videos.shape)}")
        features_NPD: Tensor = self.model.vision_tower(pixel_values_videos.flatten(0, 1))
        return features_NPD.reshape(*pixel_values_videos.shape[:2], *features_NPD.shape[1:])

    def get_video_features(self, pixel_values_videos: Tensor) -> Tensor:
        """The tokens (N, L, E) that take the place of each clip."""
        tokens_NLE: Tensor = self.model.mm_projector(self.vision_features(pixel_values_videos))
        return tokens_NLE

    def embed(
        self, input_ids: Tensor, pixel_values_videos: Tensor | None = None, clip_tokens: Tensor | None = None
    ) -> Tensor:
        """Input embeddings (B, T, E), with the clips' tokens at the places of `CLIP_ID`, in order.

        `clip_tokens` (N, L, E), from `get_video_features`, stand for pixels where several prompts share a clip.
        """
        at_clip_BT = input_ids == CLIP_ID
        embeds_BTE: Tensor = self.model.embed_tokens(input_ids.masked_fill(at_clip_BT, 0))
        places = int(at_clip_BT.sum())
        if clip_tokens is None and pixel_values_videos is not None:
            clip_tokens = self.get_video_features(pixel_values_videos)
        if clip_tokens is None:
            if places:
                raise PromptError("the prompt has a place for a clip, and no clip was given")
            return embeds_BTE
        tokens_NLE = clip_tokens.to(embeds_BTE)
        if places != tokens_NLE.shape[0] * tokens_NLE.shape[1]:
            raise PromptError(
                f"{len(tokens_NLE)} clips are {tokens_NLE.shape[0] * tokens_NLE.shape[1]} tokens, and the prompts have "
                f"places for {places}; make both with one processor"
            )
        spliced_BTE: Tensor = embeds_BTE.masked_scatter(at_clip_BT[:, :, None], tokens_NLE)
        return spliced_BTE

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (B, T, vocabulary), and the loss where `labels` (B, T) are given."""
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("give input_ids or inputs_embeds")
            inputs_embeds = self.embed(input_ids, pixel_values_videos)
        outputs = self.model(inputs_embeds=inputs_embeds, attention_mask=attention_mask, **kwargs)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) and logits_to_keep else logits_to_keep
        hidden_BTE = outputs.last_hidden_state[:, slice(None) if isinstance(kept, int) else kept]
        logits_BTV = self.lm_head(hidden_BTE)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits_BTV, labels=labels, vocab_size=self.config.vocab_size)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits_BTV,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self,
        input_ids: Tensor,
        pixel_values_videos: Tensor | None = None,
        attention_mask: Tensor | None = None,
        clip_tokens: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """New tokens (B, up to `max_new_tokens`), without the prompt; greedy unless `do_sample` says otherwise.

        Clips are given as pixels, or as the tokens that were made of them (`embed`). `kwargs` are those of
        transformers' `generate`. An answer stops where the context ends.
        """
        room = int(self.config.max_position_embeddings) - input_ids.shape[1]
        if room < 1:
            raise PromptError(
                f"the prompt is {input_ids.shape[1]} tokens long with its clip, and the model's context holds "
                f"{self.config.max_position_embeddings}; shorten the prompt"
            )
        kwargs.setdefault("do_sample", False)
        kwargs["max_new_tokens"] = min(kwargs.get("max_new_tokens", room), room)
        if kwargs.get("pad_token_id") is None:
            kwargs["pad_token_id"] = self._padding()
        mask_BT = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        embeds_BTE = self.embed(input_ids, pixel_values_videos, clip_tokens)
        return super().generate(inputs_embeds=embeds_BTE, attention_mask=mask_BT, **kwargs)

    def _padding(self) -> int:
        """What follows an answer that ends before the others: the end token itself, as published."""
        end = self.generation_config.eos_token_id
        return int(end[0] if isinstance(end, list) else end or 0)


class VideoLlama2MistralForConditionalGeneration(VideoLlama2ForConditionalGeneration):
    """The same over Mistral; transformers' Auto classes want a class for each config."""

    config_class = VideoLlama2MistralConfig


class VideoLlama2Qwen2ForConditionalGeneration(VideoLlama2ForConditionalGeneration):
    """The same over Qwen2."""

    config_class = VideoLlama2Qwen2Config


def _refuse_incomplete(folder: Path, info: dict[str, Any]) -> None:
    """What transformers left out or made up, in case its reading differs from the look at the headers."""
    left = {key: sorted(map(str, info[key])) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    told = [f"{key.replace('_keys', '')}: {', '.join(names[:8])}" for key, names in left.items() if names]
    if told:
        raise ModelError(f"the tensors of {folder} were not read as they are. " + "; ".join(told))


def register() -> None:
    """Makes the Auto classes of transformers know these checkpoints; doing it again changes nothing."""
    classes = {
        VideoLlama2MistralConfig: VideoLlama2MistralForConditionalGeneration,
        VideoLlama2Qwen2Config: VideoLlama2Qwen2ForConditionalGeneration,
    }
    for config, model in classes.items():
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModelForImageTextToText.register(config, model, exist_ok=True)
        AutoModelForCausalLM.register(config, model, exist_ok=True)
        AutoProcessor.register(config, VideoLlama2Processor, exist_ok=True)

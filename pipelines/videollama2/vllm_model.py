"""VideoLLaMA2 on vLLM: vLLM's own tower and language model, with our connector between them.

Tower and language model are divided over GPUs by vLLM's layers (tensor parallelism); the connector, a few per cent of
the arithmetic, is whole on each. vLLM keeps a clip's tokens by the clip's hash, so that tower and connector run once
however many prompts are asked of it.

N clips, T frames, C H W colours and pixels, P patches, D hidden of the tower, L tokens of a clip, E hidden of the
language model.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig
from vllm.config import VllmConfig
from vllm.model_executor.models.clip import CLIPVisionModel
from vllm.model_executor.models.interfaces import MultiModalEmbeddings, SupportsMultiModal, SupportsPP
from vllm.model_executor.models.module_mapping import MultiModelKeys
from vllm.model_executor.models.siglip import SiglipVisionModel
from vllm.model_executor.models.utils import (
    AutoWeightsLoader,
    WeightsMapper,
    init_vllm_registered_model,
    maybe_prefix,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from .checkpoint import check_tensors, tensor_shapes, weight_files
from .configuration import VideoLlama2Config, VideoLlama2MistralConfig
from .connectors import build_connector
from .modeling import VideoLlama2ForConditionalGeneration
from .prompts import MARK
from .towers import layers_used
from .vllm_heads import widen_heads
from .vllm_processing import ClipProcessor, DummyInputs, ProcessingInfo


@MULTIMODAL_REGISTRY.register_processor(ClipProcessor, info=ProcessingInfo, dummy_inputs=DummyInputs)
class VideoLlama2ForVllm(nn.Module, SupportsMultiModal, SupportsPP):  # type: ignore[misc]
    """The model as vLLM runs it; `load_weights` reads the published names."""

    packed_modules_mapping: ClassVar[dict[str, list[str]]] = {
        "qkv_proj": ["q_proj", "k_proj", "v_proj"],
        "gate_up_proj": ["gate_proj", "up_proj"],
    }
    hf_to_vllm_mapper = WeightsMapper(
        orig_to_new_prefix={
            "model.vision_tower.vision_tower.": "vision_tower.",
            "model.mm_projector.": "mm_projector.",
            "model.": "language_model.model.",
            "lm_head.": "language_model.lm_head.",
        },
        orig_to_new_suffix={".position_ids": None},
    )

    allow_patterns_overrides: ClassVar[list[str]] = ["model*.safetensors", "*.safetensors", "pytorch_model*.bin"]
    """The first that matches is read: a folder may hold tensors beside the checkpoint's."""

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        if modality == "video":
            return MARK
        raise ValueError(f"VideoLLaMA2 takes clips (video), not {modality}")

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config: VideoLlama2Config = vllm_config.model_config.hf_config
        self.config = config
        _refuse_other_tensors(vllm_config)
        parts: Any = self
        with parts._mark_tower_model(vllm_config, "video"):
            self.vision_tower: Any = _tower(config, vllm_config.quant_config, maybe_prefix(prefix, "vision_tower"))
            self.mm_projector = build_connector(config)
        mistral = isinstance(config, VideoLlama2MistralConfig)
        with parts._mark_language_model(vllm_config):
            self.language_model = init_vllm_registered_model(
                vllm_config=vllm_config,
                hf_config=config,
                prefix=maybe_prefix(prefix, "language_model"),
                architectures=["MistralForCausalLM" if mistral else "Qwen2ForCausalLM"],
            )
        widen_heads(self.language_model)
        self.make_empty_intermediate_tensors = self.language_model.make_empty_intermediate_tensors

    def embed_multimodal(self, **kwargs: Any) -> MultiModalEmbeddings:
        """The tokens (L, E) of each clip in the batch."""
        clips = kwargs.get("pixel_values_videos")
        if clips is None or len(clips) == 0:
            return []
        pixels_NTCHW = clips if isinstance(clips, Tensor) else torch.stack(list(clips))
        return list(self.clip_tokens(pixels_NTCHW))

    def clip_tokens(self, pixels_NTCHW: Tensor) -> Tensor:
        """Tower and connector: (N, L, E)."""
        features_NPD = self.vision_tower(
            pixels_NTCHW.flatten(0, 1).to(self.vision_tower.dtype),
            feature_select_strategy="default" if isinstance(self.config.vision_config, CLIPVisionConfig) else "full",
        )
        tokens_NLE: Tensor = self.mm_projector(features_NPD.unflatten(0, pixels_NTCHW.shape[:2]))
        return tokens_NLE

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        if intermediate_tensors is not None:
            inputs_embeds = None
        return self.language_model.model(input_ids, positions, intermediate_tensors, inputs_embeds=inputs_embeds)

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        logits: Tensor | None = self.language_model.compute_logits(hidden_states)
        return logits

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        loaded: set[str] = AutoWeightsLoader(self).load_weights(weights, mapper=self.hf_to_vllm_mapper)
        return loaded

    def get_mm_mapping(self) -> MultiModelKeys:
        return MultiModelKeys.from_string_field(
            language_model="language_model", connector="mm_projector", tower_model="vision_tower"
        )


def _tower(config: VideoLlama2Config, quantization: Any, prefix: str) -> nn.Module:
    """vLLM's tower up to the layer that is read; the layers above it are not even made."""
    clip = isinstance(config.vision_config, CLIPVisionConfig)
    tower: nn.Module = (CLIPVisionModel if clip else SiglipVisionModel)(
        config.vision_config,
        quant_config=quantization,
        num_hidden_layers_override=layers_used(config),
        require_post_norm=False,
        prefix=prefix,
    )
    return tower


def _refuse_other_tensors(vllm_config: VllmConfig) -> None:
    """The look at the headers that transformers' side has too; weights that vLLM quantizes have names of their own."""
    folder = Path(vllm_config.model_config.model)
    if folder.is_dir() and vllm_config.quant_config is None and vllm_config.load_config.load_format != "dummy":
        expected = VideoLlama2ForConditionalGeneration.expected_shapes(vllm_config.model_config.hf_config)
        check_tensors(folder, tensor_shapes(weight_files(folder)), expected)

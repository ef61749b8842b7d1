"""Prompts and clips on their way into a vLLM engine.

A prompt is text with `<video>` in it, or token ids with one `CLIP_ID`; a clip is an array (T, H, W, 3), a path, or
bytes:

    llm.generate({"prompt": processor.build_prompt("…"), "multi_modal_data": {"video": "clip.mp4"}})

What the clip's tokens replace is remembered by position, so that the id which fills their places means nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from transformers import BatchFeature
from vllm.exceptions import VLLMValidationError
from vllm.multimodal.inputs import MultiModalFieldConfig, MultiModalKwargsItems
from vllm.multimodal.media import MediaWithBytes
from vllm.multimodal.parse import (
    MultiModalDataItems,
    MultiModalDataParser,
    ProcessorBatchItems,
    VideoProcessorItems,
)
from vllm.multimodal.processing import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    PromptReplacement,
    PromptUpdate,
)
from vllm.renderers import TokenizeParams

from lgsrr.errors import ClipError, PromptError

from .configuration import VideoLlama2Config
from .frames import Frames, as_frames
from .processing import VideoLlama2Processor, tower_preprocessing
from .prompts import CLIP_ID, MARK, check_marks
from .vllm_tokens import cut_at_marks

FILL = 0
"""Any id of the vocabulary; the clip's tokens cover it."""


class ClipItems(ProcessorBatchItems[Any]):  # type: ignore[misc]
    """Clips as they were given; one is decoded only when vLLM has not kept its pixels.

    vLLM knows a clip by the name that its caller gave (`multi_modal_uuids`), else by a hash: of a file's bytes, or of
    the frames of an array that are looked at. Either is had without decoding: many prompts on one clip decode it once.
    """

    def __init__(self, sources: Sequence[Any], num_frames: int) -> None:
        super().__init__(sources, "video")
        self.num_frames = num_frames

    def get_item_for_hash(self, index: int) -> Any:
        source = self.data[index]
        if source is None or isinstance(source, (bytes, MediaWithBytes)):
            return source
        if isinstance(source, (str, os.PathLike)):
            with contextlib.suppress(OSError):
                return Path(source).read_bytes()
        return as_frames(source, self.num_frames)  # for what is no readable file, the error that says so


class ClipParser(MultiModalDataParser):  # type: ignore[misc]
    """Takes paths and bytes as well as arrays."""

    def __init__(self, num_frames: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_frames = num_frames

    def _parse_video_data(self, data: Any) -> Any:
        items = super()._parse_video_data([data] if isinstance(data, (str, bytes, os.PathLike)) else data)
        return ClipItems(items.data, self.num_frames) if isinstance(items, VideoProcessorItems) else items

    def _get_video_with_metadata(self, video: Any) -> Any:
        if isinstance(video, (tuple, MediaWithBytes)):
            return super()._get_video_with_metadata(video)
        return video, None


class ProcessingInfo(BaseProcessingInfo):  # type: ignore[misc]
    """What vLLM asks about the model's inputs."""

    def __init__(self, ctx: Any) -> None:
        super().__init__(ctx)
        if ctx.tokenizer is not None:
            cut_at_marks(ctx.tokenizer)

    def get_hf_config(self) -> VideoLlama2Config:
        config: VideoLlama2Config = self.ctx.get_hf_config(VideoLlama2Config)
        return config

    @cached_property
    def processor(self) -> VideoLlama2Processor:
        config, folder = self.get_hf_config(), self.ctx.model_config.model
        if self.ctx.tokenizer is None:
            return VideoLlama2Processor.from_pretrained(folder)
        return VideoLlama2Processor(self.ctx.tokenizer, config, tower_preprocessing(config, folder))

    def get_hf_processor(self, **kwargs: object) -> VideoLlama2Processor:
        return self.processor

    def get_default_tok_params(self) -> TokenizeParams:
        """The chat template writes special tokens out; nothing is to be put before it."""
        return super().get_default_tok_params().with_kwargs(add_special_tokens=False)

    def get_data_parser(self) -> ClipParser:
        return ClipParser(
            self.processor.num_frames,
            expected_hidden_size=self._get_expected_hidden_size(),
            allow_missing_mm_embeddings=self.allow_missing_mm_embeddings,
        )

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {"video": 1}

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        return {"video": self.processor.tokens_per_clip}


class DummyInputs(BaseDummyInputsBuilder[ProcessingInfo]):  # type: ignore[misc]
    """The largest input there is, by which vLLM measures its memory: a clip of any content."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        return MARK * mm_counts.get("video", 0)

    def get_dummy_mm_data(
        self, seq_len: int, mm_counts: Mapping[str, int], mm_options: Mapping[str, Any]
    ) -> dict[str, list[Frames]]:
        processor = self.info.processor
        shape = (processor.num_frames, processor.preprocessing.height, processor.preprocessing.width, 3)
        return {"video": [np.full(shape, 127, dtype=np.uint8)] * mm_counts.get("video", 0)}


class ClipProcessor(BaseMultiModalProcessor[ProcessingInfo]):  # type: ignore[misc]
    """Pixels of the clips, and where in the prompt their tokens go."""

    def apply(self, inputs: Any, timing_ctx: Any) -> Any:
        """Raises what vLLM takes for the caller's fault: the message of any other error is lost in its async engine."""
        try:
            check_marks(list(inputs.prompt), inputs.mm_data_items.get_all_counts().get("video", 0))
            return super().apply(inputs, timing_ctx)
        except (ClipError, PromptError) as error:
            raise VLLMValidationError(str(error)) from error

    def _preprocess_hf_mm_data(self, mm_data: Mapping[str, Any], hf_processor_mm_kwargs: Mapping[str, object]) -> Any:
        """Decodes here, and not in the processor, whose errors vLLM hides behind the data that it was given."""
        frames = [as_frames(clip, self.info.processor.num_frames) for clip in mm_data["videos"]]
        return {"videos": frames}, hf_processor_mm_kwargs

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        return {"pixel_values_videos": MultiModalFieldConfig.batched("video")}

    def _get_prompt_updates(
        self,
        mm_items: MultiModalDataItems,
        hf_processor_mm_kwargs: Mapping[str, object],
        out_mm_kwargs: MultiModalKwargsItems,
    ) -> Sequence[PromptUpdate]:
        tokens = [FILL] * self.info.processor.tokens_per_clip
        return [PromptReplacement(modality="video", target=[CLIP_ID], replacement=tokens)]

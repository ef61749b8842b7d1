"""`VideoLlama2Processor`: instructions and clips to what the model takes, and tokens back to text.

    processor = VideoLlama2Processor.from_pretrained(folder)
    prompt = processor.build_prompt("Describe the speakers' actions in the video.")
    inputs = processor(text=[prompt], videos=["clip.mp4"])
    print(processor.batch_decode(model.generate(**inputs, max_new_tokens=64), skip_special_tokens=True))

Padding is on the left, so that a batch of prompts of different lengths generates as each would by itself.

N clips, B prompts, T tokens (of a prompt) or frames (of a clip), C colours, H W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from transformers import AutoTokenizer, BatchFeature
from transformers.processing_utils import ProcessorMixin

from lgsrr.errors import ModelError, PromptError

from .configuration import VideoLlama2Config
from .frames import MAX_FRAMES, as_frames
from .pixels import to_pixels
from .prompts import SYSTEM, build_prompt, check_marks, expand, splice
from .towers import Preprocessing, default_preprocessing, tower_settings


class VideoLlama2Processor(ProcessorMixin):
    """Tokenizer, prompt and frames of one checkpoint."""

    def __init__(
        self, tokenizer: Any, config: VideoLlama2Config, preprocessing: Preprocessing, chat_template: str | None = None
    ) -> None:
        super().__init__(tokenizer, chat_template=chat_template or getattr(tokenizer, "chat_template", None))
        self.config = config
        self.preprocessing = preprocessing
        self.num_frames = min(config.num_frames, MAX_FRAMES)
        self.tokens_per_clip = config.video_tokens(self.num_frames)
        self.context_length = int(config.max_position_embeddings)
        self.system = SYSTEM if config.model_type == "videollama2_mistral" else None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> Self:  # type: ignore[override]
        """Reads a checkpoint's folder (or name on the hub); `kwargs` go to the tokenizer."""
        folder = pretrained_model_name_or_path
        config = VideoLlama2Config.from_pretrained(folder)
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, config=config, **kwargs)
        except (OSError, ValueError) as error:
            raise ModelError(f"the tokenizer of {folder} cannot be read: {error}") from error
        return cls(tokenizer, config, tower_preprocessing(config, folder))

    def build_prompt(self, instruction: str, *, clip: bool = True) -> str:
        """The published prompt for one instruction: system text, `<video>`, instruction, in the chat template."""
        return build_prompt(self.tokenizer, instruction, system=self.system, clip=clip)

    def prompt_ids(self, text: str, *, clips: int = 1) -> list[int]:
        """Token ids of a prompt, one `CLIP_ID` for each clip; raises PromptError where marks and clips differ."""
        if not text.strip():
            raise PromptError("the prompt is empty; say what to describe")
        ids = splice(self.tokenizer, text)
        check_marks(ids, clips)
        return ids

    def pixel_values(self, clip: Any) -> torch.Tensor:
        """One clip, a file or an array (T, H, W, 3), as normalised pixels (num_frames, C, H, W)."""
        return to_pixels(as_frames(clip, self.num_frames), self.preprocessing)

    def __call__(
        self, text: str | Sequence[str] | None = None, videos: Any = None, *, return_tensors: str = "pt", **_: Any
    ) -> BatchFeature:
        """Prompts and their clips as tensors.

        `videos` is one clip or a list with one clip for each prompt, or None for text alone (a list with None in it
        for a batch of both); a clip is a path, bytes, or an array. Returns `input_ids` (B, T) and `attention_mask`
        (B, T), padded on the left, and `pixel_values_videos` (N, T, C, H, W). Without `text` only the latter.
        """
        if return_tensors != "pt":
            raise ValueError(f"return_tensors={return_tensors!r}; only 'pt' is made here")
        prompts = None if text is None else [text] if isinstance(text, str) else list(text)
        clips = _as_list(videos, 1 if prompts is None else len(prompts), single=isinstance(text, str) or text is None)
        data: dict[str, torch.Tensor] = {}
        if prompts is not None:
            data |= self._text_tensors(prompts, clips)
        pixels = [self.pixel_values(clip) for clip in clips if clip is not None]
        if pixels:
            data["pixel_values_videos"] = torch.stack(pixels)
        return BatchFeature(data)

    def _text_tensors(self, prompts: list[str], clips: list[Any]) -> dict[str, torch.Tensor]:
        if not prompts:
            raise PromptError("no prompt was given")
        if len(clips) != len(prompts):
            raise PromptError(f"{len(prompts)} prompts and {len(clips)} clips; give one clip (or None) for each prompt")
        return self.padded(
            [self.input_ids(prompt, clips=int(clip is not None)) for prompt, clip in zip(prompts, clips, strict=True)]
        )

    def input_ids(self, prompt: str, *, clips: int = 1) -> list[int]:
        """What the model takes of one prompt: `CLIP_ID` as often as its clip has tokens. Raises PromptError."""
        return self._checked_length(expand(self.prompt_ids(prompt, clips=clips), self.tokens_per_clip))

    def padded(self, rows: Sequence[list[int]]) -> dict[str, torch.Tensor]:
        """Prompts as one batch: `input_ids` (B, T) and `attention_mask` (B, T), padded on the left."""
        longest = max(len(row) for row in rows)
        pad = self.tokenizer.pad_token_id or 0
        return {
            "input_ids": torch.tensor([[pad] * (longest - len(row)) + row for row in rows]),
            "attention_mask": torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows]),
        }

    def _checked_length(self, ids: list[int]) -> list[int]:
        if len(ids) >= self.context_length:
            raise PromptError(
                f"the prompt is {len(ids)} tokens long with its clip, and the model's context holds "
                f"{self.context_length}, of which one at least is the answer's; shorten the prompt"
            )
        return ids


def tower_preprocessing(config: VideoLlama2Config, folder: str | os.PathLike[str]) -> Preprocessing:
    """The tower's own settings; a config that was saved with its tower may have left the tower's folder behind."""
    try:
        return tower_settings(config.mm_vision_tower, Path(folder)).preprocessing
    except ModelError:
        return default_preprocessing(config.vision_config.to_dict())


def _as_list(videos: Any, count: int, *, single: bool) -> list[Any]:
    """One clip or a list of clips, as a list. A list of pictures is one clip where one prompt is asked of it."""
    if videos is None:
        return [None] * count
    if isinstance(videos, (list, tuple)):
        pictures = single and len(videos) != 1 and not isinstance(videos[0], (str, bytes, os.PathLike))
        return [videos] if pictures and getattr(videos[0], "ndim", 3) == 3 else list(videos)
    return [videos]

"""How vLLM's server decodes a clip that comes by URL: the published sampler, not vLLM's 32 frames by its own rule."""

from __future__ import annotations

from typing import Any

from vllm.model_executor.models.config import VerifyAndUpdateConfig
from vllm.multimodal.video import VIDEO_LOADER_REGISTRY, VideoLoader

from .frames import Frames, read_frames

NAME = "videollama2"


@VIDEO_LOADER_REGISTRY.register(NAME)
class PublishedFrames(VideoLoader):
    """Decodes by PyAV and takes the frames that the authors' sampler takes."""

    @classmethod
    def load_bytes(cls, data: bytes, num_frames: int = 16, **_: Any) -> tuple[Frames, dict[str, Any]]:
        frames_THWC = read_frames(data, num_frames)
        return frames_THWC, {"video_backend": NAME, "total_num_frames": num_frames, "do_sample_frames": False}


class VideoLlama2ModelConfig(VerifyAndUpdateConfig):
    """Sets that loader for engines of this model, unless another was asked for by `media_io_kwargs`."""

    @staticmethod
    def verify_and_update_model_config(model_config: Any) -> None:
        if model_config.multimodal_config is not None:
            video = model_config.multimodal_config.media_io_kwargs.setdefault("video", {})
            video.setdefault("video_backend", NAME)
            video.setdefault("num_frames", model_config.hf_config.num_frames)

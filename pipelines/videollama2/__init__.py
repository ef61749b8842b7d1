"""VideoLLaMA2 on today's transformers and vLLM, from the published checkpoints as they are.

    from pipelines.videollama2 import VideoLlama2ForConditionalGeneration, VideoLlama2Processor

Importing this makes transformers' Auto classes know the checkpoints too. vLLM finds its model by itself, through the
entry point `vllm.general_plugins` (vllm_plugin.py).

Cheng et al. 2024, "VideoLLaMA 2", https://arxiv.org/abs/2406.07476; behaviour after the authors' package
(github.com/DAMO-NLP-SG/VideoLLaMA2, Apache-2.0), code our own.
"""

from .configuration import VideoLlama2Config, VideoLlama2MistralConfig, VideoLlama2Qwen2Config
from .modeling import VideoLlama2ForConditionalGeneration, register
from .processing import VideoLlama2Processor

__all__ = [
    "VideoLlama2Config",
    "VideoLlama2ForConditionalGeneration",
    "VideoLlama2MistralConfig",
    "VideoLlama2Processor",
    "VideoLlama2Qwen2Config",
]

register()

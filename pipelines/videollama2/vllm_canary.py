"""Starts vLLM with the canary: for programs `start_engine`, for vLLM's server an endpoint plugin.

    llm = start_engine(folder)                                               # raises CanaryError, or serves
    VLLM_PLUGINS=videollama2,videollama2_canary vllm serve folder            # does not come up, or serves

`vllm.LLM(folder)` and a server without that plugin start without a canary, as for any other model.
"""

from __future__ import annotations

import os
from typing import Any

from .canary import INSTRUCTION, MAX_TOKENS, Answer, Switch, canary_clip, check, judge, wanted
from .frames import Frames
from .processing import VideoLlama2Processor

SWITCH = "VIDEOLLAMA2_CANARY"
"""Environment variable that switches a server's canary off: `off`."""


def start_engine(folder: str | os.PathLike[str], *, canary: Switch = "on", **settings: Any) -> Any:
    """A `vllm.LLM` that has described the canary's clip; `settings` are vLLM's."""
    wanted(canary)
    from vllm import LLM

    llm = LLM(model=os.fspath(folder), **settings)
    check_engine(llm, folder, canary)
    return llm


def check_engine(llm: Any, folder: str | os.PathLike[str], canary: Switch = "on") -> None:
    """The canary for an engine that runs; leaves it running, and the caller to end it."""
    processor = VideoLlama2Processor.from_pretrained(folder)

    def describe(clip: Frames, instruction: str) -> Answer:
        request = _request(processor, clip, instruction)
        return _answer(llm.generate(request, _sampling(), use_tqdm=False)[0])

    check(describe, folder, canary)


class CanaryEndpoint:
    """`vllm.endpoint_plugins`: adds no route; the server's start fails where the canary does."""

    name = "videollama2_canary"
    required_tasks = ("generate",)

    def attach_router(self, app: Any) -> None:
        """There is nothing to add."""

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:
        """Called once, before the server takes requests."""
        if engine_client is None or not wanted(os.environ.get(SWITCH, "on")):
            return
        folder = engine_client.model_config.model
        if not str(engine_client.model_config.hf_config.model_type).startswith("videollama2_"):
            return
        request = _request(VideoLlama2Processor.from_pretrained(folder), canary_clip(), INSTRUCTION)
        last = None
        async for output in engine_client.generate(request, _sampling(), request_id="videollama2-canary"):
            last = output
        judge(Answer(text="", tokens=()) if last is None else _answer(last), folder)


def _request(processor: VideoLlama2Processor, clip: Frames, instruction: str) -> dict[str, Any]:
    return {"prompt": processor.build_prompt(instruction), "multi_modal_data": {"video": clip}}


def _sampling() -> Any:
    from vllm import SamplingParams

    return SamplingParams(temperature=0, max_tokens=MAX_TOKENS)


def _answer(output: Any) -> Answer:
    said = output.outputs[0]
    tokens = list(said.token_ids)
    return Answer(text=said.text, tokens=tokens[:-1] if said.finish_reason == "stop" else tokens)

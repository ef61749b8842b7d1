"""The vLLM engine on a real vLLM and a tiny checkpoint: the words of transformers, one vision pass a clip."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from lgsrr.errors import CanaryError
from pipelines.calls import Answer, Refused
from pipelines.engines import Engine, EngineConfig, EngineDead, make_engine
from tests.processes import descendants, kill
from tests.shared import SHARED
from tests.test_engines import an_ask
from tests.vllm_engine import needs_vllm, read_count, start_counting

pytestmark = [*needs_vllm, pytest.mark.slow]


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def engine(loop: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    from pipelines.videollama2.random_checkpoint import tiny, write_checkpoint

    folder = SHARED / "parity" / "videollama2"
    if not folder.is_dir():
        folder = write_checkpoint(tmp_path_factory.mktemp("tiny"), tiny())
    settings = {"enforce_eager": True, "max_num_seqs": 4, "max_num_batched_tokens": 1024}
    config = EngineConfig(
        model=str(folder), dtype="float32", max_model_len=1024, max_new_tokens=8, canary="off", vllm=settings
    )
    engine = make_engine(config)
    loop.run(engine.start())
    yield engine
    loop.run(engine.close())


def test_it_says_what_transformers_says_to_every_prompt(loop: asyncio.Runner, engine: Engine) -> None:
    from pipelines.videollama2 import VideoLlama2ForConditionalGeneration, VideoLlama2Processor

    folder = engine.config.model
    model = VideoLlama2ForConditionalGeneration.from_pretrained(folder)
    processor = VideoLlama2Processor.from_pretrained(folder)
    asks = [an_ask(str(i), "Go.", "Who?", "Why is that?", frames=16, seed=i) for i in range(3)]
    for ask, said in zip(asks, loop.run(engine.describe(asks)), strict=True):
        for prompt, one in zip(ask.prompts, said, strict=True):
            assert isinstance(one, Answer), one
            inputs = processor(text=[processor.build_prompt(prompt)], videos=[ask.decoded.frames])
            row = model.generate(**inputs, max_new_tokens=8)[0].tolist()
            expected = processor.tokenizer.decode(row, skip_special_tokens=True)
            assert one.text.strip() == expected.strip()
            assert one.usage.output_tokens > 0
            assert one.fingerprint == engine.request(ask.clip, prompt).fingerprint


def test_the_prompts_on_a_clip_share_one_pass_through_the_tower(loop: asyncio.Runner, engine: Engine) -> None:
    async def main() -> int:
        llm = engine._llm  # type: ignore[attr-defined]
        await llm.collective_rpc("apply_model", args=(start_counting,))
        await engine.describe([an_ask(f"shared{i}", "Go.", "Who?", "Why?", frames=16, seed=9) for i in range(2)])
        return int((await llm.collective_rpc("apply_model", args=(read_count,)))[0])

    assert loop.run(main()) == 2


def test_a_bad_ask_is_a_value_among_good_ones(loop: asyncio.Runner, engine: Engine) -> None:
    asks = [an_ask("a", "Go.", frames=16), an_ask("b", "why " * 2000, frames=16), an_ask("c", " ", frames=16)]
    ((good,), (long,), (empty,)) = loop.run(engine.describe(asks))
    assert isinstance(good, Answer)
    assert isinstance(long, Refused)
    assert isinstance(empty, Refused)
    assert (long.kind, empty.kind) == ("bad_request", "bad_request")


def test_a_closed_engine_is_dead(loop: asyncio.Runner) -> None:
    with pytest.raises(EngineDead):
        loop.run(make_engine(EngineConfig()).answer(an_ask("a", "Go.")))


def test_a_model_that_does_not_speak_is_told_by_its_canary(loop: asyncio.Runner, engine: Engine) -> None:
    with pytest.raises(CanaryError, match="does not speak"):
        loop.run(engine._hear_canary())  # type: ignore[attr-defined]


def test_an_engine_whose_process_is_killed_is_dead(loop: asyncio.Runner, engine: Engine) -> None:
    """The last test: the engine does not come back."""

    async def main() -> None:
        working = asyncio.ensure_future(engine.answer(an_ask("a", "Go.", frames=16)))
        await asyncio.sleep(0)
        kill(process for process in descendants(os.getpid()) if "EngineCore" in process.title())
        await working

    with pytest.raises(EngineDead, match="vLLM's engine has died"):
        loop.run(main())
    with pytest.raises(EngineDead):
        loop.run(engine.answer(an_ask("b", "Go.", frames=16)))

"""The transformers engine on a tiny checkpoint: the model's own words in batches, one vision pass a clip."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lgsrr.errors import CanaryError, ModelError
from pipelines.calls import Answer, Refused
from pipelines.engines import Ask, Engine, EngineConfig, EngineDead, make_engine
from tests.shared import SHARED
from tests.test_engines import an_ask

PROMPTS = ("Go.", "Who?", "Why is that?")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded checkpoint where it is at hand, else a random one of the same shape."""
    from pipelines.videollama2.random_checkpoint import tiny, write_checkpoint

    folder = SHARED / "parity" / "videollama2"
    return folder if folder.is_dir() else write_checkpoint(tmp_path_factory.mktemp("tiny"), tiny())


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


def started(loop: asyncio.Runner, checkpoint: Path, **settings: Any) -> Engine:
    defaults = {"dtype": "float32", "max_new_tokens": 8, "canary": "off", "threads": 1, "batch": 4}
    engine = make_engine(EngineConfig(engine="transformers", model=str(checkpoint), **{**defaults, **settings}))
    loop.run(engine.start())
    return engine


@pytest.fixture(scope="module")
def engine(loop: asyncio.Runner, checkpoint: Path) -> Iterator[Engine]:
    engine = started(loop, checkpoint)
    yield engine
    loop.run(engine.close())


def speaker(engine: Engine) -> Any:
    return engine._speaker  # type: ignore[attr-defined]


def alone(engine: Engine, ask: Ask, prompt: str, **generation: Any) -> list[int]:
    """The tokens of the model itself, asked for one prompt on one clip."""
    model, processor = speaker(engine).model, speaker(engine).processor
    inputs = processor(text=[processor.build_prompt(prompt)], videos=[ask.decoded.frames])
    row: list[int] = model.generate(**inputs, **{"max_new_tokens": 8, **generation})[0].tolist()
    return row


def test_batches_of_prompts_of_all_lengths_say_what_the_model_says_to_each_alone(
    loop: asyncio.Runner, engine: Engine
) -> None:
    asks = [an_ask(str(i), *PROMPTS[: 1 + i % 3], frames=16, seed=i) for i in range(6)]
    for ask, said in zip(asks, loop.run(engine.describe(asks)), strict=True):
        for prompt, one in zip(ask.prompts, said, strict=True):
            assert isinstance(one, Answer), one
            row = alone(engine, ask, prompt)
            assert one.text == speaker(engine).processor.tokenizer.decode(row, skip_special_tokens=True)
            assert one.usage.output_tokens == len(row)
            assert one.finish_reason == (
                "stop" if row[-1] == speaker(engine).processor.tokenizer.eos_token_id else "length"
            )
            assert one.fingerprint == engine.request(ask.clip, prompt).fingerprint
            assert one.frames == ask.decoded.indices
            assert {"torch", "transformers"} <= set(one.packages)


def test_the_prompts_on_a_clip_share_one_pass_through_the_tower(
    loop: asyncio.Runner, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen = speaker(engine).model, []
    features = model.get_video_features

    def counted(pixels_NTCHW: torch.Tensor) -> torch.Tensor:
        seen.append(len(pixels_NTCHW))
        tokens: torch.Tensor = features(pixels_NTCHW)
        return tokens

    monkeypatch.setattr(model, "get_video_features", counted)
    asks = [an_ask(f"shared{i}", *PROMPTS, *PROMPTS, frames=16, seed=i) for i in range(2)]
    loop.run(engine.describe(asks))
    assert sum(seen) == 2


def test_a_prompt_or_a_clip_that_the_model_does_not_take_fails_alone(loop: asyncio.Runner, engine: Engine) -> None:
    flat = an_ask("flat", "Go.", frames=16)
    flat = dataclasses.replace(flat, decoded=dataclasses.replace(flat.decoded, frames=np.zeros((16, 8, 8), np.uint8)))
    asks = [an_ask("a", "Go.", "why " * 2000, " ", frames=16), flat, an_ask("c", "Go.", frames=16)]
    ((good, long, empty), (no_clip,), (other,)) = loop.run(engine.describe(asks))
    assert isinstance(good, Answer)
    assert isinstance(other, Answer)
    for said, reason in ((long, "context holds"), (empty, "empty"), (no_clip, "does not take the clip")):
        assert isinstance(said, Refused)
        assert reason in said.reason
        assert said.kind == "bad_request"


def test_a_clip_at_which_the_model_fails_does_not_fail_its_batch(
    loop: asyncio.Runner, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the memory is not enough: the batch is tried in halves."""
    generate = speaker(engine).model.generate
    asks = [an_ask(str(i), "Go.", frames=16, seed=i) for i in range(5)]
    bad = loop.run(asyncio.to_thread(lambda: speaker(engine).clip(asks[3].decoded.frames).pixels_TCHW))
    tower = speaker(engine).model.get_video_features

    def fails(pixels_NTCHW: torch.Tensor) -> torch.Tensor:
        if any(torch.equal(pixels, bad) for pixels in pixels_NTCHW):
            raise RuntimeError("no memory left")
        tokens: torch.Tensor = tower(pixels_NTCHW)
        return tokens

    monkeypatch.setattr(speaker(engine).model, "get_video_features", fails)
    said = [one for (one,) in loop.run(engine.describe(asks))]
    assert [isinstance(one, Answer) for one in said] == [True, True, True, False, True]
    assert isinstance(said[3], Refused)
    assert (said[3].kind, "no memory left" in said[3].reason) == ("engine", True)
    assert speaker(engine).model.generate == generate


def test_a_lost_gpu_ends_the_engine_and_keeps_nobody_waiting(loop: asyncio.Runner, checkpoint: Path) -> None:
    engine = started(loop, checkpoint)

    def lost(*_: object) -> None:
        raise torch.AcceleratorError("device-side assert", 710)  # as CUDA raises it

    speaker(engine).model.get_video_features = lost
    asks = [an_ask(str(i), *PROMPTS, frames=16) for i in range(3)]

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(engine.answer(ask) for ask in asks), return_exceptions=True)

    assert all(isinstance(error, EngineDead) for error in loop.run(all_of_them()))
    with pytest.raises(EngineDead, match="device-side assert"):
        loop.run(engine.answer(asks[0]))
    loop.run(engine.close())


def test_what_is_drawn_by_a_seed_does_not_depend_on_the_neighbours(loop: asyncio.Runner, engine: Engine) -> None:
    drawn = {"temperature": 1.5, "seed": 7, "max_tokens": 6}
    ask = dataclasses.replace(an_ask("a", "Go.", frames=16), parameters=drawn)
    greedy = an_ask("b", "Go.", frames=16)
    ((first,),) = loop.run(engine.describe([ask]))
    (_, (second,), _) = loop.run(engine.describe([greedy, ask, greedy]))
    assert isinstance(first, Answer)
    assert isinstance(second, Answer)
    assert first.text == second.text
    assert first.usage.output_tokens <= 6


def test_a_short_prompt_keeps_its_room_beside_a_long_one(loop: asyncio.Runner, engine: Engine) -> None:
    """Padded to the long one's length, it could say next to nothing before the context ends."""
    context = speaker(engine).processor.context_length
    used = len(speaker(engine).processor.input_ids(speaker(engine).processor.build_prompt("Go.")))
    long = an_ask("long", "Go. " + "a " * ((context - used - 8) // 2), frames=16)
    short = dataclasses.replace(an_ask("short", "Go.", frames=16), parameters={"max_tokens": 40})
    ((_,), (said,)) = loop.run(engine.describe([dataclasses.replace(long, parameters={"max_tokens": 40}), short]))
    assert isinstance(said, Answer)
    assert said.usage.output_tokens == len(alone(engine, short, "Go.", max_new_tokens=40))


def test_a_limit_of_the_length_is_kept(loop: asyncio.Runner, checkpoint: Path) -> None:
    engine = started(loop, checkpoint, max_model_len=32)
    ((said,),) = loop.run(engine.describe([an_ask("a", "Go.", frames=16)]))
    assert isinstance(said, Refused)
    assert "max_model_len is 32" in said.reason
    loop.run(engine.close())


def test_random_weights_do_not_pass_the_canary_and_a_folder_without_a_model_is_named(
    loop: asyncio.Runner, checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(CanaryError, match="does not speak"):
        started(loop, checkpoint, canary="on")
    with pytest.raises(ModelError, match=str(tmp_path)):
        started(loop, tmp_path)

"""The canary lets language through, of any tongue, and stops a model that says nothing, one token, or noise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lgsrr.errors import CanaryError, ConfigError
from pipelines.videollama2 import VideoLlama2ForConditionalGeneration, VideoLlama2Processor
from pipelines.videollama2.canary import Answer, canary_clip, check, check_model, garbage, versions
from pipelines.videollama2.random_checkpoint import tiny, write_checkpoint
from pipelines.videollama2.vllm_canary import SWITCH, CanaryEndpoint, check_engine


@pytest.mark.parametrize(
    "text",
    [
        "A red ball rolls from left to right.",
        "The video shows a ball, which is red; it moves (slowly) to the right.\n",
        "一个红球从左向右滚动",
        "Ein roter Ball rollt über weißen Grund.",
    ],
)
def test_language_passes(text: str) -> None:
    assert garbage(Answer(text=text, tokens=range(len(text)))) is None


@pytest.mark.parametrize(
    ("text", "tokens", "reason"),
    [
        ("", [], "said nothing"),
        (" \n ", [13, 13], "said nothing"),
        ("the " * 32, [5] * 32, "said token 5 32 times in 32"),
        ("the the the the the the the the the of", [5] * 9 + [6], "said token 5 9 times in 10"),
        ("\ufffd\ufffdq\x07\ufffd\ufffd", [1, 2, 3, 4], "can be printed"),
        ("}{[]==~~;;%$#@!0192837465", [1, 2, 3, 4], "is letters and spaces"),
    ],
)
def test_garbage_is_stopped_with_its_reason(text: str, tokens: list[int], reason: str) -> None:
    answer = Answer(text=text, tokens=tokens)
    with pytest.raises(CanaryError, match=reason) as caught:
        check(lambda clip, instruction: answer, "some/folder")
    for part in ("some/folder does not speak", f"torch {torch.__version__}", "transformers 5", "canary='off'"):
        assert part in str(caught.value)


def test_an_answer_of_one_word_is_not_a_repetition() -> None:
    assert garbage(Answer(text="Ball", tokens=[7])) is None


def test_the_clip_is_a_ball_that_moves() -> None:
    clip = canary_clip()
    centres = [np.argwhere(frame[:, :, 1] < 100).mean(0)[1] for frame in clip]
    assert clip.shape == (16, 64, 64, 3)
    assert (np.diff(centres) > 0).all()


def test_switched_off_it_asks_nothing() -> None:
    def never(clip: Any, instruction: str) -> Answer:
        raise AssertionError("asked")

    check(never, "folder", "off")
    with pytest.raises(ConfigError, match="canary='no'; expected 'on' or 'off'"):
        check(never, "folder", "no")  # type: ignore[arg-type]


def test_the_versions_are_those_installed() -> None:
    assert versions()["torch"] == torch.__version__
    assert {"transformers", "av", "numpy"} <= versions().keys()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("tiny"), tiny())


def test_a_transformers_model_of_random_weights_is_stopped_unless_switched_off(folder: Path) -> None:
    model = VideoLlama2ForConditionalGeneration.from_pretrained(folder)
    processor = VideoLlama2Processor.from_pretrained(folder)
    with pytest.raises(CanaryError, match="does not speak"):
        check_model(model, processor)
    check_model(model, processor, canary="off")


class FakeEngine:
    """An engine of vLLM that says what it is told to, at once or in a server's way."""

    def __init__(self, folder: Path, text: str) -> None:
        said = SimpleNamespace(text=text, token_ids=[3, 4, 5, 2], finish_reason="stop")
        self.output = SimpleNamespace(outputs=[said])
        config = SimpleNamespace(model_type="videollama2_mistral")
        self.model_config = SimpleNamespace(model=str(folder), hf_config=config)

    def generate_now(self, request: Any, sampling: Any, use_tqdm: bool) -> list[Any]:
        assert request["multi_modal_data"]["video"].shape == (16, 64, 64, 3)
        return [self.output]

    async def generate(self, request: Any, sampling: Any, request_id: str) -> AsyncIterator[Any]:
        yield self.output


def serve(engine: FakeEngine) -> None:
    asyncio.run(CanaryEndpoint().init_state(engine, None, None))


@pytest.mark.vllm
def test_an_engine_and_a_server_start_only_if_they_speak(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vllm", exc_type=ImportError)
    for text, speaks in (("A ball rolls.", True), ("", False)):
        engine = FakeEngine(folder, text)
        starts = [
            partial(check_engine, SimpleNamespace(generate=engine.generate_now), folder),
            partial(serve, engine),
        ]
        for start in starts:
            if speaks:
                start()
            else:
                with pytest.raises(CanaryError, match="it said nothing"):
                    start()
    monkeypatch.setenv(SWITCH, "off")
    serve(FakeEngine(folder, ""))

"""Ours gives the numbers that the authors' package gave, step by step, on a checkpoint in the published layout."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor

from pipelines.videollama2 import VideoLlama2Config, VideoLlama2ForConditionalGeneration, VideoLlama2Processor
from pipelines.videollama2.frames import sample_indices
from tests.shared import SHARED, needs_shared

pytestmark = needs_shared
FOLDER = SHARED / "parity" / "videollama2"
Model = VideoLlama2ForConditionalGeneration


@pytest.fixture(scope="module")
def recorded() -> dict[str, Tensor]:
    return load_file(FOLDER / "expected.safetensors")


@pytest.fixture(scope="module")
def asked() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / "expected.json").read_text())
    return content


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def processor() -> VideoLlama2Processor:
    return VideoLlama2Processor.from_pretrained(FOLDER)


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_the_same_frames_are_taken(recorded: dict[str, Tensor], asked: dict[str, Any]) -> None:
    indices = sample_indices(asked["frames_in_video"], asked["num_frames"])
    assert indices.tolist() == recorded["frame_indices"].tolist()


def test_the_clip_comes_to_the_same_pixels(
    recorded: dict[str, Tensor], asked: dict[str, Any], processor: VideoLlama2Processor
) -> None:
    close(processor.pixel_values(SHARED / "videos" / asked["video"]), recorded["pixel_values_TCHW"])


def test_the_prompt_is_the_published_one(asked: dict[str, Any], processor: VideoLlama2Processor) -> None:
    assert processor.build_prompt(asked["instruct"]) == asked["prompt"]


def test_the_prompt_has_the_same_ids(
    recorded: dict[str, Tensor], asked: dict[str, Any], processor: VideoLlama2Processor
) -> None:
    assert processor.prompt_ids(asked["prompt"]) == recorded["input_ids"].tolist()


def test_the_tower_sees_the_same(recorded: dict[str, Tensor], model: Model) -> None:
    with torch.no_grad():
        close(model.vision_features(recorded["pixel_values_TCHW"][None])[0], recorded["vision_features_TND"])


def test_the_connector_gives_the_same_tokens(recorded: dict[str, Tensor], model: Model) -> None:
    with torch.no_grad():
        close(model.get_video_features(recorded["pixel_values_TCHW"][None])[0], recorded["video_tokens_LD"])


def test_the_logits_are_the_same(
    recorded: dict[str, Tensor], asked: dict[str, Any], model: Model, processor: VideoLlama2Processor
) -> None:
    inputs = processor(text=[asked["prompt"]], videos=[SHARED / "videos" / asked["video"]])
    inputs["pixel_values_videos"] = recorded["pixel_values_TCHW"][None]
    with torch.no_grad():
        logits_LV = model(**inputs).logits[0]
        last_V = model(**inputs, logits_to_keep=1).logits[0, 0]
    close(logits_LV, recorded["logits_all_LV"])
    close(last_V, recorded["logits_last_V"])


def test_the_answer_is_the_same_token_by_token(
    recorded: dict[str, Tensor], asked: dict[str, Any], model: Model, processor: VideoLlama2Processor
) -> None:
    inputs = processor(text=asked["prompt"], videos=str(SHARED / "videos" / asked["video"]))
    tokens = model.generate(**inputs, max_new_tokens=len(recorded["greedy_tokens"]))
    assert tokens[0].tolist() == recorded["greedy_tokens"].tolist()


def test_the_auto_classes_know_the_checkpoint(recorded: dict[str, Tensor]) -> None:
    config = AutoConfig.from_pretrained(FOLDER)
    assert isinstance(config, VideoLlama2Config)
    assert config.num_video_tokens == len(recorded["video_tokens_LD"])
    assert isinstance(AutoProcessor.from_pretrained(FOLDER), VideoLlama2Processor)
    for auto in (AutoModelForCausalLM, AutoModelForImageTextToText):
        assert isinstance(auto.from_pretrained(FOLDER), Model)

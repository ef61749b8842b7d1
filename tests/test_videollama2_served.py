"""VideoLLaMA2 where vLLM is not called by its own `LLM`: behind its OpenAI server, and in Ray Data's stage."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from pipelines.videollama2 import VideoLlama2ForConditionalGeneration, VideoLlama2Processor
from pipelines.videollama2.prompts import SYSTEM
from pipelines.videollama2.random_checkpoint import tiny, write_checkpoint
from tests.clips import moving_square, write_clip, write_sound
from tests.shared import SHARED, needs_shared
from tests.vllm_engine import Server, needs_vllm

pytestmark = [*needs_vllm, pytest.mark.slow]
RECORDED = SHARED / "parity" / "videollama2"
WITH_CANARY = {"VLLM_PLUGINS": "videollama2,videollama2_canary"}
SWITCHED = {"on": {}, "off": {"VIDEOLLAMA2_CANARY": "off"}}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded checkpoint where it is at hand, else a random one of the same shape."""
    return RECORDED if RECORDED.is_dir() else write_checkpoint(tmp_path_factory.mktemp("tiny"), tiny())


@pytest.fixture(scope="module")
def servers(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """Two servers with the canary's plug-in, which is switched on and off; started together, as a start takes long."""
    logs = tmp_path_factory.mktemp("servers")
    servers = {canary: Server(checkpoint, logs / canary, **WITH_CANARY, **SWITCHED[canary]) for canary in SWITCHED}
    yield servers
    for server in servers.values():
        server.stop()


@pytest.fixture(scope="module")
def server(servers: dict[str, Server]) -> Server:
    """The one whose canary is off, when it has come up."""
    assert servers["off"].comes_up(), servers["off"].log.read_text()
    return servers["off"]


def message(clip: Path | None, instruction: str) -> dict[str, Any]:
    """What a user says; the clip goes in the message itself."""
    content: list[dict[str, Any]] = [{"type": "text", "text": instruction}]
    if clip is not None:
        url = f"data:video/mp4;base64,{base64.b64encode(clip.read_bytes()).decode()}"
        content.insert(0, {"type": "video_url", "video_url": {"url": url}})
    return {"role": "user", "content": content}


@needs_shared
def test_a_server_gives_the_recorded_answer_to_a_clip_in_a_message(server: Server) -> None:
    recorded = load_file(RECORDED / "expected.safetensors")["greedy_tokens"].tolist()
    asked = json.loads((RECORDED / "expected.json").read_text())
    messages = [{"role": "system", "content": SYSTEM}, message(SHARED / "videos" / asked["video"], asked["instruct"])]
    assert server.chat(messages, len(recorded))["token_ids"] == recorded


@pytest.mark.parametrize(
    ("clip", "instruction", "reason"),
    [
        (None, "What do you see in <video>?", "stands for a '<video>' in the prompt, and no clip was given"),
        ("sound", "What do you see?", "has no video stream"),
        ("noise", "What do you see?", "cannot be opened as a video"),
    ],
)
def test_a_server_refuses_a_bad_message_with_its_reason_and_lives_on(
    server: Server, tmp_path: Path, clip: str | None, instruction: str, reason: str
) -> None:
    good = write_clip(tmp_path / "good.mp4", moving_square(20))
    bad = None
    if clip is not None:
        bad = tmp_path / clip
        bad.write_bytes(b"noise") if clip == "noise" else write_sound(bad.with_suffix(".wav")).rename(bad)
    with pytest.raises(RuntimeError, match=reason) as caught:
        server.chat([message(bad, instruction)], 4)
    assert str(caught.value).startswith("400")
    assert len(server.chat([message(good, "Go.")], 4)["token_ids"]) == 4


def test_a_server_whose_model_says_garbage_does_not_come_up(checkpoint: Path, servers: dict[str, Server]) -> None:
    refused = servers["on"]
    assert not refused.comes_up()
    assert refused.process.returncode != 0
    assert f"{checkpoint} does not speak: asked to describe a rolling ball" in refused.log.read_text()


def test_ray_datas_stage_answers_as_transformers_does(checkpoint: Path, tmp_path: Path) -> None:
    """The clip of one row is absent: it is the only row without an answer, and says why."""
    import ray
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    processor = VideoLlama2Processor.from_pretrained(checkpoint)
    model = VideoLlama2ForConditionalGeneration.from_pretrained(checkpoint)
    clips = [write_clip(tmp_path / f"{i}.mp4", moving_square(20 + i, seed=i)) for i in range(3)]
    prompts = [processor.build_prompt(words) for words in ("Go.", "What do their faces show?", "Who speaks?")]
    expected = model.generate(**processor(text=prompts, videos=clips), max_new_tokens=8).tolist()
    rows = [{"clip": str(clip), "prompt": prompt} for clip, prompt in zip(clips, prompts, strict=True)]
    rows.append({"clip": str(tmp_path / "absent.mp4"), "prompt": prompts[0]})

    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        stage = build_processor(
            vLLMEngineProcessorConfig(
                model_source=str(checkpoint),
                engine_kwargs={
                    "dtype": "float32",
                    "enforce_eager": True,
                    "max_model_len": 1024,
                    "max_num_seqs": 4,
                    "disable_log_stats": True,
                },
                placement_group_config={"bundles": [{"CPU": 1}]},
                concurrency=1,
                batch_size=4,
                should_continue_on_error=True,
                log_engine_metrics=False,
                chat_template_stage=False,
                tokenize_stage=False,
                detokenize_stage=False,
            ),
            preprocess=lambda row: {
                "clip": row["clip"],
                "prompt": row["prompt"],
                "multimodal_data": {"video": row["clip"]},
                "sampling_params": {"temperature": 0, "max_tokens": 8},
            },
        )
        answers = {row["clip"]: row for row in stage(ray.data.from_items(rows)).take_all()}
    finally:
        ray.shutdown()
    for clip, tokens in zip(clips, expected, strict=True):
        assert list(answers[str(clip)]["generated_tokens"]) == tokens
    assert "there is no such file" in answers[str(tmp_path / "absent.mp4")]["__inference_error__"]

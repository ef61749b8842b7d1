"""VideoLLaMA2 on a real vLLM engine: it says what the transformers model says, however requests are mixed and cut."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file, save_file

from lgsrr.errors import ModelError
from lgsrr.records import Aspect
from pipelines.describe_prompts import joint_prompt
from pipelines.drawn_clips.clip import write_clip as write_drawn
from pipelines.drawn_clips.scene import any_scene
from pipelines.drawn_clips.wordings import ASPECTS
from pipelines.shipped import SMALL
from pipelines.videollama2 import VideoLlama2ForConditionalGeneration, VideoLlama2Processor, frames
from pipelines.videollama2.random_checkpoint import RandomCheckpoint, make_tokenizer, tiny, write_checkpoint
from tests.clips import moving_square, write_clip
from tests.shared import SHARED, needs_shared
from tests.vllm_engine import ask, greedy, needs_vllm, read_count, start, start_counting, stop, tokens_of

pytestmark = needs_vllm
RECORDED = SHARED / "parity" / "videollama2"
WORDS = ["Go.", "Describe the speakers' actions in the video.", "What do their faces show, and why? " * 4, "Who?"]


class Pair:
    """One checkpoint in a vLLM engine and in transformers."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.model = VideoLlama2ForConditionalGeneration.from_pretrained(folder)
        self.processor = VideoLlama2Processor.from_pretrained(folder)
        self.llm = start(folder, **settings)
        self.llm.apply_model(start_counting)

    def by_transformers(self, prompts: list[str], clips: list[Any], tokens: int = 16) -> list[list[int]]:
        rows = self.model.generate(**self.processor(text=prompts, videos=clips), max_new_tokens=tokens).tolist()
        return [row[: row.index(2) + 1] if 2 in row else row for row in rows]

    def by_vllm(self, prompts: list[str], clips: list[Any], tokens: int = 16) -> list[list[int]]:
        return tokens_of(ask(self.llm, prompts, clips, tokens))

    def prompt(self, words: str) -> str:
        return self.processor.build_prompt(words)

    def clips_computed(self) -> int:
        return int(self.llm.apply_model(read_count)[0])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The recorded checkpoint where it is at hand, else a random one of the same shape."""
    recorded = RECORDED.is_dir()
    pair = Pair(RECORDED if recorded else write_checkpoint(tmp_path_factory.mktemp("tiny"), tiny()))
    yield pair
    stop(pair.llm)


@pytest.mark.slow
@needs_shared
def test_the_answer_is_the_recorded_one(pair: Pair) -> None:
    recorded = load_file(RECORDED / "expected.safetensors")["greedy_tokens"].tolist()
    asked = json.loads((RECORDED / "expected.json").read_text())
    clip = SHARED / "videos" / asked["video"]
    assert pair.by_vllm([asked["prompt"]], [clip], len(recorded)) == [recorded]


@pytest.mark.slow
def test_a_batch_of_clips_and_lengths_is_answered_as_by_transformers(pair: Pair, tmp_path: Path) -> None:
    """Prompts of 450 to 600 tokens go through in chunks of 256 at most, cut anywhere, the clip's tokens too."""
    clips = [
        moving_square(16, seed=1),
        write_clip(tmp_path / "a.mp4", moving_square(40, seed=2)),
        moving_square(7, 64, 40, seed=3),
        write_clip(tmp_path / "b.mp4", moving_square(9, seed=4)).read_bytes(),
    ]
    prompts = [pair.prompt(words) for words in WORDS]
    assert pair.by_vllm(prompts, clips) == pair.by_transformers(prompts, clips)


@pytest.mark.slow
def test_requests_that_come_and_go_do_not_disturb_each_other(pair: Pair) -> None:
    """Ten requests of different lengths, four at a time, with and without clips."""
    prompts = [pair.processor.build_prompt(WORDS[i % 4] + str(i), clip=i % 3 != 0) for i in range(10)]
    clips = [moving_square(16, seed=20 + i) if i % 3 else None for i in range(10)]
    assert pair.by_vllm(prompts, clips, 12) == pair.by_transformers(prompts, clips, 12)


@pytest.mark.slow
def test_three_prompts_on_one_clip_run_the_tower_once(pair: Pair) -> None:
    prompts = [pair.prompt(words) for words in WORDS[:3]]
    pair.clips_computed()
    together = pair.by_vllm(prompts, [moving_square(16, seed=50)] * 3)
    assert pair.clips_computed() == 1
    one_by_one = [pair.by_vllm([prompt], [moving_square(16, seed=50)])[0] for prompt in prompts]
    assert pair.clips_computed() == 0
    assert together == one_by_one


@pytest.mark.slow
def test_another_clip_is_not_taken_for_the_one_before(pair: Pair) -> None:
    prompt = pair.prompt("Go.")
    clips = [moving_square(16, seed=60), moving_square(16, seed=61)]
    pair.clips_computed()
    answers = [pair.by_vllm([prompt], [clip])[0] for clip in clips]
    assert pair.clips_computed() == 2
    assert answers == pair.by_transformers([prompt] * 2, clips)


@pytest.mark.slow
def test_the_prefix_with_the_clip_in_it_is_kept(pair: Pair) -> None:
    clip = moving_square(16, seed=70)
    ask(pair.llm, [pair.prompt("Go.")], [clip])
    again = ask(pair.llm, [pair.prompt("Why?")], [clip])[0]
    ids = pair.processor.prompt_ids(pair.prompt("Go."))
    assert again.num_cached_tokens >= (ids.index(-201) + pair.processor.tokens_per_clip) // 128 * 128 > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["path", "bytes", "named"])
def test_three_prompts_on_one_file_decode_it_once(
    pair: Pair, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM knows the file by its bytes, or by the name that the caller gives it, without looking into it."""
    decode = Mock(wraps=frames.read_frames)
    monkeypatch.setattr(frames, "read_frames", decode)
    file = write_clip(tmp_path / "a.mp4", moving_square(20, seed=len(kind)))
    clip = file.read_bytes() if kind == "bytes" else file
    names = {"multi_modal_uuids": {"video": [str(file)]}} if kind == "named" else {}
    prompts = [pair.prompt(words) for words in WORDS[:3]]
    requests = [{"prompt": prompt, "multi_modal_data": {"video": clip}, **names} for prompt in prompts]
    answers = tokens_of(pair.llm.generate(requests, greedy(8), use_tqdm=False))
    assert decode.call_count == 1
    assert answers == pair.by_transformers(prompts, [clip] * 3, 8)


@pytest.mark.slow
def test_a_file_that_was_overwritten_is_another_clip(pair: Pair, tmp_path: Path) -> None:
    prompt, file = pair.prompt("Go."), tmp_path / "a.mp4"
    for seed in (71, 72):
        write_clip(file, moving_square(20, seed=seed))
        assert pair.by_vllm([prompt], [file], 8) == pair.by_transformers([prompt], [file], 8)


@pytest.mark.slow
def test_token_ids_with_one_mark_are_a_prompt_too(pair: Pair) -> None:
    prompt, clip = pair.prompt("Go."), moving_square(16, seed=80)
    ids = pair.processor.prompt_ids(prompt)
    outputs = pair.llm.generate(
        {"prompt_token_ids": ids, "multi_modal_data": {"video": clip}}, greedy(8), use_tqdm=False
    )
    assert tokens_of(outputs) == pair.by_transformers([prompt], [clip], 8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prompt", "clip", "message"),
    [
        ("<video> and <video>", "array", "2 x '<video>' and 1 clip; they must match"),
        ("no mark", "array", "a clip was given, but the prompt has no '<video>'"),
        ("<video> no clip", None, "stands for a '<video>' in the prompt, and no clip was given for it"),
        ("", None, "cannot be empty"),
        ("<video>" + "why " * 900, "array", "maximum context length|longer than the maximum model length"),
        ("<video>", "/no/clip.mp4", "/no/clip.mp4: there is no such file"),
        ("<video>", "noise", "cannot be opened as a video"),
    ],
)
def test_bad_input_is_refused_and_the_engine_lives_on(pair: Pair, prompt: str, clip: str | None, message: str) -> None:
    given = {"array": moving_square(16), "noise": b"noise"}.get(clip or "", clip)
    with pytest.raises(Exception, match=message):
        ask(pair.llm, [prompt], [given])
    assert len(pair.by_vllm([pair.prompt("Go.")], [moving_square(16)], 4)[0]) == 4


@pytest.mark.slow
def test_videollama2_1_divided_over_two_processes_is_answered_as_by_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensor parallelism: each process holds half of the heads of tower and language model."""
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # bound, each process wants a NUMA node of its own
    recipe = RandomCheckpoint(language="qwen2", tower="siglip", connector="stc_connector_v35", seed=3)
    pair = Pair(write_checkpoint(tmp_path, recipe), tensor_parallel_size=2)
    try:
        prompts = [pair.prompt(words) for words in WORDS]
        clips = [moving_square(16, seed=90 + i) for i in range(4)]
        assert pair.by_vllm(prompts, clips) == pair.by_transformers(prompts, clips)
    finally:
        stop(pair.llm)


def test_a_checkpoint_with_other_tensors_is_refused_by_name(tmp_path: Path) -> None:
    from pipelines.videollama2.vllm_model import _refuse_other_tensors

    folder = write_checkpoint(tmp_path, tiny())
    config = SimpleNamespace(
        model_config=SimpleNamespace(model=str(folder), hf_config=VideoLlama2Processor.from_pretrained(folder).config),
        quant_config=None,
        load_config=SimpleNamespace(load_format="auto"),
    )
    _refuse_other_tensors(config)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.more"] = torch.ones(1)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 unexpected: model\.more"):
        _refuse_other_tensors(config)


def test_a_tokenizer_that_cuts_at_marks_survives_copying() -> None:
    """vLLM copies tokenizers for its threads and processes."""
    from vllm.tokenizers.hf import get_cached_tokenizer

    from pipelines.videollama2.vllm_tokens import cut_at_marks

    plain = make_tokenizer("mistral")
    cut = cut_at_marks(get_cached_tokenizer(make_tokenizer("mistral")))
    pieces = [plain(p, add_special_tokens=False)["input_ids"] for p in ("<s>[INST] ", "\nGo. [/INST]")]
    for tokenizer in (cut, copy.copy(cut), copy.deepcopy(cut), pickle.loads(pickle.dumps(cut)), cut_at_marks(cut)):
        assert tokenizer("<s>[INST] <video>\nGo. [/INST]")["input_ids"] == [*pieces[0], -201, *pieces[1]]
        assert tokenizer.encode("no mark") == plain.encode("no mark")
        assert tokenizer(["<video>", "a"])["input_ids"] == [[-201], plain("a")["input_ids"]]


@pytest.mark.slow
def test_the_small_model_says_what_it_says_in_transformers(tmp_path: Path) -> None:
    small = Pair(SMALL)
    try:
        clips = [tmp_path / f"{number}.mp4" for number in range(4)]
        for number, clip in enumerate(clips):
            write_drawn(any_scene(Random(f"vllm/{number}")), clip)
        prompts = [small.prompt(joint_prompt("nice job.", [Aspect(name=name) for name in ASPECTS]))] * len(clips)
        assert small.by_vllm(prompts, clips, 96) == small.by_transformers(prompts, clips, 96)
    finally:
        stop(small.llm)

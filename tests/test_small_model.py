"""The small VideoLLaMA2: what it sees, what it is made of, and that its training goes on where it stopped."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lgsrr.errors import ConfigError
from lgsrr.records import Aspect
from pipelines.describe_prompts import separate_prompt
from pipelines.drawn_clips.clip import write_clip
from pipelines.drawn_clips.scene import Scene, any_scene
from pipelines.drawn_clips.wordings import ASPECTS, named, truth
from pipelines.shipped import SMALL, model_folder
from pipelines.videollama2 import VideoLlama2ForConditionalGeneration, VideoLlama2Processor
from pipelines.videollama2 import train_small as program
from pipelines.videollama2.canary import check_model
from pipelines.videollama2.muon import Muon
from pipelines.videollama2.small_exam import ExamConfig, examine
from pipelines.videollama2.small_lessons import INSTRUCTIONS, glance, lesson
from pipelines.videollama2.train_small import SmallConfig

TOKENS = 96


# ---- what it sees --------------------------------------------------------------------------------------------------


def test_it_answers_the_canary() -> None:
    model, processor = VideoLlama2ForConditionalGeneration, VideoLlama2Processor
    check_model(model.from_pretrained(SMALL), processor.from_pretrained(SMALL))


@pytest.mark.slow
def test_it_names_action_expression_and_interaction_in_95_of_100_clips_that_it_never_saw() -> None:
    found = examine(ExamConfig(clips=400, seed=12345))  # the exam of its card
    assert all(share >= 0.95 for share in found.values()), found


def scenes(count: int, seed: int) -> list[Scene]:
    random = Random(f"small/{seed}")
    return [any_scene(random) for _ in range(count)]


@pytest.mark.parametrize("instruction", range(2))
def test_it_answers_about_one_aspect_whatever_is_said(tmp_path: Path, instruction: int) -> None:
    model = VideoLlama2ForConditionalGeneration.from_pretrained(SMALL)
    processor = VideoLlama2Processor.from_pretrained(SMALL)
    asked = []
    for number, scene in enumerate(scenes(6, instruction)):
        name = ASPECTS[number % len(ASPECTS)]
        write_clip(scene, tmp_path / f"{number}.mp4")
        aspect = Aspect(name=name, instruction=INSTRUCTIONS[name][instruction])
        asked.append((name, scene, separate_prompt("Ünlikely wörds, 42 of them! 你好", aspect)))
    prompts = [processor.build_prompt(prompt) for _, _, prompt in asked]
    clips = [tmp_path / f"{number}.mp4" for number in range(len(asked))]
    tokens = model.generate(**processor(text=prompts, videos=clips), max_new_tokens=TOKENS)
    answers = processor.batch_decode(tokens, skip_special_tokens=True)
    right = [named(name, text) == truth(scene)[name] for (name, scene, _), text in zip(asked, answers, strict=True)]
    assert sum(right) >= len(right) - 2  # of two nods and the like


# ---- what it is made of --------------------------------------------------------------------------------------------


def test_it_is_small_whole_and_without_pickle() -> None:
    files = [path for path in SMALL.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files if path.suffix == ".safetensors") <= 12_000_000
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pkl", ".ckpt")]
    weights = load_file(SMALL / "model.safetensors")
    assert all(tensor.dtype == torch.float32 and bool(tensor.isfinite().all()) for tensor in weights.values())


def test_its_card_says_how_it_was_made_and_how_well_it_sees() -> None:
    card = (SMALL / "README.md").read_text(encoding="utf-8")
    assert "python -m pipelines.videollama2.train_small" in card
    for name in ASPECTS:
        share = float(
            next(line for line in card.splitlines() if line.startswith(f"| {name} |")).split("|")[2].strip(" %")
        )
        assert share >= 95


def test_no_path_of_the_machine_that_made_it_is_in_its_folder() -> None:
    for path in [path for path in SMALL.rglob("*") if path.suffix in (".json", ".md", ".jinja")]:
        assert "/tmp/" not in path.read_text(encoding="utf-8"), path
    assert str(SMALL.parent.parent) not in (SMALL / "config.json").read_text(encoding="utf-8")


def test_it_has_a_name() -> None:
    assert Path(model_folder("small")) == SMALL
    assert model_folder("DAMO-NLP-SG/VideoLLaMA2-7B-16F") == "DAMO-NLP-SG/VideoLLaMA2-7B-16F"


# ---- how it is trained ---------------------------------------------------------------------------------------------


class Stopped(Exception):  # noqa: N818
    """The machine went away."""


class Alone:
    """The surroundings of one worker: its checkpoints lie in a folder, and it may be stopped after one of them."""

    rank, world = 0, 1

    def __init__(self, folder: Path, stop_after: int | None = None) -> None:
        self.folder, self.stop_after, self.reports = folder, stop_after, 0

    @contextlib.contextmanager
    def latest(self) -> Iterator[Path | None]:
        yield self.folder if self.folder.exists() else None

    def report(self, metrics: Mapping[str, Any], write: Any) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        write(self.folder)
        self.reports += 1
        if self.reports == self.stop_after:
            raise Stopped


class Lines:
    """Stands for the driver's board, in the worker's own process."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def post(self, kind: str, value: Any) -> None:
        self.said.append(value)


def trained(folder: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None) -> dict[str, torch.Tensor]:
    config = SmallConfig(
        out=folder, glances=4, glances_batch=4, practice=2, lessons=4, lessons_batch=2, workers=1, keep_every=2,
    )  # fmt: skip
    monkeypatch.setattr("lgsrr.channel.RayTrainChannel", lambda: Alone(folder / "kept", stop_after))
    lines = Lines()
    program._worker({"config": config, "board": lines})
    assert lines.said[-1].startswith("stage 3, step 4 of 4  loss ")
    return load_file(folder / "kept" / program.WEIGHTS)


@pytest.mark.slow
def test_training_that_was_stopped_in_any_stage_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(tmp_path / "whole", monkeypatch)
    for stop_after in (1, 1, 1, 1):  # in the first stage, at its end, at the second's, in the third
        with pytest.raises(Stopped):
            trained(tmp_path / "stopped", monkeypatch, stop_after)
    went_on = trained(tmp_path / "stopped", monkeypatch)
    assert whole.keys() == went_on.keys()
    assert all(torch.equal(whole[name], went_on[name]) for name in whole)


def test_muon_takes_the_steps_of_the_library_s_own_up_to_the_rounding_of_its_bfloat16() -> None:
    torch.manual_seed(0)
    start, target = torch.randn(24, 40), torch.randn(24, 40)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    optimizers = (
        Muon([ours], lr=0.01, weight_decay=0.02),
        torch.optim.Muon([theirs], lr=0.01, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(5):
        for weights, optimizer in zip((ours, theirs), optimizers, strict=True):
            weights.grad = (weights - target).detach() ** 3
            optimizer.step()
    moved = (theirs - start).norm()
    assert moved > 0.1
    assert (ours - theirs).norm() < 0.02 * moved


def test_muon_takes_a_convolution_as_a_matrix_of_as_many_rows_as_it_has_outputs() -> None:
    torch.manual_seed(0)
    weights, gradient = torch.randn(6, 4, 2, 2), torch.randn(6, 4, 2, 2)
    convolution, matrix = torch.nn.Parameter(weights.clone()), torch.nn.Parameter(weights.flatten(1).clone())
    convolution.grad, matrix.grad = gradient, gradient.flatten(1)
    Muon([convolution], lr=0.01).step()
    Muon([matrix], lr=0.01).step()
    assert torch.equal(convolution.flatten(1), matrix)
    assert not torch.equal(convolution, weights)


def test_a_lesson_is_made_from_its_number_alone() -> None:
    first, again = lesson("3/1", 8), lesson("3/1", 8)
    assert (first.question, first.answer, first.kinds) == (again.question, again.answer, again.kinds)
    assert (first.frames_THWC == again.frames_THWC).all()
    assert (glance("3/1").frame_HWC == glance("3/1").frame_HWC).all()
    assert lesson("3/2", 8).question != first.question


@pytest.mark.parametrize("wrong", [{"glances": 0}, {"workers": 0}, {"lessons_batch": 3, "workers": 2}])
def test_settings_that_cannot_be_are_named(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SmallConfig(out=tmp_path, **wrong)  # type: ignore[arg-type]

"""Does the small model see what is there? Clips of a seed that it never saw, as files, asked as extraction asks.

python -m pipelines.videollama2.small_exam --clips 200 --seed 12345
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import torch

from lgsrr import cli
from lgsrr.records import Aspect
from pipelines.describe_prompts import joint_prompt
from pipelines.drawn_clips.clip import write_clip
from pipelines.drawn_clips.intents import PAIRS, say
from pipelines.drawn_clips.scene import any_scene
from pipelines.drawn_clips.wordings import ASPECTS, named, truth
from pipelines.sections import SectionError, parse_sections
from pipelines.shipped import SMALL

from .modeling import VideoLlama2ForConditionalGeneration
from .processing import VideoLlama2Processor

ANSWER_TOKENS = 96
"""More than an answer under three aspects has."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExamConfig:
    """Which model is asked about which clips."""

    model: Path = SMALL
    """Folder of the model."""
    clips: int = 200
    """How many clips."""
    seed: int = 12345
    """Of the clips; training draws its own by other names, so that no seed here is one that it saw."""
    batch: int = 16
    """Clips that are asked about at once."""


def examine(config: ExamConfig) -> dict[str, float]:
    """The share of clips whose description names what is there, by aspect."""
    model = VideoLlama2ForConditionalGeneration.from_pretrained(config.model)
    processor = VideoLlama2Processor.from_pretrained(config.model)
    aspects = [Aspect(name=name) for name in ASPECTS]
    random = Random(f"exam/{config.seed}")
    hits = dict.fromkeys(ASPECTS, 0)
    for start in range(0, config.clips, config.batch):
        scenes = [any_scene(random) for _ in range(start, min(start + config.batch, config.clips))]
        prompts = [
            processor.build_prompt(joint_prompt(say(random.choice(PAIRS), random.randrange(100), random), aspects))
            for _ in scenes
        ]
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / f"{number}.mp4" for number in range(len(scenes))]
            for scene, path in zip(scenes, paths, strict=True):
                write_clip(scene, path)
            answers = _answers(model, processor, prompts, paths)
        for scene, answer in zip(scenes, answers, strict=True):
            seen = _seen(answer, aspects)
            for name in ASPECTS:
                hits[name] += seen.get(name) == truth(scene)[name]
    return {name: count / config.clips for name, count in hits.items()}


@torch.no_grad()
def _answers(model: Any, processor: Any, prompts: list[str], paths: list[Path]) -> list[str]:
    inputs = processor(text=prompts, videos=paths)
    tokens = model.generate(**inputs, max_new_tokens=ANSWER_TOKENS)
    return list(processor.batch_decode(tokens, skip_special_tokens=True))


def _seen(answer: str, aspects: list[Aspect]) -> Mapping[str, str | None]:
    """What an answer names under each aspect; nothing where it cannot be read."""
    try:
        texts = parse_sections(answer, aspects)
    except SectionError:
        return {}
    return {aspect.name: named(aspect.name, text) for aspect, text in zip(aspects, texts, strict=True)}


def main() -> None:
    cli.run(
        lambda config: print(json.dumps(examine(config), indent=1)),
        ExamConfig,
        prog="python -m pipelines.videollama2.small_exam",
        description=__doc__.split("\n\n")[0],
        example="python -m pipelines.videollama2.small_exam --clips 200",
    )


if __name__ == "__main__":
    main()

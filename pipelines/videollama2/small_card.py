"""The trained small model as a folder: weights, settings, vocabulary, and a card that says how it was made."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lgsrr.files import atomic_path

from .small import untrained, write_small_settings
from .small_exam import ExamConfig, examine
from .train_small import STEPS

CARD = """# The small VideoLLaMA2

{parameters:.1f} M parameters in the published layout of VideoLLaMA2: a CLIP tower of four layers, stc_connector, a
Mistral of three layers, a vocabulary of {vocabulary} tokens of its own; weights in float32 ({megabytes:.1f} MB).

It describes clips of drawn people (`pipelines/drawn_clips`): what they do, their faces, how they deal with each other,
where they are. Of anything else it knows nothing, and says something about drawn people all the same. It stands in for
VideoLLaMA2-7B-16F where there is no GPU: the same code reads, asks and runs both.

## How it was made

    python -m pipelines.videollama2.train_small --out pipelines/videollama2/small

from random weights, on nothing but what that program draws: {glances} single frames for the tower, then {lessons} clips
for tower, connector and language model. The steps took {minutes:.0f} minutes, in {workers} processes of one thread.
No person, video or model of others is in it. Settings: `{settings}`.

## How well it sees

On {clips} clips of a seed that training never drew, as H.264 files, asked in extraction's joint prompt, greedy:

| aspect | names what is there |
| --- | --- |
{rows}

    python -m pipelines.videollama2.small_exam --clips {clips} --seed {seed}

Licence: MIT, as the project.
"""


def write_card(
    out: Path, weights: Mapping[str, Tensor], settings: Mapping[str, Any], seconds: float, exam: int = 400
) -> None:
    """Write the trained model to `out`, whole or not at all, with what it gets right on `exam` clips.

    `settings` are those of its training, `seconds` what all steps took.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_small_settings(Path(temporary) / "small")
        model = untrained(folder, int(settings["seed"]))
        model.load_state_dict(dict(weights), strict=False)
        model.save_pretrained(folder)
        write_small_settings(folder)  # the config as published, which save_pretrained has replaced by its own
        asked = ExamConfig(model=folder, clips=exam)
        found = examine(asked)
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        card = CARD.format(
            parameters=model.num_parameters() / 1e6,
            vocabulary=model.config.vocab_size,
            megabytes=size / 1e6,
            glances=settings["glances"] * settings["glances_batch"],
            lessons=sum(settings[name] for name in STEPS[1:]) * settings["lessons_batch"],
            minutes=seconds / 60,
            workers=settings["workers"],
            settings=json.dumps({k: v for k, v in settings.items() if k not in ("out", "work")}),
            clips=asked.clips,
            seed=asked.seed,
            rows="\n".join(f"| {name} | {100 * share:.1f} % |" for name, share in found.items()),
        )
        (folder / "README.md").write_text(card, encoding="utf-8")
        with atomic_path(out) as target:
            shutil.copytree(folder, target)

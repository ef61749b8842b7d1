"""The demo as a list of the project's own commands, each with the file that says that it is done.

There is nothing here that a person could not type: the demo adds the order, a Ray that all commands share, and the
stand-in. What a command has finished, it finds again by itself; the list says only whether it need be started at all.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lgsrr.config import TrainConfig, recipe

from .settings import DemoConfig, Llm

DATASET = "demo"
CHAMPION = f"models:/lgsrr-{DATASET}@champion"
ASPECTS = "A,E,I"
"""What the small video model can be asked, besides the scene."""
FRAMES = 8
"""Frames of a clip that the small video model looks at."""
RATE = 4e-3
"""Learning rate of a training run whose encoder stays as it is; the search makes its own range of the recipe's."""
_ANOTHER_SEED = 10_007
"""Between the clips that are learned from and the new ones."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One command."""

    name: str
    """Short, unique; the word for it in the table at the end."""
    says: str
    """What it does, for somebody who watches."""
    arguments: tuple[str, ...]
    """Behind `python`."""
    leaves: Callable[[], Path]
    """The file that is there when it is done, written last."""
    on_ray: bool = False
    asks: bool = False
    """Whether it asks the language model."""
    answers: Path | None = None
    """Where its output goes in place of the screen."""

    @property
    def command(self) -> list[str]:
        return [sys.executable, *self.arguments]

    @property
    def shown(self) -> str:
        """As a person would type it."""
        into = "" if self.answers is None else f" > {shlex.quote(str(self.answers))}"
        return shlex.join(["python", *self.arguments]) + into


@dataclasses.dataclass(frozen=True, kw_only=True)
class Places:
    """Where everything lies."""

    folder: Path

    @property
    def sample(self) -> Path:
        return self.folder / "sample"

    @property
    def new(self) -> Path:
        return self.folder / "new"

    @property
    def extracted(self) -> Path:
        return self.folder / "extracted"

    @property
    def discovered(self) -> Path:
        """What a real language model would have clips described under."""
        return self.folder / "discovered"

    @property
    def search(self) -> Path:
        return self.folder / "search" / DATASET

    @property
    def predictions(self) -> Path:
        return self.folder / "predictions.jsonl"


def training(config: DemoConfig, k: int) -> TrainConfig:
    """The settings of a training run of the demo."""
    return dataclasses.replace(
        recipe(DATASET, config.encoder),
        data=str(Places(folder=config.folder).extracted),
        k=k,
        seed=config.seed,
        runs=str(config.folder),
        lr=RATE,
        **_learning(config),
    )


def _learning(config: DemoConfig) -> dict[str, Any]:
    """What makes a few hundred utterances enough, by the names of the settings: the encoder stays as it is."""
    return {
        "epochs": config.epochs, "patience": config.epochs, "batch_size": 16, "text_length": 30,
        "description_length": 40, "trainable_layers": 0,
    }  # fmt: skip


def run_folder(config: DemoConfig, k: int) -> Path:
    """The folder of a training run, whose name holds a hash of settings and data. Raises DataError before there are
    data.
    """
    from lgsrr.catalog import load_dataset
    from lgsrr.run_folder import choose_run_folder

    settings = training(config, k)
    digest = load_dataset(DATASET, settings.data).digest
    return choose_run_folder(config.folder.resolve(), settings, settings.fingerprint(digest)).path


def steps(config: DemoConfig, llm: Llm) -> list[Step]:
    """All of the demo, in order."""
    at = Places(folder=config.folder)
    return [
        _sample(at.sample, config.utterances, config.seed, "sample", "draws clips of people who mean something"),
        *_extraction(config, llm, at),
        _train(config, 0, "text alone", "trains on the words alone, which are ambiguous"),
        _train(config, 3, "LGSRR", "trains on words and descriptions"),
        _search(config, at),
        Step(
            name="champion",
            says="makes the model that the search found the champion",
            arguments=("-m", "tune.promote", "--dataset", DATASET, "--candidate", "--runs", str(at.folder)),
            leaves=lambda: at.search / "answer.json",  # the alias itself is in MLflow
        ),
        _sample(
            at.new, config.new_clips, config.seed + _ANOTHER_SEED, "new clips", "draws clips that nobody has seen"
        ),
        Step(
            name="predict",
            says="describes and classifies the new clips with the champion",
            arguments=(
                "-m", "lgsrr.predict", "--model", CHAMPION, "--runs", str(at.folder),
                "--input", str(at.new / "utterances.csv"), "--video", str(at.new),
            ),
            leaves=lambda: at.predictions,
            answers=at.predictions,
        ),
    ]  # fmt: skip


def _sample(out: Path, utterances: int, seed: int, name: str, says: str) -> Step:
    arguments = ("-m", "pipelines.sample", *flags({"out": out, "utterances": utterances, "seed": seed}))
    return Step(name=name, says=says, arguments=arguments, leaves=lambda: out / "sample.json")


def _extraction(config: DemoConfig, llm: Llm, at: Places) -> list[Step]:
    """Discovery, descriptions and rankings in one; where a real language model discovers, its aspects are shown, and
    those described that the small video model knows.
    """
    asking: dict[str, object] = {"llm": llm.name}
    if not llm.is_stand_in:
        asking |= {"budget_usd": config.budget_usd}
    if llm.price is not None:
        asking |= {"price_in": llm.price[0], "price_out": llm.price[1]}
    data = {"dataset": DATASET, "data": at.sample / "utterances.csv", "runs": at.folder, **asking}
    seeing = {"engine": config.engine, "model": config.model, "frames": FRAMES, "seed": config.seed}
    seeing |= {"clips_in_flight": 64, "decoders": 1}
    seeing |= {"leave_out_quarantined": True}  # the small model's answer cannot be read in one clip of sixty

    def step(name: str, says: str, out: Path, **more: object) -> Step:
        arguments = ("-m", "pipelines.extract", *flags({**data, "out": out, **more}))
        return Step(
            name=name, says=says, arguments=arguments, leaves=lambda: out / "manifest.json", on_ray=True, asks=True
        )

    if llm.is_stand_in:
        return [step("extract", "finds aspects, describes every clip, ranks the aspects", at.extracted, **seeing)]
    return [
        step("discover", "asks which aspects carry intent", at.discovered, stages="discover"),
        step(
            "extract", f"describes every clip under {ASPECTS}, which the small video model knows; ranks them",
            at.extracted, stages="describe,rank", aspects=ASPECTS, **seeing,
        ),
    ]  # fmt: skip


def _train(config: DemoConfig, k: int, name: str, says: str) -> Step:
    settings, start = training(config, k), recipe(DATASET, config.encoder)
    changed = {
        f.name: getattr(settings, f.name)
        for f in dataclasses.fields(settings)
        if getattr(settings, f.name) != getattr(start, f.name)
    }
    arguments = ("-m", "lgsrr.train", *flags({"dataset": DATASET, "encoder": config.encoder, **changed}))
    return Step(
        name=name, says=says, arguments=arguments, leaves=lambda: run_folder(config, k) / "result.json", on_ray=True
    )


def _search(config: DemoConfig, at: Places) -> Step:
    settings = {
        "dataset": DATASET, "encoder": config.encoder, "data": at.extracted, "runs": at.folder, "name": DATASET,
        "trials": config.trials, "seeds": config.seeds, "seed": config.seed, **_learning(config),
    }  # fmt: skip
    return Step(
        name="search",
        says=f"looks for the best of {config.trials} configurations, with {config.seeds} seeds",
        arguments=("-m", "tune.search", *flags(settings)),
        leaves=lambda: at.search / "answer.json",
        on_ray=True,
    )


def flags(settings: Mapping[str, object]) -> tuple[str, ...]:
    """Settings as a command line."""
    words: list[str] = []
    for name, value in settings.items():
        words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return tuple(words)

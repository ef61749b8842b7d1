"""Evaluate a trained model on a split: the paper's metrics, and those of every class.

    python -m lgsrr.evaluate --model runs/train/NAME/model --split test

The data are those that the model was trained on, or others with its labels and aspects (`--data`).
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lgsrr import cli
from lgsrr.errors import ConfigError, ModelError
from lgsrr.metrics import SCORES, ClassScores, per_class, scores
from lgsrr.records import Dataset, Split
from lgsrr.saved_model import ModelCard

PROG = "python -m lgsrr.evaluate"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    model: str
    """A model's folder, `runs:/<id>`, `models:/<name>/<version>` or `models:/<name>@<alias>`."""
    split: Split = "test"
    """Which utterances."""
    dataset: str | None = None
    """Name of the dataset; None is the one that the model was trained on."""
    data: str | None = None
    """Where it lies; None is where it lay in training."""
    limit: int | None = None
    """Take the first so many utterances of the split."""
    json: bool = False
    """JSON on a terminal too."""
    runs: str = "runs"
    """Folder of the local tracking store, for `runs:/` and `models:/`."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit is {self.limit}; expected 1 or more")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How well a model does."""

    dataset: str
    split: Split
    utterances: int
    scores: dict[str, float]
    """Fractions, by the names of `lgsrr.metrics.SCORES`."""
    classes: list[ClassScores]


def evaluate(config: EvaluateConfig) -> Evaluation:
    """Evaluate as configured.

    Raises:
        ModelError: the model cannot be had, or is one for other labels or aspects.
    """
    from lgsrr.catalog import load_dataset
    from lgsrr.classifier import Classifier
    from lgsrr.destination import TrackingConfig
    from lgsrr.features import cache_folder, featurise
    from lgsrr.logged_models import resolve_model

    folder = resolve_model(config.model, Path(config.runs), TrackingConfig())
    classifier = Classifier.load(folder)
    card = classifier.card
    name = config.dataset or card.dataset
    data = config.data or (card.data if name == card.dataset else None)
    dataset = load_dataset(name, data, require=(config.split,))
    _check_fits(card, dataset, folder)
    dataset = dataclasses.replace(dataset, utterances=dataset.split(config.split)[: config.limit], labels=card.labels)
    tokenizer = folder / "tokenizer"
    features = featurise(
        dataset, encoder=tokenizer, lengths=card.lengths, num_aspects=len(card.aspects), cache=cache_folder()
    )
    answers = classifier.answer(features, np.arange(len(features.ids)), card.batch_size)
    return Evaluation(
        dataset=name,
        split=config.split,
        utterances=len(features.ids),
        scores=scores(features.labels_U, answers.predictions_B, len(card.labels)),
        classes=per_class(features.labels_U, answers.predictions_B, card.labels),
    )


def _check_fits(card: ModelCard, dataset: Dataset, folder: Path) -> None:
    """Raises ModelError where the labels or the first K aspects of the data are not the model's."""
    strange = [label for label in dataset.labels if label not in card.labels]
    if strange:
        raise ModelError(
            f"the model in {folder} was trained on {card.dataset} and knows no label {strange[0]!r} of {dataset.name}; "
            f"it knows {', '.join(card.labels)}"
        )
    aspects = tuple(a.name for a in dataset.aspects[: len(card.aspects)])
    if aspects != card.aspects:
        raise ModelError(
            f"the model in {folder} reads the aspects {list(card.aspects)}, but {dataset.name} has {list(aspects)}"
        )


def show(config: EvaluateConfig) -> None:
    """Evaluate and print: tables on a terminal, one JSON object in a pipe."""
    evaluation = evaluate(config)
    if config.json or not sys.stdout.isatty():
        print(json.dumps(dataclasses.asdict(evaluation), ensure_ascii=False))
        return
    console = Console()
    console.print(f"{evaluation.dataset}, {evaluation.split}: {evaluation.utterances} utterances", highlight=False)
    totals = Table(box=None, pad_edge=False)
    for name in SCORES:
        totals.add_column(name.upper(), justify="right")
    totals.add_row(*(f"{100 * evaluation.scores[name]:.2f}" for name in SCORES))
    console.print(totals)
    classes = Table(box=None, pad_edge=False)
    classes.add_column("label")
    for title in ("P", "R", "F1", "utterances"):
        classes.add_column(title, justify="right")
    for row in evaluation.classes:
        values = (f"{100 * value:.1f}" for value in (row.precision, row.recall, row.f1))
        classes.add_row(escape(row.label), *values, str(row.support))
    console.print(classes)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    cli.run(
        show,
        EvaluateConfig,
        prog=PROG,
        description=(__doc__ or "").split("\n\n")[0],
        example=f"{PROG} --model runs/train/NAME/model --split test",
        argv=argv,
    )


if __name__ == "__main__":
    main()

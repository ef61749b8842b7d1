"""What a model said of utterances, as typed records, as a flat table and as Parquet.

The flat columns are `importance.<slot>` (α, slot `text` or an aspect), `complementarity.<aspect>` (β) and
`inconsistency.<aspect>` (γ): the three relations of the paper, which say why the label was given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lgsrr.features import Features
from lgsrr.files import atomic_path
from lgsrr.inference import Answers
from lgsrr.saved_model import ModelCard

TEXT = "text"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The label of one utterance, and the relations behind it, by slot or aspect."""

    id: str
    label: str
    probability: float
    importance: Mapping[str, float]
    complementarity: Mapping[str, float]
    inconsistency: Mapping[str, float]

    def flat(self) -> dict[str, Any]:
        """One value per column."""
        row: dict[str, Any] = {"id": self.id, "label": self.label, "probability": self.probability}
        for relation in ("importance", "complementarity", "inconsistency"):
            row |= {f"{relation}.{name}": value for name, value in getattr(self, relation).items()}
        return row


def predictions(card: ModelCard, ids: Sequence[str], answers: Answers) -> list[Prediction]:
    """Records of answers; `ids` name the utterances in the answers' order."""
    chosen_B = answers.predictions_B
    probability_B = answers.probabilities_BC.max(axis=1)
    return [
        Prediction(
            id=ids[i],
            label=card.labels[chosen_B[i]],
            probability=float(probability_B[i]),
            importance=_named((TEXT, *card.aspects), answers.importance_BS[i]),
            complementarity=_named(card.aspects, answers.complementarity_BK[i]),
            inconsistency=_named(card.aspects, answers.inconsistency_BK[i]),
        )
        for i in range(len(ids))
    ]


def flat_columns(card: ModelCard) -> dict[str, str]:
    """Names and kinds (`string`, `double`) of the flat columns of a model's predictions."""
    relations = [f"importance.{name}" for name in (TEXT, *card.aspects)]
    relations += [f"{kind}.{name}" for kind in ("complementarity", "inconsistency") for name in card.aspects]
    return {"id": "string", "label": "string", "probability": "double"} | dict.fromkeys(relations, "double")


def predictions_table(features: Features, card: ModelCard, answers: Answers) -> pa.Table:
    """The flat columns, with the true label as `truth` behind `label`."""
    ids = [features.ids[row] for row in answers.rows]
    table = pa.Table.from_pylist([p.flat() for p in predictions(card, ids, answers)], _schema(card))
    truths = [card.labels[index] if index >= 0 else None for index in features.labels_U[answers.rows]]
    return table.add_column(2, "truth", pa.array(truths, pa.string()))


def write_predictions(path: Path, table: pa.Table) -> None:
    """Write Parquet, whole or not at all."""
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def _schema(card: ModelCard) -> pa.Schema:
    kinds = {"string": pa.string(), "double": pa.float64()}
    return pa.schema([(name, kinds[kind]) for name, kind in flat_columns(card).items()])


def _named(names: Sequence[str], values: Any) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True)}

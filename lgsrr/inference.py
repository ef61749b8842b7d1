"""Run a model over rows of a dataset: logits and the three relations of every utterance, as NumPy arrays.

Nothing is padded and nothing depends on the batch, so rows go in the order given, many at a time. The one exception is
a model with `inconsistency="batch"`, whose answers depend on its batches by definition: there a row is answered as the
released code does, in batches of `batch_size` consecutive rows.

Shapes: B utterance (of all rows), K aspect, S slot, C class.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from lgsrr.batch import BatchMaker, Floats, Rows
from lgsrr.features import batches
from lgsrr.model import LGSRR


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a model says of some rows, in their order."""

    rows: Rows
    logits_BC: Floats
    importance_BS: Floats
    complementarity_BK: Floats
    inconsistency_BK: Floats

    @property
    def predictions_B(self) -> Rows:
        """The most probable class."""
        chosen: Rows = self.logits_BC.argmax(axis=1)
        return chosen

    @property
    def probabilities_BC(self) -> Floats:
        shifted = np.exp(self.logits_BC - self.logits_BC.max(axis=1, keepdims=True))
        probabilities: Floats = shifted / shifted.sum(axis=1, keepdims=True)
        return probabilities


@torch.inference_mode()
def answer(model: LGSRR, maker: BatchMaker, rows_by_batch: Sequence[Rows], device: torch.device) -> Answers:
    """Answer every row of every batch, in order. Leaves the model in the mode in which it was."""
    was_training = model.training
    model.eval()
    found: list[tuple[torch.Tensor, ...]] = []
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
        for rows in rows_by_batch:
            relations = model(maker(rows).to(device))
            found.append(
                (
                    relations.logits_BC,
                    relations.importance_BS,
                    relations.complementarity_BK,
                    relations.inconsistency_BK,
                )
            )
    model.train(was_training)
    if not found:
        return _nothing(model, maker)
    logits, importance, complementarity, inconsistency = (
        torch.cat(parts).float().cpu().numpy() for parts in zip(*found, strict=True)
    )
    return Answers(
        rows=np.concatenate(list(rows_by_batch)),
        logits_BC=logits,
        importance_BS=importance,
        complementarity_BK=complementarity,
        inconsistency_BK=inconsistency,
    )


def merge(parts: Sequence[Answers]) -> Answers:
    """The answers of several workers as one, in the order of the rows."""
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows, kind="stable")

    def joined(name: str) -> Floats:
        values: Floats = np.concatenate([getattr(part, name) for part in parts])[order]
        return values

    names = [f.name for f in dataclasses.fields(Answers) if f.name != "rows"]
    return Answers(rows=rows[order], **{name: joined(name) for name in names})


def dealt(rows: Rows, batch_size: int, worker: int, workers: int) -> list[Rows]:
    """The batches of one worker: whole batches are dealt in turn, the same ones for any number of workers."""
    return list(batches(rows, batch_size))[worker::workers]


def _nothing(model: LGSRR, maker: BatchMaker) -> Answers:
    aspects = maker.num_slots - 1
    empty = np.empty((0, aspects), dtype=np.float32)
    return Answers(
        rows=np.empty(0, dtype=np.int64),
        logits_BC=np.empty((0, model.relations.classifier.out_features), dtype=np.float32),
        importance_BS=np.empty((0, 1 + aspects), dtype=np.float32),
        complementarity_BK=empty,
        inconsistency_BK=empty,
    )

"""A trained model in use: texts and descriptions in, labels with their reasons out.

    classifier = Classifier.load(Path("runs/train/.../model"))
    classifier.predict([Asked(id="1", text="nice job", descriptions=("She points at him.", ...))])

One utterance is answered the same whatever else is asked with it. (A model with `inconsistency="batch"` would not: it
is asked one utterance at a time.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from lgsrr.batch import BatchMaker
from lgsrr.features import TEXT_COLUMN, Features, batches, tokenise
from lgsrr.inference import Answers, answer
from lgsrr.memory import bound_caches
from lgsrr.predictions import Prediction, predictions
from lgsrr.saved_model import ModelCard, SavedModel, load_model

BATCH_SIZE = 64


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """An utterance to classify."""

    id: str
    text: str
    descriptions: tuple[str, ...]
    """One per aspect of the model, in its order."""


class Classifier:
    """A loaded model, on a GPU where there is one."""

    def __init__(self, saved: SavedModel) -> None:
        bound_caches()
        self._saved = saved
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = saved.model.to(self._device)

    @classmethod
    def load(cls, folder: Path) -> Classifier:
        """Load a model's folder; raises ModelError where it is missing or damaged."""
        return cls(load_model(folder))

    @property
    def card(self) -> ModelCard:
        """What the model is."""
        return self._saved.card

    def predict(self, asked: Sequence[Asked]) -> list[Prediction]:
        """One prediction per utterance, in order."""
        if not asked:
            return []
        card = self.card
        texts = [[a.text for a in asked], *([a.descriptions[k] for a in asked] for k in range(len(card.aspects)))]
        tokens = tokenise(texts, [TEXT_COLUMN, *card.aspects], self._saved.tokenizer_folder, card.lengths)
        features = Features(
            ids=tuple(a.id for a in asked),
            splits=np.full(len(asked), "test"),
            labels_U=np.full(len(asked), -1, dtype=np.int64),
            positions_UK=None,
            tokens=tokens,
            key="",
        )
        size = 1 if card.inconsistency == "batch" else BATCH_SIZE
        return predictions(card, features.ids, self.answer(features, np.arange(len(asked)), size))

    def answer(self, features: Features, rows: np.ndarray[tuple[int], np.dtype[np.int64]], size: int) -> Answers:
        """Logits and relations of rows of features that were made with this model's lengths and tokenizer."""
        return answer(self._model, BatchMaker(features), list(batches(rows, size)), self._device)

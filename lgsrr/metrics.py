"""The paper's metrics: accuracy, macro F1, precision and recall, weighted F1 and precision; per class; confusions.

They are scikit-learn's with its defaults, as in the authors' released code (utils/metrics.py of LGSRR): the macro mean
is taken over the classes that occur among the labels or the predictions, and a class that was never predicted has
precision 0. So a class that is absent from a small split does not pull the mean down, and numbers are comparable only
where the same classes occur. Values are fractions from 0 to 1; the paper prints them times 100. They are computed here
because the import of scikit-learn costs every worker of every trial two seconds; a test compares the two.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

SCORES = ("acc", "f1", "p", "r", "wf1", "wp")
"""Keys of `scores`, in the paper's order: ACC, F1, P, R, WF1, WP."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClassScores:
    """How one class was recognised."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    """How many utterances have this label."""


def scores(labels: Ints, predictions: Ints, num_classes: int) -> dict[str, float]:
    """The six numbers of the paper under the keys of `SCORES`, from class numbers (0 to num_classes - 1) in 1-D arrays.

    Raises ValueError where the arrays are empty, differ in length or hold a number that is no class.
    """
    _check(labels, predictions, num_classes)
    precision, recall, f1, support = _by_class(confusion(labels, predictions, num_classes))
    occurs = support + np.bincount(predictions, minlength=num_classes) > 0
    values = {
        "acc": np.mean(labels == predictions),
        "f1": f1[occurs].mean(),
        "p": precision[occurs].mean(),
        "r": recall[occurs].mean(),
        "wf1": np.average(f1, weights=support),
        "wp": np.average(precision, weights=support),
    }
    return {key: float(values[key]) for key in SCORES}


def _by_class(matrix: Ints) -> tuple[Floats, Floats, Floats, Ints]:
    """Precision, recall, F1 and support of each class; 0 where nothing is there to divide by."""
    hits, support, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    precision, recall, f1 = (
        np.divide(above, below, out=np.zeros(len(matrix)), where=below > 0)
        for above, below in ((hits, predicted), (hits, support), (2 * hits, predicted + support))
    )
    return precision, recall, f1, support


def per_class(labels: Ints, predictions: Ints, names: Sequence[str]) -> list[ClassScores]:
    """Every class's scores in the order of `names`; a class that does not occur has zeros and support 0."""
    _check(labels, predictions, len(names))
    columns = _by_class(confusion(labels, predictions, len(names)))
    return [
        ClassScores(label=name, precision=float(p), recall=float(r), f1=float(f1), support=int(support))
        for name, p, r, f1, support in zip(names, *columns, strict=True)
    ]


def confusion(labels: Ints, predictions: Ints, num_classes: int) -> Ints:
    """Counts by true class (rows) and predicted class (columns): (num_classes, num_classes)."""
    _check(labels, predictions, num_classes)
    matrix: Ints = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(matrix, (labels, predictions), 1)
    return matrix


def _check(labels: Ints, predictions: Ints, num_classes: int) -> None:
    if labels.ndim != 1 or labels.shape != predictions.shape or labels.size == 0:
        raise ValueError(
            f"labels have shape {labels.shape} and predictions {predictions.shape}; expected one number per utterance "
            "in each, and at least one utterance"
        )
    for what, values in (("label", labels), ("prediction", predictions)):
        wrong = np.flatnonzero((values < 0) | (values >= num_classes))
        if wrong.size:
            row = int(wrong[0])
            raise ValueError(f"{what} {row} is {values[row]}; expected a class from 0 to {num_classes - 1}")

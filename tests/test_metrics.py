"""lgsrr.metrics against sums done by hand and against scikit-learn as the authors call it."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_score, recall_score

from lgsrr.metrics import SCORES, confusion, per_class, scores

LABELS = np.array([0, 0, 0, 1, 1, 2], dtype=np.int64)
PREDICTIONS = np.array([0, 0, 1, 1, 2, 2], dtype=np.int64)


def test_scores_are_the_sums_done_by_hand() -> None:
    found = scores(LABELS, PREDICTIONS, 3)
    assert tuple(found) == SCORES
    assert found["acc"] == pytest.approx(4 / 6)
    assert found["p"] == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)
    assert found["r"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert found["f1"] == pytest.approx((4 / 5 + 1 / 2 + 2 / 3) / 3)
    assert found["wf1"] == pytest.approx((3 * 4 / 5 + 2 * 1 / 2 + 1 * 2 / 3) / 6)
    assert found["wp"] == pytest.approx((3 * 1 + 2 * 1 / 2 + 1 * 1 / 2) / 6)


@pytest.mark.filterwarnings("ignore")
def test_scores_are_those_of_the_authors_code_on_thirty_classes() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 30, 500)
    labels[labels == 7] = 8  # a class that no utterance of the split has
    predictions = np.where(random.random(500) < 0.5, labels, random.integers(0, 29, 500))
    found = scores(labels, predictions, 30)
    assert found["acc"] == pytest.approx(accuracy_score(labels, predictions))
    assert found["f1"] == pytest.approx(f1_score(labels, predictions, average="macro"))
    assert found["p"] == pytest.approx(precision_score(labels, predictions, average="macro"))
    assert found["r"] == pytest.approx(recall_score(labels, predictions, average="macro"))
    assert found["wf1"] == pytest.approx(f1_score(labels, predictions, average="weighted"))
    assert found["wp"] == pytest.approx(precision_score(labels, predictions, average="weighted"))


def test_a_class_that_does_not_occur_does_not_pull_the_macro_mean_down() -> None:
    assert scores(LABELS, PREDICTIONS, 3) == scores(LABELS, PREDICTIONS, 30)


def test_per_class_has_a_row_for_every_class_and_zeros_for_one_that_does_not_occur() -> None:
    rows = per_class(LABELS, PREDICTIONS, ["a", "b", "c", "never"])
    assert [row.label for row in rows] == ["a", "b", "c", "never"]
    assert [row.support for row in rows] == [3, 2, 1, 0]
    assert [rows[0].precision, rows[0].recall] == pytest.approx([1.0, 2 / 3])
    assert (rows[3].precision, rows[3].recall, rows[3].f1) == (0, 0, 0)


def test_confusion_counts_true_labels_in_rows() -> None:
    matrix = confusion(LABELS, PREDICTIONS, 4)
    assert matrix.tolist() == confusion_matrix(LABELS, PREDICTIONS, labels=range(4)).tolist()
    assert matrix[0].tolist() == [2, 1, 0, 0]


def test_what_is_no_class_is_named_with_its_row() -> None:
    with pytest.raises(ValueError, match=r"prediction 5 is 2; expected a class from 0 to 1"):
        scores(np.minimum(LABELS, 1), np.array([0, 0, 1, 1, 1, 2]), 2)


def test_arrays_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one number per utterance"):
        scores(LABELS, PREDICTIONS[:3], 3)
    with pytest.raises(ValueError, match="at least one utterance"):
        scores(LABELS[:0], PREDICTIONS[:0], 3)

"""lgsrr.plots: pictures come out, whole, for the smallest and the largest input. How they look, a person judges."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from lgsrr.plots import confusion_picture, loss_curves

HISTORY = [
    {"epoch": 1, "train_loss": 3.0, "train_ce": 2.5, "train_rank": 0.5, "dev_loss": 2.8, "dev_f1": 0.2},
    {"epoch": 2, "train_loss": 2.0, "train_ce": 1.6, "train_rank": 0.4, "dev_loss": 2.4, "dev_f1": 0.4},
    {"epoch": 3, "train_loss": 1.5, "train_ce": 1.2, "train_rank": 0.3, "dev_loss": 2.6, "dev_f1": 0.3},
]


@pytest.mark.parametrize("count", [2, 30])
def test_a_confusion_picture_is_drawn_at_a_size_that_fits_its_classes(count: int, tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).integers(0, 40, (count, count))
    path = tmp_path / "confusion.png"
    confusion_picture(matrix, [f"a label ${n}" for n in range(count)], path)
    height, width = imread(path).shape[:2]
    assert min(height, width) > 40 * count


def test_a_class_without_an_utterance_divides_nothing_by_zero(tmp_path: Path) -> None:
    with np.errstate(all="raise"):
        confusion_picture(np.array([[3, 1], [0, 0]]), ["seen", "never seen"], tmp_path / "confusion.png")


@pytest.mark.parametrize("history", [HISTORY, HISTORY[:1], [{"epoch": 1.0, "dev_f1": 0.1}]])
def test_curves_are_drawn_from_whatever_losses_there_are(history: list[dict[str, float]], tmp_path: Path) -> None:
    loss_curves(history, tmp_path / "curves.png")
    assert imread(tmp_path / "curves.png").size > 0


def test_curves_of_no_epoch_are_refused_and_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected one row per epoch"):
        loss_curves([], tmp_path / "curves.png")
    assert list(tmp_path.iterdir()) == []


def test_no_window_system_is_touched(tmp_path: Path) -> None:
    sys.modules.pop("matplotlib.pyplot", None)
    loss_curves(HISTORY, tmp_path / "curves.png")
    assert "matplotlib.pyplot" not in sys.modules

"""The two pictures of a run: which labels are taken for which, and how the losses and dev macro F1 went.

Drawn by matplotlib's Agg without pyplot, so that nothing is kept between pictures and no display is asked for. The
pictures are PNGs for MLflow's page of a run; numbers to compute with belong in metrics and tables instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lgsrr.files import atomic_path

_DPI = 130
_LOSSES = {
    "train_loss": ("train: total", "#1f4e79", "-"),
    "train_ce": ("train: cross entropy", "#5b9bd5", "-"),
    "train_rank": ("train: ranking", "#70ad47", "-"),
    "dev_loss": ("dev", "#c55a11", "--"),
}
"""Name, colour and line of each loss that may be in a history."""
_F1_COLOUR = "#7030a0"


def confusion_picture(matrix: NDArray[np.int64], labels: Sequence[str], path: Path) -> None:
    """Draw counts by true label (rows) and predicted label (columns) as a PNG; colour is the share of the row.

    `matrix` is (classes, classes) as `lgsrr.metrics.confusion` makes it; readable up to some 40 classes.
    """
    from matplotlib.figure import Figure

    count = len(labels)
    side = max(4.5, 0.36 * count + 2.5)
    figure = Figure(figsize=(side + 1.0, side))
    axes = figure.subplots()
    totals = matrix.sum(axis=1, keepdims=True)
    shares = matrix / np.maximum(totals, 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    _write_counts(axes, matrix, shares)
    _name_classes(axes, labels, totals[:, 0])
    axes.set_title(f"{np.trace(matrix)} of {matrix.sum()} right ({np.trace(matrix) / max(1, matrix.sum()):.1%})")
    figure.colorbar(image, ax=axes, label="share of the true label", fraction=0.03, pad=0.02)
    _save(figure, path)


def _name_classes(axes: Any, labels: Sequence[str], totals: NDArray[np.int64]) -> None:
    count = len(labels)
    rows = [f"{label}  ({total})" for label, total in zip(labels, totals, strict=True)]
    axes.set_yticks(range(count), rows, fontsize=8, parse_math=False)
    axes.set_xticks(range(count), labels, fontsize=8, rotation=60, ha="right", rotation_mode="anchor", parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true (utterances)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(np.arange(count + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#e6e6e6", linewidth=0.5)
    axes.tick_params(which="minor", length=0)


def _write_counts(axes: Any, matrix: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
    for row, column in zip(*np.nonzero(matrix), strict=True):
        colour = "white" if shares[row, column] > 0.55 else "#303030"
        weight = "bold" if row == column else "normal"
        text = str(matrix[row, column])
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour, fontweight=weight)


def loss_curves(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw a run's losses and its dev macro F1 per epoch as a PNG, with the epoch of the best F1 (the kept one) marked.

    Each row holds `epoch` and `dev_f1` (0 to 1), and any of train_loss, train_ce, train_rank, dev_loss; a loss that no
    row has is left out. Raises ValueError where the history is empty.
    """
    if not history:
        raise ValueError("the history is empty; expected one row per epoch")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    losses, score = figure.subplots(1, 2)
    for key, (name, colour, style) in _LOSSES.items():
        _line(losses, history, key, label=name, color=colour, linestyle=style)
    _line(score, history, "dev_f1", scale=100.0, label="dev macro F1", color=_F1_COLOUR)
    _mark_best(losses, score, history)
    epochs = [row["epoch"] for row in history]
    for axes, name in ((losses, "loss"), (score, "dev macro F1 (%)")):
        _dress(axes, name)
        axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    if losses.get_legend_handles_labels()[0]:
        losses.legend(frameon=False, fontsize=9)
    _save(figure, path)


def _line(axes: Any, history: Sequence[Mapping[str, float]], key: str, *, scale: float = 1.0, **style: str) -> None:
    points = [(row["epoch"], scale * row[key]) for row in history if key in row]
    if points:
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3.5, linewidth=1.6, **style)


def _mark_best(losses: Any, score: Any, history: Sequence[Mapping[str, float]]) -> None:
    scored = [row for row in history if "dev_f1" in row]
    if not scored:
        return
    best = max(scored, key=lambda row: row["dev_f1"])
    for axes in (losses, score):
        axes.axvline(best["epoch"], color="#909090", linewidth=1, linestyle=":")
    score.plot([best["epoch"]], [100 * best["dev_f1"]], marker="o", markersize=9, color=_F1_COLOUR, fillstyle="none")
    score.set_title(f"best: {100 * best['dev_f1']:.1f} % in epoch {best['epoch']:g}", fontsize=10, loc="left")


def _dress(axes: Any, name: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    axes.set_ylabel(name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(color="#ececec")
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Any, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI, bbox_inches="tight")

"""What a person sees while a run trains: a live bar on a terminal, a line every 30 seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

LINE_EVERY_S = 30.0


class TrainingProgress:
    """Shows steps as they come, and one line for each epoch done.

    Args:
        epochs: at most.
        console: where to; its `is_terminal` decides between bar and lines.
        clock: seconds, monotonic.
    """

    def __init__(self, epochs: int, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._epochs, self._console, self._clock = epochs, console, clock
        self._printed_at = clock()
        self._best = 0.0
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> TrainingProgress:
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
            self._bar = Progress(*columns, TimeRemainingColumn(), console=self._console, transient=True)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def step(self, at: dict[str, int]) -> None:
        """A step of an epoch was done."""
        if self._bar:
            if self._task is None:
                self._task = self._bar.add_task("")
            text = f"epoch {at['epoch']}/{self._epochs}"
            self._bar.update(self._task, completed=at["step"], total=at["steps"], description=text)
        elif self._clock() - self._printed_at >= LINE_EVERY_S:
            self._print(f"epoch {at['epoch']}/{self._epochs}  step {at['step']}/{at['steps']}")

    def resumed(self, history: list[dict[str, Any]]) -> None:
        """The run goes on from a checkpoint."""
        self._best = max((figures["dev_f1"] for figures in history), default=0.0)
        self._print(f"goes on after epoch {len(history)}, whose checkpoint was kept")

    def epoch(self, figures: dict[str, Any]) -> None:
        """An epoch was done and evaluated."""
        mark = "  best so far" if figures["dev_f1"] > self._best else ""
        self._best = max(self._best, figures["dev_f1"])
        self._print(
            f"epoch {figures['epoch']}/{self._epochs}  loss {figures['train_loss']:.3f}  "
            f"dev F1 {100 * figures['dev_f1']:.1f}  dev ACC {100 * figures['dev_acc']:.1f}  "
            f"{figures['utterances_per_second']:.0f} utterances/s{mark}"
        )

    def _print(self, line: str) -> None:
        self._printed_at = self._clock()
        self._console.print(line, highlight=False)

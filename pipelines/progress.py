"""What a person sees while a stage works: a live bar on a terminal, a line every 30 seconds elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from .calls import Usage
from .outcomes import Outcome

LINE_EVERY_S = 30.0


class StageProgress:
    """Counts the outcomes of one stage and shows them.

    Args:
        stage: its name.
        total: rows that it works on.
        console: where to; its `is_terminal` decides between bar and lines.
        clock: seconds, monotonic.
    """

    def __init__(self, stage: str, total: int, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._stage, self._total, self._console, self._clock = stage, total, console, clock
        self._started_at = self._printed_at = clock()
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.usage = Usage()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> StageProgress:
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
            more = TextColumn("{task.fields[more]}")
            self._bar = Progress(*columns, TimeRemainingColumn(), more, console=self._console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self._stage, total=self._total, more="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def add(self, outcome: Outcome) -> None:
        """One row has come."""
        self.counts[outcome.status] += 1
        self.usage += outcome.usage
        if outcome.status == "quarantined":
            self.reasons[outcome.reason] += 1
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=self.finished, more=self._more())
        elif self._clock() - self._printed_at >= LINE_EVERY_S:
            self._print(self.line())

    @property
    def finished(self) -> int:
        return self.counts["done"] + self.counts["quarantined"]

    @property
    def seconds(self) -> float:
        """Since the stage began."""
        return self._clock() - self._started_at

    def line(self) -> str:
        """One line: how far, how fast, what it cost, how long still; the last is not guessed from a handful of rows."""
        rate = self.finished / max(self.seconds, 1e-9)
        left = f"{_minutes((self._total - self.finished) / rate)} left" if self.finished >= 20 else ""
        parts = (self._stage, f"{self.finished}/{self._total}", f"{rate:.1f}/s", self._more(), left)
        return "  ".join(part for part in parts if part)

    def _more(self) -> str:
        parts = [f"{self.counts['quarantined']} set aside"] if self.counts["quarantined"] else []
        if self.usage.cost_usd:
            parts.append(f"${self.usage.cost_usd:.2f}")
        return "  ".join(parts)

    def _print(self, line: str) -> None:
        self._printed_at = self._clock()
        self._console.print(line, highlight=False)


def _minutes(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )

"""What a person sees while a search runs: a live table on a terminal, a line every 30 seconds elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lgsrr.progress import LINE_EVERY_S
from tune.looks import count
from tune.race import Race
from tune.recording import trial_title
from tune.records import Trial
from tune.stats import mean, sd

_ROWS = 24
_LOOK_EVERY_S = 1.0


class LiveTable:
    """Trials, their seeds and epochs, and the time that is left.

    Args:
        console: where to; its `is_terminal` decides between table and lines.
        clock: seconds, monotonic.
    """

    def __init__(self, race: Race, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._race, self._console, self._clock = race, console, clock
        self._trials: Sequence[Trial] = ()
        self._scores: dict[str, dict[int, float]] = {}
        self._running: dict[tuple[str, int], int] = {}
        self._step_runs = self._step_ended = 0
        self._what = ""
        self._step_began = self._printed_at = clock()
        self._live: Live | None = None
        self._over = threading.Event()
        self._mutex = threading.RLock()
        """The driver tells, a thread of its own shows. Not held while something is printed: rich has a lock of its own,
        which it holds while it asks for the table."""

    def __enter__(self) -> LiveTable:
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=2, transient=True, get_renderable=self.table)
            self._live.start()
        else:
            threading.Thread(target=self._look, name="search-lines", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._live:
            self._live.stop()

    def _look(self) -> None:
        while not self._over.wait(_LOOK_EVERY_S):
            self.tick()

    def tick(self) -> None:
        """A line where none was printed for half a minute, whether or not anything was heard meanwhile."""
        if self._live is None and self._clock() - self._printed_at >= LINE_EVERY_S:
            with self._mutex:
                line = self._now()
            self.say(line)

    def doing(self, what: str) -> None:
        """Something begins that is no step and may take a while."""
        self.step((), {}, 0, what)

    def step(self, trials: Sequence[Trial], scores: Mapping[str, Mapping[int, float]], runs: int, what: str) -> None:
        """A step begins: so many runs are due. `scores` are those of all seeds that have ended, by trial and seed."""
        with self._mutex:
            self._trials, self._step_runs, self._step_ended, self._what = trials, runs, 0, what
            self._scores = {id_: dict(by_seed) for id_, by_seed in scores.items()}
            self._running = {}
            self._step_began = self._clock()
        self.say(what)

    def epoch(self, trial: Trial, seed: int, epoch: int, best: float) -> None:
        """A seed has come to an epoch, with that best dev F1 so far."""
        with self._mutex:
            self._running[trial.id, seed] = epoch
            self._scores.setdefault(trial.id, {})[seed] = best

    def ended(self, trial: Trial, seed: int) -> None:
        """A seed has ended."""
        with self._mutex:
            self._running.pop((trial.id, seed), None)
            self._step_ended += 1

    def say(self, text: str) -> None:
        """A line for all to see."""
        self._printed_at = self._clock()
        self._console.print(text, highlight=False, soft_wrap=True)

    def _now(self) -> str:
        if not self._step_runs:
            return f"{self._what}: {(self._clock() - self._step_began) / 60:.1f} min so far"
        return f"{self._step_ended}/{self._step_runs} runs of this step, {self._best()}{self._left()}"

    def _best(self) -> str:
        means = {t.id: mean(list(self._scores[t.id].values())) for t in self._trials if self._scores.get(t.id)}
        if not means:
            return "no score yet"
        best = max(means, key=lambda id_: means[id_])
        return f"best so far {100 * means[best]:.1f} ({best}, {count(len(self._scores[best]), 'seed')})"

    def _left(self) -> str:
        spent = self._clock() - self._step_began
        if not self._step_ended:
            return ""
        left = spent / self._step_ended * (self._step_runs - self._step_ended)
        return f", about {max(1, round(left / 60))} min left of this step"

    def table(self) -> Group:
        """As it stands: those that run first, then by score. Its title is not the table's, which breaks its lines."""
        with self._mutex:
            return Group(Text(self._now()), self._table())

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for name in ("trial", "settings"):
            table.add_column(name, no_wrap=True)
        for name in ("seeds", "epoch", "dev F1"):
            table.add_column(name, justify="right")
        ranked = sorted(self._trials, key=self._urgency)
        for trial in ranked[:_ROWS]:
            table.add_row(*self._row(trial))
        if len(ranked) > _ROWS:
            table.add_row("...", f"and {len(ranked) - _ROWS} more", "", "", "")
        return table

    def _urgency(self, trial: Trial) -> tuple[bool, float]:
        running = any(id_ == trial.id for id_, _ in self._running)
        scores = self._scores.get(trial.id)
        return not running, -mean(list(scores.values())) if scores else 0.0

    def _row(self, trial: Trial) -> tuple[str, ...]:
        scores = self._scores.get(trial.id, {})
        epochs = [f"{epoch}/{self._race.epochs}" for (id_, _), epoch in self._running.items() if id_ == trial.id]
        score = f"{100 * mean(list(scores.values())):.1f}" if scores else ""
        if len(scores) > 1:
            score += f" ± {100 * (sd(list(scores.values())) or 0.0):.1f}"
        return trial.id, trial_title(trial)[:60], str(len(scores) or ""), " ".join(epochs), score

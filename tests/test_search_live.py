"""What a person sees of a search while it runs: a table on a terminal, a line every half minute elsewhere."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from rich.console import Console

from tests.processes import wait_until
from tune.live import LiveTable
from tune.race import Race
from tune.records import Trial

TRIALS = [Trial(settings={"lr": rate, "k": 2}, origin="random") for rate in (1e-3, 2e-3)]
RACE = Race(seeds=3, epochs=8, halving=3)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Shown:
    """A table of a search whose first step has begun, with a clock and what it printed."""

    def __init__(self, *, terminal: bool, trials: Sequence[Trial] = TRIALS) -> None:
        self.clock, self._out = Clock(), io.StringIO()
        self.console = Console(file=self._out, width=120, force_terminal=terminal, color_system=None)
        self.live = LiveTable(RACE, self.console, self.clock)
        self.live.step(trials, {}, 4, "2 configurations, seeds 1, 2: 4 runs")

    def lines(self) -> list[str]:
        return self._out.getvalue().splitlines()


@pytest.fixture
def shown() -> Shown:
    return Shown(terminal=False)


def test_a_line_comes_every_30_seconds_though_nothing_is_heard_of_any_run(shown: Shown) -> None:
    for second in range(91):
        shown.clock.now = float(second)
        shown.live.tick()
    assert shown.lines() == ["2 configurations, seeds 1, 2: 4 runs", *["0/4 runs of this step, no score yet"] * 3]


def test_a_line_says_how_far_it_is_the_best_so_far_and_what_is_left(shown: Shown) -> None:
    first, second = TRIALS
    shown.live.epoch(first, 1, 3, 0.41)
    shown.live.epoch(second, 1, 3, 0.43)
    shown.live.ended(second, 1)
    shown.clock.now = 120.0
    shown.live.tick()
    assert shown.lines()[-1] == (
        f"1/4 runs of this step, best so far 43.0 ({second.id}, 1 seed), about 6 min left of this step"
    )


def test_what_takes_a_while_before_the_first_run_says_so(shown: Shown) -> None:
    shown.live.doing("layers are computed")
    shown.clock.now = 90.0
    shown.live.tick()
    assert shown.lines()[-2:] == ["layers are computed", "layers are computed: 1.5 min so far"]


def test_the_lines_come_by_themselves(shown: Shown) -> None:
    shown.clock.now = 31.0
    with shown.live:
        wait_until(lambda: len(shown.lines()) > 1, 60, "a line")


def test_the_table_has_trial_seeds_epoch_mean_and_deviation_and_the_time_left() -> None:
    shown = Shown(terminal=True)
    first, second = TRIALS
    for seed, score in ((0, 0.40), (1, 0.42)):
        shown.live.epoch(first, seed, 8, score)
        shown.live.ended(first, seed)
    shown.live.epoch(second, 0, 5, 0.3)
    shown.clock.now = 240.0
    before = len(shown.lines())
    shown.console.print(shown.live.table())
    title, head, running, ended = shown.lines()[before:]
    assert title.startswith("2/4 runs of this step, best so far 41.0")
    assert "about 4 min left" in title
    assert head.split() == ["trial", "settings", "seeds", "epoch", "dev", "F1"]
    assert running.split() == [second.id, "lr", "0.002,", "k", "2", "1", "5/8", "30.0"]
    assert ended.split() == [first.id, "lr", "0.001,", "k", "2", "2", "41.0", "±", "1.4"]


def test_a_table_of_many_trials_says_how_many_it_leaves_out() -> None:
    shown = Shown(terminal=True, trials=[Trial(settings={"lr": rate / 1000}, origin="random") for rate in range(40)])
    shown.console.print(shown.live.table())
    assert "and 16 more" in shown.lines()[-1]

"""What a person sees of a stage that works."""

from __future__ import annotations

import io

from rich.console import Console

from pipelines.outcomes import Outcome, Receipt
from pipelines.progress import StageProgress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def done(name: str, cost: float = 0.01) -> Outcome:
    return Outcome(id=name, stage="rank", status="done", receipts=(Receipt(fingerprint="f", model="m", cost_usd=cost),))


def bad(name: str) -> Outcome:
    return Outcome(
        id=name, stage="rank", status="quarantined", reason="refusal", receipts=(Receipt(fingerprint="f", model="m"),)
    )


def lines(seconds_per_row: float, rows: int) -> list[str]:
    clock, out = Clock(), io.StringIO()
    with StageProgress("rank", 100, Console(file=out, width=200), clock) as progress:
        for i in range(rows):
            clock.now += seconds_per_row
            progress.add(bad(f"u{i}") if i == 3 else done(f"u{i}"))
    return out.getvalue().splitlines()


def test_without_a_terminal_a_line_comes_every_half_minute() -> None:
    assert len(lines(1.0, 100)) == 3


def test_a_line_says_how_far_how_fast_what_it_cost_and_how_long_still() -> None:
    assert lines(1.0, 100)[0] == "rank  30/100  1.0/s  1 set aside  $0.29  70 s left"


def test_time_left_is_not_guessed_from_a_handful_of_rows() -> None:
    assert lines(20.0, 4) == ["rank  2/100  0.1/s  $0.02", "rank  4/100  0.1/s  1 set aside  $0.03"]

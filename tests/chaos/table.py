"""What came of a plan: the table, and what is wrong in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from tests.chaos.plan import Program
from tests.chaos.programs import differences
from tests.chaos.rounds import Outcome

COLUMNS = ("disturbance", "program", "rounds", "struck", "starts", "identical", "paid", "twice", "in flight", "time")


def faults(outcome: Outcome, undisturbed: Outcome) -> list[str]:
    """What is wrong with a round; nothing where it came to what an undisturbed one comes to."""
    if not outcome.ended:
        return [f"it did not end, although it was given {outcome.starts} times"]
    found = [f"{name} differs" for name in differences(outcome.left, undisturbed.left)]
    found += [f"in MLflow {name} differs" for name in differences(outcome.recorded, undisturbed.recorded)]
    if outcome.paid_twice > outcome.in_flight:
        found.append(f"{outcome.paid_twice} calls were paid twice, and {outcome.in_flight} were in flight")
    return found


def show(outcomes: Sequence[Outcome], undisturbed: Mapping[Program, Outcome], console: Console) -> list[str]:
    """Print the table; returns what is wrong, a line for each round that is."""
    console.print(_table(outcomes, undisturbed))
    wrong = []
    for number, outcome in enumerate(outcomes, 1):
        if found := faults(outcome, undisturbed[outcome.round.program]):
            wrong.append(f"round {number}, {outcome.round.program}, {outcome.round.label}: {'; '.join(found)}")
    return wrong


def _table(outcomes: Sequence[Outcome], undisturbed: Mapping[Program, Outcome]) -> Table:
    shown = Table(box=None, pad_edge=False)
    for place, name in enumerate(COLUMNS):
        shown.add_column(name, justify="left" if place < 2 else "right")
    for program, outcome in undisturbed.items():
        shown.add_row("none", program, *_cells([outcome], outcome))
    for label, program in dict.fromkeys((o.round.label, o.round.program) for o in outcomes):
        same = [o for o in outcomes if (o.round.label, o.round.program) == (label, program)]
        shown.add_row(label, program, *_cells(same, undisturbed[program]))
    return shown


def _cells(outcomes: Sequence[Outcome], undisturbed: Outcome) -> list[str]:
    good = sum(not faults(outcome, undisturbed) for outcome in outcomes)
    paid = undisturbed.paid > 0
    ratio = sum(o.seconds for o in outcomes) / len(outcomes) / undisturbed.seconds
    return [
        str(len(outcomes)),
        str(sum(len(o.struck) for o in outcomes)),
        str(sum(o.starts for o in outcomes)),
        f"{good}/{len(outcomes)}",
        str(sum(o.paid for o in outcomes)) if paid else "",
        str(sum(o.paid_twice for o in outcomes)) if paid else "",
        str(sum(o.in_flight for o in outcomes)) if paid else "",
        f"{outcomes[0].seconds:.1f} s" if outcomes[0] is undisturbed else f"x {ratio:.2f}",
    ]

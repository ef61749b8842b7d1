"""`make chaos` in a short form: extraction and training, struck several times, come to what they always come to."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from tests.chaos.__main__ import run_plan
from tests.chaos.plan import KINDS, ONLY, PROGRAMS, Program, make_plan, mixed
from tests.chaos.points import POINTS, held, point
from tests.chaos.rounds import Outcome
from tests.chaos.servers import paid_twice
from tests.chaos.table import faults, show

SEED = 7


def test_a_seed_makes_the_same_plan_and_another_seed_another() -> None:
    assert make_plan(3, 10) == make_plan(3, 10)
    assert make_plan(3, 10) != make_plan(4, 10)
    assert len(make_plan(3, 0)) == 1


def test_every_kind_meets_every_program_that_can_meet_it_where_the_minutes_allow() -> None:
    met = {(r.label, r.program) for r in make_plan(0, 60)}
    assert met == {(kind, name) for kind in KINDS for name in ONLY.get(kind, PROGRAMS)}


def test_every_named_point_is_picked() -> None:
    for program in PROGRAMS:
        assert {point(program, pick)[0] for pick in range(40)} == set(POINTS[program])


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_named_point_is_a_function_of_the_project(program: Program) -> None:
    for module, path, _ in POINTS[program].values():
        holder, name = held(module, path)
        assert callable(getattr(holder, name))


def test_what_differs_and_what_was_paid_twice_without_being_in_flight_is_told() -> None:
    [planned] = make_plan(0, 0, programs=("extraction",), kinds=("actor",))
    whole = Outcome(round=planned, ended=True, seconds=1.0, left={"rankings": ["a", "b"]}, paid=2)
    same = Outcome(round=planned, ended=True, seconds=2.0, left={"rankings": ["a", "b"]}, paid=3, paid_twice=1)
    assert faults(same, whole) == ["1 calls were paid twice, and 0 were in flight"]
    same.in_flight = 1
    assert faults(same, whole) == []
    less = Outcome(round=planned, ended=True, seconds=2.0, left={"rankings": ["a"]})
    assert show([same, less], {"extraction": whole}, Console(quiet=True)) == [
        "round 2, extraction, actor: rankings differs"
    ]
    assert "did not end" in faults(Outcome(round=planned), whole)[0]


def test_an_answer_charged_for_three_times_was_paid_twice_too_often() -> None:
    assert paid_twice(["a", "b", "a", "a"]) == 2


@pytest.mark.slow
@pytest.mark.timeout(1500)  # of two rounds, each of which tells where it hangs
def test_struck_extraction_and_training_end_as_undisturbed_and_pay_twice_for_what_was_in_flight_alone(
    tmp_path: Path,
) -> None:
    said: list[str] = []
    rounds = [mixed(SEED, "extraction", "network", "actor", "driver"), mixed(SEED, "training", "raylet")]
    outcomes, undisturbed = run_plan(rounds, tmp_path, said.append)
    assert [faults(o, undisturbed[o.round.program]) for o in outcomes] == [[], []], "\n".join(said)
    assert [len(o.struck) for o in outcomes] == [3, 1], "\n".join(said)

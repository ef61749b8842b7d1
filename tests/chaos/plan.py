"""What is done to whom, and when: drawn from a seed alone, so that the same seed plans the same on every machine.

Moments are shares of a command's own progress (answers kept, epochs kept, seeds ended), never seconds since its start:
the same plan meets a command at the same work on a fast machine and on a slow one.
"""

from __future__ import annotations

import dataclasses
from random import Random
from typing import Literal, get_args

Program = Literal["extraction", "training", "search"]
Kind = Literal["actor", "raylet", "spot", "driver", "point", "head", "mlflow", "llm", "network"]
PROGRAMS: tuple[Program, ...] = get_args(Program)
KINDS: dict[Kind, str] = {
    "actor": "an actor of Ray's is killed, whichever it is",
    "raylet": "a node's raylet is killed, and its machine with it; another node comes",
    "spot": "a node is told that it will be gone (drain), and then is; another node comes",
    "driver": "the driver is killed",
    "point": "the driver dies at a named point of its work",
    "head": "the head node is killed, and the driver on it; another cluster comes",
    "mlflow": "the MLflow server hangs, or is killed and comes back on its port",
    "llm": "the language model's server hangs, or is killed and comes back on its port",
    "network": "the way to that server is cut, or lets nothing through",
}
ONLY: dict[Kind, tuple[Program, ...]] = {"llm": ("extraction",), "network": ("extraction",)}
"""Kinds that not every program can meet."""
ROUND_S: dict[Program, float] = {"extraction": 40.0, "training": 55.0, "search": 75.0}
"""What a disturbed round takes on two quiet cores, about; by it minutes become rounds."""
UNDISTURBED_S = 100.0
"""What comes before: the cluster, the servers, an undisturbed run of each program."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """One thing that is done."""

    kind: Kind
    at: float
    """Share of the command's progress from which on it is done; a named point has its own moment."""
    late_s: float
    """Seconds after that."""
    pick: int
    """Which of those that could be struck: this number modulo how many there are."""
    away_s: float
    """For how long a server is away, or before a node is gone after its notice."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One command, from nothing to its end, and what happens to it."""

    program: Program
    strikes: tuple[Strike, ...]

    @property
    def label(self) -> str:
        """What it is counted under."""
        kinds = {strike.kind for strike in self.strikes}
        return kinds.pop() if len(kinds) == 1 else "mixed"

    def __str__(self) -> str:
        told = (
            f"{s.kind} at {s.at:.0%} + {s.late_s:.1f} s (pick {s.pick}, away {s.away_s:.1f} s)" for s in self.strikes
        )
        return f"{self.program:<11} " + ", ".join(told)


def make_plan(
    seed: int, minutes: float, *, programs: tuple[Program, ...] = PROGRAMS, kinds: tuple[Kind, ...] = tuple(KINDS)
) -> list[Round]:
    """As many rounds as the minutes hold, at least one; every kind meets every program before one meets it again."""
    random = Random(f"{seed} {programs} {kinds}")
    rounds: list[Round] = []
    left = 60.0 * minutes - UNDISTURBED_S
    while True:
        pairs = [(kind, name) for kind in kinds for name in ONLY.get(kind, PROGRAMS) if name in programs]
        if not pairs:
            return []
        random.shuffle(pairs)
        for kind, name in pairs:
            if rounds and left < ROUND_S[name]:
                return rounds
            left -= ROUND_S[name]
            rounds.append(Round(program=name, strikes=_strikes(random, [kind] * random.choice((1, 1, 2)))))


def mixed(seed: int, program: Program, *kinds: Kind) -> Round:
    """One round in which several things happen, in the order given."""
    return Round(program=program, strikes=_strikes(Random(f"{seed} {program} {kinds}"), kinds))


def _strikes(random: Random, kinds: list[Kind] | tuple[Kind, ...]) -> tuple[Strike, ...]:
    moments = sorted(random.uniform(0.05, 0.75) for _ in kinds)
    return tuple(
        Strike(
            kind=kind, at=round(at, 2), late_s=round(random.uniform(0, 1), 1), pick=random.randrange(1000),
            away_s=round(random.uniform(2, 6), 1),
        )
        for kind, at in zip(kinds, moments, strict=True)
    )  # fmt: skip

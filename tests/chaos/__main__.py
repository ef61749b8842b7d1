"""Draw a plan, run it, print the table; exit code 1 where a round is not what it should be."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from lgsrr import cli
from lgsrr.errors import ConfigError
from tests.chaos.plan import KINDS, PROGRAMS, Kind, Program, Round, make_plan
from tests.chaos.programs import prepare
from tests.chaos.rounds import Outcome, Runner
from tests.chaos.table import faults, show
from tests.chaos.world import world


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChaosConfig:
    """What is disturbed, and for how long."""

    seed: int = 0
    """Of the plan: the same seed, minutes and choices give the same plan."""
    minutes: float = 10.0
    """How long it may take on two quiet cores, about; a plan has one round at least."""
    programs: str = ",".join(PROGRAMS)
    """Which of extraction, training, search."""
    kinds: str = ",".join(KINDS)
    """Which of actor, raylet, spot, driver, point, head, mlflow, llm, network."""
    keep: Path | None = None
    """Folder that keeps every round's logs and outputs; without it they go, unless something is wrong."""
    plan: bool = False
    """Print the plan and run nothing."""

    def __post_init__(self) -> None:
        for name, known in (("programs", PROGRAMS), ("kinds", tuple(KINDS))):
            asked = getattr(self, name).split(",")
            if unknown := [word for word in asked if word not in known]:
                raise ConfigError(f"{name} has {unknown[0]!r}; expected some of {','.join(known)}")

    def rounds(self) -> list[Round]:
        """The plan."""
        programs = cast("tuple[Program, ...]", tuple(self.programs.split(",")))
        return make_plan(
            self.seed, self.minutes, programs=programs, kinds=cast("tuple[Kind, ...]", tuple(self.kinds.split(",")))
        )


def run_plan(
    rounds: Sequence[Round], folder: Path, say: Callable[[str], None]
) -> tuple[list[Outcome], dict[Program, Outcome]]:
    """Run every program undisturbed, then the rounds; what came of both."""
    prepare(folder / "shared")
    outcomes: list[Outcome] = []
    with world(folder) as here:
        runner = Runner(here, folder, say)
        undisturbed: dict[Program, Outcome] = {}
        for program in dict.fromkeys(planned.program for planned in rounds):
            undisturbed[program] = runner.undisturbed(program)
            say(f"undisturbed {program}: {undisturbed[program].seconds:.1f} s")
            if not undisturbed[program].ended:
                raise ConfigError(
                    f"{program} does not even end undisturbed; see {folder}/undisturbed-{program}/log.txt"
                )
        for number, planned in enumerate(rounds, 1):
            say(f"{number}/{len(rounds)}  {planned}")
            outcome = runner.disturbed(number, planned)
            wrong = "; ".join(faults(outcome, undisturbed[planned.program]))
            say(f"    {'WRONG: ' + wrong if wrong else 'as undisturbed'}, {outcome.seconds:.1f} s")
            outcomes.append(outcome)
    return outcomes, undisturbed


def main(config: ChaosConfig) -> int:
    """Run a plan."""
    console, rounds = cli.table_console(), config.rounds()
    if not rounds:
        raise ConfigError(f"no program of {config.programs} can meet any of {config.kinds}")
    console.print(f"plan of seed {config.seed}, {config.minutes:g} minutes:")
    for number, planned in enumerate(rounds, 1):
        console.print(f"  {number:>2}  {planned}")
    if config.plan:
        return 0
    folder = config.keep or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    outcomes, undisturbed = run_plan(rounds, folder.resolve(), console.print)
    wrong = show(outcomes, undisturbed, console)
    console.print(f"{len(outcomes)} rounds in {(time.monotonic() - started) / 60:.1f} minutes")
    for line in wrong:
        console.print(f"WRONG: {line}")
    if wrong:
        console.print(f"logs and outputs: {folder}; the same plan again: --seed {config.seed}")
    elif config.keep is None:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    cli.run(
        main,
        ChaosConfig,
        prog="python -m tests.chaos",
        description="Disturb extraction, training and search, and see whether they come to the same.",
        example="python -m tests.chaos --seed 7 --minutes 10",
    )

"""One round: a command is given until it is done, what is planned happens to it, and what it cost is counted.

An answer is in flight while it is charged and not kept: from when the server counts it until the store has it. What was
in flight when something was struck may be lost and paid for once more; nothing else may. It is looked at right before
a strike and after it, until those that were struck are gone, and the most that was seen is allowed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.chaos import points, programs
from tests.chaos.plan import Program, Round, Strike
from tests.chaos.servers import paid_twice
from tests.chaos.strikes import STRIKES
from tests.chaos.world import World
from tests.processes import Process, descendants
from tests.tiny import ROOT

MOST_STARTS = 12
LONGEST_S = 300.0
"""Of a round: several times what the slowest takes; where it hangs, what it was doing is told."""
STACKS_S = 5.0
"""For a command that hangs to write down where."""
SETTLED_S = 1.5
"""After a kill, until those that were killed ask no more."""


@dataclasses.dataclass(kw_only=True)
class Outcome:
    """What came of a round."""

    round: Round
    seconds: float = 0.0
    starts: int = 0
    struck: list[str] = dataclasses.field(default_factory=list)
    paid: int = 0
    paid_twice: int = 0
    in_flight: int = 0
    ended: bool = False
    left: dict[str, Any] = dataclasses.field(default_factory=dict)
    recorded: dict[str, Any] = dataclasses.field(default_factory=dict)


class Runner:
    """Runs rounds in one world, each in a folder of its own."""

    def __init__(self, world: World, folder: Path, say: Callable[[str], None]) -> None:
        self._world, self._folder, self._say = world, folder, say
        self._whole: dict[Program, int] = {}

    def undisturbed(self, program: Program) -> Outcome:
        """The same command, left alone; how far it comes is the measure of progress."""
        outcome, here = self._run(Round(program=program, strikes=()), f"undisturbed-{program}")
        self._whole[program] = here.done()
        return outcome

    def disturbed(self, number: int, planned: Round) -> Outcome:
        """A round of the plan."""
        return self._run(planned, f"round-{number}-{planned.program}")[0]

    def _run(self, planned: Round, name: str) -> tuple[Outcome, programs.Disturbed]:
        here = programs.make(planned.program, self._folder / name, self._world.way.base_url, self._folder / "shared")
        here.folder.mkdir(parents=True)
        outcome, before = Outcome(round=planned), len(self._world.llm.charged())
        command = _Command(self, planned, here, outcome, before)
        started = time.monotonic()
        command.run()
        outcome.seconds = time.monotonic() - started
        charged = self._world.llm.charged(before)
        outcome.paid, outcome.paid_twice = len(charged), paid_twice(charged)
        outcome.left = here.left() if outcome.ended else {}
        outcome.recorded = programs.recorded(here, planned.program, self._world.mlflow.uri) if outcome.ended else {}
        return outcome, here

    def progress(self, program: Program, here: programs.Disturbed) -> float:
        """Share of the work that is done."""
        return here.done() / max(1, self._whole.get(program, 1))


class _Command:
    """One command, given until it is done."""

    def __init__(self, runner: Runner, planned: Round, here: programs.Disturbed, outcome: Outcome, before: int) -> None:
        self._runner, self._world, self._say = runner, runner._world, runner._say
        self._program, self._here, self._outcome, self._before = planned.program, here, outcome, before
        self._points = [s for s in planned.strikes if s.kind == "point"]
        self._strikes = [s for s in planned.strikes if s.kind != "point"]
        self._process: subprocess.Popen[bytes] | None = None
        self._dies: tuple[str, int] | None = None

    def run(self) -> None:
        """Until it has ended well, or never will."""
        deadline = time.monotonic() + LONGEST_S
        try:
            while self._outcome.starts < MOST_STARTS and time.monotonic() < deadline:
                process = self._start()
                while process.poll() is None and time.monotonic() < deadline:
                    if not self._strike_if_due():
                        time.sleep(0.05)
                if process.poll() == 0:
                    self._outcome.ended = True
                    return
                self._died(process)
        finally:
            if self._process is not None and self._process.poll() is None:
                self._end(self._process)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """End a command that hangs; on SIGABRT Python writes down where its threads are."""
        underway = sorted({found.title().partition(" ")[0] for found in self._world.actors()})
        process.send_signal(signal.SIGABRT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STACKS_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._say(f"    hung, with {', '.join(underway)}: {self._last_words(lines=200)}")

    def _start(self) -> subprocess.Popen[bytes]:
        self._outcome.starts += 1
        self._dies = points.point(self._program, self._points.pop(0).pick) if self._points else None
        line = programs.command(self._program, self._here.arguments(), self._dies)
        with (self._here.folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                line, cwd=ROOT, env=self._world.environment(), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        return self._process

    def _died(self, process: subprocess.Popen[bytes]) -> None:
        if process.returncode == -signal.SIGKILL and self._dies is not None:
            self._note(f"{self._dies[0]} (time {self._dies[1]})", self._after(0))
        elif process.returncode != -signal.SIGKILL:
            self._say(f"    the command ended with {process.returncode}: {self._last_words()}")

    def _strike_if_due(self) -> bool:
        if not self._strikes or self._runner.progress(self._program, self._here) < self._strikes[0].at:
            return False
        strike = self._strikes.pop(0)
        time.sleep(strike.late_s)
        assert self._process is not None
        if self._process.poll() is None:
            self._strike(strike, self._process.pid)
        return True

    def _strike(self, strike: Strike, pid: int) -> None:
        [driver] = [p for p in descendants(os.getpid()) if p.pid == pid] or [Process(pid, "")]
        before = self._in_flight()
        what = STRIKES[strike.kind](self._world, driver, strike)
        self._note(what, 0 if strike.kind == "mlflow" else self._after(before))

    def _after(self, most: int) -> int:
        until = time.monotonic() + SETTLED_S
        while time.monotonic() < until:
            most = max(most, self._in_flight())
            time.sleep(0.1)
        return most

    def _in_flight(self) -> int:
        """Answers that were charged for and are not kept."""
        if self._program != "extraction":
            return 0
        return max(0, len(set(self._world.llm.charged(self._before))) - self._here.stored())

    def _note(self, what: str, in_flight: int) -> None:
        self._outcome.struck.append(what)
        self._outcome.in_flight += in_flight
        flying = f", {in_flight} calls in flight" if self._program == "extraction" else ""
        self._say(f"    struck: {what}{flying}")

    def _last_words(self, *, lines: int = 4) -> str:
        told = (self._here.folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return " / ".join(line.strip() for line in told[-lines:])[: 100 * lines]

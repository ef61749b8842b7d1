"""One command after the other, each in a process group of its own, and nothing left of them whatever happens.

Ctrl-C is heard here alone: it is noted, never raised, so that it cannot fall between the start of a process and the
line that remembers it. The command at work is asked to end as a person would ask it, and ends its own affairs; a second
Ctrl-C, or half a minute, and its whole group is killed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import IO

from rich.console import Console

from lgsrr.errors import LgsrrError
from lgsrr.files import atomic_path

from .steps import Step

PATIENCE_S = 30.0
"""Seconds that a command has to end its affairs after Ctrl-C."""
_LOOK_S = 0.05
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FULL_BYTES = 50_000_000
"""Less than this is free on a disk that is as good as full."""


class DemoError(LgsrrError):
    """A step of the demo failed: names it, and how to go on."""


class Interrupts:
    """How often somebody asked the demo to end, while it holds the signals."""

    def __init__(self) -> None:
        self.count = 0

    @classmethod
    @contextlib.contextmanager
    def held(cls) -> Iterator[Interrupts]:
        """For the block, Ctrl-C (and the end of the terminal, and `kill`) is counted and ends nothing by itself."""
        interrupts, before = cls(), {number: signal.getsignal(number) for number in _SIGNALS}
        interrupts.take()
        try:
            yield interrupts
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def take(self) -> None:
        """Set the handlers; again after a library has set its own."""
        for number in _SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1

    def check(self) -> None:
        """Raises KeyboardInterrupt where somebody asked: between two things, not within one."""
        if self.count:
            raise KeyboardInterrupt


class Runner:
    """Runs steps."""

    def __init__(
        self, console: Console, interrupts: Interrupts, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console, self._interrupts, self._clock = console, interrupts, clock

    def run(self, step: Step, environment: Mapping[str, str], again: str) -> float:
        """Run a step to its end; seconds.

        Raises DemoError where it fails (`again` is the command that goes on), KeyboardInterrupt where it was to end.
        """
        started = self._clock()
        with _output(step.answers) as output:
            code = self._wait(step.command, environment, output)
            self._interrupts.check()
            if code:
                raise DemoError(_failure(step, code, again))
        return self._clock() - started

    def _wait(self, command: list[str], environment: Mapping[str, str], output: IO[bytes] | None) -> int:
        self._interrupts.check()
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=output, start_new_session=True
        )
        try:
            asked_at: float | None = None
            while not _has_ended(process.pid):
                time.sleep(_LOOK_S)
                if self._interrupts.count and asked_at is None:
                    self._console.print("\nending …", highlight=False)
                    process.send_signal(signal.SIGINT)
                    asked_at = self._clock()
                elif asked_at is not None and (self._interrupts.count > 1 or self._clock() - asked_at > PATIENCE_S):
                    break
        finally:  # whatever the command has left behind belongs to its group, whose number is its own until `wait`
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
        return code


def _has_ended(pid: int) -> bool:
    """Whether a child has ended; it stays to be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


@contextlib.contextmanager
def _output(path: Path | None) -> Iterator[IO[bytes] | None]:
    """A file that is there whole or not at all, or None for the screen."""
    if path is None:
        yield None
        return
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        yield file


def _failure(step: Step, code: int, again: str) -> str:
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    told = f"the step {step.name!r} {how}; what it said of it stands above"
    if code == -signal.SIGKILL:
        told += " (by nobody here: perhaps the memory of the machine was used up)"
    free = free_bytes(Path.cwd() if step.answers is None else step.answers)
    if free < FULL_BYTES:
        told += f". The disk is full: {free / 1e6:.0f} MB are free; make room"
    return f"{told}. What was done is kept. After a change, the same command goes on:\n  {again}"


def free_bytes(path: Path) -> int:
    """Free space where `path` is, or is going to be."""
    there = path.absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free

"""Processes of a test's own, found through /proc, so that it kills those and no others.

A process is its number and the time of its start: numbers are given out again within minutes where Ray, whose threads
take numbers too, starts and ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

_STATE, _PARENT, _STARTED = 0, 1, 19
"""Fields of /proc/<pid>/stat behind the name of the program."""


@dataclasses.dataclass(frozen=True, slots=True)
class Process:
    """One process, whatever becomes of its number."""

    pid: int
    started: str
    """In clock ticks since the machine's start."""

    def is_alive(self) -> bool:
        """Whether it runs; one that is dead and not yet waited for does not."""
        fields = _stat(self.pid)
        return fields is not None and fields[_STARTED] == self.started and fields[_STATE] != "Z"

    def title(self) -> str:
        """Its command line; Ray's actors carry their name there."""
        with contextlib.suppress(OSError):
            return Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return ""

    def kill(self) -> None:
        """Kill it where it still runs."""
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(self.pid)  # from here on its number stays its own
            try:
                if self.is_alive():
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            finally:
                os.close(handle)


def _stat(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def descendants(pid: int) -> set[Process]:
    """Every process below `pid`."""
    known = {int(folder.name): _stat(int(folder.name)) for folder in Path("/proc").iterdir() if folder.name.isdigit()}
    found = {pid}
    while more := {child for child, fields in known.items() if fields and int(fields[_PARENT]) in found} - found:
        found |= more
    return {Process(child, fields[_STARTED]) for child in found - {pid} if (fields := known[child]) is not None}


def training_workers(pid: int) -> list[Process]:
    """The Ray Train workers of the cluster that process `pid` has started."""
    return [process for process in descendants(pid) if process.title().startswith("ray::RayTrainWorker")]


def trial_processes(pid: int) -> list[Process]:
    """The processes in which Ray Tune runs trials on the cluster that process `pid` has started.

    Tune calls its actors so, whatever the name of the function that they run.
    """
    return [process for process in descendants(pid) if process.title().startswith("ray::ImplicitFunc")]


def kill(processes: Iterable[Process]) -> None:
    """Kill what is left of some processes."""
    for process in processes:
        process.kill()


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait for a condition; TimeoutError says what was waited for."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:g} s for {what}")
        time.sleep(0.02)

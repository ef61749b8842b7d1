"""What a sender that follows a whole spool remembers between two rounds over it.

A search has hundreds of runs, most of them idle or delivered. A round asks the disk for each file's size and time
alone; a journal is opened where these changed since all of it had been delivered, and then read from there on. A server
that is away is left alone for a growing time, while the runs of others go on being sent. The trade-off: a parent whose
journal comes to the spool after its children's is delivered after them; the sink has to join them then.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path

from lgsrr.spool import Journal, RunStarted, journals

Stamp = tuple[int, int, int]
"""A file's number, size in bytes and time of the last write (ns)."""


@dataclasses.dataclass(slots=True)
class _Known:
    """What is remembered of one journal."""

    head: RunStarted | None
    """Its first start: where the run belongs, and its parent."""
    start: RunStarted | None = None
    """The last start that was delivered; the events behind it are its."""
    delivered: Stamp | None = None
    """The file as it was when all of it had been delivered."""


class Watch:
    """The journals of a spool that may have something to send. For one thread."""

    def __init__(self, folder: Path, skip: Collection[str], head: Callable[[Journal], RunStarted | None]) -> None:
        """`head` reads a journal's first start; the journals of `skip` are left alone."""
        self._folder, self._skip, self._head = folder, frozenset(skip), head
        self._known: dict[str, _Known] = {}

    def changed(self) -> list[Journal]:
        """The journals that were written to since they were delivered, parents before their children."""
        found = [journal for journal in journals(self._folder) if journal.run_key not in self._skip]
        keys = {journal.run_key for journal in found}
        self._known = {key: known for key, known in self._known.items() if key in keys}
        for journal in found:
            known = self._known.get(journal.run_key)
            if known is None or known.head is None:
                self._known[journal.run_key] = _Known(head=self._head(journal))
        changed = [journal for journal in found if stamp(journal) != self._known[journal.run_key].delivered]
        return sorted(changed, key=lambda journal: self._depth(journal.run_key))

    def destination(self, journal: Journal) -> str:
        """Where a journal's run belongs; empty where no start is in it."""
        head = self._known[journal.run_key].head
        return "" if head is None else head.destination

    def start(self, journal: Journal) -> RunStarted | None:
        """The last start that this process has delivered of a journal; None where it must be read."""
        return self._known[journal.run_key].start

    def delivered(self, journal: Journal, before: Stamp | None, start: RunStarted | None) -> None:
        """Everything that stood in a journal when it had the stamp `before` is out."""
        known = self._known[journal.run_key]
        known.start, known.delivered = start, before

    def _depth(self, run_key: str) -> int:
        """How many of a run's ancestors are in the spool."""
        seen = {run_key}
        while (known := self._known.get(run_key)) and known.head and known.head.parent_run_key:
            run_key = known.head.parent_run_key
            if run_key in seen or run_key not in self._known:
                break
            seen.add(run_key)
        return len(seen) - 1


def stamp(journal: Journal) -> Stamp | None:
    """What tells a journal's file from the same file written to; None where it is gone."""
    with contextlib.suppress(FileNotFoundError):
        found = journal.path.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns
    return None


@dataclasses.dataclass(slots=True)
class _Trouble:
    reason: str
    failures: int
    due: float
    """When it is asked again, by the clock."""


class AwayServers:
    """Which destinations do not answer, and when each is worth another try."""

    def __init__(self, pause_s: Callable[[int], float], clock: Callable[[], float]) -> None:
        """`pause_s` is the pause in seconds after so many failures in a row; `clock` counts seconds."""
        self._pause_s, self._clock = pause_s, clock
        self._troubles: dict[str, _Trouble] = {}

    def resting(self, destination: str) -> bool:
        """Whether it is too early to ask again."""
        trouble = self._troubles.get(destination)
        return trouble is not None and trouble.due > self._clock()

    def failed(self, destination: str, reason: str) -> None:
        """It did not answer: leave it alone, longer each time."""
        before = self._troubles.get(destination)
        failures = 1 if before is None else before.failures + 1
        due = self._clock() + self._pause_s(failures)
        self._troubles[destination] = _Trouble(reason=reason, failures=failures, due=due)

    def answered(self, destination: str) -> None:
        """It is there again."""
        self._troubles.pop(destination, None)

    def hurry(self, destinations: Collection[str]) -> None:
        """These are worth a try at once: somebody waits."""
        for destination in self._troubles.keys() & destinations:
            self._troubles[destination].due = self._clock()

    def next_try_s(self) -> float | None:
        """Seconds until one of them may be asked again; None where none rests."""
        now = self._clock()
        return min((trouble.due - now for trouble in self._troubles.values() if trouble.due > now), default=None)

    def keep(self, destinations: Collection[str]) -> None:
        """Forget those for which there is nothing to send any more."""
        self._troubles = {name: trouble for name, trouble in self._troubles.items() if name in destinations}

    def reasons(self) -> str | None:
        """Why they did not answer; None where none is away."""
        return "; ".join(f"{name}: {trouble.reason}" for name, trouble in self._troubles.items()) or None

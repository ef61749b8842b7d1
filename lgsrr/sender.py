"""Takes a spool's journals to where they belong, in the background, whatever the server does.

Delivery is at least once: the offset is stored after an event has been delivered, so a kill in between delivers it
again. The `Sink` makes that exactly once, because only it can see what is already there. A sink that is away is asked
again after a growing pause, up to a cap; an event that a sink will never take is set aside beside its journal, so that
those behind it get through. The trade-off: within a run the order is kept, so one slow upload holds up that run's later
events (never the program that appends them).
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from lgsrr.spool import Event, Journal, Line, RunFinished, RunStarted, decode, journals

_log = logging.getLogger(__name__)

Wait = Callable[[threading.Event, float | None], bool]
"""Waits for an event, at most so many seconds (None: for ever), and says whether it came."""


class SinkAwayError(Exception):
    """The server cannot be reached or cannot answer now: the same event is worth another try later."""


class SinkRefusedError(Exception):
    """The server will never take this event: it is set aside with this message."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunRef:
    """A run as the server knows it."""

    run_id: str
    experiment_id: str


class Sink(Protocol):
    """Where events go."""

    def deliver(self, run: RunStarted, event: Event) -> None:
        """Record `event` of `run`; to do so a second time changes nothing. Raises SinkAwayError or SinkRefusedError."""

    def find(self, run_key: str) -> RunRef | None:
        """The run that this sink has delivered something of; None where it has not. Asks nobody."""


class MemorySink:
    """Keeps events in a list: the stand-in for a server. It can be told to be away or to refuse."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Event]] = []
        self.away = False
        self.refuses: Callable[[Event], bool] = lambda _: False
        self.tries = 0

    def deliver(self, run: RunStarted, event: Event) -> None:
        self.tries += 1
        if self.away:
            raise SinkAwayError(f"{run.destination} was told to be away")
        if self.refuses(event):
            raise SinkRefusedError("was told to refuse this event")
        self.events.append((run.run_key, event))

    def find(self, run_key: str) -> RunRef | None:
        known = any(key == run_key for key, _ in self.events)
        return RunRef(run_id=f"id-{run_key}", experiment_id="0") if known else None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """The pause between two tries while a sink is away: doubled each time up to a cap."""

    first_s: float = 0.5
    cap_s: float = 30.0

    def pause_s(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row (1 or more)."""
        return float(min(self.cap_s, self.first_s * 2 ** min(failures - 1, 30)))


def deliver(journal: Journal, sink: Sink, *, go_on: Callable[[], bool], delivered: Callable[[bool], None]) -> None:
    """Send what `journal` still holds while `go_on()`, and delete it behind a finished run. Call it while `sending`.

    `delivered` is called after each event, with False for one that was set aside. Raises SinkAwayError; the offset then
    stands before the event that failed.
    """
    sent = journal.sent()
    started: RunStarted | None = None
    last: Event | None = None
    for line in journal.lines():
        last = _parse(line)
        if isinstance(last, RunStarted):
            started = last
        if line.end <= sent:
            continue
        if not go_on():
            return
        taken = _deliver_line(journal, sink, line, started, last)
        journal.mark_sent(line.end)
        delivered(taken)
    if isinstance(last, RunFinished):
        journal.remove_delivered()


def _parse(line: Line) -> Event | None:
    try:
        return decode(line.raw)
    except (ValueError, KeyError, TypeError):
        return None


def _deliver_line(journal: Journal, sink: Sink, line: Line, started: RunStarted | None, event: Event | None) -> bool:
    """Deliver one event, or set it aside and return False."""
    try:
        if event is None:
            raise SinkRefusedError("the line is no event of this version")
        if started is None:
            raise SinkRefusedError("no start of the run stands before this event")
        sink.deliver(started, event)
    except SinkAwayError:
        raise
    except Exception as error:  # a defect of ours must not hold up the run's other events either
        reason = str(error) if isinstance(error, SinkRefusedError) else f"{type(error).__name__}: {error}"
        journal.refuse(line, reason)
        what = (journal.run_key, type(event).__name__, journal.refused_path, reason)
        _log.warning("run %s: %s was not taken and is kept in %s: %s", *what)
        return False
    return True


class Sender:
    """A background thread that sends one run's journal as it grows, or once all the journals that were left behind."""

    def __init__(
        self,
        folder: Path,
        sink: Sink,
        *,
        run_key: str | None = None,
        skip: Sequence[str] = (),
        backoff: Backoff | None = None,
        wait: Wait = threading.Event.wait,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`run_key` names the one journal to send until `stop`; None sends all but `skip` and ends when they are out.

        `wait` and `clock` are replaced in tests, so that these neither sleep nor guess.
        """
        self._folder = folder
        self._sink = sink
        self._run_key = run_key
        self._skip = frozenset(skip)
        self._backoff = backoff or Backoff()
        self._wait = wait
        self._clock = clock
        self._news = threading.Event()
        self._hurry = threading.Event()
        self._stopped = threading.Event()
        self._progress = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"sender-{run_key or 'spool'}", daemon=True)
        self.delivered: collections.Counter[str] = collections.Counter()
        """How many events the sink has taken from this sender, by run key."""
        self.trouble: str | None = None
        """Why the last try failed; None where it did not."""
        self._failures = 0

    def start(self) -> None:
        """Begin. The thread is a daemon: it never keeps a process alive."""
        self._thread.start()

    def notify(self) -> None:
        """Say that something was appended. Returns at once."""
        self._news.set()

    def flush(self, timeout_s: float) -> int:
        """Wait until everything is out, at most `timeout_s` seconds; how many events are still pending."""
        deadline = self._clock() + timeout_s
        self._hurry.set()
        self._news.set()
        with self._progress:
            while (left := self.pending()) and self._thread.is_alive() and self._clock() < deadline:
                self._progress.wait(max(0.0, min(0.2, deadline - self._clock())))
        return left

    def stop(self, timeout_s: float = 1.0) -> None:
        """End the thread after the event that it is at. One that hangs in a call longer than that is left behind."""
        self._stopped.set()
        self._hurry.set()
        self._news.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def pending(self) -> int:
        """How many events of this sender's journals have not been delivered."""
        return sum(journal.pending() for journal in self._journals())

    def _journals(self) -> list[Journal]:
        if self._run_key is not None:
            return [Journal(self._folder, self._run_key)]
        return [journal for journal in journals(self._folder) if journal.run_key not in self._skip]

    def _run(self) -> None:
        try:
            if self._run_key is None:
                self._sweep()
            else:
                self._follow(Journal(self._folder, self._run_key))
        finally:
            self._report()

    def _follow(self, journal: Journal) -> None:
        """Hold the right to send one journal until `stop`, and send what is appended to it."""
        while not self._stopped.is_set():
            with journal.sending() as ours:
                if not ours:
                    self._pause("another process is sending this journal")
                while ours and not self._stopped.is_set():
                    self._news.clear()
                    trouble = self._send(journal)
                    if trouble is not None:
                        self._pause(trouble)
                    else:
                        self._wait(self._news, None)

    def _sweep(self) -> None:
        """Send all journals that nobody else is sending, until each is out."""
        while not self._stopped.is_set() and (trouble := self._round()) is not None:
            self._pause(trouble)

    def _round(self) -> str | None:
        """Send what every journal holds; why one could not be sent. A server that is away is asked once a round."""
        trouble: dict[str, str] = {}
        for journal in self._journals():
            destination = destination_of(journal)
            if destination in trouble or self._stopped.is_set():
                continue
            with journal.sending() as ours:
                reason = self._send(journal) if ours else None
            if reason is not None:
                trouble[destination] = f"{destination}: {reason}"
        return "; ".join(trouble.values()) or None

    def _send(self, journal: Journal) -> str | None:
        """Send one journal; why it could not be sent to its end."""

        def delivered(taken: bool) -> None:
            self.delivered[journal.run_key] += taken
            self.trouble, self._failures = None, 0
            self._report()

        try:
            deliver(journal, self._sink, go_on=lambda: not self._stopped.is_set(), delivered=delivered)
        except (SinkAwayError, OSError) as error:
            return str(error)
        self._report()
        return None

    def _pause(self, trouble: str) -> None:
        """Wait before the next try, longer each time; `flush` and `stop` cut it short."""
        self.trouble = trouble
        self._failures += 1
        self._wait(self._hurry, self._backoff.pause_s(self._failures))
        self._hurry.clear()

    def _report(self) -> None:
        with self._progress:
            self._progress.notify_all()


def destination_of(journal: Journal) -> str:
    """Where a journal's run belongs, as its first start says; empty where none is in it."""
    for line in journal.lines():
        event = _parse(line)
        if isinstance(event, RunStarted):
            return event.destination
    return ""

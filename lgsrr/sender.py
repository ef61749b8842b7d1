"""Takes a spool's journals to where they belong, in the background, whatever the server does.

Delivery is at least once: the offset is stored after an event has been delivered, so a kill in between delivers it
again. The `Sink` makes that exactly once, because only it can see what is already there. A sink that is away is asked
again after a growing pause, up to a cap; an event that a sink will never take is set aside beside its journal, so that
those behind it get through. The trade-off: within a run the order is kept, so one slow upload holds up that run's later
events, and those of all other runs where one sender follows the whole spool (never the program that appends them).
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
from lgsrr.watch import AwayServers, Watch, stamp

_log = logging.getLogger(__name__)

_LOOK_AGAIN_S = 1.0
"""Between two looks at a journal that another process is sending: it may stop before the end."""

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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """The pause between two tries while a sink is away: doubled each time up to a cap."""

    first_s: float = 0.5
    cap_s: float = 30.0

    def pause_s(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row (1 or more)."""
        return float(min(self.cap_s, self.first_s * 2 ** min(failures - 1, 30)))


def deliver(
    journal: Journal,
    sink: Sink,
    *,
    go_on: Callable[[], bool],
    delivered: Callable[[bool], None],
    started: RunStarted | None = None,
) -> RunStarted | None:
    """Send what `journal` still holds while `go_on()`, and delete it behind a finished run. Call it while `sending`.

    `delivered` is called after each event, with False for one that was set aside. Raises SinkAwayError; the offset then
    stands before the event that failed. Returns the run's last start; given back as `started`, it spares reading what
    has been sent.
    """
    sent = journal.sent()
    last: Event | None = None
    for line in journal.lines(sent if started else 0):
        last = _parse(line)
        if isinstance(last, RunStarted):
            started = last
        if line.end <= sent:
            continue
        if not go_on():
            return started
        taken = _deliver_line(journal, sink, line, started, last)
        journal.mark_sent(line.end)
        delivered(taken)
    if isinstance(last, RunFinished):
        journal.remove_delivered()
    return started


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
    """A background thread that sends a run's journal as it grows, or a whole spool, once or as it grows."""

    def __init__(
        self,
        folder: Path,
        sink: Sink,
        *,
        run_key: str | None = None,
        skip: Sequence[str] = (),
        follow: bool = False,
        backoff: Backoff | None = None,
        wait: Wait = threading.Event.wait,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`run_key` names the one journal to send until `stop`; None sends all but `skip` and ends when they are out.

        With `follow` all but `skip` are sent until `stop`, also those that are begun meanwhile: one thread for the many
        runs of a driver. It looks when it is notified; `flush` and `pending` are then about the runs that it was
        notified of, since others' may belong to a server that is gone.

        `wait` and `clock` are replaced in tests, so that these neither sleep nor guess.
        """
        self._folder = folder
        self.sink = sink
        self._run_key = run_key
        self._skip = frozenset(skip)
        self._follows = follow
        self._told: set[str] = set()
        self._wanted: set[str] = set()
        self._backoff = backoff or Backoff()
        self._watch = Watch(folder, skip, _head)
        self._away = AwayServers(self._backoff.pause_s, clock)
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

    def notify(self, run_key: str | None = None) -> None:
        """Say that something was appended, and to which run's journal. Returns at once."""
        if run_key is not None and self._run_key is None:
            self._told.add(run_key)
        self._news.set()

    def flush(self, timeout_s: float, run_key: str | None = None) -> int:
        """Wait until everything (or one run) is out, at most `timeout_s` seconds; how many events are still pending."""
        deadline = self._clock() + timeout_s
        if timeout_s > 0:  # who does not wait is in no hurry: a server that is away is not asked for it
            self._wanted |= {destination_of(journal) for journal in self._journals(run_key)} if self._follows else set()
            self._hurry.set()
        self._news.set()
        with self._progress:
            while (left := self.pending(run_key)) and self._thread.is_alive() and self._clock() < deadline:
                self._progress.wait(max(0.0, min(0.2, deadline - self._clock())))
        return left

    def stop(self, timeout_s: float = 1.0) -> None:
        """End the thread after the event that it is at. One that hangs in a call longer than that is left behind."""
        self._stopped.set()
        self._hurry.set()
        self._news.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def pending(self, run_key: str | None = None) -> int:
        """How many events of this sender's journals, or of one of them, have not been delivered."""
        return sum(journal.pending() for journal in self._journals(run_key))

    def _journals(self, run_key: str | None = None) -> list[Journal]:
        only = run_key or self._run_key
        if only is not None:
            return [Journal(self._folder, only)]
        if self._follows:
            return [Journal(self._folder, run_key) for run_key in tuple(self._told)]
        return [journal for journal in journals(self._folder) if journal.run_key not in self._skip]

    def _run(self) -> None:
        try:
            if self._run_key is not None:
                self._follow(Journal(self._folder, self._run_key))
            elif self._follows:
                self._follow_all()
            else:
                self._sweep()
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

    def _follow_all(self) -> None:
        """Send what is appended to any journal until `stop`. No server is asked while there is nothing for it."""
        while not self._stopped.is_set():
            self._news.clear()
            if self._hurry.is_set():
                self._hurry.clear()
                self._away.hurry({self._wanted.pop() for _ in range(len(self._wanted))})
            changed = self._watch.changed()
            self._away.keep({self._watch.destination(journal) for journal in changed})
            others = [self._attend(journal) for journal in changed].count(False)
            self.trouble = self._away.reasons()
            self._report()
            pauses = [self._away.next_try_s(), _LOOK_AGAIN_S if others else None]
            self._wait(self._news, min((pause for pause in pauses if pause is not None), default=None))

    def _attend(self, journal: Journal) -> bool:
        """Send what one journal holds, unless its server is away; False where another process is sending it."""
        destination = self._watch.destination(journal)
        if self._stopped.is_set() or self._away.resting(destination):
            return True
        before = stamp(journal)
        with journal.sending() as ours:
            if not ours:
                return False
            try:
                start = self._deliver(journal, self._watch.start(journal))
            except (SinkAwayError, OSError) as error:
                self._away.failed(destination, str(error))
                return True
        self._away.answered(destination)
        if not self._stopped.is_set():
            self._watch.delivered(journal, before, start)
            self._forget(journal)
        return True

    def _forget(self, journal: Journal) -> None:
        """Nobody waits any more for a journal that was delivered and deleted."""
        self._told.discard(journal.run_key)
        if journal.path.exists():  # asked afterwards: what is appended in this moment is either seen here or notified
            self._told.add(journal.run_key)

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
        try:
            self._deliver(journal)
        except (SinkAwayError, OSError) as error:
            return str(error)
        self._report()
        return None

    def _deliver(self, journal: Journal, started: RunStarted | None = None) -> RunStarted | None:
        def delivered(taken: bool) -> None:
            self.delivered[journal.run_key] += taken
            if not self._follows:  # there a round says it: one server's answer is no news of another's
                self.trouble, self._failures = None, 0
            self._report()

        going = self._stopped.is_set
        return deliver(journal, self.sink, go_on=lambda: not going(), delivered=delivered, started=started)

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
    head = _head(journal)
    return "" if head is None else head.destination


def _head(journal: Journal) -> RunStarted | None:
    """A journal's first start."""
    for line in journal.lines():
        event = _parse(line)
        if isinstance(event, RunStarted):
            return event
    return None

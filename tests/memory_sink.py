"""A stand-in for a tracking server."""

from __future__ import annotations

from collections.abc import Callable

from lgsrr.sender import RunRef, SinkAwayError, SinkRefusedError
from lgsrr.spool import Event, RunStarted


class MemorySink:
    """Keeps events in a list. It can be told to be away or to refuse."""

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

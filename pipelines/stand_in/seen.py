"""What the stand-in saw: how often it was called, for what, and what it answered. Tests and benchmarks read it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from pipelines.calls import Json, fingerprint_of


class Seen:
    """The record of one server; read in the process itself or at `GET /_seen`."""

    def __init__(self, *, keep_bodies: bool = True, journal: Path | None = None) -> None:
        """`journal`: a file that holds a line, the body's fingerprint, for every answer charged; it outlives a kill."""
        self.bodies: list[Json] = []
        """Every chat request as it came, batches' lines among them; none where they are not kept."""
        self.keys: set[str] = set()
        """Authorization headers."""
        self.by_body: Counter[str] = Counter()
        """Arrivals by fingerprint of the body."""
        self.paid_by_body: Counter[str] = Counter()
        """Answers that a real server would charge for, by fingerprint of the body."""
        self.outcomes: Counter[str] = Counter()
        """By HTTP status, or by the name of the fault."""
        self.admitted_at: list[float] = []
        """Seconds on the monotonic clock at which a request passed the limits."""
        self.calls = 0
        """Chat requests that arrived."""
        self.paid = 0
        """Chat requests that a real server would charge for."""
        self.batches = 0
        self.most_at_once = 0
        self._now = 0
        self._keep_bodies = keep_bodies
        self._journal = journal
        self._lock = threading.Lock()

    def arrived(self, body: Json, key: str = "") -> tuple[int, int, str]:
        """Note a request: its number, how often it has come by now, and its fingerprint."""
        name = fingerprint_of({"body": body})
        with self._lock:
            self.calls += 1
            self.by_body[name] += 1
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            if key:
                self.keys.add(key)
            if self._keep_bodies:
                self.bodies.append(body)
            return self.calls, self.by_body[name], name

    def charged(self, name: str) -> None:
        """Note that the request of that fingerprint was answered."""
        with self._lock:
            self.paid += 1
            self.paid_by_body[name] += 1
            if self._journal is not None:
                with self._journal.open("a", encoding="utf-8") as stream:
                    stream.write(f"{name}\n")

    def left(self, outcome: str) -> None:
        """Note how a request ended."""
        with self._lock:
            self._now -= 1
            self.outcomes[outcome] += 1

    def to_json(self, *, bodies: bool = True) -> dict[str, Any]:
        with self._lock:
            return {
                "calls": self.calls,
                "paid": self.paid,
                "by_body": dict(self.by_body),
                "paid_by_body": dict(self.paid_by_body),
                "outcomes": dict(self.outcomes),
                "admitted_at": list(self.admitted_at),
                "batches": self.batches,
                "most_at_once": self.most_at_once,
                "cpu_s": time.process_time(),
                "bodies": list(self.bodies) if bodies else [],
            }

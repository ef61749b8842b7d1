"""What all actors of a job share: whether it is ending, who is at work, and which clips an engine has begun.

A small actor of Ray's that lives as long as the job. A clip that kills its engine takes the clips beside it along, and
Ray gives all of them to the next engine; so that they do not kill one engine after the other for ever, what has been
begun before is done alone, and a clip that was begun three times is given up.
"""

from __future__ import annotations

import contextlib
import math
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import ray

from lgsrr.place import Place

GIVE_UP_AFTER = 3
"""Times that a clip may be begun."""
PATIENCE_S = 300.0
"""For how long a job that is ending waits for what is in work: a batch whose actor died is in work for ever."""


class JobBoard:
    """The actor's client; it may be sent to other actors."""

    def __init__(self, actor: Any, place: Place | None = None) -> None:
        """`place`: the output, where it is a folder of the driver's."""
        self._actor, self._place = actor, place
        self._asked_at = -math.inf
        self._reason: str | None = None
        self._looked_at = -math.inf
        self._ending_since: float | None = None
        self._over = False

    @classmethod
    def start(cls, place: Place | None = None) -> JobBoard:
        """A board for this job."""
        return cls(ray.remote(_Board).options(num_cpus=0, max_restarts=-1).remote(), place)

    def check_output(self) -> None:
        """End the job where this process does not see the output: what it pays for would be kept nowhere."""
        if self._place is not None and (problem := self._place.problem()) is not None:
            self.stop(problem)

    def stop(self, reason: str) -> None:
        """End the job for `reason`; the first reason stands."""
        self._reason = self._reason or reason
        self._ask("stop", reason)

    def stop_reason(self, clock: Callable[[], float] = time.monotonic) -> str | None:
        """Why the job is ending, looked up at most twice a second; None while it is not."""
        if self._reason is None and clock() - self._asked_at >= 0.5:
            self._asked_at = clock()
            self._reason = self._ask("stop_reason")
        return self._reason

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """For the block, a batch is in work; a job that ends waits for it. Nobody waits for the board here."""
        name = uuid.uuid4().hex
        self._tell("enter", name)
        try:
            yield
        finally:
            self._tell("leave", name)

    def over(self, clock: Callable[[], float] = time.monotonic) -> bool:
        """Whether the job is ending and nothing is in work that was begun before, looked up at most twice a second."""
        now = clock()
        if self._over or self.stop_reason(clock) is None or now - self._looked_at < 0.5:
            return self._over
        self._looked_at = now
        if self._ending_since is None:
            self._ending_since = now
        self._over = now - self._ending_since >= PATIENCE_S or bool(self._ask("over"))
        return self._over

    def begun(self, name: str) -> int:
        """How often a clip was begun and not finished."""
        return int(self._ask("begun", name) or 0)

    def begin(self, name: str) -> None:
        """A clip is being described."""
        self._ask("begin", name)

    def finish(self, name: str) -> None:
        """It is described, or refused."""
        self._ask("finish", name)

    def _ask(self, method: str, *arguments: str) -> Any:
        """What the actor says; None where it is being restarted, and has forgotten."""
        with contextlib.suppress(ray.exceptions.RayError):
            return ray.get(getattr(self._actor, method).remote(*arguments), timeout=10)
        return None

    def _tell(self, method: str, *arguments: str) -> None:
        """Let the actor know, and wait for nothing."""
        getattr(self._actor, method).remote(*arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return JobBoard, (self._actor, self._place)


class _Board:
    def __init__(self) -> None:
        self._reason: str | None = None
        self._working: set[str] = set()
        self._begun: Counter[str] = Counter()

    def stop(self, reason: str) -> None:
        self._reason = self._reason or reason

    def stop_reason(self) -> str | None:
        return self._reason

    def enter(self, name: str) -> None:
        if self._reason is None:  # later batches are given back as they are
            self._working.add(name)

    def leave(self, name: str) -> None:
        self._working.discard(name)

    def over(self) -> bool:
        return self._reason is not None and not self._working

    def begun(self, name: str) -> int:
        return self._begun[name]

    def begin(self, name: str) -> None:
        self._begun[name] += 1

    def finish(self, name: str) -> None:
        self._begun.pop(name, None)

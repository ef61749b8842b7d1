"""The budget as the cluster has it: one named Ray actor around a `RateBudget`, which takes messages.

It answers with delays, never with times: processes share no clock. A message may arrive twice: numbers make it
harmless. If the actor dies, Ray starts it again, it takes the last minute and all dollars that may be spent for spent,
and clients (`budget_client`) tell it what they have in flight.
"""

from __future__ import annotations

import dataclasses
import json
import time
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

from lgsrr import storage
from lgsrr.errors import DataError

from .calls import Usage
from .pacing import Pacing
from .rate_budget import Lease, Limits, RateBudget, Snapshot, Wanted
from .server_limits import ServerLimits


@dataclasses.dataclass(slots=True)
class Message:
    """What a client says, all at once."""

    client: str
    wanted: tuple[Wanted, ...] = ()
    settled: list[tuple[int, Usage | None]] = dataclasses.field(default_factory=list)
    released: list[int] = dataclasses.field(default_factory=list)
    in_flight: tuple[int, ...] = ()
    """Told to an actor that does not know it: one that was started again."""
    server: tuple[ServerLimits, float] | None = None
    """The newest headers and their age in seconds."""
    pauses: list[tuple[float | None, str]] = dataclasses.field(default_factory=list)
    stop: str | None = None
    leaves: bool = False


class Reply(NamedTuple):
    lease: Lease
    validity_s: float
    life: str
    """Of the budget: another one after a restart."""


class Desk:
    """A `RateBudget` that takes messages: the whole of the actor, and of the budget without Ray."""

    def __init__(
        self,
        limits: Limits,
        *,
        spent_before: float = 0.0,
        mark_at: str | None = None,
        recovered: bool = False,
        pacing: Pacing | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`mark_at`: the file (path or URI) that says how many dollars may have been spent, for after a crash.

        Raises DataError where it cannot be read.
        """
        self._pacing = pacing or Pacing()
        self._life = uuid.uuid4().hex
        marks = limits.usd is not None and mark_at is not None
        self._budget = RateBudget(
            limits,
            clock=clock,
            pacing=self._pacing,
            spent_before=max(spent_before, _read_mark(mark_at) if marks and mark_at else 0.0),
            recovered=recovered,
            note_spending=(lambda usd: _write_mark(mark_at, usd)) if marks and mark_at else None,
        )

    def exchange(self, message: Message) -> Reply:
        """Take in what a client says and answer what it may do."""
        budget, client = self._budget, message.client
        if message.stop is not None:
            budget.stop(message.stop)
        for seconds, reason in message.pauses:
            budget.pause(seconds, reason)
        budget.hold(client, message.in_flight)
        for number, usage in message.settled:
            budget.settle(client, number, usage)
        for number in message.released:
            budget.release(client, number)
        if message.server is not None:
            budget.follow(*message.server)
        lease = budget.lease(client, message.wanted)
        if message.leaves:
            budget.leave(client)
            budget.rest()
        return Reply(lease, self._pacing.validity_s, self._life)

    def stop(self, reason: str) -> None:
        """Everybody is told to stop with their next message."""
        self._budget.stop(reason)

    def snapshot(self) -> Snapshot:
        return self._budget.snapshot()


def _read_mark(path: str) -> float:
    content = storage.read_if_there(path)
    try:
        return 0.0 if content is None else float(json.loads(content)["may_be_spent_usd"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: does not say how many dollars may have been spent ({type(error).__name__}: {error}); expected "
            '{"may_be_spent_usd": …}. Remove it to count the receipts alone.'
        ) from None


def _write_mark(path: str, usd: float) -> None:
    storage.write_bytes(path, json.dumps({"may_be_spent_usd": usd}).encode())


class BudgetActor:
    """What Ray runs: see `start_budget`."""

    def __init__(self, limits: Limits, spent_before: float, mark_at: str | None, pacing: Pacing | None) -> None:
        import ray

        recovered = bool(ray.get_runtime_context().was_current_actor_reconstructed)
        self._desk = Desk(limits, spent_before=spent_before, mark_at=mark_at, recovered=recovered, pacing=pacing)

    def exchange(self, message: Message) -> Reply:
        return self._desk.exchange(message)

    def stop(self, reason: str) -> None:
        self._desk.stop(reason)

    def snapshot(self) -> Snapshot:
        return self._desk.snapshot()


def start_budget(
    name: str,
    limits: Limits,
    *,
    spent_before: float = 0.0,
    mark_at: str | None = None,
    pacing: Pacing | None = None,
) -> Any:
    """The handle of the actor of that name, which is started where there is none; it lives as long as the job.

    It needs no CPU, restarts as often as it dies, and can be given to actors on any node: `Budget.of_actor(handle)`.
    """
    import ray

    options = {"name": name, "get_if_exists": True, "num_cpus": 0, "max_restarts": -1}
    return ray.remote(BudgetActor).options(**options).remote(limits, spent_before, mark_at, pacing)

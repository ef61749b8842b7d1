"""A worker's access to the budget of the cluster.

A client sends everything it has to say in one message (what it wants, what it settled, a pause, a stop) and never has
two under way, so that waiting requests gather into the next one and the actor is no bottleneck. A client that has
anything outstanding speaks twice a second, by which it hears of a stop and is known to live. Where there is no Ray, the
same client talks to a plain `Desk`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from .budget_actor import Desk, Message, Reply
from .calls import Stopped, Usage
from .rate_budget import Wanted
from .server_limits import ServerLimits

HEARTBEAT_S = 0.5
"""How often a client speaks that has anything outstanding; a stop is heard of as fast."""
GAP_S = 0.005
"""Least time between two messages of a client, in which more requests and settlements gather."""
IDLE_GAP_S = 0.1
"""The same where none of its own requests waits for the news."""
CHUNK = 64
"""Requests that a client speaks of in one message."""
AWAY_S = 60.0
"""For how long a client knocks at an actor that does not answer."""
CLOSING_S = 5.0
"""The same for its last message."""


Exchange = Callable[[Message], Awaitable[Reply]]
"""How a message gets to the desk."""


def _by_ray(handle: Any) -> Exchange:
    """Messages to the actor, sent again while it is being restarted. Raises Stopped when it stays away."""
    from ray.exceptions import RayActorError

    async def exchange(message: Message) -> Reply:
        deadline = time.monotonic() + AWAY_S
        while True:
            try:
                reply: Reply = await handle.exchange.remote(message)
                return reply
            except RayActorError as error:
                if time.monotonic() > deadline:
                    raise Stopped(f"the budget's actor does not answer: {error}") from error
            await asyncio.sleep(0.2)

    return exchange


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """The permission to make one call, now. It must be settled."""

    number: int
    tokens: int
    usd: float


@dataclasses.dataclass(eq=False, slots=True)
class _Waiter:
    wanted: Wanted
    future: asyncio.Future[Reservation]


class Budget:
    """A worker's access to the budget. It belongs to one event loop and its thread; time is that loop's time."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._name = uuid.uuid4().hex
        self._life = ""
        self._number = 0
        self._waiting: deque[_Waiter] = deque()
        self._open: set[int] = set()
        """Granted and not settled: waiting for their moment, or in flight."""
        self._outbox = Message(self._name)
        self._server_at = 0.0
        self._sleepers = 0
        self._paused_until = 0.0
        self._stopped: str | None = None
        self._failed: BaseException | None = None
        self._stop_heard = asyncio.Event()
        self._news = asyncio.Event()
        self._saying = asyncio.Lock()
        self._due = 0.0
        self._talking: asyncio.Task[None] | None = None

    @classmethod
    def of_actor(cls, handle: Any) -> Budget:
        """The client of the actor that `start_budget` gave."""
        return cls(_by_ray(handle))

    @classmethod
    def local(cls, desk: Desk) -> Budget:
        """The client of a budget in this process."""

        async def exchange(message: Message) -> Reply:
            return desk.exchange(message)

        return cls(exchange)

    @property
    def stopped(self) -> str | None:
        """Why the job is being ended, where it is."""
        return self._stopped

    # What a worker does

    async def reserve(self, tokens: int, usd: float = 0.0) -> Reservation:
        """Wait until a call of at most so many tokens and dollars may be made. Raises Stopped."""
        self._check()
        self._number += 1
        wanted = Wanted(self._number, tokens, usd)
        waiter = _Waiter(wanted, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        if len(self._waiting) == 1:  # else those before it are being seen to
            self._talk(within_s=0)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                self._give_back(wanted.number)
            raise

    def settle(self, reservation: Reservation, usage: Usage | None, headers: Mapping[str, str] | None = None) -> None:
        """The call has ended. `usage` is what it took; None where nobody knows: then all that was reserved counts."""
        self._open.discard(reservation.number)
        self._outbox.settled.append((reservation.number, usage))
        if headers is not None:
            self.observe(headers)
        self._talk(within_s=GAP_S if self._waiting else IDLE_GAP_S)

    def observe(self, headers: Mapping[str, str]) -> None:
        """Take in the headers of an answer (names in lower case)."""
        said = ServerLimits.from_headers(headers)
        if said is not None:
            self._server_at = asyncio.get_running_loop().time()
            self._outbox.server = (said, 0.0)

    def pause(self, seconds: float | None, reason: str) -> None:
        """Nobody on the cluster sends for so long (None: the server did not say)."""
        self._outbox.pauses.append((seconds, reason))
        self._paused_until = max(self._paused_until, asyncio.get_running_loop().time() + (seconds or 0.0))
        self._talk(within_s=0)

    def stop(self, reason: str) -> None:
        """End the job: here at once, elsewhere within a second."""
        self._outbox.stop = self._outbox.stop or reason
        self._hear_stop(reason)
        self._talk(within_s=0)

    async def sleep(self, seconds: float) -> None:
        """Wait, but not longer than until a stop. Raises Stopped."""
        self._check()
        self._sleepers += 1
        self._talk(within_s=HEARTBEAT_S)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._stop_heard.wait()
        finally:
            self._sleepers -= 1
        self._check()

    async def close(self) -> None:
        """Say what is left to say, and goodbye. What is in flight counts as spent."""
        self._hear_stop("closed")
        with contextlib.suppress(Stopped, TimeoutError):
            async with asyncio.timeout(CLOSING_S), self._saying:
                if self._talking is not None:
                    self._talking.cancel()
                self._outbox.leaves = True
                await self._exchange_now()

    # The conversation

    def _check(self) -> None:
        if self._failed is not None:
            raise self._failed
        if self._stopped is not None:
            raise Stopped(self._stopped)

    def _talk(self, *, within_s: float) -> None:
        """Have a message sent soon."""
        due = asyncio.get_running_loop().time() + within_s
        if self._talking is None or self._talking.done():
            self._due = due
            self._talking = asyncio.create_task(self._converse())
        elif due < self._due:
            self._due = due
            self._news.set()

    async def _converse(self) -> None:
        """Exchange messages while there is anything to say or to hear."""
        loop = asyncio.get_running_loop()
        try:
            while self._waiting or self._open or self._sleepers or self._outbox != Message(self._name):
                while self._due > loop.time():
                    self._news.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout_at(self._due):
                            await self._news.wait()
                self._due = loop.time() + HEARTBEAT_S
                async with self._saying:
                    wait_s = await self._exchange_now()
                gap_s = max(GAP_S, wait_s) if self._waiting else HEARTBEAT_S
                self._due = max(min(self._due, loop.time() + gap_s), loop.time() + GAP_S)
        except Stopped as stopped:
            self._hear_stop(str(stopped))
        except Exception as error:  # a defect: whoever waits must hear of it, and everybody who comes later
            self._failed = error
            self._fail_waiting(error)

    async def _exchange_now(self) -> float:
        """One message and its reply; returns the seconds after which to ask again."""
        loop = asyncio.get_running_loop()
        self._waiting = deque(waiter for waiter in self._waiting if not waiter.future.done())
        asked, message = tuple(itertools.islice(self._waiting, CHUNK)), self._outbox
        self._outbox = Message(self._name)
        started = loop.time()
        message.wanted = tuple(waiter.wanted for waiter in asked)
        if message.server is not None:
            message.server = (message.server[0], started - self._server_at)
        lease, validity_s, life = await self._exchange(message)
        if lease.stopped is not None:
            self._hear_stop(lease.stopped)
        now = loop.time()
        self._paused_until = max(self._paused_until, now + lease.paused_s if lease.paused_s else 0.0)
        granted = asked[: len(lease.delays_s)]
        self._waiting = deque(waiter for waiter in self._waiting if waiter not in granted)
        for waiter, delay_s in zip(granted, lease.delays_s, strict=True):
            self._open.add(waiter.wanted.number)
            # Granted at some moment between the question and its answer, both on our clock.
            loop.call_at(now + delay_s, self._deliver, waiter, started + delay_s + validity_s)
        if self._life not in ("", life):
            self._outbox.in_flight = tuple(self._open)
            self._due = now
        self._life = life
        return lease.wait_s

    def _deliver(self, waiter: _Waiter, latest: float) -> None:
        """Its moment has come: hand over the reservation, unless that was overtaken by something."""
        now = asyncio.get_running_loop().time()
        if waiter.future.done() or self._stopped is not None:
            self._give_back(waiter.wanted.number)
            if not waiter.future.done():
                waiter.future.set_exception(Stopped(self._stopped))
        elif now > latest or now < self._paused_until - 1e-3:  # timers may ring a little early
            self._give_back(waiter.wanted.number)
            self._number += 1
            waiter.wanted = waiter.wanted._replace(number=self._number)
            self._waiting.appendleft(waiter)
            self._talk(within_s=0)
        else:
            number, tokens, usd = waiter.wanted
            waiter.future.set_result(Reservation(number=number, tokens=tokens, usd=usd))

    def _give_back(self, number: int) -> None:
        self._open.discard(number)
        self._outbox.released.append(number)
        self._talk(within_s=GAP_S)

    def _hear_stop(self, reason: str) -> None:
        if self._stopped is None:
            self._stopped = reason
            self._stop_heard.set()
        self._fail_waiting(Stopped(self._stopped))

    def _fail_waiting(self, error: BaseException) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.future.done():
                waiter.future.set_exception(error)

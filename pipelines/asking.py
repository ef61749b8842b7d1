"""Asking a language model and getting an answer in the end: look, reserve, call, settle, store, and try again by kind.

What was answered before is found in the answer store and costs nothing. What is paid for is stored before anybody uses
it, also when whoever asked has gone away meanwhile. Failures are treated by type: the server's are tried again after a
growing random pause, a 429 makes the whole cluster wait, a server that is away is waited for, a refusal is the row's
fate, and what no request will survive stops the job.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from lgsrr.errors import ConfigError, LgsrrError

from .answers import AnswerStore
from .budget_client import Budget, Reservation
from .calls import (
    Answer,
    CallError,
    Fatal,
    LlmClient,
    RateLimited,
    Refused,
    Request,
    Stopped,
    Transient,
    Unreachable,
    Usage,
)

T = TypeVar("T")
_KNOCKS = 4
"""Pauses before a server that is away is asked for again grow so often."""
STORE_THREADS = 16
"""Answers that are read or written at the same time; on S3 each takes about 50 ms."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often a call is made that fails, and the pauses between."""

    attempts: int = 6
    """Calls at most that fail for a reason that may pass; 429s count only when `patience_s` is used up."""
    base_s: float = 1.0
    """The pause after the first failure is drawn from 0 to this; the bound doubles with each."""
    cap_s: float = 60.0
    """Upper limit of that bound."""
    patience_s: float = 1200.0
    """Seconds that one request waits after 429s, all in all, before these count as failures."""
    away_s: float = 120.0
    """Seconds that one request waits for a server that cannot be reached, before the job ends: it is no row's fault."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ConfigError(f"attempts is {self.attempts}; expected 1 or more.")
        if min(self.base_s, self.cap_s, self.patience_s, self.away_s) < 0:
            raise ConfigError(f"{self} has a negative time; expected seconds, 0 or more.")

    def pause_s(self, failures: int, rng: random.Random) -> float:
        """Seconds to wait after so many failures: full jitter, so that calls that failed together part ways."""
        return rng.uniform(0, min(self.cap_s, self.base_s * 2 ** min(failures - 1, 30)))


class Priced(Protocol):
    """What `prices.Price` is here."""

    def at_most(self, request: Request) -> float:
        """Dollars that a call may cost."""


@dataclasses.dataclass(slots=True)
class _Tries:
    """What has been tried for one request."""

    calls: int = 0
    failures: int = 0
    limited_s: float = 0.0
    waited_s: float = 0.0
    was_limited: bool = False
    unreached: int = 0
    away_s: float = 0.0
    """Waited for a server that could not be reached, since it last was."""
    pause_s: float = 0.0
    paid: Usage = Usage()  # noqa: RUF009  (frozen)


@dataclasses.dataclass(eq=False, slots=True)
class _Shared:
    """One request that is being answered, for all who have asked it."""

    task: asyncio.Task[Answer] | None = None
    askers: int = 0
    in_flight: bool = False
    """Whether money may be under way: then it goes on although nobody is left who asked."""


class Asker:
    """Answers requests at one endpoint within a budget. It belongs to one event loop; any number may ask at once."""

    def __init__(
        self,
        client: LlmClient,
        budget: Budget,
        answers: AnswerStore,
        retry: RetryPolicy | None = None,
        *,
        price: Priced | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """`price` None: calls cost nothing, as far as the budget is concerned. `client` is closed by its owner."""
        self._client, self._budget, self._answers, self._price = client, budget, answers, price
        self._retry, self._rng = retry or RetryPolicy(), rng or random.Random()
        self._shared: dict[str, _Shared] = {}
        self._threads = ThreadPoolExecutor(STORE_THREADS, thread_name_prefix="answers")
        self.found = 0
        """Answers that were in the store."""
        self.made = 0
        """Answers that were called for."""

    async def ask(self, request: Request) -> Answer:
        """The answer to a request, stored. The same request, asked twice at the same time, is called for once.

        Raises Refused (this request has no answer), Stopped (the job is ending) or DataError (it cannot be stored).
        """
        shared = self._shared.get(request.fingerprint) or self._begin(request)
        assert shared.task is not None
        shared.askers += 1
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.askers -= 1
            if not shared.askers and not shared.in_flight:
                shared.task.cancel()
                self._forget(request, shared)  # who asks from now on begins anew

    async def close(self) -> None:
        """Let finish what is in flight, which is stored; then no more is answered."""
        while tasks := [shared.task for shared in self._shared.values() if shared.task is not None]:
            await asyncio.wait(tasks)
            await asyncio.sleep(0)
        self._threads.shutdown()

    def _begin(self, request: Request) -> _Shared:
        shared = self._shared[request.fingerprint] = _Shared()
        shared.task = asyncio.create_task(self._answer(request, shared))

        def end(task: asyncio.Task[Answer]) -> None:
            self._forget(request, shared)
            if not task.cancelled():
                task.exception()  # seen, also where nobody waits for it any more

        shared.task.add_done_callback(end)
        return shared

    def _forget(self, request: Request, shared: _Shared) -> None:
        if self._shared.get(request.fingerprint) is shared:
            del self._shared[request.fingerprint]

    async def _answer(self, request: Request, shared: _Shared) -> Answer:
        found = await self._in_thread(lambda: self._answers.get(request.fingerprint))
        if found is not None:
            self.found += 1
            return found
        tries = _Tries()
        while True:
            reservation = await self._reserve(request, tries)
            shared.in_flight = True
            try:
                answer = await self._call(request, reservation, tries)
                if answer is not None:
                    return await self._store(answer)
            finally:
                shared.in_flight = False
            if not shared.askers:
                raise asyncio.CancelledError
            await self._pause(tries)

    async def _reserve(self, request: Request, tries: _Tries) -> Reservation:
        started = _now()
        reservation = await self._budget.reserve(
            request.estimated_tokens(), 0.0 if self._price is None else self._price.at_most(request)
        )
        self._waited(tries, started)
        return reservation

    def _waited(self, tries: _Tries, started: float) -> None:
        seconds = _now() - started
        tries.waited_s += seconds
        if tries.was_limited:
            tries.limited_s += seconds

    async def _call(self, request: Request, reservation: Reservation, tries: _Tries) -> Answer | None:
        """One call, settled; None where another may do better. Raises Refused, Stopped and what is no CallError."""
        tries.calls += 1
        usage: Usage | None = None  # of a call that is cut short, nobody knows
        try:
            answer = await self._client.call(request)
            usage = answer.usage
        except CallError as error:
            usage = error.usage
            tries.paid += usage
            self._failed(error, tries)
            return None
        finally:
            self._budget.settle(reservation, usage)
        return dataclasses.replace(
            answer, attempts=tries.calls, waited_s=tries.waited_s, usage=tries.paid + answer.usage
        )

    def _failed(self, error: CallError, tries: _Tries) -> None:
        """Decide by the kind of failure; returns where the request is worth another call."""
        if isinstance(error, Fatal):
            reason = f"{error.reason} {error.advice}".strip()
            self._budget.stop(reason)
            raise Stopped(reason) from error
        if isinstance(error, Refused):
            raise Refused(error.reason, kind=error.kind, usage=tries.paid) from error
        if not isinstance(error, Transient):
            raise error
        if isinstance(error, Unreachable):
            self._unreached(error, tries)
            return
        tries.unreached, tries.away_s = 0, 0.0
        tries.was_limited = isinstance(error, RateLimited)
        if tries.was_limited:
            self._budget.pause(error.retry_after_s, error.reason)
        if not tries.was_limited or tries.limited_s >= self._retry.patience_s:
            tries.failures += 1
        if tries.failures >= self._retry.attempts:
            reason = f"no answer after {tries.calls} calls; the last failed: {error.reason}"
            raise Refused(reason, kind="attempts", usage=tries.paid) from error
        tries.pause_s = 0.0 if tries.was_limited else self._pause_after(error, tries.failures)

    def _unreached(self, error: Unreachable, tries: _Tries) -> None:
        """Wait, and knock again within seconds; a server that stays away ends the job, and sets no row aside."""
        if tries.away_s >= self._retry.away_s:
            reason = f"{error.reason} It has been away for {tries.away_s:.0f} s: look whether it is there."
            self._budget.stop(reason)
            raise Stopped(reason) from error
        tries.was_limited = False
        tries.unreached += 1
        tries.pause_s = self._pause_after(error, min(tries.unreached, _KNOCKS))
        tries.away_s += tries.pause_s

    def _pause_after(self, error: Transient, failures: int) -> float:
        if error.retry_after_s is not None:
            return error.retry_after_s
        return self._retry.pause_s(failures, self._rng)

    async def _pause(self, tries: _Tries) -> None:
        """Wait before another call; after a 429 the budget does that for all."""
        if tries.pause_s:
            started = _now()
            await self._budget.sleep(tries.pause_s)
            self._waited(tries, started)

    async def _store(self, answer: Answer) -> Answer:
        try:
            await self._in_thread(lambda: self._answers.put(answer))
        except LgsrrError as error:  # the next answer would be paid for and lost as well
            self._budget.stop(f"answers cannot be stored: {error}")
            raise
        self.made += 1
        return answer

    async def _in_thread(self, action: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, action)


def _now() -> float:
    return asyncio.get_running_loop().time()

"""One budget of requests, tokens, calls in flight and dollars, for one endpoint and model: who may send, and when.

A client asks for as many sends as it has requests waiting and gets those that fall into the next second, each with its
delay from now; or how long to wait; or that the job is stopping and why. Sends are spread evenly with a small burst,
because servers enforce token buckets, fixed and sliding windows alike, and a record of all sends keeps every window
within the limits exactly. Nobody here knows when a send really happens, so each counts as happening throughout its
validity; that, and the jitter of the way, cost 2.4 % of the allowed rate. No Ray and no asyncio; the clock is passed
in.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from lgsrr.errors import ConfigError, LgsrrError

from .calls import Usage
from .pacing import Meter, Pacing, Sent
from .server_limits import ServerLimits

_log = logging.getLogger(__name__)

POLL_S = 0.1
"""When to ask again where only another client's settlement can help."""
PATIENCE_S = 0.5
"""Who has to wait longer than that goes before those who come later, so that large requests get their turn."""
CLAIM_S = 2.0
"""For how long a client that was put off keeps its turn without asking again."""
LOST_S = 60.0
"""A client that has been silent for so long is taken for dead."""
LONG_PAUSE_S = 120.0
"""A pause above that is waited for like any other, and said."""
BACKOFF_CAP_S = 60.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What one endpoint and model may take from us; None is no limit."""

    rpm: int | None = None
    """Requests in any 60 s."""
    tpm: int | None = None
    """Tokens in any 60 s, in and out."""
    concurrency: int | None = None
    """Calls in flight."""
    usd: float | None = None
    """Dollars in all, those of earlier runs with the same output included. Never exceeded."""

    def __post_init__(self) -> None:
        for field in ("rpm", "tpm", "concurrency"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ConfigError(f"{field} is {value}; expected 1 or more, or none for no limit.")
        if self.usd is not None and not 0 <= self.usd < math.inf:
            raise ConfigError(f"budget_usd is {self.usd}; expected dollars, 0 or more, or none for no limit.")


class Wanted(NamedTuple):
    """One request that waits to be sent. `number` is the client's own, never used again once settled."""

    number: int
    tokens: int
    usd: float


class Lease(NamedTuple):
    """What a client may do: send the first `len(delays_s)` of what it wanted, and come back after `wait_s`."""

    delays_s: tuple[float, ...]
    wait_s: float
    paused_s: float
    stopped: str | None


class _Open(NamedTuple):
    """A granted send that is not settled. `request` and `tokens` are None where it was granted before a restart."""

    request: Sent | None
    tokens: Sent | None
    usd: float


@dataclasses.dataclass(slots=True)
class Counts:
    """What a budget has seen."""

    granted: int = 0
    settled: int = 0
    released: int = 0
    """Granted and given back unused."""
    lost: int = 0
    """Granted to clients that went away without a word; counted as used, at their estimate."""
    input_tokens: int = 0
    output_tokens: int = 0
    waits: int = 0
    """Times that a client was told to wait."""
    rate_limited: int = 0
    """Answers 429."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A budget at one moment, to be shown and recorded."""

    counts: Counts
    rpm: int | None
    """As in force: ours, or the server's where that is lower."""
    tpm: int | None
    in_flight: int
    clients: int
    spent_usd: float
    """Earlier runs included."""
    reserved_usd: float
    paused_s: float
    pause_reason: str
    stopped: str | None


class RateBudget:
    """The budget of one endpoint and model. Not safe for threads: one caller at a time, as an actor has it."""

    def __init__(
        self,
        limits: Limits,
        *,
        clock: Callable[[], float] = time.monotonic,
        pacing: Pacing | None = None,
        spent_before: float = 0.0,
        recovered: bool = False,
        note_spending: Callable[[float], None] | None = None,
    ) -> None:
        """`spent_before`: dollars spent so far. `recovered`: another was here until now, of which nothing else is
        known.

        `note_spending` is called with a number of dollars before more than the last such number may be spent; where it
        fails, nothing more is granted.
        """
        self._limits, self._clock, self._pacing = limits, clock, pacing or Pacing()
        self._requests = Meter(limits.rpm, self._pacing)
        self._tokens = Meter(limits.tpm, self._pacing)
        self._open: dict[str, dict[int, _Open]] = {}
        self._lost: dict[str, dict[int, _Open]] = {}
        self._heard: dict[str, float] = {}
        self._asked: dict[str, float] = {}
        self._in_flight = 0
        self._spent, self._reserved, self._mark = spent_before, 0.0, spent_before
        self._note_spending = note_spending
        self._turn: tuple[str, float] | None = None
        self._paused_until, self._pause_reason = -math.inf, ""
        self._backoff, self._backed_off_until = 0, -math.inf
        self._stopped: str | None = None
        self._swept_at = clock()
        self.counts = Counts()
        if recovered:
            seconds = self._pacing.span_s + self._pacing.horizon_s
            self._pause(seconds, "the budget was restarted and takes the last minute for used up")

    def lease(self, client: str, wanted: Sequence[Wanted]) -> Lease:
        """Grant as many of the first of `wanted` as may be sent soon. A number asked for again was never granted."""
        now = self._clock()
        self.hear(client)
        for want in wanted:
            self.release(client, want.number)
        share_s = self._share_s(client, now) if wanted else 0.0
        delays_s: list[float] = []
        wait_s, last_at = 0.0, math.inf
        for want in wanted:
            at = self._earliest(client, want, now)
            if at > now + self._horizon_s:
                wait_s = at - now - self._horizon_s
                break
            if at > last_at:
                wait_s = POLL_S / 2
                break
            if not self._afford(want):
                break
            last_at = min(last_at, at + share_s)
            self._grant(client, want, at)
            delays_s.append(at - now)
        self.counts.waits += bool(wanted) and not delays_s
        return Lease(tuple(delays_s), wait_s, max(0.0, self._paused_until - now), self._stopped)

    @property
    def _horizon_s(self) -> float:
        # A send that waits for its moment counts as in flight: with few of these it must not wait for long.
        return min(self._pacing.horizon_s, 0.25) if self._limits.concurrency else self._pacing.horizon_s

    def _share_s(self, client: str, now: float) -> float:
        """The part of the horizon that one client takes at a time, so that all get some."""
        self._asked[client] = now
        self._asked = {name: at for name, at in self._asked.items() if at > now - CLAIM_S}
        return self._horizon_s / len(self._asked) if len(self._asked) > 1 else math.inf

    def _earliest(self, client: str, want: Wanted, now: float) -> float:
        """First moment at which this may be sent; just beyond the horizon where that depends on others."""
        later = now + self._horizon_s + POLL_S
        if self._is_anothers_turn(client, now):
            return later + POLL_S
        if self._stopped is not None or self._is_full():
            return later
        if self._limits.usd is not None and self._spent + self._reserved + want.usd > self._limits.usd:
            if self._in_flight == 0:
                self.stop(
                    f"budget used up: {self._spent:.4f} of {self._limits.usd:.2f} USD are spent and the next request "
                    f"may cost {want.usd:.4f}; the same command with a larger --budget-usd goes on"
                )
            return later
        at = max(self._requests.earliest(1, now), self._tokens.earliest(want.tokens, now), self._paused_until)
        if at > now + self._horizon_s + PATIENCE_S:
            self._turn = (client, now + CLAIM_S)
        return at

    def _is_anothers_turn(self, client: str, now: float) -> bool:
        return self._turn is not None and self._turn[0] != client and self._turn[1] > now

    def _is_full(self) -> bool:
        return self._limits.concurrency is not None and self._in_flight >= self._limits.concurrency

    def _afford(self, want: Wanted) -> bool:
        """Have it noted that this much may be spent, in chunks of 1 % of the limit."""
        need, limit = self._spent + self._reserved + want.usd, self._limits.usd
        if limit is None or self._note_spending is None or need <= self._mark:
            return True
        mark = min(limit, need + limit / 100)
        try:
            self._note_spending(mark)
        except LgsrrError as error:
            self.stop(f"the dollars spent cannot be noted, so none may be spent: {error}")
            return False
        self._mark = mark
        return True

    def _grant(self, client: str, want: Wanted, at: float) -> None:
        self._turn = None
        granted = _Open(self._requests.add(1, at), self._tokens.add(want.tokens, at), want.usd)
        self._open.setdefault(client, {})[want.number] = granted
        self._in_flight += 1
        self._reserved += want.usd
        self.counts.granted += 1

    def settle(self, client: str, number: int, usage: Usage | None) -> None:
        """A call has ended with this usage; None where nobody knows, which counts as all that was reserved."""
        granted = self._close(client, number)
        if granted is None:
            return
        self.counts.settled += 1
        if usage is None:
            self._spent += granted.usd
            return
        if granted.tokens is not None:
            self._tokens.settle(granted.tokens, usage.input_tokens + usage.output_tokens)
            self._spent += usage.cost_usd
        self.counts.input_tokens += usage.input_tokens
        self.counts.output_tokens += usage.output_tokens

    def release(self, client: str, number: int) -> None:
        """A granted send will not be made."""
        granted = self._close(client, number)
        if granted is None:
            return
        self.counts.released += 1
        if granted.request is not None and granted.tokens is not None:
            self._requests.settle(granted.request, 0)
            self._tokens.settle(granted.tokens, 0)

    def _close(self, client: str, number: int) -> _Open | None:
        granted = self._open.get(client, {}).pop(number, None)
        if granted is not None:
            self._in_flight -= 1
            self._reserved -= granted.usd
        return granted

    def hold(self, client: str, numbers: Sequence[int]) -> None:
        """Calls in flight that were granted before a restart: they count as in flight, their dollars are spent
        already.
        """
        calls = self._open.setdefault(client, {})
        new = [number for number in numbers if number not in calls]
        calls.update(dict.fromkeys(new, _Open(None, None, 0.0)))
        self._in_flight += len(new)

    def hear(self, client: str) -> None:
        """A client lives. Those that have been silent for too long are written off until they speak again."""
        now = self._clock()
        if client in self._lost:
            self._take_back(client)
        self._heard[client] = now
        if now > self._swept_at + LOST_S / 10:
            self._swept_at = now
            for name in [name for name, at in self._heard.items() if at <= now - LOST_S]:
                self._lost[name] = self.leave(name)

    def leave(self, client: str) -> dict[int, _Open]:
        """A client is gone. What it did not settle may have been sent: its dollars count as spent."""
        self._heard.pop(client, None)
        calls = self._open.pop(client, {})
        self._move(calls, -1)
        self.counts.lost += len(calls)
        return calls

    def _take_back(self, client: str) -> None:
        calls = self._lost.pop(client)
        self._open[client] = calls
        self._move(calls, 1)
        self.counts.lost -= len(calls)

    def _move(self, calls: Mapping[int, _Open], sign: int) -> None:
        usd = sign * sum(granted.usd for granted in calls.values())
        self._in_flight += sign * len(calls)
        self._reserved += usd
        self._spent -= usd

    def rest(self) -> None:
        """Where no client is left, note what was really spent instead of what might have been."""
        if self._heard or self._note_spending is None or self._mark <= self._spent:
            return
        with contextlib.suppress(LgsrrError):  # the higher mark is safe as well
            self._note_spending(self._spent)
            self._mark = self._spent

    def follow(self, said: ServerLimits, age_s: float = 0.0) -> None:
        """Keep to what the server said `age_s` ago about its limits."""
        now = self._clock()
        for meter, limit, left, reset_s in (
            (self._requests, said.rpm, said.requests_left, said.requests_reset_s),
            (self._tokens, said.tpm, said.tokens_left, said.tokens_reset_s),
        ):
            meter.follow(limit, left, None if reset_s is None else reset_s - age_s, now)

    def pause(self, seconds: float | None, reason: str) -> None:
        """A 429: nobody sends for `seconds`, or, where the server does not say, for 1, 2, 4, … up to 60 s.

        That grows with each pause that was in vain; after a window without one it begins anew.
        """
        self.counts.rate_limited += 1
        now = self._clock()
        if seconds is not None:
            self._pause(seconds, reason)
        elif now >= self._paused_until:  # of calls that were in flight together, the first one counts
            self._backoff = self._backoff + 1 if now < self._backed_off_until + self._pacing.window_s else 0
            self._pause(min(BACKOFF_CAP_S, 2.0**self._backoff), reason)
            self._backed_off_until = self._paused_until

    def _pause(self, seconds: float, reason: str) -> None:
        until = self._clock() + seconds
        if until <= self._paused_until:
            return
        if seconds > LONG_PAUSE_S:
            _log.warning("nothing is sent for %.0f s: %s", seconds, reason)
        self._paused_until, self._pause_reason = until, reason

    def stop(self, reason: str) -> None:
        """From now on every client is told to stop; the first reason stands."""
        self._stopped = self._stopped or reason

    def snapshot(self) -> Snapshot:
        """How things stand."""
        paused_s = max(0.0, self._paused_until - self._clock())
        return Snapshot(
            counts=dataclasses.replace(self.counts),
            rpm=self._requests.limit,
            tpm=self._tokens.limit,
            in_flight=self._in_flight,
            clients=len(self._heard),
            spent_usd=self._spent,
            reserved_usd=max(0.0, self._reserved),
            paused_s=paused_s,
            pause_reason=self._pause_reason if paused_s else "",
            stopped=self._stopped,
        )

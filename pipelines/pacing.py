"""How sends are spread over time: an exact record of a window, and the moment at which the next one may go."""

from __future__ import annotations

import dataclasses
import math
from collections import deque


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pacing:
    """How sends are spread. Tests make it all shorter."""

    window_s: float = 60.0
    """Seconds that the limits are about."""
    horizon_s: float = 1.0
    """How far ahead sends are granted."""
    validity_s: float = 1.0
    """For how long after its moment a granted send may be made."""
    slack_s: float = 0.5
    """How much closer together two sends may arrive than they were made."""
    burst_s: float = 0.5
    """Seconds' worth of sends that may go at once after a lull."""

    @property
    def span_s(self) -> float:
        """The window that granted moments keep to, so that real arrivals keep to `window_s`."""
        return self.window_s + self.validity_s + self.slack_s


@dataclasses.dataclass(slots=True)
class Sent:
    """An entry of a meter's record."""

    at: float
    amount: int
    gone: bool = False


class Meter:
    """Requests, or tokens: what was granted within the window, and when the next may go."""

    def __init__(self, limit: int | None, pacing: Pacing) -> None:
        self._own, self.limit, self._pacing = limit, limit, pacing
        self._record: deque[Sent] = deque()
        self._total = 0
        self._next_at = -math.inf
        self._left, self._left_until = 0, -math.inf

    def earliest(self, amount: int, now: float) -> float:
        """First moment at which `amount` may go. What is more than the whole limit may go when the window is empty."""
        self._drop(now)
        amount, at = self._cut(amount), now
        if at < self._left_until and self._left < amount:
            at = self._left_until
        if self.limit is None:
            return at
        at = max(at, self._next_at, self._record[-1].at if self._record else now)
        excess = self._total + amount - self.limit
        for sent in self._record:
            if excess <= 0:
                break
            at = max(at, sent.at + self._pacing.span_s)
            excess -= sent.amount
        return at

    def add(self, amount: int, at: float) -> Sent:
        """Grant `amount` at a moment that `earliest` allows."""
        sent = Sent(at, self._cut(amount))
        self._record.append(sent)
        self._total += sent.amount
        self._left -= sent.amount
        self._next_at = max(self._next_at, at - self._pacing.burst_s) + self._spacing(sent.amount)
        return sent

    def settle(self, sent: Sent, amount: int) -> None:
        """Replace what was estimated by what it was."""
        less = sent.amount - self._cut(amount)
        self._next_at -= self._spacing(less)
        if not sent.gone:
            sent.amount -= less
            self._total -= less

    def follow(self, limit: int | None, left: int | None, reset_s: float | None, now: float) -> None:
        """Keep to what the server says, where that is less than what we know."""
        if limit is not None:
            self.limit = limit if self._own is None else min(self._own, limit)
        if left is None or self.limit is None:
            return
        self._drop(now)
        # The server sees our own sends too: only where it has less left than these explain does somebody else send.
        if left < self.limit - self._total and left <= self.limit / 10:
            self._left, self._left_until = left, now + (1.0 if reset_s is None else reset_s)
        else:
            self._left_until = -math.inf

    def _cut(self, amount: int) -> int:
        return amount if self.limit is None else min(amount, self.limit)

    def _spacing(self, amount: int) -> float:
        return amount * self._pacing.span_s / self.limit if self.limit is not None else 0.0

    def _drop(self, now: float) -> None:
        while self._record and self._record[0].at + self._pacing.span_s <= now:
            sent = self._record.popleft()
            sent.gone = True
            self._total -= sent.amount

"""Limits as a server enforces them: requests and tokens in a window that slides with the clock, none forgiven."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """None: no limit."""

    rpm: int | None = None
    tpm: int | None = None
    window_s: float = 60.0
    """Length of the window, to which `rpm` and `tpm` apply in spite of their names."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a request is let in, and what is said about the limits."""

    admitted: bool
    wait_s: float
    """Seconds until the same request would be let in."""
    headers: dict[str, str]


class SlidingWindow:
    """Admits requests; those of the last `window_s` seconds never exceed the limits."""

    def __init__(self, limits: ServerLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._admitted: deque[tuple[float, int]] = deque()
        self._tokens = 0

    def now(self) -> float:
        return self._clock()

    def admit(self, tokens: int) -> Verdict:
        now = self._clock()
        self._forget(now)
        wait_s = max(self._wait_for_request(now), self._wait_for_tokens(now, tokens))
        if wait_s == 0:
            self._admitted.append((now, tokens))
            self._tokens += tokens
        return Verdict(admitted=wait_s == 0, wait_s=wait_s, headers=self._headers(now, wait_s))

    def _forget(self, now: float) -> None:
        while self._admitted and self._admitted[0][0] <= now - self._limits.window_s:
            self._tokens -= self._admitted.popleft()[1]

    def _wait_for_request(self, now: float) -> float:
        if self._limits.rpm is None or len(self._admitted) < self._limits.rpm:
            return 0.0
        return self._admitted[0][0] + self._limits.window_s - now

    def _wait_for_tokens(self, now: float, tokens: int) -> float:
        if self._limits.tpm is None:
            return 0.0
        over = self._tokens + tokens - self._limits.tpm
        for then, used in self._admitted if over > 0 else ():
            over -= used
            if over <= 0:
                return then + self._limits.window_s - now
        return self._limits.window_s if over > 0 else 0.0

    def _headers(self, now: float, wait_s: float) -> dict[str, str]:
        reset = self._admitted[-1][0] + self._limits.window_s - now if self._admitted else 0.0
        headers = {}
        for name, limit, used in (
            ("requests", self._limits.rpm, len(self._admitted)),
            ("tokens", self._limits.tpm, self._tokens),
        ):
            if limit is not None:
                headers[f"x-ratelimit-limit-{name}"] = str(limit)
                headers[f"x-ratelimit-remaining-{name}"] = str(max(0, limit - used))
                headers[f"x-ratelimit-reset-{name}"] = f"{reset:.3f}s"
        if wait_s > 0:
            headers["retry-after"] = str(math.ceil(wait_s))
            headers["retry-after-ms"] = str(math.ceil(wait_s * 1000))
        return headers

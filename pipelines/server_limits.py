"""What a server says of its own limits, in the `x-ratelimit-*` headers of its answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple


class ServerLimits(NamedTuple):
    """What a server says in its `x-ratelimit-*` headers; None where it does not."""

    rpm: int | None
    tpm: int | None
    requests_left: int | None
    tokens_left: int | None
    requests_reset_s: float | None
    tokens_reset_s: float | None

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> ServerLimits | None:
        """None where the headers say nothing (or -1, as Azure does) about limits. Names in lower case."""
        said = cls(
            _count(headers.get("x-ratelimit-limit-requests"), least=1),
            _count(headers.get("x-ratelimit-limit-tokens"), least=1),
            _count(headers.get("x-ratelimit-remaining-requests"), least=0),
            _count(headers.get("x-ratelimit-remaining-tokens"), least=0),
            duration_s(headers.get("x-ratelimit-reset-requests")),
            duration_s(headers.get("x-ratelimit-reset-tokens")),
        )
        return None if said == (None,) * len(said) else said


def _count(text: str | None, *, least: int) -> int | None:
    return int(text) if text and text.isdecimal() and int(text) >= least else None


_UNITS_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|us|µs|ns|d|h|m|s))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|d|h|m|s)")


def duration_s(text: str | None) -> float | None:
    """Seconds of "6m0s", "1.2s", "20ms" or "12"; None for anything else."""
    text = (text or "").strip()
    if _DURATION.fullmatch(text):
        return sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else None

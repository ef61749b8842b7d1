"""The ways in which the stand-in can be told to fail, and when: by number, by share, by text, by how often.

{"seed": 0, "rules": [{"kind": "server_error", "share": 0.1},
                      {"kind": "retry_after_seconds", "requests": [3], "retry_after_s": 150},
                      {"kind": "refusal", "text": "dialogue_7"}]}
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from lgsrr.errors import ConfigError

Kind = Literal[
    "rate_limited",  # 429 that does not say how long
    "retry_after_seconds",
    "retry_after_date",
    "retry_after_ms",
    "server_error",
    "hang",
    "cut_before",  # the connection ends before the answer
    "cut_within",  # … in the middle of it
    "truncated_json",  # a whole HTTP answer whose JSON ends early
    "refusal",
    "length",
    "content_filter",
    "not_json",
    "ranking_missing",
    "ranking_repeated",
    "ranking_invented",
    "bad_request",
    "context_length",
    "wrong_key",
    "forbidden",
    "insufficient_quota",
    "model_not_found",
    "batch_expired",  # half of a batch is answered, the rest expires
    "batch_partial",  # every third request of a batch fails
    "batch_cancelled",  # half of a batch is answered, then somebody cancels it
    "batch_failed",  # a batch is not even begun
    "batch_too_large",  # … because too many tokens wait already
    "batch_cut",  # a batch is created, but the connection ends before its id arrives
]
OF_BATCHES = frozenset(kind for kind in get_args(Kind) if kind.startswith("batch_"))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way to fail, for the requests (for a batch_… kind: the batches) that meet every condition given."""

    kind: Kind
    requests: tuple[int, ...] = ()
    """Numbers of requests, counted from 1 as they arrive."""
    share: float | None = None
    """Share of the requests, drawn by the seed and the request's number."""
    text: str | None = None
    """Found anywhere in the request's JSON."""
    first: int | None = None
    """Only the first so many times that the same request arrives."""
    times: int | None = None
    """Only so many times in all."""
    retry_after_s: float = 1.0
    """Seconds, for the kinds that say how long to wait."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConfigError(f"There is no fault '{self.kind}'; expected one of {', '.join(get_args(Kind))}.")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """All faults of a server; the first that applies to a request is taken."""

    rules: tuple[Fault, ...] = ()
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Faults:
        rules = tuple(Fault(**{**rule, "requests": tuple(rule.get("requests", ()))}) for rule in value["rules"])
        return cls(rules=rules, seed=value.get("seed", 0))

    @classmethod
    def from_file(cls, path: Path) -> Faults:
        """Raises ConfigError where the file is missing or says something that cannot be."""
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{path}: not a list of faults ({type(error).__name__}: {error}).") from None


def faults(*rules: Fault, seed: int = 0) -> Faults:
    return Faults(rules=rules, seed=seed)


class FaultPicker:
    """Which fault a request meets; counts what the rules have to count."""

    def __init__(self, plan: Faults) -> None:
        self._plan = plan
        self._used: Counter[int] = Counter()
        self._lock = threading.Lock()

    def pick(self, *, number: int, text: str, arrivals: int, batch: bool = False) -> Fault | None:
        """The fault for the request of that number and text, which arrives for the `arrivals`-th time."""
        with self._lock:
            for place, rule in enumerate(self._plan.rules):
                if (rule.kind in OF_BATCHES) == batch and self._applies(place, rule, number, text, arrivals):
                    self._used[place] += 1
                    return rule
        return None

    def _applies(self, place: int, rule: Fault, number: int, text: str, arrivals: int) -> bool:
        return (
            (not rule.requests or number in rule.requests)
            and (rule.text is None or rule.text in text)
            and (rule.first is None or arrivals <= rule.first)
            and (rule.times is None or self._used[place] < rule.times)
            and (rule.share is None or _draw(self._plan.seed, place, number) < rule.share)
        )


def _draw(*parts: int) -> float:
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64

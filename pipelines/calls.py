"""What is asked of a language model, what comes back, and how a call can fail: the words that all stages share.

A `Request` is everything that could change its answer, and its fingerprint is the hash of that; an `Answer` carries
the fingerprint of what it answers, so that an answer once paid for is found again. A failed call says by its type who
has to act: wait and ask again (`Transient`, `RateLimited`), set the row aside (`Refused`), or stop the job (`Fatal`).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

import orjson

from lgsrr.errors import LgsrrError

Json = Any
"""What json.loads gives."""


def fingerprint_of(parts: Mapping[str, Json]) -> str:
    """SHA-256 (32 hex digits) of JSON with sorted keys: equal content, equal name."""
    # Not json: three of these texts for each row of a table took a quarter of the time until a stopped run goes on.
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


PICTURE_TOKENS = 800
"""Estimate for one picture, or a clip's every frame."""


def _characters(content: Json) -> int:
    """Length of a message's text; a picture stands for as many characters as its tokens have."""
    if not isinstance(content, list):
        return len(str(content))
    return sum(len(part["text"]) if part.get("type") == "text" else 3 * PICTURE_TOKENS for part in content)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """One call, as it goes over the wire."""

    model: str
    """Name by which the endpoint knows the model."""
    messages: tuple[Mapping[str, Json], ...]
    """Chat messages in OpenAI's form: {"role", "content"}, content a text or a list of parts."""
    parameters: Mapping[str, Json] = dataclasses.field(default_factory=dict)
    """Sampling parameters by OpenAI's names: temperature, max_tokens, seed, …"""
    schema: Mapping[str, Json] | None = None
    """JSON schema that the answer must follow (structured output); None asks for plain text."""
    schema_name: str = "answer"
    """Name of the schema on the wire: letters, digits, '_' and '-'."""
    reference: str | None = None
    """What stands for the content in the fingerprint where messages hold bulk, such as frames: the clip's identity."""

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of model, messages (or what stands for them), parameters and schema."""
        content: Json = list(self.messages) if self.reference is None else self.reference
        return fingerprint_of(
            {"model": self.model, "messages": content, "parameters": self.parameters, "schema": self.schema}
        )

    def estimated_tokens(self) -> int:
        """Upper estimate of the tokens of this call, in and out, before it is made: 3 characters a token.

        A picture counts as `PICTURE_TOKENS`, whatever its bytes.
        """
        text = sum(_characters(message.get("content")) for message in self.messages)
        asked = self.parameters.get("max_completion_tokens") or self.parameters.get("max_tokens") or 256
        return text // 3 + 8 * len(self.messages) + int(asked)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one or several calls consumed."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cost_usd=self.cost_usd + other.cost_usd,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model said to a request, and what it took."""

    fingerprint: str
    """Of the request."""
    text: str
    model: str
    """As the server names what answered; the endpoint's own name may be an alias."""
    revision: str | None = None
    """Revision of the weights, or the server's system fingerprint, where it says so."""
    finish_reason: str = "stop"
    usage: Usage = Usage()
    attempts: int = 1
    """Calls made until this answer came."""
    waited_s: float = 0.0
    """Seconds spent waiting for the budget and between attempts."""
    took_s: float = 0.0
    """Seconds of the call that succeeded."""
    created_at: float = 0.0
    """Seconds since 1970, UTC."""
    packages: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Versions of what made the answer, package → version."""
    frames: tuple[int, ...] = ()
    """Indices of the clip's frames that were looked at; empty for text."""

    def to_json(self) -> dict[str, Json]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> Answer:
        """Raises TypeError or KeyError where `value` is no answer."""
        fields = {**value, "usage": Usage(**value["usage"]), "frames": tuple(value["frames"])}
        return cls(**fields)


class CallError(Exception):
    """A call did not bring an answer that can be used. `usage` is what it cost all the same."""

    def __init__(self, reason: str, *, usage: Usage = Usage()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.usage = usage


class Transient(CallError):  # noqa: N818
    """The server or the way to it failed (5xx, time-out, cut connection, answer cut in the middle): ask again."""

    def __init__(self, reason: str, *, retry_after_s: float | None = None, usage: Usage = Usage()) -> None:
        super().__init__(reason, usage=usage)
        self.retry_after_s = retry_after_s


class Unreachable(Transient):
    """No connection came about, so that nothing was sent and nothing paid for: the server is away, for all requests."""


class RateLimited(Transient):
    """429: everybody waits `retry_after_s` seconds (None: the server did not say)."""


class Refused(CallError):  # noqa: N818
    """This request will never be answered (bad request, refusal, content filter): the row is set aside.

    `kind` is one word for counting: `bad_request`, `refusal`, `length`, `content_filter`, `attempts`, …
    """

    def __init__(self, reason: str, *, kind: str, usage: Usage = Usage()) -> None:
        super().__init__(reason, usage=usage)
        self.kind = kind


class Fatal(CallError):  # noqa: N818
    """No request will be answered (wrong key, quota used up, no such model): stop. `advice` says what to do."""

    def __init__(self, reason: str, *, advice: str) -> None:
        super().__init__(reason)
        self.advice = advice


class Stopped(Exception):  # noqa: N818  (it is no error: the job is being ended)
    """The job is ending (interrupted, budget used up, a fatal error elsewhere): nothing more is asked."""


class ExtractionError(LgsrrError):
    """Extraction cannot go on: says why, what is safe and the command that continues."""

    may_be_the_machine = True


class LlmClient(Protocol):
    """The bare call: no retries, no waiting, no storing."""

    async def call(self, request: Request) -> Answer:
        """Make one call. Raises CallError of the kinds above."""

    async def close(self) -> None:
        """Give connections back."""


class Asks(Protocol):
    """The whole call: looked up among the answers, within the budget, with retries, and stored before it is given."""

    async def ask(self, request: Request) -> Answer:
        """Raises Refused (this row's fault) or Stopped (the job is ending)."""

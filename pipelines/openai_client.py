"""The bare call to an OpenAI-compatible server: one request in, one answer or one typed failure out.

    client = OpenAiClient(Endpoint(base_url="http://localhost:8000/v1"))
    answer = await client.call(request)

The only file that imports `openai`. Its own retries are off: who waits and who pays is decided above, by type (see
`calls`). Requests go out through the client's plain `post` and answers are read from the JSON itself: of the 2.4 ms of
CPU that a typed call takes, a third was spent on making and checking objects that nobody looks at.

No key is in an `Endpoint`, in a message or behind an exception: failures are raised outside of the `except` that saw
the library's error, whose request carries the key in its headers.
"""

from __future__ import annotations

import asyncio
import dataclasses
import email.utils
import ipaddress
import json
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Literal, Protocol
from urllib.parse import urlsplit

import httpx2
import openai

from lgsrr.errors import ConfigError

from .calls import Answer, CallError, Fatal, Json, RateLimited, Refused, Request, Transient, Usage

OPENAI_URL = "https://api.openai.com/v1"
_FILE_TIMEOUT_S = 1800.0
"""For a file of 200 MB, up or down."""
SchemaMode = Literal["json_schema", "json_object", "none"]
Headers = Mapping[str, str]

_QUOTA_CODES = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
_UNKNOWN_MODEL_CODES = {"model_not_found"}
_UNSUPPORTED_CODES = {"unsupported_parameter", "unsupported_value"}
_JSON_ONLY = re.compile(r"(gpt-3\.5-turbo|gpt-4-(turbo|1106|0125)|gpt-4o-2024-05-13|chatgpt-4o)")
_NO_JSON = re.compile(r"(gpt-3\.5-turbo-(0301|0613|instruct)|gpt-4(-32k)?(-0314|-0613)?$|o1-(mini|preview))")


class Price(Protocol):
    """What tokens cost."""

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """Dollars."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Share:
    """A price, reduced: batches cost half."""

    price: Price
    factor: float

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        return self.factor * self.price.cost(input_tokens, output_tokens)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where the model is asked, and where the key to it is found. It holds no key and may be sent to any process."""

    base_url: str | None = None
    """For example http://localhost:8000/v1; None takes $OPENAI_BASE_URL, else OpenAI's own."""
    key_file: str | None = None
    """File that holds the key and nothing else, readable wherever calls are made; None takes `key_variable`."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key. A server on this machine needs none."""
    timeout_s: float = 120.0
    """Seconds for one whole call, from connecting to the last byte."""
    schema_mode: SchemaMode | None = None
    """How a schema is asked for: json_schema (structured output), json_object (JSON mode, the schema in the prompt),
    none (the schema in the prompt alone). None decides by the model's name."""

    def __post_init__(self) -> None:
        if self.timeout_s <= 0:
            raise ConfigError(f"timeout_s is {self.timeout_s}; expected seconds above 0.")
        if self.base_url is not None and urlsplit(self.base_url).scheme not in ("http", "https"):
            raise ConfigError(f"base_url is '{self.base_url}'; expected http://host:port/v1 or https://….")

    def resolved(self) -> Endpoint:
        """The same with its URL filled in from this process's environment, to be sent to others."""
        return dataclasses.replace(self, base_url=self.url)

    @property
    def url(self) -> str:
        return self.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine's loopback."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")

    @property
    def key_source(self) -> str:
        """Where the key comes from, in words that may be shown."""
        return f"the file {self.key_file}" if self.key_file else f"${self.key_variable}"

    def key(self) -> str:
        """The key. Raises ConfigError where there is none and one is needed."""
        key = self._key_as_given()
        if not key and not self.is_local:
            raise ConfigError(
                f"No key for {self.url}: {self.key_source} is not set or empty. Set the environment variable "
                f"{self.key_variable} (on every node of the cluster), or name a file that holds the key."
            )
        if not key.isascii() or any(letter.isspace() for letter in key):
            raise ConfigError(f"{self.key_source} holds blanks or letters that no key has; expected one key alone.")
        return key or "none"

    def _key_as_given(self) -> str:
        if self.key_file is None:
            return os.environ.get(self.key_variable, "").strip()
        try:
            return Path(self.key_file).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise ConfigError(f"The key file {self.key_file} cannot be read: {reason}.") from None


def schema_mode_of(model: str) -> SchemaMode:
    """What a model can do, by its name: models before gpt-4o have no JSON schema, those before 2023-11 no JSON mode."""
    name = model.lower()
    if _NO_JSON.match(name):
        return "none"
    return "json_object" if _JSON_ONLY.match(name) else "json_schema"


def wire_body(request: Request, mode: SchemaMode | None = None) -> dict[str, Json]:
    """The request as JSON of `/v1/chat/completions`."""
    body: dict[str, Json] = {"model": request.model, "messages": list(request.messages), **request.parameters}
    if request.schema is None:
        return body
    mode = mode or schema_mode_of(request.model)
    if mode == "json_schema":
        named = {"name": request.schema_name, "schema": request.schema, "strict": True}
        return {**body, "response_format": {"type": "json_schema", "json_schema": named}}
    if mode == "json_object":
        body["response_format"] = {"type": "json_object"}
    return {**body, "messages": _with_schema_in_words(body["messages"], request.schema)}


def _with_schema_in_words(messages: list[Json], schema: Mapping[str, Json]) -> list[Json]:
    """The schema at the end of the last message, as not every chat template takes a second system message."""
    asked = (
        "Answer with one JSON object and nothing else. It must follow this JSON schema:\n"
        f"{json.dumps(schema, ensure_ascii=False)}"
    )
    last = messages[-1]
    content = last["content"]
    longer = f"{content}\n\n{asked}" if isinstance(content, str) else [*content, {"type": "text", "text": asked}]
    return [*messages[:-1], {**last, "content": longer}]


def answer_in(
    body: Json, fingerprint: str, *, price: Price | None = None, took_s: float = 0.0, now: float | None = None
) -> Answer:
    """The answer in the JSON of a completion. Raises Refused where it is no answer, Transient where it is no JSON of
    that kind; both with the usage that was paid."""
    usage = _usage(body, price)
    try:
        choice = body["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason") or "stop"
        text, refusal = message.get("content"), message.get("refusal")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise Transient(f"The answer is no chat completion: {_brief(body)}", usage=usage) from None
    if refusal:
        raise Refused(f"The model refused: {_brief(refusal)}", kind="refusal", usage=usage)
    if finish == "length":
        raise Refused(f"The answer was cut at its length limit: {_brief(text)}", kind="length", usage=usage)
    if finish == "content_filter":
        raise Refused("The server's content filter withheld the answer.", kind="content_filter", usage=usage)
    if not isinstance(text, str):
        raise Transient(f"The answer holds no text: {_brief(message)}", usage=usage)
    return Answer(
        fingerprint=fingerprint,
        text=text,
        model=str(body.get("model") or ""),
        revision=body.get("system_fingerprint"),
        finish_reason=finish,
        usage=usage,
        took_s=took_s,
        created_at=time.time() if now is None else now,
        packages={"openai": openai.__version__},
    )


def _usage(body: Json, price: Price | None) -> Usage:
    said = body.get("usage") if isinstance(body, dict) else None
    if not isinstance(said, dict):
        return Usage()
    tokens_in, tokens_out = int(said.get("prompt_tokens") or 0), int(said.get("completion_tokens") or 0)
    cost = price.cost(tokens_in, tokens_out) if price else 0.0
    return Usage(input_tokens=tokens_in, output_tokens=tokens_out, cost_usd=cost)


def _brief(value: Json) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else f"{text[:300]}…"


def retry_after_s(headers: Headers) -> float | None:
    """Seconds to wait by a response's headers (names in small letters), or None where they do not say.

    A date is taken against the server's own `Date`, so that a clock that is wrong here does no harm.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        seconds = _number(headers.get(name, ""))
        if seconds is not None:
            return max(0.0, seconds * unit)
    until, now = _moment(headers.get("retry-after", "")), _moment(headers.get("date", ""))
    if until is not None:
        return max(0.0, until - (time.time() if now is None else now))
    resets = {kind: duration_s(headers.get(f"x-ratelimit-reset-{kind}", "")) for kind in ("requests", "tokens")}
    used_up = [resets[kind] for kind in resets if headers.get(f"x-ratelimit-remaining-{kind}") == "0"]
    return max((reset for reset in used_up or resets.values() if reset is not None), default=None)


def duration_s(text: str) -> float | None:
    """Seconds in "1h2m3.5s", "6m0s", "20ms" or "12"; None where it is none of these."""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    if parts and "".join(map("".join, parts)) == text.strip():
        return sum(float(number) * units[unit] for number, unit in parts)
    return _number(text)


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\s*-?\d+(\.\d+)?\s*", text) else None


def _moment(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def failure_of(status: int, error: Mapping[str, Json], headers: Headers, endpoint: Endpoint) -> CallError:
    """What a server's error means to us: `error` is the object of that name in its body."""
    code = str(error.get("code") or error.get("type") or "")
    kinds = {code, str(error.get("type") or "")}
    said = _brief(str(error.get("message") or "no reason given"))
    text = f"{endpoint.url} answered {status}: {said}"
    if kinds & _QUOTA_CODES or status == 402:
        advice = "Add credit or raise the limit at https://platform.openai.com/settings/organization/billing."
        return Fatal(f"The account has no quota left ({status}, {code}).", advice=f"{advice} {_CONTINUES}")
    if status in (401, 403):  # the server's own words may repeat the key
        what = "rejected the key" if status == 401 else "does not permit this with the key"
        advice = f"Check {endpoint.key_source}, and that it belongs to {endpoint.url}. {_CONTINUES}"
        return Fatal(f"{endpoint.url} {what} from {endpoint.key_source} ({status}, {code}).", advice=advice)
    if status == 404 or kinds & _UNKNOWN_MODEL_CODES:
        return Fatal(text, advice=f"Check the model's name and the base URL ({endpoint.url}/models lists models).")
    if status == 429:
        if "request too large" in said.lower():  # larger than a whole minute's allowance: waiting does not help
            return Refused(text, kind="length")
        return RateLimited(text, retry_after_s=retry_after_s(headers))
    if status >= 500 or status in (408, 409, 425):
        return Transient(text, retry_after_s=retry_after_s(headers))
    if str(error.get("param") or "").startswith("response_format") or kinds & _UNSUPPORTED_CODES:
        return Fatal(text, advice="No row can be answered so: choose another schema mode, parameter or model.")
    if "context_length" in code or "maximum context length" in said or status == 413:
        return Refused(text, kind="length")
    return Refused(text, kind="content_filter" if code.startswith("content_") else "bad_request")


_CONTINUES = "The same command continues where this one stopped."


class OpenAiClient:
    """One endpoint, asked over kept connections; used from one event loop. Retries nothing, waits for nobody."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        price: Price | None = None,
        on_headers: Callable[[Headers], None] | None = None,
    ) -> None:
        """`price` sets the dollars of each answer (None: 0). `on_headers` gets the x-ratelimit-* and retry-after
        headers of each response that has some, names in small letters. Raises ConfigError where a key is missing."""
        self.endpoint = endpoint.resolved()
        self.price = price
        self._on_headers = on_headers
        self._key = endpoint.key()
        # A proxy of the environment is for the world outside, whatever NO_PROXY says: it cannot reach our loopback.
        web = openai.DefaultAsyncHttpxClient(trust_env=not self.endpoint.is_local, timeout=endpoint.timeout_s)
        self._sdk = openai.AsyncOpenAI(
            api_key=self._key,
            base_url=self.endpoint.url,
            max_retries=0,
            timeout=httpx2.Timeout(endpoint.timeout_s, connect=min(10.0, endpoint.timeout_s)),
            http_client=web,
        )

    async def call(self, request: Request) -> Answer:
        """Make one call. Raises CallError of the kinds in `calls`."""
        began = time.monotonic()
        content = await self._sent(
            self._sdk.post("/chat/completions", body=self.body(request), cast_to=httpx2.Response)
        )
        took_s = time.monotonic() - began
        return answer_in(_parsed(content), request.fingerprint, price=self.price, took_s=took_s)

    async def close(self) -> None:
        await self._sdk.close()

    def body(self, request: Request) -> dict[str, Json]:
        """The request as it goes over the wire, here as in a batch."""
        return wire_body(request, self.endpoint.schema_mode)

    def answer(self, body: Json, fingerprint: str, *, price_factor: float = 1.0) -> Answer:
        """The answer in the JSON of a completion that came in some other way, at that share of the price."""
        price = _Share(self.price, price_factor) if self.price else None
        return answer_in(body, fingerprint, price=price)

    async def upload(self, content: bytes, name: str) -> Json:
        """Upload a file of batch requests; its description."""
        file = (name, content, "application/jsonl")
        sending = self._sdk.post(
            "/files",
            body={"purpose": "batch"},
            files=[("file", file)],
            cast_to=httpx2.Response,
            options={"headers": {"Content-Type": "multipart/form-data"}},
        )
        return _parsed(await self._sent(sending, _FILE_TIMEOUT_S))

    async def create_batch(self, file_id: str, metadata: Mapping[str, str]) -> Json:
        body = {
            "input_file_id": file_id,
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": dict(metadata),
        }
        return _parsed(await self._sent(self._sdk.post("/batches", body=body, cast_to=httpx2.Response)))

    async def batch(self, batch_id: str) -> Json:
        return _parsed(await self._sent(self._sdk.get(f"/batches/{batch_id}", cast_to=httpx2.Response)))

    async def batches(self, after: str | None = None) -> Json:
        """One page of the account's batches, newest first: {"data": […], "has_more": …}."""
        query = {"limit": 100, **({"after": after} if after else {})}
        options: Json = {"params": query}
        return _parsed(await self._sent(self._sdk.get("/batches", cast_to=httpx2.Response, options=options)))

    async def download(self, file_id: str) -> bytes:
        getting = self._sdk.get(f"/files/{file_id}/content", cast_to=httpx2.Response)
        return await self._sent(getting, _FILE_TIMEOUT_S)

    async def _sent(self, sending: Awaitable[httpx2.Response], timeout_s: float | None = None) -> bytes:
        """The body of a response; every way to fail becomes a CallError without the key in it or behind it."""
        timeout_s = timeout_s or self.endpoint.timeout_s
        failure: CallError
        try:
            async with asyncio.timeout(timeout_s):
                response = await sending
            self._hand_over(response.headers)
            return bytes(response.content)
        except (TimeoutError, openai.APITimeoutError):
            failure = Transient(f"{self.endpoint.url} did not answer within {timeout_s:g} s.")
        except openai.APIStatusError as error:
            self._hand_over(error.response.headers)
            said = error.body if isinstance(error.body, dict) else {"message": str(error.body or "")}
            safe = {name: self._without_key(value) for name, value in said.items()}
            failure = failure_of(error.status_code, safe, error.response.headers, self.endpoint)
        except openai.APIConnectionError as error:
            reason = self._without_key(str(error.__cause__ or "")) or type(error.__cause__).__name__
            failure = Transient(f"The connection to {self.endpoint.url} failed: {reason}")
        raise failure

    def _hand_over(self, headers: httpx2.Headers) -> None:
        if self._on_headers is not None:
            named = {name: value for name, value in headers.items() if name.startswith(("x-ratelimit-", "retry-after"))}
            if named:
                self._on_headers(named)

    def _without_key(self, value: Json) -> Json:
        if not isinstance(value, str):
            return value
        return re.sub(r"\bsk-[\w*.-]+", "…", value.replace(self._key, "…") if self._key != "none" else value)


def _parsed(content: bytes) -> Json:
    try:
        return json.loads(content)
    except ValueError:
        shown = _brief(content[:400].decode(errors="replace"))
        raise Transient(f"The answer was cut or is no JSON ({len(content)} bytes): {shown}") from None

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
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping

import httpx2
import openai

from .calls import Answer, CallError, Json, Request, Transient, Unreachable
from .chat_wire import Headers, Price, answer_in, brief, failure_of, wire_body
from .endpoint import Endpoint

_FILE_TIMEOUT_S = 1800.0
"""For a file of 200 MB, up or down."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Share:
    """A price, reduced: batches cost half."""

    price: Price
    factor: float

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        return self.factor * self.price.cost(input_tokens, output_tokens)


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
            kind = Unreachable if isinstance(error.__cause__, httpx2.ConnectError) else Transient
            failure = kind(f"The connection to {self.endpoint.url} failed: {reason}")
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
        shown = brief(content[:400].decode(errors="replace"))
        raise Transient(f"The answer was cut or is no JSON ({len(content)} bytes): {shown}") from None

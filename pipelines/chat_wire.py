"""The chat completions API as JSON: a request on its way out, an answer or an error on its way in.

Nothing here knows a socket; what an error means to us is decided here alone.
"""

from __future__ import annotations

import email.utils
import functools
import json
import re
import time
from collections.abc import Mapping
from importlib import metadata
from typing import Protocol

from .calls import Answer, CallError, Fatal, Json, RateLimited, Refused, Request, Transient, Usage
from .endpoint import Endpoint, SchemaMode
from .server_limits import duration_s

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
    usage = usage_in(body, price)
    try:
        choice = body["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason") or "stop"
        text, refusal = message.get("content"), message.get("refusal")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise Transient(f"The answer is no chat completion: {brief(body)}", usage=usage) from None
    if refusal:
        raise Refused(f"The model refused: {brief(refusal)}", kind="refusal", usage=usage)
    if finish == "length":
        raise Refused(f"The answer was cut at its length limit: {brief(text)}", kind="length", usage=usage)
    if finish == "content_filter":
        raise Refused("The server's content filter withheld the answer.", kind="content_filter", usage=usage)
    if not isinstance(text, str):
        raise Transient(f"The answer holds no text: {brief(message)}", usage=usage)
    return Answer(
        fingerprint=fingerprint,
        text=text,
        model=str(body.get("model") or ""),
        revision=body.get("system_fingerprint"),
        finish_reason=finish,
        usage=usage,
        took_s=took_s,
        created_at=time.time() if now is None else now,
        packages={"openai": _version()},
    )


@functools.cache
def _version() -> str:
    return metadata.version("openai")


def usage_in(body: Json, price: Price | None) -> Usage:
    said = body.get("usage") if isinstance(body, dict) else None
    if not isinstance(said, dict):
        return Usage()
    tokens_in, tokens_out = int(said.get("prompt_tokens") or 0), int(said.get("completion_tokens") or 0)
    cost = price.cost(tokens_in, tokens_out) if price else 0.0
    return Usage(input_tokens=tokens_in, output_tokens=tokens_out, cost_usd=cost)


def brief(value: Json) -> str:
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
    said = brief(str(error.get("message") or "no reason given"))
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

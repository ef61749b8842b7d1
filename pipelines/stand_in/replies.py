"""The replies of the stand-in in OpenAI's form: a completion, an error, or a failure that it was told to make."""

from __future__ import annotations

import dataclasses
import email.utils
import json
import math
import time
from collections.abc import Mapping
from typing import Any

from pipelines.calls import Json

from .faults import Fault
from .rules import content_for

NAME = "stand-in"
_ERRORS: dict[str, tuple[int, str, str | None, str]] = {
    "rate_limited": (429, "requests", "rate_limit_exceeded", "Rate limit reached (told to)."),
    "server_error": (500, "server_error", None, "The server had an error (told to)."),
    "bad_request": (400, "invalid_request_error", None, "The request is not valid (told to)."),
    "context_length": (
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "The maximum context length is 5 tokens.",
    ),
    "wrong_key": (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided: {key}."),
    "forbidden": (403, "invalid_request_error", "unsupported_country", "Not from here (told to)."),
    "insufficient_quota": (429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota."),
    "model_not_found": (404, "invalid_request_error", "model_not_found", "The model does not exist (told to)."),
}
"""Fault → HTTP status, type, code, message."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One HTTP answer. `is_paid` says that a model has worked for it."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    is_paid: bool = False


def completion(body: Json, fault: Fault | None = None) -> dict[str, Any]:
    """A chat completion, with what the fault does to it."""
    kind = fault.kind if fault else ""
    content: str | None = _spoiled(content_for(body), kind)
    message = {"role": "assistant", "content": content, "refusal": None}
    finish = "stop"
    if kind == "refusal":
        message = {"role": "assistant", "content": None, "refusal": "I cannot help with that."}
    elif kind in ("length", "content_filter"):
        finish = kind
        message["content"] = (content or "")[: len(content or "") // 2]
    tokens_in, tokens_out = input_tokens(body), len(message["content"] or "x") // 4 + 1
    return {
        "id": f"chatcmpl-{NAME}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": NAME,
        "system_fingerprint": f"{NAME}-1",
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
        "usage": {
            "prompt_tokens": tokens_in,
            "completion_tokens": tokens_out,
            "total_tokens": tokens_in + tokens_out,
        },
    }


def input_tokens(body: Json) -> int:
    """Tokens of a request, four letters each."""
    return sum(len(str(message.get("content"))) for message in body.get("messages", ())) // 4


def asked_tokens(body: Json) -> int:
    """What a request counts against the limit: its own tokens and the most that it lets the model answer."""
    return input_tokens(body) + int(body.get("max_completion_tokens") or body.get("max_tokens") or 16)


def reply(body: Json, fault: Fault | None = None, *, key: str = "") -> Reply:
    """The whole answer to a chat request; cuts and hangs are the connection's business."""
    if fault and fault.kind.startswith("retry_after"):
        return _told_to_wait(fault)
    if fault and fault.kind in _ERRORS:
        return error(*_ERRORS[fault.kind], key=key)
    content = json.dumps(completion(body, fault)).encode()
    if fault and fault.kind == "truncated_json":
        content = content[: len(content) // 2]
    return Reply(body=content, is_paid=True)


def error(
    status: int, kind: str, code: str | None, message: str, *, key: str = "", headers: Mapping[str, str] | None = None
) -> Reply:
    said = {"message": message.replace("{key}", key), "type": kind, "param": None, "code": code}
    return Reply(status=status, body=json.dumps({"error": said}).encode(), headers=headers or {})


def _told_to_wait(fault: Fault) -> Reply:
    seconds = fault.retry_after_s
    if fault.kind == "retry_after_date":
        headers = {"retry-after": email.utils.formatdate(math.ceil(time.time() + seconds), usegmt=True)}
    elif fault.kind == "retry_after_ms":
        headers = {"retry-after-ms": f"{1000 * seconds:g}"}
    else:
        headers = {"retry-after": f"{seconds:g}"}
    return error(*_ERRORS["rate_limited"], headers=headers)


def _spoiled(content: str, kind: str) -> str:
    """The content as a model gets it wrong."""
    if kind == "not_json":
        return f"Certainly! Here is what you asked for: {content[: len(content) // 2]}"
    if not kind.startswith("ranking_"):
        return content
    order = json.loads(content)["ranking"]
    changed = {
        "ranking_missing": order[:-1],
        "ranking_repeated": [*order[:-1], order[0]],
        "ranking_invented": [*order[:-1], "Weather"],
    }
    return json.dumps({"ranking": changed[kind]})

"""The bare call, through real sockets: every way in which a server fails becomes one typed outcome."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import pickle
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lgsrr.errors import ConfigError
from pipelines.calls import Answer, CallError, Fatal, RateLimited, Refused, Request, Transient, Unreachable
from pipelines.chat_wire import failure_of, retry_after_s, schema_mode_of, wire_body
from pipelines.endpoint import Endpoint
from pipelines.openai_client import OpenAiClient
from pipelines.stand_in.faults import Fault, Faults, Kind, faults
from pipelines.stand_in.limits import ServerLimits
from pipelines.stand_in.server import StandIn, serve

SECRET = "sk-proj-do-not-tell-0123456789"
NAMES = ["Facial Expressions", "Scene Description", "Speakers' Actions"]
SCHEMA = {
    "type": "object",
    "properties": {"ranking": {"type": "array", "items": {"type": "string", "enum": NAMES}}},
    "required": ["ranking"],
    "additionalProperties": False,
}


class HalfADollar:
    def cost(self, input_tokens: int, output_tokens: int) -> float:
        return 0.5


def request(text: str = "Rank these.", model: str = "gpt-4o-mini", **changes: Any) -> Request:
    given = {"schema": SCHEMA, "schema_name": "ranking", **changes}
    return Request(model=model, messages=({"role": "user", "content": text},), **given)


async def called(server: StandIn, asked: Request, **given: Any) -> Answer:
    client = OpenAiClient(Endpoint(base_url=server.base_url, timeout_s=given.pop("timeout_s", 60.0)), **given)
    try:
        return await client.call(asked)
    finally:
        await client.close()


def outcome(plan: Faults, asked: Request | None = None, **given: Any) -> CallError:
    """The error with which a call to a server with these faults ends."""
    with serve(faults=plan) as server, pytest.raises(CallError) as caught:
        asyncio.run(called(server, asked or request(), **given))
    return caught.value


def failing(kind: Kind, **given: Any) -> CallError:
    return outcome(faults(Fault(kind=kind, **given)))


@pytest.fixture(autouse=True)
def _a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def test_an_answer_carries_what_it_took_and_who_gave_it() -> None:
    with serve() as server:
        asked = request()
        answer = asyncio.run(called(server, asked, price=HalfADollar()))
        sent = server.seen.bodies[0]
    assert sorted(json.loads(answer.text)["ranking"]) == sorted(NAMES)
    assert answer.fingerprint == asked.fingerprint
    assert (answer.model, answer.revision) == ("stand-in", "stand-in-1")
    assert answer.usage.input_tokens > 0
    assert answer.usage.output_tokens > 0
    assert answer.usage.cost_usd == 0.5
    assert abs(answer.created_at - time.time()) < 60
    assert answer.took_s > 0
    assert "openai" in answer.packages
    assert sent["response_format"]["json_schema"] == {"name": "ranking", "schema": SCHEMA, "strict": True}


def test_a_model_without_json_schema_gets_it_in_words_and_json_mode() -> None:
    with serve() as server:
        answer = asyncio.run(called(server, request(model="gpt-3.5-turbo")))
        sent = server.seen.bodies[0]
    assert sorted(json.loads(answer.text)["ranking"]) == sorted(NAMES)
    assert sent["response_format"] == {"type": "json_object"}
    assert json.dumps(SCHEMA, ensure_ascii=False) in sent["messages"][-1]["content"]


@pytest.mark.parametrize(
    ("model", "mode"),
    [
        ("gpt-3.5-turbo", "json_object"),
        ("gpt-3.5-turbo-0125", "json_object"),
        ("gpt-3.5-turbo-0613", "none"),
        ("gpt-4", "none"),
        ("gpt-4-turbo-2024-04-09", "json_object"),
        ("gpt-4o-2024-05-13", "json_object"),
        ("gpt-4o-2024-08-06", "json_schema"),
        ("gpt-4.1-nano", "json_schema"),
        ("Qwen/Qwen3-8B", "json_schema"),
    ],
)
def test_the_way_to_ask_for_a_schema_follows_from_the_models_name(model: str, mode: str) -> None:
    assert schema_mode_of(model) == mode


def test_frames_keep_their_place_when_the_schema_is_put_into_words() -> None:
    frame = {"type": "image_url", "image_url": {"url": "data:,"}}
    asked = Request(model="any", messages=({"role": "user", "content": [frame]},), schema=SCHEMA)
    content = wire_body(asked, "none")["messages"][0]["content"]
    assert content[0] == frame
    assert "JSON schema" in content[1]["text"]
    assert asked.messages[0]["content"] == [frame]


@pytest.mark.parametrize("kind", ["retry_after_seconds", "retry_after_date", "retry_after_ms"])
@pytest.mark.parametrize("seconds", [7.0, 150.0])
def test_a_429_says_how_long_to_wait_in_any_form_and_above_two_minutes(kind: Kind, seconds: float) -> None:
    error = failing(kind, retry_after_s=seconds)
    assert isinstance(error, RateLimited)
    assert error.retry_after_s == pytest.approx(seconds, abs=1.1)


def test_a_429_that_does_not_say_how_long_is_a_rate_limit_all_the_same() -> None:
    error = failing("rate_limited")
    assert isinstance(error, RateLimited)
    assert error.retry_after_s is None


@pytest.mark.parametrize("kind", ["server_error", "cut_before", "cut_within", "truncated_json"])
def test_what_fails_in_passing_is_transient_and_was_tried_once(kind: Kind) -> None:
    with serve(faults=faults(Fault(kind=kind))) as server:
        with pytest.raises(Transient) as caught:
            asyncio.run(called(server, request()))
        assert server.seen.calls == 1
    assert not isinstance(caught.value, RateLimited | Unreachable), "it was reached, and may have been paid"


def test_a_server_that_hangs_is_given_up_after_the_time_out() -> None:
    error = outcome(faults(Fault(kind="hang")), timeout_s=0.5)
    assert isinstance(error, Transient)
    assert "0.5 s" in error.reason


def test_a_server_that_is_not_there_is_transient() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    nobody = StandIn()
    nobody.port = port
    with pytest.raises(Unreachable, match="connection"):
        asyncio.run(called(nobody, request()))


@pytest.mark.parametrize("kind", ["refusal", "length", "content_filter"])
def test_an_answer_that_cannot_be_used_is_refused_with_what_it_cost(kind: Kind) -> None:
    error = outcome(faults(Fault(kind=kind)), price=HalfADollar())
    assert isinstance(error, Refused)
    assert error.kind == kind
    assert error.usage.cost_usd == 0.5
    assert error.usage.output_tokens > 0


def test_a_bad_request_is_refused_and_one_that_is_too_long_says_so() -> None:
    bad, long = failing("bad_request"), failing("context_length")
    assert isinstance(bad, Refused)
    assert isinstance(long, Refused)
    assert (bad.kind, long.kind) == ("bad_request", "length")


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("wrong_key", "$OPENAI_API_KEY"),
        ("forbidden", "$OPENAI_API_KEY"),
        ("insufficient_quota", "billing"),
        ("model_not_found", "model's name"),
    ],
)
def test_what_no_row_can_be_answered_after_is_fatal_with_advice(kind: Kind, advice: str) -> None:
    error = failing(kind)
    assert isinstance(error, Fatal)
    assert advice in error.advice


@pytest.mark.parametrize("kind", ["ranking_missing", "ranking_repeated", "ranking_invented", "not_json"])
def test_an_answer_with_wrong_content_comes_through_as_it_is_for_the_stage_to_judge(kind: Kind) -> None:
    with serve(faults=faults(Fault(kind=kind))) as server:
        answer = asyncio.run(called(server, request()))
    with contextlib.suppress(ValueError):
        assert sorted(json.loads(answer.text)["ranking"]) != sorted(NAMES)


def test_the_key_is_in_no_message_no_cause_and_no_pickle() -> None:
    error = failing("wrong_key")  # the stand-in repeats the key in what it says
    seen: BaseException | None = error
    while seen is not None:
        assert SECRET not in f"{seen} {vars(seen)!r}"
        seen = seen.__cause__ or seen.__context__
    endpoint = Endpoint(base_url="http://localhost:1/v1")
    assert SECRET not in repr(endpoint)
    assert SECRET.encode() not in pickle.dumps(endpoint.resolved())


def test_a_missing_key_says_how_to_give_one_and_a_server_on_loopback_needs_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        OpenAiClient(Endpoint())
    with serve() as server:
        asyncio.run(called(server, request()))


def test_a_key_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("sk-of-the-file\n")

    async def ask(server: StandIn) -> None:
        client = OpenAiClient(Endpoint(base_url=server.base_url, key_file=str(file)))
        await client.call(request())
        await client.close()

    with serve() as server:
        asyncio.run(ask(server))
        assert server.seen.keys == {"sk-of-the-file"}
    for content in ("", "two words"):
        file.write_text(content)
        with pytest.raises(ConfigError, match=str(file)):
            Endpoint(key_file=str(file)).key()
    with pytest.raises(ConfigError, match="No such file"):
        Endpoint(key_file=str(tmp_path / "none")).key()


def test_a_proxy_of_the_environment_does_not_capture_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with serve() as server:
        asyncio.run(called(server, request()))
        assert server.seen.calls == 1


def test_the_limits_a_server_tells_are_handed_over_with_answers_and_with_429s() -> None:
    told: list[Mapping[str, str]] = []
    with serve(limits=ServerLimits(rpm=1, tpm=10_000)) as server:
        asyncio.run(called(server, request(), on_headers=told.append))
        with pytest.raises(RateLimited) as caught:
            asyncio.run(called(server, request(), on_headers=told.append))
    assert [headers["x-ratelimit-remaining-requests"] for headers in told] == ["0", "0"]
    assert int(told[0]["x-ratelimit-remaining-tokens"]) < 10_000
    assert all(name.startswith(("x-ratelimit-", "retry-after")) for headers in told for name in headers)
    assert caught.value.retry_after_s == pytest.approx(60, abs=30)


def test_a_date_is_taken_against_the_servers_own_clock() -> None:
    server_now = time.time() + 5000
    headers = {
        "date": email.utils.formatdate(server_now, usegmt=True),
        "retry-after": email.utils.formatdate(server_now + 90, usegmt=True),
    }
    assert retry_after_s(headers) == pytest.approx(90, abs=1)


def test_without_retry_after_the_limit_that_is_used_up_says_when_it_is_reset() -> None:
    headers = {
        "x-ratelimit-remaining-requests": "12",
        "x-ratelimit-reset-requests": "8s",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "1m2s",
    }
    assert retry_after_s(headers) == 62


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {"param": "response_format", "message": "json_schema is not supported"}, Fatal),
        (400, {"code": "unsupported_parameter", "param": "max_tokens"}, Fatal),
        (400, {"code": "content_filter"}, Refused),
        (413, {}, Refused),
        (422, {}, Refused),
        (429, {"message": "Request too large for gpt-4 on tokens per min"}, Refused),
        (429, {"type": "insufficient_quota"}, Fatal),
        (402, {}, Fatal),
        (404, {"code": 404, "type": "NotFoundError", "message": "The model `x` does not exist."}, Fatal),
        (408, {}, Transient),
        (502, {}, Transient),
        (529, {}, Transient),
    ],
)
def test_errors_of_other_servers_are_understood(status: int, error: dict[str, Any], kind: type[CallError]) -> None:
    assert type(failure_of(status, error, {}, Endpoint(base_url="http://localhost:1/v1"))) is kind

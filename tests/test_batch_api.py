"""The Batch API, through the real client and a real server: half the price, nothing twice, whatever dies on the way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipelines.answers import AnswerStore
from pipelines.batch_api import (
    NONCE,
    BatchLimits,
    BatchOutcome,
    BatchProgress,
    Submission,
    Submissions,
    run_batches,
)
from pipelines.calls import Fatal, Request, Transient
from pipelines.endpoint import Endpoint
from pipelines.openai_client import OpenAiClient
from pipelines.stand_in.faults import Fault, Kind, faults
from pipelines.stand_in.server import StandIn, serve

SCHEMA = {"type": "object", "properties": {"good": {"type": "boolean"}}, "required": ["good"]}


class Died(BaseException):
    """The driver was killed."""


class OneDollar:
    def cost(self, input_tokens: int, output_tokens: int) -> float:
        return 1.0


def requests(count: int, model: str = "gpt-4o-mini") -> list[Request]:
    return [
        Request(model=model, messages=({"role": "user", "content": f"row {number}"},), schema=SCHEMA)
        for number in range(count)
    ]


async def no_sleep(seconds: float) -> None:
    """Time flies."""


def run(
    server: StandIn,
    out: Path,
    asked: Sequence[Request],
    *,
    client: type[OpenAiClient] = OpenAiClient,
    limits: BatchLimits | None = None,
    progress: list[BatchProgress] | None = None,
) -> BatchOutcome:
    async def whole() -> BatchOutcome:
        api = client(Endpoint(base_url=server.base_url, timeout_s=60), price=OneDollar())
        try:
            return await run_batches(
                asked,
                api=api,
                answers=AnswerStore(str(out)),
                out=str(out),
                sleep=no_sleep,
                limits=limits or BatchLimits(),
                on_progress=(progress if progress is not None else []).append,
            )
        finally:
            await api.close()

    return asyncio.run(whole())


def fingerprints(asked: Sequence[Request]) -> list[str]:
    return [request.fingerprint for request in asked]


def assert_all_paid_once(server: StandIn, count: int) -> None:
    assert len(server.seen.paid_by_body) == count
    assert set(server.seen.paid_by_body.values()) == {1}


def test_every_answer_of_a_batch_is_stored_at_half_the_price(tmp_path: Path) -> None:
    asked = requests(5)
    progress: list[BatchProgress] = []
    with serve() as server:
        outcome = run(server, tmp_path, asked, progress=progress)
        sent = server.seen.bodies
    assert outcome.answered == 5
    assert outcome.left == []
    assert outcome.usage.cost_usd == 2.5
    assert sent[0]["response_format"]["json_schema"]["schema"] == SCHEMA
    assert [each.status for each in progress] == ["in_progress", "finalizing", "completed"]
    answer = AnswerStore(str(tmp_path)).get(asked[3].fingerprint)
    assert answer is not None
    assert json.loads(answer.text) == {"good": False}
    assert answer.usage.cost_usd == 0.5


def test_a_finished_batch_run_again_submits_nothing(tmp_path: Path) -> None:
    with serve() as server:
        run(server, tmp_path, requests(3))
        outcome = run(server, tmp_path, requests(3))
        assert server.seen.batches == 1
    assert (outcome.answered, outcome.left) == (0, [])


def test_requests_are_divided_by_count_by_size_and_by_model(tmp_path: Path) -> None:
    with serve() as server:
        asked = requests(7) + requests(2, "gpt-3.5-turbo")
        outcome = run(server, tmp_path / "count", asked, limits=BatchLimits(requests=3))
        assert server.seen.batches == 4
        assert outcome.answered == 9
        outcome = run(server, tmp_path / "size", asked, limits=BatchLimits(file_bytes=1000))
        assert outcome.answered == 9
        uploads = [content for batch in server.batches.batches.values() if (content := _input(server, batch))]
        assert max(map(len, uploads[4:])) <= 1000
        models = [{json.loads(line)["body"]["model"] for line in content.splitlines()} for content in uploads]
        assert all(len(names) == 1 for names in models)


def _input(server: StandIn, batch: Mapping[str, Any]) -> bytes:
    return server.batches.files[batch["input_file_id"]]


@pytest.mark.parametrize(
    ("kind", "answered"), [("batch_expired", 3), ("batch_cancelled", 3), ("batch_partial", 4), ("batch_failed", 0)]
)
def test_what_a_batch_leaves_open_is_to_be_sent_live_and_the_rest_is_kept(
    tmp_path: Path, kind: Kind, answered: int
) -> None:
    asked = requests(6)
    with serve(faults=faults(Fault(kind=kind))) as server:
        outcome = run(server, tmp_path, asked)
        assert outcome.answered == answered
        stored = AnswerStore(str(tmp_path)).fingerprints()
        assert stored | set(outcome.left) == set(fingerprints(asked))
        assert not stored & set(outcome.left)
        again = run(server, tmp_path, asked)
        assert again.left == outcome.left
        assert server.seen.batches == 1


@pytest.mark.parametrize("kind", ["refusal", "length", "server_error"])
def test_an_answer_of_a_batch_that_is_none_is_left_and_counted_where_it_was_paid(tmp_path: Path, kind: Kind) -> None:
    asked = requests(4)
    with serve(faults=faults(Fault(kind=kind, text="row 2"))) as server:
        outcome = run(server, tmp_path, asked)
    assert outcome.left == [asked[2].fingerprint]
    assert outcome.usage.cost_usd == (1.5 if kind == "server_error" else 2.0)


def dying(step: str, *, before: bool) -> type[OpenAiClient]:
    """A client whose process dies before or after a step."""

    async def step_and_die(self: OpenAiClient, *given: Any) -> Any:
        if not before:
            await getattr(OpenAiClient, step)(self, *given)
        raise Died

    return type("Dying", (OpenAiClient,), {step: step_and_die})


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("step", ["upload", "create_batch", "batch", "download"])
def test_a_driver_that_dies_at_any_step_finds_its_batch_again(tmp_path: Path, step: str, before: bool) -> None:
    asked = requests(4)
    with serve() as server:
        with pytest.raises(Died):
            run(server, tmp_path, asked, client=dying(step, before=before))
        outcome = run(server, tmp_path, asked)
        assert server.seen.batches == 1
        assert_all_paid_once(server, 4)
    assert outcome.answered == 4
    assert outcome.left == []


def test_a_driver_that_dies_while_it_stores_answers_stores_them_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = requests(4)
    stored = AnswerStore.put

    def put(self: AnswerStore, answer: Any) -> None:
        if answer.fingerprint == asked[2].fingerprint:
            raise Died
        stored(self, answer)

    with serve() as server:
        monkeypatch.setattr(AnswerStore, "put", put)
        with pytest.raises(Died):
            run(server, tmp_path, asked)
        monkeypatch.undo()
        run(server, tmp_path, asked)
        assert_all_paid_once(server, 4)
    assert AnswerStore(str(tmp_path)).fingerprints() == set(fingerprints(asked))


def test_a_batch_whose_creation_was_cut_off_is_looked_up_before_it_is_repeated(tmp_path: Path) -> None:
    with serve(faults=faults(Fault(kind="batch_cut", times=1))) as server:
        outcome = run(server, tmp_path, requests(4))
        assert server.seen.batches == 1
    assert outcome.answered == 4


def test_a_batch_is_found_on_a_later_page_of_the_accounts_batches(tmp_path: Path) -> None:
    asked = requests(2)
    with serve() as server:
        with pytest.raises(Died):
            run(server, tmp_path, asked, client=dying("create_batch", before=False))
        file_id = server.batches.add_file(b"")["id"]
        for number in range(150):
            other = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
            server.batches.create({**other, "metadata": {NONCE: str(number)} if number % 2 else None})
        outcome = run(server, tmp_path, asked)
        assert server.seen.batches == 151
    assert outcome.answered == 2


def test_a_batch_that_the_account_has_no_room_for_is_halved_and_waits_its_turn(tmp_path: Path) -> None:
    with serve(faults=faults(Fault(kind="batch_too_large", times=2))) as server:
        outcome = run(server, tmp_path, requests(8))
        assert_all_paid_once(server, 8)
    assert outcome.answered == 8
    assert outcome.left == []


def test_an_earlier_batch_that_this_run_does_not_ask_for_is_folded_in_all_the_same(tmp_path: Path) -> None:
    asked = requests(4)
    with serve() as server:
        with pytest.raises(Died):
            run(server, tmp_path, asked, client=dying("batch", before=True))
        outcome = run(server, tmp_path, asked[:1])
        assert server.seen.batches == 1
    assert outcome.answered == 1
    assert AnswerStore(str(tmp_path)).fingerprints() == set(fingerprints(asked))


def test_a_step_that_fails_in_passing_is_taken_again(tmp_path: Path) -> None:
    failed: list[str] = []

    def flaky(step: str) -> Any:
        async def once(self: OpenAiClient, *given: Any) -> Any:
            if step not in failed:
                failed.append(step)
                raise Transient("told to")
            return await getattr(OpenAiClient, step)(self, *given)

        return once

    steps = ("upload", "create_batch", "batch", "download")
    client = type("Flaky", (OpenAiClient,), {step: flaky(step) for step in steps})
    with serve() as server:
        outcome = run(server, tmp_path, requests(3), client=client)
        assert server.seen.batches == 1
    assert failed == list(steps)
    assert outcome.answered == 3


def test_a_batch_that_is_not_begun_for_want_of_quota_stops_the_job(tmp_path: Path) -> None:
    asked = requests(2)

    class NoQuota(OpenAiClient):
        async def batch(self, batch_id: str) -> Any:
            found = await super().batch(batch_id)
            error = {"code": "insufficient_quota", "message": "You exceeded your current quota."}
            return {**found, "status": "failed", "errors": {"data": [error]}}

    with serve() as server:
        with pytest.raises(Fatal, match="quota"):
            run(server, tmp_path, asked, client=NoQuota)
        assert run(server, tmp_path, asked).answered == 2


def test_a_batchs_file_keeps_its_step(tmp_path: Path) -> None:
    files = Submissions(str(tmp_path))
    assert files.all() == []
    kept = files.keep(Submission.of(requests(2)))
    assert files.all() == [kept]

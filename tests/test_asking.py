"""pipelines.asking: an answer is paid for once, a failure is met by its kind, and a stop ends every wait."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from lgsrr.errors import DataError
from pipelines.answers import AnswerStore
from pipelines.asking import Asker, RetryPolicy
from pipelines.budget_actor import Desk
from pipelines.budget_client import Budget
from pipelines.calls import Answer, Fatal, RateLimited, Refused, Request, Stopped, Transient, Unreachable, Usage
from pipelines.prices import Price
from pipelines.rate_budget import Limits
from tests.test_rate_budget import VirtualLoop, virtually

PRICE = Price(input=1000.0, output=1000.0)
PAID = Usage(input_tokens=10, output_tokens=5, cost_usd=0.01)


def request(text: str = "why?") -> Request:
    return Request(model="m", messages=({"role": "user", "content": text},), parameters={"max_tokens": 20})


class Scripted:
    """A client that fails as it is told, in this order, and then answers, each call after `seconds`."""

    def __init__(self, *failures: Exception, seconds: float = 0.1) -> None:
        self.failures, self.seconds = list(failures), seconds
        self.began: list[float] = []
        self.calls = 0

    async def call(self, request: Request) -> Answer:
        self.calls += 1
        self.began.append(now())
        await asyncio.sleep(self.seconds)
        if self.failures:
            raise self.failures.pop(0)
        return Answer(fingerprint=request.fingerprint, text="because", model="m-1", usage=PAID)

    async def close(self) -> None:
        pass


def now() -> float:
    return asyncio.get_running_loop().time()


class Bench:
    """An asker with all that it needs."""

    def __init__(self, folder: Path, client: Scripted, limits: Limits | None = None, **kwargs: Any) -> None:
        loop = asyncio.get_running_loop()
        self.client, self.store = client, AnswerStore(str(folder))
        self.desk = Desk(limits or Limits(), clock=loop.time)
        self.budget = Budget.local(self.desk)
        self.asker = Asker(client, self.budget, self.store, price=PRICE, rng=random.Random(0), **kwargs)

    async def settled(self) -> Any:
        await asyncio.sleep(1)
        return self.desk.snapshot()


Body = Callable[[Bench], Coroutine[Any, Any, None]]


def on_bench(folder: Path, client: Scripted, body: Body, limits: Limits | None = None, **kwargs: Any) -> None:
    async def run() -> None:
        bench = Bench(folder, client, limits, **kwargs)
        await body(bench)
        await bench.asker.close()
        await bench.budget.close()

    virtually(run())


def test_an_answer_is_stored_and_never_paid_for_again(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        first = await bench.asker.ask(request())
        assert bench.store.get(request().fingerprint) == first
        assert await bench.asker.ask(request()) == first
        assert (bench.client.calls, bench.asker.found, bench.asker.made) == (1, 1, 1)
        assert (await bench.settled()).counts.granted == 1

    on_bench(tmp_path, Scripted(), body)


def test_a_stored_answer_is_given_also_when_the_budget_is_used_up(tmp_path: Path) -> None:
    AnswerStore(str(tmp_path)).put(Answer(fingerprint=request().fingerprint, text="because", model="m"))

    async def body(bench: Bench) -> None:
        assert (await bench.asker.ask(request())).text == "because"
        with pytest.raises(Stopped, match="budget used up"):
            await bench.asker.ask(request("another"))
        assert bench.client.calls == 0

    on_bench(tmp_path, Scripted(), body, Limits(usd=0.0))


def test_the_same_request_asked_at_the_same_time_is_called_for_once(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        answers = await asyncio.gather(*(bench.asker.ask(request()) for _ in range(5)))
        assert bench.client.calls == 1
        assert len(set(map(id, answers))) == 1

    on_bench(tmp_path, Scripted(), body)


def test_an_asker_that_goes_away_leaves_the_others_their_answer(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        first, second = (asyncio.create_task(bench.asker.ask(request())) for _ in range(2))
        await asyncio.sleep(0.05)
        first.cancel()
        assert (await second).text == "because"
        assert bench.client.calls == 1

    on_bench(tmp_path, Scripted(), body)


def test_a_transient_failure_is_tried_again_after_a_growing_pause(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        answer = await bench.asker.ask(request())
        assert answer.attempts == 4
        assert answer.usage == PAID + PAID, "one of the failed calls cost something"
        assert 0 < answer.waited_s < 1 + 2 + 4
        assert bench.store.get(request().fingerprint) == answer
        assert (await bench.settled()).spent_usd == pytest.approx(0.02)

    failures = [Transient("503"), Transient("cut", usage=PAID), Transient("hang")]
    on_bench(tmp_path, Scripted(*failures), body)


def test_pauses_are_full_jitter_up_to_the_cap() -> None:
    rng, policy = random.Random(0), RetryPolicy()
    for failures, bound in ((1, 1.0), (3, 4.0), (7, 60.0), (2000, 60.0)):
        drawn = [policy.pause_s(failures, rng) for _ in range(200)]
        assert 0 <= min(drawn) < 0.1 * bound
        assert 0.9 * bound < max(drawn) <= bound


def test_a_request_that_fails_at_every_try_is_refused_with_what_it_cost(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        with pytest.raises(Refused, match=r"after 6 calls; the last failed: 500") as caught:
            await bench.asker.ask(request())
        assert (caught.value.kind, caught.value.usage, bench.client.calls) == ("attempts", PAID, 6)

    on_bench(tmp_path, Scripted(*(Transient("500") for _ in range(5)), Transient("500", usage=PAID)), body)


def test_a_server_that_is_away_for_a_minute_costs_no_row_and_no_try(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        back = asyncio.get_running_loop().time() + 60
        away = bench.client.call

        async def call(request: Request) -> Answer:
            if asyncio.get_running_loop().time() < back:
                raise Unreachable("no connection")
            return await away(request)

        bench.client.call = call  # type: ignore[method-assign]
        answers = await asyncio.gather(*(bench.asker.ask(request(f"{n}")) for n in range(20)))
        assert len(answers) == bench.client.calls == 20
        assert 60 <= max(answer.waited_s for answer in answers) < 60 + 8 + 1, "who waits knocks every few seconds"

    on_bench(tmp_path, Scripted(), body)


def test_a_server_that_stays_away_ends_the_job_and_sets_no_row_aside(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        with pytest.raises(Stopped, match=r"no connection It has been away for 1[23]\d s"):
            await bench.asker.ask(request())
        with pytest.raises(Stopped, match="no connection"):
            await bench.asker.ask(request("another"))

    on_bench(tmp_path, Scripted(*(Unreachable("no connection") for _ in range(400))), body)


def test_a_server_that_says_when_to_come_back_is_obeyed(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await bench.asker.ask(request())
        first, second = bench.client.began
        assert second - first == pytest.approx(17.1, abs=0.01)

    on_bench(tmp_path, Scripted(Transient("503", retry_after_s=17)), body)


def test_a_429_makes_everybody_wait_and_is_no_failed_attempt(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        answers = [asyncio.create_task(bench.asker.ask(request()))]
        await asyncio.sleep(0.2)
        answers.append(asyncio.create_task(bench.asker.ask(request("of somebody else"))))
        first, second = await asyncio.gather(*answers)
        assert all(at >= 300.1 for at in bench.client.began[1:])
        assert first.attempts == 11
        assert first.waited_s == pytest.approx(3000, abs=5)
        assert second.attempts == 1
        assert bench.desk.snapshot().counts.rate_limited == 10

    limited = [RateLimited("429", retry_after_s=300) for _ in range(10)]
    client = Scripted(*limited)
    call = client.call

    async def only_the_first(asked: Request) -> Answer:
        if asked != request():
            client.began.append(now())
            return Answer(fingerprint=asked.fingerprint, text="because", model="m", usage=PAID)
        return await call(asked)

    client.call = only_the_first  # type: ignore[method-assign,assignment]
    on_bench(tmp_path, client, body, retry=RetryPolicy(patience_s=10_000))


def test_patience_with_429s_has_an_end(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        with pytest.raises(Refused, match="429") as caught:
            await bench.asker.ask(request())
        assert caught.value.kind == "attempts"
        assert 1200 <= now() < 1200 + 7 * 100

    on_bench(tmp_path, Scripted(*(RateLimited("429", retry_after_s=100) for _ in range(99))), body)


def test_a_429_that_does_not_say_how_long_is_waited_for_longer_each_time(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await bench.asker.ask(request())
        gaps = [b - a for a, b in zip(bench.client.began, bench.client.began[1:], strict=False)]
        assert gaps == pytest.approx([1.1, 2.1, 4.1, 8.1], abs=0.05)

    on_bench(tmp_path, Scripted(*(RateLimited("429") for _ in range(4))), body)


def test_a_refusal_is_the_rows_fate_with_all_that_was_paid(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        with pytest.raises(Refused, match="I cannot") as caught:
            await bench.asker.ask(request())
        assert (caught.value.kind, caught.value.usage) == ("refusal", PAID + PAID)
        assert bench.budget.stopped is None

    on_bench(tmp_path, Scripted(Transient("cut", usage=PAID), Refused("I cannot", kind="refusal", usage=PAID)), body)


def test_a_wrong_key_stops_everybody_and_says_what_to_do(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        other = Budget.local(bench.desk)
        waiting = asyncio.create_task(other.sleep(3600))
        await asyncio.sleep(0)
        with pytest.raises(Stopped, match=r"wrong key.*set OPENAI_API_KEY"):
            await bench.asker.ask(request())
        stopped_at = now()
        with pytest.raises(Stopped, match="wrong key"):
            await waiting
        assert now() - stopped_at <= 1
        with pytest.raises(Stopped, match="wrong key"):
            await bench.asker.ask(request("another"))
        assert bench.client.calls == 1

    on_bench(tmp_path, Scripted(Fatal("wrong key", advice="set OPENAI_API_KEY")), body)


@pytest.mark.parametrize(
    ("limits", "failures"),
    [
        (Limits(rpm=1), []),
        (Limits(), [Transient("503", retry_after_s=500)]),
        (Limits(), [RateLimited("429", retry_after_s=500)]),
    ],
    ids=["for its turn", "between attempts", "after a 429"],
)
def test_a_stop_ends_every_wait_within_a_second(tmp_path: Path, limits: Limits, failures: list[Exception]) -> None:
    async def body(bench: Bench) -> None:
        asks = [asyncio.create_task(bench.asker.ask(request(str(i)))) for i in range(2)]
        await asyncio.sleep(20)
        bench.desk.stop("interrupted")
        await asyncio.sleep(1)
        assert all(ask.done() for ask in asks)
        assert any(isinstance(ask.exception(), Stopped) for ask in asks)

    on_bench(tmp_path, Scripted(*failures), body, limits)


def test_a_call_in_flight_is_let_finish_and_stored_when_the_job_stops(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        ask = asyncio.create_task(bench.asker.ask(request()))
        await asyncio.sleep(1)
        bench.budget.stop("interrupted")
        answer = await ask
        assert now() >= 30
        assert bench.store.get(request().fingerprint) == answer

    on_bench(tmp_path, Scripted(seconds=30), body)


def test_a_call_in_flight_is_stored_although_nobody_waits_for_it_any_more(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        ask = asyncio.create_task(bench.asker.ask(request()))
        await asyncio.sleep(1)
        ask.cancel()
        await bench.asker.close()
        assert bench.store.get(request().fingerprint) is not None

    on_bench(tmp_path, Scripted(seconds=30), body)


def test_a_request_that_nobody_waits_for_is_not_sent(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await bench.asker.ask(request("first"))
        ask = asyncio.create_task(bench.asker.ask(request()))
        await asyncio.sleep(1)
        ask.cancel()
        await asyncio.sleep(100)
        assert bench.client.calls == 1
        assert bench.desk.snapshot().in_flight == 0

    on_bench(tmp_path, Scripted(), body, Limits(rpm=1))


def test_who_asks_just_after_the_last_asker_has_gone_is_answered(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await bench.asker.ask(request("first"))
        gone = asyncio.create_task(bench.asker.ask(request()))
        await asyncio.sleep(1)
        gone.cancel()
        await asyncio.sleep(0)
        assert (await bench.asker.ask(request())).text == "because"

    on_bench(tmp_path, Scripted(), body, Limits(rpm=1))


def test_a_loop_that_ends_settles_what_is_in_flight_at_all_that_it_may_have_cost(tmp_path: Path) -> None:
    desks: list[Desk] = []

    async def run() -> None:
        bench = Bench(tmp_path, Scripted(seconds=30), Limits(usd=1.0))
        desks.append(bench.desk)
        ask = asyncio.create_task(bench.asker.ask(request()))
        await asyncio.sleep(1)
        bench.asker._shared[request().fingerprint].task.cancel()  # type: ignore[union-attr]
        with pytest.raises(asyncio.CancelledError):
            await ask
        await bench.budget.close()

    virtually(run())
    snapshot = desks[0].snapshot()
    assert (snapshot.in_flight, snapshot.counts.settled) == (0, 1)
    assert snapshot.spent_usd == pytest.approx(PRICE.at_most(request()))


def test_a_defect_is_not_swallowed(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        with pytest.raises(ZeroDivisionError):
            await bench.asker.ask(request())
        assert (await bench.settled()).in_flight == 0

    on_bench(tmp_path, Scripted(ZeroDivisionError()), body)


def test_where_answers_cannot_be_stored_none_more_is_paid_for(tmp_path: Path) -> None:
    (tmp_path / "answers").write_text("a file where the folder should be")

    async def body(bench: Bench) -> None:
        with pytest.raises(DataError):
            await bench.asker.ask(request())
        with pytest.raises(Stopped, match="cannot be stored"):
            await bench.asker.ask(request("another"))
        assert bench.client.calls == 1

    on_bench(tmp_path, Scripted(), body)


def test_the_budget_bounds_what_many_askers_spend(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        asks = (bench.asker.ask(request(str(i))) for i in range(100))
        done = await asyncio.gather(*asks, return_exceptions=True)
        answers = [answer for answer in done if isinstance(answer, Answer)]
        assert all(isinstance(error, Stopped) for error in done if not isinstance(error, Answer))
        assert sum(answer.usage.cost_usd for answer in answers) <= 0.2
        assert len(answers) >= 16, "each cost 0.01 and might have cost 0.04"
        assert (await bench.settled()).stopped.startswith("budget used up")

    on_bench(tmp_path, Scripted(), body, Limits(usd=0.2))


def test_time_in_these_tests_is_not_the_worlds() -> None:
    async def sleep() -> float:
        await asyncio.sleep(1e6)
        assert isinstance(asyncio.get_running_loop(), VirtualLoop)
        return now()

    assert virtually(sleep()) == pytest.approx(1e6)

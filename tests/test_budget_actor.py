"""pipelines.budget_actor: one budget for all processes, which survives the death of its actor and of its clients."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from lgsrr.errors import DataError
from pipelines.budget_actor import Desk, Message, Reply, start_budget
from pipelines.budget_client import Budget
from pipelines.calls import Stopped, Usage
from pipelines.pacing import Pacing
from pipelines.rate_budget import Limits, Snapshot
from tests.test_rate_budget import virtually

QUICK = Pacing(window_s=2.0, validity_s=0.3, horizon_s=0.3, slack_s=0.3, burst_s=0.1)
"""Limits of 2 s instead of a minute."""


def now() -> float:
    return asyncio.get_running_loop().time()


def desk(limits: Limits, **kwargs: Any) -> Desk:
    return Desk(limits, clock=asyncio.get_running_loop().time, **kwargs)


# The client, in a time of its own


def slow_way(to: Desk, there_s: float, back_s: float) -> Callable[[Message], Awaitable[Reply]]:
    async def exchange(message: Message) -> Reply:
        await asyncio.sleep(there_s)
        reply = to.exchange(message)
        await asyncio.sleep(back_s)
        return reply

    return exchange


def test_requests_that_wait_together_go_in_one_message() -> None:
    async def run() -> None:
        messages: list[Message] = []
        at = desk(Limits())

        async def exchange(message: Message) -> Reply:
            messages.append(message)
            return at.exchange(message)

        budget = Budget(exchange)
        reservations = await asyncio.gather(*(budget.reserve(10) for _ in range(50)))
        for reservation in reservations:
            budget.settle(reservation, Usage(input_tokens=1))
        await budget.close()
        assert len(messages) == 2
        assert at.snapshot().counts.settled == 50

    virtually(run())


def test_a_client_with_nothing_to_do_says_nothing() -> None:
    async def run() -> None:
        messages: list[Message] = []
        at = desk(Limits())

        async def exchange(message: Message) -> Reply:
            messages.append(message)
            return at.exchange(message)

        budget = Budget(exchange)
        budget.settle(await budget.reserve(10), Usage())
        await asyncio.sleep(1)
        before = len(messages)
        await asyncio.sleep(1000)
        assert len(messages) == before

    virtually(run())


def test_a_permission_that_comes_too_late_is_given_back_and_asked_for_again() -> None:
    async def run() -> None:
        at = desk(Limits(rpm=600))
        delays = [2.0, 2.0, 0.01]

        async def exchange(message: Message) -> Reply:
            reply = at.exchange(message)
            await asyncio.sleep(delays.pop(0) if delays else 0.01)
            return reply

        budget = Budget(exchange)
        await budget.reserve(10)
        assert at.snapshot().counts.granted == 3
        assert at.snapshot().counts.released == 2
        assert at.snapshot().in_flight == 1
        await budget.close()

    virtually(run())


def test_a_call_is_never_made_before_its_moment() -> None:
    async def run() -> None:
        budget = Budget(slow_way(desk(Limits(rpm=60)), 0.1, 0.2))
        moments = []
        for _ in range(5):
            await budget.reserve(10)
            moments.append(now())
        assert all(later - sooner > 0.9 for sooner, later in itertools.pairwise(moments[1:]))
        await budget.close()

    virtually(run())


def test_somebody_who_gives_up_waiting_leaves_nothing_behind() -> None:
    async def run() -> None:
        at = desk(Limits(concurrency=1))
        budget = Budget.local(at)
        held = await budget.reserve(10)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(budget.reserve(10), 5)
        budget.settle(held, Usage())
        await asyncio.wait_for(budget.reserve(10), 1)
        assert at.snapshot().in_flight == 1
        await budget.close()

    virtually(run())


def test_a_pause_that_one_client_asks_for_holds_for_all() -> None:
    async def run() -> None:
        at = desk(Limits())
        first, second = Budget.local(at), Budget.local(at)
        first.pause(200, "429")
        await asyncio.sleep(0.1)
        await asyncio.gather(first.reserve(1), second.reserve(1))
        assert now() == pytest.approx(200, abs=0.2)

    virtually(run())


def test_a_stop_reaches_all_clients_within_a_second() -> None:
    async def run() -> None:
        at = desk(Limits(concurrency=1))
        first, second = Budget.local(at), Budget.local(at)
        await first.reserve(1)
        waiting = asyncio.create_task(second.reserve(1))
        await asyncio.sleep(30.3)
        first.stop("wrong key")
        with pytest.raises(Stopped, match="wrong key"):
            await waiting
        assert now() <= 31.3
        with pytest.raises(Stopped, match="wrong key"):
            await first.sleep(100)

    virtually(run())


def test_a_defect_on_the_way_reaches_whoever_waits() -> None:
    async def run() -> None:
        async def exchange(message: Message) -> Reply:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await Budget(exchange).reserve(1)

    virtually(run())


def test_headers_reach_the_budget() -> None:
    async def run() -> None:
        at = desk(Limits(rpm=600))
        budget = Budget.local(at)
        budget.settle(await budget.reserve(1), Usage(), {"x-ratelimit-limit-requests": "60"})
        await budget.close()
        assert at.snapshot().rpm == 60

    virtually(run())


def test_a_client_tells_a_new_life_of_the_budget_what_it_has_in_flight() -> None:
    async def run() -> None:
        desks = [desk(Limits(concurrency=2))]

        async def exchange(message: Message) -> Reply:
            return desks[-1].exchange(message)

        budget = Budget(exchange)
        await budget.reserve(1)
        done = await budget.reserve(1)
        desks.append(desk(Limits(concurrency=2), recovered=True))
        await asyncio.sleep(2)
        assert desks[-1].snapshot().in_flight == 2
        budget.settle(done, Usage())
        await asyncio.sleep(2)
        assert desks[-1].snapshot().in_flight == 1
        await budget.close()

    virtually(run())


# The mark


def test_after_a_crash_all_dollars_that_may_have_been_spent_are_spent(tmp_path: Path) -> None:
    mark = str(tmp_path / "budget" / "spent.json")

    async def run() -> None:
        limits = Limits(usd=1.0)
        first = desk(limits, spent_before=0.25, mark_at=mark)
        await Budget.local(first).reserve(1, usd=0.5)
        after = desk(limits, spent_before=0.25, mark_at=mark).snapshot()
        assert 0.75 <= after.spent_usd <= 0.77
        assert desk(limits, spent_before=0.9, mark_at=mark).snapshot().spent_usd == 0.9

    virtually(run())


def test_a_job_that_ends_well_leaves_a_mark_of_what_it_spent(tmp_path: Path) -> None:
    mark = str(tmp_path / "spent.json")

    async def run() -> None:
        limits = Limits(usd=1.0)
        budget = Budget.local(desk(limits, mark_at=mark))
        budget.settle(await budget.reserve(1, usd=0.5), Usage(cost_usd=0.125))
        await budget.close()
        assert desk(limits, mark_at=mark).snapshot().spent_usd == 0.125

    virtually(run())


def test_a_mark_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    mark = tmp_path / "spent.json"
    mark.write_text("much")
    with pytest.raises(DataError, match=r"spent\.json.*Remove it"):
        Desk(Limits(usd=1.0), mark_at=str(mark))


# The actor

RPM = 40
USD = 0.5


def call_for(handle: Any, seconds: float, at: str) -> None:
    """A process that makes calls as fast as it may, each for 0.005 dollars, and writes down when."""

    async def run() -> None:
        budget = Budget.of_actor(handle)

        async def work() -> None:
            while time.time() < until:
                reservation = await budget.reserve(10, usd=0.01)
                moments.append(time.time())
                await asyncio.sleep(0.05)
                budget.settle(reservation, Usage(input_tokens=5, cost_usd=0.005))

        await asyncio.gather(*(work() for _ in range(4)), return_exceptions=True)
        await budget.close()

    moments: list[float] = []
    until = time.time() + seconds
    asyncio.run(run())
    Path(at).write_text(json.dumps(moments))


def snapshot_of(handle: Any) -> Snapshot:
    import ray

    while True:
        try:
            found: Snapshot = ray.get(handle.snapshot.remote())
            return found
        except ray.exceptions.RayActorError:
            time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_the_limits_hold_through_the_death_of_the_actor(tmp_path: Path) -> None:
    import ray

    limits = Limits(rpm=RPM, usd=USD)
    handle = start_budget("death", limits, mark_at=str(tmp_path / "spent.json"), pacing=QUICK)
    same = start_budget("death", limits, mark_at=str(tmp_path / "spent.json"), pacing=QUICK)
    assert same._actor_id == handle._actor_id, "one of a name"
    process = ray.remote(call_for).options(num_cpus=0)
    running = [process.remote(handle, 12.0, str(tmp_path / f"{i}.json")) for i in range(3)]
    while snapshot_of(handle).counts.granted < 20:
        time.sleep(0.05)
    ray.kill(handle, no_restart=False)
    killed_at = time.time()
    ray.get(running)

    moments = sorted(at for i in range(3) for at in json.loads((tmp_path / f"{i}.json").read_text()))
    for first, at in enumerate(moments):
        assert sum(at <= other < at + QUICK.window_s for other in moments[first:]) <= RPM
    assert any(at > killed_at + 1 for at in moments), "it goes on"
    after = snapshot_of(handle)
    assert after.spent_usd + after.reserved_usd <= USD + 1e-9
    assert 0.005 * len(moments) <= after.spent_usd + 1e-9, "no dollar that was spent is forgotten"
    assert after.in_flight == 0


@pytest.mark.usefixtures("ray_cluster")
def test_a_job_that_is_stopped_stops_in_every_process(tmp_path: Path) -> None:
    import ray

    handle = start_budget("stop", Limits(rpm=RPM), pacing=QUICK)
    process = ray.remote(call_for).options(num_cpus=0)
    running = [process.remote(handle, 60.0, str(tmp_path / f"{i}.json")) for i in range(2)]
    while snapshot_of(handle).counts.granted < 5:
        time.sleep(0.05)
    handle.stop.remote("interrupted")
    stopped_at = time.time()
    ray.get(running)
    assert time.time() - stopped_at < 5
    assert snapshot_of(handle).stopped == "interrupted"

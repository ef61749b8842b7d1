"""pipelines.rate_budget: no window of 60 s holds more than the limits, no dollar too many, hardly a send too few."""

from __future__ import annotations

import asyncio
import dataclasses
import heapq
import itertools
import logging
import math
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lgsrr.errors import ConfigError, DataError
from pipelines.budget_actor import Desk, Message, Reply
from pipelines.budget_client import Budget
from pipelines.calls import Stopped, Usage
from pipelines.rate_budget import LOST_S, Lease, Limits, RateBudget, Wanted
from pipelines.server_limits import ServerLimits, duration_s

T = TypeVar("T")
WINDOW_S = 60.0


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer whenever nothing else is to be done: nobody sleeps."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """At once, in no time."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _run_once(self) -> None:
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0].cancelled() and not self._ready:  # type: ignore[attr-defined]
            heapq.heappop(scheduled)._scheduled = False  # type: ignore[attr-defined]
            self._timer_cancelled_count -= 1  # type: ignore[attr-defined]
        if scheduled and not self._ready:  # type: ignore[attr-defined]
            self.now = max(self.now, scheduled[0].when())
        super()._run_once()  # type: ignore[misc]


def virtually(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine gives, in a time of its own."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(coroutine)


def wanted(count: int, *, tokens: int = 100, usd: float = 0.0, first: int = 1) -> list[Wanted]:
    return [Wanted(number, tokens, usd) for number in range(first, first + count)]


def drain(budget: RateBudget, clock: Clock, count: int, *, tokens: int = 100, usd: float = 0.0) -> list[float]:
    """Moments at which one client that comes back when it is told to may send."""
    moments: list[float] = []
    while len(moments) < count:
        lease = budget.lease("a", wanted(count - len(moments), tokens=tokens, usd=usd, first=len(moments) + 1))
        assert lease.stopped is None
        moments += [clock.now + delay for delay in lease.delays_s]
        clock.now += max(lease.wait_s, 1e-3)
    return moments


# Pacing


def test_without_limits_everything_may_go_at_once() -> None:
    lease = RateBudget(Limits(), clock=Clock()).lease("a", wanted(500))
    assert lease == Lease((0.0,) * 500, 0.0, 0.0, None)


def test_sends_are_spread_evenly() -> None:
    clock = Clock()
    moments = drain(RateBudget(Limits(rpm=60), clock=clock), clock, 50)
    gaps = [later - sooner for sooner, later in itertools.pairwise(moments)]
    assert min(gaps) > 0.5
    assert max(gaps[1:]) < 1.1


def test_a_send_is_granted_no_more_than_a_second_ahead() -> None:
    lease = RateBudget(Limits(rpm=6), clock=Clock()).lease("a", wanted(3))
    assert len(lease.delays_s) == 1
    assert 8 < lease.wait_s < 10


def test_a_request_larger_than_the_limit_goes_alone_in_its_window() -> None:
    clock = Clock()
    budget = RateBudget(Limits(tpm=1000), clock=clock)
    first, second = drain(budget, clock, 2, tokens=5000)
    assert second - first >= WINDOW_S


def test_settled_tokens_make_room() -> None:
    clock = Clock()
    budget = RateBudget(Limits(tpm=6000), clock=clock)
    assert len(budget.lease("a", wanted(1, tokens=6000)).delays_s) == 1
    assert budget.lease("a", wanted(1, tokens=1000, first=2)).delays_s == ()
    budget.settle("a", 1, Usage(input_tokens=5, output_tokens=5))
    assert budget.lease("a", wanted(1, tokens=1000, first=2)).delays_s == (0.0,)


def test_a_large_request_gets_its_turn_among_small_ones() -> None:
    clock = Clock()
    budget = RateBudget(Limits(tpm=10_000), clock=clock)
    served_at = None
    for step in range(3000):
        clock.now += 0.1
        small = budget.lease("small", wanted(1, tokens=100, first=step + 10))
        assert len(small.delays_s) <= 1
        if served_at is None and budget.lease("large", wanted(1, tokens=8000)).delays_s:
            served_at = clock.now - 1000
    assert served_at is not None
    assert served_at < 130


def test_clients_share_what_there_is() -> None:
    clock = Clock()
    budget = RateBudget(Limits(rpm=600), clock=clock)
    got = dict.fromkeys("abcd", 0)
    for step in range(2400):
        clock.now += 0.05
        name = random.Random(step).choice("abcd")
        got[name] += len(budget.lease(name, wanted(50, first=100 * step)).delays_s)
    assert min(got.values()) > 0.2 * sum(got.values())


# Calls in flight


def test_no_more_calls_are_in_flight_than_allowed() -> None:
    budget = RateBudget(Limits(concurrency=3), clock=Clock())
    assert len(budget.lease("a", wanted(5)).delays_s) == 3
    assert budget.lease("b", wanted(1)).delays_s == ()
    budget.settle("a", 2, Usage())
    assert len(budget.lease("b", wanted(2)).delays_s) == 1


def test_what_a_dead_client_held_is_given_back_and_its_dollars_count_as_spent() -> None:
    clock = Clock()
    budget = RateBudget(Limits(concurrency=1, usd=1.0), clock=clock)
    budget.lease("dead", wanted(1, usd=0.25))
    clock.now += LOST_S / 2
    assert budget.lease("b", wanted(1)).delays_s == ()
    clock.now += LOST_S / 2
    assert budget.lease("b", wanted(1)).delays_s == (0.0,)
    assert budget.snapshot().spent_usd == 0.25
    assert budget.counts.lost == 1


def test_a_client_taken_for_dead_that_speaks_again_settles_what_it_had() -> None:
    clock = Clock()
    budget = RateBudget(Limits(usd=1.0), clock=clock)
    budget.lease("slow", wanted(1, usd=0.25))
    clock.now += 2 * LOST_S
    budget.lease("b", ())
    budget.hear("slow")
    budget.settle("slow", 1, Usage(cost_usd=0.125))
    assert (budget.snapshot().spent_usd, budget.snapshot().in_flight, budget.counts.lost) == (0.125, 0, 0)


def test_a_message_that_comes_twice_changes_nothing() -> None:
    budget = RateBudget(Limits(concurrency=2, usd=1.0), clock=Clock())
    for _ in range(2):
        assert len(budget.lease("a", wanted(2, usd=0.25)).delays_s) == 2
    for _ in range(2):
        budget.settle("a", 1, Usage(cost_usd=0.125))
    assert budget.snapshot().in_flight == 1
    assert (budget.snapshot().spent_usd, budget.snapshot().reserved_usd) == (0.125, 0.25)


# Dollars


def test_dollars_that_may_be_needed_are_never_more_than_the_limit() -> None:
    budget = RateBudget(Limits(usd=1.0), clock=Clock(), spent_before=0.5)
    assert len(budget.lease("a", wanted(5, usd=0.2)).delays_s) == 2
    assert budget.lease("a", wanted(1, usd=0.2, first=9)).stopped is None, "a call in flight may turn out cheaper"
    budget.settle("a", 1, Usage(cost_usd=0.1))
    assert len(budget.lease("a", wanted(1, usd=0.2, first=9)).delays_s) == 1


def test_a_used_up_budget_stops_everybody_and_says_how_to_go_on() -> None:
    budget = RateBudget(Limits(usd=1.0), clock=Clock(), spent_before=0.9)
    budget.lease("a", wanted(1, usd=0.2))
    for client in "ab":
        reason = budget.lease(client, ()).stopped
        assert reason is not None
        assert reason.startswith("budget used up")
        assert "--budget-usd" in reason


def test_an_unknown_usage_counts_as_all_that_was_reserved() -> None:
    budget = RateBudget(Limits(usd=1.0), clock=Clock())
    budget.lease("a", wanted(1, usd=0.25))
    budget.settle("a", 1, None)
    assert budget.snapshot().spent_usd == 0.25


def test_dollars_are_noted_before_they_may_be_spent() -> None:
    notes: list[float] = []
    budget = RateBudget(Limits(usd=10.0), clock=Clock(), note_spending=notes.append)
    for number in range(100):
        budget.lease("a", [Wanted(number, 10, 0.01)])
        assert notes[-1] >= 0.01 * (number + 1) - 1e-9
    assert len(notes) < 15


def test_nothing_is_spent_that_cannot_be_noted() -> None:
    def fail(usd: float) -> None:
        raise DataError("/out/spent.json: cannot be written: No space left on device.")

    lease = RateBudget(Limits(usd=10.0), clock=Clock(), note_spending=fail).lease("a", wanted(2, usd=0.01))
    assert lease.delays_s == ()
    assert lease.stopped is not None
    assert "No space left" in lease.stopped


# Pauses


def test_a_retry_after_pauses_everybody(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    budget = RateBudget(Limits(), clock=clock)
    with caplog.at_level(logging.WARNING):
        budget.pause(400, "429 from the server")
    lease = budget.lease("b", wanted(1))
    assert (lease.delays_s, lease.paused_s, lease.wait_s) == ((), 400, 399)
    assert "400 s" in caplog.text, "a wait above two minutes is said"
    clock.now += 400
    assert budget.lease("b", wanted(1)).delays_s == (0.0,)


def test_a_429_that_does_not_say_how_long_slows_everybody_more_each_time() -> None:
    clock = Clock()
    budget = RateBudget(Limits(), clock=clock)
    pauses = []
    for _ in range(8):
        for _ in range(10):
            budget.pause(None, "429")  # of ten calls in flight
        pauses.append(budget.snapshot().paused_s)
        clock.now += pauses[-1]
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60])
    assert budget.counts.rate_limited == 80
    clock.now += 61
    budget.pause(None, "429")
    assert budget.snapshot().paused_s == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("6m0s", 360), ("1.2s", 1.2), ("20ms", 0.02), ("1h2m3.5s", 3723.5), ("12", 12), ("1d", 86400), ("0", 0)],
)
def test_a_reset_is_read_in_any_of_its_forms(text: str, seconds: float) -> None:
    assert duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", None, "soon", "-1", "5x", "2026-11-23T00:00:00Z"])
def test_what_is_no_duration_is_none(text: str | None) -> None:
    assert duration_s(text) is None


def headers(left: int, reset: str, limit: int = 60) -> ServerLimits:
    said = ServerLimits.from_headers(
        {
            "x-ratelimit-limit-requests": str(limit),
            "x-ratelimit-remaining-requests": str(left),
            "x-ratelimit-reset-requests": reset,
        }
    )
    assert said is not None
    return said


def test_a_lower_limit_of_the_server_wins() -> None:
    budget = RateBudget(Limits(rpm=600), clock=Clock())
    budget.follow(headers(50, "1s", limit=60))
    assert budget.snapshot().rpm == 60
    budget.follow(headers(50, "1s", limit=10_000))
    assert budget.snapshot().rpm == 600


def test_a_server_that_has_little_left_is_waited_for() -> None:
    clock = Clock()
    budget = RateBudget(Limits(rpm=60), clock=clock)
    budget.follow(headers(1, "20s"), age_s=5)  # somebody else with the same key
    moments = [moment - 1000 for moment in drain(budget, clock, 3)]
    assert moments[0] == 0
    assert moments[1] >= 15


def test_what_our_own_sends_explain_is_not_waited_for() -> None:
    clock = Clock()
    budget = RateBudget(Limits(rpm=60), clock=clock)
    drain(budget, clock, 59)
    budget.follow(headers(1, "60s"))
    assert budget.lease("a", wanted(1, first=99)).wait_s < 2


@pytest.mark.parametrize("value", ["-1", "0", "many", ""])
def test_headers_that_say_nothing_change_nothing(value: str) -> None:
    assert ServerLimits.from_headers({"x-ratelimit-limit-tokens": value}) is None


def test_after_a_restart_the_last_minute_counts_as_used_up() -> None:
    clock = Clock()
    budget = RateBudget(Limits(rpm=60, concurrency=2), clock=clock, recovered=True)
    budget.hold("a", [4, 5])
    assert budget.lease("b", wanted(1)).delays_s == ()
    clock.now += 62
    budget.hear("a")
    assert budget.lease("b", wanted(1)).delays_s == (), "two calls are in flight still"
    clock.now += 1
    budget.settle("a", 4, Usage(cost_usd=1.0))
    assert len(budget.lease("b", wanted(1)).delays_s) == 1
    assert budget.snapshot().spent_usd == 0, "those dollars were in the mark"


@pytest.mark.parametrize("wrong", [{"rpm": 0}, {"tpm": -1}, {"concurrency": 0}, {"usd": -0.1}, {"usd": math.nan}])
def test_a_limit_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Limits(**wrong)


# Any schedule


@dataclasses.dataclass(slots=True)
class Granted:
    client: int
    life: int
    number: int
    tokens: int
    usd: float
    earliest: float
    latest: float
    sent_at: float | None = None
    settled: bool = False


class World:
    """Clients that do anything in any order, and a record of what reached the server."""

    def __init__(self, limits: Limits, rng: random.Random) -> None:
        self.limits, self.rng, self.clock = limits, rng, Clock()
        self.mark = 0.0
        self.life = 0
        self.budget = self.make(recovered=False)
        self.names = [0, 1, 2]
        self.granted: list[Granted] = []
        self.number = 0
        self.spent = 0.0

    def make(self, *, recovered: bool) -> RateBudget:
        return RateBudget(
            self.limits, clock=self.clock, spent_before=self.mark, recovered=recovered, note_spending=self.note
        )

    def note(self, usd: float) -> None:
        self.mark = usd

    def step(self, kind: str) -> None:
        getattr(self, f"do_{kind}")()
        self.send()

    def do_wait(self) -> None:
        for seconds in self.rng.choice([(0.0,), (0.01,), (0.3,), (1.0,), (5.0,), (40.0,), (30.0, 31.0)]):
            self.clock.now += seconds
            for name in self.names:
                self.budget.hear(str(name))

    def do_lease(self) -> None:
        client = self.rng.choice(self.names)
        new = [
            Wanted(self.number + i, self.rng.choice([1, 50, 300, 2000]), self.rng.choice([0.0, 0.01, 0.3]))
            for i in range(self.rng.randint(1, 8))
        ]
        self.number += len(new)
        lease = self.budget.lease(str(client), new)
        for want, delay_s in zip(new, lease.delays_s, strict=False):
            assert delay_s <= 1.0
            at = self.clock.now + delay_s
            self.granted.append(Granted(client, self.life, *want, earliest=at, latest=at + 1.0))

    def do_settle(self) -> None:
        sent = [g for g in self.granted if g.sent_at is not None and not g.settled and g.client in self.names]
        for granted in self.rng.sample(sent, min(len(sent), 3)):
            granted.settled = True
            real = self.rng.randint(0, granted.tokens)
            usd = granted.usd * self.rng.random()
            self.spent += usd
            self.budget.settle(str(granted.client), granted.number, Usage(input_tokens=real, cost_usd=usd))
            granted.tokens, granted.usd = real, usd

    def do_release(self) -> None:
        unsent = [g for g in self.granted if g.sent_at is None and not g.settled and g.client in self.names]
        for granted in unsent[:2]:
            granted.settled = True
            self.budget.release(str(granted.client), granted.number)

    def do_pause(self) -> None:
        self.budget.pause(self.rng.choice([None, 0.5, 30.0]), "429")

    def do_crash(self) -> None:
        """A client dies; what it had may be under way, and nobody will ever say what it cost."""
        self.names[self.rng.randrange(3)] = 1 + max(self.names)

    def do_restart(self) -> None:
        self.life += 1
        self.budget = self.make(recovered=True)
        for name in self.names:
            in_flight = [g.number for g in self.granted if g.client == name and not g.settled]
            self.budget.hold(str(name), in_flight)

    def send(self) -> None:
        """Each granted send is made at some moment of its validity, late ones and dead clients' among them."""
        for granted in self.granted:
            if granted.sent_at is None and not granted.settled and granted.earliest <= self.clock.now:
                granted.sent_at = self.rng.choice([granted.earliest, granted.latest, self.rng.uniform(0, 1)])
                if granted.sent_at < granted.earliest:
                    granted.sent_at += granted.earliest

    def check(self) -> None:
        sent = sorted((g.sent_at, index) for index, g in enumerate(self.granted) if g.sent_at is not None)
        window: deque[int] = deque()
        tokens = 0
        for at, index in sent:
            window.append(index)
            tokens += self.charged(index)
            while (first := self.granted[window[0]].sent_at) is not None and first <= at - WINDOW_S:
                tokens -= self.charged(window.popleft())
            assert self.limits.rpm is None or len(window) <= self.limits.rpm
            assert self.limits.tpm is None or tokens <= self.limits.tpm
        if self.limits.usd is not None:
            assert sum(g.usd for g in self.granted if g.sent_at is not None or not g.settled) <= self.limits.usd + 1e-9
            snapshot = self.budget.snapshot()
            assert snapshot.spent_usd + snapshot.reserved_usd <= self.limits.usd + 1e-9
        if self.limits.concurrency is not None:
            alive = [g for g in self.granted if not g.settled and g.client in self.names]
            assert len(alive) <= self.limits.concurrency

    def charged(self, index: int) -> int:
        return min(self.granted[index].tokens, self.limits.tpm or 10**9)


KINDS = ["lease", "lease", "lease", "wait", "wait", "settle", "settle", "release", "pause", "crash", "restart"]


@settings(max_examples=100, deadline=None)
@given(
    rpm=st.sampled_from([None, 1, 3, 20, 200]),
    tpm=st.sampled_from([None, 100, 1000, 20_000]),
    concurrency=st.sampled_from([None, 1, 5]),
    usd=st.sampled_from([None, 0.3, 2.0]),
    kinds=st.lists(st.sampled_from(KINDS), min_size=20, max_size=120),
    seed=st.integers(0, 2**32),
)
def test_no_schedule_of_clients_exceeds_a_limit(
    rpm: int | None, tpm: int | None, concurrency: int | None, usd: float | None, kinds: list[str], seed: int
) -> None:
    world = World(Limits(rpm=rpm, tpm=tpm, concurrency=concurrency, usd=usd), random.Random(seed))
    for kind in kinds:
        world.step(kind)
        world.check()


# How much of the allowed rate is used


class Sliding:
    """A server that counts what came in the last 60 s."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.came: deque[tuple[float, int]] = deque()
        self.total = 0

    def takes(self, now: float, amount: int) -> bool:
        while self.came and self.came[0][0] <= now - WINDOW_S:
            self.total -= self.came.popleft()[1]
        if self.total + amount > self.limit:
            return False
        self.came.append((now, amount))
        self.total += amount
        return True

    def headers(self, now: float) -> tuple[int, float]:
        return self.limit - self.total, WINDOW_S


class Bucket:
    """A server that lets a bucket of a minute's worth run full again, evenly."""

    def __init__(self, limit: int) -> None:
        self.limit, self.level, self.at = limit, float(limit), 0.0

    def takes(self, now: float, amount: int) -> bool:
        self.level = min(self.limit, self.level + (now - self.at) * self.limit / WINDOW_S)
        self.at = now
        if self.level < amount:
            return False
        self.level -= amount
        return True

    def headers(self, now: float) -> tuple[int, float]:
        return int(self.level), (self.limit - self.level) / self.limit * WINDOW_S


class Fixed(Sliding):
    """A server that counts anew with every minute."""

    def takes(self, now: float, amount: int) -> bool:
        while self.came and self.came[0][0] // WINDOW_S < now // WINDOW_S:
            self.total -= self.came.popleft()[1]
        return super().takes(now, amount)


def used_share(server: Sliding | Bucket, limits: Limits, *, tokens: bool, says: bool, clients: int = 8) -> float:
    """The part of the allowed rate that 8 clients use between minutes 1 and 3; fails at the first 429."""
    rng = random.Random(7)
    taken = 0

    async def work(budget: Budget, loop: VirtualLoop) -> NoReturn:
        nonlocal taken
        while True:
            estimate = rng.randint(200, 600)
            reservation = await budget.reserve(estimate)
            if loop.now > 3 * WINDOW_S:
                budget.stop("enough")
            await asyncio.sleep(rng.uniform(0, 0.2))
            amount = estimate if tokens else 1
            assert server.takes(loop.now, amount), f"429 after {loop.now:.2f} s"
            if WINDOW_S <= loop.now < 3 * WINDOW_S:
                taken += amount
            left, reset_s = server.headers(loop.now)
            what = "tokens" if tokens else "requests"
            await asyncio.sleep(rng.uniform(0.2, 1.5))
            said = {f"x-ratelimit-remaining-{what}": str(left), f"x-ratelimit-reset-{what}": f"{reset_s:.3f}s"}
            budget.settle(reservation, Usage(input_tokens=estimate), said if says else None)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        desk = Desk(limits, clock=loop.time)

        async def exchange(message: Message) -> Reply:
            await asyncio.sleep(rng.uniform(0.0005, 0.005))
            reply = desk.exchange(message)
            await asyncio.sleep(rng.uniform(0.0005, 0.02))
            return reply

        budgets = [Budget(exchange) for _ in range(clients)]
        ended = await asyncio.gather(*(work(b, loop) for b in budgets for _ in range(4)), return_exceptions=True)
        for error in ended:
            if not isinstance(error, Stopped):
                raise error
        await asyncio.gather(*(budget.close() for budget in budgets))

    virtually(run())
    return taken / (2 * server.limit)


@pytest.mark.parametrize("says", [False, True], ids=["silent", "with headers"])
@pytest.mark.parametrize("kind", [Sliding, Bucket, Fixed])
@pytest.mark.parametrize("rpm", [60, 600])
def test_95_percent_of_the_requests_allowed_are_made_without_a_429(
    kind: type[Sliding | Bucket], rpm: int, says: bool
) -> None:
    assert used_share(kind(rpm), Limits(rpm=rpm), tokens=False, says=says) >= 0.95


@pytest.mark.parametrize("kind", [Sliding, Bucket])
def test_95_percent_of_the_tokens_allowed_are_used_without_a_429(kind: type[Sliding | Bucket]) -> None:
    assert used_share(kind(100_000), Limits(tpm=100_000), tokens=True, says=True) >= 0.95

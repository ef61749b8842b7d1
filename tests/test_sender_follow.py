"""One sender that follows a whole spool: all runs of a driver, in order, without a look at what has not changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lgsrr.destination import TrackingConfig, spool_folder
from lgsrr.sender import Sender, SinkAwayError
from lgsrr.spool import Event, Journal, Metrics, RunFinished, RunStarted
from lgsrr.tracker import Tracker
from tests.memory_sink import MemorySink


def start(run_key: str, parent: str | None = None, destination: str = "http://nowhere") -> RunStarted:
    return RunStarted(
        run_key=run_key, destination=destination, experiment="e", name=run_key, parent_run_key=parent, time_ms=1
    )


def point(step: int) -> Metrics:
    return Metrics(values={"f1": 0.5}, step=step, time_ms=step)


END = RunFinished(status="FINISHED", time_ms=9)


def append(folder: Path, run_key: str, *events: Event) -> Journal:
    journal = Journal(folder, run_key)
    for event in events:
        journal.append(event)
    return journal


class PartlyAway(MemorySink):
    """A sink that does not answer for one destination."""

    def __init__(self, gone: str) -> None:
        super().__init__()
        self.gone = gone
        self.asked = 0

    def deliver(self, run: RunStarted, event: Event) -> None:
        if run.destination == self.gone:
            self.asked += 1
            raise SinkAwayError("is gone")
        super().deliver(run, event)


Follow = Callable[..., Sender]


@pytest.fixture
def follow(tmp_path: Path) -> Iterator[Follow]:
    """Starts senders that follow the spool in `tmp_path`; they are stopped when the test ends."""
    started: list[Sender] = []

    def begin(sink: MemorySink, **options: object) -> Sender:
        sender = Sender(tmp_path, sink, follow=True, **options)  # type: ignore[arg-type]
        sender.start()
        started.append(sender)
        return sender

    yield begin
    for sender in started:
        sender.stop()


def eventually(claim: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_runs_that_grow_side_by_side_are_each_delivered_in_order(tmp_path: Path, follow: Follow) -> None:
    sink = MemorySink()
    sender = follow(sink)
    keys = [f"run{number}" for number in range(40)]
    for event in (None, point(1), point(2), END):
        for key in keys:
            append(tmp_path, key, start(key) if event is None else event)
            sender.notify(key)
    assert sender.flush(20) == 0
    for key in keys:
        assert [event for run_key, event in sink.events if run_key == key] == [start(key), point(1), point(2), END]
    eventually(lambda: list(tmp_path.glob("*.jsonl")) == [])


def test_parents_are_delivered_before_their_children(tmp_path: Path, follow: Follow) -> None:
    sink = MemorySink()
    append(tmp_path, "c", start("c", "b"))
    append(tmp_path, "b", start("b", "a"))
    append(tmp_path, "a", start("a"))
    sender = follow(sink)
    eventually(lambda: len(sink.events) == 3)
    assert [key for key, _ in sink.events] == ["a", "b", "c"]
    assert sender.trouble is None


def test_what_was_left_behind_is_sent_and_new_journals_too(tmp_path: Path, follow: Follow) -> None:
    sink = MemorySink()
    append(tmp_path, "left", start("left"), END)
    sender = follow(sink)
    eventually(lambda: len(sink.events) == 2)
    append(tmp_path, "new", start("new"))
    sender.notify("new")
    assert sender.flush(10, "new") == 0


def test_an_idle_journal_is_not_opened_again(tmp_path: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = MemorySink()
    for number in range(20):
        append(tmp_path, f"idle{number}", start(f"idle{number}"), point(1))
    sender = follow(sink)
    eventually(lambda: len(sink.events) == 40)
    read: list[tuple[str, int]] = []
    lines = Journal.lines

    def counted(journal: Journal, offset: int = 0) -> object:
        if threading.current_thread().name.startswith("sender"):
            read.append((journal.run_key, offset))
        return lines(journal, offset)

    monkeypatch.setattr(Journal, "lines", counted)
    sent = Journal(tmp_path, "idle3").sent()
    for step in (2, 3):
        append(tmp_path, "idle3", point(step))
        sender.notify("idle3")
        assert sender.flush(10, "idle3") == 0
    assert {key for key, _ in read} == {"idle3"}
    assert min(offset for _, offset in read) >= sent
    assert sink.tries == 42


def test_a_server_that_is_gone_does_not_hold_up_the_runs_of_another(tmp_path: Path, follow: Follow) -> None:
    sink = PartlyAway("http://gone")
    append(tmp_path, "old", start("old", destination="http://gone"))
    sender = follow(sink)
    eventually(lambda: sink.asked == 1)
    for step in range(50):
        append(tmp_path, "mine", start("mine") if step == 0 else point(step))
        sender.notify("mine")
        assert sender.flush(10, "mine") == 0
    assert sink.asked < 10, "neither an event of another run nor waiting for it is a reason to ask"
    assert sender.pending() == 0
    assert "http://gone" in str(sender.trouble)


def test_an_event_does_not_ask_a_server_that_is_away_before_its_pause_is_over(tmp_path: Path, follow: Follow) -> None:
    sink = MemorySink()
    sink.away = True
    append(tmp_path, "run", start("run"))
    sender = follow(sink, clock=lambda: 0.0)
    for step in range(1, 20):
        append(tmp_path, "run", point(step))
        sender.notify("run")
        time.sleep(0.002)
    time.sleep(0.05)
    assert sink.tries == 1, "no pause is over while the clock stands still"
    sink.away = False
    sender.flush(0)
    assert sender.pending("run") == 20


def test_a_journal_that_another_process_lets_go_of_is_sent_after_all(tmp_path: Path, follow: Follow) -> None:
    sink = MemorySink()
    with append(tmp_path, "theirs", start("theirs")).sending():
        sender = follow(sink)
        time.sleep(0.1)
        assert sink.events == []
    eventually(lambda: len(sink.events) == 1)
    assert sender.trouble is None


def test_closing_one_of_many_trackers_waits_for_its_own_journal_alone(tmp_path: Path) -> None:
    sink = PartlyAway("http://gone")
    sender = Sender(spool_folder(tmp_path), sink, follow=True)
    sender.start()
    gone = Tracker(tmp_path, TrackingConfig(uri="http://gone"), "gone", sender=sender)
    here = Tracker(tmp_path, TrackingConfig(uri="http://here"), "here", sender=sender)
    gone.start(dataset="sample", name="gone")
    here.start(dataset="sample", name="here")
    here.finish()
    delivery = here.close(10)
    assert (delivery.pending, delivery.run_id) == (0, "id-here")
    before = time.monotonic()
    assert gone.close(timeout_s=0).pending == 1
    assert time.monotonic() - before < 0.5
    again = Tracker(tmp_path, TrackingConfig(uri="http://here"), "again", sender=sender)
    again.start(dataset="sample", name="again")
    assert again.close(10).pending == 0, "the shared sender goes on"
    sender.stop()

"""lgsrr.spool and lgsrr.sender: nothing that was appended is lost, nothing is sent twice without need, nobody waits."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lgsrr.errors import ConfigError
from lgsrr.sender import Backoff, Sender, SinkAwayError, deliver
from lgsrr.spool import (
    Artifact,
    DataRef,
    Event,
    Journal,
    Metrics,
    ModelSaved,
    RunFinished,
    RunStarted,
    Tags,
    decode,
    encode,
    journals,
)
from tests.memory_sink import MemorySink

START = RunStarted(
    run_key="run",
    destination="http://nowhere",
    experiment="lgsrr-sample",
    name="first",
    parent_run_key="search",
    params={"lr": "1e-4"},
    tags={"host": "here"},
    data=DataRef(name="sample", digest="ab" * 32, source="/data", schema={"text": "string"}, profile={"train": 3}),
    time_ms=1,
)
EVENTS: list[Event] = [
    START,
    Metrics(values={"dev_f1": 0.25, "train_loss": float("inf")}, step=1, time_ms=2),
    Tags(values={"note": "ünïcode \n and a newline"}),
    Artifact(path="/runs/x/curves.png", artifact_path="plots"),
    ModelSaved(folder="/runs/x/model", loader_module="lgsrr.serving", requirements=("torch==2.13.0",)),
    RunFinished(status="FINISHED", time_ms=3),
]


def filled(folder: Path, events: list[Event], run_key: str = "run") -> Journal:
    journal = Journal(folder, run_key)
    for event in events:
        journal.append(event)
    return journal


def send(journal: Journal, sink: MemorySink) -> None:
    with journal.sending() as ours:
        assert ours
        deliver(journal, sink, go_on=lambda: True, delivered=lambda _: None)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_comes_back_as_it_went(event: Event) -> None:
    line = encode(event)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line) == event


def test_events_are_delivered_in_order_and_a_finished_run_leaves_no_file(tmp_path: Path) -> None:
    sink = MemorySink()
    send(filled(tmp_path, EVENTS), sink)
    assert [event for _, event in sink.events] == EVENTS
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_run_keeps_its_journal_and_is_not_sent_twice(tmp_path: Path) -> None:
    journal, sink = filled(tmp_path, EVENTS[:3]), MemorySink()
    send(journal, sink)
    send(journal, sink)
    assert [event for _, event in sink.events] == EVENTS[:3]
    assert journal.pending() == 0
    assert journal.path.exists()


def test_what_was_appended_after_a_delivery_is_delivered_next(tmp_path: Path) -> None:
    journal, sink = filled(tmp_path, EVENTS[:2]), MemorySink()
    send(journal, sink)
    filled(tmp_path, EVENTS[2:])
    send(journal, sink)
    assert [event for _, event in sink.events] == EVENTS


def test_a_torn_last_line_is_neither_sent_nor_in_the_way_of_the_next(tmp_path: Path) -> None:
    journal, sink = filled(tmp_path, EVENTS[:2]), MemorySink()
    with journal.path.open("ab") as file:
        file.write(encode(EVENTS[2])[:20])
    send(journal, sink)
    assert len(sink.events) == 2
    journal.append(EVENTS[3])
    send(journal, sink)
    assert [event for _, event in sink.events] == [*EVENTS[:2], EVENTS[3]]


def test_a_writer_killed_at_any_byte_loses_no_line_that_was_whole(tmp_path: Path) -> None:
    data = b"".join(encode(event) for event in EVENTS)
    for size in range(0, len(data), 7):
        journal = Journal(tmp_path, f"cut{size}")
        journal.path.write_bytes(data[:size])
        journal.append(EVENTS[-1])
        found = [decode(line.raw) for line in journal.lines()]
        assert found == [*EVENTS[: data[:size].count(b"\n")], EVENTS[-1]]


def test_an_event_that_is_refused_is_kept_with_its_reason_and_the_rest_gets_through(tmp_path: Path) -> None:
    journal, sink = filled(tmp_path, EVENTS), MemorySink()
    sink.refuses = lambda event: isinstance(event, Artifact)
    send(journal, sink)
    assert [event for _, event in sink.events] == [event for event in EVENTS if not isinstance(event, Artifact)]
    record = json.loads(journal.refused_path.read_text())
    assert record["reason"] == "was told to refuse this event"
    assert decode(record["event"].encode()) == EVENTS[3]
    assert journal.refused() == 1
    assert not journal.path.exists()


def test_a_line_that_is_no_event_is_set_aside(tmp_path: Path) -> None:
    journal, sink = filled(tmp_path, EVENTS[:1]), MemorySink()
    with journal.path.open("ab") as file:
        file.write(b'{"event": "FromTheFuture"}\nnot json\n')
    filled(tmp_path, EVENTS[1:])
    send(journal, sink)
    assert [event for _, event in sink.events] == EVENTS
    assert journal.refused() == 2


def test_a_sink_that_is_away_leaves_the_offset_before_the_event_that_failed(tmp_path: Path) -> None:
    journal, sink = filled(tmp_path, EVENTS), MemorySink()
    sink.away = True
    with pytest.raises(SinkAwayError):
        send(journal, sink)
    assert journal.pending() == len(EVENTS)
    sink.away = False
    send(journal, sink)
    assert [event for _, event in sink.events] == EVENTS


@pytest.mark.parametrize("run_key", ["", "a/b", "../up", ".hidden", "it's", "x" * 129])
def test_a_run_key_that_is_no_file_name_is_refused(run_key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run_key"):
        Journal(tmp_path, run_key)


def test_run_keys_with_dots_do_not_get_into_each_others_files(tmp_path: Path) -> None:
    keys = ["a", "a.b", "a.sent", "a.refused"]
    for key in keys:
        filled(tmp_path, EVENTS[:2], key).mark_sent(5)
    assert {journal.run_key for journal in journals(tmp_path)} == set(keys)
    assert all(Journal(tmp_path, key).sent() == 5 for key in keys)


def test_only_one_process_sends_a_journal(tmp_path: Path) -> None:
    journal = filled(tmp_path, EVENTS)
    code = (
        "import sys, pathlib; from lgsrr.spool import Journal\n"
        "with Journal(pathlib.Path(sys.argv[1]), 'run').sending() as ours: print(ours)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with journal.sending() as ours:
        assert ours
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True\n"


def write_many(folder: Path, worker: int) -> None:
    journal = Journal(folder, "run")
    for step in range(50):
        journal.append(Metrics(values={"worker": worker}, step=step, time_ms=step))


def test_processes_that_append_while_the_journal_is_sent_and_deleted_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=write_many, args=(tmp_path, n)) for n in range(4)]
    journal, sink = filled(tmp_path, [START]), MemorySink()
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        filled(tmp_path, [START, RunFinished(status="FAILED", time_ms=9)])  # lets the sender delete the file
        send(journal, sink)
    send(journal, sink)
    seen = [(e.values["worker"], e.step) for _, e in sink.events if isinstance(e, Metrics)]
    refused = journal.refused_path.read_text().count('"Metrics') if journal.refused_path.exists() else 0
    assert len(set(seen)) == len(seen)
    assert len(seen) + refused == 4 * 50


def test_a_kill_9_after_an_append_keeps_the_event(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, signal, sys; from lgsrr.spool import Journal, Metrics\n"
        "Journal(pathlib.Path(sys.argv[1]), 'run').append(Metrics(values={'f1': 0.5}, step=1, time_ms=7))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [decode(line.raw) for line in Journal(tmp_path, "run").lines()] == [
        Metrics(values={"f1": 0.5}, step=1, time_ms=7)
    ]


class Clock:
    """Waits that take no time: pauses are written down, and `back_after` of them bring the sink back."""

    def __init__(self, sink: MemorySink, back_after: int) -> None:
        self.pauses: list[float] = []
        self._sink = sink
        self._back_after = back_after

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        if timeout is None:
            return event.wait(10)
        self.pauses.append(timeout)
        self._sink.away = len(self.pauses) < self._back_after
        return False


@pytest.fixture
def senders() -> Iterator[list[Sender]]:
    """Senders to be stopped when the test ends."""
    started: list[Sender] = []
    yield started
    for sender in started:
        sender.stop()


def test_the_pause_doubles_up_to_its_cap_while_the_sink_is_away(tmp_path: Path, senders: list[Sender]) -> None:
    sink = MemorySink()
    sink.away = True
    clock = Clock(sink, back_after=6)
    backoff = Backoff(first_s=1.0, cap_s=8.0)
    filled(tmp_path, EVENTS)
    sender = Sender(tmp_path, sink, run_key="run", backoff=backoff, wait=clock.wait)
    senders.append(sender)
    sender.start()
    assert sender.flush(10) == 0
    assert clock.pauses == [1, 2, 4, 8, 8, 8]
    assert sender.trouble is None
    assert sender.delivered["run"] == len(EVENTS)


def test_flush_gives_up_in_time_and_counts_what_is_left(tmp_path: Path, senders: list[Sender]) -> None:
    sink = MemorySink()
    sink.away = True
    filled(tmp_path, EVENTS)
    sender = Sender(tmp_path, sink, run_key="run")
    senders.append(sender)
    sender.start()
    assert sender.flush(0.2) == len(EVENTS)
    assert sender.trouble == "http://nowhere was told to be away"


def test_a_sender_sends_what_is_appended_while_it_runs(tmp_path: Path, senders: list[Sender]) -> None:
    sink = MemorySink()
    sender = Sender(tmp_path, sink, run_key="run")
    senders.append(sender)
    sender.start()
    for event in EVENTS:
        filled(tmp_path, [event])
        sender.notify()
    assert sender.flush(10) == 0
    assert [event for _, event in sink.events] == EVENTS


def test_a_sweep_sends_all_that_was_left_but_the_runs_of_others(tmp_path: Path, senders: list[Sender]) -> None:
    sink = MemorySink()
    for key in ("left1", "left2", "mine", "theirs"):
        filled(tmp_path, EVENTS, key)
    with Journal(tmp_path, "theirs").sending():
        sender = Sender(tmp_path, sink, skip=("mine",))
        senders.append(sender)
        sender.start()
        sender.flush(1)
    assert sender.delivered == {"left1": len(EVENTS), "left2": len(EVENTS)}


def test_a_server_that_is_away_is_asked_once_a_round_for_all_its_runs(tmp_path: Path, senders: list[Sender]) -> None:
    sink = MemorySink()
    sink.away = True
    clock = Clock(sink, back_after=3)
    for number in range(20):
        filled(tmp_path, EVENTS, f"left{number}")
    sender = Sender(tmp_path, sink, wait=clock.wait)
    senders.append(sender)
    sender.start()
    assert sender.flush(10) == 0
    assert sink.tries - len(sink.events) == 3


def test_a_folder_without_a_spool_is_nothing_to_send(tmp_path: Path, senders: list[Sender]) -> None:
    sender = Sender(tmp_path / "no" / "spool", MemorySink())
    senders.append(sender)
    sender.start()
    assert sender.flush(1) == 0
    assert not (tmp_path / "no").exists()


def test_a_journal_is_readable_by_its_owner_and_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    send(filled(tmp_path, EVENTS), MemorySink())
    assert len(os.listdir("/proc/self/fd")) == before

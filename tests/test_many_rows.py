"""What lets an extraction grow: no part is read for every question, and Ray is not given millions of blocks at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lgsrr import storage
from pipelines import flow
from pipelines.outcomes import Outcome, Receipt
from pipelines.output import FOLDERS, Output
from tests.extracted_outputs import ASPECTS, described, ranked

PARTS = 6


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of parts, each time that one is read."""
    paths: list[str] = []
    read = storage.read_bytes

    def noted(path: str) -> bytes:
        if path.endswith(".parquet"):
            paths.append(Path(path).name)
        return read(path)

    monkeypatch.setattr(storage, "read_bytes", noted)
    return paths


def questions(output: Output) -> None:
    """All that a run asks of the rows that are there, before its first new one."""
    for stage in FOLDERS:
        output.tidy(stage, {})
        output.done(stage)
        output.quarantined(stage)
        output.cost_usd()


def test_a_run_reads_each_part_once_to_know_what_is_done_and_what_it_cost(tmp_path: Path, reads: list[str]) -> None:
    earlier = Output(str(tmp_path))
    for place in range(PARTS):
        earlier.commit([described(f"u{place}")])
        earlier.tidy("describe", {})
    reads.clear()
    questions(earlier)
    assert reads == [], "what it has written itself it knows"
    later = Output(str(tmp_path))
    later.commit([ranked("u0", ASPECTS)])
    questions(later)
    questions(later)
    assert len(reads) == len(set(reads)) == 1, "the joined part"
    assert len(later.done("describe")) == PARTS


def outcome(name: str) -> Outcome:
    return Outcome(id=name, stage="rank", status="done", receipts=(Receipt(fingerprint="f", model="m"),))


def waves(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each wave; no Ray."""
    sizes: list[int] = []

    def wave(work: Sequence[tuple[str, str]], steps: object, rows: int, over: object) -> Iterator[Outcome]:
        sizes.append(len(work))
        yield from (outcome(name) for name, _ in work)

    monkeypatch.setattr(flow, "WAVE_BLOCKS", 5)
    monkeypatch.setattr(flow, "_wave", wave)
    return sizes


WORK = [(f"u{place}", "w") for place in range(25)]


def test_many_rows_go_through_ray_in_waves_and_each_comes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = waves(monkeypatch)
    came = [o.id for o in flow.stream(WORK, [], 2, stopped=lambda: None, over=lambda: False)]
    assert came == [name for name, _ in WORK]
    assert sizes == [10, 10, 5]


def test_a_job_that_is_ending_begins_no_further_wave(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = waves(monkeypatch)
    came = list(flow.stream(WORK, [], 2, stopped=lambda: "interrupted" if sizes else None, over=lambda: False))
    assert sizes == [10]
    assert len(came) == 10

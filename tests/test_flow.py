"""Rows through Ray, and their end before all are done."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines import flow
from pipelines.job_board import PATIENCE_S, JobBoard
from pipelines.outcomes import Outcome, Receipt
from tests.board import Board

ROWS = 3000


class Works:
    """Does a row in a moment; the first one in two seconds. Leaves a file of each that it began."""

    def __init__(self, board: JobBoard, folder: str) -> None:
        self._board, self._folder = board, Path(folder)

    def __call__(self, batch: pa.Table) -> pa.Table:
        with self._board.working():
            return flow.outcomes_table([self._one(name) for name in batch.column("id").to_pylist()])

    def _one(self, name: str) -> Outcome:
        if self._board.stop_reason() is not None:
            return Outcome(id=name, stage="rank", status="stopped")
        (self._folder / name).touch()
        time.sleep(2 if name == "u0" else 0.02)
        return Outcome(id=name, stage="rank", status="done", receipts=(Receipt(fingerprint="f", model="m"),))


@pytest.mark.slow
def test_a_job_that_is_ending_waits_for_what_is_in_work_and_not_for_thousands_that_are_given_back(
    ray_cluster: None, tmp_path: Path
) -> None:
    board = JobBoard.start()
    step = flow.Step(kind=Works, arguments={"board": board, "folder": str(tmp_path)}, actors=2, num_cpus=0.5)
    came, done = 0, set()
    work = [(f"u{place}", "w") for place in range(ROWS)]
    for outcome in flow.stream(work, [step], 1, stopped=board.stop_reason, over=board.over):
        came += 1
        if outcome.status == "done":
            done.add(outcome.id)
            board.stop("interrupted")
    assert {path.name for path in tmp_path.iterdir()} == done, "what was begun is done, and came"
    assert "u0" in done
    assert len(done) < came < ROWS / 2


def test_a_job_is_over_when_it_is_ending_and_the_last_batch_that_was_begun_before_is_done() -> None:
    board, seconds = Board(), iter(range(100))
    with board.working():
        board.stop("no key")
        assert not board.over(lambda: next(seconds))
    assert board.over(lambda: next(seconds))


def test_a_job_that_is_ending_does_not_wait_for_ever_for_a_batch_whose_actor_died() -> None:
    board = Board()
    with board.working():
        board.stop("interrupted")
        assert not board.over(lambda: 0.0)
        assert not board.over(lambda: PATIENCE_S - 1)
        assert board.over(lambda: PATIENCE_S)


def test_a_job_that_is_not_ending_is_never_over() -> None:
    assert not Board().over()

"""A search in MLflow, told by the driver: every seed's run begins and ends, whatever became of its process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lgsrr.config import recipe
from lgsrr.destination import TrackingConfig
from lgsrr.spool import DataRef
from tests.memory_sink import MemorySink
from tests.search_runs import runs_ended, runs_started
from tune.recording import SearchRecord
from tune.records import SeedResult, Trial

TRIAL = Trial(settings={"k": 2}, origin="random")
FAILED = SeedResult(trial=TRIAL.id, seed=0, history=(), failure="its process never came up")


@pytest.mark.parametrize(
    ("tell", "status"),
    [
        (lambda record: record.seed_ended(TRIAL, 0, FAILED), "FAILED"),
        (lambda record: record.untested(TRIAL, 0), "FINISHED"),
    ],
)
def test_a_seed_that_ends_before_it_began_is_recorded_once(
    tmp_path: Path, tell: Callable[[SearchRecord], None], status: str
) -> None:
    sink = MemorySink()
    data = DataRef(name="sample", digest="0" * 64, source="nowhere")
    record = SearchRecord(tmp_path, TrackingConfig(), "search", recipe("sample"), data, sink=sink)
    record.begin("a search", {})
    tell(record)
    record.interrupted("KILLED")
    record.close()
    seed = record.seed_key(TRIAL, 0)
    assert runs_started(sink)[seed].parent_run_key == record.trial_key(TRIAL)
    assert runs_ended(sink)[seed] == status

"""Ranking through the Batch API, as a part of a whole run."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from lgsrr.extracted import RANKINGS_FOLDER
from pipelines import batching
from pipelines.batch_api import BatchLimits, run_batches
from pipelines.calls import ExtractionError
from pipelines.settings import ExtractConfig
from pipelines.stand_in.faults import Fault, faults
from pipelines.stand_in.server import StandIn, serve
from tests.conftest import tracked_in_memory
from tests.extraction_runs import PRICE_IN, PRICE_OUT, assert_nothing_twice, ids_of, rows_of, run, settings, write_table

pytestmark = pytest.mark.usefixtures("ray_cluster")
ROWS = 6


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Batches are looked at five times a second; what is recorded stays in memory."""
    monkeypatch.setattr(batching, "run_batches", functools.partial(run_batches, limits=BatchLimits(poll_s=0.2)))
    with tracked_in_memory():
        yield


def ranked_by_batch(folder: Path, server: StandIn, **changes: object) -> ExtractConfig:
    table = write_table(folder / "table.jsonl", {"train": ROWS, "dev": 1, "test": 1}, described=True)
    return settings(table, folder / "out", server.base_url, stages="rank", batch=True, **changes)


def full_price(server: StandIn, config: ExtractConfig) -> float:
    """What the same rankings cost live, from the receipts' tokens."""
    return sum(
        float(row["input_tokens"] * PRICE_IN + row["output_tokens"] * PRICE_OUT) / 1e6
        for row in rows_of(config.out, RANKINGS_FOLDER)
    )


@pytest.mark.slow
def test_a_batch_ranks_every_row_at_half_the_price_and_nothing_is_asked_live(tmp_path: Path) -> None:
    with serve() as server:
        config = ranked_by_batch(tmp_path, server)
        result, said = run(config)
        assert ids_of(config.out, RANKINGS_FOLDER) == {f"u{i:02d}" for i in range(ROWS)}
        assert "batches answered 6; 0 are asked live" in said
        assert server.seen.batches == 1
        assert server.seen.calls == ROWS  # all of them within the batch
        assert result.cost_usd == pytest.approx(full_price(server, config) / 2)
        again, _ = run(config)
        assert again.nothing_to_do
        assert server.seen.batches == 1
        assert_nothing_twice(config.out)


@pytest.mark.slow
def test_what_a_batch_leaves_open_is_asked_live(tmp_path: Path) -> None:
    with serve(faults=faults(Fault(kind="batch_partial"))) as server:
        config = ranked_by_batch(tmp_path, server)
        _, said = run(config)
        assert len(ids_of(config.out, RANKINGS_FOLDER)) == ROWS
        assert "0 are asked live" not in said
        assert_nothing_twice(config.out)


def test_a_batch_that_the_budget_does_not_cover_is_not_submitted(tmp_path: Path) -> None:
    with serve() as server:
        config = ranked_by_batch(tmp_path, server, budget_usd=0.01)
        with pytest.raises(ExtractionError, match=r"a batch of 6 rankings may cost \$.* are left"):
            run(config)
        assert (server.seen.batches, server.seen.calls) == (0, 0)

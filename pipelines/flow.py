"""Work through Ray Data: rows of one stage in, outcomes out, as they come and in any order.

A stage is one or two steps, each a class that actors hold (`Step`). Rows travel as (id, work) texts in small blocks, so
that an actor that dies takes few rows along; Ray starts another one and gives it the same block again, and what had
been answered by then is found in the answer store. Several blocks are in work in an actor at once, so that the slowest
row of a block keeps nobody waiting.

Whoever runs a stage ends it early on the `JobBoard`: actors look at it before they begin a row, and give back what they
have not begun. When nothing is in work any more, nobody waits for the rest to be given back.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import ray
from ray.data._internal.block_batching.iter_batches import BatchIterator

from .outcomes import Outcome

WAVE_BLOCKS = 50_000
"""Blocks that Ray is given at once. Each is an object, which costs the driver and the object store kilobytes whatever
is in it: those of ten million clips would fill both. Between two waves actors start anew: minutes in hours."""
STILL_TO_COME = 64
"""Blocks given back, one after the other, after which no row that was done just before is expected any more."""
OUTCOME = "outcome"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """A class that takes Arrow batches and yields some, and the actors that hold it."""

    kind: type
    arguments: Mapping[str, Any]
    """Of its constructor; travels to the actors."""
    actors: int
    num_cpus: float
    num_gpus: float = 0.0
    batch_rows: int | None = None
    """Rows of a call; None gives a whole block."""
    calls: int = 4
    """Calls that an actor works on at once, in threads."""


def block_rows(rows: int, actors: int, calls: int, *, rows_per_second: float | None = None) -> int:
    """Rows of a block: enough blocks for everybody, at most 32 rows, and at most about ten seconds' worth."""
    even = math.ceil(rows / (actors * calls * 2))
    within = 32 if rows_per_second is None else math.ceil(10 * rows_per_second / (actors * calls))
    return max(1, min(32, even, within))


def stream(
    work: Sequence[tuple[str, str]],
    steps: Sequence[Step],
    rows: int,
    *,
    stopped: Callable[[], object],
    over: Callable[[], bool],
) -> Iterator[Outcome]:
    """Outcomes of all rows, as they come.

    Args:
        work: (id of the utterance, its work as text).
        steps: one after the other; the last one's batches have the column `outcome`.
        rows: of a block.
        stopped: whether the job is ending, and no further wave is begun.
        over: whether it is, and nothing is in work any more.
    """
    quiet()
    of_a_wave = rows * WAVE_BLOCKS
    for start in range(0, len(work), of_a_wave):
        if not stopped():
            yield from _wave(work[start : start + of_a_wave], steps, rows, over)


def _wave(
    work: Sequence[tuple[str, str]], steps: Sequence[Step], rows: int, over: Callable[[], bool]
) -> Iterator[Outcome]:
    blocks = [_table(work[start : start + rows]) for start in range(0, len(work), rows)]
    # Not from_arrow, which looks at each block by a task of its own: seconds before the first row.
    data = ray.data.from_blocks(blocks)
    for step in steps:
        pool = ray.data.ActorPoolStrategy(
            min_size=1,
            max_size=step.actors,
            initial_size=min(step.actors, len(blocks)),
            max_concurrent_calls_per_actor=step.calls,
            max_tasks_in_flight_per_actor=2 * step.calls,
            enable_true_multi_threading=True,
        )
        data = data.map_batches(
            step.kind,
            fn_constructor_kwargs=dict(step.arguments),
            compute=pool,
            batch_size=step.batch_rows,
            batch_format="pyarrow",
            num_cpus=step.num_cpus,
            num_gpus=step.num_gpus,
        )
    still_to_come = STILL_TO_COME
    for batch in data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        outcomes = [Outcome.from_text(text) for text in batch.column(OUTCOME).to_pylist()]
        yield from outcomes
        given_back = all(outcome.status == "stopped" for outcome in outcomes)
        still_to_come = still_to_come - 1 if given_back and over() else STILL_TO_COME
        if not still_to_come:
            return


def _table(work: Sequence[tuple[str, str]]) -> pa.Table:
    names, texts = zip(*work, strict=True)
    return pa.table({"id": pa.array(names, pa.string()), "work": pa.array(texts, pa.string())})


def outcomes_table(outcomes: Sequence[Outcome]) -> pa.Table:
    """What a last step yields."""
    return pa.table({OUTCOME: pa.array([o.to_text() for o in outcomes], pa.string())})


def quiet() -> None:
    """Ray Data prints neither its plan nor its bars, and keeps no account: the stage shows its own progress."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = False
    context.execution_options.verbose_progress = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # Every five seconds it would send the figures of all blocks so far to an actor of its own: at 25,000 blocks half a
    # core there, and driver time for a row that grows with every block.
    BatchIterator.UPDATE_METRICS_INTERVAL_S = math.inf

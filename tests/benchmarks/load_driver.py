"""What the driver of an extraction does by itself before the first and after the last row of a run, for many rows.

    python -m tests.benchmarks.load_driver --utterances 100000

No Ray and no engine: the rows of an earlier run are written as that would have written them (90 % of the rankings),
then each step of a command that goes on is taken by itself: CPU time, and the memory that is held after
it. A run ten times larger tells what grows faster than the rows.
"""

from __future__ import annotations

import dataclasses
import gc
import io
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import psutil
from rich.console import Console

from lgsrr import cli
from lgsrr.records import Aspect
from pipelines.budget_actor import Desk, Message
from pipelines.calls import Usage
from pipelines.extraction import Extraction
from pipelines.inputs import aspects_in, known_aspects
from pipelines.manifest import manifest_of
from pipelines.outcomes import Outcome, Receipt, Stage
from pipelines.plan import Row
from pipelines.rate_budget import Limits, Wanted
from pipelines.recording import metrics_of
from pipelines.report import write_report
from pipelines.settings import ExtractConfig
from tests.benchmarks.load import write_table
from tests.clips import moving_square, write_clip

T = TypeVar("T")
SAID = "The man leans on the table, points at her twice and looks away while the others wait for what comes next."
PART = 500


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    utterances: int = 100_000
    """Of the table."""
    done: float = 0.9
    """Share of them that an earlier run has done."""


def timed(what: str, action: Callable[[], T], rows: int) -> T:
    started = time.process_time()
    result = action()
    used = time.process_time() - started
    gc.collect()
    held = psutil.Process().memory_full_info().uss
    print(f"  {what:<44} {used:>7.1f} s  {1e6 * used / rows:>6.0f} us a row  {held / 1e6:>7.0f} MB held", flush=True)
    return result


def outcomes(stage: Stage, rows: Sequence[Row], aspects: Sequence[Aspect]) -> Iterator[list[Outcome]]:
    """What actors would have brought, in the parts in which the driver writes it."""
    names = tuple(aspect.name for aspect in aspects)
    for start in range(0, len(rows), PART):
        yield [
            Outcome(
                id=row.id, stage=stage, status="done", aspects=names, shown=names if stage == "rank" else (),
                texts=(SAID,) * len(names) if stage == "describe" else (),
                receipts=(
                    Receipt(
                        fingerprint=row.fingerprint, model="scripted", prompt_version="1", frames=tuple(range(16)),
                        raw_answer=SAID * len(names), attempts=1, input_tokens=900, output_tokens=60, cost_usd=1e-4,
                        created_at=time.time(), packages={"lgsrr": "0"},
                    ),
                ),
            )
            for row in rows[start : start + PART]
        ]  # fmt: skip


def measure(settings: Settings) -> None:
    rows = settings.utterances
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_table(folder / "table.tsv", rows, write_clip(folder / "clip.mp4", moving_square(10)))
        config = ExtractConfig(
            dataset="load", data=str(folder / "table.tsv"), out=str(folder / "out"), stages="describe,rank",
            aspects="A,E,I", engine="scripted", llm="stand-in", runs=str(folder / "runs"),
        )  # fmt: skip
        aspects = an_earlier_run(config, settings.done)
        go_on(config, aspects, rows)
        limiter(rows)


def an_earlier_run(config: ExtractConfig, share: float) -> tuple[Aspect, ...]:
    """All descriptions, and a share of the rankings."""
    extraction = Extraction(config, Console(file=io.StringIO()))
    aspects = aspects_in(known_aspects(config, extraction.inputs, extraction.output))
    extraction.output.write_utterances(extraction.inputs.utterances)
    parts: tuple[tuple[Stage, float], ...] = (("describe", 1.0), ("rank", share))
    for stage, part in parts:
        todo = extraction.plan(stage, aspects).rows
        write_rows(extraction, stage, todo[: int(part * len(todo))], aspects)
    return aspects


def write_rows(extraction: Extraction, stage: Stage, rows: Sequence[Row], aspects: Sequence[Aspect]) -> None:
    def write() -> None:
        for part in outcomes(stage, rows, aspects):
            extraction.output.commit(part)

    print(f"{stage}: {len(rows)} rows are written")
    timed(f"{PART} a part", write, len(rows))


def go_on(config: ExtractConfig, aspects: tuple[Aspect, ...], rows: int) -> None:
    """The steps of the same command, given again."""
    print(f"the same command again, {rows} utterances")
    extraction = timed("read and check the table", lambda: Extraction(config, Console(file=io.StringIO())), rows)
    output = extraction.output
    timed("compare with utterances.parquet", lambda: output.write_utterances(extraction.inputs.utterances), rows)
    timed("join small parts, descriptions", lambda: output.tidy("describe", {}), rows)
    timed("join small parts, rankings", lambda: output.tidy("rank", {}), rows)
    timed("plan describing: all is done", lambda: extraction.plan("describe", aspects), rows)
    plan = timed("plan ranking", lambda: extraction.plan("rank", aspects), rows)
    print(f"  ({plan.done} of {len(plan.wanted)} rankings are done)")
    timed("add up what it has cost", output.cost_usd, rows)
    timed("tidy when the stage is over", lambda: output.tidy("rank", plan.wanted), rows)
    ends = {"before": {}, "started": 0.0, "command": "", "cost_usd": 0.0}
    timed("manifest", lambda: manifest_of(config, output, [], **ends), rows)  # type: ignore[arg-type]
    timed("report", lambda: write_report(config, output), rows)
    timed("metrics", lambda: metrics_of(output, []), rows)
    print(f"  at most {_peak_mb():.0f} MB at any moment")


def limiter(requests: int) -> None:
    """What the one budget of the cluster takes for a request, with nobody to wait for: sixteen at a time."""
    clock = [0.0]
    desk = Desk(Limits(rpm=10**6, tpm=10**9, concurrency=1000), clock=lambda: clock[0])

    def exchange_all() -> None:
        settled: list[tuple[int, Usage | None]] = []
        for first in range(0, requests, 16):
            clock[0] += 0.016
            wanted = tuple(Wanted(number, 900, 0.0) for number in range(first, first + 16))
            reply = desk.exchange(Message(client="a", wanted=wanted, settled=settled))
            settled = [(number, Usage(input_tokens=900)) for number in range(first, first + len(reply.lease.delays_s))]

    print("the limiter, without the way to it")
    timed("reserve and settle", exchange_all, requests)


def _peak_mb() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    cli.run(
        measure, Settings, prog="python -m tests.benchmarks.load_driver",
        description=(__doc__ or "").split("\n\n")[0],
        example="python -m tests.benchmarks.load_driver --utterances 10000",
    )  # fmt: skip

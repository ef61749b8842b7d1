"""What extraction costs by itself, how much of an allowed rate it uses, how busy it keeps an engine, and its memory.

    python -m tests.benchmarks.extraction

All on loopback, with the stand-in server in a process of its own and the scripted engine:

(a) ranking against an instant server: CPU of all our processes per row, in the steady state; at 500 and at 2,000 rows
(b) ranking from 8 actors against a server that enforces a rate: share of it that is used, and how many 429
(c) describing where decoding alone takes half of the engine's time: share of the steady state in which the engine works
(d) memory of all our processes at its peak, at 1,000 and at 10,000 rows

"Our processes" are this one's descendants but for the server: driver, actors, and Ray's own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from rich.console import Console

from lgsrr import cli
from pipelines.extraction import Extraction
from pipelines.settings import ExtractConfig
from pipelines.stand_in.limits import ServerLimits
from pipelines.stand_in.process import StandInProcess, serve
from tests.clips import moving_square, write_clip

SENTENCE = "The man leans on the table, points at her twice and looks away while the others wait for what comes next."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    only: str = "abcd"
    """Which parts."""
    rows: int = 2000
    """Rows of (a)."""
    rpm: int = 6000
    """Rate that the server of (b) enforces."""
    seconds: float = 150.0
    """How long (b) takes."""
    clips: int = 200
    """Clips of (c)."""
    many: int = 10_000
    """Rows of (d)."""


def write_table(path: Path, rows: int) -> Path:
    """A table of a user's own with descriptions; all but two rows are to be ranked."""
    lines = ["id\ttext\tsplit\tlabel\tSpeakers' Actions\tFacial Expressions\tInteraction with Others"]
    for i in range(rows + 2):
        split = ("dev", "test")[i] if i < 2 else "train"
        texts = "\t".join(f"{SENTENCE} ({i} {aspect})" for aspect in "AEI")
        lines.append(f"u{i}\tthat is what I said, number {i}\t{split}\tLabel{i % 5}\t{texts}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


class Watch:
    """CPU seconds and memory of our processes, looked at twice a second."""

    def __init__(self, server: int | None) -> None:
        self._server = server
        self._ended = threading.Event()
        self.peak_bytes = 0
        self.cpu: dict[int, float] = {}

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def cpu_s(self) -> float:
        self._look()
        return sum(self.cpu.values())

    def _watch(self) -> None:
        while not self._ended.wait(0.5):
            self._look()

    def _look(self) -> None:
        total = 0
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                if process.pid != self._server:
                    times = process.cpu_times()
                    self.cpu[process.pid] = times.user + times.system
                    total += process.memory_full_info().pss
        self.peak_bytes = max(self.peak_bytes, total)


@contextlib.contextmanager
def server(**settings: object) -> Iterator[tuple[StandInProcess, int]]:
    """The stand-in and its process id."""
    before = {p.pid for p in psutil.Process().children()}
    with serve(**settings) as running:  # type: ignore[arg-type]
        yield running, next(p.pid for p in psutil.Process().children() if p.pid not in before)


def rank(folder: Path, rows: int, url: str, **more: object) -> Extraction:
    """An extraction that ranks `rows` rows; its output is new."""
    out = folder / f"out{rows}"
    shutil.rmtree(out, ignore_errors=True)
    table = write_table(folder / f"{rows}.tsv", rows)
    config = ExtractConfig(
        dataset="bench", data=str(table), out=str(out), stages="rank", llm="stand-in", base_url=url,
        runs=str(folder / "runs"), **more,  # type: ignore[arg-type]
    )  # fmt: skip
    return Extraction(config, Console(file=io.StringIO()))


def own_cost(folder: Path, settings: Settings) -> None:
    """(a)"""
    figures = []
    for rows in (settings.rows // 4, settings.rows):
        with server() as (running, pid), Watch(pid) as watch:
            started = time.perf_counter()
            rank(folder, rows, running.base_url).run()
            figures.append((rows, watch.cpu_s(), time.perf_counter() - started))
    (few, cpu_few, _), (many, cpu_many, seconds) = figures
    steady = (cpu_many - cpu_few) / (many - few)
    print(
        f"(a) {many} rows: {1e3 * cpu_many / many:.1f} ms of CPU a row with start and end ({cpu_many:.0f} s in "
        f"{seconds:.0f} s), {1e3 * steady:.1f} ms a row beyond the first {few}; aim <= 10",
        flush=True,
    )


def used_rate(folder: Path, settings: Settings) -> None:
    """(b)"""
    rows = int(settings.rpm / 60 * settings.seconds)
    with server(limits=ServerLimits(rpm=settings.rpm)) as (running, _):
        rank(folder, rows, running.base_url, callers=8, rpm=settings.rpm, concurrency=256).run()
        seen = running.seen(bodies=False)
    admitted = sorted(seen["admitted_at"])
    # steady state: from 15 s after the first call to 15 s before the last
    inner = [t for t in admitted if admitted[0] + 15 <= t <= admitted[-1] - 15]
    rate = (len(inner) - 1) / (inner[-1] - inner[0]) * 60
    refused = seen["outcomes"].get("429", 0) + seen["outcomes"].get("rate_limit", 0)
    used = f"{rate:.0f} of {settings.rpm} requests a minute from 8 actors: {100 * rate / settings.rpm:.1f} %"
    print(f"(b) {used}, {refused} times 429; aim >= 95", flush=True)


def memory(folder: Path, settings: Settings) -> None:
    """(d)"""
    peaks = []
    for rows in (settings.many // 10, settings.many):
        with server() as (running, pid), Watch(pid) as watch:
            rank(folder, rows, running.base_url).run()
        peaks.append(watch.peak_bytes)
    few, many = (peak / 1e6 for peak in peaks)
    print(
        f"(d) {few:.0f} MB at {settings.many // 10} rows, {many:.0f} MB at {settings.many}: {many / few:.2f} times",
        flush=True,
    )


def busy_engine(folder: Path, settings: Settings) -> None:
    """(c)"""
    from pipelines.decoding import Decoder

    clips = folder / "clips"
    clips.mkdir()
    one = write_clip(clips / "u0.mp4", moving_square(60, 180, 320, seed=0))
    with Decoder(16) as decoder:
        decoder.decode(str(one))
        started = time.perf_counter()
        for _ in range(5):
            decoder.decode(str(one))
        decoding_s = (time.perf_counter() - started) / 5
    engine_s = 2 * decoding_s
    lines = ["id\ttext\tsplit\tlabel\tvideo"]
    for i in range(settings.clips):
        if i:
            shutil.copy(one, clips / f"u{i}.mp4")
        lines.append(f"u{i}\tnumber {i}\t{('train', 'dev', 'test')[i % 3]}\tL{i % 2}\tu{i}.mp4")
    table = folder / "clips.tsv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    script = folder / "script.json"
    script.write_text(json.dumps({"seconds_per_clip": engine_s}), encoding="utf-8")
    config = ExtractConfig(
        dataset="bench", data=str(table), videos=str(clips), out=str(folder / "described"), stages="describe",
        aspects="A,E,I", engine="scripted", decoders=1, runs=str(folder / "runs"), script=str(script),
    )  # fmt: skip
    extraction = Extraction(config, Console(file=io.StringIO()))
    extraction.run()
    created = sorted(
        value.timestamp()
        for value in extraction.output.table("descriptions", ["created_at"]).column("created_at").to_pylist()
    )
    ends = sorted(set(created))
    inner = ends[len(ends) // 10 : -len(ends) // 10]
    busy = engine_s * (len(inner) - 1) / (inner[-1] - inner[0])
    times = f"a clip takes {1e3 * decoding_s:.0f} ms to decode, {1e3 * engine_s:.0f} ms to describe"
    print(f"(c) {times}: the engine works {100 * busy:.0f} % of the steady state; aim >= 90", flush=True)


def measure(settings: Settings) -> None:
    parts = {"a": own_cost, "b": used_rate, "c": busy_engine, "d": memory}
    for name in settings.only:
        with tempfile.TemporaryDirectory() as folder:
            parts[name](Path(folder), settings)


if __name__ == "__main__":
    cli.run(
        measure, Settings, prog="python -m tests.benchmarks.extraction",
        description=(__doc__ or "").split("\n\n")[0], example="python -m tests.benchmarks.extraction --only a",
    )  # fmt: skip

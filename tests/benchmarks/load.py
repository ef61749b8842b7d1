"""Many utterances through describe and rank: is the rate steady, is memory flat, how soon does a stopped run go on?

    python -m tests.benchmarks.load --utterances 100000

The table is made up and its utterances share one small clip; the scripted engine describes, the stand-in server ranks.
Each stage is the user's own command in a process of its own, on a Ray that it starts. Its driver is killed (SIGKILL)
when 90 % of the rows are written, and the same command is given again. For each tenth of the rows: their rate, the
driver's CPU time for one, and the memory of the driver, of the largest actor, of all processes, and of the object
store. At the end: how long the continued command took until its first new row was made, and from the last row to its
end.

Memory is what a process has for itself (USS); "all" counts shared pages once (PSS), Ray's own processes included; the
object store is what Ray's node has ever touched of it. Rows are counted in the parts of the output, which come 500 at a
time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq

from lgsrr import cli
from lgsrr.errors import ConfigError
from pipelines.outcomes import Stage
from pipelines.output import FOLDERS, Output
from pipelines.stand_in.process import serve
from tests.clips import moving_square, write_clip
from tests.tiny import ROOT

LOOK_EVERY_S = 2.0
STAGES: tuple[Stage, ...] = ("describe", "rank")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    utterances: int = 100_000
    """Of the table; all but two are training utterances, and are ranked."""
    stop_at: float = 0.9
    """Share of the rows at which the driver is killed."""
    folder: str | None = None
    """Where everything lies, and stays; None is a temporary folder."""
    stages: str = "describe,rank"
    """Which of them; rank alone needs a `folder` that holds descriptions."""
    flags: str = "--decoders 1 --callers 1"
    """More flags for the command; the default suits two cores."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One moment of a run; megabytes."""

    at: float
    """Seconds since the epoch."""
    rows: int
    cpu: float
    """Seconds that the driver has used."""
    driver: float
    actor: float
    """The largest."""
    all: float
    store: float


def write_table(path: Path, utterances: int, clip: Path) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.write("id\ttext\tsplit\tlabel\tvideo\n")
        for i in range(utterances):
            split = ("dev", "test")[i] if i < 2 else "train"
            stream.write(f"u{i:09d}\tthat is what I said, number {i}\t{split}\tLabel{i % 5}\t{clip}\n")


class Rows:
    """Utterances that are written under a stage, by the footers of its parts."""

    def __init__(self, out: Path, stage: Stage) -> None:
        self._folder, self._each = out / FOLDERS[stage], 3 if stage == "describe" else 1
        self._known: dict[str, int] = {}

    def count(self) -> int:
        there = {}
        for path in self._folder.glob("part-*.parquet"):
            with contextlib.suppress(OSError):  # joined with others meanwhile
                there[path.name] = self._known.get(path.name) or pq.read_metadata(path).num_rows
        self._known = there
        return sum(there.values()) // self._each


class Command:
    """`pipelines/extract.py` for one stage, watched until its end or until it is killed."""

    def __init__(self, folder: Path, stage: Stage, url: str, settings: Settings) -> None:
        self._rows = Rows(folder / "out", stage)
        line = [
            sys.executable, "pipelines/extract.py", "--dataset", "load", "--data", str(folder / "table.tsv"),
            "--out", str(folder / "out"), "--stages", stage, "--aspects", "A,E,I", "--engine", "scripted",
            "--frames", "4", "--llm", "stand-in", "--base-url", url, "--runs", str(folder / "runs"),
            *settings.flags.split(),
        ]  # fmt: skip
        environment = {**os.environ, "RAY_ADDRESS": "local", "OPENAI_API_KEY": "none", "PYTHONPATH": str(ROOT)}
        self.began_at = time.time()
        self._said = (folder / f"said-{stage}").open("a")
        self._process = subprocess.Popen(line, cwd=ROOT, env=environment, stdout=self._said, stderr=self._said)

    def looks(self) -> Iterator[Look]:
        """One every `LOOK_EVERY_S`, while it runs."""
        while self._process.poll() is None:
            with contextlib.suppress(psutil.Error):
                yield self._look()
            time.sleep(LOOK_EVERY_S)

    def _look(self) -> Look:
        driver = psutil.Process(self._process.pid)
        own, actors, shared, store = driver.memory_full_info().uss, [0], 0, 0
        used = driver.cpu_times()
        for process in [driver, *driver.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                memory, title = process.memory_full_info(), " ".join(process.cmdline()[:1])
                shared += memory.pss
                if title.startswith("ray::"):
                    actors.append(memory.uss)
                if title.endswith("raylet/raylet"):
                    store = memory.shared
        return Look(
            at=time.time(), rows=self._rows.count(), cpu=used.user + used.system,
            driver=own / 1e6, actor=max(actors) / 1e6, all=shared / 1e6, store=store / 1e6,
        )  # fmt: skip

    def kill(self) -> None:
        """The driver alone, as the kernel would; its Ray ends with it."""
        below = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        self._process.wait()
        psutil.wait_procs(below, timeout=60)

    def end(self) -> None:
        """Raises where the command failed, with where it says why."""
        self._said.close()
        if self._process.wait() != 0:
            raise RuntimeError(f"the command failed; what it said is in {self._said.name}")


def measure_stage(folder: Path, stage: Stage, url: str, settings: Settings) -> None:
    total = settings.utterances if stage == "describe" else settings.utterances - 2
    first = Command(folder, stage, url, settings)
    looks = []
    for look in first.looks():
        looks.append(look)
        if look.rows >= settings.stop_at * total:
            first.kill()
            break
    made = _made_at(folder, stage)
    print_tenths(stage, total, first.began_at, made, looks)

    again = Command(folder, stage, url, settings)
    looks = list(again.looks())
    again.end()
    ended = time.time()
    made = _made_at(folder, stage)
    new = [at for at in made if at > again.began_at]
    if not new:
        raise ConfigError(f"{stage} had made all of its {total} rows before it was killed; take more --utterances")
    peak = max(look.driver for look in looks)
    print(
        f"{stage}: continued with {len(made) - len(new)} of {total} rows made, first new one after "
        f"{new[0] - again.began_at:.1f} s, ended {ended - new[-1]:.1f} s after the last; driver at most {peak:.0f} MB",
        flush=True,
    )
    assert len(made) == total, f"{len(made)} rows of {total}"


def _made_at(folder: Path, stage: Stage) -> list[float]:
    """When each written row was made, in order."""
    table = Output(str(folder / "out")).table(FOLDERS[stage], ["id", "created_at"])
    newest = table.group_by("id").aggregate([("created_at", "max")])
    return sorted(value.timestamp() for value in newest.column("created_at_max").to_pylist())


def print_tenths(stage: Stage, total: int, began_at: float, made: list[float], looks: list[Look]) -> None:
    """A line for each tenth that was made: its rate, and the most memory while it was."""
    print(f"{stage}: first row after {made[0] - began_at:.1f} s")
    print(f"{'rows':>16} {'rows/s':>8} {'ms a row':>8} {'driver':>8} {'actor':>8} {'all':>8} {'store':>8}   MB")
    for tenth in range(10):
        rows = made[tenth * total // 10 : (tenth + 1) * total // 10 + 1]
        if len(rows) <= total // 10 * 0.9:
            break
        within = [look for look in looks if rows[0] <= look.at <= rows[-1]] or looks[-1:]
        rate = (len(rows) - 1) / (rows[-1] - rows[0])
        most = [max(getattr(look, name) for look in within) for name in ("driver", "actor", "all", "store")]
        cpu = 1e3 * (within[-1].cpu - within[0].cpu) / (within[-1].at - within[0].at + 1e-9) / rate
        start = tenth * total // 10
        print(
            f"{start:>7} to {start + len(rows) - 1:>5} {rate:>8.1f} {cpu:>8.2f} "
            + " ".join(f"{m:>8.0f}" for m in most),
            flush=True,
        )


def measure(settings: Settings) -> None:
    with contextlib.ExitStack() as stack:
        folder = Path(settings.folder or stack.enter_context(tempfile.TemporaryDirectory())).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if "describe" in settings.stages:
            shutil.rmtree(folder / "out", ignore_errors=True)
        write_table(folder / "table.tsv", settings.utterances, write_clip(folder / "clip.mp4", moving_square(10)))
        server = stack.enter_context(serve())
        for stage in STAGES:
            if stage in settings.stages:
                measure_stage(folder, stage, server.base_url, settings)


if __name__ == "__main__":
    cli.run(
        measure, Settings, prog="python -m tests.benchmarks.load",
        description=(__doc__ or "").split("\n\n")[0],
        example="python -m tests.benchmarks.load --utterances 10000 --folder /tmp/load",
    )  # fmt: skip

"""What a search saves against the whole grid, what Ray and MLflow add to a trial, and what a further trial holds.

    python -m tests.benchmarks.search --data released

All on MIntRec2.0 with MiniLM, of which no layer is trained, so that the grid fits a laptop:

(a) the grid of 4 λ × 3 learning rates × 2 τ with every seed, and the same grid raced: seed-epochs of both, with and
    without text alone and the paper's setting, which every search tries beside its grid; and by how much the
    five-seed mean of the race's winner is below the best of the grid
(b) seconds of a trial beyond its training, after the first: trials one after the other through Tune and MLflow, against
    the same seeds in one plain loop
(c) memory of all trial processes (proportional set size, and what each has alone): one, two and four trials at once
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import ray
from rich.console import Console

from lgsrr import cli
from lgsrr.worker import train_job
from tests.processes import trial_processes
from tune.jobs import Jobs
from tune.ledger import Ledger
from tune.own_process import OwnProcessChannel
from tune.plan import Plan, plan
from tune.records import Trial
from tune.search import search
from tune.settings import SearchConfig, search_recipe
from tune.standings import winner

SPACE = {
    "rank_weight": {"choices": [0.03, 0.1, 0.3, 1.0]},
    "lr": {"choices": [1e-3, 3e-3, 1e-2]},
    "tau": {"choices": [0.3, 1.0]},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    data: str = "released"
    """Folder of the released tables."""
    only: str = "abc"
    """Which parts."""
    epochs: int = 8
    seeds: int = 5
    limit: int | None = None
    """Utterances of each split."""
    runs: str | None = None
    """Folder of the searches; a grid that is there already is not run again. Default: one of its own."""


def config_of(settings: Settings, folder: Path, **changes: Any) -> SearchConfig:
    """The settings of a search of the grid."""
    space = folder / "space.json"
    folder.mkdir(parents=True, exist_ok=True)
    space.write_text(json.dumps(SPACE))
    grid = SearchConfig(
        **dataclasses.asdict(search_recipe("mintrec2")) | {
            "data": settings.data, "trainable_layers": 0, "epochs": settings.epochs, "seeds": settings.seeds,
            "limit": settings.limit, "algorithm": "grid", "space": str(space), "runs": str(folder / "runs"),
        }
    )  # fmt: skip
    return dataclasses.replace(grid, **changes)


def quietly(planned: Plan) -> None:
    search(planned, Console(file=io.StringIO()))


def measure_race(settings: Settings, folder: Path) -> None:
    at_once = psutil.cpu_count()  # more would wait for each other
    whole = plan(config_of(settings, folder, name="grid", halving=1.0, at_once=at_once))
    raced = plan(config_of(settings, folder, name="race", at_once=at_once))
    for planned in (whole, raced):
        quietly(planned)
    grid_trials = [t for t in Ledger(whole).trials() if t.origin == "grid"]
    ids = {trial.id for trial in grid_trials}
    of_grid = [s for s in Ledger(whole).standings() if s.trial.id in ids and s.mean is not None]
    best = max(of_grid, key=lambda s: s.mean or 0.0)
    won = winner(Ledger(raced).standings())
    assert won is not None
    assert won.mean is not None
    assert best.mean is not None
    for what, which in (("everything", None), (f"the {len(ids)} points of the grid alone", ids)):
        all_, spent = (spent_on(planned, which) for planned in (whole, raced))
        print(f"(a) {what}: {all_} seed-epochs with every seed, {spent} raced, {100 * spent / all_:.0f} %")
    print(f"    best mean over {settings.seeds} seeds in the grid {100 * best.mean:.2f} ({best.trial.settings})")
    print(f"    winner of the race {100 * won.mean:.2f} ({won.trial.settings}, {won.trial.origin}): "
          f"{100 * (best.mean - won.mean):+.2f} points below the grid's best")  # fmt: skip


def spent_on(planned: Plan, trials: set[str] | None) -> int:
    """Seed-epochs that were trained, those included that did not count any more; None is of all trials."""
    return sum(r.epochs for r in planned.folder.results() if trials is None or r.trial in trials)


def some_trials(number: int) -> list[Trial]:
    return [Trial(settings={"k": 3, "lr": 1e-3 * (1 + n)}, origin="grid") for n in range(number)]


def measure_overhead(settings: Settings, folder: Path, trials: int = 8) -> None:
    space = folder / "one.json"
    space.write_text(json.dumps({"lr": {"choices": [1e-3 * (1 + n) for n in range(trials)]}}))
    config = config_of(settings, folder, name="overhead", at_once=1, seeds=1, halving=1.0, epochs=4)
    planned = plan(dataclasses.replace(config, space=str(space), cpus_per_worker=1))
    quietly(planned)
    ended = sorted(path.stat().st_mtime for path in (planned.folder.path / "results").glob("*.json"))
    each = statistics.median(b - a for a, b in itertools.pairwise(ended))
    jobs = Jobs(planned.dataset, planned.config.training(), 1)
    plain = []
    for trial in some_trials(trials):
        job = jobs.make(trial, 0)
        started = time.monotonic()
        train_job(job, OwnProcessChannel(str(folder / "plain" / trial.id), lambda _: None))
        plain.append(time.monotonic() - started)
    alone = statistics.median(plain[1:])
    print(f"(b) a trial of {config.epochs} epochs every {each:.2f} s; trained in a plain loop {alone:.2f} s: "
          f"{each - alone:.2f} s beyond its training")  # fmt: skip


def measure_memory(settings: Settings, folder: Path) -> None:
    for at_once in (1, 2, 4):
        space = folder / "one.json"
        space.write_text(json.dumps({"lr": {"choices": [1e-3 * (1 + n) for n in range(8)]}}))
        config = config_of(settings, folder, name=f"memory{at_once}", at_once=at_once, seeds=1, halving=1.0, epochs=6)
        planned = plan(dataclasses.replace(config, space=str(space), cpus_per_worker=1))
        peaks: dict[int, tuple[int, int]] = {}
        stop = threading.Event()
        watcher = threading.Thread(target=_watch, args=(peaks, stop))
        watcher.start()
        quietly(planned)
        stop.set()
        watcher.join()
        pss, own = (sum(peak[i] for peak in peaks.values()) / 1e6 for i in (0, 1))
        assert peaks, "no trial was seen"
        each = own / len(peaks)
        print(f"(c) {at_once} at once: {len(peaks)} processes, {pss:.0f} MB together, {each:.0f} MB of each its own")


def _watch(peaks: dict[int, tuple[int, int]], stop: threading.Event) -> None:
    while not stop.wait(1.0):
        for trial in trial_processes(os.getpid()):
            try:
                info = psutil.Process(trial.pid).memory_full_info()
            except psutil.Error:
                continue
            before = peaks.get(trial.pid, (0, 0))
            peaks[trial.pid] = (max(before[0], info.pss), max(before[1], info.uss))


def main(settings: Settings) -> None:
    with tempfile.TemporaryDirectory(prefix="lgsrr-bench-") as temporary:
        folder = Path(settings.runs) if settings.runs else Path(temporary)
        ray.init(
            num_cpus=max(4, psutil.cpu_count() or 1),
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
        for part, measure in (("a", measure_race), ("b", measure_overhead), ("c", measure_memory)):
            if part in settings.only:
                measure(settings, folder)
        ray.shutdown()


if __name__ == "__main__":
    cli.run(
        main, Settings, prog="python -m tests.benchmarks.search", description=(__doc__ or "").split("\n\n")[0],
        example="python -m tests.benchmarks.search --data released --only b",
    )  # fmt: skip

"""Searches of the tests: of seconds a seed, on the bundled sample with the tiny encoder."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from lgsrr.spool import RunFinished, RunStarted
from tests.memory_sink import MemorySink
from tests.tiny import ROOT, flags, tiny_config
from tune.ledger import Ledger
from tune.plan import plan
from tune.search import search
from tune.settings import SearchConfig, search_recipe


def search_config(encoder: Path, runs: Path, **changes: Any) -> SearchConfig:
    """Settings of a search of a minute: three seeds at most, four epochs."""
    tiny = dataclasses.asdict(tiny_config(encoder, runs, epochs=4, patience=4))
    small = SearchConfig(**tiny, trials=6, seeds=2, at_once=2)
    return dataclasses.replace(small, **changes)


def searched(config: SearchConfig) -> tuple[dict[str, Any], str]:
    """The answer of a search in this process, and what it printed meanwhile."""
    printed = io.StringIO()
    answer = search(plan(config), Console(file=printed, width=200))
    return answer, printed.getvalue()


def table(config: SearchConfig) -> list[dict[str, Any]]:
    """The final table, trial for trial, without what tells the time."""
    rows = []
    for standing in Ledger(plan(config)).standings():
        row = dataclasses.asdict(standing)
        row["id"] = standing.trial.id
        rows.append(row)
    return rows


def start(config: SearchConfig, log: Path) -> subprocess.Popen[bytes]:
    """`python tune/search.py` in a session of its own, with a Ray of its own."""
    line = [sys.executable, "tune/search.py", *flags(config, search_recipe(config.dataset, config.encoder))]
    with log.open("ab") as stream:
        return subprocess.Popen(
            line, cwd=ROOT, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, "RAY_ADDRESS": "local", "RAY_worker_niceness": "0"},
        )  # fmt: skip


def ended_seeds(config: SearchConfig) -> dict[str, dict[str, Any]]:
    """What is kept of seeds that have ended, by the name of the run."""
    folder = Path(config.runs) / "search" / config.search_name / "results"
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def runs_started(memory: MemorySink) -> dict[str, RunStarted]:
    """The start of every run that was recorded, by its key."""
    return {key: event for key, event in memory.events if isinstance(event, RunStarted)}


def runs_ended(memory: MemorySink) -> dict[str, str]:
    """The last status of every run that was recorded, by its key."""
    return {key: event.status for key, event in memory.events if isinstance(event, RunFinished)}

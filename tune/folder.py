"""The folder of a search: what it looks for, and what every seed came to; from it alone the same command goes on.

runs/search/<name>/
  search.json              what is searched; written first
  results/<run>.json       a seed that has ended, as it was trained
  tested/<run>.json        test scores of a seed, for the trials whose test was looked at
  report/                  table, plots, note
  answer.json              the winner; written last: the mark that says "finished"
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lgsrr.errors import ConfigError
from lgsrr.files import write_json
from lgsrr.spool import locked
from tune.records import SeedResult

Identity = dict[str, Any]
"""What is searched, by name; `dataset` and `kind` say which search it is, all else how it is made."""


def run_name(trial: str, seed: int) -> str:
    """The name of one seed's run: of its files, and in Ray."""
    return f"{trial}-s{seed}"


@dataclasses.dataclass(frozen=True, slots=True)
class SearchFolder:
    """See above; nothing is made before there is something to write."""

    path: Path

    @property
    def name(self) -> str:
        """Of the search."""
        return self.path.name

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for the block. Raises ConfigError where another command holds it."""
        self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.path / ".lock", wait=False) as descriptor:
            if descriptor is None:
                raise ConfigError(
                    f"another command is running the search in {self.path}; wait for it, or give another --name"
                )
            yield

    def begin(self, identity: Identity) -> None:
        """Write what is searched, or check that it is what this folder was begun with.

        Raises:
            ConfigError: the folder holds another search, or the settings have changed; names them.
        """
        path = self.path / "search.json"
        if not path.is_file():
            strangers = sorted(p.name for p in self.path.iterdir() if p.name != ".lock")
            if strangers:
                raise ConfigError(f"{self.path} holds {strangers[0]!r} and no search; give another --name")
            write_json(path, identity)
            return
        was: Identity = json.loads(path.read_text(encoding="utf-8"))
        now: Identity = json.loads(json.dumps(identity))
        if (was.get("dataset"), was.get("kind")) != (now["dataset"], now["kind"]):
            raise ConfigError(
                f"{self.path} holds another search: {was.get('kind')} on {was.get('dataset')}, "
                f"and this is {now['kind']} on {now['dataset']}; give another --name"
            )
        changed = _changes(was, now)
        if changed:
            listed = "\n".join(f"  {line}" for line in changed)
            raise ConfigError(
                f"the search in {self.path} was begun otherwise:\n{listed}\n"
                "Give the settings that it was begun with to go on with it, or --name NEW to begin another."
            )

    def results(self) -> list[SeedResult]:
        """Of all seeds that have ended."""
        return [_result(path) for path in sorted((self.path / "results").glob("*.json"))]

    def add(self, result: SeedResult) -> None:
        """Keep what a seed came to."""
        path = self.path / "results" / f"{run_name(result.trial, result.seed)}.json"
        write_json(path, dataclasses.asdict(result))

    def tested(self) -> dict[str, dict[str, float]]:
        """Test scores by the name of the run."""
        paths = sorted((self.path / "tested").glob("*.json"))
        return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}

    def add_tested(self, run: str, scores: Mapping[str, float]) -> None:
        """Keep the test scores of a run: they are looked at once."""
        write_json(self.path / "tested" / f"{run}.json", dict(scores))

    def answer(self) -> dict[str, Any] | None:
        """What the search found; None while it has not ended."""
        path = self.path / "answer.json"
        answer: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        return answer

    def finish(self, answer: Mapping[str, Any]) -> None:
        """Write the answer: the mark that says "finished"."""
        write_json(self.path / "answer.json", dict(answer))

    @property
    def report(self) -> Path:
        """Where table, plots and note lie."""
        return self.path / "report"

    def storage(self, storage: str | None) -> str:
        """Where the checkpoints of the seeds lie, a folder for each."""
        return f"{storage.rstrip('/')}/{self.name}" if storage else str(self.path / "checkpoints")

    def scratch(self) -> Path:
        """Where Tune keeps what it needs for a step; empty at its beginning."""
        path = self.path / "tune"
        shutil.rmtree(path, ignore_errors=True)
        return path


def _result(path: Path) -> SeedResult:
    raw = json.loads(path.read_text(encoding="utf-8"))
    return SeedResult(**(raw | {"history": tuple(raw["history"])}))


def _changes(was: Identity, now: Identity) -> list[str]:
    names = [*was, *(name for name in now if name not in was)]
    return [
        f"{name}: {was.get(name, 'not set')}, now {now.get(name, 'not set')}"
        for name in names
        if was.get(name) != now.get(name)
    ]

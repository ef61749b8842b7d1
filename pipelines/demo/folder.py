"""The folder of a demo: whose it is, and which of its steps are done.

runs/demo/
  demo.json         the settings that it was begun with; written first: the mark that says "a demo's"
  steps.json        what was run, and how long it took
  sample/ new/      clips
  extracted/        descriptions and rankings
  train/ search/    trained models, the search and its report
  mlflow.db         all runs, unless MLFLOW_TRACKING_URI names a server
  predictions.jsonl what the champion said of the new clips
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lgsrr.errors import ConfigError, LgsrrError
from lgsrr.files import write_json
from lgsrr.spool import locked

from .running import free_bytes
from .steps import Step

NEEDED_BYTES = 1_000_000_000
"""What the demo leaves on the disk, and what Ray wants free beside it."""


class DemoFolder:
    """One demo's folder, held by one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def held(self, identity: Mapping[str, str]) -> Iterator[None]:
        """Hold the folder for the block, made where it is missing.

        Raises ConfigError where it holds something else, another demo, or another process is at it, or no disk space.
        """
        self._check(identity)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be made: {error.strerror}; name another folder with --out") from None
        with locked(self.path / ".lock", wait=False) as descriptor:
            if descriptor is None:
                raise ConfigError(f"another demo is at work in {self.path}; wait for it, or name another --out")
            if not self._mark.is_file():
                write_json(self._mark, dict(identity))
            yield

    @property
    def _mark(self) -> Path:
        return self.path / "demo.json"

    def _check(self, identity: Mapping[str, str]) -> None:
        path = self.path
        if path.exists() and not path.is_dir():
            raise ConfigError(f"{path} is a file; the demo wants a folder of its own: --out FOLDER")
        strangers = sorted(p.name for p in path.iterdir() if p.name != ".lock") if path.is_dir() else []
        if strangers and not self._mark.is_file():
            raise ConfigError(
                f"{path} holds {strangers[0]!r} and no demo, so nothing is written there; expected a folder that is "
                "new, empty, or an earlier demo's: name another with --out"
            )
        was = self._read(self._mark)
        changed = [
            f"  {name}: {was[name]}, now {identity.get(name)}" for name in was if was[name] != identity.get(name)
        ]
        if changed:
            raise ConfigError(
                f"the demo in {path} was begun otherwise:\n" + "\n".join(changed) + "\n"
                "Give the settings that it was begun with to go on with it, or another --out to begin a new one."
            )
        free = free_bytes(path)
        if not was and free < NEEDED_BYTES:
            raise ConfigError(
                f"{free / 1e6:.0f} MB are free where {path} lies, and the demo wants {NEEDED_BYTES / 1e6:.0f}; make "
                "room, or name a folder on another disk with --out"
            )

    # Steps

    def seconds(self, step: Step) -> float | None:
        """How long the step took when it was done, by this very command; None where it is to be run."""
        entry = self._read(self._steps).get(step.name)
        if entry is None or entry["command"] != list(step.arguments):
            return None
        try:
            return float(entry["seconds"]) if step.leaves().is_file() else None
        except LgsrrError:  # what it would be known by is gone
            return None

    def finished(self, step: Step, seconds: float) -> None:
        """Note that a step is done."""
        entry = {"command": list(step.arguments), "seconds": round(seconds, 1)}
        write_json(self._steps, {**self._read(self._steps), step.name: entry})

    @property
    def _steps(self) -> Path:
        return self.path / "steps.json"

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError:
            raise ConfigError(f"{path} is damaged; remove {self.path} to begin the demo anew") from None
        return found if isinstance(found, dict) else {}

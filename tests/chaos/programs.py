"""The three commands that are disturbed: how each is given, how far it has come, and what it has left.

What is left is compared with what an undisturbed run leaves: of extraction all rows by utterance and stage, of training
weights and figures, of search the final table trial for trial, of all three what MLflow holds. Times are left out.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from lgsrr.config import recipe
from lgsrr.destination import TrackingConfig
from lgsrr.replay import Replay
from lgsrr.tracking import connect
from pipelines.answers import AnswerStore
from pipelines.output import Output
from pipelines.settings import ExtractConfig
from pipelines.stand_in.replies import NAME as LLM
from tests import extraction_runs, tiny
from tests.chaos.plan import Program
from tests.chaos.points import MAINS
from tests.search_runs import ended_seeds, search_config, table
from tune.folder import SearchFolder
from tune.settings import SearchConfig, search_recipe

LIMIT = 16
"""Utterances of each split that are extracted."""
EPOCHS = 8
"""Of training."""
FAILURES = 20
"""How many workers may die before training or a seed is given up: more than any plan kills."""


class Disturbed(Protocol):
    """One of the commands, in a folder of its own."""

    folder: Path

    def arguments(self) -> list[str]:
        """Of the command line."""

    def done(self) -> int:
        """How many pieces of work are done and kept."""

    def left(self) -> dict[str, Any]:
        """What it has left, without times."""

    def stored(self) -> int:
        """Answers of the language model that are kept."""


class ExtractionUnderway:
    """`python pipelines/extract.py`, all stages; clips are drawn, the engine is scripted."""

    def __init__(self, folder: Path, base_url: str, shared: Path) -> None:
        self.folder = folder
        values: dict[str, Any] = {
            "limit": LIMIT, "videos": str(shared / "clips"), "script": str(shared / "script.json"), "callers": 2,
            "concurrency": 8, "clips_in_flight": 8, "experiment": folder.name, "runs": str(folder / "runs"),
        }  # fmt: skip
        plain = extraction_runs.settings(folder / "none", folder / "out", base_url, **values)
        self.config: ExtractConfig = dataclasses.replace(plain, dataset="sample", data=None)

    def arguments(self) -> list[str]:
        return extraction_runs.flags(self.config)

    def done(self) -> int:
        return len(AnswerStore(self.config.out).fingerprints())

    def left(self) -> dict[str, Any]:
        rows = {name: sorted(found) for name, found in extraction_runs.content(self.config.out).items()}
        output = Output(self.config.out)
        counts = {name: len(output.table(name)) for name in extraction_runs.FOLDERS}
        complete = bool((output.manifest() or {}).get("complete"))
        return {**rows, "rows": counts, "aspects": (output.aspects() or {}).get("aspects"), "complete": complete}

    def stored(self) -> int:
        kept = (json.loads(path.read_bytes()) for path in (Path(self.config.out) / "answers").glob("*/*.json"))
        return sum(answer["model"] == LLM for answer in kept)


class TrainingUnderway:
    """`python -m lgsrr.train` with two workers."""

    def __init__(self, folder: Path, shared: Path) -> None:
        self.folder = folder
        self.config = tiny.tiny_config(
            shared / "tiny", folder / "runs", limit=80, epochs=EPOCHS, patience=EPOCHS, lr=1e-3, workers=2,
            max_failures=FAILURES, experiment=folder.name,
        )  # fmt: skip

    def arguments(self) -> list[str]:
        return tiny.flags(self.config, recipe(self.config.dataset, self.config.encoder))

    def done(self) -> int:
        return tiny.epochs_kept(Path(self.config.runs))

    def left(self) -> dict[str, Any]:
        finished = list(Path(self.config.runs).glob("train/*/result.json"))
        if len(finished) != 1:
            return {"finished runs": len(finished)}
        result = tiny.result(finished[0].parent)
        weights = hashlib.sha256((finished[0].parent / "model" / "model.safetensors").read_bytes()).hexdigest()
        return {"history": tiny.numbers(result["history"]), "scores": result["scores"], "weights": weights}

    def stored(self) -> int:
        return 0


class SearchUnderway:
    """`python tune/search.py`, a seed in each trial's own process."""

    def __init__(self, folder: Path, shared: Path) -> None:
        self.folder = folder
        self.config: SearchConfig = search_config(
            shared / "tiny", folder / "runs", trials=4, seeds=2, epochs=3, patience=3, max_failures=FAILURES,
            experiment=folder.name,
        )  # fmt: skip

    def arguments(self) -> list[str]:
        return tiny.flags(self.config, search_recipe(self.config.dataset, self.config.encoder))

    def done(self) -> int:
        return len(ended_seeds(self.config)) + len(self._folder().tested())

    def left(self) -> dict[str, Any]:
        answer = self._folder().answer() or {}
        return {"table": table(self.config), "answer": {name: answer.get(name) for name in ("winner", "seed")}}

    def stored(self) -> int:
        return 0

    def _folder(self) -> SearchFolder:
        return SearchFolder(Path(self.config.runs) / "search" / self.config.search_name)


def make(program: Program, folder: Path, base_url: str, shared: Path) -> Disturbed:
    """A command whose folder is `folder`; `shared` holds what all rounds read."""
    if program == "extraction":
        return ExtractionUnderway(folder, base_url, shared)
    return TrainingUnderway(folder, shared) if program == "training" else SearchUnderway(folder, shared)


def prepare(shared: Path) -> None:
    """Write what all rounds read: an encoder, clips of the sample's utterances, the engine's script."""
    shared.mkdir(parents=True, exist_ok=True)
    tiny.write_tiny_bert(shared / "tiny")
    extraction_runs.write_clips(shared / "clips", [u.id for u in tiny.sample_data(LIMIT).utterances])
    (shared / "script.json").write_text(json.dumps({"seconds_per_clip": 0.2, "lanes": 2}), encoding="utf-8")


def command(program: Program, arguments: list[str], dies: tuple[str, int] | None = None) -> list[str]:
    """The whole command line; `dies` names a point, and at which time that it is passed."""
    if dies is not None:
        return [sys.executable, "-m", "tests.chaos.points", dies[0], str(dies[1]), program, *arguments]
    return [sys.executable, *MAINS[program][1].split(), *arguments]


def recorded(here: Disturbed, program: Program, uri: str) -> dict[str, Any]:
    """What MLflow holds of it, after what waited for the server has been sent as the next command would."""
    replay = Replay(here.folder / "runs", TrackingConfig(uri=uri))
    waiting = replay.close(timeout_s=60)
    client = connect(uri)
    experiment = client.get_experiment_by_name(here.folder.name)
    found = [] if experiment is None else client.search_runs([experiment.experiment_id], max_results=1000)
    if program == "extraction":  # a run for each command that came to an end, early or not
        return {"waiting": waiting, "finished": any(run.info.status == "FINISHED" for run in found)}
    runs = sorted([run.info.run_name, run.info.status, _points(client, run)] for run in found)
    return {"waiting": waiting, "runs": runs}


def _points(client: Any, run: Any) -> list[list[float]]:
    points = client.get_metric_history(run.info.run_id, "dev_f1")
    return sorted([point.step, point.value] for point in points)


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Names of what is not the same in two runs."""
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))

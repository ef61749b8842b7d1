"""Small extractions for tests: a table, its clips, settings that ask the stand-in, and what a run has left.

What an utterance says holds its id between two words (`says`), so that a test finds it in a request and can tell the
server to fail on it alone.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from lgsrr.extracted import DESCRIPTIONS_FOLDER, QUARANTINE_FOLDER, RANKINGS_FOLDER
from lgsrr.records import SPLITS, Split
from pipelines.calls import Json, fingerprint_of
from pipelines.extraction import Extracted, Extraction
from pipelines.output import Output
from pipelines.settings import ExtractConfig
from pipelines.stand_in.replies import completion
from tests.clips import moving_square, write_clip
from tests.tables_on_disk import ASPECTS

PRICE_IN, PRICE_OUT = 1000.0, 2000.0
"""Dollars for a million tokens: a run of a few rows costs a few dollars."""
LABELS = ("Praise", "Taunt")
FOLDERS = (DESCRIPTIONS_FOLDER, RANKINGS_FOLDER, QUARANTINE_FOLDER)
_CLOCKS = ("created_at", "waited_s", "attempts", "packages")
"""Columns of a receipt that differ between two runs of the same work."""


def says(name: str) -> str:
    """What the utterance of that name says; no name is a part of another's."""
    return f"I tell {name} aloud"


def names_of(counts: Mapping[Split, int]) -> dict[str, Split]:
    """Ids and their splits: u00, u01, …"""
    splits = [split for split in SPLITS for _ in range(counts.get(split, 0))]
    return {f"u{n:02d}": split for n, split in enumerate(splits)}


def write_table(path: Path, counts: Mapping[Split, int], *, described: bool = False, shift: int = 0) -> Path:
    """A JSONL table of the user's own, labels in turn; those of dev and test turned on by `shift`.

    `described` gives each utterance a column for each of three aspects.
    """
    rows = []
    for place, (name, split) in enumerate(names_of(counts).items()):
        label = LABELS[(place + (shift if split != "train" else 0)) % len(LABELS)]
        row = {"id": name, "text": says(name), "split": split, "label": label}
        seen = {aspect: f"{aspect} as seen in {name}: " + "more " * (place % 3) for aspect in ASPECTS}
        rows.append({**row, **(seen if described else {})})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_clips(folder: Path, names: Sequence[str]) -> Path:
    """A clip of ten small frames for each name, no two alike."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, name in enumerate(names):
        write_clip(folder / f"{name}.mp4", moving_square(10, seed=place))
    return folder


def settings(table: Path, out: Path | str, base_url: str, **changes: Any) -> ExtractConfig:
    """A run that asks the server at `base_url` and describes by rules, with one actor of each kind: most of a small
    run is the start of its actors.
    """
    values: dict[str, Any] = {
        "dataset": "mine", "data": str(table), "out": str(out), "engine": "scripted", "llm": "stand-in",
        "base_url": base_url, "price_in": PRICE_IN, "price_out": PRICE_OUT, "frames": 4, "rounds": 4, "subset": 3,
        "timeout_s": 20.0, "runs": str(table.parent / "runs"),
        "callers": 1, "decoders": 1,
    }  # fmt: skip
    return ExtractConfig(**{**values, **changes})


def run(config: ExtractConfig) -> tuple[Extracted, str]:
    """Run an extraction in this process; its result and what it printed."""
    said = io.StringIO()
    return Extraction(config, Console(file=said, width=200)).run(), said.getvalue()


def rows_of(out: Path | str, folder: str) -> list[dict[str, Any]]:
    """Rows of a folder of an output."""
    rows: list[dict[str, Any]] = Output(str(out)).table(folder).to_pylist()
    return rows


def ids_of(out: Path | str, folder: str) -> set[str]:
    return {row["id"] for row in rows_of(out, folder)}


def content(out: Path | str) -> dict[str, set[str]]:
    """What an output holds, without the times and tries: two runs of the same work have the same."""
    return {
        folder: {
            json.dumps({name: value for name, value in row.items() if name not in _CLOCKS}, sort_keys=True, default=str)
            for row in rows_of(out, folder)
        }
        for folder in FOLDERS
    }


def assert_nothing_twice(out: Path | str) -> None:
    """Every utterance stands once under each aspect, once in a ranking, once in the quarantine of a stage."""
    for folder, more in zip(FOLDERS, ("aspect", "", "stage"), strict=True):
        keys = Counter((row["id"], row.get(more)) for row in rows_of(out, folder))
        assert [key for key, count in keys.items() if count > 1] == [], f"{folder}: rows that stand twice"


def is_ranking(body: Json) -> bool:
    """Whether a request on the wire asks for a ranking."""
    return "ranking" in json.dumps(body.get("response_format", ""))


def charge(bodies: Sequence[Json], paid_by_body: Mapping[str, int]) -> float:
    """Dollars that the server charged by its own count, for answers that no fault has spoilt."""
    total = 0.0
    for name, body in {fingerprint_of({"body": body}): body for body in bodies}.items():
        usage = completion(body)["usage"]
        cost = usage["prompt_tokens"] * PRICE_IN + usage["completion_tokens"] * PRICE_OUT
        total += paid_by_body.get(name, 0) * cost / 1e6
    return total


def flags(config: ExtractConfig) -> list[str]:
    """The command line that gives `config`: a flag for each setting that is not the default."""
    words: list[str] = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value != field.default:
            words += [f"--{field.name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return words

"""Make the small dataset that is bundled with the project, in the layout that extraction writes.

    python -m lgsrr.sample_table --out lgsrr/sample --seed 0

It is made up: no clip was watched and no model asked. Every ambiguous text stands in its split twice, once for each
intent of a pair, so that nobody can do better than about 57 % by the text, while text and descriptions together tell
all. No description occurs twice. The same seed gives the same rows on every machine and Python; the bytes of the
Parquet files may differ by version of pyarrow.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from lgsrr import sample_scenes as scenes
from lgsrr.aspects import CANONICAL
from lgsrr.errors import DataError
from lgsrr.extracted import (
    ASPECTS_FILE,
    DESCRIPTIONS,
    DESCRIPTIONS_FOLDER,
    MANIFEST_FILE,
    RANKINGS,
    RANKINGS_FOLDER,
    UTTERANCES,
    UTTERANCES_FILE,
)
from lgsrr.files import atomic_path, write_json
from lgsrr.records import SPLITS, Split

PER_INTENT: dict[Split, int] = {"train": 24, "dev": 6, "test": 10}
"""Utterances of each intent in each split."""
CLEAR_EVERY = 6
"""One in so many utterances of an intent has a text that leaves no doubt."""
ASPECTS = ("A", "E", "I")
PART_FILE = "part-00000.parquet"

README = """# sample/

{count} utterances of {intents} intents, made up by `lgsrr/sample_table.py`: nobody said these things and no model
watched them. They let the demo and the tests run without any download, and say nothing about the quality of a method.

The same words can mean two things here ("nice job": praise or a taunt), and the descriptions tell which. Make the files
again with

    python -m lgsrr.sample_table --out lgsrr/sample --seed {seed}
"""


class Scene(NamedTuple):
    """One made-up utterance."""

    text: str
    split: Split
    intent: str
    descriptions: tuple[str, ...]
    """In the order of ASPECTS."""


def make_scenes(seed: int) -> list[Scene]:
    """The whole dataset, split by split, shuffled within each."""
    random = Random(seed)
    turns: Counter[str] = Counter()
    used: set[str] = set()
    made: list[Scene] = []
    for split in SPLITS:
        said = [pair_text for pair in scenes.PAIRS for pair_text in _texts(random, pair, PER_INTENT[split])]
        random.shuffle(said)
        for text, intent in said:
            made.append(Scene(text, split, intent, _descriptions(random, intent, turns[intent], used)))
            turns[intent] += 1
    return made


def write_sample(out: Path, seed: int) -> int:
    """Write the dataset into the folder `out`, file by file, the manifest last; returns the number of utterances.

    Raises DataError where the folder cannot be written.
    """
    made = make_scenes(seed)
    ids = [f"sample_{number:03d}" for number in range(len(made))]
    manifest = {"dataset": "sample", "made_by": "lgsrr.sample_table", "seed": seed, "cost_usd": 0}
    counts = {split: sum(scene.split == split for scene in made) for split in SPLITS}
    try:
        _write_table(out / UTTERANCES_FILE, UTTERANCES, [_utterance(i, s) for i, s in zip(ids, made, strict=True)])
        rows = [row for name, scene in zip(ids, made, strict=True) for row in _described(name, scene)]
        _write_table(out / DESCRIPTIONS_FOLDER / PART_FILE, DESCRIPTIONS, rows)
        ranked = [_ranked(i, s) for i, s in zip(ids, made, strict=True) if s.split == "train"]
        _write_table(out / RANKINGS_FOLDER / PART_FILE, RANKINGS, ranked)
        write_json(out / ASPECTS_FILE, _aspects(len(made)))
        readme = README.format(count=len(made), intents=len(scenes.LABELS), seed=seed)
        with atomic_path(out / "README.md") as temporary:
            temporary.write_text(readme, encoding="utf-8")
        write_json(out / MANIFEST_FILE, manifest | {"utterances": counts, "rankings": len(ranked)})
    except OSError as error:
        raise DataError(
            f"{error.filename or out}: cannot be written: {error.strerror}. Choose another --out."
        ) from None
    return len(made)


def _texts(random: Random, pair: scenes.Pair, count: int) -> list[tuple[str, str]]:
    """`count` texts for each intent of the pair: a few that are clear, and the rest twice, once for each intent."""
    clear = count // CLEAR_EVERY
    said: list[tuple[str, str]] = []
    for intent, phrases in zip(pair.intents, pair.clear, strict=True):
        said += [(_dressed(random, phrases[turn % len(phrases)]), intent) for turn in range(clear)]
    for turn in range(count - clear):
        text = _dressed(random, pair.either[turn % len(pair.either)])
        said += [(text, intent) for intent in pair.intents]
    return said


def _dressed(random: Random, phrase: str) -> str:
    name = random.choice(scenes.NAMES)
    return f"{random.choice(scenes.OPENERS)}{phrase}{random.choice(('', '', f', {name}'))}."


def _descriptions(random: Random, intent: str, turn: int, used: set[str]) -> tuple[str, ...]:
    """What is seen under each of ASPECTS, every description new to `used`; the wordings of an intent take turns."""
    told = [_wordings(intent, short) for short in ASPECTS]
    while True:
        speaker = random.choice(scenes.SPEAKERS)
        around = [random.choice(scenes.SURROUNDINGS[short]) for short in ASPECTS]
        seen = [f"{speaker} {told[k][turn % len(told[k])]}. {around[k]}" for k in range(len(ASPECTS))]
        if used.isdisjoint(seen):
            used.update(seen)
            return tuple(seen)


def _wordings(intent: str, short: str) -> Sequence[str]:
    place = scenes.RANKINGS[intent].index(short)
    return (scenes.DECIDES[intent], scenes.MOODS[scenes.SUPPORTS[intent]], scenes.NEUTRAL[short])[place]


# Rows and files


def _utterance(name: str, scene: Scene) -> dict[str, object]:
    return {"id": name, "text": scene.text, "split": scene.split, "label": scene.intent, "video": None}


def _described(name: str, scene: Scene) -> list[dict[str, object]]:
    pairs = zip(ASPECTS, scene.descriptions, strict=True)
    return [{"id": name, "aspect": CANONICAL[short], "text": text} for short, text in pairs]


def _ranked(name: str, scene: Scene) -> dict[str, object]:
    return {"id": name, "aspects": [CANONICAL[short] for short in scenes.RANKINGS[scene.intent]]}


def _aspects(count: int) -> dict[str, object]:
    named = [{"name": CANONICAL[short], "instruction": "", "frequency": count} for short in ASPECTS]
    return {"aspects": named, "found": "made up by lgsrr.sample_table; no model was asked"}


def _write_table(path: Path, schema: pa.Schema, rows: list[dict[str, object]]) -> None:
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary, compression="zstd")


# The command


@dataclasses.dataclass(frozen=True, kw_only=True)
class MakeSample:
    """Where the sample goes, and which one."""

    out: Path
    """Folder to write into; files of the same names in it are replaced."""
    seed: int = 0
    """The bundled sample is that of seed 0."""


def make_sample(config: MakeSample) -> None:
    """Write the sample and say so."""
    count = write_sample(config.out, config.seed)
    print(f"{count} utterances in {config.out}; see them with:")
    print(f"python -m lgsrr.catalog --dataset sample --data {config.out}")


def main(argv: Sequence[str] | None = None) -> None:
    """The command `python -m lgsrr.sample_table`."""
    from lgsrr import cli

    cli.run(
        make_sample,
        MakeSample,
        prog="python -m lgsrr.sample_table",
        description="Make the small dataset that is bundled with the project.",
        example="python -m lgsrr.sample_table --out lgsrr/sample --seed 0",
        argv=argv,
    )


if __name__ == "__main__":
    main()

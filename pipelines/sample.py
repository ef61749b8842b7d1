"""Make a sample of drawn clips: utterances whose meaning is in the picture.

    python -m pipelines.sample --out clips --utterances 240 --seed 0

Every text stands in its split twice, once for each intent of a pair, so that the best classifier on texts alone is
right exactly every second time; what people do, their faces and how they deal with each other tell the rest. Written:

    clips/<id>.mp4     2 to 3 s, 112 x 112 pixels, H.264
    utterances.csv     id, text, split, label, video: your own table, as extraction and training read it
    truth.csv          the same with true descriptions, no wording of which two splits share
    truth.parquet      what is drawn: id, action, expression, interaction, place
    sample.json        what was made, written last

The same seed draws the same frames and writes the same tables; the files' bytes may differ between builds of x264. A
folder that holds an unfinished sample of the same settings is gone on with.
"""

from __future__ import annotations

import csv
import dataclasses
import errno
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

from lgsrr import cli
from lgsrr.errors import ConfigError, DataError
from lgsrr.files import atomic_path, write_json
from lgsrr.records import SPLITS, Split

from .drawn_clips.clip import write_clip
from .drawn_clips.intents import LABELS, PAIRS, Intent, Pair, say, scene_of
from .drawn_clips.scene import Scene
from .drawn_clips.wordings import ASPECTS, described

CLIPS, UTTERANCES, TRUTH, DRAWN, SAMPLE = "clips", "utterances.csv", "truth.csv", "truth.parquet", "sample.json"
BEGUN = "begun.json"
"""Says whose folder it is while clips are being written."""
SHARES: dict[Split, float] = {"train": 0.6, "dev": 0.15, "test": 0.25}
FEWEST = len(LABELS) * len(SPLITS)
"""One utterance of each intent in each split."""
TEXT_ALONE = 0.5
"""Accuracy of the best classifier on texts alone: both intents of a pair say the same words equally often."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Which sample, and where it goes."""

    out: Path
    """Folder to make; one with other content is refused."""
    utterances: int = 240
    """How many, an even number: every text is said twice."""
    seed: int = 0
    """Another seed, another sample."""

    def __post_init__(self) -> None:
        if self.utterances < FEWEST or self.utterances % 2:
            raise ConfigError(
                f"utterances is {self.utterances}; expected an even number of {FEWEST} or more, which is one of "
                f"each of the {len(LABELS)} intents in each split"
            )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """One utterance of a sample."""

    id: str
    text: str
    split: Split
    intent: Intent
    scene: Scene

    @property
    def video(self) -> str:
        """Path within the sample."""
        return f"{CLIPS}/{self.id}.mp4"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SampleSummary:
    """What was made."""

    out: Path
    utterances: int
    splits: dict[str, int]
    labels: tuple[str, ...]
    text_alone_accuracy: float


def draw_sample(utterances: int, seed: int) -> list[Drawn]:
    """All utterances of a sample, split by split, shuffled within each."""
    random = Random(f"sample/{seed}")
    counts = _texts_per_split(utterances // 2)
    drawn: list[Drawn] = []
    used: set[tuple[Split, str]] = set()
    for split in SPLITS:
        said = [text for turn in range(counts[split]) for text in _twice(turn, split, random, used)]
        random.shuffle(said)
        for text, intent in said:
            name = f"drawn{seed}_{len(drawn):05d}"
            drawn.append(Drawn(id=name, text=text, split=split, intent=intent, scene=scene_of(intent, random)))
    return drawn


def _texts_per_split(texts: int) -> dict[Split, int]:
    """How many texts each split has: by `SHARES`, and one for each pair at least."""
    dev, test = (max(len(PAIRS), round(texts * SHARES[split])) for split in ("dev", "test"))
    return {"train": texts - dev - test, "dev": dev, "test": test}


def _twice(turn: int, split: Split, random: Random, used: set[tuple[Split, str]]) -> list[tuple[str, Intent]]:
    """A text for each intent of the pair whose turn it is; new to the split, while there are new ones."""
    pair: Pair = PAIRS[turn % len(PAIRS)]
    for _ in range(100):
        text = say(pair, turn // len(PAIRS), random)
        if (split, text) not in used:
            break
    used.add((split, text))
    return [(text, intent) for intent in pair.intents]


def write_sample(config: SampleConfig) -> SampleSummary:
    """Write the sample, or the rest of it.

    Raises:
        DataError: the folder holds something else, or cannot be written.
        ClipError: this PyAV has no H.264 encoder.
    """
    drawn = draw_sample(config.utterances, config.seed)
    identity = {"utterances": config.utterances, "seed": config.seed}
    if not _is_finished(config.out, identity):
        try:
            _begin(config.out, identity)
            _write(config.out, drawn, identity)
        except OSError as error:
            full = error.errno == errno.ENOSPC
            more = " The disk is full: the same command goes on when there is room." if full else ""
            raise DataError(f"{error.filename or config.out} cannot be written: {error.strerror}.{more}") from error
    return SampleSummary(
        out=config.out, utterances=len(drawn), splits=_counts(drawn), labels=LABELS, text_alone_accuracy=TEXT_ALONE
    )


def _is_finished(out: Path, identity: dict[str, int]) -> bool:
    """Whether this very sample is there. DataError where the folder holds anything else but an unfinished one."""
    if not out.exists():
        return False
    if not out.is_dir():
        raise DataError(f"{out} is a file; expected a folder, or none yet. Choose another --out.")
    for name in (SAMPLE, BEGUN):
        if (out / name).is_file():
            found = _identity(out / name)
            if found != identity:
                raise DataError(
                    f"{out} holds another sample ({found}), expected {identity} or nothing. Choose another --out, or "
                    "remove the folder."
                )
            return name == SAMPLE
    if any(out.iterdir()):
        raise DataError(f"{out} holds other files ({next(out.iterdir()).name}, …). Choose a folder that is empty.")
    return False


def _identity(path: Path) -> Any:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {name: found[name] for name in ("utterances", "seed")}
    except (ValueError, TypeError, KeyError):
        return f"{path.name} cannot be read"


def _begin(out: Path, identity: dict[str, int]) -> None:
    (out / CLIPS).mkdir(parents=True, exist_ok=True)
    write_json(out / BEGUN, identity)


def _write(out: Path, drawn: Sequence[Drawn], identity: dict[str, int]) -> None:
    missing = [one for one in drawn if not (out / one.video).exists()]
    with ThreadPoolExecutor() as pool:  # PyAV encodes without Python's lock
        for _ in pool.map(lambda one: write_clip(one.scene, out / one.video), missing):
            pass
    columns = ("id", "text", "split", "label", "video")
    rows = [(one.id, one.text, one.split, one.intent.name, one.video) for one in drawn]
    _write_csv(out / UTTERANCES, columns, rows)
    described = [(*row, *_true_descriptions(one)) for row, one in zip(rows, drawn, strict=True)]
    _write_csv(out / TRUTH, (*columns, *ASPECTS), described)
    _write_drawn(out / DRAWN, drawn)
    about = {"splits": _counts(drawn), "labels": LABELS, "text_alone_accuracy": TEXT_ALONE}
    write_json(out / SAMPLE, {**identity, **about, "made_by": "pipelines.sample"})
    (out / BEGUN).unlink(missing_ok=True)


def _true_descriptions(one: Drawn) -> list[str]:
    """In the wording of the split, which no other split has."""
    told = described(one.scene, 1 + SPLITS.index(one.split))
    return [told[name] for name in ASPECTS]


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def _write_drawn(path: Path, drawn: Sequence[Drawn]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ("action", "expression", "interaction", "place")
    rows = [{"id": one.id, **{name: getattr(one.scene, name) for name in names}} for one in drawn]
    schema = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("id", *names)])
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary)


def _counts(drawn: Sequence[Drawn]) -> dict[str, int]:
    return {split: sum(one.split == split for one in drawn) for split in SPLITS}


def make_sample(config: SampleConfig) -> None:
    """The command: write, and say what was made."""
    made = write_sample(config)
    splits = ", ".join(f"{count} {split}" for split, count in made.splits.items())
    print(f"{made.utterances} utterances ({splits}) of {len(made.labels)} intents in {made.out}")
    print(f"the best classifier on their texts alone is right {100 * made.text_alone_accuracy:.0f} % of the time")
    where = f"--data {made.out / UTTERANCES} --videos {made.out}"
    print(f"describe them:   python pipelines/extract.py --dataset drawn {where} --engine vllm --model small …")


def main(argv: Sequence[str] | None = None) -> None:
    """The command `python -m pipelines.sample`."""
    cli.run(
        make_sample,
        SampleConfig,
        prog="python -m pipelines.sample",
        description="Make a sample of drawn clips: utterances whose meaning is in the picture.",
        example="python -m pipelines.sample --out clips --utterances 240 --seed 0",
        argv=argv,
    )


if __name__ == "__main__":
    main()

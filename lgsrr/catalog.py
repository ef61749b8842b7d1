"""What data there is: `load_dataset` gives a checked `Dataset`, and the command prints what is in one.

    python -m lgsrr.catalog --dataset mintrec2 --data DIR [--json]
    python -m lgsrr.catalog fetch --dest DIR [--source URL]

`--data` decides how it is read: what extraction wrote, the released tables, or the user's own file. Nothing is cached
between two loads: reading and checking MIntRec2.0 takes less time than a cache would take to be trusted.
"""

from __future__ import annotations

import dataclasses
import json
import os
import posixpath
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, TypedDict

from lgsrr import storage
from lgsrr.checks import Draft, check
from lgsrr.errors import ConfigError, DataError
from lgsrr.records import SPLITS, Dataset, Split
from lgsrr.released import FOLDERS, RELEASED, TEXT_FOLDER, locate, read_released
from lgsrr.sample_scenes import LABELS
from lgsrr.tables import FORMATS, did_you_mean, shown
from lgsrr.uncollected import uncollected

SAMPLE = "sample"
SAMPLE_FOLDER = Path(__file__).parent / "sample"
"""The bundled dataset, made by `lgsrr.sample_table`."""
_KNOWN_LABELS = {SAMPLE: LABELS, **{name: layout.labels for name, layout in RELEASED.items()}}


class Summary(TypedDict):
    """What `--json` prints."""

    dataset: str
    splits: dict[str, int]
    labels: dict[str, dict[str, int]]
    ranks: dict[str, list[int]]


@uncollected()
def load_dataset(dataset: str, data: str | None, *, require: tuple[Split, ...] = SPLITS) -> Dataset:
    """Read and check one dataset.

    `dataset` is `mintrec2`, `iemocap_da`, `sample` or a name of the user's own; `data` a folder of the released tables,
    a folder or `s3://` prefix that extraction wrote, or the user's own table. None is for the bundled `sample` alone.
    `require` names the splits that must be there, every utterance of them with a label: all three for training, the one
    that is evaluated for evaluation, none for prediction.

    Raises DataError where the data are not what they should be, ConfigError where `dataset` and `data` do not fit.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}", dataset):
        raise ConfigError(
            f"dataset is {shown(dataset)}; expected a name of letters, digits, '_', '.' and '-', 60 of them at most."
        )
    return check(_read(dataset, data, bool(require)), require)


def summarise(dataset: Dataset) -> Summary:
    """Counts of a dataset: utterances per split, per label and split, and how often each aspect came 1st, 2nd, …

    `ranks` is empty where nothing is ranked.
    """
    labels = Counter((u.label, u.split) for u in dataset.utterances)
    splits = Counter(u.split for u in dataset.utterances)
    places = Counter((name, place) for u in dataset.utterances for place, name in enumerate(u.ranking or ()))
    names = [aspect.name for aspect in dataset.aspects] if places else []
    return {
        "dataset": dataset.name,
        "splits": {split: splits[split] for split in SPLITS},
        "labels": {label: {split: labels[label, split] for split in SPLITS} for label in dataset.labels},
        "ranks": {name: [places[name, place] for place in range(len(names))] for name in names},
    }


def _read(dataset: str, data: str | None, for_training: bool) -> Draft:
    from lgsrr.extracted import is_extracted, read_extracted
    from lgsrr.own_table import read_own_table

    if data is None:
        data = _bundled(dataset)
    data = data if storage.is_uri(data) else os.path.expanduser(data)
    match storage.kind(data):
        case "missing":
            raise DataError(f"{data}: no such file or folder; --data names where the dataset {dataset!r} lies.")
        case "file":
            return read_own_table(dataset, data, for_training=for_training)
        case "folder" if is_extracted(data):
            return read_extracted(dataset, data, labels=_KNOWN_LABELS.get(dataset))
        case "folder":
            return _released(dataset, data)


def _bundled(dataset: str) -> str:
    if dataset == SAMPLE:
        return str(SAMPLE_FOLDER)
    how = "fetch the tables with: python -m lgsrr.catalog fetch --dest DIR" if dataset in RELEASED else "name your file"
    hint = did_you_mean(dataset, (*RELEASED, SAMPLE)) if dataset not in RELEASED else ""
    raise ConfigError(f"the dataset {dataset!r} needs --data; {how}. Only {SAMPLE!r} is bundled.{hint}")


def _released(dataset: str, data: str) -> Draft:
    root = locate(data)
    if root is None:
        raise DataError(_no_dataset(data))
    if dataset not in RELEASED:
        known = ", ".join(RELEASED)
        hint = did_you_mean(dataset, RELEASED)
        raise ConfigError(f"{data} holds the released tables, and {dataset!r} is none of {known}.{hint}")
    return read_released(dataset, root)


def _no_dataset(data: str) -> str:
    """What is wrong with a folder that holds no dataset, and which folder was perhaps meant."""
    from lgsrr.extracted import DESCRIPTIONS_FOLDER, UTTERANCES_FILE, is_extracted

    names = storage.names_in(data)
    outer = data.rstrip("/")
    for _ in range(2):
        outer, name = posixpath.split(outer)
        if name in FOLDERS:
            return f"{data}: a part of the released tables. Name the folder that holds {TEXT_FOLDER}: --data {outer}"
    inner = [path for path in (storage.join(data, name) for name in names) if is_extracted(path)]
    if inner:
        return f"{data}: no dataset itself, but {inner[0]} is one. Name that one: --data {inner[0]}"
    if DESCRIPTIONS_FOLDER in names:
        return f"{data}: {UTTERANCES_FILE} is missing. Extraction has not finished: run the same command again."
    tables = [name for name in names if name.endswith(FORMATS)]
    hint = f" Your own table is named itself: --data {storage.join(data, tables[0])}" if tables else ""
    return (
        f"{data}: holds no dataset. Expected {TEXT_FOLDER}/ (the released tables), {UTTERANCES_FILE} (what extraction "
        f"writes), or a table of your own ({', '.join(FORMATS)}).{hint}"
    )


# The command


@dataclasses.dataclass(frozen=True, kw_only=True)
class Show:
    """Which dataset to look into."""

    dataset: str
    """`mintrec2`, `iemocap_da`, `sample` (bundled), or a name for your own data."""
    data: str | None = None
    """Folder of the released tables, folder or s3:// prefix that extraction wrote, or your own CSV, TSV, JSONL or
    Parquet file with id, text, split, label, video. Not needed for `sample`."""
    json: bool = False
    """Print one JSON object instead of tables."""


def show(config: Show) -> None:
    """Check a dataset and print what is in it."""
    dataset = load_dataset(config.dataset, config.data)
    summary = summarise(dataset)
    if config.json:
        print(json.dumps(summary, ensure_ascii=False))
    else:
        from lgsrr.catalog_print import print_summary

        print_summary(summary, dataset.source)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command `python -m lgsrr.catalog`, and `fetch` below it."""
    from lgsrr import cli

    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments[:1] == ["fetch"]:
        from lgsrr import fetch

        fetch.main(arguments[1:])
    cli.run(
        show,
        Show,
        prog="python -m lgsrr.catalog",
        description="Check a dataset and print its splits, labels and rankings.\n\n"
        "To bring the released tables here: python -m lgsrr.catalog fetch --help",
        example="python -m lgsrr.catalog --dataset mintrec2 --data ../shared/data",
        argv=arguments,
    )


if __name__ == "__main__":
    main()

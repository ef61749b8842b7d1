"""Tiny datasets on disk, in the released and in the extracted layout, whole and ready to be spoilt by a test."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lgsrr.extracted import DESCRIPTIONS, RANKINGS, UTTERANCES
from lgsrr.records import SPLITS, Split

ACTIONS, EXPRESSIONS, INTERACTION = "Speakers' Actions", "Facial Expressions", "Interaction with Others"
ASPECTS = (ACTIONS, EXPRESSIONS, INTERACTION)
COUNTS: Mapping[Split, int] = {"train": 6, "dev": 2, "test": 4}
RELEASED_RANK = ("Interaction with Others", "Speakers' Actions", "Emotions and Facial Expressions")


def write_released(root: Path, dataset: str = "mintrec2", counts: Mapping[Split, int] = COUNTS) -> Path:
    """Write one dataset in the authors' layout below `root` (with CRLF where theirs has it); returns `root`.

    Its utterances are dia0_utt0, dia0_utt1, … (turn_0, turn_1, …), with two labels in turn.
    """
    mintrec2 = dataset == "mintrec2"
    texts = root / "data_text" / ("MIntRec2.0" if mintrec2 else "IEMOCAP-DA")
    descriptions = root / "data_desc" / ("mintrec2.0" if mintrec2 else "iemocap_da")
    actions = "Speakers Actions" if mintrec2 else "Speakers' Actions"
    labels = ("Praise", "Taunt") if mintrec2 else ("q", "ans")
    more = ("00:00:02,035", "00:00:09,309", "superstore", "Glenn") if mintrec2 else ("xxx",)
    text_header = (
        ("Dialogue_id", "Utterance_id", "Text", "Label", "Start_timestamp", "End_timestamp", "Source", "speaker_name")
        if mintrec2
        else ("TURN", "UTTERANCE", "DA", "EMOTION")
    )
    id_header = ("Dialogue_id", "Utterance_id") if mintrec2 else ("TURN",)
    rank_header = ("Dia", "Utt") if mintrec2 else ("Turn",)
    number = 0
    for split in SPLITS:
        ids = [("0", str(n)) if mintrec2 else (f"turn_{n}",) for n in range(number, number + counts[split])]
        number += counts[split]
        said = [(*name, f"text {name[-1]}.", labels[n % 2], *more) for n, name in enumerate(ids)]
        seen = [(*name, *(f"{what} of {name[-1]}." for what in ("hands", "face", "others"))) for name in ids]
        write_tsv(texts / f"{split}.tsv", [text_header, *said], end="\n")
        header = (*id_header, actions, "Emotions and Facial Expressions", "Interaction with Others")
        write_tsv(descriptions / f"{split}.tsv", [header, *seen], end="\r\n")
        if split == "train":
            header = (*rank_header, "Rank_First", "Rank_Second", "Rank_Third")
            rank_file = root / "data_rank" / f"rank_{dataset}_train.tsv"
            write_tsv(rank_file, [header, *((*name, *RELEASED_RANK) for name in ids)], end="\r\n")
    return root


def write_extracted(root: Path, counts: Mapping[Split, int] = COUNTS) -> Path:
    """Write a dataset in the layout of extraction into `root`: u0, u1, …, labels "Praise" and "Taunt" in turn."""
    splits = [split for split in SPLITS for _ in range(counts[split])]
    every = [f"u{n}" for n in range(len(splits))]
    said = [
        {"id": name, "text": f"text {name}.", "split": split, "label": ("Praise", "Taunt")[n % 2], "video": None}
        for n, (name, split) in enumerate(zip(every, splits, strict=True))
    ]
    seen = [{"id": name, "aspect": aspect, "text": f"{aspect} of {name}."} for name in every for aspect in ASPECTS]
    half = len(seen) // 2
    write_parquet(root / "utterances.parquet", said, UTTERANCES)
    write_parquet(root / "descriptions" / "part-00000.parquet", seen[:half], DESCRIPTIONS)
    write_parquet(root / "descriptions" / "part-00001.parquet", seen[half:], DESCRIPTIONS)
    ranked = [{"id": name, "aspects": list(reversed(ASPECTS))} for name in every[: counts["train"]]]
    write_parquet(root / "rankings" / "part-00000.parquet", ranked, RANKINGS)
    entries = [{"name": name, "instruction": f"look for {name}", "frequency": 9 - n} for n, name in enumerate(ASPECTS)]
    (root / "aspects.json").write_text(json.dumps({"aspects": entries}), encoding="utf-8")
    return root


def write_tsv(path: Path, rows: Iterable[Sequence[str]], *, end: str = "\n") -> Path:
    """Write rows as the released tables are written: no quoting at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join("\t".join(row) + end for row in rows).encode())
    return path


def write_csv(path: Path, rows: Iterable[Sequence[str]]) -> Path:
    """Write rows as standard CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def write_parquet(path: Path, rows: Sequence[Mapping[str, object]], schema: pa.Schema | None = None) -> Path:
    """Write rows as Parquet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)
    return path


def edit(path: Path, old: str, new: str) -> None:
    """Replace the first `old` in a text file, which must be there."""
    content = path.read_bytes().decode()
    assert old in content, f"{path} has no {old!r}"
    path.write_bytes(content.replace(old, new, 1).encode())

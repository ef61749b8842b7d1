"""Token features: every text and description tokenised once, kept as Arrow under a hash of what made them.

The file is read by memory map, so that a later start costs milliseconds and workers of one machine share its pages. The
hash covers the texts, the tokenizer's files and the lengths: what changes any of them makes a new file, nothing is ever
overwritten. Old files are not removed; the folder may be deleted at any time.

Shapes: U utterance, K aspect, S sequence (1 + K of an utterance: the text, then its descriptions).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lgsrr.errors import ConfigError, DataError
from lgsrr.files import atomic_path
from lgsrr.pretrained import load_tokenizer, tokenizer_digest
from lgsrr.records import Dataset, Split

FORMAT = 1
TEXT_COLUMN = "text"


def cache_folder() -> Path:
    """Where features are kept: `$LGSRR_CACHE`, else `~/.cache/lgsrr`."""
    return Path(os.environ.get("LGSRR_CACHE") or Path.home() / ".cache" / "lgsrr").expanduser()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """How many word pieces of a sequence are kept, [CLS] and [SEP] included."""

    text: int
    description: int

    def __post_init__(self) -> None:
        for name in ("text", "description"):
            if getattr(self, name) < 3:
                raise ConfigError(f"{name} length is {getattr(self, name)}; at least 3: [CLS], one word piece, [SEP]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Features:
    """What training reads of a dataset, in the dataset's order. `sequences` holds ids, `[id]` of it one utterance."""

    ids: tuple[str, ...]
    splits: npt.NDArray[np.str_]
    labels_U: npt.NDArray[np.int64]
    """Index of the class; −1 where it is not known."""
    positions_UK: npt.NDArray[np.int64] | None
    """Place of each aspect in the ranking, 0 = first; −1 in utterances without a ranking. None where K = 0."""
    tokens: pa.Table
    """A column of token ids for the text and one for each of the K aspects used."""
    key: str
    """Hash of the token file: the name under which what is computed from it may be kept."""

    @property
    def num_aspects(self) -> int:
        return len(self.tokens.column_names) - 1

    def indices(self, split: Split) -> npt.NDArray[np.int64]:
        """Rows of a split."""
        return np.flatnonzero(self.splits == split)

    def first_aspects(self, num_aspects: int) -> Features:
        """The same with the first so many aspects only; shares the tokens, and what is kept of frozen layers.

        Columns lie one behind the other in both, so that fewer aspects are a beginning of what more aspects have.
        """
        if num_aspects == self.num_aspects:
            return self
        assert num_aspects < self.num_aspects
        positions_UK = None
        if num_aspects and self.positions_UK is not None:
            kept_UK = self.positions_UK[:, :num_aspects]
            positions_UK = kept_UK.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
            positions_UK[(kept_UK < 0).any(axis=1)] = -1
        tokens = self.tokens.select(range(1 + num_aspects))
        return dataclasses.replace(self, positions_UK=positions_UK, tokens=tokens)

    def columns(self) -> list[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]]:
        """(values, offsets) of each column, without a copy."""
        result = []
        for column in self.tokens.columns:
            chunk = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
            result.append((chunk.values.to_numpy(), chunk.offsets.to_numpy()))
        return result


def tokens_key(texts: Sequence[Sequence[str]], names: Sequence[str], tokenizer: str, lengths: Lengths) -> str:
    """SHA-256 (hex) over all that decides the tokens. `texts` are columns: the text, then each aspect's."""
    hasher = hashlib.sha256()
    head = {"format": FORMAT, "names": list(names), "tokenizer": tokenizer, "lengths": dataclasses.asdict(lengths)}
    hasher.update(json.dumps(head, sort_keys=True).encode())
    for column in texts:
        hasher.update(json.dumps(column).encode())
    return hasher.hexdigest()


def featurise(dataset: Dataset, *, encoder: Path, lengths: Lengths, num_aspects: int, cache: Path) -> Features:
    """The features of a dataset with its first `num_aspects` aspects, from the cache where they are there.

    Args:
        dataset: checked records.
        encoder: folder of the encoder, whose tokenizer is used.
        lengths: of text and description, in word pieces.
        num_aspects: K; 0 is the text alone.
        cache: folder of the token files.

    Raises:
        ConfigError: K is above what the data has.
    """
    check_num_aspects(dataset, num_aspects)
    utterances = dataset.utterances
    names = [TEXT_COLUMN, *(a.name for a in dataset.aspects[:num_aspects])]
    texts = [[u.text for u in utterances]]
    texts += [[u.descriptions[k] for u in utterances] for k in range(num_aspects)]
    key = tokens_key(texts, names, tokenizer_digest(encoder), lengths)
    path = cache / "tokens" / f"{key}.arrow"
    if not path.is_file():
        _write(path, tokenise(texts, names, encoder, lengths))
    label_index = {label: i for i, label in enumerate(dataset.labels)}
    return Features(
        ids=tuple(u.id for u in utterances),
        splits=np.array([u.split for u in utterances]),
        labels_U=np.array([-1 if u.label is None else label_index[u.label] for u in utterances], dtype=np.int64),
        positions_UK=rank_positions(dataset, num_aspects) if num_aspects else None,
        tokens=_read(path),
        key=key,
    )


def check_num_aspects(dataset: Dataset, num_aspects: int) -> None:
    """Raises ConfigError where K is negative or above the number of aspects that the data has."""
    have = len(dataset.aspects)
    if num_aspects < 0:
        raise ConfigError(f"k is {num_aspects}; it is 0 (text alone) or the number of aspects to use")
    if num_aspects > have:
        names = ", ".join(a.name for a in dataset.aspects) or "none: nothing was described"
        raise ConfigError(
            f"k is {num_aspects}, but {dataset.name} in {dataset.source} has {have} aspects ({names}); "
            f"use --k {have} or less, or describe more aspects with pipelines/extract.py"
        )


def rank_positions(dataset: Dataset, num_aspects: int) -> npt.NDArray[np.int64]:
    """Place of each used aspect among the used ones: a ranking of more aspects keeps its order over those used."""
    used = [a.name for a in dataset.aspects[:num_aspects]]
    column = {name: k for k, name in enumerate(used)}
    positions_UK = np.full((len(dataset.utterances), num_aspects), -1, dtype=np.int64)
    for row, utterance in enumerate(dataset.utterances):
        kept = (name for name in utterance.ranking or () if name in column)
        for place, name in enumerate(kept):
            positions_UK[row, column[name]] = place
    return positions_UK


def check_ranked(dataset: Dataset, positions_UK: npt.NDArray[np.int64]) -> None:
    """Raises DataError where a training utterance has no ranking."""
    missing = [
        u.id for u, row in zip(dataset.utterances, positions_UK, strict=True) if u.split == "train" and (row < 0).any()
    ]
    if missing:
        raise DataError(
            f"{len(missing)} training utterances of {dataset.name} have no ranking (first: {missing[0]!r} in "
            f"{dataset.source}); rank them with pipelines/extract.py --stages rank, or train with --rank-weight 0"
        )


def tokenise(texts: Sequence[Sequence[str]], names: Sequence[str], encoder: Path, lengths: Lengths) -> pa.Table:
    """A column of token ids for each column of texts; the first is the text, the others are descriptions."""
    tokenizer = load_tokenizer(encoder)
    columns = []
    for name, column in zip(names, texts, strict=True):
        length = lengths.text if name == TEXT_COLUMN else lengths.description
        encoded = tokenizer(
            list(column), truncation=True, max_length=length, padding=False,
            return_attention_mask=False, return_token_type_ids=False,
        )  # fmt: skip
        columns.append(pa.array(encoded["input_ids"], type=pa.list_(pa.int32())))
    return pa.table(columns, names=list(names))


def _write(path: Path, table: pa.Table) -> None:
    with (
        atomic_path(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table.combine_chunks())


def _read(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def batches(rows: npt.NDArray[np.int64], size: int) -> Iterator[npt.NDArray[np.int64]]:
    """Consecutive batches of `size` rows; the last may be smaller."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]

"""What a reader read becomes a checked `Dataset`, or one clear message.

The readers (released, extracted, own table) only parse: they hand over a `Draft` of rows that know their places. All
joining and checking is here, once, so that a dataset means the same whatever it was read from. The first thing that is
wrong stops: a message about one row is read and mended, a list of hundreds is not.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lgsrr import aspects
from lgsrr.errors import DataError
from lgsrr.records import SPLITS, Aspect, Dataset, DescribedBy, Split, Utterance
from lgsrr.tables import did_you_mean, shown

_USUAL_SPLITS: dict[str, Split] = {
    **{split: split for split in SPLITS},
    **dict.fromkeys(("val", "valid", "validation", "development"), "dev"),
    **dict.fromkeys(("testing", "eval", "evaluation"), "test"),
    "training": "train",
}


class Said(NamedTuple):
    """One utterance as a table has it."""

    place: str
    id: str
    text: str
    split: Split
    label: str | None
    video: str | None = None


class Described(NamedTuple):
    """What a table says that was seen of one utterance under one aspect."""

    place: str
    id: str
    aspect: str
    text: str


class Ranked(NamedTuple):
    """The order of aspects that a table has for one utterance."""

    place: str
    id: str
    aspects: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draft:
    """A dataset as read, not yet checked."""

    name: str
    source: str
    said: Sequence[Said]
    labels: tuple[str, ...] | None = None
    """The classes, where they are known beforehand; None takes those of the training split."""
    aspects: tuple[Aspect, ...] = ()
    descriptions: Sequence[Described] = ()
    rankings: Sequence[Ranked] = ()
    partial: bool = False
    """Extraction may have taken a part (`--limit`) or quarantined some: a training utterance may lack its ranking and,
    where `labels` are known beforehand, a class may lack a training utterance."""
    tables: Mapping[Split, str] = dataclasses.field(default_factory=dict)
    """The file of each split, where a split has its own; for messages."""
    descriptions_at: str = ""
    """Where the descriptions were looked for; for messages."""
    quarantine: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Utterance id → why extraction gave up on it."""
    described_by: DescribedBy | None = None


def check(draft: Draft, require: tuple[Split, ...] = SPLITS) -> Dataset:
    """Join the draft by id and check it.

    `require` names the splits that must be there with a label for every utterance: all three for training, the one that
    is evaluated for evaluation, none for prediction. Raises DataError with the file, the row, the value and what was
    expected.
    """
    _check_ids(draft)
    _check_splits(draft, require)
    labels = _labels(draft)
    described = _descriptions(draft)
    ranked = _rankings(draft)
    utterances = tuple(
        Utterance(
            id=row.id,
            text=row.text,
            split=row.split,
            label=row.label,
            video=row.video,
            descriptions=described.get(row.id, ()),
            ranking=ranked.get(row.id),
        )
        for row in draft.said
    )
    return Dataset(
        name=draft.name,
        source=draft.source,
        labels=labels,
        aspects=draft.aspects,
        utterances=utterances,
        described_by=draft.described_by,
    )


def parse_split(place: str, value: str | None) -> Split:
    """`value` as a split, or a DataError that knows the usual other names of the three."""
    for split in SPLITS:
        if value == split:
            return split
    meant = _USUAL_SPLITS.get((value or "").strip().casefold())
    hint = f" Did you mean {meant!r}?" if meant else ""
    raise DataError(f"{place}: split is {shown(value)}; expected train, dev or test.{hint}")


def needed(place: str, column: str, value: str | None) -> str:
    """`value`, or a DataError where the row has nothing there."""
    if value is None or not value.strip():
        raise DataError(f"{place}: {column} is empty; every utterance needs one. Fill it in or remove the row.")
    return value


def if_known(value: str | None) -> str | None:
    """`value`, or None where the row has nothing there."""
    return value if value and value.strip() else None


def _check_ids(draft: Draft) -> None:
    first: dict[str, Said] = {}
    for row in draft.said:
        other = first.setdefault(row.id, row)
        if other is not row:
            raise DataError(
                f"{row.place}: the id {shown(row.id)} ({row.split}) stands already in {other.place} ({other.split}). "
                "An id is unique over all splits: remove one of the rows or rename it."
            )


def _check_splits(draft: Draft, require: tuple[Split, ...]) -> None:
    if not (draft.said or require):
        raise DataError(f"{draft.source}: no utterances; expected at least one.")
    for split in require:
        rows = [row for row in draft.said if row.split == split]
        if not rows:
            place = draft.tables.get(split, draft.source)
            raise DataError(
                f"{place}: the split {split!r} is empty; expected at least one utterance in {_all(require)}."
            )
        bare = [row for row in rows if row.label is None]
        if bare:
            raise DataError(
                f"{bare[0].place}: {shown(bare[0].id)} has no label, as have {len(bare)} of {len(rows)} utterances of "
                f"{split!r}. Training needs a label for every utterance of train, dev and test; without labels the "
                "utterances can only be predicted (python -m lgsrr.predict)."
            )


def _labels(draft: Draft) -> tuple[str, ...]:
    """The classes in order; every label must be one of them and have a training utterance."""
    trained = {row.label for row in draft.said if row.split == "train" and row.label is not None}
    every = {row.label for row in draft.said if row.label is not None}
    labels = draft.labels or tuple(sorted(trained or every))
    expected = set(draft.labels) if draft.labels and draft.partial else trained or every
    for row in draft.said:
        if draft.labels and row.label is not None and row.label not in draft.labels:
            raise DataError(
                f"{row.place}: unknown label {shown(row.label)} of {shown(row.id)}; expected one of "
                f"{', '.join(labels)}.{did_you_mean(row.label, labels)}"
            )
        if row.label is not None and row.label not in expected:
            raise DataError(
                f"{row.place}: the label {shown(row.label)} of {shown(row.id)} ({row.split}) is missing in train; "
                f"expected one of {', '.join(sorted(trained))}.{did_you_mean(row.label, trained)} "
                "A class that is never trained cannot be evaluated: add training utterances or remove the class."
            )
    return labels


def _descriptions(draft: Draft) -> dict[str, tuple[str, ...]]:
    """Per utterance its descriptions in the order of the aspects; none where the dataset has no aspects."""
    names = [aspect.name for aspect in draft.aspects]
    seen: dict[str, dict[str, Described]] = defaultdict(dict)
    for row in draft.descriptions:
        name = row.aspect if row.aspect in names else _known_aspect(row.place, row.aspect, names)
        other = seen[row.id].setdefault(name, row)
        if other is not row:
            raise DataError(
                f"{row.place}: {shown(row.id)} is described a second time under {name!r} (first in {other.place}); "
                "expected one description per utterance and aspect. Remove one of them."
            )
    described: dict[str, tuple[str, ...]] = {}
    lacking: dict[str, list[str]] = {}
    for said in draft.said if names else ():
        rows = seen[said.id]
        texts = tuple(rows[name].text for name in names if name in rows)
        described[said.id] = texts
        if len(texts) < len(names) or not all(map(str.strip, texts)):
            lacking[said.id] = [name for name in names if name not in rows or not rows[name].text.strip()]
    if lacking:
        raise _not_described(draft, lacking)
    return described


def _not_described(draft: Draft, lacking: Mapping[str, Sequence[str]]) -> DataError:
    first = next(row for row in draft.said if row.id in lacking)
    message = (
        f"{draft.descriptions_at}: no description for {len(lacking)} of {len(draft.said)} utterances; the first is "
        f"{shown(first.id)} ({first.place}), under {', '.join(lacking[first.id])}. Expected one per aspect."
    )
    quarantined = sum(name in draft.quarantine for name in lacking)
    if not quarantined:
        return DataError(f"{message} Describe what is missing (pipelines/extract.py), or remove these utterances.")
    reason = draft.quarantine.get(first.id)
    why = f"the first for this reason: {reason}" if reason else "their reasons stand in quarantine/"
    return DataError(
        f"{message} In quarantine: {quarantined} of them, {why}. Mend it and extract again, or extract again with "
        "--leave-out-quarantined."
    )


def _rankings(draft: Draft) -> dict[str, tuple[str, ...]]:
    """Per training utterance its aspects, most important first."""
    names = [aspect.name for aspect in draft.aspects]
    said = {row.id: row for row in draft.said}
    first: dict[str, Ranked] = {}
    ranked: dict[str, tuple[str, ...]] = {}
    for row in draft.rankings:
        ranked[row.id] = _permutation(row, names)
        other = first.setdefault(row.id, row)
        if other is not row:
            raise DataError(f"{row.place}: {shown(row.id)} is ranked a second time (first in {other.place}).")
        if row.id in said and said[row.id].split != "train":
            raise DataError(
                f"{row.place}: {shown(row.id)} belongs to {said[row.id].split!r}, but has a ranking. Rankings are made "
                "with the label and are for the training split alone: remove the row."
            )
    bare = [row for row in draft.said if row.split == "train" and row.id not in ranked]
    if bare and ranked and not draft.partial:
        place = draft.rankings[0].place.rpartition(", ")[0]
        raise DataError(
            f"{place}: no ranking for {len(bare)} of the training utterances; the first is {shown(bare[0].id)} "
            f"({bare[0].place}). Expected a row for each."
        )
    return ranked


def _permutation(row: Ranked, names: Sequence[str]) -> tuple[str, ...]:
    order = tuple(name if name in names else _known_aspect(row.place, name, names) for name in row.aspects)
    expected = f"expected each of {', '.join(names)} once"
    for place, name in enumerate(order):
        if name in order[:place]:
            raise DataError(f"{row.place}: the ranking of {shown(row.id)} repeats {name!r}; {expected}.")
    if len(order) < len(names):
        left_out = ", ".join(name for name in names if name not in order)
        raise DataError(f"{row.place}: the ranking of {shown(row.id)} leaves out {left_out}; {expected}.")
    return order


def _known_aspect(place: str, name: str, names: Sequence[str]) -> str:
    found = aspects.find(name, names)
    if found is None:
        hint = did_you_mean(name, names)
        raise DataError(f"{place}: unknown aspect {shown(name)}; expected one of {', '.join(names)}.{hint}")
    return found


def _all(splits: Sequence[str]) -> str:
    return "each of " + ", ".join(splits) if len(splits) > 1 else splits[0]

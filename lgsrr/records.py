"""The typed records that the parts hand to each other: `Aspect`, `DescribedBy`, `Utterance`, `Dataset`.

A `Dataset` that exists has been checked (by `lgsrr.catalog`): ids are unique, labels are known, every utterance has as
many descriptions as there are aspects, and a ranking is a permutation of the aspects. Nothing downstream checks again.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence
from typing import Literal, get_args

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Aspect:
    """A kind of semantic cue that carries intent, such as "Facial Expressions"."""

    name: str
    """Canonical name, unique in a dataset."""
    instruction: str = ""
    """What the video model was asked to look for; empty where it is not known."""
    frequency: int | None = None
    """How many discovery answers named it; None where it is not known."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DescribedBy:
    """Who described the clips of a dataset, and how it was asked: all that it takes to ask the same of a new clip."""

    engine: str
    """As extraction names it: vllm, transformers, remote, scripted."""
    model: str
    """Of the video model: a folder, a name on the hub, or a server's name for it."""
    aspects: tuple[Aspect, ...]
    """All that were asked for, in the order in which they were; a model may use the first of them alone."""
    prompting: str = "joint"
    """All aspects in one prompt, or `separate`: one prompt each."""
    frames: int = 16
    """Frames of a clip that the video model looks at."""
    max_side: int | None = None
    """Longest side to which they were scaled down, pixels."""
    max_new_tokens: int = 512
    """Longest answer, tokens."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """One utterance, with what was seen while it was said."""

    id: str
    """Unique in the dataset, over all splits; everything joins by it."""
    text: str
    split: Split
    label: str | None
    """What the speaker intends; None where it is not known."""
    video: str | None = None
    """Path or URI of the clip."""
    descriptions: tuple[str, ...] = ()
    """What the video model said, one per aspect of the dataset and in its order; empty where nothing was described."""
    ranking: tuple[str, ...] | None = None
    """Names of the dataset's aspects, most important first; training split only."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """A checked dataset. `labels` is the order of the classes, `aspects` the order of the descriptions."""

    name: str
    source: str
    """Where it was read from: a folder, a file or an `s3://` prefix."""
    labels: tuple[str, ...]
    aspects: tuple[Aspect, ...]
    utterances: tuple[Utterance, ...]
    described_by: DescribedBy | None = None
    """None where it is not known, as of a table that came with its descriptions."""

    def split(self, name: Split) -> tuple[Utterance, ...]:
        """The utterances of one split, in the order of their table."""
        return tuple(u for u in self.utterances if u.split == name)

    def head(self, limit: int | None) -> Dataset:
        """The first `limit` utterances of each split (all, where it is None); labels and aspects stay as they are."""
        if limit is None:
            return self
        kept = tuple(u for name in SPLITS for u in self.split(name)[:limit])
        return dataclasses.replace(self, utterances=kept)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of all that training reads: labels, aspects and every utterance. `source` is not part of it."""
        hasher = hashlib.sha256()
        head = {"labels": self.labels, "aspects": [a.name for a in self.aspects]}
        hasher.update(json.dumps(head, sort_keys=True).encode())
        for u in self.utterances:
            row: Sequence[object] = (u.id, u.text, u.split, u.label, u.descriptions, u.ranking)
            hasher.update(json.dumps(row).encode())
        return hasher.hexdigest()

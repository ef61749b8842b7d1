"""A dozen utterances with all that was made of them, for the report and for the tracked run: some of each split, and
one or two that were set aside. Seeded, so that the same output shows the same samples."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import itertools
import random
from collections.abc import Mapping, Sequence, Set
from typing import Any

from lgsrr.extracted import DESCRIPTIONS_FOLDER, QUARANTINE_FOLDER, RANKINGS_FOLDER
from lgsrr.records import SPLITS

from .inputs import GIVEN
from .output import Output

COUNT, SET_ASIDE = 12, 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why an utterance was set aside."""

    stage: str
    reason: str
    detail: str
    raw_answer: str | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One utterance and what was made of it."""

    id: str
    text: str
    split: str
    label: str | None
    video: str | None
    descriptions: tuple[tuple[str, str], ...] = ()
    """(aspect, text)."""
    ranking: tuple[str, ...] = ()
    """Most important first."""
    shown: tuple[str, ...] = ()
    """The order in which the aspects were shown."""
    trouble: tuple[Trouble, ...] = ()
    receipts: tuple[str, ...] = ()
    """How it came to be, a line for each stage."""


def draw_samples(output: Output, *, seed: int, count: int = COUNT) -> tuple[Sample, ...]:
    """The samples of an output, by split; those that were set aside come last."""
    utterances = {row["id"]: row for row in output.utterances()}
    bad = output.ids(QUARANTINE_FOLDER) & set(utterances)
    good = (output.ids(DESCRIPTIONS_FOLDER) & set(utterances)) - bad
    ids = _drawn(utterances, good or set(utterances) - bad, bad, seed=seed, count=count)
    rows = {
        folder: _by_id(output.rows(folder, ids)) for folder in (DESCRIPTIONS_FOLDER, RANKINGS_FOLDER, QUARANTINE_FOLDER)
    }
    return tuple(_sample(utterances[name], {folder: of.get(name, []) for folder, of in rows.items()}) for name in ids)


def _drawn(
    utterances: Mapping[str, Mapping[str, Any]], good: Set[str], bad: Set[str], *, seed: int, count: int
) -> list[str]:
    drawn = random.Random(hashlib.sha256(f"samples:{seed}".encode()).digest())
    aside = drawn.sample(sorted(bad), min(SET_ASIDE, len(bad)))
    by_split = []
    for split in SPLITS:
        names = sorted(name for name in good if utterances[name]["split"] == split)
        drawn.shuffle(names)
        by_split.append(names)
    in_turn = (name for names in itertools.zip_longest(*by_split) for name in names if name is not None)
    chosen = set(itertools.islice(in_turn, max(0, count - len(aside))))
    return [*(name for names in by_split for name in names if name in chosen), *aside]


def _by_id(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["id"], []).append(row)
    return found


def _sample(utterance: Mapping[str, Any], rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> Sample:
    described, troubled = rows[DESCRIPTIONS_FOLDER], rows[QUARANTINE_FOLDER]
    ranked = rows[RANKINGS_FOLDER][-1:]
    lines = [("described", row) for row in described] + [("ranked", row) for row in ranked]
    lines += [(f"set aside in {row['stage']}", row) for row in troubled]
    return Sample(
        **{name: utterance[name] for name in ("id", "text", "split", "label", "video")},
        descriptions=tuple((row["aspect"], row["text"]) for row in described),
        ranking=tuple(ranked[0]["aspects"]) if ranked else (),
        shown=tuple(ranked[0]["shown"] or ()) if ranked else (),
        trouble=tuple(
            Trouble(stage=r["stage"], reason=r["reason"], detail=r["detail"] or "", raw_answer=r["raw_answer"])
            for r in troubled
        ),
        receipts=tuple(dict.fromkeys(_receipt(done, row) for done, row in lines if _first_of_answer(row))),
    )


def _first_of_answer(row: Mapping[str, Any]) -> bool:
    """Whether a row carries its answer's cost: of several rows made from one answer, the first does."""
    return bool(row.get("attempts")) or row["model"] == GIVEN or "reason" in row


def _receipt(done: str, row: Mapping[str, Any]) -> str:
    """A receipt in one line."""
    if row["model"] == GIVEN:
        return f"{done}: came with the data"
    calls = row["attempts"] or 0
    parts = [f"by {row['model']}", f"prompt {row['prompt_version']}"] if calls else []
    if row["frames"]:
        parts.append(f"{len(row['frames'])} frames")
    if calls:
        parts.append(f"{calls} call{'s' * (calls > 1)}")
        parts.append(f"{row['input_tokens'] or 0} tokens in, {row['output_tokens'] or 0} out")
    if row["cost_usd"]:
        parts.append(f"${row['cost_usd']:.6f}")
    when = row["created_at"]
    if isinstance(when, datetime.datetime) and when.year > 1970:
        parts.append(f"{when:%Y-%m-%d %H:%M:%S} UTC")
    return f"{done}: {', '.join(parts) or 'without a call'}"

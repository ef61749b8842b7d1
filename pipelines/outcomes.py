"""What a stage makes of one utterance: an `Outcome`, as it travels from the actors to the driver that writes it down.

An outcome is `done` with what was made and its receipt, `quarantined` with the reason, or `stopped`: the job is ending
and the utterance was not begun, which is written nowhere. On the way it is one JSON text, so that Ray's blocks have one
schema for all stages.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

import pyarrow as pa

from lgsrr.extracted import DESCRIPTIONS, RANKINGS, RECEIPT

from .calls import Answer, Usage

Stage = Literal["discover", "describe", "rank"]
STAGES: tuple[Stage, ...] = ("discover", "describe", "rank")
Status = Literal["done", "quarantined", "stopped"]

SHOWN = pa.schema([pa.field("shown", pa.list_(pa.string()))])
"""Ranking only: the order in which the aspects were shown."""
DESCRIPTION_ROWS = pa.schema([*DESCRIPTIONS, *RECEIPT])
RANKING_ROWS = pa.schema([*RANKINGS, *SHOWN, *RECEIPT])
QUARANTINE_ROWS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string()),
        pa.field("attempts", pa.int32()),
        pa.field("advice", pa.string()),
        *(field for field in RECEIPT if field.name not in ("attempts",)),
    ]
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """How a row came to be; the columns of `lgsrr.extracted.RECEIPT`."""

    fingerprint: str
    """Of the work: equal work has an equal name, and is never done twice."""
    model: str
    revision: str | None = None
    prompt_version: str | None = None
    frames: tuple[int, ...] = ()
    raw_answer: str | None = None
    attempts: int = 0
    waited_s: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    created_at: float = 0.0
    """Seconds since 1970, UTC."""
    packages: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, answers: Sequence[Answer], *, fingerprint: str, prompt_version: str) -> Receipt:
        """The receipt of a row that took these answers, the last of which it was made from."""
        last, usage = answers[-1], sum((a.usage for a in answers), Usage())
        return cls(
            fingerprint=fingerprint,
            model=last.model,
            revision=last.revision,
            prompt_version=prompt_version,
            frames=last.frames,
            raw_answer=last.text,
            attempts=sum(a.attempts for a in answers),
            waited_s=round(sum(a.waited_s for a in answers), 3),
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cost_usd=usage.cost_usd,
            created_at=last.created_at,
            packages=last.packages,
        )

    def columns(self) -> dict[str, object]:
        """One row of the receipt's columns."""
        when = datetime.fromtimestamp(self.created_at, UTC)
        packages = json.dumps(dict(self.packages), sort_keys=True)
        row = {field.name: getattr(self, field.name) for field in RECEIPT}
        return {**row, "frames": list(self.frames), "created_at": when, "packages": packages}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One utterance under one stage."""

    id: str
    stage: Stage
    status: Status
    receipts: tuple[Receipt, ...] = ()
    """One for the whole row, or one for each aspect; at least one unless stopped."""
    aspects: tuple[str, ...] = ()
    """Described: the aspects of `texts`. Ranked: most important first."""
    texts: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    reason: str = ""
    """Quarantined: one word or two, for counting."""
    detail: str = ""
    advice: str = ""

    @property
    def usage(self) -> Usage:
        """What this row consumed."""
        parts = (
            Usage(input_tokens=r.input_tokens, output_tokens=r.output_tokens, cost_usd=r.cost_usd)
            for r in self.receipts
        )
        return sum(parts, Usage())

    def to_text(self) -> str:
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def from_text(cls, text: str) -> Outcome:
        value = json.loads(text)
        receipts = tuple(Receipt(**{**r, "frames": tuple(r["frames"])}) for r in value["receipts"])
        lists = {name: tuple(value[name]) for name in ("aspects", "texts", "shown")}
        return cls(**{**value, **lists, "receipts": receipts})


def description_rows(outcomes: Sequence[Outcome]) -> pa.Table:
    """One row for each utterance and aspect."""
    rows = []
    for o in outcomes:
        receipts = o.receipts if len(o.receipts) == len(o.aspects) else o.receipts * len(o.aspects)
        for place, (aspect, text) in enumerate(zip(o.aspects, o.texts, strict=True)):
            receipt = receipts[place]
            if len(o.receipts) == 1 and place:  # the one answer's cost stands on the first of its rows
                receipt = dataclasses.replace(receipt, input_tokens=0, output_tokens=0, cost_usd=0.0, attempts=0)
            rows.append({"id": o.id, "aspect": aspect, "text": text, **receipt.columns()})
    return pa.Table.from_pylist(rows, schema=DESCRIPTION_ROWS)


def ranking_rows(outcomes: Sequence[Outcome]) -> pa.Table:
    """One row for each utterance."""
    rows = [
        {"id": o.id, "aspects": list(o.aspects), "shown": list(o.shown), **o.receipts[0].columns()} for o in outcomes
    ]
    return pa.Table.from_pylist(rows, schema=RANKING_ROWS)


def quarantine_rows(outcomes: Sequence[Outcome]) -> pa.Table:
    """One row for each utterance that was set aside."""
    rows = [
        {
            "id": o.id,
            "stage": o.stage,
            "reason": o.reason,
            "detail": o.detail,
            "advice": o.advice,
            **o.receipts[0].columns(),
        }
        for o in outcomes
    ]
    return pa.Table.from_pylist(rows, schema=QUARANTINE_ROWS)

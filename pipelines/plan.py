"""What a stage has to do, worked out before anything starts: which rows are done, set aside, answered, or new.

A row's work has a fingerprint, made from everything that could change its result. A row counts as done when the output
holds it under the fingerprint of today, and as answered when the answer is kept but the row is not written yet. So the
same command does nothing twice, and a changed prompt, model, text or clip reruns what it touches, and nothing else.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

from .outcomes import Stage


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One utterance's work under a stage."""

    id: str
    fingerprint: str
    """Of the work."""
    work: str
    """The work as text, for an actor."""
    calls: tuple[str, ...] = ()
    """Fingerprints of the requests that it makes first; empty where they are not known beforehand."""
    tokens: int = 0
    """Estimate, in and out."""
    cost_usd: float = 0.0
    """Estimate."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A row of a stage, which is made whole only where it is to be worked on: when a run goes on, most are done."""

    id: str
    fingerprint: str
    """Of the work."""
    row: Callable[[], Row]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """What a stage would do."""

    stage: Stage
    rows: tuple[Row, ...]
    """To be worked on, in the order of the data."""
    wanted: Mapping[str, str]
    """Utterance → fingerprint, of all rows of the stage."""
    done: int = 0
    set_aside: int = 0
    """Quarantined by the same work before, and not taken up again."""
    answered: int = 0
    """Of `rows`: answers are kept, so that nothing is asked."""
    left_out: int = 0
    """Cannot be worked on yet, such as those without a description."""
    outdated: int = 0
    """Of `rows`: done before by other work (another prompt, model or text), and replaced."""
    calls_per_row: int = 1

    @property
    def new(self) -> int:
        """Rows that something has to be asked or computed for."""
        return len(self.rows) - self.answered

    @property
    def calls(self) -> int:
        """First calls that are to be made."""
        return self.new * self.calls_per_row

    def reasons(self) -> list[str]:
        """Why rows are to be worked on, or are not, for a person."""
        fresh = len(self.rows) - self.outdated
        told = (
            (fresh, "were never done"),
            (self.outdated, "were done with another prompt, model or text, and are replaced"),
            (self.answered, "of these are answered already and only need to be written"),
            (self.set_aside, "were set aside by the same work; --retry-quarantined takes them up again"),
            (self.left_out, "are left out: they lack what the stage reads (a description, a label)"),
        )
        return [f"{count} {words}" for count, words in told if count] or ["nothing to do"]

    @property
    def tokens(self) -> int:
        return sum(row.tokens for row in self.rows)

    @property
    def cost_usd(self) -> float:
        return sum(row.cost_usd for row in self.rows)


_WORK = json.JSONEncoder(ensure_ascii=False)  # json.dumps would make one for each text


def work_text(work: Any) -> str:
    """A row's work, a dataclass with slots whose fields JSON can hold, as it travels to an actor. `dataclasses.asdict`
    would copy every list and mapping within it, which takes longer than all else for a million rows.
    """
    return _WORK.encode({name: getattr(work, name) for name in work.__slots__})


def plan_stage(
    stage: Stage,
    candidates: Iterable[Candidate],
    *,
    done: Mapping[str, str],
    quarantined: Mapping[str, str],
    answers: Set[str],
    retry_quarantined: bool,
    left_out: int = 0,
    calls_per_row: int = 1,
) -> StagePlan:
    """Compare today's work with what was done.

    Args:
        candidates: all rows of the stage, one by one.
        done, quarantined: utterance → fingerprint of the work that was done, or failed, before.
        answers: fingerprints of all answers that are kept.
    """
    pending, set_aside, answered, outdated, have = [], 0, 0, 0, 0
    wanted: dict[str, str] = {}
    for candidate in candidates:
        wanted[candidate.id] = candidate.fingerprint
        if done.get(candidate.id) == candidate.fingerprint:
            have += 1
        elif quarantined.get(candidate.id) == candidate.fingerprint and not retry_quarantined:
            set_aside += 1
        else:
            row = candidate.row()
            kept = bool(row.calls) and all(call in answers for call in row.calls)
            answered += kept
            outdated += row.id in done
            pending.append(dataclasses.replace(row, tokens=0, cost_usd=0.0) if kept else row)
    return StagePlan(
        stage=stage,
        rows=tuple(pending),
        wanted=wanted,
        done=have,
        set_aside=set_aside,
        answered=answered,
        left_out=left_out,
        outdated=outdated,
        calls_per_row=calls_per_row,
    )

"""Which trials the paper's ablations are, as rows of one table: what each part of the method brings.

Three groups of rows after the full method: parts left out, classic relations in the place of the method's, and each K.
All rows start from one set of settings, that of the search, so that a row differs from the full method in what its
label says and in nothing else. The formulas are those at `lgsrr.model.Relation`.

The paper's own numbers are not here: its tables (https://arxiv.org/html/2509.01337v1) could not be read where this was
written, a fork of the released code (https://github.com/glad4enkonm/LGSRR) shows results as a picture only, and a
number without a source is worse than none. `_PAPER` is where they go, each with the address of its page.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from lgsrr.config import TrainConfig
from lgsrr.model import Relation, learns_importance
from tune.records import Settings, Trial

Group = Literal["full method", "parts", "classic relations", "number of aspects"]

_PAPER: dict[tuple[str, str], float] = {}
"""Macro F1 on test, percent as printed, by dataset (`mintrec2`, `iemocap_da`) and label of the row."""

_PARTS: dict[str, Relation] = {
    "without importance": "no-importance",
    "without complementarity": "no-complementarity",
    "without inconsistency": "no-inconsistency",
    "without relations (sum)": "sum",
}
_CLASSIC: dict[str, Relation] = {
    "classic or (max)": "or",
    "classic and (min)": "and",
    "classic not (text and no aspect)": "not",
    "classic combination (mean of the three)": "or-and-not",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """One row."""

    trial: Trial
    table: Group
    """The group that the row belongs to; not a number of the paper's tables, which could not be looked up."""
    paper: float | None
    """The paper's macro F1 on test of this dataset, percent as printed; None where it is not known."""


def ablations(base: TrainConfig, num_aspects: int) -> list[Ablation]:
    """The rows, the full method first; a configuration that two rows share is there once, under the first label.

    With K = 0 all relations give the features of the text, so that of text alone only the rows of K are made.

    Args:
        base: settings that all rows start from; its `k` (None is all) is the K of the full method.
        num_aspects: how many aspects the data has.
    """
    full_k = num_aspects if base.k is None else min(base.k, num_aspects)
    full: Settings = {"k": full_k, "relations": "all"}
    rows: list[tuple[str, Group, Settings]] = [("full method", "full method", full)]
    if full_k:
        rows.append(("without the ranking loss", "parts", full | {"rank_weight": 0.0}))
        rows += [(label, "parts", full | _of(relations)) for label, relations in _PARTS.items()]
        rows += [(label, "classic relations", full | _of(relations)) for label, relations in _CLASSIC.items()]
    for k in range(num_aspects + 1):
        rows.append((f"K = {k}" if k else "text alone (K = 0)", "number of aspects", full | {"k": k}))
    found: dict[str, Ablation] = {}
    for label, group, settings in rows:
        row = _row(base, label, group, settings)
        found.setdefault(row.trial.id, row)
    return list(found.values())


def _of(relations: Relation) -> Settings:
    """Where importance is not learned there is nothing to rank: λ = 0 says so, and keeps it out of the loss shown."""
    return {"relations": relations} if learns_importance(relations) else {"relations": relations, "rank_weight": 0.0}


def _row(base: TrainConfig, label: str, group: Group, settings: Settings) -> Ablation:
    # K always stays, as in tune.proposals: the same configuration has the same id there.
    plain = {name: value for name, value in settings.items() if name == "k" or value != getattr(base, name)}
    trial = Trial(settings=plain, origin="ablation", label=label, kept=True)
    return Ablation(trial=trial, table=group, paper=_PAPER.get((base.dataset, label)))

"""manifest.json: what was run, what is there, and what it cost; the last file that a run writes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

from lgsrr.blotting import without_keys
from lgsrr.provenance import package_versions

from .calls import Json, Usage, fingerprint_of
from .outcomes import Stage
from .output import FOLDERS, Output
from .settings import ExtractConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageReport:
    """What a stage did in this run."""

    stage: Stage
    rows: int
    """Rows of the stage in all."""
    before: int = 0
    """Done by earlier runs."""
    done: int = 0
    set_aside: int = 0
    """In this run."""
    reasons: Mapping[str, int] = dataclasses.field(default_factory=dict)
    usage: Usage = dataclasses.field(default_factory=Usage)
    seconds: float = 0.0


def manifest_of(
    config: ExtractConfig,
    output: Output,
    reports: Sequence[StageReport],
    *,
    before: Mapping[str, Json],
    started: float,
    command: str,
    cost_usd: float,
) -> dict[str, Any]:
    """The manifest after a run.

    Args:
        before: the one that is there, whose runs are kept.
        started: seconds since 1970.
    """
    run = {
        "started": started,
        "finished": time.time(),
        "command": without_keys(command),
        "settings": {name: _blotted(value) for name, value in dataclasses.asdict(config).items()},
        "stages": {r.stage: dataclasses.asdict(r) for r in reports},
    }
    done = {stage: output.done(stage) for stage in FOLDERS}
    return {
        "complete": True,
        "dataset": config.dataset,
        "utterances": len(output.utterances()),
        "aspects": [entry["name"] for entry in (output.aspects() or {}).get("aspects", [])],
        "counts": {
            stage: {"done": len(rows), "quarantined": len(output.quarantined(stage))} for stage, rows in done.items()
        },
        "fingerprint": fingerprint_of({"out": {stage: sorted(rows.items()) for stage, rows in done.items()}}),
        "cost_usd": cost_usd,
        "cost_of_replaced_usd": output.cost_of_replaced_usd(),
        "packages": package_versions(),
        "runs": [*before.get("runs", []), run],
    }


def _blotted(value: Json) -> Json:
    return without_keys(value) if isinstance(value, str) else value

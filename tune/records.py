"""What the parts of a search hand to each other: a trial (a configuration), and what one of its seeds came to."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

Settings = dict[str, Any]
"""Fields of `lgsrr.config.TrainConfig` by name, with the values that a trial gives them."""

Origin = Literal["paper", "text alone", "random", "grid", "tpe", "ablation"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A configuration, whatever seeds it is trained with."""

    settings: Settings
    origin: Origin
    """Where it came from: the paper's setting, text alone, an algorithm, or a row of the ablations."""
    label: str = ""
    """What a person calls it; empty for one that an algorithm drew."""
    kept: bool = False
    """Never stopped and never dropped: trained with every seed, because the others are held against it."""

    @property
    def id(self) -> str:
        """Eight hex digits of a hash of the settings: the same configuration has the same id in every search."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:8]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SeedResult:
    """What one seed of a trial came to."""

    trial: str
    """Id of the trial."""
    seed: int
    history: tuple[Mapping[str, float], ...]
    """Figures of each epoch, the first first, as `lgsrr.worker` reports them: `epoch`, `dev_f1`, `train_loss`, ...;
    no longer than the race over epochs let it run."""
    stopped: bool = False
    """Whether the race over epochs ended it before its last epoch."""
    failure: str | None = None
    """Why it has no result; None where it has one."""
    checkpoint: str | None = None
    """Where its model lies (path or URI of what the workers left at the end); None where it was stopped or failed."""

    @property
    def dev_f1(self) -> float | None:
        """Dev macro F1 (fraction) of its best epoch; None where it failed or has no epoch."""
        scores = [figures["dev_f1"] for figures in self.history]
        return max(scores) if scores and self.failure is None else None

    @property
    def epochs(self) -> int:
        """Epochs that were trained and count."""
        return len(self.history)

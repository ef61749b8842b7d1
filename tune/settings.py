"""The settings of a search: those of a training run, which its trials change, and those of the search itself."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from lgsrr.config import TrainConfig, recipe
from lgsrr.errors import ConfigError
from tune.proposals import Algorithm
from tune.race import Race


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig(TrainConfig):
    """A training run's settings are those that all trials start from; `seed` is the first of the seeds."""

    trials: int = 24
    """Configurations that are tried, the paper's setting and text alone among them; a grid has its own number."""
    seeds: int = 5
    """Seeds of a configuration that stays in the race to its end."""
    algorithm: Algorithm = "random"
    """`random`, `grid` (every combination) or `tpe` (Optuna's, in generations of eight)."""
    space: str | None = None
    """TOML or JSON file with a range or choices for each field that is searched; default: λ, lr, τ and K."""
    halving: float = 3.0
    """One configuration in so many goes on after each rung; 1 runs all of them to the end."""
    name: str | None = None
    """Of the search and its folder, runs/search/NAME; default: made of dataset and encoder."""
    ablate: bool = False
    """Run the paper's ablations instead, each with all seeds."""
    gpus_per_trial: float | None = None
    """GPUs of each worker of a trial, such as 0.25 for four small models on one; default: 1 where there are any."""
    worker_group: bool = False
    """Train each run in a worker group of Ray Train even where it has one worker: ten seconds more a run, but a worker
    that dies is replaced within the run."""
    at_once: int | None = None
    """Runs at once at most; default: as many as the cluster holds."""
    explain: bool = False
    """Print what would be run and how long it may take, by a timed probe, and run nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("trials", "seeds"):
            self._check(name, "1 or more", lambda v: v >= 1)
        self._check("halving", "1 or more", lambda v: v >= 1)
        self._check("at_once", "1 or more", lambda v: v is None or v >= 1)
        self._check(
            "gpus_per_trial",
            "above 0 and under 1, or a whole number",
            lambda v: v is None or 0 < v < 1 or v == int(v) > 0,
        )
        if self.name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}", self.name):
            raise ConfigError(f"name is {self.name!r}; expected up to 60 letters, digits, '.', '_' and '-'")
        if self.again:
            raise ConfigError("a search has no --again; give another --name to search once more")

    def training(self) -> TrainConfig:
        """The settings that trials change, as those of a training run."""
        config = TrainConfig(**{f.name: getattr(self, f.name) for f in dataclasses.fields(TrainConfig)})
        encoder = Path(config.encoder)
        # Trials run in folders of their own, where a relative path would lead elsewhere.
        return dataclasses.replace(config, encoder=str(encoder.resolve())) if encoder.is_dir() else config

    @property
    def race(self) -> Race:
        """The rules of the race; ablations run all rows to the end."""
        halving = 1.0 if self.ablate else self.halving
        return Race(seeds=self.seeds, epochs=self.epochs, halving=halving, first_seed=self.seed)

    @property
    def in_group(self) -> bool:
        """Whether runs are trained by worker groups."""
        return self.worker_group or self.workers > 1

    @property
    def kind(self) -> str:
        """What the folder holds."""
        return "ablations" if self.ablate else "search"

    @property
    def search_name(self) -> str:
        """Its name, or one made of what is searched."""
        if self.name:
            return self.name
        parts = [self.dataset, Path(self.encoder).name.lower()]
        parts += [] if self.trainable_layers is None else [f"layers{self.trainable_layers}"]
        parts += ["ablations"] if self.ablate else []
        return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(parts))[:60]


def search_recipe(dataset: str, encoder: str = "minilm") -> SearchConfig:
    """The settings from which a search on `dataset` starts: the recipe of a training run, with every aspect."""
    return SearchConfig(**dataclasses.asdict(recipe(dataset, encoder)))

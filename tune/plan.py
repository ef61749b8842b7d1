"""A search that may begin: everything that can be refused before anything starts has been looked at."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from lgsrr.catalog import load_dataset
from lgsrr.errors import ConfigError
from lgsrr.preflight import check_labels
from lgsrr.records import Dataset
from tune.folder import Identity, SearchFolder
from tune.settings import SearchConfig
from tune.space import Space, check_space, default_space, read_space


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What a search is about, and where it is kept."""

    config: SearchConfig
    dataset: Dataset
    space: Space
    folder: SearchFolder
    identity: Identity

    @property
    def num_aspects(self) -> int:
        """Aspects that the data has."""
        return len(self.dataset.aspects)


def plan(config: SearchConfig) -> Plan:
    """Read the data and the space, and refuse what cannot be.

    Raises:
        LgsrrError: of the kinds in `lgsrr.errors`, with one message for the user.
    """
    dataset = load_dataset(config.dataset, config.data).head(config.limit)
    check_labels(dataset)
    base = config.training()
    num_aspects = len(dataset.aspects)
    if config.k is not None and config.k > num_aspects:
        raise ConfigError(f"k is {config.k}, but {config.dataset} has {num_aspects} aspects; use {num_aspects} or less")
    space = read_space(config.space) if config.space else default_space(base, num_aspects)
    check_space(space, base, num_aspects)
    folder = SearchFolder(Path(config.runs).resolve() / "search" / config.search_name)
    return Plan(config=config, dataset=dataset, space=space, folder=folder, identity=_identity(config, dataset, space))


def _identity(config: SearchConfig, dataset: Dataset, space: Space) -> Identity:
    """What makes this search this one: a change of any of it would mix what cannot be compared."""
    base = config.training().numbers()
    searched = {
        f"space of {d.name}": d.describe() + (f", {d.points} in a grid" if d.choices is None else "") for d in space
    }
    own = {name: getattr(config, name) for name in ("trials", "seeds", "algorithm", "halving")}
    if config.ablate:
        own, searched = {"seeds": config.seeds}, {}
    elif config.algorithm == "grid":
        del own["trials"]
    return {"dataset": base.pop("dataset"), "kind": config.kind, "data digest": dataset.digest} | own | searched | base

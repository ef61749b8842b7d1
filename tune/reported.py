"""What a search's report is made from."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

from tune.axes import Dimension
from tune.importance import importance
from tune.records import SeedResult, Trial
from tune.standings import Standing, best_of, winner


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchReport:
    """A search that has ended."""

    name: str
    dataset: str
    standings: Sequence[Standing]
    dimensions: Sequence[Dimension]
    """What was searched; empty where nothing was."""
    trials: Sequence[Trial]
    results: Sequence[SeedResult]
    """As they count: `tune.race.settled`."""
    seeds: int
    """Of a trial that runs to the end."""
    epochs: int
    """Of a seed that runs to the end."""
    spent: int
    """Seed-epochs that were trained."""
    exhaustive: int
    """Seed-epochs that all trials would have taken with all seeds and all epochs."""
    created: str = ""
    """When, as it is to be shown."""
    links: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Where to go on: what it is -> address."""

    @property
    def winner(self) -> Standing | None:
        """None where no trial ran all seeds."""
        return winner(self.standings)

    @property
    def paper(self) -> Standing | None:
        """The paper's setting; None where it has no score."""
        return best_of(self.standings, "paper")

    @property
    def text_alone(self) -> Standing | None:
        """The best of text alone; None where there is none with a score."""
        return best_of(self.standings, "text alone")

    @functools.cached_property
    def importance(self) -> dict[str, float]:
        """Share of each hyperparameter in what was seen; empty where there is too little to tell."""
        return importance(self.trials, self.results, self.dimensions)

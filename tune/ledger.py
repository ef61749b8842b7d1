"""What is known of a search, worked out from its folder: trials, results that count, and how they stand."""

from __future__ import annotations

from lgsrr import storage
from tune.ablations import ablations
from tune.folder import run_name
from tune.plan import Plan
from tune.proposals import propose
from tune.race import settled
from tune.records import SeedResult, Trial
from tune.standings import Standing, standings


class Ledger:
    """Reads; asks nobody and changes nothing."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def trials(self) -> list[Trial]:
        """All trials so far, in the order of the search."""
        config = self._plan.config
        if config.ablate:
            return [row.trial for row in ablations(config.training(), self._plan.num_aspects)]
        scores: dict[str, float] | None = None
        while True:
            trials = propose(
                config.algorithm,
                self._plan.space,
                config.training(),
                self._plan.num_aspects,
                config.trials,
                scores or {},
            )
            known = {trial.id for trial in trials}
            raw = [
                r
                for r in self._plan.folder.results()
                if r.seed == self._plan.config.race.first_seed and r.trial in known
            ]
            shown = {r.trial: r.dev_f1 or 0.0 for r in settled(trials, raw, self._plan.config.race)}
            if shown == scores:
                return trials
            scores = shown

    def results(self) -> list[SeedResult]:
        """Of all seeds that have ended, as they count."""
        return settled(self.trials(), self._plan.folder.results(), self._plan.config.race)

    def standings(self) -> list[Standing]:
        """The table of the search as it stands."""
        return standings(
            self.trials(),
            self.results(),
            seeds=self._plan.config.race.seeds,
            epochs=self._plan.config.race.epochs,
            tested=self.tests_by_trial(),
        )

    def tests_by_trial(self) -> dict[str, dict[str, list[float]]]:
        """Test scores as fractions, one for each seed, by trial and metric."""
        found: dict[str, dict[str, list[float]]] = {}
        for run, scores in self._plan.folder.tested().items():
            by_name = found.setdefault(run.rpartition("-s")[0], {})
            for name, value in scores.items():
                by_name.setdefault(name, []).append(value)
        return found

    def spent(self) -> int:
        """Seed-epochs that were trained, those included that the race did not count any more."""
        return sum(result.epochs for result in self._plan.folder.results())

    def checkpoints(self, trial: str, seed: int) -> str:
        """Where the checkpoints of a seed lie: a path or URI."""
        return storage.join(self._plan.folder.storage(self._plan.config.storage), run_name(trial, seed))

"""Tune's scheduler for a step of a search: stops a first seed where `tune.race` says so, and lets all others run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from tune.race import Curve, Race, cuts
from tune.records import Trial
from tune.trial import RUN


class EpochRace(FIFOScheduler):
    """Races the epochs of the first seeds.

    Args:
        trials: of the whole search, in its order.
        known: curves of first seeds that ended in steps before, by trial id.
        firsts: names of the runs of this step that are first seeds, with the id of the trial.
    """

    def __init__(
        self, trials: Sequence[Trial], known: Mapping[str, Curve], firsts: Mapping[str, str], race: Race
    ) -> None:
        super().__init__()
        self._trials, self._firsts, self._race = trials, firsts, race
        self._curves = dict(known)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        """STOP a first seed that the race has stopped, as soon as that is known."""
        id_ = self._firsts.get(trial.config[RUN])
        if id_ is None:
            return str(TrialScheduler.CONTINUE)
        if "history" in result:
            self._curves[id_] = Curve(
                scores=tuple(figures["dev_f1"] for figures in result["history"]), ended=bool(result.get("ended"))
            )
        elif "failure" in result:
            self.failed(trial.config[RUN])
        if id_ in cuts(self._trials, self._curves, self._race):
            return str(TrialScheduler.STOP)
        return str(TrialScheduler.CONTINUE)

    def failed(self, run: str) -> None:
        """A run that has failed for good holds up nobody behind it.

        `tune.step` knows when; Tune tells its schedulers of a failure that it retries in the same words.
        """
        if (id_ := self._firsts.get(run)) is not None:
            scores = self._curves[id_].scores if id_ in self._curves else ()
            self._curves[id_] = Curve(scores=scores, ended=True, failed=True)

"""Conducts a search: step after step until no seed is due, then the test, the report and the candidate."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from lgsrr import storage
from lgsrr.cluster import connected
from lgsrr.destination import TrackingConfig
from lgsrr.early_end import Helps, accounted
from lgsrr.errors import ConfigError, TrainingError
from lgsrr.metrics import SCORES
from lgsrr.place import marked
from lgsrr.tracker import describe
from tune.folder import run_name
from tune.jobs import Jobs
from tune.ledger import Ledger
from tune.live import LiveTable
from tune.plan import Plan
from tune.race import curve_of, seeds_due
from tune.recording import SearchRecord
from tune.records import SeedResult, Trial
from tune.resources import settle_cpus, settle_gpus
from tune.scheduler import EpochRace
from tune.standings import Standing
from tune.step import run_step
from tune.trial import Work

HELPS: Helps = (
    ("cuda|gpu", "a larger --gpus-per-trial, so that fewer models share a GPU"),
    (r"memory|\boom\b", "a smaller --at-once, or a smaller --batch-size"),
    ("not finite", "a lower upper end of lr in --space"),
    ("no space|disk|quota", "--runs on a disk with room"),
    ("no trial|no configuration", "--explain, which times one trial and shows the plan"),
)


def conduct(plan: Plan, console: Console) -> dict[str, Any]:
    """Run a search from where its folder stands to its answer."""
    from tune.answer import conclude

    with (
        _accounted(plan),
        connected(),
        _recorded(plan) as record,
        LiveTable(plan.config.race, console) as live,
    ):
        conductor = Conductor(plan, record, live)
        conductor.train()
        conductor.test()
        return conclude(plan, conductor, record)


def _accounted(plan: Plan) -> AbstractContextManager[None]:
    """Whatever ends the search early says what is safe and how to go on."""

    def safe() -> str:
        return f"{len(plan.folder.results())} runs that ended, in {plan.folder.path / 'results'}"

    def cost(seconds: float) -> str:
        return f"{seconds / 60:.1f} minutes; {Ledger(plan).spent()} epochs of all runs, with those of earlier commands"

    return accounted(safe, cost, HELPS)


@contextmanager
def _recorded(plan: Plan) -> Iterator[SearchRecord]:
    """The search's record for the block; what earlier commands left behind is sent on the way."""
    config, runs = plan.config, Path(plan.config.runs).resolve()
    tracking = TrackingConfig(experiment=config.experiment)
    record = SearchRecord(runs, tracking, search_key(plan), config.training(), describe(plan.dataset))
    record.begin(plan.folder.name, plan.identity)
    try:
        yield record
    except BaseException as error:
        record.interrupted("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        record.close(timeout_s=5.0)
        raise


def search_key(plan: Plan) -> str:
    """Of the search's run: its name and a hash of what is searched, so that one begun anew is another run."""
    digest = hashlib.sha256(json.dumps([plan.identity, str(plan.folder.path)], sort_keys=True, default=str).encode())
    return f"search-{plan.folder.name}-{digest.hexdigest()[:8]}"


class Conductor:
    """The state of a search is its folder; here is what a step needs of it, and who hears of the step's runs."""

    def __init__(self, plan: Plan, record: SearchRecord, live: LiveTable) -> None:
        self.ledger = Ledger(plan)
        self._record, self._live = record, live
        self._config, self._folder, self._race = plan.config, plan.folder, plan.config.race
        self._cpus = settle_cpus(plan.config)
        self._gpus = settle_gpus(plan.config)
        self._jobs = Jobs(plan.dataset, plan.config.training(), self._cpus)
        self._runs: dict[str, tuple[Trial, int]] = {}
        self._seen: dict[str, dict[str, Any]] = {}
        self._misplaced: str | None = None

    # Training

    def train(self) -> None:
        """Step after step until no seed is due.

        Raises:
            TrainingError: not one trial finished.
        """
        prepared = False
        while due := seeds_due(self.ledger.trials(), self.ledger.results(), self._race):
            if not prepared and self._config.trainable_layers is not None:
                self._live.doing("what lies under the trained layers is computed once per node and kept")
                self._jobs.prepare_nodes(self.ledger.trials(), self._gpus)
                prepared = True
            self._step(due)
            self._drop_stopped()
        if all(r.dev_f1 is None for r in self.ledger.results()):
            reasons = sorted({r.failure or "no epoch was finished" for r in self.ledger.results()})
            listed = "\n".join(f"  {reason}" for reason in reasons[:5])
            raise TrainingError(
                f"no trial of the search {self._folder.name} finished; what stopped them:\n{listed}\n"
                f"To try again after a change: another --name, or remove {self._folder.path / 'results'}."
            )

    def _step(self, due: Sequence[tuple[Trial, int]]) -> None:
        trials, results = self.ledger.trials(), self.ledger.results()
        firsts = {run_name(t.id, s): t.id for t, s in due if s == self._race.first_seed}
        known = {r.trial: curve_of(r) for r in self._folder.results() if r.seed == self._race.first_seed}
        ended = {t.id: {r.seed: r.dev_f1 for r in results if r.trial == t.id and r.dev_f1 is not None} for t in trials}
        self._live.step(trials, ended, len(due), self._announcement(due))
        self._run(due, EpochRace(trials, known, firsts, self._race), test=False)

    def _announcement(self, due: Sequence[tuple[Trial, int]]) -> str:
        count = len({trial.id for trial, _ in due})
        seeds = sorted({seed for _, seed in due})
        which = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
        return f"{count} configuration{'s' * (count > 1)}, {which}: {len(due)} runs"

    def _run(self, due: Sequence[tuple[Trial, int]], race: EpochRace | None, *, test: bool) -> None:
        self._runs = {run_name(trial.id, seed): (trial, seed) for trial, seed in due}
        self._seen.clear()
        jobs = {}
        for run, (trial, seed) in self._runs.items():
            jobs[run] = self._jobs.make(trial, seed, test=test)
        kept = self._folder.storage(self._config.storage)
        with marked(kept, "--storage") as place:
            work = Work(
                storage=kept, jobs=jobs, cpus=self._cpus, gpus=self._gpus, workers=self._config.workers,
                in_group=self._config.in_group, place=place,
            )  # fmt: skip
            run_step(
                work, race, self, scratch=self._folder.scratch(),
                at_once=self._config.at_once, retries=self._config.max_failures,
            )  # fmt: skip
        if self._misplaced is not None:
            raise ConfigError(self._misplaced)

    def _drop_stopped(self) -> None:
        """Drop the checkpoints of what is out of the race: the results hold its figures."""
        for result in self.ledger.results():
            if result.stopped or result.failure:
                storage.remove_folder(self.ledger.checkpoints(result.trial, result.seed))

    def drop_losers(self, kept: Sequence[str]) -> None:
        """Drop the checkpoints of all trials but those."""
        for result in self.ledger.results():
            if result.trial not in kept:
                storage.remove_folder(self.ledger.checkpoints(result.trial, result.seed))

    # The test

    def test(self) -> None:
        """Look at the test split, once: for the winner and the paper's setting; of ablations, for every row."""
        tested = self._folder.tested()
        results = {(r.trial, r.seed) for r in self.ledger.results() if r.dev_f1 is not None}
        chosen = {s.trial.id for s in self.ledger.standings() if self._is_tested(s)}
        due = [(t, s) for t in self.ledger.trials() for i, s in sorted(results) if i == t.id and t.id in chosen]
        due = [(t, s) for t, s in due if run_name(t.id, s) not in tested]
        if due:
            self._live.step(
                self.ledger.trials(), {}, len(due), f"the test split, for {len({t.id for t, _ in due})} of them"
            )
            self._run(due, None, test=True)
            untested = [run_name(t.id, s) for t, s in due if run_name(t.id, s) not in self._folder.tested()]
            if untested:
                raise TrainingError(
                    f"the test of {', '.join(untested)} failed, for the reason above; all training is kept: "
                    "the same command tries the test again"
                )

    def _is_tested(self, standing: Standing) -> bool:
        return self._config.ablate or standing.state == "winner" or standing.trial.origin == "paper"

    # Who hears of runs (`tune.step.Watcher`)

    def began(self, run: str) -> None:
        trial, seed = self._runs[run]
        self._record.seed_began(trial, seed)

    def reported(self, run: str, figures: Mapping[str, Any]) -> None:
        trial, seed = self._runs[run]
        self._seen.setdefault(run, {}).update(figures)
        if history := figures.get("history"):
            self._record.epochs(trial, seed, history)
            self._live.epoch(trial, seed, len(history), max(row["dev_f1"] for row in history))

    def ended(self, run: str, failure: str | None) -> None:
        trial, seed = self._runs[run]
        seen = self._seen.get(run, {})
        if "misplaced" in seen:  # no result of this seed: it was not begun
            self._misplaced = seen["misplaced"]
            return
        failure = failure or seen.get("failure")
        if "tested" in seen:
            scores = seen["tested"]["scores"]
            self._record.tested(trial, seed, scores, time_ms=int(seen["tested"]["history"][-1]["time_ms"]))
            self._folder.add_tested(run, {name: scores[f"test_{name}"] for name in SCORES})
        elif (trial.id, seed) not in {(r.trial, r.seed) for r in self._folder.results()}:
            result = SeedResult(
                trial=trial.id, seed=seed, history=tuple(seen.get("history", ())), failure=failure,
                checkpoint=None if failure else self.ledger.checkpoints(trial.id, seed),
            )  # fmt: skip
            self._record.seed_ended(trial, seed, result)
            self._folder.add(result)
        else:
            self._record.untested(trial, seed)
        if failure:
            self._live.say(f"{run} failed: {failure}")
        self._live.ended(trial, seed)

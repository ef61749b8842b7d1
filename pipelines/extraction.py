"""One extraction, from its plan to its manifest: the driver of `pipelines/extract.py`.

The stages run one after the other, since each reads what the one before has made. The driver alone writes rows; actors
write answers. Whatever ends a run (Ctrl-C, a stopped job, a used-up budget, a wrong key, a full disk), rows that have
come are written, and the same command goes on from there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console

from lgsrr import storage
from lgsrr.early_end import command_line
from lgsrr.errors import LgsrrError
from lgsrr.extracted import ASPECTS_FILE, MANIFEST_FILE
from lgsrr.records import Aspect
from lgsrr.spool import Status
from lgsrr.uncollected import uncollected

from . import discover
from .answers import AnswerStore
from .calls import ExtractionError, Json, Request
from .export import check_aspects, check_export, export_released, summary
from .inputs import Inputs, aspects_in, given_outcome, known_aspects, read_inputs
from .job import Job, early_end, stage_of
from .lease import leased
from .manifest import StageReport, manifest_of
from .outcomes import Outcome, Stage
from .output import FOLDERS, Output
from .plan import StagePlan
from .progress import StageProgress
from .recording import check_recording, record
from .report import latest_report, write_report
from .settings import ExtractConfig

COMMIT_ROWS, COMMIT_S = 500, 30.0
_STATE = ("complete", "dataset", "utterances", "aspects", "counts", "fingerprint", "cost_usd")
"""Of the manifest: what it says of the output. A run that was killed before it said so is made up for by the next."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extracted:
    """What a run left."""

    out: str
    stages: tuple[StageReport, ...]
    seconds: float
    cost_usd: float
    """Of this output in all."""
    nothing_to_do: bool
    report: str
    """Where report.html is."""
    recorded: str | None = None
    """Where the run is in MLflow; None where nothing was done."""
    exported: str | None = None
    """What was written in the authors' layout."""


class Extraction:
    """The run of one command."""

    def __init__(self, config: ExtractConfig, console: Console) -> None:
        # Actors run in folders of their own, where a relative path would lead elsewhere.
        config = dataclasses.replace(config, out=storage.absolute(config.out))
        self.config, self.console = config, console
        self.output = Output(config.out)
        self.answers = AnswerStore(config.out)
        with uncollected():
            self.inputs: Inputs = read_inputs(config)
        self.reports: list[StageReport] = []
        check_export(config, self.inputs.dataset)
        check_recording(config)

    # Plans

    def discover_requests(self) -> tuple[list[Request], discover.DiscoverAsk]:
        """What discovery asks first."""
        c = self.config
        ask = discover.DiscoverAsk(model=c.llm, k=c.k, rounds=c.rounds, subset=c.subset, seed=c.seed)
        return discover.requests(self.inputs.utterances, self.inputs.dataset.labels, ask), ask

    def needs_discovery(self) -> bool:
        """Whether aspects have to be asked for."""
        if "discover" not in self.config.stage_list or self.config.aspects is not None:
            return False
        found = (self.output.aspects() or {}).get("found", {})
        asked, ask = self.discover_requests()
        return bool(found.get("fingerprint") != discover.fingerprint(asked, ask))

    def plan(self, stage: Stage, aspects: tuple[Aspect, ...], after: StagePlan | None = None) -> StagePlan:
        """What describe or rank has to do, given the aspects and what is there now.

        `after` is the plan of describing, where ranking is planned as if that were done.
        """
        more = {} if after is None else {"coming": [row.id for row in after.rows if row.calls]}
        with uncollected():
            plan: StagePlan = stage_of(stage)(self.config, self.inputs, aspects).plan(
                self.output, self.answers.fingerprints(), **more
            )
        return plan

    # The run

    def run(self) -> Extracted:
        """All stages. Raises ExtractionError where the run ends early; what has come is kept."""
        started = time.time()
        with leased(self.config.out):
            self.output.write_utterances(self.inputs.utterances)
            for stage in FOLDERS:
                self.output.tidy(stage, {})
            try:
                with self._job() as job:
                    aspects = self._all_stages(job)
            except ExtractionError as error:
                self._record_end(started, str(error))
                raise
            return self._finish(started, aspects)

    def _all_stages(self, job: Job) -> tuple[Aspect, ...]:
        aspects = self._aspects(job)
        if self.config.export == "released":
            check_aspects(aspect.name for aspect in aspects)
        if "describe" not in self.config.stage_list:
            self._take_given(aspects)
        for stage in self.config.stage_list:
            if stage != "discover":
                self._stage(stage, aspects, job)
        return aspects

    def _record_end(self, started: float, reason: str) -> None:
        """Report and MLflow of a run that ends early, where it did anything; they never hide why it ends."""
        if not any(r.done or r.set_aside for r in self.reports):
            return
        with contextlib.suppress(LgsrrError):
            write_report(self.config, self.output, ended_early=reason)
        status: Status = "KILLED" if "interrupted" in reason or "asked to stop" in reason else "FAILED"
        record(
            self.config, self.output, self.inputs, self.reports,
            started=started, command=command_line(), status=status, reason=reason, timeout_s=5.0,
        )  # fmt: skip

    @contextmanager
    def _job(self) -> Iterator[Job]:
        job = Job(self.config, self.output, self.console)
        try:
            yield job
        finally:
            job.close()

    def _aspects(self, job: Job) -> tuple[Aspect, ...]:
        if "discover" not in self.config.stage_list or self.config.aspects is not None:
            document = known_aspects(self.config, self.inputs, self.output)
        elif not self.needs_discovery():
            document = self.output.aspects() or {}
            self.reports.append(StageReport(stage="discover", rows=1, before=1))
        else:
            document = self._discover(job)
        before = self.output.aspects() or {}
        charged = {**before.get("found", {}).get("charged", {}), **document["found"].get("charged", {})}
        if charged:  # what earlier discoveries have cost stays counted
            document = {**document, "found": {**document["found"], "charged": charged}}
        if document != before:
            self.output.write_json(ASPECTS_FILE, document)
        return aspects_in(document)

    def _discover(self, job: Job) -> Mapping[str, Json]:
        asked, ask = self.discover_requests()
        self.console.print(f"discover  {len(asked)} answers of {ask.model}", highlight=False, soft_wrap=True)
        started = time.monotonic()
        found = job.discover(asked, ask)
        names = ", ".join(f"{a.name} ({a.frequency})" for a in found.aspects)
        self.console.print(f"discover  {names}", highlight=False, soft_wrap=True)
        seconds = time.monotonic() - started
        self.reports.append(StageReport(stage="discover", rows=1, done=1, usage=found.usage, seconds=seconds))
        return found.document

    def _take_given(self, aspects: tuple[Aspect, ...]) -> None:
        """Write descriptions that came with the data, so that the output is whole."""
        names = [aspect.name for aspect in aspects]
        have = self.output.done("describe")
        outcomes = [
            given_outcome(name, {aspect: texts[aspect] for aspect in names})
            for name, texts in self.inputs.given.items()
            if name not in have and all(aspect in texts for aspect in names)
        ]
        if outcomes:
            self.output.commit(outcomes)

    def _stage(self, stage: Stage, aspects: tuple[Aspect, ...], job: Job) -> None:
        plan = self.plan(stage, aspects)
        progress = StageProgress(stage, len(plan.rows), self.console)
        stopped = None
        if plan.rows:
            self.console.print(_announce(plan), highlight=False, soft_wrap=True)
            outcomes = job.outcomes(plan, self.config, self.inputs, aspects)
            with progress:
                stopped = self._write(outcomes, progress, job)
        self.reports.append(
            StageReport(
                stage=stage,
                rows=len(plan.wanted),
                before=plan.done + plan.set_aside,
                done=progress.counts["done"],
                set_aside=progress.counts["quarantined"],
                reasons=dict(progress.reasons),
                usage=progress.usage,
                seconds=progress.seconds,
            )
        )
        if stopped is not None:
            raise ExtractionError(self._ended(stage, stopped, progress))
        self.output.tidy(stage, plan.wanted)

    def _write(self, outcomes: Iterable[Outcome], progress: StageProgress, job: Job) -> str | None:
        """Write rows as they come; the reason where the stage was stopped."""
        waiting: list[Outcome] = []
        written_at = time.monotonic()
        try:
            for outcome in outcomes:
                progress.add(outcome)
                if outcome.status != "stopped":
                    waiting.append(outcome)
                if len(waiting) >= COMMIT_ROWS or (waiting and time.monotonic() - written_at > COMMIT_S):
                    rows, waiting, written_at = waiting, [], time.monotonic()
                    self.output.commit(rows)
        except LgsrrError:
            raise
        except Exception as error:
            reason = job.stop_reason() or job.why(error)
            if waiting:
                self.output.commit(waiting)
            return reason
        if waiting:
            self.output.commit(waiting)
        return job.stop_reason() or ("stopped" if progress.counts["stopped"] else None)

    def _ended(self, stage: Stage, reason: str, progress: StageProgress) -> str:
        safe = f"{progress.finished} rows of this run are in {self.config.out}, with every answer that came"
        return early_end(stage, reason, safe, progress.usage.cost_usd, self.output.cost_usd())

    def _finish(self, started: float, aspects: tuple[Aspect, ...]) -> Extracted:
        if self.config.leave_out_quarantined:
            left_out = self.output.quarantined("describe").keys() - self.output.done("describe").keys()
            self.output.write_utterances(self.inputs.utterances, without=left_out)
        cost = self.output.cost_usd()
        worked = [r for r in self.reports if r.done or r.set_aside]
        before = self.output.manifest() or {}
        manifest = manifest_of(
            self.config,
            self.output,
            self.reports,
            before=before,
            started=started,
            command=command_line(),
            cost_usd=cost,
        )
        changed = bool(worked) or any(before.get(name) != manifest[name] for name in _STATE)
        if changed:
            self.output.write_json(MANIFEST_FILE, manifest)
        report = latest_report(self.config, self.output, changed=changed)
        recorded = exported = None
        if worked:
            recorded = record(
                self.config, self.output, self.inputs, self.reports, started=started, command=command_line()
            )
        if self.config.export == "released":
            exported = summary(export_released(self.config, self.output))
        return Extracted(
            out=self.config.out,
            stages=tuple(self.reports),
            seconds=time.time() - started,
            cost_usd=cost,
            nothing_to_do=not worked,
            report=report,
            recorded=recorded,
            exported=exported,
        )


def _announce(plan: StagePlan) -> str:
    parts = [f"{len(plan.rows)} of {len(plan.wanted)} to do"]
    for count, words in (
        (plan.done, "done before"),
        (plan.answered, "answered before"),
        (plan.set_aside, "set aside before"),
        (plan.outdated, "replace older work"),
        (plan.left_out, "left out"),
    ):
        if count:
            parts.append(f"{count} {words}")
    return f"{plan.stage}  {', '.join(parts)}"

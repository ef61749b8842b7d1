"""One extraction, from its plan to its manifest: the driver of `pipelines/extract.py`.

The stages run one after the other, since each reads what the one before has made. The driver alone writes rows; actors
write answers. Whatever ends a run (Ctrl-C, a stopped job, a used-up budget, a wrong key, a full disk), rows that have
come are written, and the same command goes on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from rich.console import Console

from lgsrr.errors import LgsrrError
from lgsrr.extracted import ASPECTS_FILE, MANIFEST_FILE
from lgsrr.provenance import package_versions
from lgsrr.records import Aspect
from lgsrr.spool import Status

from . import discover
from .answers import AnswerStore
from .blotting import without_keys
from .calls import ExtractionError, Json, Request, Stopped, Usage, fingerprint_of
from .export import check_aspects, check_export, export_released, summary
from .inputs import Inputs, aspects_in, given_outcome, known_aspects, read_inputs
from .job_board import JobBoard
from .lease import leased
from .llm_setup import LlmSetup
from .outcomes import Outcome, Stage
from .output import FOLDERS, Output
from .plan import StagePlan
from .progress import StageProgress
from .recording import check_recording, record
from .report import latest_report, write_report
from .settings import ExtractConfig
from .stopping import stopping

COMMIT_ROWS, COMMIT_S = 500, 30.0
_STATE = ("complete", "dataset", "utterances", "aspects", "counts", "fingerprint", "cost_usd")
"""Of the manifest: what it says of the output. A run that was killed before it said so is made up for by the next."""
_RAYS_WORDS = "\n\nThe above exception was the direct cause of the following exception:"


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
        self.config, self.console = config, console
        self.output = Output(config.out)
        self.answers = AnswerStore(config.out)
        self.inputs: Inputs = read_inputs(config)
        self.reports: list[StageReport] = []
        self._kept: frozenset[str] = frozenset()
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
        self._kept = frozenset(self.answers.fingerprints())
        more = {} if after is None else {"coming": [row.id for row in after.rows if row.calls]}
        plan: StagePlan = _stage(stage)(self.config, self.inputs, aspects).plan(self.output, self._kept, **more)
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
                with self._cluster() as cluster:
                    aspects = self._all_stages(cluster)
            except ExtractionError as error:
                self._record_end(started, str(error))
                raise
            return self._finish(started, aspects)

    def _all_stages(self, cluster: Cluster) -> tuple[Aspect, ...]:
        aspects = self._aspects(cluster)
        if self.config.export == "released":
            check_aspects(aspect.name for aspect in aspects)
        if "describe" not in self.config.stage_list:
            self._take_given(aspects)
        for stage in self.config.stage_list:
            if stage != "discover":
                self._stage(stage, aspects, cluster)
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
    def _cluster(self) -> Iterator[Cluster]:
        cluster = Cluster(self.config, self.output, self.console)
        try:
            yield cluster
        finally:
            cluster.close()

    def _aspects(self, cluster: Cluster) -> tuple[Aspect, ...]:
        if "discover" not in self.config.stage_list or self.config.aspects is not None:
            document = known_aspects(self.config, self.inputs, self.output)
        elif not self.needs_discovery():
            document = self.output.aspects() or {}
            self.reports.append(StageReport(stage="discover", rows=1, before=1))
        else:
            document = self._discover(cluster)
        before = self.output.aspects() or {}
        charged = {**before.get("found", {}).get("charged", {}), **document["found"].get("charged", {})}
        if charged:  # what earlier discoveries have cost stays counted
            document = {**document, "found": {**document["found"], "charged": charged}}
        if document != before:
            self.output.write_json(ASPECTS_FILE, document)
        return aspects_in(document)

    def _discover(self, cluster: Cluster) -> Mapping[str, Json]:
        asked, ask = self.discover_requests()
        self.console.print(f"discover  {len(asked)} answers of {ask.model}", highlight=False, soft_wrap=True)
        started = time.monotonic()
        found = cluster.discover(asked, ask)
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

    def _stage(self, stage: Stage, aspects: tuple[Aspect, ...], cluster: Cluster) -> None:
        plan = self.plan(stage, aspects)
        progress = StageProgress(stage, len(plan.rows), self.console)
        stopped = None
        if plan.rows:
            self.console.print(_announce(plan), highlight=False, soft_wrap=True)
            outcomes = cluster.outcomes(plan, self.config, self.inputs, aspects)
            with progress:
                stopped = self._write(outcomes, progress, cluster)
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

    def _write(self, outcomes: Iterable[Outcome], progress: StageProgress, cluster: Cluster) -> str | None:
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
            reason = cluster.stop_reason() or cluster.why(error)
            if waiting:
                self.output.commit(waiting)
            return reason
        if waiting:
            self.output.commit(waiting)
        return cluster.stop_reason() or ("stopped" if progress.counts["stopped"] else None)

    def _ended(self, stage: Stage, reason: str, progress: StageProgress) -> str:
        safe = f"{progress.finished} rows of this run are in {self.config.out}, with every answer that came"
        return _early_end(stage, reason, safe, progress.usage.cost_usd, self.output.cost_usd())

    def _finish(self, started: float, aspects: tuple[Aspect, ...]) -> Extracted:
        if self.config.leave_out_quarantined:
            left_out = self.output.quarantined("describe").keys() - self.output.done("describe").keys()
            self.output.write_utterances(self.inputs.utterances, without=left_out)
        cost = self.output.cost_usd()
        worked = [r for r in self.reports if r.done or r.set_aside]
        before = self.output.manifest() or {}
        manifest = self._manifest(before, started, aspects, cost)
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

    def _manifest(
        self, before: Mapping[str, Json], started: float, aspects: tuple[Aspect, ...], cost: float
    ) -> dict[str, Any]:
        run = {
            "started": started,
            "finished": time.time(),
            "command": without_keys(command_line()),
            "settings": {name: _blotted(value) for name, value in dataclasses.asdict(self.config).items()},
            "stages": {r.stage: dataclasses.asdict(r) for r in self.reports},
        }
        counts = {
            stage: {"done": len(self.output.done(stage)), "quarantined": len(self.output.quarantined(stage))}
            for stage in FOLDERS
        }
        return {
            "complete": True,
            "dataset": self.config.dataset,
            "utterances": len(self.output.utterances()),
            "aspects": [aspect.name for aspect in aspects],
            "counts": counts,
            "fingerprint": fingerprint_of({"out": {s: sorted(self.output.done(s).items()) for s in FOLDERS}}),
            "cost_usd": cost,
            "cost_of_replaced_usd": self.output.cost_of_replaced_usd(),
            "packages": package_versions(),
            "runs": [*before.get("runs", []), run],
        }


class Cluster:
    """Ray, started when the first stage needs it, with what all stages share: the stop flag and the budgets."""

    def __init__(self, config: ExtractConfig, output: Output, console: Console) -> None:
        self._config, self._output, self._console = config, output, console
        self._said: set[str] = set()
        self._stack = ExitStack()
        self._board: JobBoard | None = None
        self._llm: LlmSetup | None = None
        self._reason: str | None = None

    def board(self) -> JobBoard:
        if self._board is None:
            from lgsrr.cluster import connected

            self._stack.enter_context(connected())
            self._board = JobBoard.start()
            self._stack.enter_context(stopping(self.stop))
        return self._board

    def llm(self, unwritten_usd: float = 0.0) -> LlmSetup:
        """How the language model is asked, by this run's one budget.

        `unwritten_usd`: what answers have cost that are kept and on no receipt yet; a budget begins anew with them.
        """
        self.board()
        if self._llm is not None and unwritten_usd:
            self._llm.close()
            self._llm = None
        if self._llm is None:
            self._llm = LlmSetup.start(self._config, spent_usd=self._output.cost_usd() + unwritten_usd)
            self._stack.callback(self._llm.close)
        return self._llm

    def stop(self, reason: str) -> None:
        """End the job: nothing more is begun."""
        self._reason = self._reason or reason
        if self._llm is not None:
            self._llm.stop(reason)
        if self._board is not None:
            self._board.stop(reason)

    def say(self, line: str) -> None:
        """Print a line, once."""
        if line not in self._said:
            self._said.add(line)
            self._console.print(line, highlight=False, soft_wrap=True)

    def spent_usd(self) -> float:
        """Dollars on all receipts of this output."""
        return self._output.cost_usd()

    def stop_reason(self) -> str | None:
        return self._reason or (self._board.stop_reason() if self._board is not None else None)

    def discover(self, asked: list[Request], ask: discover.DiscoverAsk) -> discover.Found:
        setup = self.llm()

        async def ask_all() -> discover.Found:
            async with setup.asking() as asker:
                return await discover.discover(asked, ask, asker)

        try:
            return asyncio.run(ask_all())
        except Stopped as stopped:
            kept = [answer for r in asked if (answer := AnswerStore(self._output.out).get(r.fingerprint))]
            safe = f"{len(kept)} of {len(asked)} answers are kept in {self._output.out}"
            cost = sum(answer.usage.cost_usd for answer in kept)
            raise ExtractionError(_early_end("discover", str(stopped), safe, cost, self._output.cost_usd())) from None

    def outcomes(
        self, plan: StagePlan, config: ExtractConfig, inputs: Inputs, aspects: tuple[Aspect, ...]
    ) -> Iterator[Outcome]:
        """The stage's rows through Ray."""
        outcomes: Iterator[Outcome] = _stage(plan.stage)(config, inputs, aspects).outcomes(plan, self)
        return outcomes

    def why(self, error: BaseException) -> str:
        """What ended the stage: of an actor's traceback, the words behind it, before Ray Data's own about them."""
        lines = str(error).partition(_RAYS_WORDS)[0].strip().splitlines()
        behind = max((place for place, line in enumerate(lines) if line.startswith("  ")), default=-1) + 1
        return " ".join(lines[behind:])[:1000] or type(error).__name__

    def close(self) -> None:
        self._stack.close()


def _blotted(value: Json) -> Json:
    return without_keys(value) if isinstance(value, str) else value


def _stage(stage: Stage) -> Any:
    """The class of a stage that makes rows; what it brings along (Ray, decoders) is loaded when it is needed."""
    if stage == "describe":
        from .describing_stage import DescribeStage

        return DescribeStage
    from .ranking_stage import RankStage

    return RankStage


def _early_end(stage: Stage, reason: str, safe: str, cost_usd: float, in_all_usd: float) -> str:
    """What somebody has to know whose job has ended early."""
    return (
        f"{stage} ended early: {reason}\n"
        f"  safe       {safe}\n"
        f"  cost       ${cost_usd:.4f} in this stage, ${in_all_usd:.4f} on receipts in all\n"
        f"  continue   {command_line()}"
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


def command_line() -> str:
    """The command that was given, to be given again."""
    return shlex.join(["python", *sys.argv])

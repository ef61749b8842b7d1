"""What one run has on the cluster: Ray, started when the first stage needs it, the board and the budget."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from rich.console import Console

from lgsrr.early_end import Helps, account
from lgsrr.records import Aspect

from . import discover
from .answers import AnswerStore
from .calls import ExtractionError, Request, Stopped
from .inputs import Inputs
from .job_board import JobBoard
from .llm_setup import LlmSetup
from .outcomes import Outcome, Stage
from .output import Output
from .plan import StagePlan
from .settings import ExtractConfig
from .stopping import stopping

_RAYS_WORDS = "\n\nThe above exception was the direct cause of the following exception:"


HELPS: Helps = (
    ("budget", "a larger --budget-usd"),
    (r"\b429\b|rate limit|quota", "a smaller --rpm and --tpm, or --batch"),
    (r"\bkey\b|\b401\b|\b403\b", "--key-file, or OPENAI_API_KEY where the calls are made"),
    (r"memory|\boom\b", "a smaller --clips-in-flight, or fewer --frames"),
    ("no space|disk", "--out on a disk with room"),
    ("reached|refused|timed out|connect", "--base-url or --model-url, if the address is another one"),
)


class Job:
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
            from lgsrr.place import marked

            self._stack.enter_context(connected())
            self._board = JobBoard.start(self._stack.enter_context(marked(self._output.out, "--out")))
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
        if self._reason is None:
            self._reason = reason
            self.say(f"{reason}: what is in work is finished, nothing more is begun; Ctrl-C ends it at once")
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

    def over(self) -> bool:
        """Whether the job is ending and nothing is in work any more."""
        return self._board is not None and self._board.over()

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
            raise ExtractionError(early_end("discover", str(stopped), safe, cost, self._output.cost_usd())) from None

    def outcomes(
        self, plan: StagePlan, config: ExtractConfig, inputs: Inputs, aspects: tuple[Aspect, ...]
    ) -> Iterator[Outcome]:
        """The stage's rows through Ray."""
        outcomes: Iterator[Outcome] = stage_of(plan.stage)(config, inputs, aspects).outcomes(plan, self)
        return outcomes

    def why(self, error: BaseException) -> str:
        """What ended the stage: of an actor's traceback, the words behind it, before Ray Data's own about them."""
        lines = str(error).partition(_RAYS_WORDS)[0].strip().splitlines()
        behind = max((place for place, line in enumerate(lines) if line.startswith("  ")), default=-1) + 1
        return " ".join(lines[behind:])[:1000] or type(error).__name__

    def close(self) -> None:
        self._stack.close()


def stage_of(stage: Stage) -> Any:
    """The class of a stage that makes rows; what it brings along (Ray, decoders) is loaded when it is needed."""
    if stage == "describe":
        from .describing_stage import DescribeStage

        return DescribeStage
    from .ranking_stage import RankStage

    return RankStage


def early_end(stage: Stage, reason: str, safe: str, cost_usd: float, in_all_usd: float) -> str:
    """What somebody has to know whose job has ended early."""
    cost = f"${cost_usd:.4f} in this stage, ${in_all_usd:.4f} on receipts in all"
    return f"{stage} ended early: {reason}\n" + account(safe=safe, cost=cost, reason=reason, helps=HELPS)

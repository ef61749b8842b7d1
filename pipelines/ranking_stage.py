"""The stage rank: its rows, their plan, and their way through Ray."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from lgsrr.records import Aspect

from .answers import AnswerStore
from .asking import STORE_THREADS
from .batching import answer_by_batch
from .calls import Request
from .flow import Step, block_rows, stream
from .inputs import Inputs
from .llm_setup import price_for
from .outcomes import Outcome
from .output import Output
from .plan import Candidate, Row, StagePlan, plan_stage, work_text
from .prices import Price
from .rank import RankAsk, RankWork, rank_request, rank_work
from .rank_rows import RankRows, work_from_text
from .settings import ExtractConfig

if TYPE_CHECKING:
    from .job import Job

_TO_COME = "x" * 200
"""Stands for a description that is not made yet, in a plan that is only shown."""


class RankStage:
    """Ranking the training split."""

    def __init__(self, config: ExtractConfig, inputs: Inputs, aspects: tuple[Aspect, ...]) -> None:
        self._config, self._inputs = config, inputs
        self._names = [aspect.name for aspect in aspects]
        self._ask = RankAsk(model=config.llm)

    def plan(self, output: Output, answers: Set[str], coming: Iterable[str] = ()) -> StagePlan:
        """Every labelled training utterance with all its descriptions; those of `coming` are taken for granted."""
        described: Mapping[str, Mapping[str, str]] = output.descriptions() or self._inputs.given
        described = {**described, **dict.fromkeys(coming, dict.fromkeys(self._names, _TO_COME))}
        works = rank_work(self._inputs.utterances, described, self._names, seed=self._config.seed)
        training = sum(u.split == "train" for u in self._inputs.utterances)
        return plan_stage(
            "rank",
            self._candidates(works),
            done=output.done("rank"),
            quarantined=output.quarantined("rank"),
            answers=answers,
            retry_quarantined=self._config.retry_quarantined,
            left_out=training - len(works),
        )

    def _candidates(self, works: Iterable[RankWork]) -> Iterator[Candidate]:
        price = price_for(self._config)
        for work in works:
            request = rank_request(work, self._ask)
            row = functools.partial(_row, work, request, price)
            yield Candidate(id=work.id, fingerprint=request.fingerprint, row=row)

    def outcomes(self, plan: StagePlan, job: Job) -> Iterator[Outcome]:
        """The plan's rows, by the language model: through batches first where asked for, what they leave live."""
        config = self._config
        if config.batch:
            job.board()
            works = [work_from_text(row.work) for row in plan.rows]
            answer_by_batch([rank_request(work, self._ask) for work in works], config, job)
        step = Step(
            kind=RankRows,
            arguments={"setup": job.llm(self._unwritten_usd(plan)), "ask": self._ask, "board": job.board()},
            actors=config.callers,
            num_cpus=0.25,
        )
        rate = None if config.rpm is None else config.rpm / 60
        rows = block_rows(len(plan.rows), config.callers, step.calls, rows_per_second=rate)
        return stream([(row.id, row.work) for row in plan.rows], [step], rows, stopped=job.stop_reason, over=job.over)

    def _unwritten_usd(self, plan: StagePlan) -> float:
        """What the plan's rows have cost already, by batches or in a run that was killed; for a budget alone."""
        if self._config.budget_usd is None:
            return 0.0
        answers = AnswerStore(self._config.out)
        kept = answers.fingerprints()
        with ThreadPoolExecutor(STORE_THREADS) as threads:
            found = threads.map(answers.get, [row.fingerprint for row in plan.rows if row.fingerprint in kept])
        return sum(answer.usage.cost_usd for answer in found if answer is not None)


def _row(work: RankWork, request: Request, price: Price | None) -> Row:
    tokens, mark = request.estimated_tokens(), request.fingerprint
    cost = price.cost(tokens, 40) if price else 0.0
    return Row(id=work.id, fingerprint=mark, work=work_text(work), calls=(mark,), tokens=tokens, cost_usd=cost)

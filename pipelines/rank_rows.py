"""Ranking in an actor: one utterance's request, its answer read, asked once more where it cannot be read."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import time

import pyarrow as pa

from lgsrr.errors import LgsrrError

from .advice import advice
from .background import BackgroundLoop
from .calls import Answer, Asks, Refused, Stopped
from .flow import outcomes_table
from .job_board import JobBoard
from .llm_setup import LlmSetup
from .outcomes import Outcome, Receipt
from .rank import PROMPT_VERSION, RankAsk, RankWork, again, parse_ranking, rank_request


class RankRows:
    """Takes batches of (id, work), yields outcomes; Ray Data holds it in CPU actors."""

    def __init__(self, setup: LlmSetup, ask: RankAsk, board: JobBoard) -> None:
        self._ask, self._board = ask, board
        self._loop, self._leaving = BackgroundLoop(), contextlib.AsyncExitStack()
        self._asker: Asks | None = None
        board.check_output()
        try:
            self._asker = self._loop.run(self._leaving.enter_async_context(setup.asking()))
        except LgsrrError as error:  # such as a key that is not there on this node
            board.stop(str(error))

    def __del__(self) -> None:
        """Ray Data lets go of an actor that has nothing left to do while others work on."""
        self._loop.leave(self._leaving.aclose())

    def __call__(self, batch: pa.Table) -> pa.Table:
        works = [work_from_text(text) for text in batch.column("work").to_pylist()]
        with self._board.working():
            return outcomes_table(self._loop.run(self._all(works)))

    async def _all(self, works: list[RankWork]) -> list[Outcome]:
        return list(await asyncio.gather(*(self._one(work) for work in works)))

    async def _one(self, work: RankWork) -> Outcome:
        if self._asker is None or await asyncio.to_thread(self._board.stop_reason) is not None:
            return Outcome(id=work.id, stage="rank", status="stopped")
        try:
            return await rank_one(work, self._ask, self._asker)
        except (Stopped, LgsrrError) as error:  # the job ends, or an answer could not be kept: no more is paid for
            reason = str(error)
        await asyncio.to_thread(self._board.stop, reason)
        return Outcome(id=work.id, stage="rank", status="stopped")


async def rank_one(work: RankWork, ask: RankAsk, asker: Asks) -> Outcome:
    """Rank one utterance; an answer that is no permutation is asked for once more, then quarantined.

    Raises Stopped where the job is ending, DataError where an answer cannot be kept.
    """
    request = rank_request(work, ask)
    aspects = sorted(work.shown)
    answers: list[Answer] = []
    try:
        answers.append(await asker.ask(request))
        try:
            order = parse_ranking(answers[0].text, aspects)
        except Refused as error:
            answers.append(await asker.ask(again(request, answers[0].text, error.reason)))
            order = parse_ranking(answers[1].text, aspects)
    except Refused as error:
        return _set_aside(work, request.fingerprint, ask, answers, error)
    receipt = Receipt.of(answers, fingerprint=request.fingerprint, prompt_version=PROMPT_VERSION)
    return Outcome(id=work.id, stage="rank", status="done", receipts=(receipt,), aspects=order, shown=work.shown)


def _set_aside(work: RankWork, mark: str, ask: RankAsk, answers: list[Answer], error: Refused) -> Outcome:
    if answers:
        receipt = Receipt.of(answers, fingerprint=mark, prompt_version=PROMPT_VERSION)
    else:
        receipt = Receipt(fingerprint=mark, model=ask.model, prompt_version=PROMPT_VERSION, created_at=time.time())
    receipt = dataclasses.replace(
        receipt,
        input_tokens=receipt.input_tokens + error.usage.input_tokens,
        output_tokens=receipt.output_tokens + error.usage.output_tokens,
        cost_usd=receipt.cost_usd + error.usage.cost_usd,
    )
    return Outcome(
        id=work.id,
        stage="rank",
        status="quarantined",
        receipts=(receipt,),
        reason=error.kind,
        detail=error.reason,
        advice=advice(error.kind),
    )


def work_from_text(text: str) -> RankWork:
    value = json.loads(text)
    return RankWork(**{**value, "descriptions": tuple((aspect, said) for aspect, said in value["descriptions"])})

"""Rankings through the Batch API, at half the price and within a day, before anything is asked live.

The driver submits, waits and folds answers into the store; the stage then finds them there as if it had asked. A run
that ends while a batch works finds it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .answers import AnswerStore
from .batch_api import BatchProgress, run_batches
from .calls import CallError, ExtractionError, Fatal, Request, Stopped
from .llm_setup import endpoint_for, price_for
from .prices import Price
from .settings import ExtractConfig

if TYPE_CHECKING:
    from .job import Job

SHARE = 0.5
"""Of the live price."""


def answer_by_batch(requests: Sequence[Request], config: ExtractConfig, job: Job) -> None:
    """Answer what batches can answer; the rest is left to be asked live.

    Raises ExtractionError where the budget would not cover it, the account is at fault, or the job is stopped.
    """
    price = price_for(config)
    half = None if price is None else Price(input=price.input * SHARE, output=price.output * SHARE)
    answers = AnswerStore(config.out)
    kept = answers.fingerprints()
    new = [request for request in requests if request.fingerprint not in kept]
    if half is not None and config.budget_usd is not None:
        cost, left = sum(half.at_most(r) for r in new), config.budget_usd - job.spent_usd()
        if cost > left:
            raise ExtractionError(
                f"a batch of {len(new)} rankings may cost ${cost:.2f}, and ${max(left, 0):.2f} of --budget-usd are "
                "left; raise it, or take fewer utterances (--limit)"
            )

    async def sleep(seconds: float) -> None:
        for _ in range(max(1, round(seconds))):
            if (reason := job.stop_reason()) is not None:
                raise Stopped(reason)
            await asyncio.sleep(min(1.0, seconds))

    async def run() -> None:
        from .openai_client import OpenAiClient  # brings openai, which nobody waits for who asks without batches

        client = OpenAiClient(endpoint_for(config), price=price)  # which halves it for batches itself
        try:
            outcome = await run_batches(
                requests,
                api=client,
                answers=answers,
                out=config.out,
                sleep=sleep,
                on_progress=lambda p: job.say(batch_line(p)),
            )
        finally:
            await client.close()
        job.say(f"rank  batches answered {outcome.answered}; {len(outcome.left)} are asked live")

    try:
        asyncio.run(run())
    except Fatal as error:
        raise ExtractionError(f"{error.reason} {error.advice}") from None
    except Stopped as stopped:
        raise ExtractionError(f"rank ended early: {stopped}. Batches go on; the same command folds them in.") from None
    except CallError as error:
        raise ExtractionError(f"the Batch API cannot be used: {error.reason}. The same command continues.") from None


def batch_line(progress: BatchProgress) -> str:
    """One line for a person."""
    failed = f", {progress.failed} failed" if progress.failed else ""
    why = f": {progress.reason}" if progress.reason else ""
    return f"rank  batch {progress.batch_id} {progress.status} {progress.completed}/{progress.total}{failed}{why}"

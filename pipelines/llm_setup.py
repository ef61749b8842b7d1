"""How the language model is asked in one run: endpoint, price, retries, and the one budget of the cluster.

The driver starts it; actors get it and make an `Asker` of their own. It travels without a key: each process finds the
key where `Endpoint` says.
"""

from __future__ import annotations

import contextlib
import dataclasses
import uuid
from collections.abc import AsyncIterator
from typing import Any

import ray

from lgsrr import storage

from .answers import AnswerStore
from .asking import Asker, RetryPolicy
from .budget_actor import start_budget
from .budget_client import Budget
from .endpoint import Endpoint
from .prices import Price, settled_price
from .rate_budget import Limits
from .settings import ExtractConfig

MARK = "_budget.json"
"""Under the output: dollars that may have been spent, for after a crash."""


def price_for(config: ExtractConfig) -> Price | None:
    """The price of the model that discovers and ranks. Raises ConfigError where dollars are limited without one."""
    return settled_price(config.llm, price_in=config.price_in, price_out=config.price_out, budget_usd=config.budget_usd)


def endpoint_for(config: ExtractConfig) -> Endpoint:
    """Where that model is asked."""
    return Endpoint(base_url=config.base_url, key_file=config.key_file, timeout_s=config.timeout_s).resolved()


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlmSetup:
    """What an actor needs to ask."""

    endpoint: Endpoint
    price: Price | None
    retry: RetryPolicy
    out: str
    budget: Any
    """Handle of the budget's actor."""

    @classmethod
    def start(cls, config: ExtractConfig, *, spent_usd: float) -> LlmSetup:
        """Start the budget. Raises ConfigError where the key is missing, or dollars are limited without a price."""
        endpoint, price = endpoint_for(config), price_for(config)
        endpoint.key()
        limits = Limits(rpm=config.rpm, tpm=config.tpm, concurrency=config.concurrency, usd=config.budget_usd)
        budget = start_budget(
            f"budget-{uuid.uuid4().hex[:8]}",
            limits,
            spent_before=spent_usd,
            mark_at=storage.join(config.out, MARK) if config.budget_usd is not None else None,
        )
        retry = RetryPolicy(attempts=config.attempts)
        return cls(endpoint=endpoint, price=price, retry=retry, out=config.out, budget=budget)

    @classmethod
    def start_remote_engine(cls, config: ExtractConfig) -> LlmSetup:
        """For the server that describes: no limits but on calls at once; its price is not known and not counted."""
        endpoint = Endpoint(base_url=config.model_url, key_file=config.key_file, timeout_s=config.timeout_s)
        limits = Limits(concurrency=config.clips_in_flight * config.engines)
        budget = start_budget(f"budget-{uuid.uuid4().hex[:8]}", limits)
        retry = RetryPolicy(attempts=config.attempts)
        return cls(endpoint=endpoint.resolved(), price=None, retry=retry, out=config.out, budget=budget)

    @contextlib.asynccontextmanager
    async def asking(self) -> AsyncIterator[Asker]:
        """An asker on the running loop. When the block ends, the budget hears what its last calls have cost: who leaves
        without a word holds up everybody else, since its calls count as in flight for a minute.
        """
        from .openai_client import OpenAiClient  # brings openai, which takes whoever only plans a second and a half

        budget = Budget.of_actor(self.budget)
        client = OpenAiClient(self.endpoint, price=self.price, on_headers=budget.observe)
        asker = Asker(client, budget, AnswerStore(self.out), self.retry, price=self.price)
        try:
            yield asker
        finally:
            await asker.close()
            await budget.close()
            await client.close()

    def stop(self, reason: str) -> None:
        """Nothing more is asked, by anybody."""
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(self.budget.stop.remote(reason), timeout=5)

    def close(self) -> None:
        """The budget goes."""
        with contextlib.suppress(Exception):
            ray.kill(self.budget)

"""What every engine can do: answer the prompts that are asked of a clip, any number of clips at once.

An item that fails is a value, a `CallError` among the answers; an engine that is dead raises `EngineDead`, which ends
its actor, so that a fresh one takes over what was not answered. Asynchronous, since the engines that matter batch by
themselves: while some clips generate, others join (`stream`), and a GPU never waits for the slowest of a batch.
"""

from __future__ import annotations

import abc
import asyncio
import dataclasses
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from pathlib import Path

import orjson

from lgsrr.errors import LgsrrError
from pipelines.calls import Answer, CallError, Json, Request
from pipelines.decoding import Decoded

from .config import EngineConfig, revision_of

Said = Answer | CallError
"""What became of one prompt."""


class EngineDead(LgsrrError):  # noqa: N818
    """The engine will answer nothing more: names it and why. Its actor should end."""

    may_be_the_machine = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ask:
    """A clip, and what is asked of it."""

    id: str
    """Of the utterance."""
    clip: str
    """The clip's identity, as `Clip.identity`: equal content, equal name."""
    decoded: Decoded
    prompts: tuple[str, ...]
    """Instructions, each answered by itself; what is seen of the clip is computed once."""
    parameters: Mapping[str, Json] = dataclasses.field(default_factory=dict)
    """Sampling parameters that differ from the engine's, by OpenAI's names: temperature, max_tokens, seed, …"""


class Engine(abc.ABC):
    """One model that describes clips."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.model = Path(config.model).name if Path(config.model).is_dir() else config.model
        """As it stands in receipts; a folder's name without the way to it."""
        self.revision = revision_of(config)

    def request(self, clip: str, prompt: str, parameters: Mapping[str, Json] | None = None) -> Request:
        """The request that stands for one prompt on one clip; its fingerprint is known before the clip is decoded."""
        sampling = {"temperature": self.config.temperature, "max_tokens": self.config.max_new_tokens}
        reference = {
            "clip": clip,
            "frames": self.config.frames,
            "max_side": self.config.max_side,
            "prompt": prompt,
            "revision": self.revision,
        }
        return Request(
            model=self.model,
            messages=({"role": "user", "content": prompt},),
            parameters={**sampling, **(parameters or {})},
            reference=_spaced(reference),
        )

    async def start(self) -> None:  # noqa: B027  (many have nothing to do)
        """Load the model and hear its canary. Raises CanaryError, ModelError or EngineDead."""

    @abc.abstractmethod
    async def answer(self, ask: Ask) -> tuple[Said, ...]:
        """What is said to each of the ask's prompts, in order. Raises EngineDead, and Stopped where the job ends."""

    async def describe(self, batch: Sequence[Ask]) -> list[tuple[Said, ...]]:
        """A whole batch, in order, all of it at once."""
        tasks = [asyncio.ensure_future(self.answer(ask)) for ask in batch]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            await _end(tasks)

    def packages(self) -> dict[str, str]:
        """Versions that the answers depend on, package → version."""
        return {}

    async def close(self) -> None:  # noqa: B027
        """Give memory and processes back."""


def _spaced(values: Mapping[str, Json]) -> str:
    """What json.dumps makes of texts, numbers and None, in a quarter of its time: one is made for each row."""
    return "{" + ", ".join(f'"{name}": {orjson.dumps(value).decode()}' for name, value in values.items()) + "}"


async def stream(
    engine: Engine, asks: AsyncIterable[Ask], *, at_once: int
) -> AsyncIterator[tuple[Ask, tuple[Said, ...]]]:
    """Each ask with what was said to it, as they get done; up to `at_once` clips are in work, and in memory."""
    working: dict[asyncio.Future[tuple[Said, ...]], Ask] = {}
    try:
        async for ask in asks:
            working[asyncio.ensure_future(engine.answer(ask))] = ask
            while len(working) >= at_once:
                for done in await _some(working):
                    yield working.pop(done), done.result()
        while working:
            for done in await _some(working):
                yield working.pop(done), done.result()
    finally:
        await _end(list(working))


async def _some(
    working: Mapping[asyncio.Future[tuple[Said, ...]], Ask],
) -> set[asyncio.Future[tuple[Said, ...]]]:
    done, _ = await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
    return done


async def _end(tasks: Sequence[asyncio.Future[tuple[Said, ...]]]) -> None:
    """No task outlives the call that made it."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

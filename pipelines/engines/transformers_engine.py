"""VideoLLaMA2 by transformers in this process: for a machine on which vLLM cannot be installed, and for a quick start.

Prompts that wait go through the model together, `batch` at once (`pipelines.videollama2.together`); while they do, the
next clips are made ready. A batch ends when its longest answer does, where vLLM would let the next prompt join; in
return this engine is up as soon as the weights are read. Torch is imported when the engine starts, and not before.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lgsrr.errors import ClipError, PromptError
from pipelines.calls import Answer, Json, Refused, Usage

from .config import EngineConfig
from .interface import Ask, Engine, EngineDead, Said

if TYPE_CHECKING:
    from pipelines.videollama2.together import Question, Sampling, Speaker, Words

    Waiting = tuple[Question, asyncio.Future[Words]]

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "av", "numpy")


class TransformersEngine(Engine):
    """The model, and the prompts that wait for it. It belongs to the event loop in which it was started."""

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(config)
        self._speaker: Speaker | None = None
        self._waiting: asyncio.Queue[Waiting] = asyncio.Queue()
        self._worker: asyncio.Task[None] | None = None
        self._packages: dict[str, str] = {}
        self._dead: str | None = None

    async def start(self) -> None:
        self._speaker = await asyncio.to_thread(self._load)
        self._worker = asyncio.create_task(self._work(self._speaker), name="transformers engine")

    def _load(self) -> Speaker:
        from pipelines.videollama2.canary import versions
        from pipelines.videollama2.together import Speaker

        c = self.config
        speaker = Speaker.load(c.model, revision=c.revision, dtype=c.dtype, threads=c.threads)
        speaker.hear_canary(c.canary)
        self.revision = self.revision or speaker.revision
        self._packages = {name: version for name, version in versions().items() if name in PACKAGES}
        return speaker

    async def answer(self, ask: Ask) -> tuple[Said, ...]:
        if self._speaker is None or self._dead:
            raise EngineDead(f"{self.model}: {self._dead or 'the engine was not started, or is closed'}")
        questions = await asyncio.to_thread(self._questions, self._speaker, ask)
        asked = [self._said(ask, prompt, question) for prompt, question in zip(ask.prompts, questions, strict=True)]
        return tuple(await asyncio.gather(*asked))

    def packages(self) -> dict[str, str]:
        return dict(self._packages)

    async def close(self) -> None:
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        self._worker = self._speaker = None

    def _questions(self, speaker: Speaker, ask: Ask) -> list[Question | Refused]:
        """The ask's prompts on one clip that they share; Refused where the model does not take them."""
        try:
            clip = speaker.clip(ask.decoded.frames)
        except ClipError as error:
            return [Refused(f"the model does not take the clip: {error}", kind="bad_request")] * len(ask.prompts)
        questions: list[Question | Refused] = []
        for prompt in ask.prompts:
            sampling = _sampling(self.request(ask.clip, prompt, ask.parameters).parameters)
            try:
                question = speaker.question(prompt, clip, sampling)
                self._check_length(len(question.ids))
                questions.append(question)
            except PromptError as error:
                questions.append(Refused(f"the model does not take the prompt: {error}", kind="bad_request"))
        return questions

    def _check_length(self, tokens: int) -> None:
        longest = self.config.max_model_len
        if longest is not None and tokens >= longest:
            raise PromptError(f"it is {tokens} tokens long with its clip, and max_model_len is {longest}")

    async def _said(self, ask: Ask, prompt: str, question: Question | Refused) -> Said:
        if isinstance(question, Refused):
            return question
        if self._worker is None or self._worker.done():
            raise EngineDead(f"{self.model}: {self._dead or 'the engine was closed'}")
        started = time.monotonic()
        words: asyncio.Future[Words] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((question, words))
        try:
            said = await words
        except Refused as error:
            return error
        return Answer(
            fingerprint=self.request(ask.clip, prompt, ask.parameters).fingerprint,
            text=said.text,
            model=self.model,
            revision=self.revision,
            finish_reason="stop" if said.ended else "length",
            usage=Usage(input_tokens=len(question.ids), output_tokens=said.tokens),
            took_s=time.monotonic() - started,
            created_at=time.time(),
            packages=self._packages,
            frames=ask.decoded.indices,
        )

    # The one that asks the model

    async def _work(self, speaker: Speaker) -> None:
        """Batch after batch of what waits, until the engine is closed or its GPU is gone."""
        batch: list[Waiting] = []
        try:
            while self._dead is None:
                batch = [await self._waiting.get()]
                while len(batch) < self.config.batch and not self._waiting.empty():
                    batch.append(self._waiting.get_nowait())
                await self._batch(speaker, [one for one in batch if not one[1].done()])
        finally:
            while not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            for _, words in batch:
                if not words.done():
                    words.set_exception(EngineDead(f"{self.model}: {self._dead or 'the engine was closed'}"))

    async def _batch(self, speaker: Speaker, batch: Sequence[Waiting]) -> None:
        try:
            found = await asyncio.to_thread(speaker.say, [question for question, _ in batch])
        except Exception as error:  # of one prompt alone it would be among the answers
            self._dead = f"the GPU does nothing more: {error}"
            return
        for (_, words), said in zip(batch, found, strict=True):
            if words.done():  # nobody waits for it any more
                continue
            if isinstance(said, Exception):
                words.set_exception(Refused(f"the model could not answer: {said}", kind="engine"))
            else:
                words.set_result(said)


def _sampling(parameters: Mapping[str, Json]) -> Sampling:
    """From OpenAI's names; what transformers has no word for is left out."""
    from pipelines.videollama2.together import Sampling

    longest = int(parameters.get("max_completion_tokens") or parameters["max_tokens"])
    temperature = float(parameters.get("temperature") or 0)
    if temperature == 0:
        return Sampling(max_tokens=longest)
    top_p, seed = float(parameters.get("top_p") or 1), parameters.get("seed")
    return Sampling(max_tokens=longest, temperature=temperature, top_p=top_p, seed=seed)

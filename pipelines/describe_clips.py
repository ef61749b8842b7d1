"""Clips described outside an extraction, for `lgsrr.predict --video`: the same prompts, the same reading of answers.

The entry point `videollama2` of the group `lgsrr.describers`. The model runs in this process, by transformers, whatever
engine described the training data: it says the same words, and starts in seconds.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Sequence
from typing import cast

from lgsrr.describing import ClipSaid
from lgsrr.errors import ClipError
from lgsrr.records import DescribedBy

from .answers import AnswerStore
from .clips import Clip
from .decoding import Decoded, Decoder
from .describe import Asking, Describer, DescribeWork, Naming
from .engines import Engine, EngineConfig, make_engine
from .outcomes import Outcome
from .settings import Prompting
from .shipped import model_folder

FEW = 5
"""Clips that a message names."""


def describe_clips(asked: Sequence[ClipSaid], how: DescribedBy) -> list[tuple[str, ...]]:
    """A text for each clip under each aspect. See `lgsrr.describing.Describes`."""
    config = EngineConfig(
        engine="transformers",
        model=model_folder(how.model),
        frames=how.frames,
        max_side=how.max_side,
        max_new_tokens=how.max_new_tokens,
        canary="off" if os.environ.get("VIDEOLLAMA2_CANARY") == "off" else "on",
    )
    asking = Asking(aspects=how.aspects, prompting=cast(Prompting, how.prompting), engine=config)
    with Decoder(how.frames, max_side=how.max_side) as decoder:  # a clip that cannot be read is known before the model
        clips = _decoded(asked, decoder)
    _quiet()
    with tempfile.TemporaryDirectory() as answers:
        outcomes = asyncio.run(_described(asked, clips, asking, AnswerStore(answers)))
    bad = [f"{said.video}: {o.detail}" for said, o in zip(asked, outcomes, strict=True) if o.status != "done"]
    _refuse(bad)
    return [tuple(outcome.texts) for outcome in outcomes]


def _quiet() -> None:
    """Transformers shows a bar for each file that it reads, and warns of its own plans: not beside an answer."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _decoded(asked: Sequence[ClipSaid], decoder: Decoder) -> list[Decoded]:
    found, bad = [], []
    for said in asked:
        try:
            found.append(decoder.decode(said.video))
        except ClipError as error:
            bad.append(str(error))
    _refuse(bad)
    return found


def _refuse(bad: Sequence[str]) -> None:
    if bad:
        more = f"\n  and {len(bad) - FEW} more" if len(bad) > FEW else ""
        count = "a clip" if len(bad) == 1 else f"{len(bad)} clips"
        raise ClipError(f"{count} cannot be described:\n  " + "\n  ".join(bad[:FEW]) + more)


async def _described(
    asked: Sequence[ClipSaid], clips: Sequence[Decoded], asking: Asking, answers: AnswerStore
) -> list[Outcome]:
    naming, engine = Naming(asking.engine), make_engine(asking.engine)
    await engine.start()
    try:
        works = [_work(place, said, asking, naming) for place, said in enumerate(asked)]
        return await _all(works, clips, Describer(engine, asking, answers), engine)
    finally:
        await engine.close()


async def _all(
    works: Sequence[DescribeWork], clips: Sequence[Decoded], describer: Describer, engine: Engine
) -> list[Outcome]:
    """Twice a batch at once: while the model works, the next clips are made ready."""
    room = asyncio.Semaphore(2 * engine.config.batch)

    async def one(work: DescribeWork, clip: Decoded) -> Outcome:
        async with room:
            return await describer.describe(work, clip)

    return await asyncio.gather(*(one(work, clip) for work, clip in zip(works, clips, strict=True)))


def _work(place: int, said: ClipSaid, asking: Asking, naming: Naming) -> DescribeWork:
    clip = Clip(id=str(place), uri=said.video, size=place)  # told apart, not recognised: no answer is kept
    return asking.work(name=clip.id, text=said.text, uri=clip.uri, clip=clip.identity, naming=naming)

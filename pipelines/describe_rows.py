"""Description in actors: one kind decodes clips, the other holds an engine.

Frames travel between them through Ray's object store, a few clips in a block, and are gone when the clip is described.
A clip whose answers are kept is not decoded again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from lgsrr import storage
from lgsrr.errors import ClipError, DataError, LgsrrError

from .answers import AnswerStore
from .background import BackgroundLoop
from .calls import Stopped
from .decoding import Decoded, Decoder
from .describe import Asking, Describer, DescribeWork, NeedsClip, decoded_from_columns, decoded_to_columns, set_aside
from .describe_prompts import PROMPT_VERSION
from .engines import EngineDead, make_engine
from .flow import outcomes_table
from .job_board import GIVE_UP_AFTER, JobBoard
from .llm_setup import LlmSetup
from .outcomes import Outcome, Receipt

FRAMES = pa.schema(
    [
        pa.field("work", pa.string(), nullable=False),
        pa.field("pixels", pa.large_binary()),
        pa.field("clip", pa.string()),
        pa.field("problem", pa.string()),
    ]
)
"""Between the two: the work, the frames and what is known of them, or why there are none."""


class DecodeRows:
    """Takes batches of (id, work), yields frames; Ray Data holds it in CPU actors."""

    def __init__(self, out: str, frames: int, max_side: int | None, board: JobBoard) -> None:
        self._decoder = Decoder(frames, max_side=max_side)
        self._answers, self._board = AnswerStore(out), board
        board.check_output()

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = [self._one(DescribeWork.from_text(text)) for text in batch.column("work").to_pylist()]
        return pa.Table.from_pylist(rows, schema=FRAMES)

    def _one(self, work: DescribeWork) -> dict[str, Any]:
        row: dict[str, Any] = {"work": work.to_text()}
        if self._board.stop_reason() is not None or all(self._answers.get(call) for call in work.calls):
            return row
        try:
            row["pixels"], row["clip"] = decoded_to_columns(_decoded(self._decoder, work.uri))
        except ClipError as error:
            row["problem"] = str(error)
        except LgsrrError as error:  # no clip can be decoded here
            self._board.stop(str(error))
        return row


def _decoded(decoder: Decoder, uri: str) -> Decoded:
    """A clip's frames. Raises ClipError for the clip's own faults, DataError where this node lacks its whole folder,
    which the driver has listed: that is no fault of the clip, and no clip of the folder would fare better.
    """
    try:
        return decoder.decode(uri)
    except ClipError as error:
        folder = os.path.dirname(uri)
        if storage.is_uri(uri) or os.path.isdir(folder):
            raise
        raise DataError(
            f"{folder}: the node {socket.gethostname()} does not see that folder of clips, which the driver does. Put "
            "the clips where all nodes see them, an s3:// prefix or a mounted folder, and name it with --videos"
        ) from error


class DescribeRows:
    """Takes frames, yields outcomes; Ray Data holds it in actors with an engine's GPUs."""

    def __init__(self, out: str, asking: Asking, board: JobBoard, setup: LlmSetup | None) -> None:
        self._loop, self._leaving, self._board = BackgroundLoop(), contextlib.AsyncExitStack(), board
        self._alone = asyncio.Lock()
        self._engine_died = False
        self._asking = asking
        self._decoder: Decoder | None = None
        self._describer: Describer | None = None
        board.check_output()
        try:
            self._describer = self._loop.run(self._start(out, setup))
        except (LgsrrError, ImportError) as error:  # the next actor would fare no better
            board.stop(f"the engine {asking.engine.engine!r} cannot be started: {error}")

    async def _start(self, out: str, setup: LlmSetup | None) -> Describer:
        asker = None if setup is None else await self._leaving.enter_async_context(setup.asking())
        engine = make_engine(self._asking.engine, asker=asker)
        await engine.start()
        return Describer(engine, self._asking, AnswerStore(out))

    def __del__(self) -> None:
        """Ray Data lets go of an actor that has nothing left to do while others work on."""
        self._loop.leave(self._leaving.aclose())

    def __call__(self, batch: pa.Table) -> pa.Table:
        try:
            with self._board.working():
                return outcomes_table(self._loop.run(self._all(batch)))
        except EngineDead as dead:  # Ray starts another actor, and gives it what this one had
            print(f"engine: {dead}", file=sys.stderr, flush=True)
            os._exit(1)

    async def _all(self, batch: pa.Table) -> list[Outcome]:
        works = [DescribeWork.from_text(text) for text in batch.column("work").to_pylist()]
        columns = [batch.column(name).to_pylist() for name in ("clip", "problem")]
        pixels: Sequence[Any] = [value.as_buffer() for value in batch.column("pixels")]
        rows = zip(works, pixels, *columns, strict=True)
        return list(await asyncio.gather(*(self._one(*row) for row in rows)))

    async def _one(self, work: DescribeWork, pixels: Any, clip: str | None, problem: str | None) -> Outcome:
        stopped = Outcome(id=work.id, stage="describe", status="stopped")
        if problem is not None:
            return self._given_up(work, "decoder" if "the decoder" in problem else "clip", problem)
        if self._describer is None or await asyncio.to_thread(self._board.stop_reason) is not None:
            return stopped
        decoded = None if clip is None else decoded_from_columns(pixels, clip)
        try:
            return await self._counted(self._describer, work, decoded)
        except ClipError as error:
            return self._given_up(work, "clip", str(error))
        except EngineDead:
            raise
        except (Stopped, LgsrrError) as error:  # the job ends, or an answer could not be kept, or no clip decoded
            reason = str(error)
        await asyncio.to_thread(self._board.stop, reason)
        return stopped

    async def _counted(self, describer: Describer, work: DescribeWork, decoded: Decoded | None) -> Outcome:
        """Describe it; what was begun before and not finished, when an engine died, is done alone."""
        begun = await asyncio.to_thread(self._board.begun, work.id)
        if begun >= GIVE_UP_AFTER:
            return self._given_up(work, "engine", f"the engine died {begun} times while this clip was described")
        if begun:
            async with self._alone:
                return await self._described(describer, work, decoded)
        return await self._described(describer, work, decoded)

    async def _described(self, describer: Describer, work: DescribeWork, decoded: Decoded | None) -> Outcome:
        if self._engine_died:  # while this clip waited for its turn: no death is to count against it
            raise EngineDead("the engine died before this clip was begun")
        await asyncio.to_thread(self._board.begin, work.id)
        try:
            outcome = await describer.describe(work, decoded)
        except NeedsClip:  # its first answer was kept, and cannot be read: it takes the clip to ask once more
            outcome = await describer.describe(work, await asyncio.to_thread(self._decode, work.uri))
        except EngineDead:
            self._engine_died = True
            raise
        await asyncio.to_thread(self._board.finish, work.id)
        return outcome

    def _decode(self, uri: str) -> Decoded:
        if self._decoder is None:
            self._decoder = Decoder(self._asking.engine.frames, max_side=self._asking.engine.max_side)
        return _decoded(self._decoder, uri)

    def _given_up(self, work: DescribeWork, kind: str, detail: str) -> Outcome:
        model = self._asking.engine.model
        receipt = Receipt(fingerprint=work.fingerprint, model=model, prompt_version=PROMPT_VERSION)
        return set_aside(work.id, receipt, kind, detail)

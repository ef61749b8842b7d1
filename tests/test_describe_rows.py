"""An engine that dies takes along nobody but the clip on which it died: the actor's part, without Ray."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pyarrow as pa
import pytest

from lgsrr.records import Aspect
from pipelines.clips import Clip
from pipelines.describe import Asking, Naming
from pipelines.describe_rows import DecodeRows, DescribeRows
from pipelines.engines import EngineConfig, EngineDead, Scripted
from tests.board import Board
from tests.clips import moving_square, write_clip

FRAMES = 4


def test_clips_that_wait_while_the_engine_dies_are_not_begun(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", moving_square(8))
    engine = EngineConfig(engine="scripted", frames=FRAMES, scripted=Scripted(faults={"deadly": "die"}))
    asking = Asking(aspects=(Aspect(name="Facial Expressions"),), prompting="joint", engine=engine)
    board, names = Board(), ("deadly", "next", "last")
    works = []
    for size, name in enumerate(names):
        board.begin(name)  # when an engine died before: each of them is described alone now
        named = Clip(id=name, uri=str(clip), size=size)
        works.append(asking.work(name=name, text="no", uri=named.uri, clip=named.identity, naming=Naming(engine)))
    batch = pa.table({"id": list(names), "work": [work.to_text() for work in works]})
    frames = DecodeRows(str(tmp_path / "out"), FRAMES, None, board)(batch)
    rows = DescribeRows(str(tmp_path / "out"), asking, board, None)
    with pytest.raises(EngineDead):
        rows._loop.run(rows._all(frames))
    rows._loop.run(asyncio.sleep(0.5))  # for as long as an actor may take to end
    assert {name: board.begun(name) for name in names} == {"deadly": 2, "next": 1, "last": 1}

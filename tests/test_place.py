"""Whether a node sees the driver's folder: a mark that is the driver's own, there while the driver runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lgsrr.errors import DataError
from lgsrr.place import MARK, marked
from pipelines.describe import DescribeWork
from pipelines.describe_rows import FRAMES, DecodeRows
from tests.board import Board


def never(seconds: float) -> None:
    raise AssertionError("what is seen is not waited for")


def test_whoever_sees_the_mark_has_no_problem_and_it_goes_with_the_driver(tmp_path: Path) -> None:
    with marked(str(tmp_path / "out"), "--out") as place:
        assert place is not None
        assert place.problem(sleep=never) is None
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_of_the_same_name_with_nothing_or_anothers_mark_is_not_the_drivers(tmp_path: Path) -> None:
    with marked(str(tmp_path), "--out") as place:
        assert place is not None
        (tmp_path / MARK).write_text("another driver's, which died here")
        waited: list[float] = []
        assert "does not see" in (place.problem(sleep=waited.append) or "")
        assert sum(waited) == pytest.approx(3.0)
        (tmp_path / MARK).unlink()
        problem = dataclasses.replace(place, flag="--storage").problem(sleep=lambda _: None) or ""
    assert f"--storage {tmp_path}: the node" in problem
    assert "s3://" in problem


def test_a_mark_that_shows_late_is_waited_for(tmp_path: Path) -> None:
    with marked(str(tmp_path), "--out") as place:
        assert place is not None
        hidden = (tmp_path / MARK).rename(tmp_path / "hidden")

        def appear(seconds: float) -> None:
            if hidden.exists():
                hidden.rename(tmp_path / MARK)

        assert place.problem(sleep=appear) is None


def test_a_uri_is_the_same_everywhere_and_gets_no_mark() -> None:
    with marked("s3://bucket/prefix", "--out") as place:
        assert place is None


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file/out"), marked(str(tmp_path / "file" / "out"), "--out"):
        pass


def decoded(tmp_path: Path, uri: Path) -> tuple[dict[str, Any], str | None]:
    """What DecodeRows makes of a clip, and for what it ends the job."""
    board = Board()
    work = DescribeWork(id="u0", text="hello", uri=str(uri), clip="c", fingerprint="f" * 32, calls=("0" * 32,))
    rows = DecodeRows(str(tmp_path / "out"), 4, None, board)(pa.table({"work": [work.to_text()]}))
    assert rows.schema == FRAMES
    return rows.to_pylist()[0], board.stop_reason()


def test_a_clip_whose_folder_a_node_lacks_ends_the_job_and_is_no_bad_clip(tmp_path: Path) -> None:
    row, reason = decoded(tmp_path, tmp_path / "elsewhere" / "a.mp4")
    assert row["problem"] is None, "it would be set aside, where the word of the job's end came late"
    assert reason is not None
    assert f"{tmp_path}/elsewhere: the node" in reason
    assert "--videos" in reason


def test_a_clip_that_is_missing_from_a_folder_that_is_there_is_set_aside_alone(tmp_path: Path) -> None:
    row, reason = decoded(tmp_path, tmp_path / "a.mp4")
    assert "a.mp4" in row["problem"]
    assert reason is None

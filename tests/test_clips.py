"""Where clips lie: by name or by the table, on a disk or in a store, and never outside the folder that was named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from lgsrr.errors import DataError
from lgsrr.records import Utterance
from pipelines.clips import Clip, ClipFinder, NoClip


def said(id: str, video: str | None = None) -> Utterance:
    return Utterance(id=id, text="Hello.", split="train", label=None, video=video)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    for name in ("dia0_utt1.mp4", "s1/Ses01F_F000.AVI", 'a b/she said "it\'s" é.mkv', "dia3_utt3.txt", "secret.mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * (10 + len(name)))
    (tmp_path / "outside.mp4").write_bytes(b"x")
    return folder


def found(finder: ClipFinder, *utterances: Utterance) -> Any:
    (clip,) = finder.find_all(utterances).values()
    return clip


def test_a_clip_is_the_file_called_as_the_utterance_at_any_depth(videos: Path) -> None:
    finder = ClipFinder(videos=str(videos))
    assert found(finder, said("dia0_utt1")) == Clip(id="dia0_utt1", uri=str(videos / "dia0_utt1.mp4"), size=23)
    assert found(finder, said("Ses01F_F000")).uri == str(videos / "s1" / "Ses01F_F000.AVI")
    assert found(finder, said('she said "it\'s" é')).uri.endswith("é.mkv")


def test_a_clip_is_known_by_name_and_size_wherever_its_folder_is(videos: Path, tmp_path: Path) -> None:
    before = found(ClipFinder(videos=str(videos)), said("dia0_utt1")).identity
    moved = videos.rename(tmp_path / "moved")
    assert found(ClipFinder(videos=str(moved)), said("dia0_utt1")).identity == before == "dia0_utt1.mp4:23"
    (moved / "dia0_utt1.mp4").write_bytes(b"longer than it was before")
    assert found(ClipFinder(videos=str(moved)), said("dia0_utt1")).identity != before


def test_the_table_names_a_clip_below_the_videos_or_beside_itself_or_anywhere(videos: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("id,text")
    finder = ClipFinder(videos=str(videos), beside=str(table))
    for video, path in {
        "s1/Ses01F_F000.AVI": videos / "s1" / "Ses01F_F000.AVI",
        "./s1/../dia0_utt1.mp4": videos / "dia0_utt1.mp4",
        "outside.mp4": tmp_path / "outside.mp4",
        str(tmp_path / "outside.mp4"): tmp_path / "outside.mp4",
    }.items():
        assert Path(found(finder, said("u", video)).uri) == path


def test_a_missing_clip_is_a_row_with_a_reason(videos: Path) -> None:
    finder = ClipFinder(videos=str(videos))
    for utterance, reason in {
        said("dia9_utt9"): "holds no clip called 'dia9_utt9'",
        said("dia3_utt3"): "holds no clip called",
        said("u", "no.mp4"): "'no.mp4' is not in ",
        said("u", "/no/such.mp4"): "/no/such.mp4: no such file",
        said("u", "s1"): "'s1' is not in ",
        said("../outside"): "holds no clip called",
    }.items():
        clip = found(finder, utterance)
        assert isinstance(clip, NoClip)
        assert reason in clip.reason
    assert "--videos" in found(ClipFinder(), said("u")).reason


@pytest.mark.parametrize("name", ["../outside.mp4", "../../etc/passwd", "s1/../../outside.mp4", ".."])
def test_a_name_from_the_table_never_leaves_the_folder(videos: Path, name: str) -> None:
    for finder in (ClipFinder(videos=str(videos)), ClipFinder(beside=str(videos))):
        assert "leads out of the folder" in found(finder, said("u", name)).reason


def test_two_clips_of_one_name_are_not_guessed_between(videos: Path) -> None:
    (videos / "s1" / "dia0_utt1.mkv").write_bytes(b"another")
    assert "2 clips of that name" in found(ClipFinder(videos=str(videos)), said("dia0_utt1")).reason


def test_a_folder_that_is_not_there_stops_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        ClipFinder(videos=str(tmp_path / "no"))


@pytest.fixture
def store() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    files.pipe_file("/clips/a/dia0_utt1.mp4", b"12345")
    files.pipe_file("/clips/b c/it's.mp4", b"123")
    yield files
    files.rm("/clips", recursive=True)


def test_a_store_is_listed_once_for_all_clips(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    listings: list[Any] = []
    find = type(store).find

    def watched(*arguments: Any, **options: Any) -> Any:
        listings.append(arguments)
        return find(*arguments, **options)

    monkeypatch.setattr(type(store), "find", watched)
    finder = ClipFinder(videos="memory://clips/")
    clips = finder.find_all([said("dia0_utt1"), said("u", "b c/it's.mp4"), said("v", "memory://clips/b c/it's.mp4")])
    assert [(c.uri, c.size) for c in clips.values() if isinstance(c, Clip)] == [
        ("memory://clips/a/dia0_utt1.mp4", 5),
        ("memory://clips/b c/it's.mp4", 3),
        ("memory://clips/b c/it's.mp4", 3),
    ]
    assert isinstance(found(finder, said("w", "memory://clips/b c/no.mp4")), NoClip)
    assert len(listings) == 2  # the folder, and the one that a URI names

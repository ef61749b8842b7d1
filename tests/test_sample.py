"""The sample of drawn clips: what is in the picture decides, and the words alone do not."""

from __future__ import annotations

import csv
import errno
import json
from collections import Counter, defaultdict
from pathlib import Path
from random import Random
from typing import Any

import av
import numpy as np
import pytest

from lgsrr.catalog import load_dataset
from lgsrr.errors import ClipError, ConfigError, DataError
from lgsrr.records import SPLITS
from pipelines import sample
from pipelines.drawn_clips import wordings
from pipelines.drawn_clips.clip import encode, render, write_clip
from pipelines.drawn_clips.intents import LABELS, PAIRS
from pipelines.drawn_clips.scene import ACTIONS, EXPRESSIONS, INTERACTIONS, PLACES, any_scene, draw_scene, fits
from pipelines.sample import SampleConfig, draw_sample, write_sample
from pipelines.videollama2.frames import read_frames

KINDS = {"A": "action", "E": "expression", "I": "interaction"}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample of 36."""
    out = tmp_path_factory.mktemp("samples") / "small"
    write_sample(SampleConfig(out=out, utterances=36, seed=7))
    return out


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# ---- what is meant -------------------------------------------------------------------------------------------------


def test_the_best_classifier_on_texts_alone_is_right_every_second_time() -> None:
    for split in SPLITS:
        labels: dict[str, Counter[str]] = defaultdict(Counter)
        drawn = [one for one in draw_sample(240, 0) if one.split == split]
        for one in drawn:
            labels[one.text][one.intent.name] += 1
        best = sum(max(counts.values()) for counts in labels.values())
        assert best == sample.TEXT_ALONE * len(drawn)


@pytest.mark.parametrize(("aspects", "settled"), [("", 0), ("A", 2), ("AE", 4), ("AEI", 6)])
def test_each_further_aspect_settles_two_pairs_more(aspects: str, settled: int) -> None:
    """Whatever else is known of the scene, what decides a pair is what tells its intents apart, in every utterance."""
    decided = set()
    for place, pair in enumerate(PAIRS):
        for one in [one for one in draw_sample(480, 3) if one.intent in pair.intents]:
            fitting = {
                intent.name
                for intent in pair.intents
                if all(
                    getattr(one.scene, KINDS[short]) == getattr(intent, KINDS[short])
                    for short in aspects
                    if short == intent.decides
                )
            }
            assert one.intent.name in fitting
            if fitting == {one.intent.name}:
                decided.add(place)
    assert len(decided) == settled


def test_every_intent_is_in_every_split_and_splits_keep_their_shares() -> None:
    drawn = draw_sample(240, 1)
    assert len(drawn) == 240
    for split in SPLITS:
        here = [one for one in drawn if one.split == split]
        assert {one.intent.name for one in here} == set(LABELS)
        assert abs(len(here) / 240 - sample.SHARES[split]) < 0.02


def test_another_seed_is_another_sample() -> None:
    assert draw_sample(60, 0) == draw_sample(60, 0)
    assert {one.scene for one in draw_sample(60, 0)}.isdisjoint(one.scene for one in draw_sample(60, 1))


# ---- what is said of it --------------------------------------------------------------------------------------------


def test_every_wording_names_its_kind_and_no_other() -> None:
    random = Random(0)
    seen: set[tuple[str, str]] = set()
    for _ in range(400):
        scene = any_scene(random)
        for wording in range(wordings.WORDINGS):
            for aspect, text in wordings.described(scene, wording).items():
                assert wordings.named(aspect, text) == wordings.truth(scene)[aspect]
                seen.add((aspect, wordings.truth(scene)[aspect]))
    assert len(seen) == len(ACTIONS) + len(EXPRESSIONS) + len(INTERACTIONS) + len(PLACES)


def test_a_text_that_names_two_kinds_or_none_names_nothing() -> None:
    assert wordings.named(wordings.FACES, "The person smiles, then frowns.") is None
    assert wordings.named(wordings.FACES, "The person has a face.") is None


def test_no_two_splits_share_a_wording(small: Path) -> None:
    """Without the colour of the shirt, which is no wording."""
    said: dict[str, set[str]] = defaultdict(set)
    for row in rows_of(small / sample.TRUTH):
        for aspect in wordings.ASPECTS:
            said[row["split"]].add(" ".join(word for word in row[aspect].split() if word not in wordings_of_shirts()))
    assert said["train"].isdisjoint(said["dev"] | said["test"])
    assert said["dev"].isdisjoint(said["test"])


def wordings_of_shirts() -> set[str]:
    from pipelines.drawn_clips.scene import SHIRTS

    return set(SHIRTS)


# ---- what is seen --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ACTIONS)
def test_everything_but_sitting_moves_visibly(action: Any) -> None:
    interaction = next(kind for kind in INTERACTIONS if fits(action, kind))
    frames_THWC = render(draw_scene(Random(action), action, "neutral", interaction)).astype(int)
    moved = np.abs(frames_THWC - frames_THWC[0]).max(axis=(1, 2, 3)).max()
    assert (moved == 0) if action == "sits still" else (moved > 100)


def test_a_clip_is_two_to_three_seconds_of_h264(small: Path) -> None:
    for row in rows_of(small / sample.UTTERANCES):
        with av.open(str(small / row["video"])) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264"
            assert (stream.width, stream.height) == (112, 112)
            assert stream.duration is not None
            assert stream.time_base is not None
            assert 2.0 <= float(stream.duration * stream.time_base) <= 3.0


def test_the_file_shows_what_was_drawn(small: Path) -> None:
    first = draw_sample(36, 7)[0]
    frames_THWC = read_frames(small / first.video, 8)
    drawn = render(first.scene)[[0]]
    assert np.abs(frames_THWC[:1].astype(int) - drawn.astype(int)).mean() < 12


# ---- as a folder ---------------------------------------------------------------------------------------------------


def test_both_tables_are_read_as_ones_own(small: Path) -> None:
    plain = load_dataset("drawn", str(small / sample.UTTERANCES), require=())
    assert [u.id for u in plain.utterances] == [one.id for one in draw_sample(36, 7)]
    told = load_dataset("drawn", str(small / sample.TRUTH), require=())
    assert tuple(aspect.name for aspect in told.aspects) == wordings.ASPECTS
    assert json.loads((small / sample.SAMPLE).read_text())["text_alone_accuracy"] == 0.5


def test_a_finished_sample_is_left_as_it_is(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "write_clip", lambda scene, path: pytest.fail("drew again"))
    assert write_sample(SampleConfig(out=small, utterances=36, seed=7)).utterances == 36


def test_a_full_disk_is_said_and_the_same_command_draws_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SampleConfig(out=tmp_path / "s", utterances=36, seed=7)
    written: list[Path] = []

    def until_full(scene: Any, path: Path) -> None:
        if len(written) >= 10:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        written.append(path)
        write_clip(scene, path)

    monkeypatch.setattr(sample, "write_clip", until_full)
    with pytest.raises(DataError, match=r"No space left.*same command goes on"):
        write_sample(config)
    assert not (config.out / sample.SAMPLE).exists()
    there = len(list((config.out / sample.CLIPS).glob("*.mp4")))
    rest: list[Path] = []

    def draw(scene: Any, path: Path) -> None:
        rest.append(path)
        write_clip(scene, path)

    monkeypatch.setattr(sample, "write_clip", draw)
    write_sample(config)
    assert len(rest) == 36 - there
    assert (config.out / sample.SAMPLE).exists()


@pytest.mark.parametrize("utterances", [0, 34, 37, -2])
def test_too_few_or_an_odd_number_is_refused(tmp_path: Path, utterances: int) -> None:
    with pytest.raises(ConfigError, match=f"utterances is {utterances}; expected an even number of 36 or more"):
        SampleConfig(out=tmp_path, utterances=utterances)


def test_a_folder_with_other_content_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("all my work")
    with pytest.raises(DataError, match=r"thesis\.tex"):
        write_sample(SampleConfig(out=tmp_path, utterances=36))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_another_sample_is_not_written_over(small: Path) -> None:
    with pytest.raises(DataError, match="holds another sample"):
        write_sample(SampleConfig(out=small, utterances=36, seed=8))


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(DataError, match="is a file; expected a folder"):
        write_sample(SampleConfig(out=tmp_path / "taken", utterances=36))


def test_a_pyav_without_the_encoder_is_named(small: Path) -> None:
    with pytest.raises(ClipError, match=r"cannot encode H\.264 by libx999.*pip install"):
        encode(np.zeros((2, 112, 112, 3), dtype=np.uint8), codec="libx999")  # type: ignore[arg-type]

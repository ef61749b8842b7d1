"""Decoding in a child: the same frames as in this process, every damage a reason, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from lgsrr.errors import ClipError
from pipelines.calls import ExtractionError
from pipelines.decoding import Decoder
from pipelines.videollama2.frames import read_frames, sample_indices
from tests import clip_files
from tests.clips import moving_square, write_clip, write_sound
from tests.processes import Process, descendants, wait_until
from tests.tiny import ROOT


def children() -> set[Process]:
    return {process for process in descendants(os.getpid()) if "decoding_child" in process.title()}


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(frames=16, timeout_s=120) as shared:
        yield shared


@pytest.fixture
def moody() -> Iterator[Decoder]:
    """A decoder that misbehaves by the clip's name."""
    with Decoder(frames=4, timeout_s=120, reader=Path(clip_files.__file__)) as scripted:
        yield scripted


def test_the_frames_are_those_of_the_models_sampling_rule(decoder: Decoder, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", moving_square(40))
    decoded = decoder.decode(str(clip))
    assert np.array_equal(decoded.frames, read_frames(clip, 16))
    assert decoded.indices == tuple(sample_indices(40, 16))
    assert (decoded.count, decoded.fps, decoded.seconds) == (40, 25.0, 1.6)
    assert (decoded.width, decoded.height) == (64, 48)


def test_clips_in_a_row_come_from_one_child_and_do_not_mix(decoder: Decoder, tmp_path: Path) -> None:
    """A large clip, a small one, a damaged one and the large one again."""
    large = write_clip(tmp_path / "large.mp4", moving_square(30, 96, 128, seed=1))
    small = write_clip(tmp_path / "small.mp4", moving_square(20, seed=2))
    first = decoder.decode(str(large)).frames
    one = children()
    assert np.array_equal(decoder.decode(str(small)).frames, read_frames(small, 16))
    with pytest.raises(ClipError):
        decoder.decode(str(clip_files.empty(tmp_path / "empty.mp4")))
    assert np.array_equal(decoder.decode(str(large)).frames, first)
    assert children() == one


def test_a_clip_of_one_frame_is_that_frame_sixteen_times(decoder: Decoder, tmp_path: Path) -> None:
    decoded = decoder.decode(str(write_clip(tmp_path / "one.mp4", moving_square(1))))
    assert decoded.frames.shape == (16, 48, 64, 3)
    assert set(decoded.indices) == {0}
    assert len(np.unique(decoded.frames, axis=0)) == 1


def test_a_name_with_spaces_quotes_and_letters_of_any_script_is_a_name(decoder: Decoder, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", moving_square(20))
    strange = shutil.copy(clip, tmp_path / 'she said: "it\'s" 50% çè 日本 \n&;$(x) #1?.mp4')
    assert np.array_equal(decoder.decode(str(strange)).frames, read_frames(clip, 16))


def test_a_clip_in_a_store_is_fetched_and_decoded(decoder: Decoder, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", moving_square(20))
    fsspec.filesystem("memory").pipe_file("/bucket/a.mp4", clip.read_bytes())
    assert np.array_equal(decoder.decode("memory://bucket/a.mp4").frames, read_frames(clip, 16))
    with pytest.raises(ClipError, match=r"memory://bucket/no\.mp4: there is no such object"):
        decoder.decode("memory://bucket/no.mp4")


def test_an_extension_says_nothing(decoder: Decoder, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", moving_square(20))
    assert decoder.decode(str(clip.rename(tmp_path / "film.txt"))).count == 20


def test_damage_is_a_reason_that_names_the_clip(decoder: Decoder, tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4", moving_square(30))
    damaged = {
        clip_files.truncated(whole, tmp_path / "truncated.mp4"): "cannot be opened as a video",
        clip_files.empty(tmp_path / "empty.mp4"): "cannot be opened as a video",
        clip_files.text_as(tmp_path / "letter.mp4"): "cannot be opened as a video",
        clip_files.with_bad_packets(tmp_path / "noise.mkv"): "is damaged",
        write_sound(tmp_path / "sound.wav"): "has no video stream",
        tmp_path / "missing.mp4": "there is no such file",
        tmp_path: "cannot be opened as a video",
    }
    for path, reason in damaged.items():
        with pytest.raises(ClipError, match=reason) as refused:
            decoder.decode(str(path))
        assert path.name in str(refused.value)


def test_only_clips_that_are_too_large_are_scaled_down(tmp_path: Path) -> None:
    large = write_clip(tmp_path / "large.mp4", moving_square(20, 96, 128))
    small = write_clip(tmp_path / "small.mp4", moving_square(20, 64, 48))
    with Decoder(frames=8, max_side=64, timeout_s=120) as decoder:
        decoded = decoder.decode(str(large))
        assert (decoded.frames.shape, decoded.width, decoded.height) == ((8, 48, 64, 3), 128, 96)
        assert np.array_equal(decoder.decode(str(small)).frames, read_frames(small, 8))


def test_a_clip_that_kills_the_decoder_twice_is_refused_and_the_next_is_decoded(moody: Decoder, tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"/x/kills\.mp4: 2 times the decoder was killed by SIGSEGV"):
        moody.decode("/x/kills.mp4")
    with pytest.raises(ClipError, match="2 times the decoder ended with exit code 7"):
        moody.decode("/x/leaves.mp4")
    assert moody.decode(str(write_clip(tmp_path / "next.mp4", moving_square(5)))).count == 5


def test_a_clip_that_kills_the_decoder_once_is_decoded_by_the_next(moody: Decoder, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "stumbles.mp4", moving_square(5))
    assert moody.decode(str(clip)).frames.shape == (4, 8, 8, 3)


def test_a_clip_that_hangs_is_given_up_and_its_children_are_gone(tmp_path: Path) -> None:
    clip, before = write_clip(tmp_path / "a.mp4", moving_square(5)), children()
    with Decoder(frames=4, timeout_s=0.2, reader=Path(clip_files.__file__)) as decoder:
        with pytest.raises(ClipError, match=r"2 times the decoder had not finished after 0.2 s"):
            decoder.decode("/x/hangs.mp4")
        decoder._timeout_s = 120
        assert decoder.decode(str(clip)).count == 5
        (mine,) = children() - before
    assert not mine.is_alive()
    assert children() == before


def test_a_decoder_that_cannot_start_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "reader.py"
    broken.write_text("raise RuntimeError('no codec here')")
    with pytest.raises(ExtractionError, match="no codec here"):
        Decoder(reader=broken).decode("a.mp4")


OWNER = """
import sys
from pathlib import Path
from pipelines.decoding import Decoder
decoder = Decoder(frames=4, reader=Path(sys.argv[1]))
decoder._warm()
print("up", flush=True)
decoder.decode("/x/hangs.mp4")
"""


def test_when_its_owner_is_killed_the_child_goes_too_even_while_it_hangs() -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, clip_files.__file__], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"up\n"
        (child,) = descendants(owner.pid)
        assert child.is_alive()
        owner.kill()
        owner.wait()
        wait_until(lambda: not child.is_alive(), 20, "the orphaned decoder to end")
    finally:
        owner.kill()
        owner.wait()
        assert owner.stdout is not None
        owner.stdout.close()


def test_no_descriptor_is_left_open() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    for _ in range(2):
        with Decoder(frames=4, timeout_s=120) as decoder, pytest.raises(ClipError):
            decoder.decode("/no/such.mp4")
    assert descriptors() == before

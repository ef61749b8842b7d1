"""Clips and prompts as they come: sampled, padded and preprocessed as published, or refused with one clear message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lgsrr.errors import ClipError, PromptError
from pipelines.videollama2 import VideoLlama2Processor
from pipelines.videollama2.frames import as_frames, read_frames, sample_indices
from pipelines.videollama2.pixels import to_pixels
from pipelines.videollama2.random_checkpoint import tiny, write_checkpoint
from pipelines.videollama2.towers import CLIP_MEAN, CLIP_STD, default_preprocessing
from tests.clips import moving_square, write_clip, write_sound


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> VideoLlama2Processor:
    return VideoLlama2Processor.from_pretrained(write_checkpoint(tmp_path_factory.mktemp("tiny"), tiny()))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", moving_square(50))


@given(count=st.integers(1, 5000), wanted=st.integers(1, 32))
def test_sampled_frames_are_in_the_clip_in_order_and_evenly_spread(count: int, wanted: int) -> None:
    indices = sample_indices(count, wanted)
    assert len(indices) == wanted
    assert indices[0] >= 0
    assert indices[-1] <= count - 1
    steps = np.diff(indices)
    assert (steps >= 0).all()
    assert steps.max(initial=0) - steps.min(initial=10**6) <= 1 or wanted == 1


def test_a_clip_of_as_many_frames_as_asked_is_taken_whole() -> None:
    assert sample_indices(16, 16).tolist() == list(range(16))


def test_a_file_and_its_bytes_and_its_frames_give_the_same(clip: Path) -> None:
    frames = as_frames(clip, 8)
    assert frames.shape == (8, 48, 64, 3)
    assert np.array_equal(frames, as_frames(clip.read_bytes(), 8))
    assert np.array_equal(frames, as_frames(as_frames(clip, 8), 8))
    assert np.array_equal(frames, as_frames([Image.fromarray(f) for f in frames], 8))


def test_the_frames_of_a_file_are_those_that_were_asked_for(tmp_path: Path) -> None:
    """Frame t is grey of brightness 4t, which survives the codec."""
    grey = np.repeat(np.arange(50, dtype=np.uint8) * 4, 48 * 64 * 3).reshape(50, 48, 64, 3)
    frames = read_frames(write_clip(tmp_path / "grey.mp4", grey), 16)
    brightness = frames.mean((1, 2, 3)) / 4
    assert np.abs(brightness - sample_indices(50, 16)).max() < 0.75


def test_a_file_with_fewer_frames_repeats_them_as_published(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "short.mp4", moving_square(5))
    every = read_frames(path, 5)
    assert np.array_equal(read_frames(path, 16), every[sample_indices(5, 16)])
    assert sorted(set(sample_indices(5, 16).tolist())) == [0, 1, 2, 3, 4]


def test_an_array_with_fewer_frames_is_padded_with_black_as_published() -> None:
    frames = moving_square(5)
    padded = as_frames(frames, 16)
    assert np.array_equal(padded[:5], frames)
    assert padded.shape == (16, 48, 64, 3)
    assert not padded[5:].any()


def test_one_frame_is_a_clip(tmp_path: Path, processor: VideoLlama2Processor) -> None:
    path = write_clip(tmp_path / "one.mp4", moving_square(1))
    from_file = processor.pixel_values(path)
    assert from_file.shape == (16, 3, 56, 56)
    assert torch.equal(from_file[0], from_file[15])
    from_array = processor.pixel_values(moving_square(1))
    black = (0 - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)
    torch.testing.assert_close(from_array[15, :, 3, 3], black)


def test_an_array_with_more_frames_is_sampled_like_a_file() -> None:
    frames = moving_square(50)
    assert np.array_equal(as_frames(frames, 16), frames[sample_indices(50, 16)])


def test_pixels_are_the_middle_of_the_frame_normalised() -> None:
    settings = default_preprocessing({"model_type": "clip_vision_model", "image_size": 4})
    frame = np.zeros((1, 4, 10, 3), dtype=np.uint8)
    frame[:, :, 3:7] = 255
    white = (1 - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)
    pixels = to_pixels(frame, settings)
    assert pixels.shape == (1, 3, 4, 4)
    torch.testing.assert_close(pixels[0], white[:, None, None].expand(3, 4, 4), atol=1e-6, rtol=0)


def test_siglip_takes_the_whole_frame_squeezed() -> None:
    settings = default_preprocessing({"model_type": "siglip_vision_model", "image_size": 4})
    frame = np.zeros((1, 4, 8, 3), dtype=np.uint8)
    frame[:, :, 4:] = 255
    pixels = to_pixels(frame, settings)
    assert pixels[0, 0, 0, 0] == -1
    assert pixels[0, 0, 0, 3] == 1


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ClipError, match=r"/no/clip\.mp4: there is no such file"):
        read_frames("/no/clip.mp4", 16)


def test_a_file_that_is_no_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a clip")
    with pytest.raises(ClipError, match=r"text\.mp4 cannot be opened as a video"):
        read_frames(tmp_path / "text.mp4", 16)


def test_a_file_without_a_video_stream_is_told(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"sound\.wav has no video stream; it holds \['audio'\]"):
        read_frames(write_sound(tmp_path / "sound.wav"), 16)


def test_a_stream_that_is_corrupt_in_mid_file_is_told(clip: Path, tmp_path: Path) -> None:
    content = bytearray(clip.read_bytes())
    start, end = len(content) * 4 // 10, len(content) * 6 // 10
    content[start:end] = bytes(np.random.default_rng(0).integers(0, 256, end - start, dtype=np.uint8))
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(content)
    with pytest.raises(ClipError, match=r"damaged\.mp4 is damaged: "):
        read_frames(damaged, 16)


def test_a_file_that_ends_early_is_told(clip: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.mp4"
    short.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    with pytest.raises(ClipError, match=r"short\.mp4"):
        read_frames(short, 16)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((4, 8, 8), np.uint8), r"this one has shape \(4, 8, 8\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), r"this one has shape \(0, 8, 8, 3\)"),
        (np.zeros((4, 8, 8, 3), np.float32), "these are float32"),
        ([], "at least one"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)], "one size"),
    ],
)
def test_an_array_that_is_no_clip_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ClipError, match=message):
        as_frames(value, 16)


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_prompt_is_refused(processor: VideoLlama2Processor, text: str) -> None:
    with pytest.raises(PromptError, match="the prompt is empty"):
        processor(text=text, videos=moving_square(16))
    with pytest.raises(PromptError, match="the instruction is empty"):
        processor.build_prompt(text)
    with pytest.raises(PromptError, match="no prompt was given"):
        processor(text=[], videos=[])


def test_two_marks_with_one_clip_are_refused(processor: VideoLlama2Processor) -> None:
    with pytest.raises(PromptError, match="2 x '<video>' and 1 clip; they must match"):
        processor(text="<video> and <video>", videos=[moving_square(16)])
    with pytest.raises(PromptError, match="the instruction holds '<video>'"):
        processor.build_prompt("and <video>")


def test_a_clip_without_a_mark_is_refused(processor: VideoLlama2Processor) -> None:
    with pytest.raises(PromptError, match="a clip was given, but the prompt has no '<video>'"):
        processor(text="Describe it.", videos=[moving_square(16)])


def test_a_mark_without_a_clip_is_refused(processor: VideoLlama2Processor) -> None:
    with pytest.raises(PromptError, match="1 x '<video>' and 0 clips"):
        processor(text="<video>\nDescribe it.")


def test_as_many_clips_as_prompts_are_asked_for(processor: VideoLlama2Processor) -> None:
    with pytest.raises(PromptError, match="2 prompts and 1 clips"):
        processor(text=["<video>a", "<video>b"], videos=[moving_square(16)])


def test_a_prompt_beyond_the_context_is_refused(processor: VideoLlama2Processor) -> None:
    prompt = processor.build_prompt("why? " * 1000)
    with pytest.raises(PromptError, match="and the model's context holds 2048"):
        processor(text=prompt, videos=moving_square(16))


def test_a_mark_is_no_token_that_text_can_hold(processor: VideoLlama2Processor) -> None:
    ids = processor.prompt_ids("<s>[INST] <video>\n<unk> <image> [/INST]")
    assert ids.count(-201) == 1
    assert min(i for i in ids if i != -201) >= 0

"""Which frames of a clip are looked at, and how they are brought from a file.

`sample_indices` is the authors' uniform sampler: the clip from its first to its last frame in `wanted` equal parts,
the middle of each, rounded. PyAV decodes from the start and turns only the wanted frames to RGB: clips here last
seconds, so that seeking would win little and lose exactness on streams whose key frames lie.

T frames, H W pixels, 3 colours.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import numpy.typing as npt

from lgsrr.errors import ClipError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

Frames = npt.NDArray[np.uint8]
"""(T, H, W, 3), RGB."""
Source = str | os.PathLike[str] | bytes
MAX_FRAMES = 32
"""No clip is looked at in more frames than this, as published."""


def sample_indices(count: int, wanted: int) -> npt.NDArray[np.int64]:
    """Indices of `wanted` frames out of `count`; with fewer frames than wanted, some come twice."""
    part = (count - 1) / wanted
    middles = np.array([part * i + part * (i + 1) for i in range(wanted)]) / 2
    return np.round(middles + 1e-6).astype(np.int64)


def read_frames(source: Source, wanted: int) -> Frames:
    """`wanted` frames of a file (or of its bytes), sampled over its whole length.

    Raises ClipError: no such file, no container that FFmpeg knows, no video stream, no frame, or damage before or at
    one of the frames that are wanted.
    """
    name = "a clip given as bytes" if isinstance(source, bytes) else str(Path(source))
    with _open(source, name) as container:
        stream = _video_stream(container, name)
        count = _count_frames(container, stream, name)
    with _open(source, name) as container:
        stream = _video_stream(container, name)
        stream.thread_type = "AUTO"
        indices = sample_indices(count, min(wanted, MAX_FRAMES))
        pictures = dict(_decode(container, stream, set(indices.tolist()), name, count))
    return np.stack([pictures[i] for i in indices.tolist()])


def _open(source: Source, name: str) -> InputContainer:
    try:
        return av.open(io.BytesIO(source) if isinstance(source, bytes) else os.fspath(source), "r")
    except FileNotFoundError as error:
        raise ClipError(f"{name}: there is no such file") from error
    except (av.FFmpegError, OSError) as error:
        raise ClipError(f"{name} cannot be opened as a video: {_reason(error)}") from error


def _video_stream(container: InputContainer, name: str) -> VideoStream:
    if not container.streams.video:
        raise ClipError(f"{name} has no video stream; it holds {[s.type for s in container.streams] or 'nothing'}")
    return container.streams.video[0]


def _count_frames(container: InputContainer, stream: VideoStream, name: str) -> int:
    """Counts packets, without decoding: what a header says of the number of frames is often wrong or absent."""
    try:
        count = sum(1 for packet in container.demux(stream) if packet.size > 0)
    except (av.FFmpegError, OSError) as error:
        raise ClipError(f"{name} cannot be read to its end: {_reason(error)}") from error
    if count == 0:
        raise ClipError(f"{name} has a video stream without a frame")
    return count


def _decode(
    container: InputContainer, stream: VideoStream, wanted: set[int], name: str, count: int
) -> Iterator[tuple[int, Frames]]:
    """Yields (index, picture) for each index that is wanted, in order."""
    last, index = max(wanted), -1
    try:
        for index, frame in enumerate(container.decode(stream)):
            if index in wanted:
                yield index, _picture(frame, index, name, count)
            if index == last:
                return
    except (av.FFmpegError, OSError) as error:
        raise ClipError(
            f"{name} is damaged: frame {index + 1} of {count} cannot be decoded ({_reason(error)})"
        ) from error
    raise ClipError(f"{name} is damaged: it announces {count} frames and ends after {index + 1}")


def _picture(frame: VideoFrame, index: int, name: str, count: int) -> Frames:
    if frame.is_corrupt:
        raise ClipError(f"{name} is damaged: frame {index} of {count} was decoded from broken data")
    picture_HWC: Frames = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    return picture_HWC


def _reason(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).strip()


def as_frames(clip: Any, wanted: int) -> Frames:
    """A clip as `wanted` frames, whatever it was given as.

    A file is sampled by the authors' sampler. An array (T, H, W, 3) with more frames than are wanted is sampled in the
    same way (the authors take its first 32), one with fewer is padded with black frames at its end, as published.
    """
    if isinstance(clip, (str, bytes, os.PathLike)):
        return read_frames(clip, wanted)
    frames_THWC = _array(clip)
    count = len(frames_THWC)
    if count > wanted:
        return frames_THWC[sample_indices(count, wanted)]
    black = np.zeros((wanted - count, *frames_THWC.shape[1:]), dtype=np.uint8)
    return np.concatenate([frames_THWC, black]) if count < wanted else frames_THWC


def _array(clip: Any) -> Frames:
    """Checks an array, or a list of pictures of one size, of which each may be Pillow's."""
    try:
        frames = np.asarray(clip) if not isinstance(clip, (list, tuple)) else np.stack([np.asarray(f) for f in clip])
    except ValueError as error:
        raise ClipError(f"a clip's frames must have one size and be at least one: {error}") from error
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ClipError(f"a clip is an array (frames, height, width, 3), this one has shape {frames.shape}")
    if frames.dtype != np.uint8:
        raise ClipError(f"a clip's pixels are uint8 from 0 to 255, these are {frames.dtype}")
    return frames

"""Small clips for tests, made with PyAV: whole, damaged, without a picture."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from pipelines.videollama2.frames import Frames


def moving_square(frames: int, height: int = 48, width: int = 64, seed: int = 0) -> Frames:
    """A bright square that wanders over noise, so that no two frames are alike."""
    random = np.random.default_rng(seed)
    clip = random.integers(0, 90, size=(frames, height, width, 3), dtype=np.uint8)
    for t in range(frames):
        x = (t * 3 + seed * 7) % (width - 16)
        clip[t, 12:28, x : x + 16] = (250, 40 * seed % 250, 20)
    return clip


def write_clip(path: Path, frames: Frames) -> Path:
    """Writes an MP4 (MPEG-4 part 2), 25 frames a second, a key frame every 12."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 2_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    """Half a second of silence: a file without a video stream."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), dtype=np.int16), format="s16", layout="mono")
        sound.sample_rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    return path

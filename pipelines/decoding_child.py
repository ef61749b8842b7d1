"""The process in which clips are decoded: PyAV, one clip after the other, for `pipelines.decoding` and nobody else.

    python -c "from pipelines.decoding_child import main; main()" READER FRAMES MAX_SIDE SHARED LIFELINE

It takes one line of JSON for each clip on stdin and gives one back on stdout: `{"path": …}` or `{"bytes": N}` in;
shape, indices and what the container says, or `{"error": …}` out. Pixels, and the bytes of a clip that is no local
file, lie in the file SHARED, a descriptor without a name, so that nothing is left anywhere when either side is killed.
"""

from __future__ import annotations

import fcntl
import importlib.util
import io
import json
import os
import resource
import select
import sys
from collections.abc import Callable
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from lgsrr.errors import ClipError

Frames = npt.NDArray[np.uint8]
"""(T, H, W, 3), RGB."""
Source = str | bytes
MEMORY_BYTES = 8 << 30
"""Address space of the child: a clip that claims to be a wall of pixels fails here, and not the machine."""


def main() -> None:
    """Serve until stdin ends or the parent is gone."""
    reader_file, frames, max_side, shared, lifeline = sys.argv[1], *map(int, sys.argv[2:6])
    die_with(lifeline)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    read = load(reader_file)
    _say(answers, {"ready": True})
    for line in sys.stdin:
        _say(answers, _answer(read, json.loads(line), frames, max_side, shared))


def die_with(lifeline: int) -> None:
    """Has the kernel end this process when the other end of the pipe is closed, which is when its owner is gone.

    Nothing is ever written there, so SIGIO, whose default is to end a process, means just that; it does its work while
    a decoder hangs in C as well, which a thread that waits for Python's lock does not.
    """
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:
        sys.exit("the parent was gone before the decoder was up")


def load(path: str) -> Any:
    """The module in a file, by itself: the packages above the frames' reader import torch, of no use in here."""
    spec = importlib.util.spec_from_file_location("clip_reader", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _answer(reader: Any, asked: dict[str, Any], frames: int, max_side: int, shared: int) -> dict[str, Any]:
    source: Source = os.pread(shared, asked["bytes"], 0) if "bytes" in asked else asked["path"]
    try:
        frames_THWC: Frames = reader.read_frames(source, frames)
        clip = probe(source)
        clip["indices"] = sampled(reader.sample_indices, clip["frames"], len(frames_THWC))
        smaller_THWC = downscaled(frames_THWC, max_side)
    except ClipError as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": f"needs more than {MEMORY_BYTES >> 30} GiB to be decoded"}
    except (av.FFmpegError, OSError, ValueError) as error:
        return {"error": f"cannot be decoded: {type(error).__name__}: {error}"}
    write_all(shared, smaller_THWC)
    return {**clip, "shape": smaller_THWC.shape}


def probe(source: Source) -> dict[str, Any]:
    """What the container says of its video stream, the frames counted by their packets."""
    with av.open(io.BytesIO(source) if isinstance(source, bytes) else source, "r") as container:
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate
        duration = stream.duration * stream.time_base if stream.duration and stream.time_base else None
        return {
            "width": stream.width,
            "height": stream.height,
            "fps": float(rate) if rate else None,
            "frames": (count := sum(1 for packet in container.demux(stream) if packet.size > 0)),
            "seconds": float(duration) if duration else count / float(rate) if rate else None,
        }


def sampled(sample: Callable[[int, int], npt.NDArray[np.int64]], count: int, taken: int) -> list[int]:
    """Which of `count` frames the `taken` ones are."""
    return [int(index) for index in sample(count, taken)]


def downscaled(frames_THWC: Frames, max_side: int) -> Frames:
    """Frames whose longer side is `max_side` at most (0: any); those that are small enough keep every pixel."""
    height, width = frames_THWC.shape[1:3]
    if not max_side or max(height, width) <= max_side:
        return frames_THWC
    from PIL import Image

    scale = max_side / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    small = (Image.fromarray(frame_HWC).resize(size, Image.Resampling.BICUBIC) for frame_HWC in frames_THWC)
    return np.stack([np.asarray(picture) for picture in small])


def write_all(shared: int, frames_THWC: Frames) -> None:
    """Puts the pixels into the shared file, from its beginning; what a larger clip left behind is given back."""
    pixels = np.ascontiguousarray(frames_THWC).data.cast("B")
    os.ftruncate(shared, len(pixels))
    done = 0
    while done < len(pixels):
        done += os.pwrite(shared, pixels[done:], done)


def _say(answers: Any, answer: dict[str, Any]) -> None:
    print(json.dumps(answer), file=answers, flush=True)

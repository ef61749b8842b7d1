"""Scenes as frames, and frames as a file: H.264 in MP4, by PyAV.

Everything is drawn at twice the size and made smaller, so that edges are smooth and small movements are seen. The
trade-off: the same scene gives the same frames everywhere, and the same file wherever the same build of x264 is used.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError
from PIL import ImageDraw

from lgsrr.errors import ClipError
from lgsrr.files import atomic_path

from .figure import draw_person
from .motion import poses
from .scene import FPS, Scene
from .stage import draw_place

Frames = npt.NDArray[np.uint8]
"""(T, H, W, 3), RGB."""
SIDE = 112
"""Pixels along one side of every picture."""
_LARGER = 2
_CRF = 16
"""x264's constant rate factor: faces of 35 pixels want more than the 23 that is usual."""


def render(scene: Scene, indices: Sequence[int] | None = None, side: int = SIDE) -> Frames:
    """The frames of a clip (T, side, side, 3), all or those at `indices`."""
    place = draw_place(scene, side * _LARGER)
    pictures = []
    for index in range(scene.frames) if indices is None else indices:
        picture = place.copy()
        canvas = ImageDraw.Draw(picture)
        for pose in poses(scene, index / FPS):
            draw_person(canvas, pose, side * _LARGER)
        pictures.append(np.asarray(picture.reduce(_LARGER)))
    return np.stack(pictures)


def encode(frames_THWC: Frames, codec: Literal["libx264"] = "libx264") -> bytes:
    """The frames as an MP4 file; ClipError where this PyAV cannot encode H.264."""
    buffer = io.BytesIO()
    try:
        with av.open(buffer, "w", format="mp4") as container:
            stream = container.add_stream(codec, rate=Fraction(FPS))
            stream.height, stream.width, stream.pix_fmt = *frames_THWC.shape[1:3], "yuv420p"
            stream.options = {"crf": str(_CRF), "preset": "veryfast", "threads": "1"}
            for picture in frames_THWC:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
    except (FFmpegError, ValueError) as error:
        raise ClipError(
            f"PyAV {av.__version__} cannot encode H.264 by {codec}: {error}. Clips are drawn with the x264 that comes "
            "in PyAV's wheels: pip install --force-reinstall av (a PyAV that was built here lacks it)"
        ) from error
    return buffer.getvalue()


def write_clip(scene: Scene, path: Path) -> None:
    """Draw, encode and write a clip, whole or not at all."""
    content = encode(render(scene))
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)

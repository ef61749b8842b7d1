"""Writers of clips that are damaged in a known way, and a reader of clips that misbehaves by the clip's name.

As a `reader` of `pipelines.decoding.Decoder` this file is loaded by itself in the child: `read_frames` and
`sample_indices` below are what it calls.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from lgsrr.errors import ClipError

KILLS, KILLS_ONCE, HANGS, LEAVES = "kills", "stumbles", "hangs", "leaves"
"""Parts of names at which `read_frames` misbehaves."""


def truncated(whole: Path, path: Path, share: float = 0.6) -> Path:
    """The first part of a file; an MP4's index stands at its end and is gone."""
    content = whole.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def empty(path: Path) -> Path:
    """Zero bytes."""
    path.write_bytes(b"")
    return path


def text_as(path: Path) -> Path:
    """A file of text, whatever its name says."""
    path.write_text("This is a letter and no film.\n" * 40)
    return path


def with_bad_packets(path: Path) -> Path:
    """A Matroska file whose container is sound and whose pictures are noise from the first on."""
    random = np.random.default_rng(0)
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        clean = np.full((48, 64, 3), 90, dtype=np.uint8)
        for index in range(20):
            for packet in stream.encode(av.VideoFrame.from_ndarray(clean + np.uint8(index), format="rgb24")):
                bad = av.Packet(random.bytes(packet.size))
                bad.pts, bad.dts, bad.time_base, bad.stream = packet.pts, packet.dts, packet.time_base, stream
                container.mux(bad)
    return path


def read_frames(source: str | bytes, wanted: int) -> npt.NDArray[np.uint8]:
    """Grey frames; a name with one of the words above crashes, hangs or leaves this process instead."""
    folder, name = os.path.split(source) if isinstance(source, str) else ("", "")
    if KILLS in name:
        os.kill(os.getpid(), signal.SIGSEGV)
    if KILLS_ONCE in name and not os.path.exists(mark := os.path.join(folder, "stumbled")):
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    if HANGS in name:
        time.sleep(600)
    if LEAVES in name:
        os._exit(7)
    if not name:
        raise ClipError("a clip given as bytes is not read here")
    return np.full((wanted, 8, 8, 3), 128, dtype=np.uint8)


def sample_indices(count: int, wanted: int) -> Any:
    """The first frames."""
    return np.arange(wanted)

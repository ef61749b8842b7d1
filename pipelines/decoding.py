"""Clips to frames, decoded in a child process: a decoder that crashes or hangs takes down the child, not the actor.

    with Decoder(frames=16, max_side=672) as decoder:
        decoded = decoder.decode("clips/dia0_utt0.mp4")      # or s3://…; raises ClipError with the reason

One child is kept warm, decodes one clip after the other (FFmpeg's threads use the cores), and is replaced when it dies
or takes too long. A clip gets two children; then it is refused. The child is a plain Python process and not one of
`multiprocessing`: a fork would inherit the threads of a Ray worker, a spawn would import its main module again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from lgsrr import storage
from lgsrr.errors import ClipError

from .calls import ExtractionError

Frames = npt.NDArray[np.uint8]
"""(T, H, W, 3), RGB."""
CHILDREN_PER_CLIP = 2
"""A crash may be the memory's fault or a neighbour's; two of them are the clip's."""
START_S = 120.0
"""Seconds within which a child must be up; on a machine under load, importing takes its time."""
_PROGRAM = "from pipelines.decoding_child import main; main()"
READER = Path(__file__).parent / "videollama2" / "frames.py"
"""A Python file with `read_frames(source, wanted)` and `sample_indices(count, wanted)`."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """A clip as the model will see it, and what its container says."""

    frames: Frames
    """(T, H, W, 3) uint8, RGB."""
    indices: tuple[int, ...]
    """Which of the clip's frames these are, from 0; T of them."""
    count: int
    """Frames in the clip."""
    fps: float | None
    """Frames per second; None where the container does not say."""
    seconds: float | None
    width: int
    """Pixels, as in the file; `frames` may be smaller."""
    height: int


class Decoder:
    """A warm child that decodes. Calls from several threads wait for each other."""

    def __init__(
        self, frames: int = 16, *, max_side: int | None = None, timeout_s: float = 60.0, reader: Path = READER
    ) -> None:
        """`frames` are sampled over each clip; those with a side above `max_side` pixels are scaled down to it.

        `timeout_s`: seconds for one clip. `reader` is the file that holds the function which decodes. The child starts
        with the first clip.
        """
        self._arguments = [str(reader), str(frames), str(max_side or 0)]
        self._timeout_s = timeout_s
        self._child: _Child | None = None
        self._lock = threading.Lock()

    def decode(self, uri: str) -> Decoded:
        """The frames of a clip, a local path or a URI.

        Raises ClipError with a reason that names the clip: missing, damaged, no video, or twice the end of its decoder.
        Raises DataError where the store that holds it cannot be reached, ExtractionError where no child comes up.
        """
        content = None
        if storage.is_uri(uri):
            content = storage.read_if_there(uri)
            if content is None:
                raise ClipError(f"{uri}: there is no such object")
        with self._lock:
            return self._decode(uri, content)

    def _decode(self, uri: str, content: bytes | None) -> Decoded:
        reason = ""
        for _ in range(CHILDREN_PER_CLIP):
            child = self._warm()
            try:
                return child.decode(uri, content, self._timeout_s)
            except _ChildGone as gone:
                reason = str(gone)
                self._end_child()
            except ClipError:
                raise
            except BaseException:  # an interrupt: the child is in the middle of an answer that nobody will fetch
                self._end_child()
                raise
        raise ClipError(f"{uri}: {CHILDREN_PER_CLIP} times the decoder {reason}; the clip is not tried again")

    def _warm(self) -> _Child:
        if self._child is None:
            self._child = _Child(self._arguments)
        return self._child

    def _end_child(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None

    def close(self) -> None:
        """End the child; a decoder that is used again starts another."""
        with self._lock:
            self._end_child()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _ChildGone(Exception):  # noqa: N818
    """The child died or was too slow; the message continues "the decoder …"."""


class _Child:
    """One process, and the file without a name through which pixels come back."""

    def __init__(self, arguments: list[str]) -> None:
        lifeline, self._lifeline = os.pipe()
        self._shared = _nameless_file()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the child)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, *arguments, str(self._shared), str(lifeline)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                pass_fds=(lifeline, self._shared),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
                start_new_session=True,  # Ctrl-C is for the driver, which ends its decoders itself
            )
        finally:
            os.close(lifeline)
        self._answers = bytearray()
        try:
            self._answer(START_S)
        except _ChildGone as gone:
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip().splitlines()
            self.end()
            raise ExtractionError(
                f"no decoder can be started: it {gone}. Its last words: {said[-1] if said else 'none'}. "
                f"Check that `{sys.executable} -c 'import pipelines.decoding_child'` works on this machine."
            ) from None

    def decode(self, uri: str, content: bytes | None, timeout_s: float) -> Decoded:
        asked: dict[str, Any] = {"path": os.path.abspath(uri)}  # an absolute path is never taken for a protocol
        if content is not None:
            asked = {"bytes": len(content)}
            _write_all(self._shared, content)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(asked).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise _ChildGone(self._end_reason()) from None
        answer = self._answer(timeout_s)
        if "error" in answer:
            raise ClipError(answer["error"] if content is None else f"{uri}: {answer['error']}")
        frames_THWC = np.empty(answer["shape"], dtype=np.uint8)
        _read_all(self._shared, frames_THWC)
        return Decoded(
            frames=frames_THWC,
            indices=tuple(answer["indices"]),
            count=answer["frames"],
            fps=answer["fps"],
            seconds=answer["seconds"],
            width=answer["width"],
            height=answer["height"],
        )

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        """The next line of JSON. Raises _ChildGone."""
        assert self._process.stdout is not None
        descriptor, deadline = self._process.stdout.fileno(), time.monotonic() + timeout_s
        while b"\n" not in self._answers:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                raise _ChildGone(f"had not finished after {timeout_s:g} s")
            if not (piece := os.read(descriptor, 1 << 16)):
                raise _ChildGone(self._end_reason())
            self._answers += piece
        line, _, rest = bytes(self._answers).partition(b"\n")
        self._answers = bytearray(rest)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _end_reason(self) -> str:
        code = self._process.wait()
        if code >= 0:
            return f"ended with exit code {code}"
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
        return f"was killed by signal {-code}"

    def end(self) -> None:
        """Kill the process and give everything back; an orderly end has nothing to save."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(BrokenPipeError):
                stream.close()  # type: ignore[union-attr]
        os.close(self._shared)
        os.close(self._lifeline)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self._process.kill()


def _nameless_file() -> int:
    """A file in memory where there is such a thing, else one on the disk; neither has a name to be left behind."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("lgsrr-frames")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _write_all(descriptor: int, content: bytes) -> None:
    view, done = memoryview(content), 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], done)


def _read_all(descriptor: int, frames_THWC: Frames) -> None:
    view, done = frames_THWC.data.cast("B"), 0
    while done < len(view):
        done += os.preadv(descriptor, [view[done:]], done)

"""The journal of a run: what is to be recorded is on disk before anybody tries to send it.

A run's events are appended to `<spool>/<run key>.jsonl`, one JSON line each, and are on the disk before `append`
returns. A sender (`lgsrr.sender`) takes the lines in order and remembers how far it came in `<run key>.sent`. Any
number of processes may append at once; one at a time sends. A line that a kill tore in two was never promised: dropped.

The trade-off: an fsync per event (about a millisecond, once an epoch) buys that neither a kill nor a dead server loses
one. Files that an event names (pictures, the model) are not copied: they must stay where they are until delivered.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from lgsrr.errors import ConfigError
from lgsrr.files import atomic_path

Status = Literal["FINISHED", "FAILED", "KILLED"]
_RUN_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DataRef:
    """What a run learned from; the tracking server shows it as the run's dataset."""

    name: str
    digest: str
    """SHA-256 (hex) of all that training reads."""
    source: str
    """Where it was read from."""
    schema: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Type of each column by its name."""
    profile: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Counts that say how big it is, such as utterances per split."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """A run begins, or goes on after a kill: a second one with the same `run_key` continues the same run."""

    run_key: str
    """Our own name of the run, known before any server has been asked; unique in a spool."""
    destination: str
    """Tracking URI that the run belongs to, without user and password."""
    experiment: str
    name: str
    parent_run_id: str | None = None
    """MLflow's id of the run that this one is nested in."""
    parent_run_key: str | None = None
    """The same by our own name, for a parent that may not have reached the server yet."""
    params: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    data: DataRef | None = None
    time_ms: int
    """Milliseconds since 1970, as everywhere below."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """All numbers of one step, sent in one call. Its time is what makes a second delivery recognisable."""

    values: Mapping[str, float]
    step: int
    time_ms: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    """Tags that became known after the start; the last value wins."""

    values: Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file or a folder to be kept with the run."""

    path: str
    """Absolute; must stay there until delivered."""
    artifact_path: str | None = None
    """Folder within the run's artifacts; None is their top."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelSaved:
    """A folder with a trained model, to be kept as a pyfunc that `loader_module` loads."""

    folder: str
    loader_module: str
    requirements: tuple[str, ...] = ()
    """Pinned packages of the process that trained it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelRegistered:
    """The run's model becomes a version of a registered model; a second one sets that version's words anew."""

    name: str
    """Of the registered model, such as lgsrr-mintrec2; made where it is missing."""
    alias: str | None = None
    """Given to this version, and taken from the one that had it."""
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    description: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """The run's end; its journal is deleted once this has been delivered."""

    status: Status
    time_ms: int


Event = RunStarted | Metrics | Tags | Artifact | ModelSaved | ModelRegistered | RunFinished
_KINDS: dict[str, type[Event]] = {
    kind.__name__: kind for kind in (RunStarted, Metrics, Tags, Artifact, ModelSaved, ModelRegistered, RunFinished)
}


def encode(event: Event) -> bytes:
    """One line of JSON, with its newline."""
    return json.dumps({"event": type(event).__name__, **dataclasses.asdict(event)}).encode() + b"\n"


def decode(line: bytes) -> Event:
    """The event of one line; ValueError, KeyError or TypeError where it is none."""
    fields: dict[str, Any] = json.loads(line)
    kind = _KINDS[fields.pop("event")]
    if fields.get("data") is not None:
        fields["data"] = DataRef(**fields["data"])
    if "requirements" in fields:
        fields["requirements"] = tuple(fields["requirements"])
    return kind(**fields)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A complete line of a journal and where the next one begins."""

    raw: bytes
    end: int
    """Offset in bytes of the line that follows."""


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[int | None]:
    """An exclusive lock on `path` across processes, as its open descriptor; None where it is taken and `wait` is False.

    The file is made where it is missing. Whoever holds the lock may delete it: the others notice that the name now
    belongs to another file (or to none) and open it anew.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            yield None
            return
        if _names(path, descriptor):
            break
        os.close(descriptor)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _names(path: Path, descriptor: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    return False


def check_run_key(run_key: str) -> str:
    """The key itself; ConfigError where it cannot be a file name and a tag."""
    if not _RUN_KEY.fullmatch(run_key):
        raise ConfigError(
            f"run_key is {run_key!r}; expected 1 to 128 letters, digits, '.', '_' or '-', first a letter or digit"
        )
    return run_key


class Journal:
    """The events of one run on disk. Methods may be called from any process; `sending` admits one at a time."""

    def __init__(self, folder: Path, run_key: str) -> None:
        """Raises ConfigError where `run_key` is none. Makes nothing on disk."""
        self.run_key = check_run_key(run_key)
        self.path = folder / f"{run_key}.jsonl"
        self.refused_path = folder / f"{run_key}.refused"
        self._sent_path = folder / f"{run_key}.sent"
        self._lock_path = folder / f"{run_key}.lock"

    def append(self, event: Event) -> None:
        """Write `event` behind the others; when this returns it is on the disk. OSError where the disk refuses."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path) as descriptor:
            assert descriptor is not None
            if _cut_torn_line(descriptor) == 0:
                _sync_folder(self.path.parent)
            _write_all(descriptor, encode(event))
            os.fsync(descriptor)

    def lines(self, offset: int = 0) -> Iterator[Line]:
        """The complete lines from `offset` on; a torn last one is left out."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:  # nothing was written, or a sender has just removed what it has sent
            return
        with file:
            file.seek(offset)
            for raw in file:
                if not raw.endswith(b"\n"):
                    return
                offset += len(raw)
                yield Line(raw=raw, end=offset)

    def sent(self) -> int:
        """How many bytes have been delivered."""
        try:
            return int(self._sent_path.read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def mark_sent(self, offset: int) -> None:
        """Remember that everything before `offset` has been delivered."""
        with atomic_path(self._sent_path) as temporary:
            temporary.write_text(str(offset))

    def pending(self) -> int:
        """How many events have not been delivered."""
        return sum(1 for _ in self.lines(self.sent()))

    @contextlib.contextmanager
    def sending(self) -> Iterator[bool]:
        """The right to send this journal; False where another process has it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self._lock_path, wait=False) as descriptor:
            yield descriptor is not None
            if descriptor is not None and not self.path.exists():
                self._lock_path.unlink(missing_ok=True)

    def refuse(self, line: Line, reason: str) -> None:
        """Set an event aside that can never be delivered, with the reason, so that those behind it are not held up."""
        record = {"reason": reason, "event": line.raw.decode(errors="replace").rstrip("\n")}
        with self.refused_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def refused(self) -> int:
        """How many events have been set aside."""
        if not self.refused_path.exists():
            return 0
        return self.refused_path.read_bytes().count(b"\n")

    def remove_delivered(self) -> bool:
        """Delete the journal if all of it has been delivered; what was set aside stays. Call it while `sending`."""
        with locked(self.path) as descriptor:
            assert descriptor is not None
            if os.fstat(descriptor).st_size != self.sent():
                return False
            self._sent_path.unlink(missing_ok=True)
            self.path.unlink()
        return True


def journals(folder: Path) -> list[Journal]:
    """The journals of a spool, the one that was written to least recently first. Foreign files are left alone."""
    paths = [path for path in folder.glob("*.jsonl") if _RUN_KEY.fullmatch(path.stem)]
    return [Journal(folder, path.stem) for path in sorted(paths, key=_last_write)]


def _last_write(path: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0


def _cut_torn_line(descriptor: int) -> int:
    """Cut off what stands behind the last newline, and return the size. A kill in mid-write leaves such a rest."""
    size = os.fstat(descriptor).st_size
    if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
        return size
    size = os.pread(descriptor, size, 0).rfind(b"\n") + 1
    os.ftruncate(descriptor, size)
    return size


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _sync_folder(folder: Path) -> None:
    """Make a new file's name survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

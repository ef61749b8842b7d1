"""A seed that is trained in its trial's own process: the one worker, and its checkpoints on a disk or a store.

    <folder>/epoch-0003/     a checkpoint as `lgsrr.run_state` writes it
    <folder>/epoch-0003.json its figures; written last: the mark that the checkpoint is whole

Ray Train's own local mode would do, but it keeps no checkpoints, and refuses to run inside of Tune.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from lgsrr import storage
from lgsrr.channel import Write

Figures = dict[str, Any]
_MARK = ".json"


class OwnProcessChannel:
    """See `lgsrr.channel.Channel`.

    Args:
        folder: of this seed's run; a path or a URI.
        tell: is called with the figures of each report, once their checkpoint is whole.
    """

    rank, world = 0, 1

    def __init__(self, folder: str, tell: Callable[[Figures], None]) -> None:
        self._folder, self._tell = folder, tell

    def device(self) -> torch.device:
        """The GPU that Ray has set aside for this process, where it has."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def parallel(self, model: torch.nn.Module) -> torch.nn.Module:
        """The model itself."""
        return model

    @contextlib.contextmanager
    def latest(self) -> Iterator[Path | None]:
        """The newest whole checkpoint; its figures are told again, since this process has not told them."""
        marks = self._marks()
        if not marks:
            yield None
            return
        newest = max(marks)
        self._tell(marks[newest])
        with self._here(newest) as folder:
            yield folder

    @contextlib.contextmanager
    def of_epoch(self, epoch: int) -> Iterator[Path]:
        """The checkpoint of an epoch."""
        with self._here(_name(epoch)) as folder:
            yield folder

    def report(self, metrics: Mapping[str, Any], write: Write | None) -> None:
        """Keep the checkpoint, drop those that are neither the newest nor the best, and tell the figures."""
        if write is not None:
            name = _name(len(metrics["history"])) if "epoch" in metrics else "finished"
            self._keep(name, dict(metrics), write)
        self._tell(dict(metrics))

    def _keep(self, name: str, metrics: Figures, write: Write) -> None:
        if storage.is_uri(self._folder):
            with tempfile.TemporaryDirectory(prefix="lgsrr-") as folder:
                write(Path(folder))
                for path in (p for p in Path(folder).rglob("*") if p.is_file()):
                    storage.write_bytes(self._path(name, *path.relative_to(folder).parts), path.read_bytes())
        else:
            from lgsrr.files import atomic_path

            with atomic_path(Path(self._path(name))) as folder_here:
                folder_here.mkdir()
                write(folder_here)
        storage.write_bytes(self._path(name + _MARK), json.dumps(metrics).encode())
        marks = self._marks()
        best = max(marks, key=lambda other: (marks[other]["keep_score"], other))
        for other in set(marks) - {name, best}:
            storage.remove(self._path(other + _MARK))
            storage.remove_folder(self._path(other))

    def _marks(self) -> dict[str, Figures]:
        paths = storage.part_files(self._folder, suffix=_MARK)
        contents = storage.read_all(paths)
        return {
            path.rsplit("/", 1)[1].removesuffix(_MARK): json.loads(content)
            for path, content in zip(paths, contents, strict=True)
        }

    @contextlib.contextmanager
    def _here(self, name: str) -> Iterator[Path]:
        """A checkpoint as a folder of this machine."""
        with local_copy(self._path(name)) as folder:
            yield folder

    def _path(self, *names: str) -> str:
        return storage.join(self._folder, *names)


@contextlib.contextmanager
def local_copy(folder: str) -> Iterator[Path]:
    """A folder of a store as one of this machine for the block; one that is here already is given as it is."""
    if not storage.is_uri(folder):
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory(prefix="lgsrr-") as temporary:
        storage.fetch_folder(folder, Path(temporary))
        yield Path(temporary)


def _name(epoch: int) -> str:
    return f"epoch-{epoch:04d}"

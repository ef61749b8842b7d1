"""Where the clip of each utterance lies: on a local disk or in a store, found without opening one.

A table may name it in `video`; a relative name is looked for below `--videos`, then beside the table, and never leaves
those folders, while an absolute path or a URI is taken as it is. Where nothing is named, the clip is the file called as
the utterance: `dia0_utt1.mp4` in MIntRec2.0, `Ses01F_impro01_F000.avi` in IEMOCAP, at any depth. The folder is listed
once, with sizes; a clip that is not there is a row with a reason, not an error.
"""

from __future__ import annotations

import dataclasses
import os
import posixpath
import stat
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from lgsrr import storage
from lgsrr.errors import DataError
from lgsrr.records import Utterance

EXTENSIONS = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv")
"""By which files are taken for clips where the table names none; case is ignored."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """The clip of one utterance."""

    id: str
    """Of the utterance."""
    uri: str
    """Absolute path, or URI."""
    size: int
    """Bytes."""

    @property
    def identity(self) -> str:
        """Stands for the clip's content in fingerprints: its name and size, wherever the folder is moved to."""
        return f"{posixpath.basename(self.uri)}:{self.size}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NoClip:
    """An utterance without a clip."""

    id: str
    reason: str


class ClipFinder:
    """Finds clips below `videos` and beside the table; each folder is listed once, when it is first needed."""

    def __init__(self, *, videos: str | None = None, beside: str | None = None) -> None:
        """`videos`: folder or prefix, or None. `beside`: the table, or the folder it lies in. Raises DataError where
        `videos` is no folder."""
        if videos is not None and not storage.is_uri(videos) and storage.kind(videos) != "folder":
            raise DataError(f"{videos}: no such folder. Name the folder or s3:// prefix of the clips with --videos.")
        self._folders = [storage.absolute(folder) for folder in (videos, _folder_of(beside)) if folder]
        self._videos = self._folders[0] if videos else None
        self._trees: dict[str, _Tree] = {}

    def find(self, utterance: Utterance) -> Clip | NoClip:
        """The clip of an utterance. Raises DataError where a store cannot be reached."""
        if utterance.video:
            return self._named(utterance.id, utterance.video)
        if self._videos is None:
            return NoClip(
                id=utterance.id, reason="the table names no video, and no folder of clips is given (--videos)"
            )
        return self._called(utterance.id, self._videos)

    def find_all(self, utterances: Iterable[Utterance]) -> dict[str, Clip | NoClip]:
        """Id → clip, or the reason why there is none, in the order of `utterances`."""
        return {utterance.id: self.find(utterance) for utterance in utterances}

    def _named(self, id: str, video: str) -> Clip | NoClip:
        if (is_uri := storage.is_uri(video)) or os.path.isabs(video):
            size = self._size(*posixpath.split(video), deep=False) if is_uri else _size_of(video)
            return NoClip(id=id, reason=f"{video}: no such file") if size is None else Clip(id=id, uri=video, size=size)
        name = posixpath.normpath(video)
        if name.split("/")[0] == "..":
            return NoClip(id=id, reason=f"{video!r} leads out of the folder of the clips; name the whole path or URI")
        for folder in self._folders:
            if (size := self._size(folder, name, deep=folder == self._videos)) is not None:
                return Clip(id=id, uri=storage.join(folder, name), size=size)
        where = " or ".join(self._folders) or "no folder: none is given (--videos)"
        return NoClip(id=id, reason=f"{video!r} is not in {where}")

    def _called(self, id: str, folder: str) -> Clip | NoClip:
        tree = self._tree(folder)
        names = tree.called(id)
        if not names:
            return NoClip(id=id, reason=f"{folder} holds no clip called {id!r} ({', '.join(EXTENSIONS[:5])}, …)")
        if len(names) > 1:
            return NoClip(id=id, reason=f"{folder} holds {len(names)} clips of that name: {', '.join(names[:3])}")
        return Clip(id=id, uri=storage.join(folder, names[0]), size=tree.sizes[names[0]])

    def _size(self, folder: str, name: str, *, deep: bool) -> int | None:
        """Bytes of a file; a local one outside the listed folder is looked at by itself."""
        if deep or storage.is_uri(folder):
            parent = folder if deep else posixpath.dirname(storage.join(folder, name))
            return self._tree(parent, deep).sizes.get(name if deep else posixpath.basename(name))
        return _size_of(os.path.join(folder, name))

    def _tree(self, folder: str, deep: bool = True) -> _Tree:
        if folder not in self._trees:
            self._trees[folder] = _Tree(_sizes(folder, deep))
        return self._trees[folder]


class _Tree:
    """The files below a folder: relative name → bytes."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self.sizes = sizes
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for name in sorted(sizes):
            stem, extension = posixpath.splitext(posixpath.basename(name))
            if extension.lower() in EXTENSIONS and not stem.startswith("."):
                self._by_stem[stem].append(name)

    def called(self, stem: str) -> list[str]:
        return self._by_stem.get(stem, [])


def _sizes(folder: str, deep: bool) -> dict[str, int]:
    if storage.is_uri(folder):
        return _sizes_in_store(folder, deep)
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            if (size := _size_of(path)) is not None:
                found[os.path.relpath(path, folder).replace(os.sep, "/")] = size
    return found


def _size_of(path: str) -> int | None:
    """Bytes of a local file, by one look; None where there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _sizes_in_store(folder: str, deep: bool) -> dict[str, int]:
    """One listing, asked for again where the store throttles, as `lgsrr.storage` does for reading."""
    with storage._explained(folder):
        files, key = storage._remote(folder)
        depth = None if deep else 1
        found: dict[str, dict[str, Any]] = storage._patiently(lambda: files.find(key, maxdepth=depth, detail=True))
    start = len(key.rstrip("/")) + 1
    return {path[start:]: int(info["size"]) for path, info in found.items() if info["type"] == "file"}


def _folder_of(table: str | None) -> str | None:
    """The folder that a table lies in; a folder is itself."""
    if table is None or (not storage.is_uri(table) and os.path.isdir(table)):
        return table
    return posixpath.dirname(table) if posixpath.splitext(table)[1] else table

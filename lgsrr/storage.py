"""Where bytes come from and go to: a local path, or a URI such as `s3://bucket/prefix`, always whole.

Tables are megabytes, so a file is read in one piece and parsed from memory: simpler than a stream, at the price of the
file's size in memory. What is written is there whole or not at all: renamed into place on a disk, one put on a store.
fsspec (and s3fs) is loaded only when a URI is met; a store that throttles or hangs up is asked again. Every failure of
the surroundings (missing, not permitted, disk full, no credentials, no network) becomes one `DataError` with the path;
all but "missing" are a `StorageError`.
"""

from __future__ import annotations

import errno
import os
import posixpath
import random
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

from lgsrr.errors import DataError, StorageError
from lgsrr.files import atomic_path

T = TypeVar("T")

Kind = Literal["file", "folder", "missing"]

join = posixpath.join
"""`join(folder, name, …)`, for paths and URIs alike."""


def is_uri(path: str) -> bool:
    """Whether `path` is a URI rather than a local path."""
    return "://" in path


def absolute(path: str) -> str:
    """A local path from the root on; a URI as it is, but for a slash at its end."""
    return path.rstrip("/") if is_uri(path) else os.path.abspath(os.path.expanduser(path))


def kind(path: str) -> Kind:
    """What lies at `path`. A folder on the way that may not be entered is a DataError, not "missing"."""
    with _explained(path):
        try:
            if is_uri(path):
                files, key = _remote(path)
                return "folder" if files.info(key)["type"] == "directory" else "file"
            return "folder" if stat.S_ISDIR(os.stat(path).st_mode) else "file"
        except (FileNotFoundError, NotADirectoryError):
            return "missing"


def names_in(folder: str) -> list[str]:
    """Names of the files and folders directly in `folder`, sorted."""
    with _explained(folder):
        if not is_uri(folder):
            return sorted(os.listdir(folder))
        files, key = _remote(folder)
        paths = (path.rstrip("/") for path in files.ls(key, detail=False))
        return sorted(posixpath.basename(path) for path in paths if path != key.rstrip("/"))


def part_files(folder: str, suffix: str = ".parquet") -> list[str]:
    """Paths of the files in `folder` that end in `suffix`, sorted; none where there is no such folder.

    Names that begin with a dot or an underscore are somebody's unfinished write and are left out.
    """
    if kind(folder) != "folder":
        return []
    return [join(folder, name) for name in names_in(folder) if name.endswith(suffix) and name[0] not in "._"]


def read_bytes(path: str) -> bytes:
    """The whole content of one file. Raises DataError where it is missing or may not be read."""
    with _explained(path):
        if is_uri(path):
            files, key = _remote(path)
            return bytes(_patiently(lambda: files.cat_file(key)))
        return Path(path).read_bytes()


def read_all(paths: Sequence[str]) -> list[bytes]:
    """The content of each file, in the order of `paths`; the files of a remote store are fetched side by side."""
    if len(paths) < 2 or not is_uri(paths[0]):
        return [read_bytes(path) for path in paths]
    with _explained(posixpath.dirname(paths[0])):
        files, _ = _remote(paths[0])
        keys = [files._strip_protocol(path) for path in paths]
        contents = _patiently(lambda: files.cat(keys))
        return [bytes(contents[key]) for key in keys]


def read_if_there(path: str) -> bytes | None:
    """The content of a file, or None where there is none: one look instead of two."""
    with _explained(path):
        try:
            if is_uri(path):
                files, key = _remote(path)
                return bytes(_patiently(lambda: files.cat_file(key)))
            return Path(path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None


def write_bytes(path: str, content: bytes) -> None:
    """Write a file whole; folders on the way are made. When this returns, it is on the disk (or in the store)."""
    with _explained(path, "written"):
        if is_uri(path):
            files, key = _remote(path)
            _patiently(lambda: files.pipe_file(key, content))
            return
        with atomic_path(Path(path)) as temporary:
            temporary.write_bytes(content)


def remove(path: str) -> None:
    """Remove one file; that it is gone already is fine."""
    with _explained(path, "removed"), suppress(FileNotFoundError):
        if is_uri(path):
            files, key = _remote(path)
            _patiently(lambda: files.rm_file(key))
        else:
            os.unlink(path)


def remove_folder(path: str) -> None:
    """Remove a folder and all in it; that it is gone already is fine."""
    with _explained(path, "removed"), suppress(FileNotFoundError):
        if is_uri(path):
            files, key = _remote(path)
            _patiently(lambda: files.rm(key, recursive=True))
        else:
            shutil.rmtree(path)


def fetch_folder(path: str, to: Path) -> None:
    """Copy all files of a folder, and of those in it, to a folder of this machine.

    Raises DataError where a name leads out of it: a store takes `../` for a name like any other.
    """
    with _explained(path):
        files, key = _remote(path)
        found = {str(name): posixpath.relpath(name, key) for name in _patiently(lambda: files.find(key))}
    if strange := [name for name in found if ".." in name.split("/")]:
        raise DataError(f"{path}: the name {strange[0]!r} leads out of the folder; nothing is copied from there")
    with _explained(path):
        contents = _patiently(lambda: files.cat(list(found)))
        for name, relative in found.items():
            target = to / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(bytes(contents[name] if isinstance(contents, dict) else contents))


_TRIES = 6


def _patiently(action: Callable[[], T], sleep: Callable[[float], None] = time.sleep) -> T:
    """What `action` gives, which a store that throttles, fails or hangs up is asked for again: 6 times in 16 s."""
    for attempt in range(_TRIES):
        try:
            return action()
        except (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError):
            raise
        except Exception:
            if attempt == _TRIES - 1:
                raise
            sleep(random.uniform(0.5, 1.0) * 2**attempt / 2)
    raise AssertionError("not reached")


def _remote(uri: str) -> tuple[Any, str]:
    """The fsspec file system of a URI and the key within it; listings are never cached, other processes write too."""
    from fsspec.core import url_to_fs

    files, key = url_to_fs(uri, use_listings_cache=False)
    return files, str(key)


@contextmanager
def _explained(path: str, done: str = "read") -> Iterator[None]:
    """Turn what the file system or the store says into one DataError about `path`."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path}: no such file or folder. Check the name, and that all tables are there.") from None
    except PermissionError as error:
        what = "read it" if done == "read" else f"have it {done}"
        raise StorageError(f"{error.filename or path}: no permission to {what}. {_how_to_permit(path)}") from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be {done}: {error.strerror or error}.{_room(error)}") from error
    except Exception as error:
        if not is_uri(path):
            raise
        what = f"{type(error).__name__}: {error}"
        raise StorageError(f"{path}: the store cannot be reached ({what}). {_how_to_permit(path)}") from error


def _room(error: OSError) -> str:
    return " Make room, then give the same command again." if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""


def _how_to_permit(path: str) -> str:
    if is_uri(path):
        return "Check the credentials (AWS_PROFILE or AWS_ACCESS_KEY_ID), the endpoint (AWS_ENDPOINT_URL), the bucket."
    return "Its owner can grant it: chmod -R a+rX on the folder that holds it."

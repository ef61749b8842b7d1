"""Folders of Parquet parts, each whole, under a name of its own, and never changed: what an output is made of.

Since a part never changes, the columns that say which work a row is of (`INDEX`, some 100 bytes a row) are read once
and kept, in place of reading every part anew for each question that a run has: what is done, what did it cost, what
stands twice. Everything else is read when it is asked for, part by part.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lgsrr import storage

WORK = ("id", "fingerprint", "aspect", "stage")
"""What tells two rows of a folder apart, of the columns that it has."""
CHARGE = ("id", "fingerprint", "created_at", "cost_usd")
INDEX = (*WORK, "created_at", "cost_usd")
READ_AT_ONCE = 64
"""Parts that are fetched side by side from a store."""


class Parts:
    """The parts below a folder or `s3://` prefix. One process writes; any number may read."""

    def __init__(self, out: str) -> None:
        self._out = out
        self._stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + f"-{os.urandom(3).hex()}"
        self._put = 0
        self._indices: dict[str, pa.Table] = {}

    def paths(self, folder: str) -> list[str]:
        """In their order, the oldest first."""
        return storage.part_files(storage.join(self._out, folder))

    def index(self, folder: str) -> dict[str, pa.Table]:
        """Path → the columns of `INDEX` that there are, part by part in their order."""
        paths = self.paths(folder)
        new = [path for path in paths if path not in self._indices]
        for start in range(0, len(new), READ_AT_ONCE):
            some = new[start : start + READ_AT_ONCE]
            for path, content in zip(some, storage.read_all(some), strict=True):
                self._indices[path] = _index_in(content)
        return {path: self._indices[path] for path in paths}

    def columns(self, folder: str, *names: str) -> Iterator[tuple[Any, ...]]:
        """Every row of a folder as a tuple of some of its `INDEX`."""
        for index in self.index(folder).values():
            yield from columns_of(index, *names)

    def tables(self, folder: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Part by part."""
        for path in self.paths(folder):
            yield read_part(path, columns)

    def rows(self, folder: str, ids: Collection[str]) -> list[dict[str, Any]]:
        """All rows of some utterances, in the order of the parts; of the others nothing is read but the index."""
        wanted = pa.array(ids, pa.string())
        found: list[dict[str, Any]] = []
        for path, index in self.index(folder).items():
            hit = pc.is_in(index.column("id"), wanted)
            if pc.any(hit).as_py():
                found += read_part(path).filter(hit).to_pylist()
        return found

    def put(self, folder: str, table: pa.Table) -> None:
        """Add a part."""
        self._put += 1
        path = storage.join(self._out, folder, f"part-{self._stamp}-{self._put:06d}.parquet")
        storage.write_bytes(path, parquet_bytes(table))
        self._indices[path] = _index_of(table)

    def remove(self, path: str) -> None:
        storage.remove(path)
        self._indices.pop(path, None)


def read_part(path: str, columns: Sequence[str] | None = None) -> pa.Table:
    return pq.read_table(io.BytesIO(storage.read_bytes(path)), columns=None if columns is None else list(columns))


def columns_of(table: pa.Table, *names: str) -> Iterator[tuple[Any, ...]]:
    """Rows as tuples: a dictionary for each of a million rows takes its time."""
    return zip(*(table.column(name).to_pylist() for name in names), strict=True)


def parquet_bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _index_in(content: bytes) -> pa.Table:
    file = pq.ParquetFile(io.BytesIO(content))
    return file.read([name for name in INDEX if name in file.schema_arrow.names])


def _index_of(table: pa.Table) -> pa.Table:
    return table.select([name for name in INDEX if name in table.column_names])

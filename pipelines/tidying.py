"""Tidying a folder of parts: rows go that stand twice or that newer work has replaced, and small parts are joined.

The new part is written, then the old ones are removed; where that is cut in two, rows stand twice until the next time.
Which rows go is told from the index, and a part of which nothing goes is not read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .parts import CHARGE, WORK, Parts, columns_of, read_part

PART_ROWS = 20_000
"""Parts are joined up to so many rows."""
Keep = Callable[[str, str, str | None], bool]
"""Whether a row stays, by its utterance, fingerprint and (where it has one) stage."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Kept:
    """What tidying leaves of a part."""

    path: str
    places: Sequence[int] | None
    """Rows that stay; None: all."""
    rows: int

    def read(self) -> pa.Table:
        table = read_part(self.path)
        return table if self.places is None else table.take(pa.array(self.places, pa.int64()))


def tidy_folder(parts: Parts, folder: str, keep: Keep | None, *, replaced: str) -> float:
    """Tidy one folder.

    Args:
        keep: None keeps every row that stands once.
        replaced: the folder into which goes what was charged for rows that are dropped.

    Returns:
        Dollars on the receipts of the rows that `keep` has dropped.
    """
    twice = rows_that_stand_twice(parts, folder)
    lost, rows = 0.0, 0
    group: list[_Kept] = []
    charges: list[pa.Table] = []

    def close() -> None:
        nonlocal group, rows, charges
        if charges:
            parts.put(replaced, pa.concat_tables(charges))
        if len(group) > 1 or any(part.places is not None for part in group):
            tables = [part.read() for part in group if part.rows]
            if tables:
                parts.put(folder, pa.concat_tables(tables))
            for part in group:
                parts.remove(part.path)
        group, rows, charges = [], 0, []

    for path, index in parts.index(folder).items():
        older = twice.get(path, set())
        kept = [place for place, good in enumerate(_wanted(index, keep)) if good and place not in older]
        part = _Kept(path, None if len(kept) == len(index) else kept, len(kept))
        if part.places is not None:
            gone = index.take(pa.array(sorted(set(range(len(index))) - set(kept) - older), pa.int64()))
            again = index.take(pa.array(sorted(older), pa.int64()))
            charges += [paid for table in (gone, again) if len(paid := _paid(table))]
            lost += pc.sum(gone.column("cost_usd")).as_py() or 0.0
        if rows and rows + part.rows > PART_ROWS:
            close()
        group.append(part)
        rows += part.rows
    close()
    return lost


def rows_that_stand_twice(parts: Parts, folder: str) -> dict[str, set[int]]:
    """Part → places of rows whose work stands twice: all but the one that was made last, the first of equals."""
    indices = parts.index(folder)
    if not indices:
        return {}
    whole = pa.concat_tables(indices.values())
    key = [name for name in WORK if name in whole.column_names]
    counts = whole.select(key).group_by(key).aggregate([([], "count_all")])
    if len(counts) == len(whole):
        return {}
    names = counts.filter(pc.greater(counts.column("count_all"), 1)).column("id").combine_chunks()
    newest: dict[tuple[Any, ...], tuple[Any, str, int]] = {}
    twice: dict[str, set[int]] = {path: set() for path in indices}
    for path, index in indices.items():
        places = pc.indices_nonzero(pc.is_in(index.column("id"), names))
        made_of = columns_of(index.take(places), "created_at", *key)
        for place, (made, *work) in zip(places.to_pylist(), made_of, strict=True):
            this, known = (made, path, place), newest.get(tuple(work))
            if known is None or made > known[0]:
                newest[tuple(work)] = this
            older = this if newest[tuple(work)] is not this else known
            if older is not None:
                twice[older[1]].add(older[2])
    return twice


def _wanted(index: pa.Table, keep: Keep | None) -> Iterable[bool]:
    if keep is None:
        return [True] * len(index)
    stages = index.column("stage").to_pylist() if "stage" in index.column_names else [None] * len(index)
    return map(keep, index.column("id").to_pylist(), index.column("fingerprint").to_pylist(), stages)


def _paid(index: pa.Table) -> pa.Table:
    return index.filter(pc.greater(pc.fill_null(index.column("cost_usd"), 0.0), 0.0)).select(CHARGE)

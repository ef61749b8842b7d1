"""What extraction has written so far under `--out`, and how more is added: parts that are whole, once, and never
changed.

The driver alone writes here, under a lease. Rows are gathered into parts of Parquet and each part is put under a name
of its own, whole or not at all, so that a kill loses rows of which the answers are kept (`pipelines.answers`), and
nothing else. `tidy` drops what newer work has replaced and joins small parts: it writes the new part, then removes the
old ones; where it is killed between the two, rows stand twice until the next `tidy`, which is the first thing that the
next run does.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lgsrr import storage
from lgsrr.extracted import (
    ASPECTS_FILE,
    DESCRIPTIONS_FOLDER,
    MANIFEST_FILE,
    QUARANTINE_FOLDER,
    RANKINGS_FOLDER,
    UTTERANCES,
    UTTERANCES_FILE,
)
from lgsrr.records import Utterance

from .outcomes import (
    DESCRIPTION_ROWS,
    QUARANTINE_ROWS,
    RANKING_ROWS,
    Outcome,
    Stage,
    description_rows,
    quarantine_rows,
    ranking_rows,
)

FOLDERS: dict[Stage, str] = {"describe": DESCRIPTIONS_FOLDER, "rank": RANKINGS_FOLDER}
SCHEMAS = {DESCRIPTIONS_FOLDER: DESCRIPTION_ROWS, RANKINGS_FOLDER: RANKING_ROWS, QUARANTINE_FOLDER: QUARANTINE_ROWS}
_MAKE: dict[str, Callable[[Sequence[Outcome]], pa.Table]] = {
    DESCRIPTIONS_FOLDER: description_rows,
    RANKINGS_FOLDER: ranking_rows,
    QUARANTINE_FOLDER: quarantine_rows,
}
PART_ROWS = 20_000
"""Parts are joined up to so many rows."""
REPLACED_FOLDER = "replaced"
_CHARGE = ("id", "fingerprint", "created_at", "cost_usd")
_REPLACED_ROWS = pa.schema([QUARANTINE_ROWS.field(name) for name in _CHARGE])
"""What was paid for rows that are gone. A row that comes back, from answers that are kept, is the same charge."""


class Output:
    """A folder or `s3://` prefix in the layout of `lgsrr.extracted`."""

    def __init__(self, out: str) -> None:
        self.out = out.rstrip("/")
        self._stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + f"-{os.urandom(3).hex()}"
        self._parts = 0

    def path(self, *names: str) -> str:
        return storage.join(self.out, *names)

    # What is there

    def done(self, stage: Stage) -> dict[str, str]:
        """Utterance → fingerprint of the work that was done on it, under one stage that makes rows."""
        return {row["id"]: row["fingerprint"] for row in self._rows(FOLDERS[stage], ["id", "fingerprint"])}

    def quarantined(self, stage: Stage) -> dict[str, str]:
        """Utterance → fingerprint of the work that failed on it."""
        rows = self._rows(QUARANTINE_FOLDER, ["id", "stage", "fingerprint"])
        return {row["id"]: row["fingerprint"] for row in rows if row["stage"] == stage}

    def descriptions(self) -> dict[str, dict[str, str]]:
        """Utterance → aspect → text; of parts that say two things of one, the newer one's."""
        found: dict[str, dict[str, str]] = {}
        for row in self._rows(DESCRIPTIONS_FOLDER, ["id", "aspect", "text"]):
            found.setdefault(row["id"], {})[row["aspect"]] = row["text"]
        return found

    def table(self, folder: str, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows of a folder, in the order of their parts; for reports."""
        tables = [_read(path, columns) for path in self._part_paths(folder)]
        schema = SCHEMAS[folder]
        empty = schema if columns is None else pa.schema([schema.field(name) for name in columns])
        return pa.concat_tables(tables) if tables else empty.empty_table()

    def cost_usd(self) -> float:
        """Dollars that were charged for all of this: on receipts, for discovery, and for rows that were replaced."""
        discovery: Mapping[str, float] = (self.aspects() or {}).get("found", {}).get("charged", {})
        return sum(self._charges(SCHEMAS).values()) + self.cost_of_replaced_usd() + sum(discovery.values())

    def cost_of_replaced_usd(self) -> float:
        """The part of it that was charged for rows that are not there any more."""
        there = self._charges(SCHEMAS)
        return sum(usd for name, usd in self._charges([REPLACED_FOLDER]).items() if name not in there)

    def _charges(self, folders: Iterable[str]) -> dict[tuple[Any, ...], float]:
        """Each charge once, also where a row stands twice; a work's one answer may have made several rows."""
        found: dict[tuple[Any, ...], float] = {}
        for folder in folders:
            for row in self._rows(folder, _CHARGE):
                name = (row["id"], row["fingerprint"], row["created_at"])
                found[name] = max(found.get(name, 0.0), row["cost_usd"] or 0.0)
        return found

    def utterances(self) -> list[dict[str, Any]]:
        """Rows of utterances.parquet; none where there is no such file."""
        content = storage.read_if_there(self.path(UTTERANCES_FILE))
        return [] if content is None else pq.read_table(io.BytesIO(content)).to_pylist()

    def aspects(self) -> dict[str, Any] | None:
        """aspects.json, or None."""
        return self._json(ASPECTS_FILE)

    def manifest(self) -> dict[str, Any] | None:
        """manifest.json, or None."""
        return self._json(MANIFEST_FILE)

    # What is added

    def write_utterances(self, utterances: Sequence[Utterance], *, without: Collection[str] = ()) -> None:
        """utterances.parquet, with those that earlier runs have written, but `without` some; not touched where nothing
        changes."""
        names = UTTERANCES.names
        new = [{name: getattr(u, name) for name in names} for u in utterances]
        have = self.utterances()
        known = {row["id"] for row in new}
        rows = new + [{name: row.get(name) for name in names} for row in have if row["id"] not in known]
        rows = [row for row in rows if row["id"] not in without]
        if rows != have:
            self._put(UTTERANCES_FILE, _parquet(pa.Table.from_pylist(rows, schema=UTTERANCES)))

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        self._put(name, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())

    def commit(self, outcomes: Sequence[Outcome]) -> None:
        """Write outcomes of one stage: the good as a part of its folder, the others as a part of the quarantine."""
        done = [o for o in outcomes if o.status == "done"]
        bad = [o for o in outcomes if o.status == "quarantined"]
        if done:
            self._add(FOLDERS[done[0].stage], done)
        if bad:
            self._add(QUARANTINE_FOLDER, bad)

    def tidy(self, stage: Stage, wanted: Mapping[str, str]) -> float:
        """Drop rows of a stage that were replaced, or stand twice, and join small parts.

        Args:
            stage: describe or rank.
            wanted: utterance → fingerprint that counts; rows of utterances that are not named here stay.

        Returns:
            Dollars on the receipts of the rows that were dropped because other work has replaced them; they stay in
            `cost_usd`.
        """
        folder = FOLDERS[stage]
        present = {(row["id"], row["fingerprint"]) for row in self._rows(folder, ["id", "fingerprint"])}
        current = {name: mark for name, mark in wanted.items() if (name, mark) in present}
        lost = self._tidy(folder, lambda row: current.get(row["id"], row["fingerprint"]) == row["fingerprint"])
        finished = {name for name, mark in self.done(stage).items() if wanted.get(name) == mark}

        def still_bad(row: Mapping[str, Any]) -> bool:
            if row["stage"] != stage:
                return True
            return row["id"] not in finished and wanted.get(row["id"], row["fingerprint"]) == row["fingerprint"]

        return lost + self._tidy(QUARANTINE_FOLDER, still_bad)

    def _tidy(self, folder: str, keep: Callable[[Mapping[str, Any]], bool]) -> float:
        key = ["id", "fingerprint", *(n for n in ("aspect", "stage") if n in SCHEMAS[folder].names)]
        newest = self._newest(folder, key)
        lost, rows = 0.0, 0
        group: list[tuple[str, pa.Table, int]] = []
        dropped: list[dict[str, Any]] = []

        def close() -> None:
            nonlocal group, rows, dropped
            small = len(group) > 1
            changed = any(len(kept) != whole for _, kept, whole in group)
            if dropped:
                self._put_part(REPLACED_FOLDER, pa.Table.from_pylist(dropped, schema=_REPLACED_ROWS))
            if small or changed:
                tables = [kept for _, kept, _ in group if len(kept)]
                if tables:
                    self._put_part(folder, pa.concat_tables(tables))
                for path, _, _ in group:
                    storage.remove(path)
            group, rows, dropped = [], 0, []

        for path in self._part_paths(folder):
            table = _read(path, None)
            places = []
            for place, row in enumerate(table.select([*key, "created_at", "cost_usd"]).to_pylist()):
                is_newest = newest[tuple(row[k] for k in key)][1:] == (path, place)
                if is_newest and keep(row):
                    places.append(place)
                elif row["cost_usd"]:
                    dropped.append({name: row[name] for name in _CHARGE})
                    lost += row["cost_usd"] if is_newest else 0.0
            kept = table if len(places) == len(table) else table.take(pa.array(places, pa.int64()))
            if rows and rows + len(kept) > PART_ROWS:
                close()
            group.append((path, kept, len(table)))
            rows += len(kept)
        close()
        return lost

    def _newest(self, folder: str, key: Sequence[str]) -> dict[tuple[Any, ...], tuple[Any, str, int]]:
        """Of rows with the same key the one made last, the first of equals: (when, part, place)."""
        found: dict[tuple[Any, ...], tuple[Any, str, int]] = {}
        for path in self._part_paths(folder):
            for place, row in enumerate(_read(path, [*key, "created_at"]).to_pylist()):
                name = tuple(row[k] for k in key)
                if name not in found or row["created_at"] > found[name][0]:
                    found[name] = (row["created_at"], path, place)
        return found

    def _add(self, folder: str, outcomes: Sequence[Outcome]) -> None:
        self._put_part(folder, _MAKE[folder](outcomes))

    def _put_part(self, folder: str, table: pa.Table) -> None:
        self._parts += 1
        self._put(storage.join(folder, f"part-{self._stamp}-{self._parts:06d}.parquet"), _parquet(table))

    def _put(self, name: str, content: bytes) -> None:
        storage.write_bytes(self.path(name), content)

    def _part_paths(self, folder: str) -> list[str]:
        return storage.part_files(self.path(folder))

    def _rows(self, folder: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        for path in self._part_paths(folder):
            yield from _read(path, columns).to_pylist()

    def _json(self, name: str) -> dict[str, Any] | None:
        content = storage.read_if_there(self.path(name))
        return None if content is None else dict(json.loads(content))


def _read(path: str, columns: Sequence[str] | None) -> pa.Table:
    return pq.read_table(io.BytesIO(storage.read_bytes(path)), columns=None if columns is None else list(columns))


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()

"""What extraction has written so far under `--out`, and how more is added: parts that are whole, once, and never
changed.

The driver alone writes here, under a lease. Rows are gathered into parts of Parquet (`pipelines.parts`), so that a kill
loses rows of which the answers are kept (`pipelines.answers`), and nothing else. `tidy` drops what newer work has
replaced and joins small parts (`pipelines.tidying`); it is the first thing that a run does.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
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
from .parts import CHARGE, Parts, columns_of, parquet_bytes
from .tidying import Keep, tidy_folder

FOLDERS: dict[Stage, str] = {"describe": DESCRIPTIONS_FOLDER, "rank": RANKINGS_FOLDER}
SCHEMAS = {DESCRIPTIONS_FOLDER: DESCRIPTION_ROWS, RANKINGS_FOLDER: RANKING_ROWS, QUARANTINE_FOLDER: QUARANTINE_ROWS}
_MAKE: dict[str, Callable[[Sequence[Outcome]], pa.Table]] = {
    DESCRIPTIONS_FOLDER: description_rows,
    RANKINGS_FOLDER: ranking_rows,
    QUARANTINE_FOLDER: quarantine_rows,
}
REPLACED_FOLDER = "replaced"
_REPLACED_ROWS = pa.schema([QUARANTINE_ROWS.field(name) for name in CHARGE])
"""What was paid for rows that are gone. A row that comes back, from answers that are kept, is the same charge."""


class Output:
    """A folder or `s3://` prefix in the layout of `lgsrr.extracted`."""

    def __init__(self, out: str) -> None:
        self.out = out.rstrip("/")
        self._parts = Parts(self.out)

    def path(self, *names: str) -> str:
        return storage.join(self.out, *names)

    # What is there

    def done(self, stage: Stage) -> dict[str, str]:
        """Utterance → fingerprint of the work that was done on it, under one stage that makes rows."""
        return dict(self._parts.columns(FOLDERS[stage], "id", "fingerprint"))

    def quarantined(self, stage: Stage) -> dict[str, str]:
        """Utterance → fingerprint of the work that failed on it."""
        rows = self._parts.columns(QUARANTINE_FOLDER, "id", "fingerprint", "stage")
        return {name: mark for name, mark, of in rows if of == stage}

    def descriptions(self) -> dict[str, dict[str, str]]:
        """Utterance → aspect → text; of parts that say two things of one, the newer one's."""
        found: dict[str, dict[str, str]] = {}
        for table in self._parts.tables(DESCRIPTIONS_FOLDER, ["id", "aspect", "text"]):
            for name, aspect, text in columns_of(table, "id", "aspect", "text"):
                found.setdefault(name, {})[sys.intern(aspect)] = text
        return found

    def ids(self, folder: str) -> set[str]:
        """The utterances that have a row there."""
        return {name for (name,) in self._parts.columns(folder, "id")}

    def rows(self, folder: str, ids: Collection[str]) -> list[dict[str, Any]]:
        """All rows of some utterances."""
        return self._parts.rows(folder, ids)

    def table(self, folder: str, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows of a folder, in the order of their parts; for reports."""
        schema = SCHEMAS[folder]
        empty = schema if columns is None else pa.schema([schema.field(name) for name in columns])
        return pa.concat_tables([empty.empty_table(), *self._parts.tables(folder, columns)])

    def cost_usd(self) -> float:
        """Dollars that were charged for all of this: on receipts, for discovery, and for rows that were replaced."""
        discovery: Mapping[str, float] = (self.aspects() or {}).get("found", {}).get("charged", {})
        receipts = pc.sum(self._charges(SCHEMAS).column("cost_usd_max")).as_py() or 0.0
        return float(receipts) + self.cost_of_replaced_usd() + sum(discovery.values())

    def cost_of_replaced_usd(self) -> float:
        """The part of it that was charged for rows that are not there any more."""
        gone = self._charges([REPLACED_FOLDER])
        there = self._charges(SCHEMAS, only=gone.column("id").combine_chunks())
        still = set(columns_of(there, *CHARGE[:3]))
        return sum(usd or 0.0 for *name, usd in columns_of(gone, *gone.column_names) if tuple(name) not in still)

    def _charges(self, folders: Iterable[str], only: pa.Array | None = None) -> pa.Table:
        """Each charge once, also where a row stands twice; a work's one answer may have made several rows.

        `only` names the utterances that matter; None is all.
        """
        tables = [index.select(CHARGE) for folder in folders for index in self._parts.index(folder).values()]
        table = pa.concat_tables([_REPLACED_ROWS.empty_table(), *tables])
        if only is not None:
            table = table.filter(pc.is_in(table.column("id"), only))
        return table.group_by(list(CHARGE[:3])).aggregate([("cost_usd", "max")])

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
            self._put(UTTERANCES_FILE, parquet_bytes(pa.Table.from_pylist(rows, schema=UTTERANCES)))

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        self._put(name, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())

    def commit(self, outcomes: Sequence[Outcome]) -> None:
        """Write outcomes of one stage: the good as a part of its folder, the others as a part of the quarantine."""
        done = [o for o in outcomes if o.status == "done"]
        bad = [o for o in outcomes if o.status == "quarantined"]
        if done:
            folder = FOLDERS[done[0].stage]
            self._parts.put(folder, _MAKE[folder](done))
        if bad:
            self._parts.put(QUARANTINE_FOLDER, quarantine_rows(bad))

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
        if not wanted:
            return self._tidied(folder, None) + self._tidied(QUARANTINE_FOLDER, None)
        present = set(self._parts.columns(folder, "id", "fingerprint"))
        current = {name: mark for name, mark in wanted.items() if (name, mark) in present}
        lost = self._tidied(folder, lambda name, mark, _: current.get(name, mark) == mark)
        finished = {name for name, mark in self.done(stage).items() if wanted.get(name) == mark}

        def still_bad(name: str, mark: str, of: str | None) -> bool:
            return of != stage or (name not in finished and wanted.get(name, mark) == mark)

        return lost + self._tidied(QUARANTINE_FOLDER, still_bad)

    def _tidied(self, folder: str, keep: Keep | None) -> float:
        return tidy_folder(self._parts, folder, keep, replaced=REPLACED_FOLDER)

    def _put(self, name: str, content: bytes) -> None:
        storage.write_bytes(self.path(name), content)

    def _json(self, name: str) -> dict[str, Any] | None:
        content = storage.read_if_there(self.path(name))
        return None if content is None else dict(json.loads(content))

"""What extraction writes, and how it is read back: a folder or an `s3://` prefix of Parquet files.

    utterances.parquet     id, text, split, label, video; its presence marks the layout
    aspects.json           {"aspects": [{"name", "instruction", "frequency"}, …], …}, most frequent first
    descriptions/*.parquet id, aspect, text, + the receipt
    rankings/*.parquet     id, aspects (most important first), + the receipt; training split only
    quarantine/*.parquet   id, stage, reason, …

The schemas stand here, beside the reader, so that writer and reader cannot drift apart. The reader opens only the
columns that training needs; receipts stay on disk.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from lgsrr import storage
from lgsrr.checks import Described, Draft, Ranked, Said, if_known, needed, parse_split
from lgsrr.errors import DataError
from lgsrr.records import Aspect, DescribedBy
from lgsrr.tables import Columns, Row, parquet_table, parse_table, read_table, shown, text_column

UTTERANCES_FILE = "utterances.parquet"
ASPECTS_FILE = "aspects.json"
MANIFEST_FILE = "manifest.json"
DESCRIPTIONS_FOLDER = "descriptions"
RANKINGS_FOLDER = "rankings"
QUARANTINE_FOLDER = "quarantine"

UTTERANCES = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("video", pa.string()),
    ]
)
DESCRIPTIONS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("aspect", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
    ]
)
RANKINGS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("aspects", pa.list_(pa.field("element", pa.string(), nullable=False)), nullable=False),
    ]
)
RECEIPT = pa.schema(
    [
        pa.field("fingerprint", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("revision", pa.string()),
        pa.field("prompt_version", pa.string()),
        pa.field("frames", pa.list_(pa.int32())),
        pa.field("raw_answer", pa.string()),
        pa.field("attempts", pa.int32()),
        pa.field("waited_s", pa.float64()),
        pa.field("input_tokens", pa.int64()),
        pa.field("output_tokens", pa.int64()),
        pa.field("cost_usd", pa.float64()),
        pa.field("created_at", pa.timestamp("us", tz="UTC")),
        pa.field("packages", pa.string()),  # a JSON object, package → version
    ]
)
"""How a row came to be. Extraction appends these columns to `DESCRIPTIONS` and `RANKINGS`; the reader ignores them."""


def is_extracted(data: str) -> bool:
    """Whether extraction's output lies in the folder or prefix `data`."""
    return storage.kind(storage.join(data, UTTERANCES_FILE)) == "file"


def read_extracted(dataset: str, data: str, *, labels: tuple[str, ...] | None = None) -> Draft:
    """Read what extraction wrote into `data`.

    `labels` are the classes where they are known beforehand (the released datasets); None takes those of the training
    split. A folder without descriptions and without aspects.json is text alone (K = 0). Raises DataError.
    """
    descriptions = [row for part in _parts(data, DESCRIPTIONS_FOLDER, ("id", "aspect", "text")) for row in part]
    rankings = list(_rankings(data))
    aspects = _aspects(storage.join(data, ASPECTS_FILE), expected=bool(descriptions or rankings))
    return Draft(
        name=dataset,
        source=data,
        said=_utterances(storage.join(data, UTTERANCES_FILE)),
        labels=labels,
        aspects=aspects,
        descriptions=[_described(row) for row in descriptions],
        rankings=rankings,
        partial=True,
        descriptions_at=storage.join(data, DESCRIPTIONS_FOLDER),
        quarantine=_quarantine(data),
        described_by=_described_by(storage.join(data, MANIFEST_FILE), aspects),
    )


def _utterances(path: str) -> list[Said]:
    return [
        Said(
            place,
            needed(place, "id", values["id"]),
            needed(place, "text", values["text"]),
            parse_split(place, values["split"]),
            if_known(values["label"]),
            if_known(values.get("video")),
        )
        for place, values in read_table(path, Columns(("id", "text", "split", "label"), ("video",)))
    ]


def _described(row: Row) -> Described:
    place, values = row
    return Described(
        place, needed(place, "id", values["id"]), needed(place, "aspect", values["aspect"]), values["text"] or ""
    )


def _parts(data: str, folder: str, columns: tuple[str, ...]) -> Iterator[list[Row]]:
    paths = storage.part_files(storage.join(data, folder))
    for path, content in zip(paths, storage.read_all(paths), strict=True):
        yield parse_table(path, content, Columns(columns))


def _rankings(data: str) -> Iterator[Ranked]:
    paths = storage.part_files(storage.join(data, RANKINGS_FOLDER))
    for path, content in zip(paths, storage.read_all(paths), strict=True):
        table, places = parquet_table(path, content, Columns(("id", "aspects")))
        kind = table.column("aspects").type
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_string(kind.value_type):
            raise DataError(f"{path}: column 'aspects' has the type {kind}; expected a list of texts.")
        ids = text_column(path, table, "id")
        orders: list[list[str | None] | None] = table.column("aspects").to_pylist()
        for place, name, order in zip(places, ids, orders, strict=True):
            yield Ranked(place, needed(place, "id", name), tuple(aspect or "" for aspect in order or ()))


def _quarantine(data: str) -> dict[str, str]:
    rows = (row.values for part in _parts(data, QUARANTINE_FOLDER, ("id", "stage", "reason")) for row in part)
    return {values["id"]: f"{values['stage']}: {values['reason']}" for values in rows if values["id"]}


def _described_by(path: str, aspects: tuple[Aspect, ...]) -> DescribedBy | None:
    """From the settings of the last run that described; None where the manifest names none: it is there for people
    too, and training needs nothing of it."""
    content = storage.read_if_there(path)
    if content is None:
        return None
    try:
        runs = [run for run in json.loads(content)["runs"] if run["stages"].get("describe") and "settings" in run]
        settings = next((run for run in reversed(runs) if run["stages"]["describe"]["done"]), runs[-1])["settings"]
        names = ("engine", "model", "prompting", "frames", "max_side", "max_new_tokens")
        return DescribedBy(aspects=aspects, **{name: settings[name] for name in names})
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None


def _aspects(path: str, *, expected: bool) -> tuple[Aspect, ...]:
    """The aspects in the order of the file; none where there is no file and nothing that needs it."""
    if not expected and storage.kind(path) == "missing":
        return ()
    try:
        document = json.loads(storage.read_bytes(path))
        entries = document["aspects"] if isinstance(document, dict) else document
        found = tuple(_aspect(entry) for entry in entries)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not the list of aspects that extraction writes ({type(error).__name__}: {error}); expected "
            '{"aspects": [{"name": …, "instruction": …, "frequency": …}, …]}.'
        ) from None
    names = [aspect.name for aspect in found]
    repeated = [name for place, name in enumerate(names) if name in names[:place]]
    if repeated or not names:
        wrong = f"names {shown(repeated[0])} twice" if repeated else "names no aspect"
        raise DataError(f"{path}: {wrong}; expected each aspect once, most frequent first.")
    return found


def _aspect(entry: Any) -> Aspect:
    name, instruction, frequency = entry["name"], entry.get("instruction") or "", entry.get("frequency")
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"the name {shown(name)} is no text")
    return Aspect(name=name, instruction=str(instruction), frequency=None if frequency is None else int(frequency))

"""One table, whatever its format, as rows of text that know where they stand.

CSV (standard quoting), TSV (a tab separates, a double quote is a plain character, as in the released tables), JSONL and
Parquet, from a local path or a URI. Texts come out exactly as they stand in the file: nothing is stripped, unescaped
or cut. A table is held in memory whole, which suits the some ten thousand utterances of a dataset; clips and features
never come this way.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import posixpath
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from lgsrr import storage
from lgsrr.errors import DataError

FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")


class Row(NamedTuple):
    """One row: `place` is what a message shows ("train.tsv, line 14"), `values` has a key per column asked for."""

    place: str
    values: dict[str, str | None]


class Columns(NamedTuple):
    """Which columns a reader wants. Columns of the file that are not named here are ignored."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    """Taken where they are there; a row has no key for them otherwise."""
    rename: Callable[[str], str] = str
    """From the file's name of a column to the one asked for: several names for the same thing, one of them ours."""


def read_table(path: str, columns: Columns) -> list[Row]:
    """Read the table at `path`, a local path or a URI; the ending of its name tells the format.

    A line number counts lines of the file from 1, header included; a row of Parquet counts from 1. A value that is not
    there (null, a key left out) is None; an empty field of CSV and TSV is an empty text.

    Raises DataError where the file is missing, not permitted, not UTF-8 or damaged, where a column is missing, or where
    a row has too few or too many fields.
    """
    ending = posixpath.splitext(path)[1].lower()
    if ending not in FORMATS:
        hint = " Write one JSON object per line and name it .jsonl." if ending == ".json" else ""
        raise DataError(f"{path}: ends in {ending!r}; expected one of {', '.join(FORMATS)}.{hint}")
    return parse_table(path, storage.read_bytes(path), columns)


def parse_table(path: str, data: bytes, columns: Columns) -> list[Row]:
    """As `read_table`, of a file whose bytes are at hand."""
    ending = posixpath.splitext(path)[1].lower()
    if ending == ".parquet":
        return _parquet_rows(path, data, columns)
    text = _decoded(path, data)
    if ending == ".jsonl":
        return _json_rows(path, text, columns)
    return _separated_rows(path, _csv_records(path, text) if ending == ".csv" else _tsv_records(text), columns)


def shown(value: object) -> str:
    """`value` as a message shows it: quoted, control characters escaped, no longer than a line."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:78]} …"


def did_you_mean(value: str, known: Iterable[str]) -> str:
    """A question for the end of a message, where one of `known` is close to `value` whatever its case; else nothing."""
    by_case = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(value.strip().casefold(), by_case, n=1, cutoff=0.7)
    return f" Did you mean {by_case[close[0]]!r}?" if close else ""


# Text formats


def _decoded(path: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = "it looks like UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else f"byte 0x{data[error.start]:02x}"
        raise DataError(
            f"{path}, line {line}: not UTF-8 ({what}). Save the file as UTF-8 (spreadsheets call it 'CSV UTF-8'), or "
            f"convert it: iconv -f WINDOWS-1252 -t UTF-8."
        ) from None


def _tsv_records(text: str) -> list[tuple[int, list[str]]]:
    """Lines split at tabs: what csv.QUOTE_NONE does, without its limit on the length of a field."""
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    return [(number, line.split("\t")) for number, line in enumerate(lines, 1) if line]


def _csv_records(path: str, text: str) -> list[tuple[int, list[str]]]:
    """Records of standard CSV, each with the line that it begins on: a quoted field may hold line breaks."""
    records = []
    start = 1
    limit = csv.field_size_limit(2**31 - 1)  # the default of 131072 is less than a long transcript
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        for fields in reader:
            if fields:
                records.append((start, fields))
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}, line {start}: the quoting is broken ({error}). A double quote inside a quoted field is written "
            'twice (""), and a field that opens with a quote must close with one.'
        ) from None
    finally:
        csv.field_size_limit(limit)
    return records


def _separated_rows(path: str, records: list[tuple[int, list[str]]], columns: Columns) -> list[Row]:
    if not records:
        raise DataError(f"{path}: the file is empty; expected a header line with {_listed(columns.required)}.")
    header = records[0][1]
    picked = [(header.index(ours), name) for ours, name in _pick(path, header, columns)]
    rows = []
    for number, fields in records[1:]:
        if len(fields) != len(header):
            raise _uneven(path, number, fields, header)
        rows.append(Row(f"{path}, line {number}", {name: fields[index] for index, name in picked}))
    return rows


def _uneven(path: str, number: int, fields: list[str], header: list[str]) -> DataError:
    what = "many" if len(fields) > len(header) else "few"
    cause = (
        "a tab within a text separates too" if path.lower().endswith(".tsv") else "a text with commas stands in quotes"
    )
    return DataError(
        f"{path}, line {number}: too {what} fields, {len(fields)} where the header has {len(header)} "
        f"({_listed(header)}); {cause}. The row begins with {shown(fields[0])}."
    )


def _json_rows(path: str, text: str, columns: Columns) -> list[Row]:
    records = [(n, _json_object(path, n, line)) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not records:
        raise DataError(
            f"{path}: the file is empty; expected one JSON object per line with {_listed(columns.required)}."
        )
    picked = _pick(path, list({key: None for _, record in records for key in record}), columns)
    rows = []
    for number, record in records:
        place = f"{path}, line {number}"
        rows.append(Row(place, {name: _json_text(place, name, record.get(key)) for key, name in picked}))
    return rows


def _json_object(path: str, number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path}, line {number}: not JSON ({error}); expected one object per line.") from None
    if not isinstance(record, dict):
        raise DataError(f"{path}, line {number}: {shown(record)} is no JSON object; expected {{…}} on each line.")
    return record


def _json_text(place: str, column: str, value: object) -> str | None:
    if value is None or (isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"{place}: {column} is {shown(value)}; expected a text (or null).")


# Parquet


def parquet_table(path: str, data: bytes, columns: Columns) -> tuple[Any, list[str]]:
    """The columns asked for as a `pyarrow.Table`, renamed to our names, and the place of each of its rows.

    Raises DataError where the file is no Parquet, is damaged, or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        picked = _pick(path, file.schema_arrow.names, columns)
        table = file.read(columns=[ours for ours, _ in picked]).select([ours for ours, _ in picked])
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: no Parquet file, or a truncated one ({reason}). Write or copy it again.") from error
    return table.rename_columns([name for _, name in picked]), [f"{path}, row {n + 1}" for n in range(table.num_rows)]


def text_column(path: str, table: Any, name: str) -> list[str | None]:
    """A column of a `pyarrow.Table` as texts; whole numbers are written out, any other type is a DataError."""
    import pyarrow as pa

    column = table.column(name)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    textual = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if not (textual or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise DataError(f"{path}: column {name!r} has the type {column.type}; expected text. Write it as strings.")
    values: list[str | None] = column.cast(pa.string()).to_pylist()
    return values


def _parquet_rows(path: str, data: bytes, columns: Columns) -> list[Row]:
    table, places = parquet_table(path, data, columns)
    names: Sequence[str] = table.column_names
    values = [text_column(path, table, name) for name in names]
    cells = zip(*values, strict=True)
    return [Row(place, dict(zip(names, row, strict=True))) for place, row in zip(places, cells, strict=True)]


# Columns


def _pick(path: str, header: Sequence[str], columns: Columns) -> list[tuple[str, str]]:
    """Pairs (name in the file, name asked for). Raises DataError where one is missing or stands there twice."""
    found: dict[str, str] = {}
    wanted = {*columns.required, *columns.optional}
    for ours in header:
        name = columns.rename(ours)
        if name in wanted and name in found:
            raise DataError(f"{path}: two columns mean {name!r} ({found[name]!r} and {ours!r}); expected one.")
        found[name] = ours
    missing = [name for name in columns.required if name not in found]
    if missing:
        spare = [ours for name, ours in found.items() if name not in wanted]
        raise DataError(_missing(path, missing, header, columns.required, spare))
    return [(found[name], name) for name in (*columns.required, *columns.optional) if name in found]


def _missing(
    path: str, missing: Sequence[str], header: Sequence[str], required: Sequence[str], spare: Sequence[str]
) -> str:
    separators = [mark for mark in (";", "\t", ",") if len(header) == 1 and mark in header[0]]
    if separators:
        hint = f" The header seems to be separated by {separators[0]!r}: expected commas in .csv, tabs in .tsv."
    else:
        hint = "".join(sorted({did_you_mean(name, spare) for name in missing})).replace("Did you mean", "Is it")
    return (
        f"{path}: no column {_listed(missing)}; expected {_listed(required)}, and the columns there are "
        f"{_listed(header)}.{hint}"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(shown(name) for name in names)

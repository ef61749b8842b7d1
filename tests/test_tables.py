"""Tables in every format: what stands in the file comes out, and what is wrong is told with its place."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from lgsrr.errors import DataError
from lgsrr.tables import Columns, Row, read_table
from tests.tables_on_disk import write_csv, write_parquet, write_tsv

COLUMNS = Columns(("id", "text"))
LONG = " ".join(["word"] * 10_000) + " " + "x" * 200_000
ODD = ["a\ttab", 'she said "no"', '"opens and never closes', "🙂 naïve 雪", "  blanks  ", LONG]


def rows(path: Path) -> list[Row]:
    return read_table(str(path), COLUMNS)


def texts(path: Path) -> list[str | None]:
    return [row.values["text"] for row in rows(path)]


def write_rows(path: Path, values: list[str]) -> Path:
    match path.suffix:
        case ".csv":
            write_csv(path, [("id", "text"), *(("x", value) for value in values)])
        case ".tsv":
            write_tsv(path, [("id", "text"), *(("x", value) for value in values)])
        case ".jsonl":
            lines = (json.dumps({"id": "x", "text": value}, ensure_ascii=False) for value in values)
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        case ".parquet":
            write_parquet(path, [{"id": "x", "text": value} for value in values])
    return path


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_tabs_quotes_emoji_line_breaks_and_ten_thousand_words_survive(tmp_path: Path, ending: str) -> None:
    values = [*ODD, "two\nlines", "three\r\nlines", "line\u2028separator"]
    assert texts(write_rows(tmp_path / f"t.{ending}", values)) == values


def test_a_double_quote_in_a_tsv_is_a_plain_character(tmp_path: Path) -> None:
    values = [value for value in ODD if "\t" not in value]
    assert texts(write_rows(tmp_path / "t.tsv", values)) == values


def test_a_tsv_reads_as_csv_quote_none_reads_it(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "t.tsv", ['"a', 'b"', "c\u2028d", "e"])
    with path.open(encoding="utf-8", newline="") as file:
        expected = [row[1] for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)][1:]
    assert texts(path) == expected


def test_reading_a_csv_leaves_the_field_size_limit_of_the_process_as_it_was(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    assert texts(write_rows(tmp_path / "t.csv", [LONG])) == [LONG]
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_crlf_a_byte_order_mark_and_a_missing_last_line_end_change_nothing(tmp_path: Path, ending: str) -> None:
    comma = "," if ending == "csv" else "\t"
    path = tmp_path / f"t.{ending}"
    path.write_bytes(f"\ufeffid{comma}text\r\n\r\na{comma}one\r\nb{comma}two".encode())
    assert rows(path) == [
        Row(f"{path}, line 3", {"id": "a", "text": "one"}),
        Row(f"{path}, line 4", {"id": "b", "text": "two"}),
    ]


def test_the_line_number_after_a_field_with_line_breaks_is_that_of_the_editor(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('id,text\na,"one\ntwo\nthree"\nb,four\n', encoding="utf-8")
    assert [row.place for row in rows(path)] == [f"{path}, line 2", f"{path}, line 5"]


def test_whole_numbers_become_text_and_nulls_stay_null(tmp_path: Path) -> None:
    lines = tmp_path / "t.jsonl"
    lines.write_text('{"id": 7, "text": null}\n\n{"text": "b", "other": [1]}\n', encoding="utf-8")
    assert [row.values for row in rows(lines)] == [{"id": "7", "text": None}, {"id": None, "text": "b"}]
    columns = write_parquet(tmp_path / "t.parquet", [{"id": 7, "text": None}, {"id": 8, "text": "b"}])
    assert rows(columns)[0] == Row(f"{columns}, row 1", {"id": "7", "text": None})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.csv: no such file"):
        rows(tmp_path / "gone.csv")


def test_an_ending_that_is_no_table_is_told_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ends in '\.xlsx'; expected one of \.csv, \.tsv"):
        rows(tmp_path / "t.xlsx")
    with pytest.raises(DataError, match="one JSON object per line"):
        rows(tmp_path / "t.json")


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_an_empty_file_says_what_was_expected(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"t.{ending}"
    path.touch()
    with pytest.raises(DataError, match=r"the file is empty; expected .*'id', 'text'"):
        rows(path)


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_a_renamed_column_is_told_with_the_columns_there_and_the_close_one(tmp_path: Path, ending: str) -> None:
    path = write_rows(tmp_path / f"t.{ending}", ["a"])
    with pytest.raises(
        DataError, match=r"no column 'Texts'; expected 'id', 'Texts', .* there are 'id', 'text'\. Is it 'text'\?"
    ):
        read_table(str(path), Columns(("id", "Texts")))


def test_a_header_with_the_wrong_separator_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id;text\na;b\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"separated by ';': expected commas"):
        rows(path)


def test_two_columns_of_one_meaning_are_told(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", [("id", "text", "text"), ("a", "b", "c")])
    with pytest.raises(DataError, match="two columns mean 'text'"):
        rows(path)


@pytest.mark.parametrize(("row", "what"), [(("a",), "few fields, 1"), (("a", "b", "c"), "many fields, 3")])
@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_a_row_with_too_few_or_too_many_fields_is_named_by_its_line(
    tmp_path: Path, ending: str, row: tuple[str, ...], what: str
) -> None:
    write = write_csv if ending == "csv" else write_tsv
    path = write(tmp_path / f"t.{ending}", [("id", "text"), ("x", "y"), row])
    with pytest.raises(DataError, match=rf"t\.{ending}, line 3: too {what} where the header has 2 \('id', 'text'\)"):
        rows(path)


def test_a_quote_that_never_closes_is_told_where_it_opens(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('id,text\na,fine\nb,"never closed\nc,swallowed\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"t\.csv, line 3: the quoting is broken"):
        rows(path)


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_a_file_that_is_not_utf_8_is_told_with_line_byte_and_remedy(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"t.{ending}"
    path.write_bytes("id,text\na,fine\nb,café\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"line 3: not UTF-8 \(byte 0xe9\).*iconv"):
        rows(path)
    path.write_bytes("id,text\na,fine\n".encode("utf-16"))
    with pytest.raises(DataError, match="looks like UTF-16"):
        rows(path)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"id": "a", "text": ', "not JSON"),
        ('["a", "b"]', "no JSON object"),
        ('{"id": "a", "text": 1.5}', "text is 1.5; expected a text"),
        ('{"id": "a", "text": true}', "text is True; expected a text"),
        ('{"id": "a", "text": "\\ud83d"}', "expected a text"),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str, what: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(f'{{"id": "x", "text": "y"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(DataError, match=rf"t\.jsonl, line 2: .*{what}"):
        rows(path)


def test_a_truncated_parquet_is_told_so(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "t.parquet", ["a"] * 100)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"t\.parquet: no Parquet file, or a truncated one"):
        rows(path)


def test_a_parquet_column_of_another_type_is_told(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "t.parquet", [{"id": 1.5, "text": "a"}])
    with pytest.raises(DataError, match="column 'id' has the type double; expected text"):
        rows(path)


def test_a_table_in_a_store_reads_as_a_local_one() -> None:
    import fsspec

    with fsspec.open("memory://tables/t.tsv", "wb") as file:
        file.write(b"id\ttext\na\tone\n")
    assert read_table("memory://tables/t.tsv", COLUMNS) == [
        Row("memory://tables/t.tsv, line 2", {"id": "a", "text": "one"})
    ]
    with pytest.raises(DataError, match=r"memory://tables/gone\.tsv: no such file"):
        read_table("memory://tables/gone.tsv", COLUMNS)


def test_a_store_that_cannot_be_reached_is_told_with_where_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "not-to-be-shown",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("lgsrr.storage._TRIES", 1)  # that it is asked again is another test's matter
    with pytest.raises(DataError, match=r"s3://bucket/t\.tsv: .*AWS_ENDPOINT_URL") as told:
        read_table("s3://bucket/t.tsv", COLUMNS)
    assert "not-to-be-shown" not in str(told.value)

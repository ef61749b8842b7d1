"""The catalog: the released tables to the last count, every layout, and each thing that can be wrong with data."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lgsrr import aspects, catalog
from lgsrr.catalog import load_dataset, summarise
from lgsrr.errors import ConfigError, DataError
from lgsrr.extracted import DESCRIPTIONS, RANKINGS, UTTERANCES
from lgsrr.records import SPLITS, Dataset
from tests.shared import SHARED, needs_shared
from tests.tables_on_disk import (
    ACTIONS,
    ASPECTS,
    EXPRESSIONS,
    INTERACTION,
    edit,
    write_csv,
    write_extracted,
    write_parquet,
    write_released,
)

TRAIN, DEV, TEST = (f"data_text/MIntRec2.0/{split}.tsv" for split in SPLITS)
DESCRIBED = "data_desc/mintrec2.0/dev.tsv"
RANKED = "data_rank/rank_mintrec2_train.tsv"


@pytest.fixture
def released(tmp_path: Path) -> Path:
    return write_released(tmp_path / "released")


@pytest.fixture
def extracted(tmp_path: Path) -> Path:
    return write_extracted(tmp_path / "extracted")


def refused(dataset: str, data: Path, *words: str) -> None:
    """Loading fails with one message, of one line, that has all the words."""
    with pytest.raises(DataError) as told:
        load_dataset(dataset, str(data))
    message = str(told.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def own(path: Path, *rows: tuple[str, str, str, str]) -> Path:
    return write_csv(path, [("id", "text", "split", "label"), *rows])


# What was published


@needs_shared
@pytest.mark.parametrize(
    ("dataset", "splits", "labels", "ranks"),
    [
        ("mintrec2", [6165, 1106, 2033], 30, [[1476, 3814, 875], [523, 1450, 4192], [4166, 901, 1098]]),
        ("iemocap_da", [6590, 942, 1884], 12, [[1675, 3982, 933], [604, 1542, 4444], [4311, 1066, 1213]]),
    ],
)
def test_the_released_tables_have_the_counts_of_the_paper(
    dataset: str, splits: list[int], labels: int, ranks: list[list[int]]
) -> None:
    summary = summarise(load_dataset(dataset, str(SHARED / "data")))
    assert summary["dataset"] == dataset
    assert summary["splits"] == dict(zip(SPLITS, splits, strict=True))
    assert len(summary["labels"]) == labels
    assert [sum(counts[split] for counts in summary["labels"].values()) for split in SPLITS] == splits
    assert summary["ranks"] == dict(zip(ASPECTS, ranks, strict=True))


@needs_shared
def test_utterances_of_the_released_tables_come_out_joined_by_id() -> None:
    first = load_dataset("mintrec2", str(SHARED / "data")).utterances[0]
    assert first.id == "dia0_utt0"
    assert first.text.startswith("so without further ado")
    assert first.label == "Introduce"
    assert [text.split()[:3] for text in first.descriptions] == [
        ["The", "man", "is"],
        ["Both", "the", "man"],
        ["The", "man", "is"],
    ]
    assert first.ranking == (INTERACTION, ACTIONS, EXPRESSIONS)


@needs_shared
def test_the_released_tables_load_in_under_a_second_of_cpu() -> None:
    load_dataset("sample", None)
    start = time.process_time()
    load_dataset("mintrec2", str(SHARED / "data"))
    assert time.process_time() - start < 1.0


# Layouts


@pytest.mark.parametrize("dataset", ["mintrec2", "iemocap_da"])
def test_a_clone_of_the_authors_repository_reads_as_the_folder_of_tables_in_it(tmp_path: Path, dataset: str) -> None:
    write_released(tmp_path / "clone" / "data", dataset)
    (tmp_path / "clone" / "figs").mkdir()
    inner, outer = (load_dataset(dataset, str(tmp_path / path)) for path in ("clone/data", "clone"))
    assert outer == inner
    assert [len(inner.split(split)) for split in SPLITS] == [6, 2, 4]


def test_only_the_tables_of_the_named_dataset_are_read(released: Path) -> None:
    write_released(released, "iemocap_da")
    (released / "data_text/IEMOCAP-DA/train.tsv").write_bytes(b"\xff broken")
    assert load_dataset("mintrec2", str(released)).name == "mintrec2"


def test_rows_of_the_tables_may_stand_in_any_order(released: Path) -> None:
    before = load_dataset("mintrec2", str(released))
    for path in (released / DESCRIBED, released / RANKED):
        header, *rows = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(header + b"".join(reversed(rows)))
    assert load_dataset("mintrec2", str(released)) == before


def test_two_clones_side_by_side_are_told_apart(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_released(tmp_path / name)
    refused("mintrec2", tmp_path, "/one", "/two", "Name the one")


def test_a_level_too_deep_names_the_folder_above(released: Path) -> None:
    refused("mintrec2", released / "data_text", f"--data {released}")
    refused("mintrec2", released / "data_text/MIntRec2.0", f"--data {released}")


def test_what_extraction_wrote_is_read_with_the_aspects_in_their_order(extracted: Path) -> None:
    dataset = load_dataset("mine", str(extracted))
    assert [aspect.name for aspect in dataset.aspects] == list(ASPECTS)
    assert dataset.aspects[0].instruction == f"look for {ACTIONS}"
    assert dataset.aspects[0].frequency == 9
    assert dataset.labels == ("Praise", "Taunt")
    assert dataset.utterances[0].descriptions == tuple(f"{name} of u0." for name in ASPECTS)
    assert dataset.utterances[0].ranking == tuple(reversed(ASPECTS))
    assert dataset.split("dev")[0].ranking is None


def test_receipts_are_ignored(extracted: Path) -> None:
    before = load_dataset("mine", str(extracted))
    path = extracted / "rankings" / "part-00000.parquet"
    rows = [{"id": u.id, "aspects": u.ranking, "raw_answer": "{", "cost_usd": 0.1} for u in before.split("train")]
    write_parquet(path, rows)
    assert load_dataset("mine", str(extracted)) == before


def test_a_part_file_that_is_being_written_is_left_out(extracted: Path) -> None:
    (extracted / "descriptions" / ".part-00002.parquet").write_bytes(b"half")
    (extracted / "descriptions" / "part-00002.parquet.tmp").write_bytes(b"half")
    assert len(load_dataset("mine", str(extracted)).utterances) == 12


def test_extracted_data_in_a_store_read_as_in_a_folder(extracted: Path) -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    store.put(str(extracted), "/bucket/run", recursive=True)
    remote = load_dataset("mine", "memory://bucket/run")
    assert remote.utterances == load_dataset("mine", str(extracted)).utterances
    assert remote.digest == load_dataset("mine", str(extracted)).digest


def test_extracted_data_without_descriptions_and_aspects_are_text_alone(extracted: Path) -> None:
    for name in ("descriptions", "rankings"):
        shutil.rmtree(extracted / name)
    (extracted / "aspects.json").unlink()
    dataset = load_dataset("mine", str(extracted))
    assert dataset.aspects == ()
    assert summarise(dataset)["ranks"] == {}


def test_a_part_of_a_known_dataset_keeps_all_its_classes(extracted: Path) -> None:
    edited = [{"id": "u99", "text": "hi", "split": "dev", "label": "Warn", "video": None}]
    rows = [
        {"id": u.id, "text": u.text, "split": u.split, "label": u.label, "video": None}
        for u in load_dataset("mine", str(extracted)).utterances
    ]
    write_parquet(extracted / "utterances.parquet", rows + edited, UTTERANCES)
    seen = [{"id": "u99", "aspect": name, "text": "x"} for name in ASPECTS]
    write_parquet(extracted / "descriptions" / "part-00002.parquet", seen, DESCRIPTIONS)
    assert len(load_dataset("mintrec2", str(extracted)).labels) == 30
    refused("mine", extracted, "'Warn'", "missing in train")


OWN = [
    ("a", "one, two", "train", "yes"),
    ("b", 'he said "no"\nand left', "train", "no"),
    ("c", "🙂\ttab", "dev", "yes"),
    ("d", "four", "test", "no"),
]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_table_of_the_users_own_reads_alike_in_every_format(tmp_path: Path, ending: str) -> None:
    header = ("id", "text", "split", "label", "video")
    records = [dict(zip(header, (*row, f"{row[0]}.mp4"), strict=True)) for row in OWN]
    path = tmp_path / f"own.{ending}"
    match ending:
        case "csv":
            write_csv(path, [header, *(tuple(record.values()) for record in records)])
        case "jsonl":
            path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        case "parquet":
            write_parquet(path, records)
    dataset = load_dataset("mine", str(path))
    assert [(u.id, u.text, u.split, u.label) for u in dataset.utterances] == OWN
    assert dataset.utterances[0].video == "a.mp4"
    assert dataset.labels == ("no", "yes")
    assert dataset.aspects == ()


def test_a_column_named_as_an_aspect_is_its_descriptions(tmp_path: Path) -> None:
    header = ("id", "text", "split", "label", "emotions and facial expressions", "A")
    path = write_csv(tmp_path / "own.csv", [header, *((*row, f"face {row[0]}", "not an aspect") for row in OWN)])
    dataset = load_dataset("mine", str(path))
    assert [aspect.name for aspect in dataset.aspects] == [EXPRESSIONS]
    assert [u.descriptions for u in dataset.utterances] == [(f"face {row[0]}",) for row in OWN]


def test_prediction_needs_neither_splits_nor_labels(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "new.csv", [("id", "text"), ("a", "hello")])
    (only,) = load_dataset("mine", str(path), require=()).utterances
    assert (only.split, only.label) == ("test", None)
    refused("mine", path, "no column 'split', 'label'")


def test_the_digest_follows_the_content_and_not_the_place(tmp_path: Path, released: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(released, copy)
    before = load_dataset("mintrec2", str(released)).digest
    assert load_dataset("mintrec2", str(copy)).digest == before
    edit(copy / DESCRIBED, "face of", "face by")
    assert load_dataset("mintrec2", str(copy)).digest != before


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Speakers Actions", ACTIONS),
        ("speakers’ actions", ACTIONS),
        ("Emotions and Facial Expressions", EXPRESSIONS),
        ("i", INTERACTION),
        ("TMS", "Tone and Manner of Speaking"),
        ("weather", None),
    ],
)
def test_an_aspect_goes_by_any_of_its_names(name: str, meant: str | None) -> None:
    assert aspects.canonical(name) == meant


# What can be wrong


@pytest.mark.parametrize("table", [TRAIN, TEST, DESCRIBED, RANKED])
def test_a_missing_table_is_named(released: Path, table: str) -> None:
    (released / table).unlink()
    refused("mintrec2", released, f"{released / table}: no such file")


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    refused("mintrec2", tmp_path / "gone", f"{tmp_path / 'gone'}: no such file or folder", "--data")


def test_a_folder_that_holds_no_dataset_says_what_would_be_one(tmp_path: Path) -> None:
    refused("mintrec2", tmp_path, "holds no dataset", "data_text", "utterances.parquet")
    own(tmp_path / "mine.csv")
    refused("mine", tmp_path, f"--data {tmp_path / 'mine.csv'}")


def test_an_extraction_that_has_not_finished_is_told(extracted: Path) -> None:
    (extracted / "utterances.parquet").unlink()
    refused("mine", extracted, "has not finished")


@pytest.mark.parametrize(
    ("table", "column", "renamed"),
    [
        (TRAIN, "Label", "Labels"),
        (TEST, "Text", "text"),
        (DESCRIBED, "Speakers Actions", "Speaker Action"),
        (RANKED, "Rank_First", "Rank_1st"),
    ],
)
def test_a_renamed_column_is_told_with_file_and_close_match(
    released: Path, table: str, column: str, renamed: str
) -> None:
    edit(released / table, column, renamed)
    refused("mintrec2", released, str(released / table), "no column", f"Is it {renamed!r}?")


def test_a_duplicate_id_in_a_split_names_both_lines(released: Path) -> None:
    edit(released / TRAIN, "0\t3\t", "0\t1\t")
    refused("mintrec2", released, f"{TRAIN}, line 5", "'dia0_utt1'", f"{TRAIN}, line 3")


def test_a_duplicate_id_across_splits_names_both_files(released: Path) -> None:
    edit(released / TEST, "0\t8\t", "0\t1\t")
    refused("mintrec2", released, f"{TEST}, line 2", "'dia0_utt1'", f"{TRAIN}, line 3", "(train)", "(test)")


def test_an_unknown_label_names_the_row_and_what_is_known(released: Path) -> None:
    edit(released / DEV, "Taunt", "taunts")
    refused("mintrec2", released, f"{DEV}, line 3", "unknown label 'taunts'", "Acknowledge", "Did you mean 'Taunt'?")


def test_a_label_that_train_lacks_is_named(released: Path, tmp_path: Path) -> None:
    edit(released / DEV, "Taunt", "Warn")
    refused("mintrec2", released, f"{DEV}, line 3", "'Warn'", "missing in train")
    path = own(tmp_path / "own.csv", *OWN[:3], ("d", "four", "test", "maybe"))
    refused("mine", path, "own.csv, line 6", "'maybe'", "missing in train", "no, yes")


def test_a_label_that_is_left_empty_is_told(released: Path, tmp_path: Path) -> None:
    path = own(tmp_path / "own.csv", ("z", "five", "train", " "), *OWN)
    refused("mine", path, "own.csv, line 2", "'z' has no label", "1 of 3", "Training needs a label")
    assert len(load_dataset("mine", str(path), require=("test",)).utterances) == 5
    edit(released / TEST, "Praise", "")
    refused("mintrec2", released, f"{TEST}, line 2: Label is empty")


@pytest.mark.parametrize("split", SPLITS)
def test_an_empty_split_is_named(released: Path, tmp_path: Path, split: str) -> None:
    table = released / f"data_text/MIntRec2.0/{split}.tsv"
    table.write_bytes(table.read_bytes().splitlines(keepends=True)[0])
    refused("mintrec2", released, str(table), f"the split {split!r} is empty")
    refused("mine", own(tmp_path / "own.csv", *(row for row in OWN if row[2] != split)), f"{split!r} is empty")


@pytest.mark.parametrize(("value", "meant"), [("valid", "dev"), ("validation", "dev"), ("Train", "train"), ("", "")])
def test_a_split_of_another_name_is_told_with_the_one_meant(tmp_path: Path, value: str, meant: str) -> None:
    path = own(tmp_path / "own.csv", *OWN, ("e", "five", value, "yes"))
    hint = f"Did you mean {meant!r}?" if meant else "expected train, dev or test"
    refused("mine", path, "own.csv, line 7", f"split is {value!r}", hint)


@pytest.mark.parametrize("row", [("", "five", "train", "yes"), ("e", "  ", "train", "yes")])
def test_an_utterance_without_id_or_text_is_told(tmp_path: Path, row: tuple[str, str, str, str]) -> None:
    refused("mine", own(tmp_path / "own.csv", *OWN, row), "own.csv, line 7", "is empty")


def test_an_utterance_without_a_description_is_told(released: Path) -> None:
    path = released / DESCRIBED
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    refused("mintrec2", released, "for 1 of 12", "'dia0_utt7'", f"{DEV}, line 3", "data_desc/mintrec2.0", ACTIONS)


def test_an_empty_description_is_a_missing_one_and_its_aspect_is_named(released: Path) -> None:
    edit(released / DESCRIBED, "face of 6.", "")
    refused("mintrec2", released, "1 of 12", "'dia0_utt6'", f"under {EXPRESSIONS}.")


def test_an_utterance_in_quarantine_is_told_with_its_reason(extracted: Path) -> None:
    (extracted / "descriptions" / "part-00001.parquet").unlink()
    rows = [{"id": "u6", "stage": "describe", "reason": "the clip cannot be decoded", "attempts": 2}]
    write_parquet(extracted / "quarantine" / "part-00000.parquet", rows)
    refused("mine", extracted, "for 6 of 12", "'u6'", "In quarantine: 1", "describe: the clip cannot be decoded")


def test_a_second_description_of_the_same_is_told(extracted: Path) -> None:
    rows = [{"id": "u0", "aspect": "Emotions and Facial Expressions", "text": "again"}]
    write_parquet(extracted / "descriptions" / "part-00002.parquet", rows, DESCRIPTIONS)
    refused("mine", extracted, "part-00002.parquet, row 1", "'u0' is described a second time", "part-00000")


def test_a_description_under_an_unknown_aspect_is_told(extracted: Path) -> None:
    rows = [{"id": "u0", "aspect": "Weather", "text": "rain"}]
    write_parquet(extracted / "descriptions" / "part-00002.parquet", rows, DESCRIPTIONS)
    refused("mine", extracted, "part-00002.parquet, row 1", "unknown aspect 'Weather'", ACTIONS)


def test_a_ranking_with_an_unknown_aspect_is_told(released: Path) -> None:
    edit(released / RANKED, "Interaction with Others", "Interaction with Otters")
    refused("mintrec2", released, f"{RANKED}, line 2", "'Interaction with Otters'", f"Did you mean {INTERACTION!r}?")


def test_a_ranking_with_a_repeated_aspect_is_told(released: Path) -> None:
    edit(released / RANKED, "Interaction with Others", "Speakers Actions")
    refused("mintrec2", released, f"{RANKED}, line 2", "'dia0_utt0' repeats \"Speakers' Actions\"", "once")


def test_a_ranking_that_leaves_an_aspect_out_is_told(extracted: Path) -> None:
    rows = [{"id": "u0", "aspects": [ACTIONS, INTERACTION]}]
    write_parquet(extracted / "rankings" / "part-00000.parquet", rows, RANKINGS)
    refused("mine", extracted, "part-00000.parquet, row 1", f"leaves out {EXPRESSIONS}")


def test_a_ranking_of_a_dev_utterance_is_refused_as_a_leak_of_its_label(extracted: Path) -> None:
    rows = [{"id": "u6", "aspects": list(ASPECTS)}]
    write_parquet(extracted / "rankings" / "part-00001.parquet", rows, RANKINGS)
    refused("mine", extracted, "part-00001.parquet, row 1", "'u6' belongs to 'dev'", "training split alone")


def test_a_training_utterance_without_a_ranking_is_told(released: Path) -> None:
    path = released / RANKED
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    refused("mintrec2", released, RANKED, "no ranking for 1 of", "'dia0_utt5'")


@pytest.mark.parametrize("content", ["not json", '{"aspects": [{"title": "A"}]}', '{"aspects": []}', "[1]"])
def test_aspects_that_are_not_what_extraction_writes_are_told(extracted: Path, content: str) -> None:
    (extracted / "aspects.json").write_text(content, encoding="utf-8")
    refused("mine", extracted, "aspects.json", "expected")


def test_descriptions_without_aspects_json_are_told(extracted: Path) -> None:
    (extracted / "aspects.json").unlink()
    refused("mine", extracted, "aspects.json: no such file")


def test_a_dataset_name_that_does_not_fit_the_data_is_told(released: Path) -> None:
    with pytest.raises(ConfigError, match=r"none of mintrec2, iemocap_da\. Did you mean 'mintrec2'\?"):
        load_dataset("mintrec", str(released))
    with pytest.raises(ConfigError, match=r"'mintrec2' needs --data.*catalog fetch"):
        load_dataset("mintrec2", None)
    with pytest.raises(ConfigError, match="expected a name of letters"):
        load_dataset("../mine", None)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user may enter; pytest's own are for one user."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(stat.S_IRWXU)
    shutil.rmtree(folder)


@pytest.mark.parametrize("closed", ["", "data_text", TRAIN])
def test_a_folder_or_file_without_read_permission_is_named(open_folder: Path, closed: str) -> None:
    data = write_released(open_folder / "tables")
    (data / closed).chmod(0)
    program = (
        "import os, sys\n"
        "from lgsrr.catalog import load_dataset\n"
        "from lgsrr.errors import DataError\n"
        "import lgsrr.extracted, lgsrr.own_table\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "try: load_dataset('mintrec2', sys.argv[1])\n"
        "except DataError as error: print(error)\n"
    )
    command = [sys.executable, "-c", program, str(data)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    assert str(data / closed) in done.stdout
    assert "no permission to read it" in done.stdout


# The command


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lgsrr.catalog", *arguments]
    environment = {**os.environ, "COLUMNS": "80"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_the_command_prints_splits_labels_and_rankings() -> None:
    done = run("--dataset", "sample")
    assert done.returncode == 0, done.stderr
    for row in ("│ Taunt ", "│ utterances │   192 │  48 │   80 │ 320 │", "ranked 1st", ACTIONS):
        assert row in done.stdout


def test_the_command_prints_one_json_object_of_the_promised_keys() -> None:
    done = run("--dataset", "sample", "--json")
    summary = json.loads(done.stdout)
    assert list(summary) == ["dataset", "splits", "labels", "ranks"]
    assert summary["splits"] == {"train": 192, "dev": 48, "test": 80}
    assert summary["labels"]["Taunt"] == {"train": 24, "dev": 6, "test": 10}
    assert list(summary["ranks"]) == list(ASPECTS)


def test_the_command_fails_with_one_message_and_no_traceback(released: Path) -> None:
    edit(released / DEV, "Taunt", "taunts")
    done = run("--dataset", "mintrec2", "--data", str(released))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert run("--dataset", "mintrec2").returncode == 2


def test_names_from_the_data_are_printed_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(split, "text", split, "[bold]yes[/bold]") for split in SPLITS]
    path = own(tmp_path / "[red]own.csv", *rows)
    catalog.show(catalog.Show(dataset="mine", data=str(path)))
    printed = capsys.readouterr().out
    assert "[bold]yes[/bold]" in printed
    assert "[red]own.csv" in printed
    assert "No rankings." in printed


def test_a_dataset_of_one_source_equals_itself_on_a_second_load(released: Path) -> None:
    one, two = (load_dataset("mintrec2", str(released)) for _ in range(2))
    assert isinstance(one, Dataset)
    assert one == two
    assert one.digest == two.digest

"""The tables in the authors' layout: the same dataset as the output, byte for byte where it came from their tables."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from lgsrr import storage
from lgsrr.catalog import load_dataset
from lgsrr.errors import ConfigError
from lgsrr.records import Dataset, Split, Utterance
from lgsrr.released import ASPECTS, RELEASED
from pipelines.export import check_aspects, check_export, export_released, summary
from pipelines.outcomes import Outcome, Receipt
from pipelines.output import Output
from pipelines.settings import ExtractConfig
from tests.shared import SHARED, needs_shared

NAMES = tuple(aspect.name for aspect in ASPECTS)
RECEIPT = Receipt(fingerprint="f", model="m")


def described(name: str, texts: tuple[str, ...]) -> Outcome:
    return Outcome(id=name, stage="describe", status="done", receipts=(RECEIPT,), aspects=NAMES, texts=texts)


def ranked(name: str, order: tuple[str, ...]) -> Outcome:
    return Outcome(id=name, stage="rank", status="done", receipts=(RECEIPT,), aspects=order, shown=NAMES)


def output_of(path: Path, dataset: Dataset) -> Output:
    """The output of an extraction that took everything from the data."""
    output = Output(str(path))
    output.write_utterances(dataset.utterances)
    output.write_json("aspects.json", {"aspects": [{"name": a, "instruction": "", "frequency": 1} for a in NAMES]})
    output.commit([described(u.id, u.descriptions) for u in dataset.utterances if u.descriptions])
    output.commit([ranked(u.id, u.ranking) for u in dataset.utterances if u.ranking])
    return output


def small(*utterances: Utterance) -> Dataset:
    return Dataset(name="mintrec2", source="s", labels=(), aspects=ASPECTS, utterances=utterances)


def whole(name: str, split: Split = "train", text: str = "well", first: str = "nods") -> Utterance:
    ranking = NAMES[::-1] if split == "train" else None
    return Utterance(
        id=name,
        text=text,
        split=split,
        label="Greet",
        descriptions=(first, "smiles", "turns"),
        ranking=ranking,
    )


THREE = (whole("dia0_utt0"), whole("dia0_utt1", "dev"), whole("dia12_utt30", "test"))


def config(path: Path, dataset: str = "mintrec2", **more: object) -> ExtractConfig:
    return ExtractConfig(dataset=dataset, out=str(path), export="released", **more)  # type: ignore[arg-type]


@needs_shared
@pytest.mark.parametrize("dataset", RELEASED)
def test_the_released_tables_come_back_byte_for_byte(dataset: str, tmp_path: Path) -> None:
    data = SHARED / "data"
    read = load_dataset(dataset, str(data))
    exported = export_released(config(tmp_path, dataset, data=str(data)), output_of(tmp_path, read))
    layout = RELEASED[dataset]
    for name in (layout.texts, layout.descriptions):
        for split in ("train", "dev", "test"):
            path = Path(name) / f"{split}.tsv"
            assert (tmp_path / "released" / path).read_bytes() == (data / path).read_bytes(), path
    assert (tmp_path / "released" / layout.rankings).read_bytes() == (data / layout.rankings).read_bytes()
    assert exported.left_out == 0
    assert load_dataset(dataset, exported.folder).digest == read.digest


def test_what_is_exported_is_the_dataset_that_was_extracted(tmp_path: Path) -> None:
    output = output_of(tmp_path, small(*THREE))
    exported = export_released(config(tmp_path), output)
    ours, theirs = (load_dataset("mintrec2", data) for data in (output.out, exported.folder))
    assert ours.digest == theirs.digest
    assert dict(exported.rows) == {"train": 1, "dev": 1, "test": 1}


def test_tabs_and_line_breaks_within_a_text_become_blanks_and_quotes_stay(tmp_path: Path) -> None:
    odd = whole("dia0_utt0", text='he said\t"no"', first='a\tb\r\nc\nd "e')
    export_released(config(tmp_path), output_of(tmp_path, small(odd, *THREE[1:])))
    read = load_dataset("mintrec2", str(tmp_path / "released")).utterances[0]
    assert (read.text, read.descriptions[0]) == ('he said "no"', 'a b c d "e')


def test_the_files_have_the_authors_columns_also_where_nothing_is_known_of_them(tmp_path: Path) -> None:
    export_released(config(tmp_path), output_of(tmp_path, small(*THREE)))
    released = tmp_path / "released"
    header, row = (released / "data_text/MIntRec2.0/test.tsv").read_text().splitlines()
    assert header.split("\t")[-4:] == ["Start_timestamp", "End_timestamp", "Source", "speaker_name"]
    assert row.split("\t") == ["12", "30", "well", "Greet", "", "", "", ""]


def test_an_utterance_that_is_not_described_or_not_ranked_is_left_out_and_counted(tmp_path: Path) -> None:
    bare = Utterance(id="dia1_utt1", text="t", split="train", label="Greet")
    unranked = Utterance(
        id="dia1_utt2", text="t", split="train", label="Greet", descriptions=("nods", "smiles", "turns")
    )
    exported = export_released(config(tmp_path), output_of(tmp_path, small(*THREE, bare, unranked)))
    assert exported.left_out == 2
    assert "2 left out" in summary(exported)
    assert len(load_dataset("mintrec2", exported.folder).utterances) == 3


def test_labels_that_are_never_trained_are_told(tmp_path: Path) -> None:
    odd = dataclasses.replace(whole("dia3_utt3", "test"), label="Warn")
    exported = export_released(config(tmp_path), output_of(tmp_path, small(*THREE, odd)))
    assert exported.untrained == ("Warn",)
    assert "1 label of dev and test without a training utterance" in summary(exported)


def test_exporting_again_replaces_the_tables(tmp_path: Path) -> None:
    first = export_released(config(tmp_path), output_of(tmp_path, small(*THREE)))
    before = {path: path.read_bytes() for path in Path(first.folder).rglob("*.tsv")}
    export_released(config(tmp_path), Output(str(tmp_path)))
    assert {path: path.read_bytes() for path in Path(first.folder).rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"dataset": "mine"}, "the dataset is 'mine'; the authors' layout holds mintrec2 and iemocap_da"),
        ({"aspects": "A,E,I,TMS"}, "Tone and Manner of Speaking; the authors' layout holds exactly"),
        ({"aspects": "A,E"}, "holds exactly"),
        ({"k": 4}, "k is 4"),
    ],
)
def test_what_the_layout_cannot_hold_is_refused_before_anything_runs(
    settings: dict[str, object], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=says):
        check_export(config(tmp_path, **settings), small(*THREE))  # type: ignore[arg-type]


def test_an_id_that_does_not_fit_the_id_columns_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the id 'clip 7' cannot be written .* such as 'dia0_utt1'"):
        check_export(config(tmp_path), small(*THREE, whole("clip 7")))


def test_nothing_is_checked_where_nothing_is_exported(tmp_path: Path) -> None:
    check_export(ExtractConfig(dataset="mine", out=str(tmp_path)), small(whole("clip 7")))


def test_the_aspects_may_stand_in_any_order_and_by_their_short_names(tmp_path: Path) -> None:
    check_export(config(tmp_path, aspects="I,A,E"), small(*THREE))
    check_aspects(reversed(NAMES))


def test_aspects_that_discovery_found_are_checked_before_a_table_is_written(tmp_path: Path) -> None:
    output = output_of(tmp_path, small(*THREE))
    output.write_json("aspects.json", {"aspects": [{"name": "Scene Description"}]})
    with pytest.raises(ConfigError, match="the aspects are Scene Description"):
        export_released(config(tmp_path), output)
    assert not (tmp_path / "released").exists()


def test_the_tables_are_written_to_a_store_as_to_a_disk(tmp_path: Path) -> None:
    store = "memory://export-test/out"
    output_of(tmp_path, small(*THREE))
    for path in tmp_path.rglob("*.*"):
        if path.is_file():
            storage.write_bytes(storage.join(store, str(path.relative_to(tmp_path))), path.read_bytes())
    settings = ExtractConfig(dataset="mintrec2", out=store, export="released")
    exported = export_released(settings, Output(store))
    assert exported.folder == f"{store}/released"
    assert load_dataset("mintrec2", exported.folder).digest == load_dataset("mintrec2", str(tmp_path)).digest

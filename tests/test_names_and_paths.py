"""No name from data becomes a path outside of the output: ids, labels, aspects, datasets, encoders, a store's files."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lgsrr import storage
from lgsrr.catalog import load_dataset
from lgsrr.config import TrainConfig
from lgsrr.errors import ConfigError, DataError, ModelError
from lgsrr.extracted import RANKINGS_FOLDER
from lgsrr.files import plain_name
from lgsrr.records import SPLITS, Utterance
from lgsrr.run_folder import choose_run_folder
from lgsrr.spool import RunStarted, check_run_key
from lgsrr.tracking import MlflowSink, connect
from pipelines.clips import Clip, ClipFinder
from pipelines.export import export_released
from pipelines.inputs import read_inputs
from pipelines.output import Output
from pipelines.recording import record, run_key
from pipelines.report import write_report
from pipelines.settings import ExtractConfig
from pipelines.videollama2.checkpoint import weight_files
from tests.extracted_outputs import ASPECTS, described, ranked, receipt, set_aside
from tests.memory_sink import MemorySink
from tune.settings import SearchConfig

NUL, LONG = "nul\0byte", "x" * 5000
STRANGE = ("../../outside", "/tmp/lgsrr-outside", "..", ".", "~root/x", "a/b/c", "a\\..\\b", "$(touch x)", LONG)
"""Names that people, models and tables come up with; a table holds no NUL."""
names = st.text(min_size=1, max_size=80) | st.lists(
    st.sampled_from(["..", "/", "\\", "\0", "a", ".", "~", "\n", "é", "%2e", "C:", " "]), min_size=1, max_size=12
).map("".join)


def below(folder: Path) -> set[str]:
    """Every file and folder below."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@settings(deadline=None)
@given(text=names | st.sampled_from([*STRANGE, NUL]), other=names)
def test_a_plain_name_is_one_component_and_no_two_texts_share_one(text: str, other: str) -> None:
    name = plain_name(text)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,59}", name)
    assume(text != other)
    assert plain_name(other) != name


def test_a_name_that_is_plain_stays_as_it_is() -> None:
    for name in ("lgsrr-mintrec2", "bert-large-uncased", "a.b_c-d", "x" * 60):
        assert plain_name(name) == name


@settings(deadline=None)
@given(encoder=names, dataset=st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,59}\Z"))
def test_a_run_lies_in_its_folder_and_has_a_key_whatever_the_encoder_is_called(encoder: str, dataset: str) -> None:
    runs = Path("/srv/runs")
    folder = choose_run_folder(runs, TrainConfig(dataset=dataset, encoder=encoder, k=3), "0123456789ab")
    assert folder.path.parent == runs / "train"
    assert check_run_key(folder.name) == folder.name
    search = SearchConfig(dataset=dataset, encoder=encoder).search_name
    assert Path(os.path.normpath(f"/srv/{search}")).parent == Path("/srv")
    assert len(search) <= 60


@settings(deadline=None)
@given(dataset=names)
def test_a_dataset_is_called_as_a_folder_may_be_or_refused(dataset: str) -> None:
    assert check_run_key(run_key(dataset, 1.79e9))
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}", dataset):
        with pytest.raises(ConfigError, match="expected a name of letters"):
            load_dataset(dataset, "nowhere")


@settings(deadline=None)
@given(pieces=st.lists(st.sampled_from(["..", ".", "in", "a.mp4", "out.mp4", "~", "", "\0", LONG]), max_size=6))
def test_a_clip_named_by_a_table_is_never_outside_of_the_folder_of_clips(pieces: list[str]) -> None:
    video = "/".join(pieces)
    assume(video and not video.startswith("/"))  # a whole path is taken as it is: the table's owner names it
    with tempfile.TemporaryDirectory() as folder:
        for path in ("out.mp4", "clips/a.mp4", "clips/in/a.mp4"):
            Path(folder, path).parent.mkdir(parents=True, exist_ok=True)
            Path(folder, path).write_bytes(b"clip")
        utterance = Utterance(id="u", text="t", split="test", label=None, video=video)
        found = ClipFinder(videos=f"{folder}/clips").find(utterance)
        if isinstance(found, Clip):
            assert Path(found.uri).resolve().is_relative_to(Path(folder, "clips").resolve())


def test_ids_labels_and_aspects_that_look_like_paths_make_no_file_outside(tmp_path: Path, sink: MemorySink) -> None:
    inner = tmp_path / "deep" / "er"
    out, runs = inner / "out", inner / "runs"
    said = [
        Utterance(id=name, text=name, split=SPLITS[i % 3], label=name, video=name) for i, name in enumerate(STRANGE)
    ]
    output = Output(str(out))
    output.write_utterances(said)
    aspects = STRANGE[:3]
    listed = [{"name": name, "instruction": name, "frequency": 1} for name in aspects]
    output.write_json("aspects.json", {"aspects": listed, "found": {"by": "user"}})
    made = receipt()
    for u in said[:6]:
        done = described(u.id, ("one", "two", "three"))
        output.commit([type(done)(id=u.id, stage="describe", status="done", receipts=(made,), aspects=aspects,
                                  texts=("one", "two", "three"))])  # fmt: skip
        if u.split == "train":
            output.commit([ranked(u.id, aspects, aspects)])
    output.commit([set_aside(u.id, u.id, u.id) for u in said[6:]])
    output.write_json("manifest.json", {"complete": True, "runs": []})
    table = inner / "table.jsonl"
    table.write_text('{"id": "u", "text": "t", "split": "train", "label": "l"}\n')
    config = ExtractConfig(dataset="mine", data=str(table), out=str(out), runs=str(runs), experiment="../../elsewhere")
    write_report(config, output)
    record(config, output, read_inputs(config), [], started=1.79e9, command="x")
    assert {row["id"] for row in output.table(RANKINGS_FOLDER, ["id"]).to_pylist()} == set(STRANGE[:6:3])
    assert {path.name for path in inner.iterdir()} == {"out", "runs", "table.jsonl"}
    assert below(tmp_path) - below(tmp_path / "deep") - {f"deep/{name}" for name in below(tmp_path / "deep")} == {
        "deep"
    }
    assert not Path("/tmp/lgsrr-outside").exists()
    assert sink.events, "it was recorded"


def test_an_exported_table_lies_under_the_output_whatever_the_ids_are(tmp_path: Path) -> None:
    output = Output(str(tmp_path / "deep" / "out"))
    ids = ("dia../../../x_utt1", "dia0_utt/etc/passwd", f"dia{LONG}_utt3")
    said = [Utterance(id=name, text="t", split=split, label="l") for name, split in zip(ids, SPLITS, strict=True)]
    output.write_utterances(said)
    listed = [{"name": name, "instruction": name, "frequency": 1} for name in ASPECTS]
    output.write_json("aspects.json", {"aspects": listed, "found": {"by": "user"}})
    output.commit([described(u.id) for u in said])
    output.commit([ranked(said[0].id, ASPECTS)])
    exported = export_released(ExtractConfig(dataset="mintrec2", out=output.out), output)
    assert exported.rows == {"train": 1, "dev": 1, "test": 1}
    assert {path.name for path in tmp_path.iterdir()} == {"deep"}
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"out"}


def test_artifacts_of_an_experiment_lie_beside_the_database_whatever_it_is_called(runs: Path) -> None:
    destination = f"sqlite:///{runs / 'mlflow.db'}"
    sink, asked = MlflowSink(destination), ("../../elsewhere", "/tmp/lgsrr-outside", LONG[:400], "team/experiment")
    for place, name in enumerate(asked):
        start = RunStarted(run_key=f"key{place}", destination=destination, experiment=name, name="n", time_ms=1)
        sink.deliver(start, start)
    found = {e.name: Path(e.artifact_location) for e in connect(destination).search_experiments()}
    assert {found[name].parent for name in asked} == {runs / "artifacts"}
    assert len({found[name] for name in asked}) == len(asked)


def test_a_store_cannot_make_files_outside_of_the_folder_that_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Store:
        def find(self, key: str) -> list[str]:
            return [f"{key}/model/a", f"{key}/../../evil"]

        def cat(self, names: list[str]) -> dict[str, bytes]:
            return dict.fromkeys(names, b"x")

    def remote(uri: str) -> tuple[Any, str]:
        return Store(), "bucket/checkpoint"

    monkeypatch.setattr(storage, "_remote", remote)
    with pytest.raises(DataError, match="leads out of the folder"):
        storage.fetch_folder("s3://bucket/checkpoint", tmp_path / "a" / "b")
    assert below(tmp_path) == set()


def test_shards_of_a_checkpoint_are_files_beside_its_index(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "../../etc/passwd"}}')
    with pytest.raises(ModelError, match="expected a file beside it"):
        weight_files(tmp_path)

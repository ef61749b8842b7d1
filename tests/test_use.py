"""A trained model answers the same from a folder, from its run and by its name, in a pipe and on a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from lgsrr import evaluate as evaluate_command
from lgsrr import predict as predict_command
from lgsrr.destination import TrackingConfig
from lgsrr.errors import ConfigError, DataError, LgsrrError, ModelError
from lgsrr.evaluate import EvaluateConfig, evaluate
from lgsrr.metrics import SCORES
from lgsrr.tracking import connect, load_mlflow
from lgsrr.train import Trained
from tests.tables_on_disk import write_csv, write_parquet
from tests.tiny import LIMIT, ROOT, command, sample_data, unboxed

ASPECTS = tuple(a.name for a in sample_data().aspects)
FIRST = sample_data().split("test")[0]


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def model(tracked: Trained) -> str:
    return str(tracked.folder / "model")


@pytest.fixture
def runs(tracked: Trained) -> Path:
    return tracked.folder.parent.parent


@pytest.fixture
def damaged(model: str, tmp_path: Path) -> Path:
    """A copy of the model, to be spoilt."""
    return Path(shutil.copytree(model, tmp_path / "model"))


def described(texts: Mapping[str, str] | None = None) -> list[str]:
    texts = dict(zip(ASPECTS, FIRST.descriptions, strict=True)) if texts is None else texts
    return [part for name, text in texts.items() for part in ("--description", f"{name}={text}")]


def predict(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    """What the command prints into a pipe."""
    with pytest.raises(SystemExit) as ended:
        predict_command.main(arguments)
    printed = capsys.readouterr()
    assert ended.value.code == 0, printed.err
    assert printed.err == ""
    return [json.loads(line) for line in printed.out.splitlines()]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int) -> str:
    """The one message of a command that fails."""
    with pytest.raises(SystemExit) as ended:
        predict_command.main(arguments)
    printed = capsys.readouterr()
    assert ended.value.code == code
    assert printed.out == ""
    assert "Traceback" not in printed.err
    return unboxed(printed.err)


def flat(answer: Mapping[str, Any]) -> dict[str, float]:
    relations = ("importance", "complementarity", "inconsistency")
    return {f"{kind}.{name}": value for kind in relations for name, value in answer[kind].items()}


def rows_of(split: str = "test") -> list[dict[str, str]]:
    utterances = [u for u in sample_data(LIMIT).utterances if u.split == split]
    return [{"id": u.id, "text": u.text, **dict(zip(ASPECTS, u.descriptions, strict=True))} for u in utterances]


# ---- predict -------------------------------------------------------------------------------------------------------


def test_one_utterance_by_flags_is_one_json_line_with_its_reasons(
    model: str, capsys: pytest.CaptureFixture[str], tracked: Trained
) -> None:
    [answer] = predict(capsys, "--model", model, "--text", FIRST.text, *described())
    assert answer.keys() == {"id", "label", "probability", "importance", "complementarity", "inconsistency"}
    assert list(answer["importance"]) == ["text", *ASPECTS]
    assert list(answer["complementarity"]) == list(answer["inconsistency"]) == list(ASPECTS)
    assert sum(answer["importance"].values()) == pytest.approx(1)
    kept = pq.read_table(tracked.folder / "test_predictions.parquet").to_pylist()[0]
    assert kept["id"] == FIRST.id
    assert answer["label"] == kept["label"]
    assert answer["probability"] == pytest.approx(kept["probability"], abs=1e-5)
    assert flat(answer) == pytest.approx({name: kept[name] for name in flat(answer)}, abs=1e-5)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_file_is_answered_line_by_line_as_the_run_itself_answered(
    model: str, tracked: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    rows, path = rows_of(), tmp_path / f"asked.{form}"
    if form == "csv":
        write_csv(path, [tuple(rows[0]), *(tuple(row.values()) for row in rows)])
    elif form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        write_parquet(path, rows)
    answers = predict(capsys, "--model", model, "--input", str(path))
    kept = pq.read_table(tracked.folder / "test_predictions.parquet").to_pylist()
    assert [answer["id"] for answer in answers] == [row["id"] for row in kept]
    assert [answer["label"] for answer in answers] == [row["label"] for row in kept]
    for answer, row in zip(answers, kept, strict=True):
        assert flat(answer) == pytest.approx({name: row[name] for name in flat(answer)}, abs=1e-5)


def test_rows_without_an_id_are_numbered(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{name: value for name, value in row.items() if name != "id"} for row in rows_of()[:3]]
    path = write_parquet(tmp_path / "asked.parquet", rows)
    assert [a["id"] for a in predict(capsys, "--model", model, "--input", str(path))] == ["1", "2", "3"]


def test_an_aspect_may_be_named_in_short_and_an_emoji_said(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = described({"a": "Waves 👋 wildly.", "E": 'Smiles\tand "grins".', "interaction with others": "a=b=c"})
    [answer] = predict(capsys, "--model", model, "--text", "nice 😀 " + "job " * 10_000, *flags)
    assert answer["label"] in sample_data().labels


def test_a_model_is_answered_from_its_run_and_by_its_registered_name(
    model: str, tracked: Trained, tracked_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tracked.delivery is not None
    run_id = tracked.delivery.run_id
    assert run_id is not None
    client = connect(TrackingConfig().destination(tracked_copy))
    [logged] = client.search_logged_models([client.get_run(run_id).info.experiment_id])
    client.create_registered_model("lgsrr-sample")
    version = client.create_model_version("lgsrr-sample", logged.artifact_location, run_id, model_id=logged.model_id)
    client.set_registered_model_alias("lgsrr-sample", "champion", version.version)
    asked = ("--text", FIRST.text, *described(), "--runs", str(tracked_copy))
    expected = predict(capsys, "--model", model, *asked)
    for name in (f"runs:/{run_id}", "models:/lgsrr-sample@champion", f"models:/lgsrr-sample/{version.version}"):
        assert predict(capsys, "--model", name, *asked) == expected


def test_the_tracked_pyfunc_answers_as_the_command_does(
    model: str, tracked: Trained, runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert tracked.delivery is not None
    mlflow = load_mlflow()
    destination = TrackingConfig().destination(runs)
    [logged] = connect(destination).search_logged_models([tracked.delivery.run_url.split("/")[-3]])  # type: ignore[union-attr]
    loaded = mlflow.pyfunc.load_model(logged.artifact_location)
    rows = rows_of()[:5]
    path = write_parquet(tmp_path / "asked.parquet", rows)
    answers = predict(capsys, "--model", model, "--input", str(path))
    found = loaded.predict(pd.DataFrame(rows))
    assert list(found["label"]) == [answer["label"] for answer in answers]
    assert list(found["id"]) == [answer["id"] for answer in answers]
    for name in flat(answers[0]):
        np.testing.assert_allclose(found[name], [flat(answer)[name] for answer in answers], atol=1e-5)
    inputs = loaded.metadata.get_input_schema()
    assert [(column.name, column.required) for column in inputs] == [
        ("id", False), ("text", True), *((name, True) for name in ASPECTS),
    ]  # fmt: skip
    assert loaded.input_example is not None
    assert list(loaded.predict(loaded.input_example).columns) == loaded.metadata.get_output_schema().input_names()
    with pytest.raises(mlflow.exceptions.MlflowException, match="missing"):
        loaded.predict(pd.DataFrame(rows).drop(columns=[ASPECTS[0]]))


def test_on_a_terminal_the_answer_is_a_table(model: str) -> None:
    shown = on_a_terminal("predict", "--model", model, "--text", "nice [bold]job[/bold]", *described())
    for word in ("importance", "complementarity", "inconsistency", "nice [bold]job[/bold]", *ASPECTS):
        assert word in shown
    assert "{" not in shown


def test_in_a_pipe_it_is_one_json_object_a_line(model: str, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "asked.parquet", rows_of()[:2])
    done = command("predict", "--model", model, "--input", str(path), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [row["id"] for row in rows_of()[:2]]


def on_a_terminal(module: str, *arguments: str) -> str:
    """What a command prints on a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    line = [sys.executable, "-m", f"lgsrr.{module}", *arguments]
    environment = {**os.environ, "COLUMNS": "80", "TERM": "dumb"}
    process = subprocess.Popen(line, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b"".join(_read_all(ours))
    assert process.wait(timeout=60) == 0, shown.decode()
    return shown.decode()


def _read_all(descriptor: int) -> Iterator[bytes]:
    with contextlib.suppress(OSError):  # a terminal that is closed at the other end says so by an error
        while part := os.read(descriptor, 65536):
            yield part
    os.close(descriptor)


# ---- predict: bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name either one utterance (--text) or a file of them (--input)"),
        (["--text", "a", "--input", "b"], "name either one utterance (--text) or a file of them (--input)"),
        (["--input", "b", "--description", "A=c"], "--description goes with --text"),
        (["--text", "nice job"], f"this model needs a description of {', '.join(ASPECTS)}; add --description"),
        (["--text", "nice job", *described({"A": "x", "E": "y"})], f"needs a description of {ASPECTS[2]}"),
        (["--text", "nice job", *described({"Facial Expresions": "x"})], "Did you mean 'Facial Expressions'"),
        (["--text", "nice job", "--description", "no separator"], "expected ASPECT=TEXT"),
        (["--text", "nice job", *described({"A": "x"}), *described({"Speakers' Actions": "y"})], "twice"),
        (["--text", "  ", *described()], "--text is empty"),
        (["--text", "nice job", *described({"A": "x", "E": " ", "I": "y"})], "Facial Expressions' is empty"),
    ],
)  # fmt: skip
def test_flags_that_do_not_fit_are_one_clear_message(
    model: str, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert message in refused(capsys, "--model", model, *arguments, code=2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{**rows_of()[0], "text": ""}], "line 2: 'text' is empty"),
        ([{**rows_of()[0], ASPECTS[1]: ""}], f"line 2: {ASPECTS[1]!r} is empty"),
        ([{"id": "1", "text": "nice job"}], ASPECTS[0]),
    ],
)
def test_a_file_that_does_not_fit_is_one_clear_message(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[dict[str, str]], message: str
) -> None:
    path = write_csv(tmp_path / "asked.csv", [tuple(rows[0]), *(tuple(row.values()) for row in rows)])
    found = refused(capsys, "--model", model, "--input", str(path), code=1)
    assert str(path) in found
    assert message in found


def test_a_file_that_is_not_there_is_one_clear_message(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "/no/such.csv" in refused(capsys, "--model", model, "--input", "/no/such.csv", code=1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/no/such/folder", "there is no folder /no/such/folder"),
        ("runs:/0123", "has no model runs:/0123"),
        ("models:/nobody@champion", "has no model models:/nobody@champion"),
        ("models:/nobody/7", "has no model models:/nobody/7"),
    ],
)
def test_a_model_that_cannot_be_had_is_one_clear_message(
    runs: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    asked = ("--text", "nice job", "--runs", str(runs))
    assert message in refused(capsys, "--model", name, *asked, code=1)


def test_a_truncated_model_is_one_clear_message(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    asked = ("--text", "nice job", *described())
    assert "is truncated or damaged" in refused(capsys, "--model", str(damaged), *asked, code=1)


# ---- evaluate ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["dev", "test"])
def test_evaluation_gives_the_scores_of_the_run(model: str, tracked: Trained, split: Any) -> None:
    found = evaluate(EvaluateConfig(model=model, split=split, limit=LIMIT))
    assert found.utterances == LIMIT
    assert found.scores == pytest.approx({name: tracked.scores[f"{split}_{name}"] for name in SCORES}, abs=1e-9)
    assert sum(row.support for row in found.classes) == LIMIT


def test_in_a_pipe_an_evaluation_is_one_json_object(model: str, tracked: Trained, tmp_path: Path) -> None:
    done = command("evaluate", "--model", model, "--split", "test", "--limit", str(LIMIT), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["scores"]["f1"] == pytest.approx(tracked.scores["test_f1"])
    assert [row["label"] for row in found["classes"]] == list(sample_data().labels)


def test_on_a_terminal_an_evaluation_is_tables(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sys.stdout.isatty", lambda: True)
        evaluate_command.show(EvaluateConfig(model=model, split="test", limit=LIMIT))
    shown = capsys.readouterr().out
    assert f"sample, test: {LIMIT} utterances" in shown
    assert all(word in shown for word in ("ACC", "WF1", "R", *sample_data().labels))


def test_a_model_of_another_dataset_is_refused(model: str, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "mine.csv", [("id", "text", "split", "label"), ("1", "how nice", "test", "Wonder")])
    with pytest.raises(ModelError, match="was trained on sample and knows no label 'Wonder' of mine"):
        evaluate(EvaluateConfig(model=model, dataset="mine", data=str(data)))


def test_a_model_of_other_aspects_is_refused(damaged: Path) -> None:
    card = json.loads((damaged / "model.json").read_text())
    card["aspects"] = [*card["aspects"][:2], "Scene Description"]
    (damaged / "model.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match=r"reads the aspects .*'Scene Description'.* but sample has"):
        evaluate(EvaluateConfig(model=str(damaged)))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"data": "/no/such/folder"}, DataError),
        ({"dataset": "mine"}, ConfigError),
        ({"model": "/no/model"}, ModelError),
    ],
)
def test_what_is_not_there_is_one_clear_message(model: str, changes: dict[str, Any], error: type[LgsrrError]) -> None:
    config = EvaluateConfig(**{"model": model, **changes})
    with pytest.raises(error, match=r"/no/|'mine' needs --data"):
        evaluate(config)


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="limit is 0"):
        EvaluateConfig(model="m", limit=0)

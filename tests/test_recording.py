"""An extraction in MLflow: its settings without keys, its counts, its prompts; it never fails a run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, TypeVar

import pytest

from lgsrr.destination import TrackingConfig
from lgsrr.errors import ConfigError
from lgsrr.records import Aspect, Dataset
from lgsrr.replay import Replay
from lgsrr.spool import Artifact, Event, Metrics, RunFinished, RunStarted
from lgsrr.tracking import connect
from pipelines.calls import Usage
from pipelines.inputs import Inputs
from pipelines.manifest import StageReport
from pipelines.output import Output
from pipelines.recording import check_recording, metrics_of, prompts_of, record, run_key
from pipelines.report import write_report
from pipelines.settings import ExtractConfig
from tests.extracted_outputs import ASPECTS, utterances, write_output
from tests.memory_sink import MemorySink

E = TypeVar("E", bound=Event)
STARTED = 1.79e9
REPORTS = (
    StageReport(
        stage="describe", rows=40, before=1, done=36, set_aside=3, reasons={"no_clip": 2, "odd kind!": 1},
        usage=Usage(input_tokens=300, output_tokens=30, cost_usd=0.5), seconds=13.0,
    ),
    StageReport(stage="rank", rows=19, done=19, usage=Usage(input_tokens=9, cost_usd=0.25), seconds=9.5),
)  # fmt: skip


def inputs() -> Inputs:
    aspects = tuple(Aspect(name=name) for name in ASPECTS)
    said = tuple(utterances(40))
    return Inputs(
        dataset=Dataset(name="mine", source="s", labels=("Greet",), aspects=aspects, utterances=said), given={}
    )


def config(path: Path, **more: Any) -> ExtractConfig:
    return ExtractConfig(
        **{"dataset": "mine", "out": str(path / "out"), "runs": str(path / "runs"), "engine": "scripted", **more}
    )


def recorded(path: Path, **more: Any) -> str:
    settings = config(path, **more.pop("settings", {}))
    output = write_output(path / "out")
    write_report(settings, output)
    whole = {"started": STARTED, "command": "python pipelines/extract.py --llm sk-abcdefghijklmnopqrstuv", **more}
    return record(settings, output, inputs(), REPORTS, **whole)


def of(sink: MemorySink, kind: type[E]) -> list[E]:
    return [event for _, event in sink.events if isinstance(event, kind)]


def test_a_run_carries_its_settings_and_where_the_output_is(tmp_path: Path, sink: MemorySink) -> None:
    recorded(tmp_path, settings={"llm": "gpt", "base_url": "http://me:secret@host/v1", "rpm": 500})
    (start,) = of(sink, RunStarted)
    assert start.experiment == "lgsrr-mine-extraction"
    assert (start.params["llm"], start.params["rpm"], start.params["base_url"]) == ("gpt", "500", "http://host/v1")
    assert start.tags["lgsrr.output"] == str(tmp_path / "out")
    assert start.tags["lgsrr.command"] == "python pipelines/extract.py --llm …"
    assert start.data is not None
    assert start.data.profile["train utterances"] == 20
    assert start.time_ms == STARTED * 1000


def test_the_experiment_is_the_one_that_is_named(tmp_path: Path, sink: MemorySink) -> None:
    recorded(tmp_path, settings={"experiment": "other"})
    assert of(sink, RunStarted)[0].experiment == "other"


def test_counts_failures_tokens_dollars_and_speed_are_metrics(tmp_path: Path) -> None:
    numbers = metrics_of(write_output(tmp_path), REPORTS)
    assert (numbers["describe/done"], numbers["describe/set_aside"], numbers["describe/before"]) == (36, 3, 1)
    assert (numbers["describe/failed/no_clip"], numbers["describe/failed/odd_kind_"]) == (2, 1)
    assert (numbers["describe/input_tokens"], numbers["rank/cost_usd"], numbers["cost_usd"]) == (300, 0.25, 0.75)
    assert (numbers["describe/clips_per_second"], numbers["rank/rows_per_second"]) == (3.0, 2.0)
    assert (numbers["output/describe/done"], numbers["output/describe/set_aside"]) == (37, 2)
    assert 0 < numbers["position_bias/shown_first_ranked_first"] < 1


def test_a_stage_that_did_nothing_has_no_speed(tmp_path: Path) -> None:
    numbers = metrics_of(Output(str(tmp_path)), [StageReport(stage="rank", rows=3, before=3)])
    assert "rank/rows_per_second" not in numbers
    assert not [name for name in numbers if name.startswith("position_bias")]


def test_prompts_samples_aspects_manifest_and_report_are_kept_where_the_output_may_go(
    tmp_path: Path, sink: MemorySink
) -> None:
    recorded(tmp_path)
    paths = {Path(event.path).name: Path(event.path) for event in of(sink, Artifact)}
    assert set(paths) == {"aspects.json", "manifest.json", "prompts", "report.html", "samples.jsonl"}
    assert {path.parent.parent for path in paths.values()} == {tmp_path / "runs" / "extract"}
    assert len(paths["samples.jsonl"].read_text().splitlines()) == 12
    assert {path.name for path in paths["prompts"].iterdir()} == {"discover.txt", "describe.txt", "rank.txt"}


def test_each_prompt_is_the_one_of_its_stage_and_only_ranking_shows_a_label(tmp_path: Path) -> None:
    said = dict(prompts_of(config(tmp_path), write_output(tmp_path / "out"), inputs()))
    assert list(said) == ["discover", "describe", "rank"]
    assert "sample 1 of 10" in said["discover"]
    assert 'a person says: "says 0"' in said["describe"]
    assert "Greet" not in said["describe"]
    assert "Intent: Greet" in said["rank"]
    assert dict(prompts_of(config(tmp_path, stages="rank"), Output(str(tmp_path)), inputs())) == {}


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_a_run_ends_with_the_status_that_it_is_given(tmp_path: Path, sink: MemorySink, status: Any) -> None:
    recorded(tmp_path, status=status, reason="401 for sk-abcdefghijklmnopqrstuv")
    assert [event.status for event in of(sink, RunFinished)] == [status]
    assert of(sink, RunStarted)[0].tags["lgsrr.ended_early"] == "401 for …"


def test_what_a_server_that_is_away_did_not_get_is_sent_by_the_next_command(tmp_path: Path, sink: MemorySink) -> None:
    sink.away = True
    assert "have not reached" in recorded(tmp_path, timeout_s=0.2)
    sink.away = False
    assert Replay(tmp_path / "runs", TrackingConfig()).close(timeout_s=10) == 0
    assert len(of(sink, RunFinished)) == 1
    assert all(Path(event.path).exists() for event in of(sink, Artifact))


def test_a_run_that_cannot_be_recorded_says_so_and_raises_nothing(tmp_path: Path, sink: MemorySink) -> None:
    (tmp_path / "runs").write_text("a file")
    assert recorded(tmp_path).startswith("this run could not be recorded: ")


def test_a_destination_that_cannot_be_is_told_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_recording(config(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mlruns")
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI"):
        check_recording(config(tmp_path))


def test_a_run_key_is_a_name_whatever_the_dataset_is_called() -> None:
    assert run_key("my / data ü", STARTED).startswith("extract-my-data-2026")
    assert run_key("…", STARTED).startswith("extract-data-2026")
    assert run_key("a", STARTED) != run_key("a", STARTED)


def test_mlflow_itself_shows_all_of_it(runs: Path) -> None:
    where = recorded(runs.parent, settings={"runs": str(runs)})
    assert "mlflow ui" in where
    client = connect(f"sqlite:///{runs / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("lgsrr-mine-extraction")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.start_time == STARTED * 1000
    assert run.data.metrics["describe/clips_per_second"] == 3.0
    assert run.data.params["llm"] == "gpt-3.5-turbo"
    kept = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert kept == {"aspects.json", "manifest.json", "prompts", "report.html", "samples.jsonl"}
    assert len(client.list_artifacts(run.info.run_id, "prompts")) == 3


def test_the_manifest_that_is_kept_holds_no_password(tmp_path: Path, sink: MemorySink) -> None:
    output = write_output(tmp_path / "out")
    settings = config(tmp_path, base_url="http://me:secret@host/v1")
    manifest = {"runs": [{"settings": dataclasses.asdict(settings)}]}
    output.write_json("manifest.json", manifest)
    record(settings, output, inputs(), REPORTS, started=STARTED, command="c")
    (path,) = (Path(event.path) for event in of(sink, Artifact) if event.path.endswith("manifest.json"))
    assert "secret" not in path.read_text()
    assert json.loads(path.read_text())["runs"][0]["settings"]["base_url"] == "http://host/v1"
    assert of(sink, Metrics)

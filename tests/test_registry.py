"""Registration on a real database: one version per model, whatever is delivered twice or late."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lgsrr.destination import TrackingConfig, spool_folder
from lgsrr.sender import Sender
from lgsrr.spool import Journal, ModelRegistered, RunStarted, decode
from lgsrr.tracker import Tracker
from lgsrr.tracking import MlflowSink, connect
from tests.tracked_runs import DATA, empty_database, model, record, runs, the_runs

__all__ = ["empty_database", "model", "runs"]
NAME = "lgsrr-sample"


def registered(
    runs: Path, model: Path | None, run_key: str = "run", alias: str | None = "candidate", **tags: str
) -> Tracker:
    """A run with a model (or none) that is registered; not yet closed."""
    tracker = Tracker(runs, TrackingConfig(), run_key)
    tracker.start(dataset="sample", name="winner", data=DATA)
    if model is not None:
        tracker.model(model, loader_module="standin")
    tracker.register(NAME, alias=alias, tags=tags, description="The winner.")
    tracker.finish()
    return tracker


def the_client(runs: Path) -> Any:
    return connect(TrackingConfig().destination(runs))


def versions(runs: Path) -> list[Any]:
    return list(the_client(runs).search_model_versions(f"name = '{NAME}'"))


def test_a_registered_model_is_made_with_a_version_its_tags_and_its_alias(runs: Path, model: Path) -> None:
    delivery = registered(runs, model, dev_f1_mean="0.5").close(60)
    assert (delivery.pending, delivery.refused) == (0, 0)
    found = the_client(runs).get_model_version_by_alias(NAME, "candidate")
    assert (found.run_id, dict(found.tags), found.description) == (
        delivery.run_id, {"dev_f1_mean": "0.5"}, "The winner.",
    )  # fmt: skip
    assert "sample" in the_client(runs).get_registered_model(NAME).description


def test_a_second_delivery_makes_no_second_version(runs: Path, model: Path) -> None:
    tracker = registered(runs, model)
    tracker.close(60)
    sink = MlflowSink(TrackingConfig().destination(runs))
    start = RunStarted(
        run_key="run", destination=TrackingConfig().destination(runs), experiment=NAME, name="winner", time_ms=1
    )
    for mean in ("0.1", "0.2"):
        sink.deliver(start, ModelRegistered(name=NAME, alias="candidate", tags={"dev_f1_mean": mean}))
    assert [(int(v.version), v.tags["dev_f1_mean"]) for v in versions(runs)] == [(1, "0.2")]
    [logged] = the_client(runs).search_logged_models([the_runs(runs)[0].info.experiment_id])
    assert logged.tags["mlflow.modelVersions"] == '[{"name": "lgsrr-sample", "version": "1"}]'


def test_the_alias_moves_to_the_model_that_is_registered_last(runs: Path, model: Path) -> None:
    registered(runs, model, "first").close(60)
    second = registered(runs, model, "second").close(60)
    assert the_client(runs).get_model_version_by_alias(NAME, "candidate").run_id == second.run_id
    assert len(versions(runs)) == 2


def test_a_run_without_a_model_cannot_be_registered_and_its_end_is_recorded_all_the_same(runs: Path) -> None:
    delivery = registered(runs, None).close(60)
    assert (delivery.pending, delivery.refused) == (0, 1)
    refused = Journal(spool_folder(runs), "run").refused_path.read_text()
    assert "has no finished model" in refused
    assert the_runs(runs)[0].info.status == "FINISHED"
    assert the_client(runs).search_registered_models() == []


def test_a_run_that_had_finished_can_be_started_again_to_register_its_model(runs: Path, model: Path) -> None:
    first = record(runs)
    again = registered(runs, model).close(60)
    assert again.run_id == first.run_id
    assert [v.run_id for v in versions(runs)] == [first.run_id]
    [run] = the_runs(runs)
    assert (run.info.status, run.data.metrics["dev_f1"]) == ("FINISHED", 0.3)


def test_a_registration_survives_the_journal(tmp_path: Path) -> None:
    event = ModelRegistered(name=NAME, alias="candidate", tags={"a": "1"}, description="why")
    journal = Journal(tmp_path, "run")
    journal.append(event)
    assert [decode(line.raw) for line in journal.lines()] == [event]


def test_one_sender_records_many_nested_runs_whichever_comes_first(runs: Path) -> None:
    sink = MlflowSink(TrackingConfig().destination(runs))
    sender = Sender(spool_folder(runs), sink, follow=True)
    sender.start()
    parents = {"seed": "trial", "trial": "search", "search": None}
    for key in ("seed", "trial", "search"):
        tracker = Tracker(runs, TrackingConfig(), key, sender=sender)
        tracker.start(dataset="sample", name=key, data=DATA, parent_run_key=parents[key])
        tracker.finish()
        assert tracker.close(60).run_id is not None
    sender.stop()
    found = {run.info.run_name: run for run in the_runs(runs)}
    assert {name: run.data.tags.get("mlflow.parentRunId") for name, run in found.items()} == {
        "seed": found["trial"].info.run_id, "trial": found["search"].info.run_id, "search": None,
    }  # fmt: skip

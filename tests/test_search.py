"""A search from its plan to its candidate, in this process, on a Ray of four CPUs; MLflow is a list in memory."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from lgsrr.destination import TrackingConfig
from lgsrr.errors import ConfigError, LgsrrError, TrainingError
from lgsrr.replay import Replay
from lgsrr.saved_model import read_card
from lgsrr.spool import Artifact, Metrics, ModelRegistered, ModelSaved, Tags
from lgsrr.spool import journals as journals_in
from lgsrr.tracking import connect
from tests.conftest import tracked_in_memory
from tests.memory_sink import MemorySink
from tests.processes import Process, descendants, kill, trial_processes, wait_until
from tests.search_runs import ended_seeds, runs_ended, runs_started, search_config, searched, start, table
from tune.answer import print_answer
from tune.conduct import Conductor
from tune.explain import explain
from tune.folder import SearchFolder
from tune.plan import plan
from tune.settings import SearchConfig

slow = pytest.mark.slow


@dataclasses.dataclass(frozen=True)
class Search:
    config: SearchConfig
    answer: dict[str, Any]
    printed: str
    memory: MemorySink


@pytest.fixture(scope="module")
def cluster(cache: Path) -> Iterator[Cluster]:
    """A Ray of one node with four CPUs, to which a test may add nodes."""
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
    yield found
    found.shutdown()


@pytest.fixture(scope="module")
def ray_cluster(cluster: Cluster) -> Iterator[None]:
    """Takes the place of that of `conftest`, which cannot grow."""
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def space_of(folder: Path, *rates: float) -> str:
    path = folder / "space.json"
    path.write_text(json.dumps({"lr": {"choices": list(rates)}}))
    return str(path)


TOO_HIGH = 1e30
"""A learning rate that ends in a loss that is not finite."""


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A space of which the first draw at random is one that fails."""
    path = tmp_path_factory.mktemp("space") / "space.json"
    rates = {"choices": [3e-3, 1e-3, TOO_HIGH, 1e-2]}
    path.write_text(json.dumps({"lr": rates, "rank_weight": {"log": [0.03, 3.0]}, "k": {"choices": [1, 2, 3]}}))
    return str(path)


@pytest.fixture(scope="module")
def undisturbed(ray_cluster: None, tiny_bert: Path, space: str, tmp_path_factory: pytest.TempPathFactory) -> Search:
    with tracked_in_memory() as memory:
        config = search_config(tiny_bert, tmp_path_factory.mktemp("searched") / "runs", space=space)
        answer, printed = searched(config)
    return Search(config, answer, printed, memory)


def failed_trials(config: SearchConfig) -> list[dict[str, Any]]:
    return [row for row in table(config) if row["state"] == "failed"]


def search_key(memory: MemorySink) -> str:
    return next(key for key, event in runs_started(memory).items() if event.parent_run_key is None)


# ---- the whole of it -----------------------------------------------------------------------------------------------


@slow
def test_a_search_ends_with_a_winner_that_ran_all_seeds(undisturbed: Search) -> None:
    rows = table(undisturbed.config)
    best = rows[0]
    assert best["state"] == "winner"
    assert best["id"] == undisturbed.answer["winner"]
    assert sorted(best["scores"]) == [0, 1]
    assert {row["trial"]["origin"] for row in rows} == {"paper", "text alone", "random"}
    assert len(rows) == 6


@slow
def test_the_test_split_is_looked_at_for_the_winner_and_the_papers_setting_alone(undisturbed: Search) -> None:
    tested = {row["id"] for row in table(undisturbed.config) if row["test"]}
    paper = next(row["id"] for row in table(undisturbed.config) if row["trial"]["origin"] == "paper")
    assert tested == {undisturbed.answer["winner"], paper}
    told = [key for key, event in undisturbed.memory.events if isinstance(event, Metrics) and "test_f1" in event.values]
    assert {key.rpartition("-")[0].rpartition("-")[2] for key in told} <= tested


@slow
def test_search_configuration_and_seed_are_nested_runs_that_all_end(undisturbed: Search) -> None:
    started, top = runs_started(undisturbed.memory), search_key(undisturbed.memory)
    seeds = {key for key in started if key.rpartition("-")[2].startswith("s") and key != top}
    trials = started.keys() - seeds - {top}
    assert len(trials) == 6
    assert {started[key].parent_run_key for key in trials} == {top}
    assert {started[key].parent_run_key for key in seeds} == trials
    assert len(seeds) == len(ended_seeds(undisturbed.config))
    ended = runs_ended(undisturbed.memory)
    assert ended.keys() == started.keys()
    (failed,) = failed_trials(undisturbed.config)
    assert {key for key, status in ended.items() if status == "FAILED"} == {
        f"{top}-{failed['id']}", f"{top}-{failed['id']}-s0",
    }  # fmt: skip
    assert set(ended.values()) == {"FINISHED", "FAILED"}


@slow
def test_every_epoch_of_every_seed_is_recorded_once(undisturbed: Search) -> None:
    top = search_key(undisturbed.memory)
    for run, result in ended_seeds(undisturbed.config).items():
        steps = [
            event.step
            for key, event in undisturbed.memory.events
            if key == f"{top}-{run}" and isinstance(event, Metrics) and "dev_f1" in event.values and event.step
        ]
        assert steps == [figures["epoch"] for figures in result["history"]]


@slow
def test_the_searchs_run_holds_the_answer_the_page_and_the_pictures(undisturbed: Search) -> None:
    top = search_key(undisturbed.memory)
    own = [event for key, event in undisturbed.memory.events if key == top]
    notes = [e.values["mlflow.note.content"] for e in own if isinstance(e, Tags) and "mlflow.note.content" in e.values]
    assert undisturbed.answer["winner"] in notes[-1] or "won" in notes[-1]
    kept = {Path(event.path).name for event in own if isinstance(event, Artifact)}
    pictures = {"parallel.png", "hyperparameters.png", "halving.png", "importance.png"}
    assert kept == {"search.html", "table.csv", *pictures}


@slow
def test_the_winners_model_is_registered_as_candidate_and_can_be_used(undisturbed: Search) -> None:
    events = undisturbed.memory.events
    (registered,) = [event for _, event in events if isinstance(event, ModelRegistered)]
    (saved,) = [event for _, event in events if isinstance(event, ModelSaved)]
    assert (registered.name, registered.alias) == ("lgsrr-sample", "candidate")
    assert registered.tags["lgsrr.trial"] == undisturbed.answer["winner"]
    card = read_card(Path(saved.folder))
    assert card.settings["seed"] == undisturbed.answer["seed"]
    assert card.scores["test_f1"] >= 0


@slow
def test_a_finished_search_says_so_trains_nothing_and_shows_its_answer_again(
    undisturbed: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    before = len(undisturbed.memory.events)
    answer, printed = searched(undisturbed.config)
    assert answer == undisturbed.answer
    assert "finished already" in printed
    assert len(undisturbed.memory.events) == before
    print_answer(plan(undisturbed.config), answer, Console(width=200))
    shown = capsys.readouterr().out
    assert "models:/lgsrr-sample@candidate" in shown
    assert "python -m tune.promote" in shown


@slow
def test_only_the_models_of_winner_and_paper_are_kept(undisturbed: Search) -> None:
    folder = Path(undisturbed.config.runs) / "search" / undisturbed.config.search_name / "checkpoints"
    paper = next(row["id"] for row in table(undisturbed.config) if row["trial"]["origin"] == "paper")
    assert {path.name.partition("-")[0] for path in folder.iterdir()} == {undisturbed.answer["winner"], paper}


# ---- stop and go on ------------------------------------------------------------------------------------------------


def same_table(ours: SearchConfig, theirs: SearchConfig) -> None:
    assert table(ours) == table(theirs)


@slow
def test_processes_killed_in_a_seed_and_between_two_a_lost_node_and_another_order_change_nothing_in_the_table(
    undisturbed: Search, cluster: Cluster, space: str, tiny_bert: Path, tmp_path: Path, sink: MemorySink,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    config = search_config(tiny_bert, tmp_path / "runs", space=space, at_once=1, max_failures=2)
    nodes = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    (first,) = nodes
    taken = Holder.options(scheduling_strategy=NodeAffinitySchedulingStrategy(first, soft=False)).remote()  # type: ignore[attr-defined]
    ray.get(taken.ready.remote())  # from here on trials run on the second node alone
    between: list[Process] = []
    killed: list[Process] = []
    lost: list[Process] = []
    ended = Conductor.ended

    def ended_then_killed(self: Conductor, run: str, failure: str | None) -> None:
        ended(self, run, failure)
        if not between:  # the process waits for the next seed to begin in it
            between.extend(trial_processes(os.getpid()))
            kill(between)

    def seeds(count: int) -> None:
        wait_until(lambda: len(ended_seeds(config)) >= count, 300, f"{count} seeds")

    def disturb() -> None:
        seeds(2)
        wait_until(lambda: bool(trial_processes(os.getpid())), 300, "a trial")
        killed.extend(trial_processes(os.getpid()))
        kill(killed)
        seeds(4)
        lost.extend(trial_processes(os.getpid()))
        ray.kill(taken)
        cluster.remove_node(second, allow_graceful=False)

    monkeypatch.setattr(Conductor, "ended", ended_then_killed)
    disturber = threading.Thread(target=disturb)
    disturber.start()
    searched(config)
    disturber.join()
    assert between, "no process was there to be killed between two seeds"
    assert killed, "no trial ran that could be killed"
    assert lost, "no trial ran on the node that was lost"
    assert not [process for process in between + killed + lost if process.is_alive()]
    same_table(config, undisturbed.config)


@ray.remote(num_cpus=4)
class Holder:
    """Holds the CPUs of a node."""

    def ready(self) -> bool:
        return True


@slow
def test_a_driver_killed_twice_goes_on_to_the_same_table_trains_no_seed_twice_and_is_recorded_once(
    undisturbed: Search, space: str, tiny_bert: Path, runs: Path, tmp_path: Path
) -> None:
    config, log = search_config(tiny_bert, runs, space=space), tmp_path / "log"
    kept: dict[str, dict[str, Any]] = {}
    for count in (1, 7):  # among the first seeds, and among the second
        driver = start(config, log)
        try:
            wait_until(lambda n=count, d=driver: len(ended_seeds(config)) >= n or d.poll() is not None, 240, "seeds")  # type: ignore[misc]
        finally:
            below = descendants(driver.pid)
            os.killpg(driver.pid, signal.SIGKILL)
            driver.wait()
            kill(below)
        assert driver.returncode == -signal.SIGKILL, log.read_text()
        assert kept.items() <= ended_seeds(config).items()
        kept = ended_seeds(config)
    driver = start(config, log)
    assert driver.wait(timeout=300) == 0, log.read_text()
    assert kept.items() <= ended_seeds(config).items()  # times of epochs included: what had ended was not trained again
    same_table(config, undisturbed.config)

    client = connect(f"sqlite:///{runs / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "lgsrr-sample"]
    recorded = client.search_runs([experiment.experiment_id], max_results=1000)
    seeds = {
        run.data.tags["lgsrr.run_key"].split("-", 3)[-1]: run
        for run in recorded
        if run.info.run_name.startswith("seed")
    }
    assert len(recorded) == 1 + 6 + len(ended_seeds(config))
    failed = {run.info.run_name for run in recorded if run.info.status == "FAILED"}
    assert len(failed) == 2, "the configuration that fails, and its seed"
    assert {run.info.status for run in recorded} == {"FINISHED", "FAILED"}
    for name, result in ended_seeds(config).items():
        (run,) = [run for key, run in seeds.items() if key.endswith(name)]
        steps = [point.step for point in client.get_metric_history(run.info.run_id, "dev_f1") if point.step]
        assert steps == [figures["epoch"] for figures in result["history"]]
    version = client.get_model_version_by_alias("lgsrr-sample", "candidate")
    assert version.tags["lgsrr.trial"] == undisturbed.answer["winner"]


# ---- ways to train -------------------------------------------------------------------------------------------------

AWAY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def in_groups(ray_cluster: None, tiny_bert: Path, space: str, tmp_path_factory: pytest.TempPathFactory) -> Search:
    """A search in worker groups, whose tracking server is not there."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", AWAY)
        patched.setattr("tune.recording.CLOSE_TIMEOUT_S", 1.0)
        runs = tmp_path_factory.mktemp("in-groups") / "runs"
        config = search_config(tiny_bert, runs, space=space, worker_group=True, trials=2, seeds=1)
        answer, printed = searched(config)
    return Search(config, answer, printed, MemorySink())


@slow
def test_worker_groups_give_the_numbers_of_the_own_process_and_nobody_waits_for_ever(
    undisturbed: Search, in_groups: Search
) -> None:
    whole = ended_seeds(undisturbed.config)
    for run, result in ended_seeds(in_groups.config).items():
        ours, theirs = ([f["dev_f1"] for f in r["history"]] for r in (result, whole[run]))
        assert ours == theirs
    paper = next(row for row in table(in_groups.config) if row["trial"]["origin"] == "paper")
    assert paper["test"]


@slow
def test_a_tracking_server_that_is_not_there_stops_nothing_and_is_told_all_of_it_later(
    in_groups: Search, sink: MemorySink
) -> None:
    assert "the next command sends them" in in_groups.answer["mlflow"]
    runs = Path(in_groups.config.runs)
    waiting = journals_in(runs / "spool")
    assert len(waiting) == 1 + 2 + 2
    assert all(journal.pending() for journal in waiting)
    replay = Replay(runs, TrackingConfig(uri=AWAY))  # the sink stands for a server that has come back
    assert replay.close(timeout_s=60) == 0, replay.trouble
    assert len(runs_started(sink)) == 1 + 2 + 2
    assert set(runs_ended(sink).values()) == {"FINISHED"}
    assert [event.alias for _, event in sink.events if isinstance(event, ModelRegistered)] == ["candidate"]


@slow
def test_ablations_run_every_row_with_every_seed_and_end_in_one_table(
    ray_cluster: None, tiny_bert: Path, tmp_path: Path, sink: MemorySink, capsys: pytest.CaptureFixture[str]
) -> None:
    config = search_config(tiny_bert, tmp_path / "runs", ablate=True, seeds=2, epochs=1, patience=1)
    answer, _ = searched(config)
    rows = table(config)
    assert len(rows) == 13
    assert {(*row["scores"],) for row in rows} == {(0, 1)}
    assert all(row["test"]["f1"] for row in rows)
    assert len(Path(answer["report"]).read_text().splitlines()) == 1 + 13
    notes = [e.values["mlflow.note.content"] for _, e in sink.events if isinstance(e, Tags) and len(e.values) == 1]
    assert notes[-1].count("\n") == 2 + 12
    assert not [event for _, event in sink.events if isinstance(event, ModelRegistered)]
    print_answer(plan(config), answer, Console(width=200))
    shown = capsys.readouterr().out.splitlines()
    (line,) = [line for line in shown if line.startswith("without importance")]
    assert line.split()[2:5:2] == ["2", "±"]


# ---- failures ------------------------------------------------------------------------------------------------------


@slow
def test_a_trial_whose_loss_is_not_finite_is_recorded_with_its_reason_and_the_search_goes_on(
    undisturbed: Search,
) -> None:
    (failed,) = failed_trials(undisturbed.config)
    assert failed["trial"]["settings"]["lr"] == TOO_HIGH
    assert "not finite" in failed["reason"]
    key = f"{search_key(undisturbed.memory)}-{failed['id']}-s0"
    tags = [e.values for k, e in undisturbed.memory.events if k == key and isinstance(e, Tags)]
    assert any("not finite" in values.get("lgsrr.failure", "") for values in tags)
    assert f"{failed['id']}-s0 failed: " in undisturbed.printed


@slow
def test_where_no_trial_finished_the_reasons_are_said(
    ray_cluster: None, tiny_bert: Path, tmp_path: Path, sink: MemorySink
) -> None:
    space = space_of(tmp_path, TOO_HIGH)
    runs = tmp_path / "runs"
    config = search_config(tiny_bert, runs, space=space, algorithm="grid", seeds=1, lr=TOO_HIGH, at_once=1)
    with pytest.raises(TrainingError, match=r"no trial of the search .* finished(.|\n)*not finite"):
        searched(config)
    assert set(runs_ended(sink).values()) == {"FAILED"}


# ---- what is refused before anything starts ------------------------------------------------------------------------


def test_a_changed_space_is_refused_and_says_what_changed(tiny_bert: Path, tmp_path: Path) -> None:
    config = search_config(tiny_bert, tmp_path / "runs")
    first = plan(config)
    first.folder.path.mkdir(parents=True)
    first.folder.begin(first.identity)
    changed = dataclasses.replace(config, space=space_of(tmp_path, 1e-3, 1e-4), trials=9)
    with pytest.raises(ConfigError) as caught:
        searched(changed)
    message = str(caught.value)
    assert "space of lr: 0.00075 to 0.012, log-uniform, 3 in a grid, now one of 0.001, 0.0001" in message
    assert "space of tau: 0.1 to 5, log-uniform, 3 in a grid, now not set" in message
    assert "trials: 6, now 9" in message
    assert "--name" in message


def test_another_searchs_folder_is_refused_by_name(tiny_bert: Path, tmp_path: Path) -> None:
    config = search_config(tiny_bert, tmp_path / "runs", name="mine")
    other = plan(config)
    other.folder.path.mkdir(parents=True)
    other.folder.begin(other.identity | {"dataset": "mintrec2"})
    with pytest.raises(
        ConfigError, match=r"mine holds another search: search on mintrec2, and this is search on sample"
    ):
        searched(config)


def test_a_folder_with_something_else_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    config = search_config(tiny_bert, tmp_path / "runs", name="mine")
    (tmp_path / "runs" / "search" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "search" / "mine" / "thesis.tex").touch()
    with pytest.raises(ConfigError, match=r"holds 'thesis.tex' and no search"):
        searched(config)


def test_a_search_that_is_running_is_not_begun_twice(tiny_bert: Path, tmp_path: Path) -> None:
    config = search_config(tiny_bert, tmp_path / "runs")
    with SearchFolder(plan(config).folder.path).held(), pytest.raises(ConfigError, match="another command is running"):
        searched(config)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gpus_per_trial": 0.25}, r"--gpus-per-trial asks for GPUs, and the cluster has none; .* --gpu False"),
        ({"gpu": True}, r"--gpu asks for GPUs, and the cluster has none"),
    ],
)
def test_a_gpu_where_there_is_none_is_refused_with_the_flag_that_runs_on_cpus(
    ray_cluster: None, tiny_bert: Path, tmp_path: Path, sink: MemorySink, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        searched(search_config(tiny_bert, tmp_path / "runs", **change))


def test_workers_that_no_node_can_hold_are_refused(
    ray_cluster: None, tiny_bert: Path, tmp_path: Path, sink: MemorySink
) -> None:
    with pytest.raises(ConfigError, match=r"with 64 CPUs each do not fit: the cluster has 4 CPUs and 0 GPUs"):
        searched(search_config(tiny_bert, tmp_path / "runs", cpus_per_worker=64))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k": 9}, "k is 9, but sample has 3 aspects"),
        ({"trials": 0}, "trials is 0; expected 1 or more"),
        ({"halving": 0.5}, "halving is 0.5; expected 1 or more"),
        ({"gpus_per_trial": 1.5}, "gpus_per_trial is 1.5; expected above 0 and under 1, or a whole number"),
        ({"name": "../elsewhere"}, "name is '../elsewhere'"),
        ({"again": True}, "a search has no --again"),
    ],
)
def test_a_setting_that_cannot_be_is_one_clear_message(
    tiny_bert: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(LgsrrError) as caught:
        plan(search_config(tiny_bert, tmp_path / "runs", **change))
    assert words in str(caught.value)


# ---- the plan ------------------------------------------------------------------------------------------------------


@slow
def test_explain_shows_trials_rungs_and_hours_and_trains_no_trial(
    ray_cluster: None, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = search_config(tiny_bert, tmp_path / "runs", trials=12, seeds=5)
    explain(plan(config), Console(width=200))
    shown = capsys.readouterr().out
    assert "the paper's setting" in shown
    assert "seed-epochs at most; every configuration with every seed would take 240" in shown
    assert "CPU-hours" in shown
    assert not (tmp_path / "runs").exists()

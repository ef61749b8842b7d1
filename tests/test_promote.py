"""A model that was found becomes the champion, by command or by a person in the UI, and is what predict uses."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from lgsrr.destination import TrackingConfig
from lgsrr.errors import ConfigError, ModelError, TrackingError
from lgsrr.logged_models import resolve_model
from lgsrr.registry import CANDIDATE, CHAMPION, SEARCH, Version, versions
from lgsrr.run_folder import RunFolder
from lgsrr.tracker import Tracker
from lgsrr.tracking import connect
from lgsrr.train import Trained
from tests.tiny import command
from tune.promote import PromoteConfig, promote

NAME = "lgsrr-sample"


def register(runs: Path, folder: Path, key: str, alias: str | None) -> None:
    tracker = Tracker(runs, TrackingConfig(), key)
    tracker.start(dataset="sample", name=key)
    tracker.model(folder)
    tracker.register(NAME, alias=alias, tags={SEARCH: "a-search", "dev_f1_mean": "0.412", "dev_f1_sd": "0.008"})
    tracker.finish()
    assert tracker.close(timeout_s=60).pending == 0


@pytest.fixture(scope="module")
def with_candidate(tracked: Trained, empty_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs with one version, the candidate: made once, and copied for each test."""
    folder = Path(shutil.copytree(empty_runs, tmp_path_factory.mktemp("candidate") / "runs"))
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("MLFLOW_TRACKING_URI", raising=False)
        register(folder, RunFolder(tracked.folder).model, "one", CANDIDATE)
    return folder


@pytest.fixture
def one(with_candidate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs of the test's own, in which the first version is the candidate."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Path(shutil.copytree(with_candidate, tmp_path / "runs"))


def changed(model: Path, to: Path, **fields: object) -> Path:
    """The same model with other words on its card."""
    shutil.copytree(model, to)
    card = json.loads((to / "model.json").read_text())
    (to / "model.json").write_text(json.dumps(card | fields))
    return to


@pytest.fixture
def model(tracked: Trained) -> Path:
    return RunFolder(tracked.folder).model


def promoted(runs: Path, **asked: object) -> tuple[Version | None, str]:
    printed = io.StringIO()
    config = PromoteConfig(dataset="sample", runs=str(runs), **asked)  # type: ignore[arg-type]
    return promote(config, Console(file=printed, width=160)), printed.getvalue()


def champion(runs: Path) -> str | None:
    known = versions(connect(f"sqlite:///{runs / 'mlflow.db'}"), NAME)
    return next((version.version for version in known if CHAMPION in version.aliases), None)


@pytest.mark.slow
def test_the_candidate_becomes_the_champion_that_predict_uses(model: Path, one: Path, tmp_path: Path) -> None:
    version, printed = promoted(one, candidate=True)
    assert version is not None
    assert champion(one) == version.version == "1"
    assert "no champion" in printed
    asked = ["--text", "nice job"]
    for aspect in ("Speakers' Actions", "Facial Expressions", "Interaction with Others"):
        asked += ["--description", f"{aspect}=She waves."]
    done = command("predict", "--model", f"models:/{NAME}@{CHAMPION}", "--runs", str(one), *asked, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["label"]


def test_promoting_the_champion_again_says_so_and_changes_nothing(model: Path, one: Path) -> None:
    promoted(one, candidate=True)
    _, printed = promoted(one, version=1)
    assert "is the champion already" in printed


def test_an_alias_that_a_person_sets_in_the_ui_is_followed(model: Path, runs: Path, tmp_path: Path) -> None:
    register(runs, model, "one", None)
    other = changed(model, tmp_path / "other", batch_size=31)
    register(runs, other, "two", None)
    connect(f"sqlite:///{runs / 'mlflow.db'}").set_registered_model_alias(NAME, CHAMPION, "2")
    found = resolve_model(f"models:/{NAME}@{CHAMPION}", runs, TrackingConfig())
    assert json.loads((found / "model.json").read_text())["batch_size"] == 31


def test_the_list_shows_versions_aliases_and_scores(model: Path, one: Path) -> None:
    _, printed = promoted(one)
    assert f"{NAME} 1" in printed
    assert CANDIDATE in printed
    assert "41.2 ± 0.8" in printed


def test_the_numbers_before_and_after_are_shown(model: Path, one: Path, tmp_path: Path) -> None:
    promoted(one, candidate=True)
    register(one, changed(model, tmp_path / "other", batch_size=31), "two", CANDIDATE)
    connect(f"sqlite:///{one / 'mlflow.db'}").set_model_version_tag(NAME, "2", "dev_f1_mean", "0.987")
    _, printed = promoted(one, candidate=True)
    assert "41.2 ± 0.8" in printed
    assert "98.7 ± 0.8" in printed
    assert champion(one) == "2"


def test_a_tag_that_a_person_wrote_into_does_not_break_the_list(model: Path, one: Path) -> None:
    connect(f"sqlite:///{one / 'mlflow.db'}").set_model_version_tag(NAME, "1", "dev_f1_mean", "about 45")
    assert f"{NAME} 1" in promoted(one)[1]


def test_a_model_of_another_dataset_is_refused_where_there_is_no_champion_yet(
    model: Path, runs: Path, tmp_path: Path
) -> None:
    register(runs, changed(model, tmp_path / "other", dataset="mintrec2"), "one", CANDIDATE)
    with pytest.raises(ModelError, match="was trained on mintrec2, and sample is asked for"):
        promoted(runs, candidate=True)
    assert champion(runs) is None


@pytest.mark.parametrize(
    ("fields", "words"), [({"data_digest": "0" * 64}, "other data"), ({"labels": ["a"]}, "other labels")]
)
def test_a_model_of_other_data_or_labels_is_refused_unless_told_to(
    model: Path, one: Path, tmp_path: Path, fields: dict[str, object], words: str
) -> None:
    promoted(one, candidate=True)
    register(one, changed(model, tmp_path / "other", **fields), "two", CANDIDATE)
    with pytest.raises(ModelError, match=words) as caught:
        promoted(one, candidate=True)
    assert "--other-data" in str(caught.value)
    assert champion(one) == "1"
    promoted(one, candidate=True, other_data=True)
    assert champion(one) == "2"


def test_the_model_of_a_run_becomes_a_version_and_the_champion(tracked: Trained, tracked_copy: Path) -> None:
    assert tracked.delivery is not None
    runs = tracked_copy
    version, _ = promoted(runs, run=tracked.delivery.run_id)
    assert version is not None
    assert version.run_id == tracked.delivery.run_id
    assert champion(runs) == version.version
    again, printed = promoted(runs, run=tracked.delivery.run_id)
    assert "already" in printed
    assert again is not None
    assert again.version == version.version


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"version": 9}, "has no version 9; its versions are 1"),
        ({"candidate": True}, "has no candidate; its versions are 1"),
        ({"run": "0" * 32}, "has no model runs:/0"),
    ],
)
def test_what_is_not_there_is_one_clear_message(model: Path, runs: Path, asked: dict[str, object], words: str) -> None:
    register(runs, model, "one", None)
    with pytest.raises(ModelError, match=words):
        promoted(runs, **asked)


def test_nothing_to_promote_says_where_models_come_from(runs: Path) -> None:
    with pytest.raises(
        ModelError, match=r"lgsrr-sample has no version .*; python tune/search\.py registers its winner"
    ):
        promoted(runs)


def test_a_server_that_is_away_is_named(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(TrackingError, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        promoted(runs, candidate=True)


def test_two_ways_to_say_what_are_refused() -> None:
    with pytest.raises(ConfigError, match="more than one of"):
        PromoteConfig(dataset="sample", candidate=True, version=1)
    with pytest.raises(ConfigError, match="--dataset is missing"):
        dataclasses.replace(PromoteConfig(), candidate=True)


def test_a_run_that_is_refused_does_not_become_a_version(model: Path, one: Path, tmp_path: Path) -> None:
    promoted(one, candidate=True)
    tracker = Tracker(one, TrackingConfig(), "two")
    tracker.start(dataset="sample", name="two")
    tracker.model(changed(model, tmp_path / "other", data_digest="0" * 64))
    tracker.finish()
    run_id = tracker.close(timeout_s=60).run_id
    with pytest.raises(ModelError, match="other data"):
        promoted(one, run=run_id)
    assert [v.version for v in versions(connect(f"sqlite:///{one / 'mlflow.db'}"), NAME)] == ["1"]

"""Every command says how it is used, and refuses a bad setting with one message."""

from __future__ import annotations

import dataclasses
import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest

from lgsrr import train as train_command
from lgsrr.config import TrainConfig, iemocap_da, mintrec2, recipe, sample
from lgsrr.errors import ConfigError
from tests.tiny import command, flags, unboxed

COMMANDS = ("train", "evaluate", "predict", "catalog", "doctor")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example_at_once(name: str, tmp_path: Path) -> None:
    started = time.monotonic()
    done = command(name, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"Example:\n    python -m lgsrr.{name} --" in done.stdout
    assert time.monotonic() - started < 30  # seconds on an idle machine; imports may have to wait for a busy one
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lr", "0"], "lr is 0.0; expected above 0"),
        (["--k", "-1"], "k is -1; expected 0 (text alone) or more"),
        (["--epochs", "0"], "epochs is 0; expected 1 or more"),
        (["--dropout", "1"], "dropout is 1.0; expected at least 0 and under 1"),
        (["--batch-size", "1", "--workers", "2"], "batch_size is 1; expected at least the number of workers (2)"),
        (["--text-length", "2"], "text_length is 2; expected 3 or more"),
        (["--head-lr", "nan"], "head_lr is nan; expected above 0"),
        (["--tau", "inf"], "tau is inf; expected above 0"),
        (["--dataset", "mintrec2"], "the dataset 'mintrec2' needs --data"),
        (["--dataset", "../x"], "dataset is '../x'; expected a name of letters"),
        (["--k", "9"], "k is 9, but sample in"),
        (["--trainable-layers", "7"], "trainable_layers is 7; the encoder minilm has 6 layers"),
    ],
)
def test_a_bad_setting_is_one_message_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        train_command.main(["--dataset", "sample", "--runs", str(tmp_path / "runs"), *arguments])
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert message in unboxed(printed.err)
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("arguments", [["--epochs", "many"], ["--no-such-flag"], ["--pooling", "max"], ["stray"]])
def test_a_flag_that_cannot_be_read_is_exit_code_2(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        train_command.main(["--runs", str(tmp_path / "runs"), *arguments])
    assert ended.value.code == 2
    assert arguments[0].lstrip("-") in capsys.readouterr().err


@pytest.mark.parametrize(
    "config",
    [
        sample(), mintrec2(), mintrec2("bert-large-uncased"), iemocap_da("bert-large-uncased"),
        TrainConfig(dataset="mine", data="a b.csv", k=0, trainable_layers=1, inconsistency="batch", head_lr=1e-3),
    ],
)  # fmt: skip
def test_the_command_line_says_all_that_a_config_says(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[TrainConfig] = []

    def train(given: TrainConfig) -> Any:
        seen.append(given)
        raise KeyboardInterrupt

    monkeypatch.setattr(train_command, "train", train)
    with pytest.raises(SystemExit):
        train_command.main(flags(config))
    assert seen == [config]


def test_a_recipe_is_where_a_command_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[TrainConfig] = []

    def train(given: TrainConfig) -> Any:
        seen.append(given)
        raise ConfigError("far enough")

    monkeypatch.setattr(train_command, "train", train)
    for line in (
        ["--dataset=iemocap_da", "--data", "d", "--encoder", "bert-large-uncased"],
        ["--dataset", "mine", "--data", "d.csv", "--epochs", "2"],
    ):
        with pytest.raises(SystemExit):
            train_command.main(line)
    assert (seen[0].text_length, seen[0].lr, seen[0].weight_decay, seen[0].epochs) == (70, 1e-5, 0.1, 100)
    assert (seen[1].dataset, seen[1].text_length, seen[1].epochs) == ("mine", 70, 2)


def test_the_papers_settings_are_those_of_its_recipes() -> None:
    large = "bert-large-uncased"
    assert [(r.text_length, r.description_length) for r in (mintrec2(large), iemocap_da(large))] == [(30, 50), (70, 50)]
    for config in (mintrec2(large), iemocap_da(large)):
        assert (config.batch_size, config.epochs, config.patience, config.tau, config.rank_weight) == (32, 100, 5, 1, 1)
    assert recipe("mintrec2", large).lr == 6e-6


def test_what_does_not_change_the_numbers_does_not_change_the_runs_name() -> None:
    config = TrainConfig(dataset="sample")
    same = TrainConfig(dataset="sample", workers=4, runs="elsewhere", max_failures=0, experiment="e", again=True)
    assert same.fingerprint("d") == config.fingerprint("d")
    changes: list[dict[str, Any]] = [{"seed": 1}, {"k": 1}, {"limit": 1}, {"trainable_layers": 1}]
    others = [dataclasses.replace(config, **change) for change in changes]
    assert len({c.fingerprint("d") for c in (config, *others)} | {config.fingerprint("e")}) == 6


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_message_wherever_it_is_met(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "not yet" / "model.json"

    def train(given: TrainConfig) -> Any:
        raise OSError(code, os.strerror(code), str(missing))

    monkeypatch.setattr(train_command, "train", train)
    with pytest.raises(SystemExit) as ended:
        train_command.main(["--dataset", "sample"])
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert said.startswith(f"error: the disk is full ({missing}: {os.strerror(code)}; ")
    assert "make room" in said


def test_any_other_error_of_the_system_is_a_defect_and_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(given: TrainConfig) -> Any:
        raise OSError(errno.EBADF, "bad file")

    monkeypatch.setattr(train_command, "train", train)
    with pytest.raises(SystemExit) as ended:
        train_command.main(["--dataset", "sample"])
    assert ended.value.code == 1
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert "bad file" in printed

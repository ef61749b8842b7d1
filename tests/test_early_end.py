"""Whatever ends a command early: its last lines say what is safe, what it cost, how to go on, what may help."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable

import pytest

from lgsrr import cli
from lgsrr.early_end import Helps, accounted
from lgsrr.errors import ConfigError, StorageError, TrainingError
from lgsrr.train import HELPS as OF_TRAINING
from pipelines.job import HELPS as OF_EXTRACTION
from pipelines.job import early_end
from tune.conduct import HELPS as OF_SEARCH

LINES = ["  safe       3 of 5 epochs, in runs", "  cost       2 workers", "  continue   python train.py --epochs 5"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nothing:
    """A command without settings."""


def ended_by(error: BaseException, monkeypatch: pytest.MonkeyPatch, safe: Callable[[], str] | None = None) -> int:
    """The exit code of a command which that error ends."""

    def command(_: Nothing) -> None:
        with accounted(safe or (lambda: "3 of 5 epochs, in runs"), lambda seconds: "2 workers", OF_TRAINING):
            raise error

    monkeypatch.setattr(sys, "argv", ["train.py", "--epochs", "5"])
    with pytest.raises(SystemExit) as end:
        cli.run(command, Nothing, prog="train", description="Trains.", example="train", argv=[])
    return int(str(end.value.code))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TrainingError("a worker is gone"), 1),
        (StorageError("the store cannot be reached"), 1),
        (KeyboardInterrupt(), 130),
        (OSError(28, "No space left on device", "/"), 1),
        (RuntimeError("a defect"), 1),
    ],
)
def test_every_end_is_followed_by_what_is_safe_what_it_cost_and_how_to_go_on(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended_by(error, monkeypatch) == code
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if line in LINES] == LINES


def test_a_setting_that_was_refused_before_anything_was_done_costs_no_such_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended_by(ConfigError("epochs is 0"), monkeypatch) == 2
    assert "safe" not in capsys.readouterr().err


def test_what_cannot_be_counted_hides_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away() -> str:
        raise StorageError("s3://b: away")

    assert ended_by(TrainingError("a worker is gone"), monkeypatch, safe=away) == 1
    said = capsys.readouterr().err
    assert "a worker is gone" in said
    assert "what was written before (it cannot be counted now: s3://b: away)" in said


def test_no_key_is_in_the_command_that_continues(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789"
    ended_by(TrainingError("gone"), monkeypatch, safe=lambda: f"all but {key}")
    assert key not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("helps", "reason", "setting"),
    [
        (OF_TRAINING, "CUDA out of memory", "--batch-size"),
        (OF_TRAINING, "the loss is not finite in step 3", "--lr"),
        (OF_SEARCH, "CUDA out of memory", "--gpus-per-trial"),
        (OF_SEARCH, "no trial of the search x finished", "--explain"),
        (OF_EXTRACTION, "the budget of $2.00 is used up", "--budget-usd"),
        (OF_EXTRACTION, "429: rate limit of requests", "--rpm"),
        (OF_EXTRACTION, "http://host/v1 rejected the key (401)", "--key-file"),
    ],
)
def test_the_setting_that_helps_is_named_where_one_is_known(helps: Helps, reason: str, setting: str) -> None:
    error = TrainingError(reason)
    with pytest.raises(TrainingError), accounted(str, str, helps):
        raise error
    assert setting in error.__notes__[0].splitlines()[-1]


def test_where_none_is_known_none_is_made_up() -> None:
    assert "may help" not in early_end("rank", "the actor died", "3 rows", 0.1, 0.2)

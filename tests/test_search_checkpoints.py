"""Checkpoints of a seed that trains in its trial's own process: whole or not there, the newest and best kept."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from lgsrr import storage
from tune.own_process import OwnProcessChannel, local_copy


@pytest.fixture(params=["disk", "store"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "run") if request.param == "disk" else f"memory://{uuid.uuid4().hex}/run"


def write(text: str) -> Any:
    def fill(folder: Path) -> None:
        (folder / "deep").mkdir()
        (folder / "deep" / "state.txt").write_text(text)

    return fill


def report(channel: OwnProcessChannel, epoch: int, *, best: bool) -> None:
    history = [{"epoch": e} for e in range(1, epoch + 1)]
    channel.report({"epoch": epoch, "history": history, "keep_score": epoch if best else 0}, write(f"epoch {epoch}"))


def read(folder: Path | None) -> str:
    assert folder is not None
    return (folder / "deep" / "state.txt").read_text()


def test_a_run_that_never_began_has_nothing_to_go_on_from(folder: str) -> None:
    with OwnProcessChannel(folder, lambda _: None).latest() as found:
        assert found is None


def test_the_newest_is_taken_up_and_its_figures_are_told_again(folder: str) -> None:
    report(OwnProcessChannel(folder, lambda _: None), 1, best=True)
    told: list[Any] = []
    channel = OwnProcessChannel(folder, told.append)
    report(channel, 2, best=False)
    with OwnProcessChannel(folder, told.append).latest() as found:
        assert read(found) == "epoch 2"
    assert [figures["epoch"] for figures in told] == [2, 2]


def test_only_the_newest_and_the_best_are_kept(folder: str) -> None:
    channel = OwnProcessChannel(folder, lambda _: None)
    for epoch in range(1, 6):
        report(channel, epoch, best=epoch in (1, 3))
    assert [name for name in storage.names_in(folder) if not name.endswith(".json")] == ["epoch-0003", "epoch-0005"]
    with channel.of_epoch(3) as best:
        assert read(best) == "epoch 3"


def test_a_checkpoint_without_its_mark_is_not_there(folder: str) -> None:
    channel = OwnProcessChannel(folder, lambda _: None)
    report(channel, 1, best=True)
    report(channel, 2, best=True)
    storage.remove(storage.join(folder, "epoch-0002.json"))
    report(channel, 1, best=True)
    with channel.latest() as found:
        assert read(found) == "epoch 1"


def test_the_end_of_a_run_is_newer_than_any_epoch(folder: str) -> None:
    channel = OwnProcessChannel(folder, lambda _: None)
    report(channel, 1, best=True)
    channel.report({"test_f1": 0.5, "history": [{"epoch": 1}], "keep_score": 9}, write("the end"))
    with channel.latest() as found:
        assert read(found) == "the end"


def test_figures_alone_are_told_and_keep_nothing(folder: str) -> None:
    told: list[Any] = []
    OwnProcessChannel(folder, told.append).report({"ended": True}, None)
    assert told == [{"ended": True}]
    assert storage.kind(folder) == "missing"


def test_a_folder_of_a_store_comes_whole(folder: str) -> None:
    report(OwnProcessChannel(folder, lambda _: None), 1, best=True)
    with local_copy(storage.join(folder, "epoch-0001")) as here:
        assert read(here) == "epoch 1"

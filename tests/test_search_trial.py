"""What a trial takes of the cluster, and what ends one trial alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lgsrr.errors import ConfigError, TrainingError
from tune import step, trial
from tune.trial import Work


def work(**changes: Any) -> Work:
    small: dict[str, Any] = {"storage": "", "jobs": {}, "cpus": 1, "gpus": 0.0, "workers": 1, "in_group": False}
    return Work(**small | changes)


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes with eight CPUs and two GPUs each, and one that has died."""
    resources = {"CPU": 8.0, "GPU": 2.0}
    found = [{"Alive": alive, "Resources": resources} for alive in (True, True, False)]
    monkeypatch.setattr("ray.nodes", lambda: found)


@pytest.mark.parametrize(
    ("asked", "room"),
    [
        ({}, 16),
        ({"cpus": 3}, 4),
        ({"gpus": 0.25}, 16),
        ({"gpus": 0.25, "cpus": 2}, 8),
        ({"gpus": 1.0}, 4),
        ({"gpus": 1.0, "workers": 3, "in_group": True}, 1),
    ],
)
def test_as_many_runs_at_once_as_the_nodes_hold(nodes: None, asked: dict[str, Any], room: int) -> None:
    assert step.room_for(work(**asked)) == room


def test_what_no_node_holds_is_refused(nodes: None) -> None:
    with pytest.raises(ConfigError, match=r"1 worker with 1 CPUs and 4 GPUs each do not fit"):
        step.room_for(work(gpus=4.0))


def test_a_trial_whose_workers_are_a_group_holds_no_cpu_that_they_wait_for() -> None:
    assert work(in_group=True, gpus=0.5).resources().keys() == {"memory"}
    assert work(cpus=2, gpus=0.25).resources() == {"CPU": 2, "GPU": 0.25}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore"), "memory ran out: CUDA out of"),
        (MemoryError(), "a smaller batch_size or fewer trials at once need less"),
        (TrainingError("the loss is not finite"), "the loss is not finite"),
    ],
)
def test_what_the_configuration_is_to_blame_for_is_told_and_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    told: list[dict[str, str]] = []
    monkeypatch.setattr("ray.tune.report", told.append)

    def fails() -> None:
        raise error

    with trial._reported_failures():
        fails()
    assert len(told) == 1
    assert words in told[0]["failure"]
    assert "\n" not in told[0]["failure"]


def test_what_a_machine_is_to_blame_for_is_raised_so_that_tune_tries_again() -> None:
    with pytest.raises(OSError, match="No space left"), trial._reported_failures():
        raise OSError("No space left on device")

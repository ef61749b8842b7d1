"""A loss that is not finite stops a run with the step and the utterances."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lgsrr.errors import TrainingError
from lgsrr.guard import CHECK_EVERY, NAMED_AT_MOST, LossGuard

IDS = [f"u{n}" for n in range(20)]


def losses(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, requires_grad=True)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_the_first_bad_step_and_its_utterances_are_named(broken: float) -> None:
    guard = LossGuard(IDS)
    guard.add(2, 1, np.array([0, 1, 2]), losses(1, 2, 3))
    guard.add(2, 2, np.array([3, 4, 5]), losses(broken, 1, broken))
    guard.add(2, 3, np.array([6, 7, 8]), losses(broken, broken, broken))
    with pytest.raises(TrainingError, match=r"not finite in step 2 of epoch 2, in 2 utterances: u3, u5; .*--lr"):
        guard.check()


def test_it_looks_by_itself_after_some_steps() -> None:
    guard = LossGuard(IDS)
    guard.add(1, 1, np.array([0]), losses(float("nan")))
    for step in range(2, CHECK_EVERY):
        guard.add(1, step, np.array([1]), losses(1))
    with pytest.raises(TrainingError, match="step 1 of epoch 1"):
        guard.add(1, CHECK_EVERY, np.array([1]), losses(1))


def test_many_utterances_are_counted_and_the_first_are_named() -> None:
    guard = LossGuard(IDS)
    guard.add(1, 1, np.arange(20), losses(*[float("nan")] * 20))
    with pytest.raises(TrainingError, match=r"in 20 utterances: u0, u1, u2, u3, u4, \.\.\.;"):
        guard.check()
    assert NAMED_AT_MOST == 5


def test_finite_losses_pass() -> None:
    guard = LossGuard(IDS)
    for step in range(3 * CHECK_EVERY):
        guard.add(1, step + 1, np.array([0, 1]), losses(1e30, 0))
    guard.check()
    guard.check()

"""AdamW has the paper's groups, and its learning rate rises and falls as the paper's does."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lgsrr.config import TrainConfig
from lgsrr.encoder import EncoderConfig, PackedBert
from lgsrr.model import LGSRR, SemanticRelations
from lgsrr.optimizer import make_optimizer, rate_at, set_rate, uncorrected

CONFIG = TrainConfig(dataset="sample", lr=1e-4, weight_decay=0.05)
SHAPE = EncoderConfig(
    vocab_size=20, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
    max_position_embeddings=16,
)  # fmt: skip


def a_model(trainable_layers: int | None = None) -> LGSRR:
    return LGSRR(PackedBert(SHAPE, "mean", trainable_layers), SemanticRelations(8, 3, importance_hidden=4))


def settings_by_name(model: LGSRR, config: TrainConfig) -> dict[str, tuple[float, float]]:
    """(peak learning rate, weight decay) of every trained parameter."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = make_optimizer(model, config).param_groups
    return {names[id(p)]: (g["peak_lr"], g["weight_decay"]) for g in groups for p in g["params"]}


def test_biases_and_norms_do_not_decay_and_all_else_does() -> None:
    model = a_model()
    found = settings_by_name(model, CONFIG)
    assert found.keys() == dict(model.named_parameters()).keys()
    spared = {name for name, (_, decay) in found.items() if decay == 0}
    assert spared == {name for name in found if name.endswith(".bias") or "norm" in name or "token_type" in name}
    assert {decay for name, (_, decay) in found.items() if name not in spared} == {0.05}


@pytest.mark.parametrize(("head_lr", "expected"), [(None, 1e-4), (1e-3, 1e-3)])
def test_the_new_layers_may_have_a_learning_rate_of_their_own(head_lr: float | None, expected: float) -> None:
    found = settings_by_name(a_model(), dataclasses.replace(CONFIG, head_lr=head_lr))
    assert {lr for name, (lr, _) in found.items() if name.startswith("relations.")} == {expected}
    assert {lr for name, (lr, _) in found.items() if name.startswith("encoder.")} == {1e-4}


def test_frozen_parameters_are_in_no_group() -> None:
    found = settings_by_name(a_model(trainable_layers=1), CONFIG)
    assert {name.split(".")[2] for name in found if name.startswith("encoder.")} == {"1"}


def test_the_rate_rises_from_zero_to_its_peak_and_falls_to_almost_zero() -> None:
    rates = [rate_at(step, 100, 0.1) for step in range(100)]
    assert rates[:3] == pytest.approx([0, 0.1, 0.2])
    assert rates[10] == 1
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(1 / 90)


@pytest.mark.parametrize(("total", "warmup", "expected"), [(4, 0.0, [1, 0.75, 0.5, 0.25]), (1, 0.5, [1]), (1, 0, [1])])
def test_short_runs_have_a_rate_too(total: int, warmup: float, expected: list[float]) -> None:
    assert [rate_at(step, total, warmup) for step in range(total)] == expected


def test_the_schedule_is_that_of_transformers() -> None:
    from transformers import get_linear_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = get_linear_schedule_with_warmup(optimizer, num_warmup_steps=7, num_training_steps=70)
    for step in range(70):
        assert rate_at(step, 70, 0.1) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()


def test_every_group_gets_its_share_of_its_own_peak() -> None:
    optimizer = make_optimizer(a_model(), dataclasses.replace(CONFIG, head_lr=1e-3))
    set_rate(optimizer, 0.5)
    assert {group["lr"] for group in optimizer.param_groups} == {5e-5, 5e-4}


def test_steps_are_those_of_adam_without_bias_correction() -> None:
    """As the released code runs it (transformers' old AdamW, `correct_bias=False`), written out; without decay."""
    torch.manual_seed(0)
    gradients = torch.randn(300, 4)
    model = torch.nn.Linear(4, 1, bias=False)
    expected = model.weight.detach().clone()
    first, second = torch.zeros(4), torch.zeros(4)
    optimizer = make_optimizer(model, dataclasses.replace(CONFIG, lr=1e-2, weight_decay=0.0))
    for step, gradient in enumerate(gradients):
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient.square()
        expected = expected - 1e-2 * first / (second.sqrt() + 1e-8)
        model.weight.grad = gradient[None]
        set_rate(optimizer, uncorrected(step))
        optimizer.step()
        torch.testing.assert_close(model.weight.detach(), expected, atol=1e-5, rtol=0)

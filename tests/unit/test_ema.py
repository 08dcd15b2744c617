"""The weight average against its closed form."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ladd_dist.engine.ema import WeightAverage


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.count = nn.Buffer(torch.zeros(2))


def set_to(net: Net, value: float) -> None:
    with torch.no_grad():
        net.weight.fill_(value)
        net.count.fill_(10 * value)


def test_beta_halves_the_past_every_half_life() -> None:
    average = WeightAverage(Net(), half_life=1_000, ramp=0.0, batch_size=100)
    assert average.beta(1) == pytest.approx(0.5 ** (1 / 10))
    assert average.beta(1) ** 10 == pytest.approx(0.5)
    assert average.beta(10**6) == average.beta(1)


def test_the_ramp_limits_the_half_life_to_a_share_of_the_samples_seen() -> None:
    average = WeightAverage(Net(), half_life=1_000, ramp=0.05, batch_size=100)
    for updates in (1, 10, 100, 199):
        assert average.beta(updates) == pytest.approx(0.5 ** (100 / (0.05 * updates * 100)))
    assert average.beta(200) == average.beta(5_000) == pytest.approx(0.5 ** (1 / 10))


@pytest.mark.parametrize("ramp", [0.0, 0.9])
def test_the_average_is_the_exponentially_weighted_sum(ramp: float) -> None:
    net = Net()
    average = WeightAverage(net, half_life=300, ramp=ramp, batch_size=100)
    expected = 0.0
    for updates, value in enumerate([1.0, -2.0, 5.0, 0.5], start=1):
        beta = 0.5 ** (100 / min(300, ramp * updates * 100 if ramp else 300))
        set_to(net, value)
        average.update(net, updates)
        expected = beta * expected + (1 - beta) * value
        assert torch.allclose(average.module.weight, torch.full((3,), expected))
        assert torch.equal(average.module.count, net.count)  # buffers are copied, not averaged


def test_half_life_0_copies() -> None:
    net = Net()
    average = WeightAverage(net, half_life=0, ramp=0.05, batch_size=100)
    assert average.beta(7) == 0.0
    set_to(net, 1 / 3)
    average.update(net, 1)
    assert torch.equal(average.module.weight, net.weight)


def test_the_average_starts_as_a_frozen_copy_in_eval_mode() -> None:
    net = Net()
    set_to(net, 2.0)
    average = WeightAverage(net.train(), half_life=100, ramp=0.0, batch_size=1)
    set_to(net, 5.0)
    assert torch.equal(average.module.weight, torch.full((3,), 2.0))
    assert not average.module.training
    assert not average.module.weight.requires_grad
    assert net.weight.requires_grad
    assert net.training


def test_updating_leaves_the_module_alone() -> None:
    net = Net()
    set_to(net, 2.0)
    average = WeightAverage(net, half_life=100, ramp=0.0, batch_size=10)
    average.update(net, 1)
    assert torch.equal(net.weight, torch.full((3,), 2.0))
    assert net.weight.grad is None

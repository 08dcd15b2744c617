"""The weight average against its closed form."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ladd_dist.builders.teacher import averaged
from ladd_dist.core.types import Denoiser, ImageSpec
from ladd_dist.engine.ema import WeightAverage
from ladd_dist.networks import Network
from ladd_dist.parallel import Adam, FlatShard
from ladd_dist.parallel.compute import Compute
from ladd_dist.parallel.ranks import SINGLE
from ladd_dist.parallel.single import Single
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace
from recipes.exp4_specnorm import RECIPE

SHAPES = {"weight": (3, 5), "bias": (2,)}


def weights() -> dict[str, Tensor]:
    return {name: torch.zeros(shape, requires_grad=True) for name, shape in SHAPES.items()}


def parts(weights: dict[str, Tensor]) -> dict[str, FlatShard]:
    """Every weight as a whole, which this rank holds."""
    return {name: FlatShard(tensor, 0, tensor.numel(), tensor.shape, copies=True) for name, tensor in weights.items()}


def shard(weights: dict[str, Tensor], rank: int, ranks: int) -> dict[str, FlatShard]:
    """The range of each flattened weight that a rank holds under a sharded strategy; padded, as FSDP2 pads."""
    found = {}
    for name, tensor in weights.items():
        size = -(-tensor.numel() // ranks)
        start, stop = min(rank * size, tensor.numel()), min((rank + 1) * size, tensor.numel())
        own = torch.full((size,), 77.0)
        own[: stop - start] = tensor.detach().flatten()[start:stop]
        found[name] = FlatShard(own, start, stop, tensor.shape, copies=False)
    return found


def set_to(weights: dict[str, Tensor], value: float) -> None:
    with torch.no_grad():
        for tensor in weights.values():
            tensor.copy_(value * torch.arange(1.0, tensor.numel() + 1).view(tensor.shape))


def expected(value: float) -> dict[str, Tensor]:
    made = weights()
    set_to(made, value)
    return {name: tensor.detach() for name, tensor in made.items()}


def average_of(weights: dict[str, Tensor], **options: float) -> WeightAverage:
    return WeightAverage(parts(weights), **options)  # type: ignore[arg-type]


def values(average: WeightAverage) -> dict[str, Tensor]:
    return {name: part.flat().view(part.shape) for name, part in average.weights.items()}


def test_beta_halves_the_past_every_half_life() -> None:
    average = average_of(weights(), half_life=1_000, ramp=0.0, batch_size=100)
    assert average.beta(1) == pytest.approx(0.5 ** (1 / 10))
    assert average.beta(1) ** 10 == pytest.approx(0.5)
    assert average.beta(10**6) == average.beta(1)


def test_the_ramp_limits_the_half_life_to_a_share_of_the_samples_seen() -> None:
    average = average_of(weights(), half_life=1_000, ramp=0.05, batch_size=100)
    for updates in (1, 10, 100, 199):
        assert average.beta(updates) == pytest.approx(0.5 ** (100 / (0.05 * updates * 100)))
    assert average.beta(200) == average.beta(5_000) == pytest.approx(0.5 ** (1 / 10))


@pytest.mark.parametrize("ramp", [0.0, 0.9])
def test_the_average_is_the_exponentially_weighted_sum(ramp: float) -> None:
    live = weights()
    average = average_of(live, half_life=300, ramp=ramp, batch_size=100)
    sum_ = 0.0
    for updates, value in enumerate([1.0, -2.0, 5.0, 0.5], start=1):
        beta = 0.5 ** (100 / min(300, ramp * updates * 100 if ramp else 300))
        set_to(live, value)
        average.update(updates)
        sum_ = beta * sum_ + (1 - beta) * value
        torch.testing.assert_close(values(average), expected(sum_))


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_shards_of_the_average_are_the_average_of_shards(ranks: int) -> None:
    """Also where a rank holds less than the others, or nothing, of a weight."""
    live = weights()
    whole = average_of(live, half_life=300, ramp=0.0, batch_size=100)
    held = [shard(live, rank, ranks) for rank in range(ranks)]
    averages = [WeightAverage(own, half_life=300, ramp=0.0, batch_size=100) for own in held]
    for updates, value in enumerate([1.0, -2.0, 5.0], start=1):
        set_to(live, value)
        for rank, own in enumerate(held):
            for name, part in shard(live, rank, ranks).items():
                own[name].tensor.copy_(part.tensor)
        for average in (whole, *averages):
            average.update(updates)
    for name, tensor in values(whole).items():
        joined = torch.cat([average.weights[name].flat() for average in averages])
        torch.testing.assert_close(joined.view(tensor.shape), tensor)


def test_half_life_0_copies() -> None:
    live = weights()
    average = average_of(live, half_life=0, ramp=0.05, batch_size=100)
    assert average.beta(7) == 0.0
    set_to(live, 1 / 3)
    average.update(1)
    assert all(torch.equal(value, live[name]) for name, value in values(average).items())


def test_the_average_starts_as_a_copy_that_needs_no_gradient() -> None:
    live = weights()
    set_to(live, 2.0)
    average = average_of(live, half_life=100, ramp=0.0, batch_size=1)
    set_to(live, 5.0)
    assert all(torch.equal(value, expected(2.0)[name]) for name, value in values(average).items())
    assert not any(part.tensor.requires_grad for part in average.weights.values())
    assert all(tensor.requires_grad for tensor in live.values())


def test_updating_leaves_the_weights_alone() -> None:
    live = weights()
    set_to(live, 2.0)
    average = average_of(live, half_life=100, ramp=0.0, batch_size=10)
    average.update(1)
    for name, tensor in live.items():
        assert torch.equal(tensor, expected(2.0)[name])
        assert tensor.grad is None


def test_a_checkpoint_holds_the_average_in_the_form_of_the_weights() -> None:
    live = weights()
    set_to(live, 2.0)
    found = average_of(live, half_life=100, ramp=0.0, batch_size=10).parts()
    assert found.keys() == {"average/weight", "average/bias"}
    for name, part in parts(live).items():
        assert found[f"average/{name}"][1:] == part[1:]
        assert torch.equal(found[f"average/{name}"].tensor, part.tensor)


class Counting(Denoiser):
    """A network with a weight, and a buffer that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.count = nn.Buffer(torch.zeros(2))


@dataclass(frozen=True)
class CountingNetwork(Network):
    def build(self, *, image: ImageSpec) -> Denoiser:
        return Counting()


def test_the_averaged_network_has_the_live_ones_buffers_and_is_frozen_in_eval_mode(tmp_path: Path) -> None:
    """Buffers are copied, not averaged; the network that trains stays as it is."""
    cpu = torch.device("cpu")
    recipe = dataclasses.replace(RECIPE.smoke, network=CountingNetwork())
    live = Counting().train()
    adam = Adam(1e-3, (0.5, 0.9), 0.0, 0.0)
    trainable = Single().build(live, role="student", adam=adam, compute=Compute(), ranks=SINGLE, device=cpu)
    average = WeightAverage(trainable.local("weight"), half_life=100, ramp=0.0, batch_size=100)
    with torch.no_grad():
        live.weight.fill_(4.0)
        live.count.fill_(40.0)
    average.update(1)
    network = averaged(Run(recipe, Workspace(tmp_path, tmp_path, cpu)), average, trainable)
    assert isinstance(network, Counting)
    assert torch.equal(network.weight, torch.full((3,), 2.0))
    assert torch.equal(network.count, live.count)
    assert not network.training and not network.weight.requires_grad
    assert live.training and live.weight.requires_grad and live.weight[0] == 4.0
    network.weight.data.zero_()  # a network of its own
    assert torch.equal(average.weights["weight"].flat(), torch.full((3,), 2.0))

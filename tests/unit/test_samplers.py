"""Euler and Heun on Gaussian data, where the probability-flow ODE has a closed form."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from ladd_dist.core.noise import few_step_sample
from ladd_dist.levels.named import Karras
from ladd_dist.samplers import Sampler
from ladd_dist.samplers.karras import Euler, Heun

S, MEAN = 0.5, 0.3  # of the Gaussian data
COND = torch.zeros(1, dtype=torch.int64)


def denoise(x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
    """E[x0 | x] for x0 ~ N(MEAN, S^2)."""
    level = sigma.view(-1, 1, 1, 1)
    return (S**2 * x + level**2 * MEAN) / (S**2 + level**2)


def exact(noise: Tensor, sigma: float, sigma_max: float = 80.0) -> Tensor:
    """The state at sigma of the trajectory that starts at sigma_max * noise."""
    return MEAN + (sigma_max * noise - MEAN) * math.sqrt((S**2 + sigma**2) / (S**2 + sigma_max**2))


def noises(num: int) -> Tensor:
    """`num` quantiles of the normal law, scaled to mean 0 and variance 1 exactly; float64 [num,1,1,1]."""
    places = (torch.arange(num, dtype=torch.float64) + 0.5) / num
    values = torch.special.ndtri(places)
    return (values / values.std(correction=0)).view(-1, 1, 1, 1)


def sample(sampler: Sampler, noise: Tensor) -> Tensor:
    return sampler(denoise, noise, COND.expand(len(noise)))[0]


@pytest.mark.parametrize(("steps", "tolerance"), [(50, 0.01), (400, 2e-4)])
def test_heun_gives_gaussian_data_their_mean_and_variance(steps: int, tolerance: float) -> None:
    samples = sample(Heun(steps=steps), noises(10_001))
    assert float(samples.mean()) == pytest.approx(MEAN, rel=0.01)  # starts at 0, not at MEAN: .6 % of it is lost
    assert float(samples.std(correction=0)) == pytest.approx(S, rel=tolerance)


@pytest.mark.parametrize(("cls", "order"), [(Euler, 1), (Heun, 2)])
def test_the_error_falls_with_the_order_of_the_method(cls: type[Euler] | type[Heun], order: int) -> None:
    noise = noises(5)
    steps = (32, 64, 128, 256)
    errors = [float((sample(cls(steps=n, sigma_min=1e-4), noise) - exact(noise, 0.0)).abs().max()) for n in steps]
    rates = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]
    assert rates == pytest.approx([order] * 3, abs=0.2)
    assert errors[-1] < {1: 0.02, 2: 3e-4}[order]


@pytest.mark.parametrize(("sampler", "calls"), [(Euler(steps=7), 7), (Heun(steps=7), 13), (Heun(steps=1), 1)])
def test_the_number_of_calls_is_the_promised_one(sampler: Sampler, calls: int) -> None:
    count = 0

    def counted(x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return denoise(x, sigma, cond)

    sampler(counted, noises(3), COND.expand(3))
    assert count == calls == sampler.num_calls()


@pytest.mark.parametrize("sampler", [Euler(steps=400), Heun(steps=60)])
def test_recorded_states_lie_on_the_trajectory(sampler: Sampler) -> None:
    record = (80.0, 3.92, 1.29, 0.34, 0.0005)
    noise = noises(4)
    samples, path = sampler(denoise, noise, COND.expand(4), record=record)
    assert path.shape == (4, 5, 1, 1, 1)
    for i, level in enumerate(record):
        assert torch.allclose(path[:, i], exact(noise, level), rtol=5e-3, atol=5e-3), level
    assert torch.equal(path[:, 0], 80.0 * noise)
    assert torch.allclose(samples, exact(noise, 0.0), rtol=1e-2, atol=1e-2)


def test_a_state_recorded_at_a_level_of_the_sampler_is_the_samplers_own() -> None:
    sampler, noise = Euler(steps=6), noises(4)
    levels = sampler.levels()
    _, path = sampler(denoise, noise, COND.expand(4), record=(levels[3], levels[1]))
    states = [levels[0] * noise]
    for sigma, following in itertools.pairwise(levels):
        slope = (states[-1] - denoise(states[-1], torch.full((4,), sigma), COND)) / sigma
        states.append(states[-1] + (following - sigma) * slope)
    assert torch.allclose(path[:, 0], states[3])
    assert torch.allclose(path[:, 1], states[1])


def test_recording_changes_no_sample() -> None:
    noise = noises(4)
    plain, none = Heun(steps=5)(denoise, noise, COND.expand(4))
    recorded, _ = Heun(steps=5)(denoise, noise, COND.expand(4), record=(3.0,))
    assert torch.equal(plain, recorded)
    assert none.shape == (4, 0, 1, 1, 1)


@pytest.mark.parametrize("level", [0.0, -1.0, 80.1, math.nan])
def test_a_state_outside_the_trajectory_cannot_be_recorded(level: float) -> None:
    with pytest.raises(ValueError, match=r"levels in \(0, 80"):
        Euler(steps=5)(denoise, noises(2), COND.expand(2), record=(level,))


@pytest.mark.parametrize("steps", [1, 4, 5])
def test_the_ode_rule_on_karras_levels_is_the_euler_sampler(steps: int) -> None:
    noise = noises(6)
    few = few_step_sample(denoise, noise, COND.expand(6), Karras()(steps), "ode")
    assert torch.allclose(few, sample(Euler(steps=steps), noise), rtol=1e-9)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"sigma_min": 0.0}, {"sigma_max": 0.001}, {"rho": 0.0}])
def test_a_sampler_with_impossible_levels_cannot_be_made(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"steps|sigma_min|rho"):
        Heun(**wrong)  # type: ignore[arg-type]

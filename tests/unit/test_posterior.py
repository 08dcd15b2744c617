"""The L2-optimal student from stored pairs: closed forms, limits, and couplings that have nothing to average."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from ladd_dist.core.noise import few_step_sample
from ladd_dist.core.rng import SampleSource
from ladd_dist.core.types import Batch
from ladd_dist.diagnosis.posterior import PosteriorMean, coupling_at
from ladd_dist.starts import Start
from ladd_dist.starts.couplings import Fresh, Path, Stored

SHAPE = (3, 4, 4)
LEVELS = (80.0, 3.0, 0.5)


def pairs(num: int = 60, classes: int = 3, seed: int = 0) -> Batch:
    source = torch.Generator().manual_seed(seed)
    x0, noise = (torch.randn((num, *SHAPE), generator=source) for _ in range(2))
    path = torch.stack([0.5 * x0 + level * noise for level in LEVELS], dim=1)
    return Batch(0.5 * x0, torch.arange(num) % classes, noise, path, LEVELS)


def at(level: float, num: int) -> Tensor:
    return torch.full((num,), level)


def test_two_points_give_the_tanh_of_their_projection() -> None:
    """x0 = +-a: E[x0 | x] = a tanh(a.x / sigma^2)."""
    a = torch.linspace(-1, 1, 48).view(SHAPE)
    two = Batch(torch.stack([a, -a]), torch.zeros(2, dtype=torch.int64), None, None, ())
    x = torch.randn((20, *SHAPE), generator=torch.Generator().manual_seed(1))
    for sigma in (0.5, 2.0, 20.0):
        found = PosteriorMean(two, Fresh())(sigma * x, at(sigma, 20), torch.zeros(20, dtype=torch.int64))
        expected = torch.tanh((a * sigma * x).sum(dim=(1, 2, 3)).double() / sigma**2).float()
        torch.testing.assert_close(found, expected.view(-1, 1, 1, 1) * a, atol=1e-6, rtol=1e-5)


def test_many_gaussian_samples_come_near_to_the_closed_form_of_gaussian_data() -> None:
    """x0 ~ N(0, s^2): D = s^2 x / (s^2 + sigma^2); one dimension, so that a finite set fills it."""
    s, sigma = 0.5, 0.7
    x0 = s * torch.randn((20_000, 1, 1, 1), generator=torch.Generator().manual_seed(2))
    zeros = torch.zeros(20_000, dtype=torch.int64)
    x = torch.linspace(-1.2, 1.2, 25).view(-1, 1, 1, 1)
    found = PosteriorMean(Batch(x0, zeros, None, None, ()), Fresh())(x, at(sigma, 25), zeros[:25])
    torch.testing.assert_close(found, s**2 * x / (s**2 + sigma**2), atol=0.02, rtol=0)


@pytest.mark.parametrize("sigma", [1e-3, 2e-3])
def test_without_noise_the_mean_is_the_sample_itself(sigma: float) -> None:
    """Also where all lie far from the origin: the squares must not eat the difference."""
    stored = pairs()
    stored = stored._replace(x0=stored.x0 + 20.0)
    posterior = PosteriorMean(stored, Fresh())
    which = torch.arange(60)
    eps = torch.randn((60, *SHAPE), generator=torch.Generator().manual_seed(3))
    seen = posterior.weigh(posterior.inputs(which, sigma, eps), at(sigma, 60), stored.cond)
    torch.testing.assert_close(seen.mean, stored.x0)
    torch.testing.assert_close(seen.averaged, torch.ones(60))


def test_with_much_noise_it_is_the_mean_of_the_class_alone() -> None:
    stored = pairs()
    seen = PosteriorMean(stored, Fresh()).weigh(torch.zeros((3, *SHAPE)), at(1e4, 3), torch.arange(3))
    expected = torch.stack([stored.x0[stored.cond == c].mean(dim=0) for c in range(3)])
    torch.testing.assert_close(seen.mean, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.averaged, torch.full((3,), 20.0))


def test_no_other_function_of_the_input_has_a_smaller_error_than_the_mean() -> None:
    """The defining property: moving D* in any direction adds the square of the move, on average over the pairs."""
    stored = pairs(num=200, classes=1)
    posterior = PosteriorMean(stored, Fresh())
    source = torch.Generator().manual_seed(4)
    which = torch.randint(200, (4_000,), generator=source)
    eps = torch.randn((4_000, *SHAPE), generator=source)
    x = posterior.inputs(which, 2.0, eps)
    best = posterior(x, at(2.0, 4_000), stored.cond[which])
    error = (best - stored.x0[which]).square().mean()
    for other in (0.8 * best, best + 0.1, best + 0.05 * x, stored.x0.mean(dim=0).expand_as(best)):
        assert (other - stored.x0[which]).square().mean() > error


@pytest.mark.parametrize("start", [Stored(), Path()])
def test_a_coupling_without_new_noise_gives_every_pair_its_own_sample_at_every_level(start: Start) -> None:
    stored = pairs()
    posterior = PosteriorMean(stored, start)
    which = torch.arange(60)
    for level in LEVELS:
        assert posterior.spread(level) == 0
        x = posterior.inputs(which, level, torch.randn(60, *SHAPE))
        seen = posterior.weigh(x, at(level, 60), stored.cond)
        assert torch.equal(seen.mean, stored.x0)
        assert torch.equal(seen.averaged, torch.ones(60))


def test_stored_noise_sampled_by_its_rule_gives_back_the_stored_samples_and_by_the_other_does_not() -> None:
    stored = pairs()
    assert stored.noise is not None
    posterior = PosteriorMean(stored, Stored())
    back = few_step_sample(posterior, stored.noise, stored.cond, LEVELS, Stored.rule)
    assert torch.equal(back, stored.x0)
    source = SampleSource(range(len(stored.x0)), "test")
    mixed = few_step_sample(posterior, stored.noise, stored.cond, LEVELS, "sde", source)
    assert not torch.allclose(mixed, stored.x0)


def test_new_noise_with_stored_noise_at_an_input_of_no_pair_is_the_limit_of_little_fresh_noise() -> None:
    @dataclass(frozen=True)
    class Mostly(Start):
        fresh: float

        def __call__(self, batch: Batch, sigma: Tensor, eps: Tensor) -> Tensor:
            assert batch.noise is not None
            level = sigma.view(-1, 1, 1, 1)
            return batch.x0 + level * ((1 - self.fresh**2) ** 0.5 * batch.noise + self.fresh * eps)

    stored, sigma = pairs(), 3.0
    x = sigma * torch.randn((30, *SHAPE), generator=torch.Generator().manual_seed(6))
    nearest = PosteriorMean(stored, Stored())(x, at(sigma, 30), stored.cond[:30])
    mixed = PosteriorMean(stored, Mostly(fresh=0.01))
    assert mixed.spread(sigma) == pytest.approx(0.03, rel=1e-4)
    torch.testing.assert_close(mixed(x, at(sigma, 30), stored.cond[:30]), nearest)
    assert PosteriorMean(stored, Mostly(fresh=1.0)).spread(sigma) == pytest.approx(sigma)


def test_a_coupling_of_another_form_is_refused_with_its_name() -> None:
    class Squared(Start):
        name = "squared"

        def __call__(self, batch: Batch, sigma: Tensor, eps: Tensor) -> Tensor:
            return batch.x0 + sigma.view(-1, 1, 1, 1) * eps.square()

    with pytest.raises(ValueError, match=r"'squared' does not add its noise"):
        coupling_at(Squared(), pairs(), 1.0)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from ladd_dist.diagnosis import posterior as module

    stored = pairs()
    x = torch.randn((40, *SHAPE), generator=torch.Generator().manual_seed(7))
    whole = PosteriorMean(stored, Fresh()).weigh(x, at(1.0, 40), stored.cond[:40])
    monkeypatch.setattr(module, "_QUERIES", 3)
    monkeypatch.setattr(module, "_PAIRS", 7)
    parts = PosteriorMean(stored, Fresh()).weigh(x, at(1.0, 40), stored.cond[:40])
    torch.testing.assert_close(parts.mean, whole.mean)
    torch.testing.assert_close(parts.averaged, whole.averaged)


def test_a_class_that_is_not_stored_and_several_levels_at_once_are_refused() -> None:
    posterior = PosteriorMean(pairs(), Fresh())
    x = torch.zeros((2, *SHAPE))
    with pytest.raises(ValueError, match="no stored sample of class 7"):
        posterior(x, at(1.0, 2), torch.tensor([0, 7]))
    with pytest.raises(ValueError, match="one noise level"):
        posterior(x, torch.tensor([1.0, 2.0]), torch.tensor([0, 1]))

"""The variational bound: closed form on Gaussian data, above the entropy, tighter with more steps."""

from __future__ import annotations

import itertools
import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from ladd_dist.core import ddpm
from ladd_dist.core.ddpm import Variance
from ladd_dist.core.vlb import HALF_BIN, Bound, bound
from ladd_dist.metrics import References, Samples
from ladd_dist.metrics.vlb import Vlb

S = 0.25
BIN = 2 * HALF_BIN


def exact(x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
    """E[x0 | x] for x0 ~ N(0, S^2)."""
    return x * (S**2 / (S**2 + sigma.view(-1, 1, 1, 1) ** 2))


def data(num: int = 64) -> tuple[Tensor, Tensor]:
    """Gaussian data on the values of pixels; with S = 1/4 the tails beyond [-1, 1] are 6e-5 of it."""
    x0 = S * torch.randn(num, 1, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return ((x0.clamp(-1, 1) + 1) / BIN).round() * BIN - 1, torch.zeros(num, dtype=torch.int64)


def measured(timesteps: int, steps: int, variance: Variance) -> Bound:
    x0, cond = data()
    source = torch.Generator().manual_seed(1)
    kept = ddpm.respaced(ddpm.alpha_bars("linear", timesteps), steps)
    return bound(
        exact, x0, cond, kept, variance=variance,
        noise=lambda step: torch.randn(x0.shape, generator=source, dtype=torch.float64),
    )  # fmt: skip


def left(alpha_bar: float) -> float:
    """E (x0 - E[x0 | x])^2."""
    level = (1 - alpha_bar) / alpha_bar
    return S**2 * level / (S**2 + level)


@pytest.mark.parametrize("variance", get_args(Variance))
def test_the_terms_have_their_closed_form_on_gaussian_data(variance: Variance) -> None:
    found = measured(100, 100, variance)
    kept = ddpm.alpha_bars("linear", 100).tolist()
    last = kept[-1]
    prior = 0.5 * (last * S**2 + (1 - last) - 1 - math.log(1 - last))
    steps = 0.0
    for later, now in itertools.pairwise(kept):
        beta = 1 - now / later
        posterior = (1 - later) / (1 - now) * beta
        weight = math.sqrt(later) * beta / (1 - now)
        own = posterior if variance == "posterior" else beta
        steps += 0.5 * (posterior / own - 1 + math.log(own / posterior) + weight**2 * left(now) / own)
    beta_1 = 1 - kept[0]  # its deviation is 4 bins: the bin's mass is density times width
    decoder = 0.5 * math.log(2 * math.pi * beta_1) + left(kept[0]) / (2 * beta_1) - math.log(BIN)
    for name, nats in (("prior", prior), ("steps", steps), ("decoder", decoder)):
        assert float(getattr(found, name).mean()) == pytest.approx(nats / math.log(2), rel=0.01), name
    assert torch.allclose(found.total, found.prior + found.steps + found.decoder)


def test_the_bound_lies_above_the_entropy_and_comes_near_it_with_many_steps() -> None:
    entropy = 0.5 * math.log2(2 * math.pi * math.e * S**2) - math.log2(BIN)
    few, many = (float(measured(1_000, steps, "beta").total.mean()) for steps in (50, 1_000))
    assert entropy < many < few
    assert many < entropy + 0.01  # beta_t is right for Gaussian data; the posterior's variance, of one point, is not
    assert float(measured(1_000, 1_000, "posterior").total.mean()) > entropy + 0.5


def test_a_worse_denoiser_has_a_larger_bound() -> None:
    x0, cond = data(16)
    kept = ddpm.alpha_bars("cosine", 50)

    def total(share: float) -> float:
        source = torch.Generator().manual_seed(2)
        found = bound(
            lambda x, sigma, c: share * exact(x, sigma, c), x0, cond, kept, variance="beta",
            noise=lambda step: torch.randn(x0.shape, generator=source, dtype=torch.float64),
        )  # fmt: skip
        return float(found.total.mean())

    assert total(1.0) < total(0.9) < total(0.5)


def test_the_decoder_gives_all_values_of_a_pixel_a_mass_of_one() -> None:
    """The terms of all 256 values for one guess sum to 1, the edges with the tails beyond them."""
    values = torch.arange(256, dtype=torch.float64) * BIN - 1
    x0 = values.view(256, 1, 1, 1)
    for guess in (-1.0, -0.3, 0.999):
        found = bound(
            lambda x, sigma, c, guess=guess: torch.full_like(x, guess), x0, torch.zeros(256, dtype=torch.int64),
            torch.tensor([0.99], dtype=torch.float64), variance="beta", noise=lambda step: torch.zeros_like(x0),
        )  # fmt: skip
        assert float(torch.exp2(-found.decoder).sum()) == pytest.approx(1.0, abs=1e-9)


def test_only_the_teachers_own_samples_have_the_figure_and_only_with_a_denoiser() -> None:
    x0, cond = data(8)
    real, theirs = Samples(x0.float(), cond), Samples(torch.zeros(8, 1, 32, 32), cond)
    metric = Vlb(steps=20, num_images=4)
    measure = metric.build(references=References(real, real, theirs, exact))
    found = measure(theirs)
    assert found["vlb"] == pytest.approx(found["vlb_prior"] + found["vlb_steps"] + found["vlb_decoder"])
    assert found["vlb_low"] < found["vlb"] < found["vlb_high"]
    assert measure(theirs) == found
    assert measure(real) == {}
    assert metric.build(references=References(real, real, theirs))(theirs) == {}
    with pytest.raises(ValueError, match="steps must be 1 to 10"):
        Vlb(schedule="cosine", timesteps=10, steps=20).build(references=References(real, real))

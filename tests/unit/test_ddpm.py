"""DDPM: schedules and posterior against the chain itself, L_simple, ancestral sampling of Gaussian data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ladd_dist.builders.teacher import teacher_loss
from ladd_dist.core import ddpm
from ladd_dist.core.ddpm import BetaSchedule, alpha_bars, cosine_betas, linear_betas, posterior, sigma_of
from ladd_dist.core.serialize import RecipeError
from ladd_dist.core.types import Denoiser, NetOutput
from ladd_dist.recipe import load_recipe, swap, validate
from ladd_dist.samplers.ancestral import Ancestral
from ladd_dist.sigmas.timesteps import Timesteps

REPO = Path(__file__).resolve().parents[2]
S, MEAN = 0.5, 0.3  # of the Gaussian data
SCHEDULES: tuple[BetaSchedule, ...] = ("linear", "cosine")


# Schedules


def test_schedules_have_their_published_values() -> None:
    linear, cosine = linear_betas(1_000), cosine_betas(1_000)
    assert [float(linear[0]), float(linear[-1])] == pytest.approx([1e-4, 0.02])
    assert float(alpha_bars("linear", 1_000)[-1]) == pytest.approx(4.0358e-5, rel=1e-4)
    assert float(sigma_of(alpha_bars("linear", 1_000))[-1]) == pytest.approx(157.407, rel=1e-5)
    assert float(alpha_bars("linear", 100)[-1]) == pytest.approx(2e-5, rel=0.1)  # ends scaled with the steps
    assert [float(cosine[0]), float(cosine[-1])] == pytest.approx([4.1285e-5, 0.999], rel=1e-3)
    kept = [math.cos(math.pi / 2 * (t / 1_000 + 0.008) / 1.008) ** 2 for t in (0, 1, 500, 999)]
    found = alpha_bars("cosine", 1_000)
    for t, value in zip((1, 500, 999), kept[1:], strict=True):
        assert float(found[t - 1]) == pytest.approx(value / kept[0], rel=1e-9)  # none of these betas is cut


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_noising_step_by_step_is_noising_at_once(schedule: BetaSchedule) -> None:
    betas = linear_betas(200) if schedule == "linear" else cosine_betas(200)
    mean, variance = 1.0, 0.0
    for beta, kept in zip(betas.tolist(), alpha_bars(schedule, 200).tolist(), strict=True):
        mean, variance = math.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
        assert (mean, variance) == pytest.approx((math.sqrt(kept), 1 - kept), rel=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("s", "t"), [(1, 2), (4, 5), (3, 30), (29, 30)])
def test_the_posterior_is_the_chain_conditioned_on_both_ends(schedule: BetaSchedule, s: int, t: int) -> None:
    """Independently: x_s and x_t as linear maps of the noises of all steps, and the conditional of their joint law."""
    betas = linear_betas(30) if schedule == "linear" else cosine_betas(30)
    kept = alpha_bars(schedule, 30)
    maps = [torch.zeros(30, dtype=torch.float64)]  # of x_0 given x_0
    for step, beta in enumerate(betas):
        following = (1 - beta).sqrt() * maps[-1]
        following[step] = beta.sqrt()
        maps.append(following)
    joint = torch.stack([maps[s], maps[t]])
    covariance = joint @ joint.T
    x0, x_t = 0.7, -1.3
    gain = covariance[0, 1] / covariance[1, 1]
    mean = kept[s - 1].sqrt() * x0 + gain * (x_t - kept[t - 1].sqrt() * x0)
    variance = covariance[0, 0] - gain * covariance[0, 1]
    law = posterior(float(kept[t - 1]), float(kept[s - 1]))
    assert law.of_x0 * x0 + law.of_xt * x_t == pytest.approx(float(mean), rel=1e-7)
    assert law.variance == pytest.approx(float(variance), rel=1e-7)


def test_the_posterior_of_one_step_is_that_of_the_paper() -> None:
    """Eq. 7 written with beta_t; and x_0 itself at the end."""
    betas, kept = linear_betas(100), alpha_bars("linear", 100)
    beta, now, before = float(betas[59]), float(kept[59]), float(kept[58])
    law = posterior(now, before)
    assert law.of_x0 == pytest.approx(math.sqrt(before) * beta / (1 - now), rel=1e-9)
    assert law.of_xt == pytest.approx(math.sqrt(1 - beta) * (1 - before) / (1 - now), rel=1e-9)
    assert law.variance == pytest.approx((1 - before) / (1 - now) * beta, rel=1e-9)
    assert posterior(float(kept[0]), 1.0) == (pytest.approx(1.0), 0.0, 0.0)
    with pytest.raises(ValueError, match="alpha-bar_t < alpha-bar_s"):
        posterior(0.5, 0.5)


def test_timesteps_and_noise_levels_are_one_thing_in_other_units() -> None:
    kept = alpha_bars("cosine", 50)
    assert torch.allclose(1 / (1 + sigma_of(kept) ** 2), kept, rtol=1e-9)
    source = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(4, 3, 2, 2, generator=source, dtype=torch.float64) for _ in range(2))
    for value in kept[[0, 20, 48]]:
        x_t = value.sqrt() * x0 + (1 - value).sqrt() * eps  # a draw of q(x_t | x_0), equation 4
        assert torch.allclose(x_t / value.sqrt(), x0 + sigma_of(value) * eps, rtol=1e-9)


def test_fewer_steps_are_evenly_spaced_timesteps_and_the_last_is_among_them() -> None:
    kept = alpha_bars("linear", 1_000)
    assert torch.equal(ddpm.respaced(kept, 1_000), kept)
    few = ddpm.respaced(kept, 5)
    assert torch.equal(few, kept[[0, 250, 500, 749, 999]])
    assert torch.equal(ddpm.respaced(kept, 1), kept[-1:])
    for steps in (0, 1_001):
        with pytest.raises(ValueError, match=f"1 to 1000, the number of timesteps, got {steps}"):
            ddpm.respaced(kept, steps)


# Training


class NoisePredictor(Denoiser):
    """D = x - sigma F(x), with an F that is known."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.predict = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor, sigma: Tensor, cond: Tensor, **_: Any) -> NetOutput:
        return NetOutput(x - sigma.view(-1, 1, 1, 1) * self.predict(x), {}, cond)


def test_the_simple_weighting_is_the_error_of_the_predicted_noise() -> None:
    network, source = NoisePredictor().double(), torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(5, 3, 4, 4, generator=source, dtype=torch.float64) for _ in range(2))
    sigma, cond = sigma_of(alpha_bars("cosine", 1_000)[[0, 99, 499, 899, 999]]), torch.zeros(5, dtype=torch.int64)
    found = teacher_loss(network, x0, sigma, cond, eps, "simple").detach()
    predicted = network.predict(x0 + sigma.view(-1, 1, 1, 1) * eps).detach()
    assert float(found) == pytest.approx(float((predicted - eps).square().mean()), rel=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_timesteps_are_drawn_uniformly(schedule: BetaSchedule) -> None:
    law = Timesteps(schedule=schedule, timesteps=50)
    draw: Callable[[int], Tensor] = lambda seed: law(20_000, 0, torch.Generator().manual_seed(seed), levels=())  # noqa: E731
    sigmas = sigma_of(alpha_bars(schedule, 50)).float()
    counts = (draw(0)[:, None] == sigmas).sum(dim=0)
    assert int(counts.sum()) == 20_000  # each is the sigma of a timestep
    assert int(counts.min()) > 400 - 5 * math.sqrt(400)
    assert int(counts.max()) < 400 + 5 * math.sqrt(400)
    assert torch.equal(draw(0), draw(0)) and not torch.equal(draw(0), draw(1))


# Ancestral sampling


def denoise(x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
    """E[x0 | x] for x0 ~ N(MEAN, S^2)."""
    level = sigma.view(-1, 1, 1, 1)
    return (S**2 * x + level**2 * MEAN) / (S**2 + level**2)


def sample(sampler: Ancestral, noise: Tensor, record: tuple[float, ...] = ()) -> tuple[Tensor, Tensor]:
    return sampler(denoise, noise, torch.zeros(len(noise), dtype=torch.int64), record=record)


def noises(num: int, size: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(num, 1, size, size, generator=torch.Generator().manual_seed(seed))


def law_of_samples(sampler: Ancestral) -> tuple[float, float]:
    """Mean and standard deviation of the samples, followed through the steps: each maps x_t to a x_t + b + noise."""
    kept = sampler.alpha_bars().flip(0).tolist()
    mean, variance = 0.0, 1.0
    for now, later in zip(kept, [*kept[1:], 1.0], strict=True):
        step, level = posterior(now, later), (1 - now) / now  # sigma^2
        slope = step.of_x0 * S**2 / (S**2 + level) / math.sqrt(now) + step.of_xt
        mean = slope * mean + step.of_x0 * level * MEAN / (S**2 + level)
        added = step.variance if sampler.variance == "posterior" or later == 1.0 else 1 - now / later
        variance = slope**2 * variance + added
    return mean, math.sqrt(variance)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("steps", "lost"), [(1_000, 0.01), (50, 0.15)])
def test_samples_of_gaussian_data_have_their_mean_and_variance(schedule: BetaSchedule, steps: int, lost: float) -> None:
    """32,768 numbers: the mean has a standard error of S / 181. With few steps some variance is lost: the posterior's
    is that of a known x_0 (Ho et al. 2020, section 3.2)."""
    sampler = Ancestral(schedule=schedule, steps=steps, clip=0.0)
    mean, std = law_of_samples(sampler)
    assert mean == pytest.approx(MEAN, abs=0.01)
    assert (1 - lost) * S < std < S
    samples, _ = sample(sampler, noises(8, 64))
    assert float(samples.mean()) == pytest.approx(mean, abs=4 * S / 181)
    assert float(samples.std()) == pytest.approx(std, rel=4 / 181 / math.sqrt(2))


def test_the_variance_beta_gives_more_and_is_exact_for_unit_normal_data() -> None:
    """E[x0 | x] = x / (1 + sigma^2) of x0 ~ N(0, 1): every x_t is unit normal, and only beta_t keeps it so."""
    unit = lambda x, sigma, cond: x / (1 + sigma.view(-1, 1, 1, 1) ** 2)  # noqa: E731
    cond = torch.zeros(8, dtype=torch.int64)
    levels = Ancestral(steps=50).levels()
    spread = {}
    for variance in ("posterior", "beta"):
        sampler = Ancestral(steps=50, clip=0.0, variance=variance)  # type: ignore[arg-type]
        _, path = sampler(unit, noises(8, 64), cond, record=(levels[-1],))
        spread[variance] = float(path.std()) / math.sqrt(1 + levels[-1] ** 2)  # of x_t
    assert spread["beta"] == pytest.approx(1.0, rel=4 / 181 / math.sqrt(2))
    assert spread["posterior"] < 0.98
    sampler = Ancestral(schedule="cosine", steps=1_000, clip=0.0, variance="beta")
    mean, std = law_of_samples(sampler)
    samples, _ = sample(sampler, noises(8, 64))
    assert float(samples.mean()) == pytest.approx(mean, abs=4 * S / 181)
    assert float(samples.std()) == pytest.approx(std, rel=4 / 181 / math.sqrt(2))
    assert std > law_of_samples(Ancestral(schedule="cosine", steps=1_000, clip=0.0))[1]


def test_a_sample_is_the_same_in_any_batch_and_from_noise_that_was_stored_in_half_precision() -> None:
    sampler, noise = Ancestral(steps=20), noises(5)
    together, _ = sample(sampler, noise)
    alone = torch.cat([sample(sampler, noise[[i]])[0] for i in (3, 0, 4)])
    assert torch.equal(alone, together[[3, 0, 4]])
    channels_last, _ = sample(sampler, noise.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last))
    assert torch.equal(channels_last, sample(sampler, noise.expand(-1, 3, -1, -1).contiguous())[0])
    stored, _ = sample(sampler, noise.half().float())
    assert torch.allclose(stored, together, atol=1e-3)


def test_other_noise_draws_other_noise_on_the_way() -> None:
    """Were it the same for all, samples from nearly the same place would end at nearly the same place."""
    near = noises(1) + 0.01 * noises(64, seed=1)
    samples, _ = sample(Ancestral(steps=100, clip=0.0), near)
    assert float(samples.std(dim=0).mean()) == pytest.approx(S, rel=0.1)


def test_the_network_is_called_at_the_levels_in_their_units() -> None:
    sampler, called = Ancestral(steps=7), []

    def watched(x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
        called.append((float(sigma[0]), float(x.std())))
        return torch.zeros_like(x)

    sampler(watched, noises(2, 64), torch.zeros(2, dtype=torch.int64))
    assert len(called) == sampler.num_calls() == 7
    assert [sigma for sigma, _ in called] == pytest.approx(list(sampler.levels()))
    assert called[0][1] == pytest.approx(math.sqrt(1 + sampler.levels()[0] ** 2), rel=0.05)
    for sigma, std in called[1:]:  # x_t of data that are 0
        assert std == pytest.approx(sigma, rel=0.05)


def test_the_denoisers_answers_are_clipped_to_the_range_of_images() -> None:
    sampler, noise, cond = Ancestral(steps=5), noises(2), torch.zeros(2, dtype=torch.int64)
    far = lambda x, sigma, cond: torch.full_like(x, 3.0)  # noqa: E731
    assert torch.allclose(sampler(far, noise, cond)[0], torch.ones_like(noise))
    assert torch.allclose(Ancestral(steps=5, clip=0.0)(far, noise, cond)[0], torch.full_like(noise, 3.0))


def test_states_are_recorded_as_they_are_in_units_of_x0() -> None:
    sampler, noise = Ancestral(steps=6), noises(3)
    levels, seen = sampler.levels(), []

    def watched(x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
        seen.append(x)
        return denoise(x, sigma, cond)

    between = (levels[2] + levels[3]) / 2
    cond = torch.zeros(3, dtype=torch.int64)
    samples, path = sampler(watched, noise, cond, record=(levels[0], levels[2], between, levels[5]))
    assert torch.allclose(path[:, 0], noise * math.sqrt(1 + levels[0] ** 2))
    assert torch.allclose(path[:, 1], seen[2])
    assert torch.allclose(path[:, 2], (seen[2] + seen[3]) / 2, rtol=1e-4, atol=1e-4)
    assert torch.allclose(path[:, 3], seen[5])
    plain, none = sample(sampler, noise)
    assert torch.equal(plain, samples)
    assert none.shape == (3, 0, 1, 4, 4)
    for level in (0.0, 1.01 * levels[0]):
        with pytest.raises(ValueError, match="states can be recorded at levels in"):
            sample(sampler, noise, (level,))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ancestral(steps=0), "Ancestral.steps: must be at least 1 and at most 10000, got 0"),
        (lambda: Ancestral(timesteps=100), "ancestral: steps must be 1 to 100, .*got 1000"),
        (lambda: Ancestral(timesteps=10, steps=5), "ancestral: the linear schedule needs at least 25"),
        (lambda: Ancestral(clip=-1.0), "Ancestral.clip: must be at least 0, got -1.0"),
        (lambda: Timesteps(timesteps=10), "timesteps: the linear schedule needs at least 25 timesteps, got 10"),
        (
            lambda: Timesteps(schedule="cosine", timesteps=0),
            "Timesteps.timesteps: must be at least 1 and at most 10000, got 0",
        ),
    ],
)
def test_impossible_settings_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# Recipes


@pytest.mark.parametrize("start", ["stored", "path"])
def test_a_start_that_pairs_samples_with_their_noise_is_refused_with_a_sampler_that_adds_some(start: str) -> None:
    recipe = load_recipe(REPO / "recipes" / "ddpm_teacher.py", "smoke")
    validate(recipe)
    with pytest.raises(RecipeError, match=rf"recipe\.start: '{start}' needs a sampler that adds no noise.*start=fresh"):
        validate(swap(recipe, f"start={start}"))
    validate(swap(swap(recipe, f"start={start}"), "shards.sampler=euler"))
    foreign = dataclasses.replace(recipe.shards, source="theirs/*.tar")  # made by another sampler
    validate(swap(dataclasses.replace(recipe, shards=foreign), "start=stored"))

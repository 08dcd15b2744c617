"""Levels, preconditioning, guidance and few-step rules against the method's check values and closed forms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor

from ladd_dist.core.noise import (
    edm_loss_weight,
    few_step_sample,
    guided,
    hybrid_sample,
    is_descending,
    karras_levels,
    log_normal,
    ode_step,
    precondition,
)
from ladd_dist.core.rng import RowSource, SampleSource, whole_batch

S = 0.5  # standard deviation of the Gaussian data in the closed forms


def gaussian(x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
    """E[x0 | x] for x0 ~ N(0, S^2)."""
    return S**2 / (S**2 + sigma.view(-1, 1, 1, 1) ** 2) * x


@pytest.mark.parametrize(
    ("num_steps", "expected"),
    [
        (4, (80, 9.7232, 0.4700, 0.002)),
        (5, (80, 17.5278, 2.5152, 0.1698, 0.002)),
        (2, (80, 0.002)),
        (1, (80,)),
    ],
)
def test_karras_levels_are_the_published_ones(num_steps: int, expected: tuple[float, ...]) -> None:
    levels = karras_levels(num_steps, sigma_min=0.002, sigma_max=80, rho=7)
    assert levels == pytest.approx(expected, abs=1e-4)
    assert is_descending(levels)


def test_karras_levels_are_equidistant_in_the_rho_th_root() -> None:
    roots = [level ** (1 / 7) for level in karras_levels(50, sigma_min=0.002, sigma_max=80, rho=7)]
    steps = [a - b for a, b in itertools.pairwise(roots)]
    assert max(steps) - min(steps) < 1e-12


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_steps": 0},
        {"sigma_min": 0.0},
        {"sigma_min": 80.0},
        {"sigma_min": math.nan},
        {"sigma_max": math.inf},
        {"rho": 0.0},
        {"rho": -7.0},
        {"rho": math.nan},
    ],
)
def test_levels_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    settings = {"num_steps": 4, "sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0, **wrong}
    with pytest.raises(ValueError, match=r"num_steps|sigma_min|rho"):
        karras_levels(int(settings.pop("num_steps")), **settings)


@pytest.mark.parametrize(
    ("sigma", "expected"),
    [
        (80.0, (3.9e-5, 0.49999, 0.0125, 1.0955)),
        (0.5, (0.5, 0.3536, 1.4142, -0.1733)),
        (0.002, (0.99998, 0.0020, 2.0, -1.5537)),
    ],
)
def test_edm_preconditioning_meets_the_check_values(sigma: float, expected: tuple[float, ...]) -> None:
    found = precondition(torch.tensor([sigma], dtype=torch.float64), "edm")
    assert [float(value) for value in found] == pytest.approx(expected, abs=1e-4)


def test_ddpm_preconditioning_is_epsilon_prediction() -> None:
    sigma = torch.tensor([80.0, 0.5, 0.002], dtype=torch.float64)
    edm, ddpm = precondition(sigma, "edm"), precondition(sigma, "ddpm")
    assert torch.equal(ddpm.skip, torch.ones(3, dtype=torch.float64))
    assert torch.equal(ddpm.out, -sigma)
    assert torch.equal(ddpm.in_, edm.in_)
    assert torch.equal(ddpm.noise, edm.noise)


def test_edm_preconditioning_keeps_input_and_training_target_at_unit_variance() -> None:
    sigma = torch.logspace(-3, 2, 20, dtype=torch.float64)
    c = precondition(sigma, "edm")
    assert torch.allclose(c.in_**2 * (sigma**2 + 0.25), torch.ones(20, dtype=torch.float64))
    # target F = (x0 - skip (x0 + sigma n)) / out
    variance = ((1 - c.skip) ** 2 * 0.25 + (c.skip * sigma) ** 2) / c.out**2
    assert torch.allclose(variance, torch.ones(20, dtype=torch.float64))


def test_the_edm_loss_weight_is_one_over_out_squared() -> None:
    sigma = torch.logspace(-3, 2, 20, dtype=torch.float64)
    assert torch.allclose(edm_loss_weight(sigma), 1 / precondition(sigma, "edm").out ** 2)


def test_guidance_is_linear_in_its_scale_and_takes_one_call() -> None:
    calls = []

    def denoise(x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
        calls.append(len(x))
        return x * cond.view(-1, 1, 1, 1) + sigma.view(-1, 1, 1, 1)

    x, sigma, cond = torch.randn(3, 1, 2, 2), torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 4, 2])
    conditional, unconditional = denoise(x, sigma, cond), denoise(x, sigma, torch.full_like(cond, 7))
    calls.clear()
    found = guided(denoise, 4.0, null_class=7)(x, sigma, cond)
    assert calls == [6]
    assert torch.allclose(found, unconditional + 4 * (conditional - unconditional))
    assert torch.allclose(guided(denoise, 0.0, null_class=7)(x, sigma, cond), unconditional)


def test_guidance_of_scale_1_does_not_compute_the_unconditional_half() -> None:
    calls = []

    def denoise(x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
        calls.append(len(x))
        return x

    guided(denoise, 1.0, null_class=7)(torch.randn(3, 1, 2, 2), torch.ones(3), torch.zeros(3, dtype=torch.int64))
    assert calls == [3]


def test_the_sde_rule_has_the_variance_of_its_closed_form() -> None:
    levels = (2.0, 0.7, 0.3)
    noise = torch.randn(400_000, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    cond = torch.zeros(len(noise), dtype=torch.int64)
    samples = few_step_sample(gaussian, noise, cond, levels, "sde", RowSource(whole_batch(len(noise)), "test"))
    variance = 0.0
    for level in levels:
        gain = S**2 / (S**2 + level**2)
        input_variance = variance + level**2  # the first input is pure noise: variance 0 + level^2
        variance = gain**2 * input_variance
    assert float(samples.var()) == pytest.approx(variance, rel=0.01)
    assert abs(float(samples.mean())) < 0.005


def test_the_ode_rule_keeps_the_direction_of_the_noise() -> None:
    levels = (2.0, 0.7, 0.3)
    noise = torch.randn(5, 3, 2, 2, dtype=torch.float64)
    factor = levels[0]
    for level, following in zip(levels, (*levels[1:], 0.0), strict=True):
        gain = S**2 / (S**2 + level**2)
        factor *= gain + following / level * (1 - gain)
    found = few_step_sample(gaussian, noise, torch.zeros(5, dtype=torch.int64), levels, "ode")
    assert torch.allclose(found, factor * noise)


def test_each_few_step_rule_calls_the_network_once_a_level_at_that_level() -> None:
    levels = (80.0, 3.92, 1.29, 0.34)
    for rule in ("sde", "ode"):
        seen: list[float] = []

        def denoise(x: Tensor, sigma: Tensor, cond: Tensor, seen: list[float] = seen) -> Tensor:
            seen.append(float(sigma[0]))
            assert sigma.shape == (2,)
            return x / 2

        noise = torch.randn(2, 1, 2, 2)
        few_step_sample(denoise, noise, torch.zeros(2, dtype=torch.int64), levels, rule, SampleSource(range(2), "test"))
        assert seen == pytest.approx(levels)


def test_the_sde_rule_without_a_source_and_an_empty_list_of_levels_are_refused() -> None:
    noise, cond = torch.randn(2, 1, 2, 2), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="needs a source of noise"):
        few_step_sample(gaussian, noise, cond, (2.0, 1.0), "sde")
    with pytest.raises(ValueError, match="at least one level"):
        few_step_sample(gaussian, noise, cond, (), "ode")


def test_an_ode_step_to_zero_lands_on_the_denoised_image() -> None:
    x, x0 = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    assert torch.allclose(ode_step(x, x0, 0.7, 0.0), x0)
    assert torch.allclose(ode_step(x, x0, 0.7, 0.7), x)


def test_log_normal_levels_have_the_asked_mean_and_deviation() -> None:
    logs = log_normal(200_000, -0.5, 1.2, torch.Generator().manual_seed(0)).log()
    assert float(logs.mean()) == pytest.approx(-0.5, abs=0.01)
    assert float(logs.std()) == pytest.approx(1.2, abs=0.01)


@pytest.mark.parametrize("levels", [(1.0, 1.0), (1.0, 2.0), (1.0, 0.0), (math.inf, 1.0), (math.nan,), (1.0, -1.0)])
def test_levels_that_do_not_descend_to_something_positive_are_recognised(levels: tuple[float, ...]) -> None:
    assert not is_descending(levels)
    assert is_descending((80.0, 3.92, 1.29, 0.34))


# Two denoisers


def shrink(x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
    """A second denoiser, unlike the first at every level and no straight line."""
    return torch.tanh(x / (1 + sigma.view(-1, 1, 1, 1)))


@pytest.mark.parametrize("rule", ["sde", "ode"])
def test_a_hybrid_is_the_teacher_for_its_steps_and_the_student_for_the_rest(rule: Literal["sde", "ode"]) -> None:
    levels = (2.0, 0.7, 0.3)
    noise = torch.randn(5, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cond = torch.zeros(5, dtype=torch.int64)

    def few(teacher_steps: int) -> Tensor:
        source = SampleSource(range(5), "test")
        return hybrid_sample(gaussian, shrink, noise, cond, levels, rule, source, teacher_steps=teacher_steps)

    alone = {
        d: few_step_sample(d, noise, cond, levels, rule, SampleSource(range(5), "test")) for d in (gaussian, shrink)
    }
    assert torch.equal(few(0), alone[shrink]) and torch.equal(few(3), alone[gaussian])

    source, x = SampleSource(range(5), "test"), noise * levels[0]
    for denoise, level, following in ((gaussian, 2.0, 0.7), (shrink, 0.7, 0.3)):  # by hand, one step the teacher's
        x0 = denoise(x, torch.full((5,), level, dtype=torch.float64), cond)
        new = source.normal(3, 2, 2).double()
        x = x0 + following * (new if rule == "sde" else (x - x0) / level)
    torch.testing.assert_close(few(1), shrink(x, torch.full((5,), 0.3, dtype=torch.float64), cond))


def test_a_hybrid_calls_each_network_once_a_level_of_its_own() -> None:
    levels, seen = (80.0, 3.92, 1.29, 0.34), dict[str, list[float]](teacher=[], student=[])

    def calls(name: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        def denoise(x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
            seen[name].append(float(sigma[0]))
            return x / 2

        return denoise

    noise, cond = torch.randn(2, 1, 2, 2), torch.zeros(2, dtype=torch.int64)
    hybrid_sample(calls("teacher"), calls("student"), noise, cond, levels, "ode", teacher_steps=1)
    assert seen["teacher"] == pytest.approx(levels[:1]) and seen["student"] == pytest.approx(levels[1:])


@pytest.mark.parametrize("teacher_steps", [-1, 3])
def test_a_teacher_cannot_take_more_steps_than_there_are(teacher_steps: int) -> None:
    noise, cond = torch.randn(2, 1, 2, 2), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=f"0 to 2 of 2 steps, got {teacher_steps}"):
        hybrid_sample(gaussian, gaussian, noise, cond, (2.0, 1.0), "ode", teacher_steps=teacher_steps)

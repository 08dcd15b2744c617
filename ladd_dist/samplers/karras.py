"""Euler and Heun samplers on Karras levels (Karras et al. 2022, arXiv 2206.00364, algorithm 1 without churn)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ladd_dist.core.errors import UserError
from ladd_dist.core.noise import karras_levels, ode_step
from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import Positive, Rho, Steps
from ladd_dist.core.types import DenoiseFn
from ladd_dist.samplers import Sampler


@dataclass(frozen=True)
class _Karras(Sampler):
    steps: Steps = 50
    """Number of steps."""
    sigma_min: Positive = 0.002
    """Lowest level before the final 0, in units of x0."""
    sigma_max: Positive = 80.0
    """Highest level, in units of x0."""
    rho: Rho = 7.0
    """Exponent of the spacing: larger values put more levels near `sigma_min`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        karras_levels(2, sigma_min=self.sigma_min, sigma_max=self.sigma_max, rho=self.rho)

    def levels(self) -> tuple[float, ...]:
        return karras_levels(self.steps, sigma_min=self.sigma_min, sigma_max=self.sigma_max, rho=self.rho)


@register("euler")
@dataclass(frozen=True)
class Euler(_Karras):
    """Euler's method (first order): one call per step."""

    def num_calls(self) -> int:
        return self.steps

    def __call__(
        self, denoise: DenoiseFn, noise: Tensor, cond: Tensor, *, record: tuple[float, ...] = ()
    ) -> tuple[Tensor, Tensor]:
        return _solve(self.levels(), denoise, noise, cond, record, second_order=False)


@register("heun")
@dataclass(frozen=True)
class Heun(_Karras):
    """Heun's method (second order): two calls per step, one in the last (2N - 1 in all)."""

    def num_calls(self) -> int:
        return 2 * self.steps - 1

    def __call__(
        self, denoise: DenoiseFn, noise: Tensor, cond: Tensor, *, record: tuple[float, ...] = ()
    ) -> tuple[Tensor, Tensor]:
        return _solve(self.levels(), denoise, noise, cond, record, second_order=True)


def _solve(
    levels: tuple[float, ...],
    denoise: DenoiseFn,
    noise: Tensor,
    cond: Tensor,
    record: tuple[float, ...],
    *,
    second_order: bool,
) -> tuple[Tensor, Tensor]:
    """Integrate the ODE from levels[0] to 0. A recorded state inside a step lies on that step's straight line."""
    if any(not 0 < level <= levels[0] for level in record):
        raise UserError(f"states can be recorded at levels in (0, {levels[0]}], asked for {record}")
    x = noise * levels[0]
    states: dict[float, Tensor] = {}
    for sigma, sigma_next in zip(levels, (*levels[1:], 0.0), strict=True):
        x0 = denoise(x, _fill(x, sigma), cond)
        x_next = ode_step(x, x0, sigma, sigma_next)
        if second_order and sigma_next > 0:
            slope = (x - x0) / sigma
            slope_next = (x_next - denoise(x_next, _fill(x, sigma_next), cond)) / sigma_next
            x_next = x + (sigma_next - sigma) * (slope + slope_next) / 2
        for level in record:
            if sigma_next < level <= sigma:
                states[level] = torch.lerp(x_next, x, (level - sigma_next) / (sigma - sigma_next))
        x = x_next
    path = torch.stack([states[level] for level in record], dim=1) if record else x.new_empty((len(x), 0, *x.shape[1:]))
    return x, path


def _fill(x: Tensor, sigma: float) -> Tensor:
    return torch.full((len(x),), sigma, device=x.device, dtype=x.dtype)

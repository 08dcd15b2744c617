"""Diffusion in discrete timesteps (DDPM; Ho et al. 2020, arXiv 2006.11239) and its map to noise levels sigma.

    q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t)      alpha-bar_t = prod_{s <= t} (1 - beta_s)
    q(x_t | x_0) = N(sqrt(alpha-bar_t) x_0, 1 - alpha-bar_t)    (eq. 4)

The rest of this package writes x = x0 + sigma n, the same process in other units: x = x_t / sqrt(alpha-bar_t) and
sigma = sqrt((1 - alpha-bar_t) / alpha-bar_t). Schedules are float64 tensors [T], t = 1 .. T at index t - 1.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ladd_dist.core.errors import UserError

BetaSchedule = Literal["linear", "cosine"]
Variance = Literal["posterior", "beta"]
"""The fixed variance of a step back: that of q(x_s | x_t, x_0), or beta_t (Ho et al. 2020, section 3.2)."""
MOST_TIMESTEPS = 10_000
"""Most timesteps of a schedule."""


def linear_betas(timesteps: int, *, first: float = 1e-4, last: float = 0.02) -> Tensor:
    """beta_t from `first` to `last` in equal steps [T] (Ho et al. 2020, section 4; given for T = 1,000).

    For another T both ends are multiplied by 1,000 / T, which keeps alpha-bar_T about the same (4e-5).

    Raises:
        UserError: there are fewer than 25 timesteps (the last beta would be above .8).
    """
    if timesteps < 25:
        raise UserError(f"the linear schedule needs at least 25 timesteps, got {timesteps}")
    scale = 1_000 / timesteps
    return torch.linspace(scale * first, scale * last, timesteps, dtype=torch.float64)


def cosine_betas(timesteps: int, *, offset: float = 0.008, most: float = 0.999) -> Tensor:
    """beta_t = min(most, 1 - f(t) / f(t-1)), f(t) = cos^2(pi/2 (t/T + offset) / (1 + offset)), [T].

    (Nichol and Dhariwal 2021, arXiv 2102.09672, eq. 17.)

    Raises:
        UserError: there are fewer than 1 timesteps.
    """
    if timesteps < 1:
        raise UserError(f"a schedule needs at least 1 timestep, got {timesteps}")
    share = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
    kept = torch.cos(math.pi / 2 * (share + offset) / (1 + offset)).square()
    return (1 - kept[1:] / kept[:-1]).clamp(max=most)


def alpha_bars(schedule: BetaSchedule, timesteps: int) -> Tensor:
    """alpha-bar_t [T] in (0, 1) of a named schedule, descending.

    Raises:
        UserError: there are too few timesteps for this schedule, or more than `MOST_TIMESTEPS`.
    """
    if timesteps > MOST_TIMESTEPS:
        raise UserError(f"a schedule has at most {MOST_TIMESTEPS} timesteps, got {timesteps}")
    betas = linear_betas(timesteps) if schedule == "linear" else cosine_betas(timesteps)
    return torch.cumprod(1 - betas, dim=0)


def respaced(alpha_bar: Tensor, steps: int) -> Tensor:
    """alpha-bar [steps] at evenly spaced timesteps, always with the last one (arXiv 2102.09672, section 4).

    Raises:
        UserError: `steps` is not 1 to T.
    """
    total = len(alpha_bar)
    if not 1 <= steps <= total:
        raise UserError(f"steps must be 1 to {total}, the number of timesteps, got {steps}")
    if steps == 1:
        return alpha_bar[-1:]
    return alpha_bar[torch.linspace(0, total - 1, steps, dtype=torch.float64).round().long()]


def sigma_of(alpha_bar: Tensor) -> Tensor:
    """sigma = sqrt((1 - alpha-bar) / alpha-bar) >= 0 in units of x0, elementwise for alpha-bar in (0, 1]."""
    return ((1 - alpha_bar) / alpha_bar).sqrt()


class Posterior(NamedTuple):
    """q(x_s | x_t, x_0) = N(of_x0 x_0 + of_xt x_t, variance) for timesteps s < t."""

    of_x0: float
    of_xt: float
    variance: float


def posterior(alpha_bar_t: float, alpha_bar_s: float) -> Posterior:
    """Posterior of x_s given x_t and x_0 for any s < t (Ho et al. 2020, eq. 6 and 7 for s = t - 1; alpha-bar_0 = 1).

    With alpha = alpha-bar_t / alpha-bar_s and beta = 1 - alpha of the jump: of_x0 = sqrt(alpha-bar_s) beta /
    (1 - alpha-bar_t), of_xt = sqrt(alpha) (1 - alpha-bar_s) / (1 - alpha-bar_t), variance = (1 - alpha-bar_s) beta /
    (1 - alpha-bar_t).

    Raises:
        UserError: 0 < alpha-bar_t < alpha-bar_s <= 1 does not hold.
    """
    if not 0 < alpha_bar_t < alpha_bar_s <= 1:
        raise UserError(f"need 0 < alpha-bar_t < alpha-bar_s <= 1, got {alpha_bar_t} and {alpha_bar_s}")
    alpha = alpha_bar_t / alpha_bar_s
    noise_t, noise_s = 1 - alpha_bar_t, 1 - alpha_bar_s
    return Posterior(
        of_x0=math.sqrt(alpha_bar_s) * (1 - alpha) / noise_t,
        of_xt=math.sqrt(alpha) * noise_s / noise_t,
        variance=noise_s * (1 - alpha) / noise_t,
    )

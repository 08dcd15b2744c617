"""The variational bound of a DDPM on -log2 p(x0) in bits per dimension (Ho et al. 2020, arXiv 2006.11239, eq. 5).

    L_T     = KL(q(x_T | x_0) || N(0, 1))                                 the prior
    L_{t-1} = KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), t = 2 .. T   the steps
    L_0     = -log p(x_0 | x_1)                                           the decoder

p(x_s | x_t) has the mean of q(x_s | x_t, x_0) with the denoiser's answer for x_0, and a fixed variance: the posterior's
or beta_t. The decoder is the same Gaussian (variance beta_1), integrated over each of the 256 values of a pixel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ladd_dist.core import ddpm
from ladd_dist.core.types import DenoiseFn

HALF_BIN = 1 / 255
"""Half the distance of two values of a pixel in [-1, 1]."""


class Bound(NamedTuple):
    """Terms of the bound for each image [N], float64, in bits per dimension."""

    prior: Tensor
    steps: Tensor
    """Sum over t = 2 .. T."""
    decoder: Tensor

    @property
    def total(self) -> Tensor:
        """The bound [N]."""
        return self.prior + self.steps + self.decoder


def bound(
    denoise: DenoiseFn,
    x0: Tensor,
    cond: Tensor,
    alpha_bars: Tensor,
    *,
    variance: ddpm.Variance,
    noise: Callable[[int], Tensor],
) -> Bound:
    """The bound of images x0 [N,C,H,W] in [-1, 1] of classes [N], with one noise for each step.

    Args:
        alpha_bars: alpha-bar [T] of the steps, descending.
        noise: unit normal noise like x0 for step t = 1 .. T.
    """
    kept = alpha_bars.tolist()
    nats = {name: torch.zeros(len(x0), dtype=torch.float64) for name in ("prior", "steps", "decoder")}
    last = kept[-1]
    mean_square = x0.double().square()
    nats["prior"] += _mean(0.5 * (last * mean_square + (1 - last) - 1 - math.log(1 - last)))
    for step, (later, now) in enumerate(itertools.pairwise([1.0, *kept]), start=1):
        sigma = math.sqrt((1 - now) / now)
        level = torch.full((len(x0),), sigma, device=x0.device, dtype=x0.dtype)
        guess = denoise(x0 + sigma * noise(step), level, cond).double()
        law, beta = ddpm.posterior(now, later), 1 - now / later
        if step == 1:
            nats["decoder"] += _mean(-_log_mass(x0.double(), guess, math.sqrt(beta)))
            continue
        own = law.variance if variance == "posterior" else beta
        apart = (law.of_x0 * (x0.double() - guess)).square() / own
        nats["steps"] += _mean(0.5 * (law.variance / own - 1 + math.log(own / law.variance) + apart))
    return Bound(*(nats[name] / math.log(2) for name in ("prior", "steps", "decoder")))


def _mean(values: Tensor) -> Tensor:
    """Mean over the dimensions of each image, on the CPU."""
    return values.flatten(1).mean(dim=1).cpu()


def _log_mass(x: Tensor, mean: Tensor, std: float) -> Tensor:
    """Log of the probability that N(mean, std^2) gives the pixel value x; the first and last values have the tails."""
    above, below = (x + HALF_BIN - mean) / std, (x - HALF_BIN - mean) / std
    upper = torch.where(x > 1 - HALF_BIN, torch.inf, above)
    lower = torch.where(x < -1 + HALF_BIN, -torch.inf, below)
    # Of two values in the upper tail, both distribution functions are 1; mirrored, they are small and differ.
    flip = lower > 0
    low, high = torch.where(flip, -upper, lower), torch.where(flip, -lower, upper)
    mass: Tensor = torch.special.ndtr(high) - torch.special.ndtr(low)
    return mass.clamp_min(1e-300).log()

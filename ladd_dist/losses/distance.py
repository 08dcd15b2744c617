"""Distances between the student's sample and the teacher's: one number a sample, weighted by noise level, averaged.

The weight is w(sigma) = (1 + (sigma/sigma_scale)^2)^(-sigma_power): 1 at low noise, falling as sigma^(-2 sigma_power)
above `sigma_scale` (in units of x0). Power 0 is no weighting; power 1 with sigma_scale = sigma_data trusts the
regression where the sample is determined by its input and leaves high noise to the heads. Everything is computed in
float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import Finite, Positive
from ladd_dist.losses import Distance


def sigma_weight(sigma: Tensor, scale: float, power: float) -> Tensor:
    """w(sigma) = (1 + (sigma/scale)^2)^(-power) for sigma [B], in float32."""
    weight: Tensor = (1 + (sigma.float() / scale).square()).pow(-power)
    return weight


def _weighted_mean(per_sample: Tensor, sigma: Tensor, scale: float, power: float) -> Tensor:
    if sigma.shape != per_sample.shape:
        raise UserError(f"sigma has shape {tuple(sigma.shape)}, expected one level a sample: {tuple(per_sample.shape)}")
    return (sigma_weight(sigma, scale, power) * per_sample).mean()


def _require_same_shape(sample: Tensor, target: Tensor) -> None:
    if sample.shape != target.shape:
        raise UserError(f"sample {tuple(sample.shape)} and target {tuple(target.shape)} must have the same shape")


@register("mse")
@dataclass(frozen=True)
class Mse(Distance):
    """Mean squared error over pixels and batch, weighted by noise level."""

    sigma_scale: Positive = 0.5
    """Noise level above which the weight of the distance falls, in units of x0."""
    sigma_power: Finite = 0.0
    """Exponent p of the weight (1 + (sigma / sigma_scale)^2)^-p; 0: no weighting."""

    def __call__(self, sample: Tensor, target: Tensor, sigma: Tensor) -> Tensor:
        """Mean over B of w(sigma) times the mean over C,H,W of (sample - target)^2.

        Raises:
            UserError: shapes of sample and target differ, or sigma is not [B].
        """
        _require_same_shape(sample, target)
        per_sample = (sample.float() - target.float()).square().flatten(1).mean(dim=1)
        return _weighted_mean(per_sample, sigma, self.sigma_scale, self.sigma_power)


@register("pseudo_huber")
@dataclass(frozen=True)
class PseudoHuber(Distance):
    """sqrt(d^2 + c^2) - c, d the Euclidean distance of a whole sample: quadratic when near, linear when far.

    c = `c_scale` sqrt(D) with D = C H W; .00054 is the value of Song and Dhariwal 2023 (arXiv 2310.14189, section 3.3).
    The root is of a sum over pixels: about sqrt(D) times the root of `mse`, so it needs another loss weight than `mse`.
    """

    c_scale: Positive = 0.00054
    """Distance per pixel (root mean square) around which the loss turns from quadratic to linear."""
    sigma_scale: Positive = 0.5
    """Noise level above which the weight of the distance falls, in units of x0."""
    sigma_power: Finite = 0.0
    """Exponent p of the weight (1 + (sigma / sigma_scale)^2)^-p; 0: no weighting."""

    def __call__(self, sample: Tensor, target: Tensor, sigma: Tensor) -> Tensor:
        """Mean over B of w(sigma) (sqrt(||sample - target||^2 + c^2) - c).

        Raises:
            UserError: shapes of sample and target differ, or sigma is not [B].
        """
        _require_same_shape(sample, target)
        difference = (sample.float() - target.float()).flatten(1)
        c = self.c_scale * math.sqrt(difference.shape[1])
        per_sample = (difference.square().sum(dim=1) + c**2).sqrt() - c
        return _weighted_mean(per_sample, sigma, self.sigma_scale, self.sigma_power)


@register("smooth_l1")
@dataclass(frozen=True)
class SmoothL1(Distance):
    """Smooth L1: d^2 / (2 beta) below `beta` and |d| - beta/2 above, mean over pixels (arXiv 1504.08083)."""

    beta: Positive = 1.0
    """Pixel difference at which the loss turns from quadratic to linear."""
    sigma_scale: Positive = 0.5
    """Noise level above which the weight of the distance falls, in units of x0."""
    sigma_power: Finite = 0.0
    """Exponent p of the weight (1 + (sigma / sigma_scale)^2)^-p; 0: no weighting."""

    def __call__(self, sample: Tensor, target: Tensor, sigma: Tensor) -> Tensor:
        """Mean over B of w(sigma) times the mean over C,H,W of the smooth absolute difference.

        Raises:
            UserError: shapes of sample and target differ, or sigma is not [B].
        """
        _require_same_shape(sample, target)
        pixels = functional.smooth_l1_loss(sample.float(), target.float(), beta=self.beta, reduction="none")
        return _weighted_mean(pixels.flatten(1).mean(dim=1), sigma, self.sigma_scale, self.sigma_power)

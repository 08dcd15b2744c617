"""The targets: the teacher's stored sample, its view of the student's own sample, or the student's input."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ladd_dist.core.noise import SIGMA_DATA
from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import LogLevel, LogSpread
from ladd_dist.core.rng import RowSource
from ladd_dist.core.serialize import ADDED
from ladd_dist.core.types import Batch, DenoiseFn
from ladd_dist.targets import Target, TargetSample


@register("stored")
@dataclass(frozen=True)
class StoredSample(Target):
    """The teacher's sample of the row: regression on pairs."""

    needs_pairs = True

    def __call__(
        self, fake: Tensor, x: Tensor, sigma: Tensor, batch: Batch, *, teacher: DenoiseFn, source: RowSource
    ) -> TargetSample:
        return TargetSample(batch.x0, sigma)


@register("teacher_denoised")
@dataclass(frozen=True)
class TeacherDenoised(Target):
    """ADD's distillation target (Sauer et al. 2023, arXiv 2311.17042, eq. 4): the teacher denoises the fake.

    The student's sample is re-noised with noise eps' of its own to a level t, ln t ~ N(`mean`, `std`^2) in units of x0,
    and denoised by the frozen teacher in one call; no gradient passes through that. It needs no pairs. The distance
    weighs by t: ADD's "exponential" weight c(t) = alpha_t = 1 / sqrt(1 + (t/sigma_data)^2) is `sigma_power` 1/2 at
    `sigma_scale` .5, which every distance has. ADD draws t evenly from 1,000 steps of a variance-preserving schedule;
    the defaults are a log-normal law with quartiles .43, 1.65, 6.35, near those of the linear one (.48, 1.72, 8.64).

    With new noise the pull forgets what the student was asked: repeated, it leads every sample of a class to the same
    mode, and the heads alone hold them apart. `noise="input"` takes the noise that the student's input had left,
    (x - fake) / sigma, at levels up to sigma: the teacher's next step of the deterministic sampler. The target is then
    the sample of this input, and a student that is sampled by `ode` can be taught by it without pairs.
    """

    mean: LogLevel = 0.5
    """Mean of ln t, t in units of x0."""
    std: LogSpread = 2.0
    """Standard deviation of ln t."""
    noise: Literal["new", "input"] = field(default="new", metadata=ADDED)
    """Noise of the re-noised sample: new, or what the student's input had left."""
    needs_teacher = True

    def __call__(
        self, fake: Tensor, x: Tensor, sigma: Tensor, batch: Batch, *, teacher: DenoiseFn, source: RowSource
    ) -> TargetSample:
        level = (self.mean + self.std * source.normal()).exp()
        if self.noise == "new":
            eps = source.normal(*fake.shape[1:])
        else:
            level, eps = torch.minimum(level, sigma), (x - fake) / sigma.view(-1, 1, 1, 1)
        return TargetSample(teacher(fake + level.view(-1, 1, 1, 1) * eps, level, batch.cond), level)


@register("input")
@dataclass(frozen=True)
class Input(Target):
    """The student's own input, in the data's units: x sigma_data / sqrt(sigma^2 + sigma_data^2).

    The transport cost of an unpaired map (coupling `ot`): with no pairs the heads say what samples look like as a set,
    and the distance which of them an input becomes, the nearest. x has the variance sigma^2 + sigma_data^2: unscaled,
    at sigma = 80 the pull would ask for samples 160 times too large. Scaled, it is unit noise times sigma_data where
    sigma is large, and x0 itself where it is small. Another scale a would change the map no more than another weight
    does: ||f - a n||^2 = ||f||^2 - 2 a <f, n> + const, and the heads hold ||f||.
    """

    def __call__(
        self, fake: Tensor, x: Tensor, sigma: Tensor, batch: Batch, *, teacher: DenoiseFn, source: RowSource
    ) -> TargetSample:
        scale = SIGMA_DATA / (sigma.square() + SIGMA_DATA**2).sqrt()
        return TargetSample(scale.view(-1, 1, 1, 1) * x, sigma)

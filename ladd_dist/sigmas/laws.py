"""Distributions of noise levels: fixed sets for the student, log-normal for teacher and discriminator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ladd_dist.core.errors import UserError
from ladd_dist.core.noise import log_normal
from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import CountOrZero, LogLevel, LogSpread, Ranged, Share
from ladd_dist.sigmas import SigmaLaw


@dataclass(frozen=True)
class Phase(Ranged):
    """Probabilities of the student's levels, highest level first, from student update `start_step` on."""

    start_step: CountOrZero
    """Student update with which the phase begins."""
    probabilities: tuple[Share, ...]
    """Probability of each level, highest level first."""


@register("fixed_set")
@dataclass(frozen=True)
class FixedSet(SigmaLaw):
    """The student's sampling levels, highest first, with probabilities per phase (LADD, arXiv 2403.12015)."""

    phases: tuple[Phase, ...] = ()
    """Probabilities of the levels by phase; empty: every level is equally likely."""

    def __post_init__(self) -> None:
        super().__post_init__()
        starts = [phase.start_step for phase in self.phases]
        if starts and (starts[0] != 0 or starts != sorted(set(starts))):
            raise UserError(f"fixed_set.phases must start at step 0 and ascend, got start steps {starts}")
        for phase in self.phases:
            if not abs(sum(phase.probabilities) - 1) <= 1e-6:  # not: NaN
                raise UserError(f"fixed_set.phases: probabilities must sum to 1, got {phase}")
        if len({len(phase.probabilities) for phase in self.phases}) > 1:
            raise UserError(f"fixed_set.phases: each phase needs one probability a level, got {self.phases}")

    def __call__(self, num: int, step: int, generator: torch.Generator, *, levels: tuple[float, ...]) -> Tensor:
        if not levels:
            raise UserError("fixed_set needs the student's levels, and there are none here; use log_normal")
        probabilities = (1 / len(levels),) * len(levels)
        for phase in self.phases:
            if step >= phase.start_step:
                probabilities = phase.probabilities
        if len(probabilities) != len(levels):
            raise UserError(
                f"fixed_set has {len(probabilities)} probabilities for the student's {len(levels)} levels {levels}"
            )
        weights = torch.tensor(probabilities, device=generator.device)
        index = torch.multinomial(weights, num, replacement=True, generator=generator)
        return torch.tensor(levels, device=generator.device, dtype=torch.float32)[index]


@register("log_normal")
@dataclass(frozen=True)
class LogNormal(SigmaLaw):
    """Log-normal levels: ln sigma ~ N(mean, std^2).

    LADD's logit-normal t with m = 1, s = 1 is mean .307, std 1 at sigma_data = .5.
    """

    mean: LogLevel = 0.307
    """Mean of ln sigma."""
    std: LogSpread = 1.0
    """Standard deviation of ln sigma."""

    def __call__(self, num: int, step: int, generator: torch.Generator, *, levels: tuple[float, ...]) -> Tensor:
        return log_normal(num, self.mean, self.std, generator)

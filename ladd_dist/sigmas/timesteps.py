"""Noise levels of a DDPM's timesteps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ladd_dist.core import ddpm
from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import Steps
from ladd_dist.sigmas import SigmaLaw


@register("timesteps")
@dataclass(frozen=True)
class Timesteps(SigmaLaw):
    """sigma_t of a timestep t, uniform in 1 .. T (Ho et al. 2020, arXiv 2006.11239, algorithm 1).

    With the linear schedule sigma goes from .01 to 157, half of it below 3.4; with the cosine one from .0064 to 20,000,
    half of it below 1.
    """

    schedule: ddpm.BetaSchedule = "linear"
    """Noise schedule of the DDPM."""
    timesteps: Steps = 1_000
    """Number of timesteps T."""

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            ddpm.alpha_bars(self.schedule, self.timesteps)
        except ValueError as error:
            raise UserError(f"timesteps: {error}") from error

    def highest(self) -> float:
        return float(self._sigmas()[-1])

    def __call__(self, num: int, step: int, generator: torch.Generator, *, levels: tuple[float, ...]) -> Tensor:
        sigmas = self._sigmas().to(generator.device)
        index = torch.randint(self.timesteps, (num,), generator=generator, device=generator.device)
        return sigmas[index]

    def _sigmas(self) -> Tensor:
        return ddpm.sigma_of(ddpm.alpha_bars(self.schedule, self.timesteps)).float()

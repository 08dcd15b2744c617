"""Ancestral sampling (Ho et al. 2020, arXiv 2006.11239, algorithm 2), also with fewer steps than timesteps."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ladd_dist.core import ddpm
from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import NonNegative, Steps
from ladd_dist.core.rng import generator
from ladd_dist.core.serialize import ADDED
from ladd_dist.core.types import DenoiseFn
from ladd_dist.samplers import Sampler


@register("ancestral")
@dataclass(frozen=True)
class Ancestral(Sampler):
    """DDPM's sampler: x_{t-1} from q(x_{t-1} | x_t, x_0), x_0 by the denoiser; new noise in all but the last step."""

    stochastic = True
    schedule: ddpm.BetaSchedule = "linear"
    """Noise schedule of the timesteps."""
    timesteps: Steps = 1_000
    """Number of timesteps T of the schedule."""
    steps: Steps = 1_000
    """Number of steps, evenly spaced among the T timesteps (Nichol and Dhariwal 2021, arXiv 2102.09672, section 4)."""
    clip: NonNegative = 1.0
    """Limit to which the denoiser's outputs are clipped, as in Ho et al. (images are in [-1, 1]); 0: no clipping, for
    latents."""
    variance: ddpm.Variance = field(default="posterior", metadata=ADDED)
    """sigma_t^2 of a step: that of q(x_s | x_t, x_0), or beta_t, 1 - alpha of the step, which is larger. They are right
    for data of one point and for unit normal data, the ends of what data can be (Ho et al. 2020, section 3.2)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            self.alpha_bars()
        except ValueError as error:
            raise UserError(f"ancestral: {error}") from error

    def clips(self) -> bool:
        return self.clip > 0

    def alpha_bars(self) -> Tensor:
        """alpha-bar [steps] of the steps, in ascending order of t."""
        return ddpm.respaced(ddpm.alpha_bars(self.schedule, self.timesteps), self.steps)

    def levels(self) -> tuple[float, ...]:
        return tuple(ddpm.sigma_of(self.alpha_bars()).flip(0).tolist())

    def num_calls(self) -> int:
        return self.steps

    def __call__(
        self, denoise: DenoiseFn, noise: Tensor, cond: Tensor, *, record: tuple[float, ...] = ()
    ) -> tuple[Tensor, Tensor]:
        """Samples and recorded states, as in `Sampler`; x_T = noise.

        A recorded state x_t / sqrt(alpha-bar_t) inside a step lies on that step's straight line. The new noise of a
        sample follows from its own initial noise, so it is the same in any batch.
        """
        levels = self.levels()
        if any(not 0 < level <= levels[0] for level in record):
            raise UserError(f"states can be recorded at levels in (0, {levels[0]}], asked for {record}")
        kept = self.alpha_bars().flip(0).tolist()
        fresh = _FreshNoise(noise)
        states: dict[float, Tensor] = {}
        x = noise
        for (now, later), (sigma, sigma_next) in zip(
            itertools.pairwise([*kept, 1.0]), itertools.pairwise([*levels, 0.0]), strict=True
        ):
            edm = x / now**0.5
            x0 = denoise(edm, torch.full((len(x),), sigma, device=x.device, dtype=x.dtype), cond)
            if self.clip:
                x0 = x0.clamp(-self.clip, self.clip)
            law = ddpm.posterior(now, later)
            x = law.of_x0 * x0 + law.of_xt * x
            if law.variance > 0:  # in all steps but the last
                variance = law.variance if self.variance == "posterior" else 1 - now / later
                x = x + variance**0.5 * fresh.draw()
            for level in record:
                if sigma_next < level <= sigma:
                    states[level] = torch.lerp(x / later**0.5, edm, (level - sigma_next) / (sigma - sigma_next))
        stacked = [states[level] for level in record]
        return x, torch.stack(stacked, dim=1) if stacked else x.new_empty((len(x), 0, *x.shape[1:]))


class _FreshNoise:
    """Unit normal noise for each step, from one generator per sample that its initial noise seeds.

    The seed is a hash of the noise in half precision: noise stored in float16 gives the same sample.
    """

    def __init__(self, noise: Tensor) -> None:
        self.like = noise
        rows = noise.detach().to("cpu", torch.float16).contiguous().view(len(noise), -1).numpy()
        self.sources = [generator("ancestral", hashlib.blake2b(row.tobytes()).hexdigest()) for row in rows]

    def draw(self) -> Tensor:
        """Draw noise [B,C,H,W] on the CPU and move it to the device, so it is the same on any device."""
        shape = self.like.shape[1:]
        drawn = torch.stack([torch.randn(shape, generator=source) for source in self.sources])
        return drawn.to(self.like.device, self.like.dtype)

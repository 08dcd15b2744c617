"""Metric `vlb`: the variational bound of the teacher as a DDPM, in bits per dimension of real images."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ladd_dist.core import ddpm, vlb
from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import Count
from ladd_dist.core.rng import sample_noise
from ladd_dist.metrics import Measure, Metric, References, Samples
from ladd_dist.metrics.interval import Estimate, with_intervals

_NOISE = 7_000_003
"""Seed of the noise; step t uses the rows after those of step t - 1."""


@register("vlb")
@dataclass(frozen=True)
class Vlb(Metric):
    """Bound on -log2 p(x) in bits per dimension (Ho et al. 2020, eq. 5), for real images and the teacher alone.

    `vlb` is the sum of `vlb_prior` (L_T), `vlb_steps` (L_1 .. L_{T-1}) and `vlb_decoder` (L_0, over the 256 values of a
    pixel). The teacher takes no guidance here, which is no density. Samples of a student have no such figures: it is no
    denoiser of small steps. Images that are no multiple of 1/127.5 from -1 are measured as if they were.
    """

    schedule: ddpm.BetaSchedule = "linear"
    """Noise schedule of the timesteps."""
    timesteps: Count = 1_000
    """Number of timesteps T of the schedule."""
    steps: Count = 200
    """Number of steps, evenly spaced among the T timesteps; fewer give a larger bound."""
    variance: ddpm.Variance = "posterior"
    """sigma_t^2 of a step, as in sampler `ancestral`."""
    num_images: Count = 64
    """Number of real images."""

    def needs(self) -> int:
        return 0

    def build(self, *, references: References) -> Measure:
        try:
            kept = ddpm.respaced(ddpm.alpha_bars(self.schedule, self.timesteps), self.steps)
        except ValueError as error:
            raise UserError(f"the metric 'vlb': {error}") from error
        denoise, real, matched = references.denoise, references.real.first(self.num_images), references.matched

        def measure(samples: Samples) -> dict[str, float]:
            if denoise is None or samples is not matched:
                return {}
            x0 = real.images.float()
            num = len(x0)

            def noise(step: int) -> torch.Tensor:
                rows = range(step * num, (step + 1) * num)
                return sample_noise(_NOISE, rows, tuple(x0.shape[1:])).to(x0.device)

            with torch.inference_mode():
                found = vlb.bound(denoise, x0, real.cond, kept, variance=self.variance, noise=noise)
            terms = {
                "vlb": found.total,
                "vlb_prior": found.prior,
                "vlb_steps": found.steps,
                "vlb_decoder": found.decoder,
            }
            return with_intervals({name: Estimate(float(parts.mean()), parts) for name, parts in terms.items()})

        return measure

"""Schedule: half a cosine from one value to another."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import Count, NonNegative
from ladd_dist.schedules import Schedule


@register("cosine")
@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from `start` to `end` over `steps` steps, then constant (Loshchilov 2017, arXiv 1608.03983)."""

    start: NonNegative = 1.0
    """Value at step 0."""
    end: NonNegative = 0.0
    """Value from step `steps` on."""
    steps: Count = 1000
    """Number of steps from `start` to `end`."""

    def __call__(self, step: int) -> float:
        """Value at `step`: `start` at 0, the mean of both half-way, `end` from `steps` on."""
        progress = min(max(step / self.steps, 0.0), 1.0)
        return self.end + (self.start - self.end) * 0.5 * (1 + math.cos(math.pi * progress))

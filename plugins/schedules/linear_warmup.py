"""Schedule: zero, then a straight line up to a value, then that value."""

from __future__ import annotations

from dataclasses import dataclass

from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import Count, CountOrZero, NonNegative
from ladd_dist.schedules import Schedule


@register("linear_warmup")
@dataclass(frozen=True)
class LinearWarmup(Schedule):
    """Zero up to `start_step`, then linear over `steps` steps to `value`, then constant."""

    value: NonNegative = 1.0
    """Value at the end of the warm-up."""
    steps: Count = 1000
    """Number of steps of the warm-up."""
    start_step: CountOrZero = 0
    """Step at which the warm-up starts."""

    def __call__(self, step: int) -> float:
        """Value at `step`: 0 up to `start_step`, `value` from `start_step + steps` on."""
        progress = (step - self.start_step) / self.steps
        return self.value * min(max(progress, 0.0), 1.0)

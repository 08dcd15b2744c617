"""Schedule: the same value at every step."""

from __future__ import annotations

from dataclasses import dataclass

from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import NonNegative
from ladd_dist.schedules import Schedule


@register("constant")
@dataclass(frozen=True)
class Constant(Schedule):
    """Constant: the same value at every step (0 switches a loss off)."""

    value: NonNegative = 1.0
    """Value at every step."""

    def __call__(self, step: int) -> float:
        """`value`, whatever the step."""
        return self.value

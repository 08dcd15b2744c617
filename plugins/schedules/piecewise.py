"""Schedule: straight lines between given points."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import CountOrZero, NonNegative
from ladd_dist.schedules import Schedule


@register("piecewise")
@dataclass(frozen=True)
class Piecewise(Schedule):
    """Straight lines between `points` (step, value), constant before the first and after the last."""

    points: tuple[tuple[CountOrZero, NonNegative], ...] = ((0, 0.0), (1000, 1.0))
    """Points (step, value), at least one: steps are 0 or more and strictly increase, values are finite."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.points:
            raise ValueError("piecewise: points must hold at least one (step, value), got none")
        for (before, _), (after, _) in pairwise(self.points):
            if after <= before:
                raise ValueError(f"piecewise: steps must strictly increase, got {before} then {after}")

    def __call__(self, step: int) -> float:
        """Value at `step` of the line through the two points around it."""
        if step <= self.points[0][0]:
            return self.points[0][1]
        for (before, low), (after, high) in pairwise(self.points):
            if step <= after:
                return low + (high - low) * (step - before) / (after - before)
        return self.points[-1][1]

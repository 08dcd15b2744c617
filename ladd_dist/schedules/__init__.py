"""Kind `schedule`: a number that depends on the step (loss weights, learning-rate factors)."""

from __future__ import annotations

from ladd_dist.core.plugin import Plugin


class Schedule(Plugin):
    """Weight or factor as a function of the step."""

    kind = "schedule"

    def __call__(self, step: int) -> float:
        """Finite value at `step`, the number of student updates done so far (0 at the first)."""
        raise NotImplementedError

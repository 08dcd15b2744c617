"""Schedule: the same value at every step."""

from __future__ import annotations

from dataclasses import dataclass

from ladd_dist.core.plugin import register
from ladd_dist.schedules import Schedule
from plugins.schedules._checks import require_finite


@register("constant")
@dataclass(frozen=True)
class Constant(Schedule):
    """Constant: the same value at every step (0 switches a loss off)."""

    value: float = 1.0
    """Value at every step."""

    def __post_init__(self) -> None:
        require_finite(self.name, value=self.value)

    def __call__(self, step: int) -> float:
        """`value`, whatever the step."""
        return self.value

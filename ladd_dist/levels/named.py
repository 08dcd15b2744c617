"""The named choices of few-step levels."""

from __future__ import annotations

from dataclasses import dataclass

from ladd_dist.core.errors import UserError
from ladd_dist.core.noise import is_descending, karras_levels
from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import Positive, Rho
from ladd_dist.levels import Levels


@register("karras")
@dataclass(frozen=True)
class Karras(Levels):
    """Karras levels from sigma_max to sigma_min, as in the report; the last call changes almost nothing."""

    sigma_min: Positive = 0.002
    """Lowest level, in units of x0."""
    sigma_max: Positive = 80.0
    """Highest level, in units of x0."""
    rho: Rho = 7.0
    """Exponent of the spacing: larger values put more levels near `sigma_min`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        karras_levels(2, sigma_min=self.sigma_min, sigma_max=self.sigma_max, rho=self.rho)

    def __call__(self, num_steps: int) -> tuple[float, ...]:
        return karras_levels(num_steps, sigma_min=self.sigma_min, sigma_max=self.sigma_max, rho=self.rho)


@register("good")
@dataclass(frozen=True)
class Good(Levels):
    """Levels found by a search against the teacher's 50 steps (`ladd levels` finds your own)."""

    four: tuple[Positive, ...] = (80.0, 3.92, 1.29, 0.34)
    """Levels of a sampler with four steps, descending."""
    two: tuple[Positive, ...] = (80.0, 1.29)
    """Levels of a sampler with two steps, descending."""
    one: tuple[Positive, ...] = (80.0,)
    """Level of a sampler with one step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for count, name, levels in ((4, "four", self.four), (2, "two", self.two), (1, "one", self.one)):
            if len(levels) != count or not is_descending(levels):
                raise UserError(
                    f"{name}: good levels for {count} steps must be {count} descending numbers, got {levels}"
                )

    def __call__(self, num_steps: int) -> tuple[float, ...]:
        table = {1: self.one, 2: self.two, 4: self.four}
        if num_steps not in table:
            raise UserError(f"the 'good' levels are known for 1, 2 and 4 steps, not {num_steps}; use levels=karras")
        return table[num_steps]

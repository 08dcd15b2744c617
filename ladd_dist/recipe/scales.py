"""A recipe at three scales."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from ladd_dist.recipe.recipe import Recipe

Scale = Literal["smoke", "laptop", "paper"]


SCALES: tuple[Scale, ...] = ("smoke", "laptop", "paper")


@dataclass(frozen=True)
class Scales:
    """A recipe at each scale; what a recipe file calls `RECIPE`."""

    smoke: Recipe
    laptop: Recipe
    paper: Recipe

    def replace(self, **changes: Any) -> Scales:
        """The same change at every scale."""
        return Scales(**{scale: dataclasses.replace(getattr(self, scale), **changes) for scale in SCALES})

    def at(self, scale: Scale, **changes: Any) -> Scales:
        """A change at one scale."""
        return dataclasses.replace(self, **{scale: dataclasses.replace(getattr(self, scale), **changes)})

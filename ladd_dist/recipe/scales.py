"""Recipes at three scales."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from ladd_dist.recipe.recipe import Recipe

Scale = Literal["smoke", "laptop", "paper"]

SCALES: tuple[Scale, ...] = ("smoke", "laptop", "paper")


@dataclass(frozen=True)
class Scales:
    """Recipe at each scale, the type of `RECIPE` in a recipe file."""

    smoke: Recipe
    laptop: Recipe
    paper: Recipe

    def replace(self, **changes: Any) -> Scales:
        """Copy with the same change at every scale."""
        return Scales(**{scale: dataclasses.replace(getattr(self, scale), **changes) for scale in SCALES})

    def at(self, scale: Scale, **changes: Any) -> Scales:
        """Copy with a change at one scale."""
        return dataclasses.replace(self, **{scale: dataclasses.replace(getattr(self, scale), **changes)})

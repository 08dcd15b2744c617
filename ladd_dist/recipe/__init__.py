"""The one public door to recipes: what recipe files, sweep files and tests of plug-ins import."""

from ladd_dist.core.augment import Augment
from ladd_dist.recipe.loading import load_module, load_recipe, validate
from ladd_dist.recipe.recipe import Recipe
from ladd_dist.recipe.scales import SCALES, Scale, Scales
from ladd_dist.recipe.settings import (
    DistillStage,
    EarlyStop,
    Ema,
    EvaluateStage,
    Old,
    Reported,
    ShardStage,
    TeacherStage,
)
from ladd_dist.recipe.swap import swap
from ladd_dist.recipe.sweep import Axis, Grid, Points, Random, Range, Sweep

__all__ = [
    "SCALES", "Augment", "Axis", "DistillStage", "EarlyStop", "Ema", "EvaluateStage", "Grid", "Old", "Points", "Random",
    "Range", "Recipe", "Reported", "Scale", "Scales", "ShardStage", "Sweep", "TeacherStage",
    "load_module", "load_recipe", "swap", "validate",
]  # fmt: skip

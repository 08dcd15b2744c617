"""Reading and validating recipe files."""

from __future__ import annotations

import typing
from pathlib import Path
from types import ModuleType

from ladd_dist.core.pyfile import run_file
from ladd_dist.core.serialize import RecipeError, check, from_data, to_data
from ladd_dist.recipe.consistency import require_consistent
from ladd_dist.recipe.recipe import Recipe
from ladd_dist.recipe.scales import Scale, Scales


def validate(recipe: Recipe) -> Recipe:
    """Check types and the consistency of fields; return the recipe with its numbers in canonical form.

    Raises:
        RecipeError: a field is wrong; the message names it and what would have worked.
    """
    check(Recipe, recipe, "recipe")
    recipe = typing.cast(Recipe, from_data(Recipe, to_data(recipe)))
    require_consistent(recipe)
    return recipe


def load_recipe(path: Path, scale: Scale) -> Recipe:
    """Read the `RECIPE` of a Python file, at a scale. A bare `Recipe` serves every scale.

    Raises:
        RecipeError: the file does not exist, fails, or has no `RECIPE`.
    """
    module = load_module(path)
    found = getattr(module, "RECIPE", None)
    found = getattr(found, scale) if isinstance(found, Scales) else found
    if not isinstance(found, Recipe):
        other = f", it has {found!r}" if hasattr(module, "RECIPE") else ", it has none"
        if hasattr(module, "SWEEP"):
            other = f"; it has a SWEEP: `ladd sweep {path}`"
        raise RecipeError(f"recipe {path} must define RECIPE (a ladd_dist.recipe.Scales or Recipe){other}")
    return found


def load_module(path: Path) -> ModuleType:
    """Run a recipe file and return its module.

    Raises:
        RecipeError: the file does not exist or fails.
    """
    return run_file(path, f"recipe {path}")

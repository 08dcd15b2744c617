"""Recipe files, read and validated."""

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
    """Check types and what fields demand of each other; returns the recipe with its numbers in canonical form.

    Raises:
        RecipeError: names the field and what would have worked.
    """
    check(Recipe, recipe, "recipe")
    recipe = typing.cast(Recipe, from_data(Recipe, to_data(recipe)))
    require_consistent(recipe)
    return recipe


def load_recipe(path: Path, scale: Scale) -> Recipe:
    """The `RECIPE` of a Python file, at a scale. A bare `Recipe` serves every scale.

    Raises:
        RecipeError: no such file, it does not run, or has no `RECIPE`.
    """
    module = load_module(path)
    found = getattr(module, "RECIPE", None)
    found = getattr(found, scale) if isinstance(found, Scales) else found
    if not isinstance(found, Recipe):
        other = f"; it has a SWEEP: `ladd sweep {path}`" if hasattr(module, "SWEEP") else f", it has {found!r}"
        raise RecipeError(f"recipe {path} must define RECIPE (a ladd_dist.recipe.Scales or Recipe){other}")
    return found


def load_module(path: Path) -> ModuleType:
    """A recipe file, run.

    Raises:
        RecipeError: no such file, or it does not run.
    """
    return run_file(path, f"recipe {path}")

"""Old conditions of a tuning: whether a recipe asks for any, and which."""

from __future__ import annotations

from torch import Tensor

from ladd_dist.core.rng import sample_classes
from ladd_dist.recipe import Recipe


def needs_old(recipe: Recipe) -> bool:
    """Whether a share of the batches asks for old conditions."""
    return recipe.train.old.num_of(recipe.train.batch_size) > 0


def old_conditions(recipe: Recipe, seed: int, indices: range) -> Tensor:
    """Ids [N] int64 of old conditions, which follow the new ones; each depends on the seed and its index alone."""
    num_new = recipe.dataset.num_asked()
    return num_new + sample_classes(seed, indices, recipe.latent().num_classes - num_new)

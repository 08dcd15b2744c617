"""The points of a random sweep: no point twice, and ranges drawn as their scale says."""

from __future__ import annotations

import random

import pytest

from ladd_dist.recipe.sweep import Axis, Random, Range, Sweep, expand
from recipes._base import BASE


@pytest.mark.parametrize("seed", range(5))
def test_a_budget_of_all_points_gives_each_of_them(seed: int) -> None:
    """Eight draws of eight points with replacement would give five or six of them, one time in 400 all."""
    axes = (Axis("head.width", (8, 16)), Axis("train.lr_heads", (1e-4, 2e-4, 3e-4, 4e-4)))
    runs, notes = expand(Sweep("test", BASE, axes, mode=Random(budget=8, seed=seed)), "smoke")
    assert len({run.label for run in runs}) == 8
    assert notes == []


def test_a_logarithmic_range_draws_as_often_from_each_decade() -> None:
    drawn = [Range(1e-4, 1e-1, log=True).draw(source) for source in [random.Random(0)] for _ in range(900)]
    decades = [sum(low <= value < 10 * low for value in drawn) for low in (1e-4, 1e-3, 1e-2)]
    assert all(240 < count < 360 for count in decades), decades
    plain = [Range(1e-4, 1e-1).draw(source) for source in [random.Random(0)] for _ in range(900)]
    assert sum(value >= 1e-2 for value in plain) > 750

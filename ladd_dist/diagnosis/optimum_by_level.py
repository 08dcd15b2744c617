"""The L2-optimal student level by level: how much of the samples' variance it keeps, and where that is lost."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ladd_dist.builders.codec import is_pixels
from ladd_dist.core.rng import generator
from ladd_dist.core.types import Batch
from ladd_dist.diagnosis.advice import weight_at
from ladd_dist.diagnosis.posterior import PosteriorMean
from ladd_dist.diagnosis.record import LevelFigures, LevelRow
from ladd_dist.diagnosis.sample_metrics import colour_variance, in_class_variance, sees_colours
from ladd_dist.engine.loop import Bar
from ladd_dist.recipe import Recipe
from ladd_dist.reports.diagnosis_text import REGRESSES, verdict_of
from ladd_dist.reports.verdict import VARIANCE_COLLAPSED

NUM_INPUTS = 2_000
"""Inputs on which a level is measured."""
BISECTIONS = 8
_SAME_LEVEL = 1e-5
_ROUNDING = (0.5 / 255) ** 2
"""Variance of colours in [0, 1] that bytes cannot show."""


def examined_levels(recipe: Recipe, pairs: Batch) -> list[float]:
    """The levels at which the student is trained or sampled, descending; for a path coupling only the stored ones."""
    counts = {*recipe.evaluate.steps, recipe.student_steps}
    levels = sorted({level for steps in counts for level in recipe.levels(steps)}, reverse=True)
    return [level for level in levels if not recipe.start.needs_path or level in pairs.path_levels]


def trained_levels(recipe: Recipe, levels: Sequence[float]) -> set[float]:
    """The subset of `levels` that the student's noise distribution draws at the start, middle or end of training."""
    steps, own = recipe.train.steps, recipe.student_levels()
    drawn = torch.cat([
        recipe.student_sigma(4096, step, generator("diagnose-levels", step), levels=own)
        for step in (0, steps // 2, steps - 1)
    ]).double()  # fmt: skip
    if len(set(drawn.tolist())) > len(own):  # a continuous distribution, which comes arbitrarily near
        return {level for level in levels if float(drawn.min()) <= level <= float(drawn.max())}
    return {level for level in levels if float((drawn / level - 1).abs().min()) < _SAME_LEVEL}


def level_rows(recipe: Recipe, posterior: PosteriorMean) -> list[LevelRow]:
    """The optimum at each of the recipe's levels, highest noise first."""
    levels = examined_levels(recipe, posterior.pairs)
    trained = trained_levels(recipe, levels)
    rows: list[LevelRow] = []
    with Bar("levels", len(levels)) as bar:
        for done, sigma in enumerate(levels):
            rows.append({**optimum_at(recipe, posterior, sigma), "trained": sigma in trained})
            bar.update(done + 1)
    return rows


def regressing(rows: Sequence[LevelRow]) -> list[float]:
    """The levels at which the optimum regresses to the mean."""
    return [row["sigma"] for row in rows if row["verdict"] == REGRESSES]


def optimum_at(recipe: Recipe, posterior: PosteriorMean, sigma: float, num: int = NUM_INPUTS) -> LevelFigures:
    """Figures of the optimum at one level, on up to `num` inputs that are made as in training."""
    pairs, which = posterior.pairs, evenly(posterior, num)
    x0, cond = pairs.x0[which], pairs.cond[which]
    eps = torch.randn(x0.shape, generator=generator("diagnose", f"{sigma:.6g}")).to(x0.device)
    found = posterior.weigh(posterior.inputs(which, sigma, eps), torch.full((len(x0),), sigma, device=x0.device), cond)
    error, spread = (found.mean - x0).square().mean(dim=(1, 2, 3)), torch.empty(len(x0), device=x0.device)
    for number in posterior.rows:
        own = cond == number
        spread[own] = (x0[own] - x0[own].mean(dim=0)).square().mean(dim=(1, 2, 3))
    kept = max(0.0, 1 - float(error.mean() / spread.mean())) if float(spread.mean()) > 0 else 1.0
    weight, spread_of_inputs = weight_at(recipe.distance, sigma), posterior.spread(sigma)
    averaged = float(found.averaged.mean())
    if not by_colour(recipe, x0, cond):
        return {
            "sigma": sigma, "weight": weight, "spread": spread_of_inputs, "averaged": averaged, "kept": kept,
            "share": kept, "in_class": kept, "classes": {}, "verdict": verdict_of(kept),
        }  # fmt: skip
    share = ratio(colour_variance(found.mean), colour_variance(x0))
    in_class = ratio(in_class_variance(found.mean, cond), in_class_variance(x0, cond))
    groups = {number: cond == number for number in posterior.rows}
    classes = {
        str(number): ratio(colour_variance(found.mean[own]), colour_variance(x0[own]))
        for number, own in groups.items()
        if int(own.sum()) > 1
    }
    return {
        "sigma": sigma, "weight": weight, "spread": spread_of_inputs, "averaged": averaged, "kept": kept,
        "share": share, "in_class": in_class, "classes": classes, "colour_variance": colour_variance(found.mean),
        "verdict": verdict_of(in_class),
    }  # fmt: skip


def by_colour(recipe: Recipe, x0: Tensor, cond: Tensor) -> bool:
    """Whether colours of samples x0 [N,C,H,W] tell a regression to the mean of their classes cond [N].

    Latents, data without colour, and classes of one colour each are judged by explained variance (`kept`).
    """
    return is_pixels(recipe) and sees_colours(recipe) and in_class_variance(x0, cond) > _ROUNDING


def threshold(recipe: Recipe, posterior: PosteriorMean, rows: Sequence[LevelRow]) -> float | None:
    """The level above which classes keep less than half of their variance, by bisection in ln sigma; None: nowhere."""
    above = [row["sigma"] for row in rows if row["in_class"] < VARIANCE_COLLAPSED]
    if not above or recipe.start.needs_path:  # a path has no inputs between its stored levels
        return None
    below = [row["sigma"] for row in rows if row["in_class"] >= VARIANCE_COLLAPSED]
    high, low = min(above), max(below, default=1e-3)
    for _ in range(BISECTIONS):
        middle = math.sqrt(low * high)
        left = optimum_at(recipe, posterior, middle, num=NUM_INPUTS // 4)["in_class"]
        low, high = (low, middle) if left < VARIANCE_COLLAPSED else (middle, high)
    return float(f"{math.sqrt(low * high):.3g}")


def evenly(posterior: PosteriorMean, num: int) -> Tensor:
    """Indices [n] of up to `num` pairs, evenly spaced."""
    count = len(posterior.pairs.x0)
    return torch.linspace(0, count - 1, min(num, count), device=posterior.pairs.x0.device).round().long()


def ratio(one: float, other: float) -> float:
    """The quotient of two variances of colours in [0, 1]; 1 if the second one is no more than rounding."""
    return one / other if other > _ROUNDING else 1.0

"""Figures over several seeds of the held-out noise: their means, and intervals that cover the seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ladd_dist.comparison.statistics import pool
from ladd_dist.core.run_forms import Evaluation, figures_of
from ladd_dist.evaluation.measurement import Figures, Measured
from ladd_dist.metrics.interval import HIGH, LOW, is_bound
from ladd_dist.workspace.run import Run

PER_SEED = "per_seed"


def at_seed(run: Run, seed: int) -> Run:
    """The same run with an evaluation on the noise of one seed."""
    settings = dataclasses.replace(run.recipe.evaluate, seed=seed, seeds=())
    return dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, evaluate=settings))


def over_seeds(found: Sequence[Measured]) -> Measured:
    """The figures of one evaluation a seed as those of all: means, with intervals as `mean_figures` has them."""
    figures = {entry: mean_figures([one.figures[entry] for one in found]) for entry in found[0].figures}
    classes = {
        entry: {number: mean_figures([one.classes[entry][number] for one in found]) for number in own}
        for entry, own in found[0].classes.items()
    }
    left_out = {name: why for one in found for name, why in one.left_out.items()}
    return Measured(figures, classes, left_out, features=found[0].features)


def mean_figures(found: Sequence[Figures]) -> Figures:
    """The mean of each figure over seeds, and Student's 95 % interval of that mean.

    Seeds have noises of their own, so the spread of a figure over them is all that the choice of samples does to it,
    whatever is assumed about the samples of one seed. Figures that a seed lacks are left out. One seed's figures stay
    as they are, with intervals over its samples.
    """
    if len(found) == 1:
        return found[0]
    figures: Figures = {}
    for name in found[0]:
        if not is_bound(name) and all(name in one for one in found):
            mean, low, high, _ = pool([one[name] for one in found])
            assert low is not None and high is not None
            figures |= {name: mean, f"{name}{LOW}": low, f"{name}{HIGH}": high}
    return figures


def means_of(found: Evaluation) -> dict[str, Figures]:
    """The figures of eval.json that are numbers, without those of each seed."""
    return {
        entry: {name: value for name, value in own.items() if value is not None}
        for entry, own in figures_of(found).items()
    }


def without_bounds(figures: Figures) -> Figures:
    """The figures without the bounds of their intervals."""
    return {name: value for name, value in figures.items() if not is_bound(name)}

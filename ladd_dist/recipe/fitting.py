"""Which of a recipe's metrics fit its images: those that do not are left out, and named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ladd_dist.core.features import DIGITS, network_for

if TYPE_CHECKING:
    from ladd_dist.metrics import Metric
    from ladd_dist.recipe.recipe import Recipe


def fitting_metrics(recipe: Recipe) -> tuple[Metric, ...]:
    """The recipe's metrics whose figures say something about its dataset's images."""
    unfit = unfit_metrics(recipe)
    return tuple(metric for metric in recipe.evaluate.metrics if metric.name not in unfit)


def unfit_metrics(recipe: Recipe) -> dict[str, str]:
    """Reasons by name of the metrics that are left out, because they were made for other images."""
    image, shows = recipe.dataset.spec(), recipe.dataset.shows
    reasons = {metric.name: metric.misfit(image, shows) for metric in recipe.evaluate.metrics}
    return {name: reason for name, reason in reasons.items() if reason}


def feature_network(recipe: Recipe) -> str:
    """Name of the shipped network that reads the recipe's images; the digits' where none was made for them."""
    return network_for(recipe.dataset.spec(), recipe.dataset.shows) or DIGITS


def what_is_left_out(recipe: Recipe) -> list[str]:
    """A sentence for each reason that leaves metrics out; none if all fit."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in unfit_metrics(recipe).items():
        by_reason.setdefault(reason, []).append(name)
    data = f"dataset {recipe.dataset.name!r} shows {' and '.join(recipe.dataset.shows) or 'something else'}"
    return [f"not measured: {', '.join(names)} ({reason}; {data})" for reason, names in by_reason.items()]

"""Consistency checks between the fields of a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ladd_dist.core.class_net import NAME
from ladd_dist.core.serialize import RecipeError
from ladd_dist.metrics.class_features import trained_by, uses_trained
from ladd_dist.recipe.fitting import fitting_metrics
from ladd_dist.recipe.pairs import require_pairs

if TYPE_CHECKING:
    from ladd_dist.recipe.recipe import Recipe


def require_consistent(recipe: Recipe) -> None:
    """Refuse a recipe that cannot work, before any stage runs.

    Raises:
        RecipeError: two fields do not fit; the message names them and what would have worked.
    """
    if recipe.train.batch_size > recipe.shards.num_samples:
        raise RecipeError(
            f"recipe.train.batch_size: {recipe.train.batch_size} is more than the {recipe.shards.num_samples} samples "
            "of the shards; lower it or raise shards.num_samples"
        )
    _check_compute(recipe)
    if recipe.shards.seed in (recipe.evaluate.seed, *recipe.evaluate.seeds) and not recipe.shards.source:
        raise RecipeError(
            f"recipe.evaluate: seed {recipe.shards.seed} is that of the shards (shards.seed), so the student would be "
            "measured on the noise that it was trained on; take another"
        )
    if not (recipe.dataset.has_images or recipe.network.pretrained):
        raise RecipeError(
            f"recipe.dataset: {recipe.dataset.name!r} has no images to train network {recipe.network.name!r} on; take "
            "a pretrained network (--swap network=diffusers), or a dataset of images"
        )
    try:
        recipe.student_levels()
        for steps in recipe.evaluate.steps:
            recipe.levels(steps)
    except ValueError as error:
        raise RecipeError(f"recipe.levels: {error}") from error
    _check_sigma_laws(recipe)
    _check_evaluation(recipe)
    if recipe.start.needs_pairs and recipe.shards.sampler.stochastic and not recipe.shards.source:
        raise RecipeError(
            f"recipe.start: {recipe.start.name!r} needs a sampler that adds no noise (euler), or use start=fresh"
        )
    require_pairs(recipe)


def _check_evaluation(recipe: Recipe) -> None:
    """Refuse lists whose entries would not each have figures of their own."""
    steps, metrics = recipe.evaluate.steps, recipe.evaluate.metrics
    if not steps:
        raise RecipeError("recipe.evaluate.steps: give at least one number of steps, like 4 2 1")
    if twice := [number for number in steps if steps.count(number) > 1]:
        raise RecipeError(f"recipe.evaluate.steps: {twice[0]} stands there twice; leave one out")
    if same := [metric.name for metric in metrics if metrics.count(metric) > 1]:  # other settings give other figures
        raise RecipeError(f"recipe.evaluate.metrics: {same[0]} stands there twice; leave one out")
    _check_trained_features(recipe)


def _check_trained_features(recipe: Recipe) -> None:
    """Refuse metrics in the features of a network that nothing trains, or whose figures stand there twice."""
    where, metrics = "recipe.evaluate.metrics", recipe.evaluate.metrics
    asking = [metric.name for metric in metrics if uses_trained(metric)]
    if not asking:
        return
    if not recipe.dataset.has_images:
        raise RecipeError(
            f"{where}: {asking[0]} takes features that are trained on the data set's pictures, and dataset "
            f"{recipe.dataset.name!r} has none; leave it out, or take one that needs no real pictures"
        )
    if trained_by(metrics) is None:
        raise RecipeError(
            f"{where}: {asking[0]} has features={NAME!r}, whose network the metric {NAME!r} trains; add that metric, "
            "ClassFeatures()"
        )
    if getattr(recipe.dataset, "held_out", None) == 0:
        raise RecipeError(
            f"recipe.dataset.held_out is 0, and the features of the metric {NAME!r} are tried on held-out pictures: "
            "use --dataset.held-out 0.05, or a recipe without that metric"
        )
    names = [metric.name for metric in fitting_metrics(recipe)]
    if names.count(NAME) > 1:
        raise RecipeError(f"{where}: {NAME} stands there twice, and a data set has one such network; leave one out")
    if "digit_color" in names:
        raise RecipeError(f"{where}: digit_color and {NAME} both give fd_real, in features of their own; leave one out")


def _check_compute(recipe: Recipe) -> None:
    """Refuse compute settings that do not go together, and say what would."""
    for stage in ("teacher", "train"):
        compute, batch_size = getattr(recipe, stage).compute, getattr(recipe, stage).batch_size
        where = f"recipe.{stage}.compute"
        if batch_size % compute.accumulate:
            raise RecipeError(
                f"{where}.accumulate: a batch of {batch_size} has no {compute.accumulate} micro-batches of equal size"
            )
    _check_graph(recipe)
    compute, has_penalty = recipe.train.compute, recipe.regulariser.differentiates()
    if compute.accumulate > 1 and recipe.train.mode == "fused":
        raise RecipeError(
            "recipe.train.mode: 'fused' keeps the student's graph from the heads' update to its own, and with "
            "accumulation that would be the graphs of all micro-batches; use --train.mode alternate"
        )
    if "heads" in compute.compile and has_penalty:
        raise RecipeError(
            f"recipe.train.compute.compile: regulariser {recipe.regulariser.name!r} differentiates the heads "
            "twice, which torch.compile cannot; leave 'heads' out"
        )
    if compute.precision == "fp16" and has_penalty:
        raise RecipeError(
            f"recipe.train.compute.precision: the gradients in regulariser {recipe.regulariser.name!r} would vanish in "
            "fp16, where only the loss is scaled; use bf16"
        )


def _check_graph(recipe: Recipe) -> None:
    """Refuse to record a step in which more changes than a graph can be given."""
    train = recipe.train
    if recipe.teacher.compute.graph and recipe.network.pretrained:
        raise RecipeError(
            f"recipe.teacher.compute.graph: network {recipe.network.name!r} is trained already, so there is no step to "
            "record; leave graph out"
        )
    drawn_inside = {
        "head_updates above 1, each with new noise,": train.head_updates > 1,
        f"regulariser {recipe.regulariser.name!r}, which may draw random numbers,": recipe.regulariser.draws(),
        f"target {recipe.target.name!r}, which may draw noise,": recipe.target.needs_teacher,
    }
    for stage, compute, own in (("teacher", recipe.teacher.compute, {}), ("train", train.compute, drawn_inside)):
        faults = {
            f"parallel {recipe.parallel.name!r} (use single)": recipe.parallel.name != "single",
            "fp16, whose loss scale may skip an update (use bf16),": compute.precision == "fp16",
            "activation checkpointing, which saves the generators' state,": bool(compute.checkpoint),
            **own,
        }
        if compute.graph and (found := [fault for fault, is_there in faults.items() if is_there]):
            raise RecipeError(
                f"recipe.{stage}.compute.graph: a step with {found[0]} cannot be recorded; leave graph out"
            )


def _check_sigma_laws(recipe: Recipe) -> None:
    """Draw from each law of noise levels: a law that does not fit would stop a stage that took hours to reach."""
    levels = recipe.student_levels()
    laws = {"teacher.sigma": (recipe.teacher.sigma, ()), "student_sigma": (recipe.student_sigma, levels)}
    for where, (law, known) in {**laws, "renoise_sigma": (recipe.renoise_sigma, levels)}.items():
        try:
            drawn = law(64, 0, torch.Generator().manual_seed(0), levels=known)
        except ValueError as error:
            raise RecipeError(f"recipe.{where}: {error}") from error
        if drawn.shape != (64,) or not (drawn.isfinite() & (drawn > 0)).all():
            raise RecipeError(f"recipe.{where}: law {law.name!r} must draw one finite level above 0 a sample")
        bound = recipe.start.needs_path or recipe.rollout.needs_levels
        if where == "student_sigma" and bound and not torch.isin(drawn, torch.tensor(levels)).all():
            raise RecipeError(
                f"recipe.student_sigma: start {recipe.start.name!r} with rollout {recipe.rollout.name!r} has inputs at "
                f"the levels {levels} alone, and this law draws others; use student_sigma=fixed_set"
            )

"""Checks of parts of a recipe that are right by themselves, and wrong together without any later error."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ladd_dist.core.errors import RecipeError

if TYPE_CHECKING:
    from ladd_dist.parallel.compute import Role
    from ladd_dist.recipe.recipe import Recipe
    from ladd_dist.schedules import Schedule

MOST_LOOKS = 100_000
"""Most steps at which a schedule is looked at, evenly over a training."""
TOO_HIGH = 1.1
"""A sampler may begin this much above the highest level that its teacher has seen."""


def require_pairs(recipe: Recipe) -> None:
    """Refuse parts that do not go together.

    Raises:
        RecipeError: names both parts and says what would work.
    """
    adversarial, distill = _is_ever_on(recipe, "adv_weight"), _is_ever_on(recipe, "distill_weight")
    if not adversarial and not distill:
        raise RecipeError(
            "recipe.adv_weight, recipe.distill_weight: both are 0 at every step, so nothing would train the student; "
            "raise one of them"
        )
    if distill:
        _check_target(recipe)
    _check_path(recipe)
    _check_teacher(recipe)
    _check_latents(recipe)
    _check_parallel(recipe)
    _check_conditioned(recipe)
    _check_pictures(recipe)
    _check_old(recipe, distill)
    for metric in recipe.evaluate.metrics:
        if metric.needs() > recipe.evaluate.num_samples:
            raise RecipeError(
                f"recipe.evaluate.num_samples: metric {metric.name!r} needs at least {metric.needs()}, got "
                f"{recipe.evaluate.num_samples}; raise it, or leave the metric out"
            )


def _is_ever_on(recipe: Recipe, name: str) -> bool:
    """Whether a loss has a weight at some step. Five steps are looked at for a weight that cannot be."""
    schedule: Schedule = getattr(recipe, name)
    steps = recipe.train.steps
    values = {step: schedule(step) for step in sorted({(steps - 1) * quarter // 4 for quarter in range(5)})}
    for step, value in values.items():
        if not 0 <= value < math.inf:
            raise RecipeError(
                f"recipe.{name}: schedule {schedule.name!r} gives {value} at step {step}; the weight of a loss must be "
                "finite and at least 0"
            )
    return any(values.values()) or any(schedule(step) for step in range(0, steps, -(-steps // MOST_LOOKS)))


def _check_target(recipe: Recipe) -> None:
    """Refuse inputs that have nothing to do with the sample that the distance pulls to."""
    start, rollout, target = recipe.start, recipe.rollout, recipe.target
    if target.needs_pairs and not start.needs_pairs and not rollout.keeps_pairs():
        raise RecipeError(
            f"recipe.rollout: with start {start.name!r} the inputs of rollout {rollout.name!r} begin at new noise, and "
            f"have nothing to do with the sample of the batch, which target {target.name!r} pulls to; use "
            "start=stored, target=teacher_denoised, rollout=off_policy, or a distill_weight of 0"
        )


def _check_path(recipe: Recipe) -> None:
    """Refuse student levels at which the shards could hold no state of the teacher."""
    if not recipe.start.needs_path:
        return
    if recipe.shards.source:  # what is there is looked at when the shards are found
        return
    high, highest = max(recipe.path_levels()), recipe.shards.sampler.levels()[0]
    if high > highest:
        raise RecipeError(
            f"recipe.levels: start {recipe.start.name!r} needs the teacher's state at {high:g}, and the sampler of the "
            f"shards begins at {highest:g}; lower the student's levels or raise the sampler's"
        )


def _check_teacher(recipe: Recipe) -> None:
    """Refuse to sample a teacher that is trained here in a way that it was never trained for."""
    if recipe.network.pretrained:
        return
    guidance, first, highest = recipe.shards.guidance, recipe.shards.sampler.levels()[0], recipe.teacher.sigma.highest()
    if recipe.teacher.label_dropout == 0 and guidance != 1:
        raise RecipeError(
            f"recipe.shards.guidance: {guidance:g} mixes in the teacher without a class, which it does not learn with "
            "teacher.label_dropout 0; use --shards.guidance 1, or --teacher.label_dropout 0.1"
        )
    if first > TOO_HIGH * highest:
        raise RecipeError(
            f"recipe.shards.sampler: begins at the noise level {first:g}, and teacher.sigma "
            f"{recipe.teacher.sigma.name!r} trains the teacher up to {highest:g} alone; give both the same schedule, "
            "or the sampler a lower first level"
        )


def _check_latents(recipe: Recipe) -> None:
    """Refuse what fits pixels, or the latents of one autoencoder, where the networks work in others."""
    if recipe.codec.name != "pixels" and recipe.shards.sampler.clips():
        raise RecipeError(
            f"recipe.shards.sampler.clip: sampler {recipe.shards.sampler.name!r} clips to the range of pixels, and "
            f"codec {recipe.codec.name!r} has latents beyond it; use --shards.sampler.clip 0"
        )
    if recipe.network.pretrained and recipe.codec.trained:
        raise RecipeError(
            f"recipe.codec: {recipe.codec.name!r} is trained here, and the checkpoint of network "
            f"{recipe.network.name!r} does not know its latents; use codec=vae or codec=pixels"
        )


def _check_pictures(recipe: Recipe) -> None:
    """Refuse the dataset's pictures as samples where there are none, or where a sample needs the noise it came from."""
    if recipe.shards.samples == "teacher":
        return
    where, start = "recipe.shards.samples: 'dataset' takes the dataset's pictures as samples", recipe.start
    if recipe.shards.source:
        raise RecipeError(f"{where}, and shards.source others'; leave one of the two out")
    if not recipe.dataset.has_images:
        raise RecipeError(f"{where}, and {recipe.dataset.name!r} has none; use --shards.samples teacher")
    if start.needs_pairs or start.needs_path:
        raise RecipeError(
            f"{where}, and start {start.name!r} needs the noise or path by which a teacher made each; use start=fresh, "
            "start=ot, or --shards.samples teacher"
        )


def _check_old(recipe: Recipe, distill: bool) -> None:
    """Refuse a share of old conditions where there are none, or a target that takes no notice of their samples."""
    share, num_new = recipe.train.old.share, recipe.dataset.num_asked()
    num_rows, num_all = recipe.train.old.num_of(recipe.train.batch_size), recipe.dataset.spec().num_classes
    if not share:
        if recipe.target.keeps_old and distill:
            raise RecipeError(
                f"recipe.target: {recipe.target.name!r} pulls to the samples of old conditions, and no batch asks for "
                "any; raise train.old.share, take another target, or a distill_weight of 0"
            )
        return
    where = f"recipe.train.old.share: {share:g} of each batch asks for old conditions"
    if num_all <= num_new:
        raise RecipeError(f"{where}, and the dataset has none; use dataset=with_old, or --train.old.share 0")
    if not 0 < num_rows < recipe.train.batch_size:
        raise RecipeError(f"{where}, which is {num_rows} of {recipe.train.batch_size} rows; use another share")
    if recipe.start.needs_path or recipe.start.needs_pairs:
        raise RecipeError(
            f"{where}, and the pictures beside them have no noise or path, which start {recipe.start.name!r} needs; "
            "use start=ot for a student of the rule `ode`, start=fresh for one of `sde`"
        )
    if recipe.target.needs_pairs:
        raise RecipeError(f"{where}, and target {recipe.target.name!r} pulls new pictures too; use target=old")


def _check_conditioned(recipe: Recipe) -> None:
    """Refuse what the heads are to see where they do not look: the student's level, or that a condition is wrong."""
    looks, add = getattr(recipe.head, "conditioned", True), "add --head.conditioned"  # without that field it may look
    if recipe.train.heads_see_level and not looks:
        raise RecipeError(f"recipe.train.heads_see_level: head {recipe.head.name!r} does not see the level; {add}")
    if not recipe.train.mismatched:
        return
    where = f"recipe.train.mismatched: {recipe.train.mismatched:g} shows the heads real samples under a wrong condition"
    if not looks:
        raise RecipeError(f"{where}, and head {recipe.head.name!r} does not see the condition; {add}")
    if recipe.dataset.spec().num_classes < 2:
        raise RecipeError(f"{where}, and dataset {recipe.dataset.name!r} has one class alone; use --train.mismatched 0")


def _check_parallel(recipe: Recipe) -> None:
    """Refuse a precision or compilation that the strategy cannot do."""
    stages: dict[str, tuple[Role, ...]] = {"train": ("student", "heads")}
    if not recipe.network.pretrained:
        stages["teacher"] = ("teacher",)
    for stage, roles in stages.items():
        for role in roles:
            try:
                recipe.parallel.require(role, getattr(recipe, stage).compute)
            except ValueError as error:
                raise RecipeError(f"recipe.{stage}.compute: {error}") from error

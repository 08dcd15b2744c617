"""The recipe's training step, put together from its plug-ins and networks."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch

from ladd_dist.builders.codec import load_codec
from ladd_dist.builders.networks import denoiser
from ladd_dist.builders.teacher import guided_teacher
from ladd_dist.core.errors import UnknownTapError
from ladd_dist.core.rng import derive_seed
from ladd_dist.core.types import Autoencoder, Denoiser
from ladd_dist.engine.adv_norm import AdversarialNorm
from ladd_dist.engine.discriminator import FrozenCritic, Heads, LevelCode
from ladd_dist.engine.draws import MicroBatches
from ladd_dist.engine.head_statistics import HeadSums
from ladd_dist.engine.ladd_step import LaddStep
from ladd_dist.parallel import Trainable
from ladd_dist.recipe import Recipe
from ladd_dist.targets import no_teacher
from ladd_dist.workspace.run import Run


class Frozen(NamedTuple):
    """The frozen networks of a training."""

    critic: Denoiser
    """The network below the heads: the teacher, or another."""
    teacher: Denoiser | None
    """The teacher, where the target asks it; the same object as the critic where it is both."""
    before: Denoiser | None = None
    """The student before training, where a share of the batches asks for old conditions."""

    def networks(self) -> list[Denoiser]:
        """Each network once."""
        others = [network for network in (self.teacher, self.before) if network is not None]
        return [self.critic, *(network for network in others if network is not self.critic)]


def build_critic(recipe: Recipe, teacher: Denoiser, run: Run | None = None) -> Denoiser:
    """The network below the heads; the teacher itself where the recipe says nothing else.

    Args:
        run: says where the weights of a trained codec are; without it they are random, for costs and shapes.

    Raises:
        ValueError: it cannot look at the teacher's samples, or its weights or the codec's are not there.
    """
    image = recipe.dataset.spec()

    def codec() -> Autoencoder:
        return recipe.codec.build(image=image) if run is None else load_codec(run)

    return recipe.critic.build(teacher=teacher, image=image, codec=codec)


def freeze(
    recipe: Recipe, teacher: Denoiser, critic: Denoiser, before: Denoiser | None = None, **common: Any
) -> Frozen:
    """The critic, the teacher if the target asks it, and the student before training where there is one.

    The recipe's strategy freezes them (`Parallel.freeze`).
    """

    def frozen(network: Denoiser) -> Denoiser:
        return cast(Denoiser, recipe.parallel.freeze(network, **common))

    watching = frozen(critic)
    asked = None if not recipe.target.needs_teacher else watching if critic is teacher else frozen(teacher)
    return Frozen(watching, asked, None if before is None else frozen(before))


def build_heads(recipe: Recipe, network: Denoiser) -> Heads:
    """The recipe's heads on its taps of the critic's `network`, initialised from the run's seed.

    Raises:
        UnknownTapError: a tap that the network lacks.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("heads", recipe.seed))
        code = level_code(recipe)
        return Heads(recipe.head, network, taps_of(recipe, network), 0 if code is None else code.dim)


def level_code(recipe: Recipe) -> LevelCode | None:
    """The code in which the heads see the student's level; None where they do not."""
    levels = recipe.student_levels()
    return LevelCode(min(levels), max(levels)) if recipe.train.heads_see_level else None


def taps_of(recipe: Recipe, network: Denoiser) -> tuple[str, ...]:
    """Names of the network's feature maps that the recipe's layout picks.

    Raises:
        UnknownTapError: a tap that the network lacks.
    """
    try:
        return recipe.taps(network.taps)
    except KeyError as error:
        raise UnknownTapError(str(error.args[0])) from error


def build_step(
    recipe: Recipe,
    student: Trainable,
    heads: Trainable,
    frozen: Frozen,
    *,
    adv_norm: AdversarialNorm | None = None,
    head_sums: HeadSums | None = None,
) -> LaddStep:
    """The recipe's LADD step on given networks, complete.

    Args:
        adv_norm: divides the adversarial gradient at the student's samples; None: nothing does.
        head_sums: adds up the heads' logits by head and noise level; None: nothing is kept.
    """
    return LaddStep(
        student=student,
        heads=heads,
        critic=FrozenCritic(frozen.critic, taps_of(recipe, frozen.critic), recipe.critic.renoises, level_code(recipe)),
        micro_batches=MicroBatches(
            start=recipe.start,
            rollout=recipe.rollout,
            student_sigma=recipe.student_sigma,
            renoise_sigma=recipe.renoise_sigma,
            levels=recipe.student_levels(),
            seed=recipe.seed,
            augment=recipe.train.augment,
            num_old=recipe.train.old.num_of(recipe.train.batch_size),
            before=None if frozen.before is None else denoiser(frozen.before),
            wrong_of=frozen.critic.image.num_classes if recipe.train.mismatched else 0,
        ),
        adversarial=recipe.adversarial,
        target=recipe.target,
        distance=recipe.distance,
        regulariser=recipe.regulariser,
        adv_weight=recipe.adv_weight,
        distill_weight=recipe.distill_weight,
        mode=recipe.train.mode,
        head_updates=recipe.train.head_updates,
        mismatched=recipe.train.mismatched,
        teacher=no_teacher if frozen.teacher is None else guided_teacher(recipe, frozen.teacher),
        head_sums=head_sums,
        adv_norm=AdversarialNorm(0.0) if adv_norm is None else adv_norm,
    )

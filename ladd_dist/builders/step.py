"""The recipe's training step, put together from its plug-ins and networks."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch

from ladd_dist.builders.codec import load_codec
from ladd_dist.builders.teacher import guided_teacher
from ladd_dist.core.errors import UnknownTapError
from ladd_dist.core.rng import derive_seed
from ladd_dist.core.types import Autoencoder, Denoiser
from ladd_dist.engine.discriminator import FrozenCritic, Heads
from ladd_dist.engine.ladd_step import LaddStep, no_teacher
from ladd_dist.parallel import Trainable
from ladd_dist.recipe import Recipe
from ladd_dist.workspace.run import Run


class Frozen(NamedTuple):
    """The networks of a training that are not trained."""

    critic: Denoiser
    """Below the heads: the teacher, or another."""
    teacher: Denoiser | None
    """Where the target asks it; the same object where it is the critic too."""

    def networks(self) -> list[Denoiser]:
        """Each of them once."""
        return [self.critic] + ([self.teacher] if self.teacher not in (None, self.critic) else [])


def build_critic(recipe: Recipe, teacher: Denoiser, run: Run | None = None) -> Denoiser:
    """The network below the heads; the teacher itself where the recipe says nothing else.

    Args:
        run: where the weights of a codec are that a stage trains; without it they are random, for costs and shapes.

    Raises:
        ValueError: it cannot look at the teacher's samples, or its weights or the codec's are not there.
    """
    image = recipe.dataset.spec()

    def codec() -> Autoencoder:
        return recipe.codec.build(image=image) if run is None else load_codec(run)

    return recipe.critic.build(teacher=teacher, image=image, codec=codec)


def freeze(recipe: Recipe, teacher: Denoiser, critic: Denoiser, **common: Any) -> Frozen:
    """What the recipe's step needs of teacher and critic, frozen by its strategy (`Parallel.freeze`)."""
    frozen = cast(Denoiser, recipe.parallel.freeze(critic, **common))
    if not recipe.target.needs_teacher:
        return Frozen(frozen, None)
    return Frozen(frozen, frozen if critic is teacher else cast(Denoiser, recipe.parallel.freeze(teacher, **common)))


def build_heads(recipe: Recipe, network: Denoiser) -> Heads:
    """The recipe's heads on its taps of the critic's `network`, initialised from the run's seed.

    Raises:
        UnknownTapError: a tap that the network lacks.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("heads", recipe.seed))
        return Heads(recipe.head, network, taps_of(recipe, network))


def taps_of(recipe: Recipe, network: Denoiser) -> tuple[str, ...]:
    """Names of the network's feature maps that the recipe's layout picks.

    Raises:
        UnknownTapError: a tap that the network lacks.
    """
    try:
        return recipe.taps(network.taps)
    except KeyError as error:
        raise UnknownTapError(str(error.args[0])) from error


def build_step(recipe: Recipe, student: Trainable, heads: Trainable, frozen: Frozen) -> LaddStep:
    """The recipe's LADD step on given networks."""
    return LaddStep(
        student=student,
        heads=heads,
        critic=FrozenCritic(frozen.critic, taps_of(recipe, frozen.critic), recipe.critic.renoises),
        start=recipe.start,
        rollout=recipe.rollout,
        student_sigma=recipe.student_sigma,
        renoise_sigma=recipe.renoise_sigma,
        levels=recipe.student_levels(),
        adversarial=recipe.adversarial,
        target=recipe.target,
        distance=recipe.distance,
        regulariser=recipe.regulariser,
        adv_weight=recipe.adv_weight,
        distill_weight=recipe.distill_weight,
        mode=recipe.train.mode,
        head_updates=recipe.train.head_updates,
        seed=recipe.seed,
        teacher=no_teacher if frozen.teacher is None else guided_teacher(recipe, frozen.teacher),
    )

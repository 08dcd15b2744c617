"""The teacher of a recipe: its network, its weights, its guidance, and the loss that trains it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ladd_dist.builders.networks import denoiser, frozen, load_network, reads_texts, require_within
from ladd_dist.core.conditions import Conditions
from ladd_dist.core.errors import UserError, reading
from ladd_dist.core.noise import edm_loss_weight, guided
from ladd_dist.core.rng import derive_seed
from ladd_dist.core.tensor_file import load_weights
from ladd_dist.core.types import DenoiseFn, Denoiser
from ladd_dist.engine.checkpoint import buffers_of
from ladd_dist.engine.ema import WeightAverage
from ladd_dist.parallel import Trainable
from ladd_dist.parallel.gather import whole
from ladd_dist.recipe import Recipe
from ladd_dist.workspace.run import Run

_AGAIN = "delete it, and a run that has trained nothing yet makes it again from student.init"


def require_levels(recipe: Recipe, network: Denoiser) -> None:
    """Refuse levels of teacher and student beyond the network's noise schedule.

    Raises:
        RecipeError: the message names the field and the end of the schedule.
    """
    require_within(network, recipe.shards.sampler.levels(), "recipe.shards.sampler")
    for steps in (recipe.student_steps, *recipe.evaluate.steps):
        require_within(network, recipe.levels(steps), "recipe.levels")


def teacher_loss(
    network: Trainable | Denoiser,
    x0: Tensor,
    sigma: Tensor,
    cond: Tensor,
    eps: Tensor,
    weighting: Literal["edm", "simple"] = "edm",
) -> Tensor:
    """E[w(sigma) (D(x0 + sigma n) - x0)^2], over batch and pixels; x0 and noise eps [B,C,H,W], sigma and cond [B].

    `simple`: w = 1 / sigma^2, which is E(eps_hat - eps)^2 for eps_hat = (x - D) / sigma, the network's own answer with
    precondition "ddpm" (L_simple; Ho et al. 2020, arXiv 2006.11239, eq. 14).
    """
    eps = eps.contiguous(memory_format=torch.channels_last)
    denoised = network(x0 + sigma.view(-1, 1, 1, 1) * eps, sigma, cond).denoised
    per_sample = (denoised - x0).square().mean(dim=(1, 2, 3))
    weight = edm_loss_weight(sigma) if weighting == "edm" else 1 / sigma**2
    loss: Tensor = (weight * per_sample).mean()
    return loss


def fresh_network(recipe: Recipe) -> Denoiser:
    """The recipe's network, initialised from the teacher's seed; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("init", recipe.teacher.seed))
        return recipe.network.build(image=recipe.latent())


def planned_network(recipe: Recipe) -> Denoiser:
    """The recipe's network with random weights, for measuring its cost: texts that it reads are blank.

    Raises:
        UserError: the recipe's levels or its dataset do not fit the network.
    """
    network = fresh_network(recipe)
    require_levels(recipe, network)
    if reads_texts(recipe, network):
        network.attach(Conditions.blank(network.condition_shapes))
    return network


def averaged(
    run: Run,
    average: WeightAverage,
    trainable: Trainable,
    make: Callable[[Run], Denoiser] = lambda run: fresh_network(run.recipe),
) -> Denoiser | None:
    """The recipe's network with averaged weights, on rank 0 (None elsewhere); every rank calls this.

    Args:
        make: builds the network to fill, with the weights that are not trained.
    """
    weights = whole(average.weights, run.ranks)
    if weights is None:
        return None
    network = make(run)
    still = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    buffers = {name.removeprefix("/buffer/"): part.tensor for name, part in buffers_of("", trainable.module).items()}
    found = network.load_state_dict(weights | buffers, strict=False)
    assert not found.unexpected_keys and still.issuperset(found.missing_keys), found
    return frozen(network, run)


def load_teacher(run: Run) -> Denoiser:
    """The trained teacher, frozen, in eval mode, its conditions attached.

    Raises:
        UserError: its weights are missing or do not fit.
    """
    recipe = run.recipe
    if recipe.network.pretrained:
        return frozen(recipe.network.load(image=recipe.latent()), run)
    return load_network(run, run.teacher_folder / "teacher.safetensors", stage="teacher")


def load_start(run: Run, teacher: Denoiser) -> Denoiser:
    """The network that the student starts from: the teacher given, or with the weights that the run kept.

    Args:
        teacher: a copy of its own, whose weights may be replaced.

    Raises:
        UserError: the run kept none yet, or the file is damaged.
    """
    if not run.recipe.student.init:
        return teacher
    path = run.folder.init
    if not path.exists():
        raise UserError(f"{path} does not exist yet; run the stage that makes it first: --stages distill")
    weights = load_weights(path, remedy=_AGAIN)
    with reading(path, "does not fit the recipe's network", _AGAIN):
        teacher.load_state_dict(weights)
    return teacher


def guided_teacher(recipe: Recipe, teacher: Denoiser) -> DenoiseFn:
    """The teacher with the recipe's guidance, as it makes the shards."""
    return guided(denoiser(teacher), recipe.shards.guidance, recipe.latent().num_classes, teacher.rescaled)

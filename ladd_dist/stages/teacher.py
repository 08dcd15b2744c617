"""Stage `teacher`: EDM training (Karras et al. 2022, arXiv 2206.00364, section 5) with label dropout for guidance.

With `sigma=Timesteps()` and `weighting="simple"` it is DDPM training. A pretrained network's own weights are looked at,
and left where they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ladd_dist.core.conditions import Conditions
from ladd_dist.core.noise import edm_loss_weight, guided
from ladd_dist.core.rng import derive_seed, generator
from ladd_dist.core.rundir import remove_stale
from ladd_dist.core.types import DenoiseFn, Denoiser
from ladd_dist.engine.checkpoint import Checkpoints, buffers_of, state_of
from ladd_dist.engine.cost import count_parameters
from ladd_dist.engine.ema import WeightAverage
from ladd_dist.engine.loop import Figures, train
from ladd_dist.parallel import Adam, Trainable
from ladd_dist.parallel.gather import whole
from ladd_dist.recipe import Recipe
from ladd_dist.stages import (
    Place,
    denoiser,
    frozen,
    is_done,
    load_network,
    make_together,
    mark_done,
    reads_texts,
    rows_of,
    save_weights,
)
from ladd_dist.stages.space import load_codec
from ladd_dist.trackers.jsonl import Jsonl


def is_teacher_done(recipe: Recipe, place: Place) -> bool:
    """Whether the trained teacher lies in the cache, or a pretrained one has been looked at."""
    folder = place.teacher(recipe)
    if not is_done(folder / "done.json", recipe.teacher_signature()):
        return False
    return recipe.network.pretrained or (folder / "teacher.safetensors").exists()


def train_teacher(recipe: Recipe, place: Place) -> Path:
    """Train the teacher, or find it trained; returns the folder with `teacher.safetensors` (averaged weights)."""
    folder = place.teacher(recipe)
    make = _look_at if recipe.network.pretrained else _train
    make_together(place, folder, lambda: is_teacher_done(recipe, place), lambda: make(recipe, place, folder))
    return folder


def _look_at(recipe: Recipe, place: Place, folder: Path) -> None:
    """Read a pretrained teacher, so that what is wrong with it is said before anything is made with it."""
    if place.ranks.is_first:
        network = recipe.network.load(image=recipe.latent())
        reads_texts(recipe, network)
        require_levels(recipe, network)
        if recipe.shards.guidance != 1.0 and not network.has_null:
            raise ValueError(
                f"shards.guidance {recipe.shards.guidance:g} needs a null condition, which this checkpoint does "
                "not have: --shards.guidance 1"
            )
        facts = {**network.facts(), "parameters": count_parameters(network)}
        mark_done(folder / "done.json", recipe.teacher_signature(), **facts)


def require_levels(recipe: Recipe, network: Denoiser) -> None:
    """Refuse levels beyond the last one that a network knows: it would take them for that one, and say nothing.

    Raises:
        ValueError: names the field, and the highest level.
    """
    highest = {"shards.sampler": recipe.shards.sampler.levels()[0], "levels": recipe.student_levels()[0]}
    for field, level in highest.items():
        if level > 1.01 * network.sigma_max:
            raise ValueError(
                f"recipe.{field}: starts at level {level:g}, and the noise schedule of network {recipe.network.name!r} "
                f"ends at {network.sigma_max:.4g}; choose levels up to that"
            )


def _train(recipe: Recipe, place: Place, folder: Path) -> None:
    training = TeacherTraining(recipe, place, folder)
    log = Jsonl().build(folder=folder, config={}, resume_step=training.first_step) if place.ranks.is_first else None
    with training.checkpoints.complete():
        train(
            label="teacher",
            num_steps=recipe.teacher.steps,
            first_step=training.first_step,
            samples_per_step=recipe.teacher.batch_size,
            log_every=recipe.teacher.log_every,
            save_at=lambda updates: updates % recipe.teacher.checkpoint_every == 0,
            do_step=training.step,
            save=training.save,
            on_log=log.log if log else lambda updates, figures: None,
            note=lambda figures: f"loss {figures['loss/teacher']:.4f}",
            ranks=place.ranks,
        )
    network = averaged(recipe, training.average, training.trainable, place)
    if log is not None and network is not None:  # rank 0
        log.close()
        save_weights(folder / "teacher.safetensors", network)
        mark_done(folder / "done.json", recipe.teacher_signature())
        training.checkpoints.clear()


class TeacherTraining:
    """Everything the training of a teacher holds, restored from the newest checkpoint if there is one."""

    def __init__(self, recipe: Recipe, place: Place, folder: Path) -> None:
        self.settings, self.device = recipe.teacher, place.device
        self.rows = rows_of("teacher.batch_size", self.settings.batch_size, self.settings.compute, place.ranks)
        if place.ranks.is_first:
            folder.mkdir(parents=True, exist_ok=True)
            remove_stale(folder)
        with place.ranks.first_goes_ahead():  # the first use may download it
            self.images = recipe.dataset.build(split="train")
        self.codec = load_codec(recipe, place)
        self.checkpoints = Checkpoints(
            folder / "checkpoints", identity=recipe.teacher_signature(), keep=1, ranks=place.ranks
        )
        saved = self.checkpoints.latest()
        self.first_step = saved.step if saved else 0
        network = fresh_network(recipe)
        if saved:
            saved.fill_module("teacher", network)
        adam = Adam(self.settings.lr, (0.9, 0.99), self.settings.weight_decay, self.settings.clip)
        self.trainable = recipe.parallel.build(
            network, role="teacher", adam=adam, compute=self.settings.compute, ranks=place.ranks, device=place.device
        )
        ema = self.settings.ema
        self.average = WeightAverage(
            self.trainable.local("weight"), half_life=ema.half_life, ramp=ema.ramp, batch_size=self.settings.batch_size
        )
        if saved:
            saved.fill_optimizer("teacher", self.trainable)
            saved.fill(self.average.parts())

    def step(self, step: int) -> Figures:
        """One update; what is drawn depends on (seed, step) and the place in the global batch alone."""
        settings, rows = self.settings, slice(self.rows.first, self.rows.stop)
        source = generator("teacher", settings.seed, step)
        picked = torch.randint(len(self.images), (settings.batch_size,), generator=source)
        dropped = torch.rand(settings.batch_size, generator=source) < settings.label_dropout
        on_device = generator("teacher-noise", settings.seed, step, device=self.device)
        sigma = settings.sigma(settings.batch_size, step, on_device, levels=())[rows]
        x0, cond = self.images.batch(picked[rows])
        with torch.no_grad():
            x0 = self.codec.encode(x0.to(self.device)).contiguous(memory_format=torch.channels_last)
        cond = torch.where(dropped[rows], self.images.image.num_classes, cond).to(self.device)
        eps = torch.randn((settings.batch_size, *x0.shape[1:]), generator=on_device, device=self.device)[rows]
        self.trainable.set_lr_factor(cosine_factor(step, settings.steps, settings.lr_final))

        losses: list[Tensor] = []

        def loss_of(micro: int) -> Tensor:
            part = self.rows.part(micro, self.trainable.accumulate)
            own = slice(part.first - self.rows.first, part.stop - self.rows.first)
            loss = teacher_loss(self.trainable, x0[own], sigma[own], cond[own], eps[own], settings.weighting)
            losses.append(loss.detach())
            return loss

        figures: Figures = {"grad_norm/teacher": self.trainable.update(loss_of)}
        self.average.update(step + 1)
        return {**figures, "loss/teacher": torch.stack(losses).mean()}

    def save(self, updates: int) -> None:
        """Write a checkpoint."""
        parts = state_of("teacher", self.trainable) | self.average.parts()
        self.checkpoints.save(updates, parts, {"counters": {"teacher": self.trainable.counters()}})


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


def cosine_factor(step: int, steps: int, final: float) -> float:
    """1 at step 0, `final` at the end, along a half cosine."""
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0)))


def fresh_network(recipe: Recipe) -> Denoiser:
    """The recipe's network, initialised from the teacher's seed, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("init", recipe.teacher.seed))
        return recipe.network.build(image=recipe.latent())


def planned_network(recipe: Recipe) -> Denoiser:
    """The same for whoever only measures it: where it reads texts, these are blank."""
    network = fresh_network(recipe)
    require_levels(recipe, network)
    if reads_texts(recipe, network):
        network.attach(Conditions.blank(network.condition_shapes))
    return network


def averaged(
    recipe: Recipe,
    average: WeightAverage,
    trainable: Trainable,
    place: Place,
    make: Callable[[Recipe], Denoiser] = fresh_network,
) -> Denoiser | None:
    """The recipe's network with averaged weights, on rank 0 (None elsewhere); every rank calls this.

    Args:
        make: the network to fill; it has what does not train already.
    """
    weights = whole(average.weights, place.ranks)
    if weights is None:
        return None
    network = make(recipe)
    still = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    buffers = {name.removeprefix("/buffer/"): part.tensor for name, part in buffers_of("", trainable.module).items()}
    found = network.load_state_dict(weights | buffers, strict=False)
    assert not found.unexpected_keys and still.issuperset(found.missing_keys), found
    return frozen(network, recipe, place)


def load_teacher(recipe: Recipe, place: Place) -> Denoiser:
    """The trained teacher, frozen, in eval mode, its conditions attached.

    Raises:
        ValueError: it is not there, or its weights do not fit.
    """
    if recipe.network.pretrained:
        return frozen(recipe.network.load(image=recipe.latent()), recipe, place)
    return load_network(recipe, place.teacher(recipe) / "teacher.safetensors", place, stage="teacher")


def guided_teacher(recipe: Recipe, teacher: Denoiser) -> DenoiseFn:
    """The teacher as it makes samples: with the recipe's guidance."""
    return guided(denoiser(teacher), recipe.shards.guidance, recipe.latent().num_classes)

"""Stage `teacher`: EDM training (Karras et al. 2022, arXiv 2206.00364, section 5) with label dropout for guidance."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from ladd_dist.core.noise import edm_loss_weight, guided
from ladd_dist.core.rng import derive_seed, generator
from ladd_dist.core.rundir import make_once, remove_stale
from ladd_dist.core.types import DenoiseFn, Denoiser
from ladd_dist.engine.checkpoint import Checkpoints
from ladd_dist.engine.ema import WeightAverage
from ladd_dist.engine.loop import Figures, train
from ladd_dist.parallel import Trainable
from ladd_dist.recipe import Recipe
from ladd_dist.stages import Place, denoiser, is_done, load_network, mark_done, save_weights
from ladd_dist.trackers.jsonl import Jsonl


def is_teacher_done(recipe: Recipe, place: Place) -> bool:
    """Whether the trained teacher lies in the cache."""
    folder = place.teacher(recipe)
    return is_done(folder / "done.json", recipe.teacher_signature()) and (folder / "teacher.safetensors").exists()


def train_teacher(recipe: Recipe, place: Place) -> Path:
    """Train the teacher, or find it trained; returns the folder with `teacher.safetensors` (averaged weights)."""
    folder = place.teacher(recipe)
    make_once(folder, lambda: is_teacher_done(recipe, place), lambda: _train(recipe, place, folder))
    return folder


def _train(recipe: Recipe, place: Place, folder: Path) -> None:
    training = TeacherTraining(recipe, place, folder)
    log = Jsonl().build(folder=folder, config={}, resume_step=training.first_step)
    train(
        label="teacher",
        num_steps=recipe.teacher.steps,
        first_step=training.first_step,
        samples_per_step=recipe.teacher.batch_size,
        log_every=recipe.teacher.log_every,
        checkpoint_every=recipe.teacher.checkpoint_every,
        do_step=training.step,
        save=training.save,
        on_log=log.log,
        note=lambda figures: f"loss {figures['loss/teacher']:.4f}",
    )
    log.close()
    save_weights(folder / "teacher.safetensors", training.average.module)
    mark_done(folder / "done.json", recipe.teacher_signature())
    training.checkpoints.clear()


class TeacherTraining:
    """Everything the training of a teacher holds, restored from the newest checkpoint if there is one."""

    def __init__(self, recipe: Recipe, place: Place, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        remove_stale(folder)
        self.settings, self.device = recipe.teacher, place.device
        self.images = recipe.dataset.build(split="train")
        self.network = fresh_network(recipe).to(place.device)
        self.trainable = recipe.parallel.build(
            self.network,
            lr=self.settings.lr,
            betas=(0.9, 0.99),
            weight_decay=self.settings.weight_decay,
            clip=self.settings.clip,
            device=place.device,
        )
        ema = self.settings.ema
        self.average = WeightAverage(
            self.network, half_life=ema.half_life, ramp=ema.ramp, batch_size=self.settings.batch_size
        )
        self.checkpoints = Checkpoints(folder / "checkpoints", identity=recipe.teacher_signature(), keep=1)
        self.first_step = 0
        if (state := self.checkpoints.load_latest(place.device)) is not None:
            self.trainable.load_state_dict(state["teacher"])
            self.average.module.load_state_dict(state["average"])
            self.first_step = int(state["step"])

    def step(self, step: int) -> Figures:
        """One update; what is drawn depends on (seed, step) alone."""
        settings = self.settings
        source = generator("teacher", settings.seed, step)
        x0, cond = self.images.batch(torch.randint(len(self.images), (settings.batch_size,), generator=source))
        x0 = x0.to(self.device).contiguous(memory_format=torch.channels_last)
        dropped = torch.rand(len(cond), generator=source) < settings.label_dropout
        cond = torch.where(dropped, self.images.image.num_classes, cond).to(self.device)
        on_device = generator("teacher-noise", settings.seed, step, device=self.device)
        sigma = settings.sigma(len(cond), step, on_device, levels=())
        self.trainable.set_lr_factor(cosine_factor(step, settings.steps, settings.lr_final))
        loss = teacher_loss(self.trainable, x0, sigma, cond, on_device)
        figures: Figures = {"grad_norm/teacher": self.trainable.update(loss), "loss/teacher": loss.detach()}
        self.average.update(self.network, step + 1)
        return figures

    def save(self, updates: int) -> None:
        """Write a checkpoint."""
        state = {"teacher": self.trainable.state_dict(), "average": self.average.module.state_dict()}
        self.checkpoints.save(updates, state)


def teacher_loss(
    network: Trainable | Denoiser, x0: Tensor, sigma: Tensor, cond: Tensor, source: torch.Generator
) -> Tensor:
    """E[w(sigma) (D(x0 + sigma n) - x0)^2], averaged over batch and pixels; x0 [B,C,H,W], sigma and cond [B]."""
    eps = torch.randn(x0.shape, generator=source, device=x0.device).contiguous(memory_format=torch.channels_last)
    denoised = network(x0 + sigma.view(-1, 1, 1, 1) * eps, sigma, cond).denoised
    per_sample = (denoised - x0).square().mean(dim=(1, 2, 3))
    loss: Tensor = (edm_loss_weight(sigma) * per_sample).mean()
    return loss


def cosine_factor(step: int, steps: int, final: float) -> float:
    """1 at step 0, `final` at the end, along a half cosine."""
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0)))


def fresh_network(recipe: Recipe) -> Denoiser:
    """The recipe's network, initialised from the teacher's seed, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("init", recipe.teacher.seed))
        return recipe.network.build(image=recipe.dataset.spec())


def load_teacher(recipe: Recipe, place: Place) -> Denoiser:
    """The trained teacher, frozen, in eval mode.

    Raises:
        ValueError: it is not there, or its weights do not fit.
    """
    return load_network(recipe, place.teacher(recipe) / "teacher.safetensors", place.device, stage="teacher")


def guided_teacher(recipe: Recipe, teacher: Denoiser) -> DenoiseFn:
    """The teacher as it makes samples: with the recipe's guidance."""
    return guided(denoiser(teacher), recipe.shards.guidance, recipe.dataset.spec().num_classes)

"""Stage `teacher`: EDM training (Karras et al. 2022, arXiv 2206.00364, section 5) with label dropout for guidance."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ladd_dist.core.noise import edm_loss_weight
from ladd_dist.core.rng import derive_seed, generator
from ladd_dist.core.rundir import remove_stale, save_tensors
from ladd_dist.core.types import Denoiser
from ladd_dist.engine.checkpoint import Checkpoints
from ladd_dist.engine.ema import WeightAverage
from ladd_dist.engine.loop import Figures, train
from ladd_dist.parallel import Trainable
from ladd_dist.recipe import Recipe
from ladd_dist.stages import Place, is_done, mark_done
from ladd_dist.trackers.jsonl import Jsonl


def is_teacher_done(recipe: Recipe, place: Place) -> bool:
    """Whether the trained teacher lies in the cache."""
    folder = place.teacher(recipe)
    return is_done(folder / "done.json", recipe.teacher_signature()) and (folder / "teacher.safetensors").exists()


def train_teacher(recipe: Recipe, place: Place) -> Path:
    """Train the teacher, or find it trained; returns the folder with `teacher.safetensors` (averaged weights)."""
    folder = place.teacher(recipe)
    if is_teacher_done(recipe, place):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    remove_stale(folder)
    settings, device = recipe.teacher, place.device
    images = recipe.dataset.build(split="train")
    network = fresh_network(recipe).to(device)
    trainable = recipe.parallel.build(
        network,
        lr=settings.lr,
        betas=(0.9, 0.99),
        weight_decay=settings.weight_decay,
        clip=settings.clip,
        device=device,
    )
    average = WeightAverage(
        network, half_life=settings.ema.half_life, ramp=settings.ema.ramp, batch_size=settings.batch_size
    )
    checkpoints = Checkpoints(folder / "checkpoints", identity=recipe.teacher_signature(), keep=1)
    first_step = 0
    if (state := checkpoints.load_latest(device)) is not None:
        trainable.load_state_dict(state["teacher"])
        average.module.load_state_dict(state["average"])
        first_step = int(state["step"])

    def do_step(step: int) -> Figures:
        source = generator("teacher", settings.seed, step)
        x0, cond = images.batch(torch.randint(len(images), (settings.batch_size,), generator=source))
        x0 = x0.to(device).contiguous(memory_format=torch.channels_last)
        dropped = torch.rand(len(cond), generator=source) < settings.label_dropout
        cond = torch.where(dropped, images.image.num_classes, cond).to(device)
        on_device = generator("teacher-noise", settings.seed, step, device=device)
        sigma = settings.sigma(len(cond), step, on_device, levels=())
        trainable.set_lr_factor(cosine_factor(step, settings.steps, settings.lr_final))
        loss = teacher_loss(trainable, x0, sigma, cond, on_device)
        figures: Figures = {"grad_norm/teacher": trainable.update(loss), "loss/teacher": loss.detach()}
        average.update(network, step + 1)
        return figures

    def save(updates: int) -> None:
        checkpoints.save(updates, {"teacher": trainable.state_dict(), "average": average.module.state_dict()})

    log = Jsonl().build(folder=folder, config={}, resume_step=first_step)
    train(
        label="teacher",
        num_steps=settings.steps,
        first_step=first_step,
        samples_per_step=settings.batch_size,
        log_every=settings.log_every,
        checkpoint_every=settings.checkpoint_every,
        do_step=do_step,
        save=save,
        on_log=log.log,
        note=lambda figures: f"loss {figures['loss/teacher']:.4f}",
    )
    log.close()
    weights = {name: tensor.contiguous().cpu() for name, tensor in average.module.state_dict().items()}
    save_tensors(folder / "teacher.safetensors", weights)
    mark_done(folder / "done.json", recipe.teacher_signature())
    checkpoints.clear()
    return folder


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
    path = place.teacher(recipe) / "teacher.safetensors"
    if not path.exists():
        raise ValueError(f"no trained teacher at {path}; run the stage first: --stages teacher")
    network = recipe.network.build(image=recipe.dataset.spec())
    try:
        network.load_state_dict(load_file(path))
    except Exception as error:
        raise ValueError(f"{path} does not fit the recipe's network ({error}); delete its folder to retrain") from error
    return network.to(place.device).eval().requires_grad_(False)

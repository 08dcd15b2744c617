"""Samples of a few-step student, by its own sampling rule and noise levels."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ladd_dist.builders.networks import denoiser
from ladd_dist.core.noise import hybrid_sample
from ladd_dist.core.rng import generator
from ladd_dist.core.types import DenoiseFn, Denoiser
from ladd_dist.recipe import Recipe


def sample_student(recipe: Recipe, network: Denoiser, noise: Tensor, cond: Tensor, num_steps: int) -> Tensor:
    """The student's samples [B,C,H,W] from unit noise [B,C,H,W], by the sampling rule of the recipe's coupling."""
    return sample_few(network, noise, cond, recipe.levels(num_steps), recipe.start.rule, recipe.evaluate.seed)


@torch.inference_mode()
def sample_few(
    network: Denoiser,
    noise: Tensor,
    cond: Tensor,
    levels: tuple[float, ...],
    rule: Literal["sde", "ode"],
    seed: int,
    *,
    teacher: DenoiseFn | None = None,
    teacher_steps: int = 0,
) -> Tensor:
    """A student's samples [B,C,H,W] from unit noise [B,C,H,W].

    Args:
        levels: descending, one for each step.
        seed: seeds the noise that the rule `sde` adds.
        teacher: takes the first `teacher_steps` of the steps, which are the student's own unless given.
    """
    noise = noise.contiguous(memory_format=torch.channels_last)
    source, student = generator("sde", seed, device=noise.device), denoiser(network)
    return hybrid_sample(teacher or student, student, noise, cond, levels, rule, source, teacher_steps=teacher_steps)


def sample_class(
    network: Denoiser,
    levels: tuple[float, ...],
    rule: Literal["sde", "ode"],
    number: int,
    count: int,
    seed: int,
    *,
    teacher: DenoiseFn | None = None,
    teacher_steps: int = 0,
) -> torch.Tensor:
    """`count` samples [count,C,H,W] (pictures in [-1, 1], or latents) of class `number`, by the student's own rule.

    Args:
        teacher: takes the first `teacher_steps` of the steps, which are the student's own unless given.
    """
    import torch

    from ladd_dist.builders.networks import denoiser
    from ladd_dist.core.noise import hybrid_sample
    from ladd_dist.core.rng import derive_seed, generator, sample_noise

    device = next(network.parameters()).device
    image = network.image
    own = derive_seed("sample", seed, number)
    noise = sample_noise(own, range(count), (image.channels, image.size, image.size)).to(device)
    cond = torch.full((count,), number, device=device)
    with torch.inference_mode():
        source, student = generator("sample-sde", own, device=device), denoiser(network)
        few = hybrid_sample(teacher or student, student, noise, cond, levels, rule, source, teacher_steps=teacher_steps)
        return few.cpu()

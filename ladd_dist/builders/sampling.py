"""Samples of a few-step student, by its own sampling rule and noise levels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ladd_dist.builders.networks import denoiser
from ladd_dist.core.noise import hybrid_sample
from ladd_dist.core.rng import NoiseSource, SampleSource, derive_seed, sample_noise
from ladd_dist.core.types import DenoiseFn, Denoiser
from ladd_dist.recipe import Recipe

SampleFn = Callable[[Tensor, Tensor, NoiseSource], Tensor]
"""A sampler: unit noise [B,c,h,w], classes [B] and a source of further noise for each sample, to samples [B,c,h,w]."""


def sample_student(
    recipe: Recipe, network: Denoiser, noise: Tensor, cond: Tensor, num_steps: int, source: NoiseSource
) -> Tensor:
    """The student's samples [B,C,H,W] from unit noise [B,C,H,W], by the sampling rule of the recipe's coupling.

    Args:
        source: source of the noise that the rule `sde` adds (`core.rng.added_noise`).
    """
    return sample_few(network, noise, cond, recipe.levels(num_steps), recipe.start.rule, source)


@torch.inference_mode()
def sample_few(
    network: Denoiser,
    noise: Tensor,
    cond: Tensor,
    levels: tuple[float, ...],
    rule: Literal["sde", "ode"],
    source: NoiseSource,
    *,
    teacher: DenoiseFn | None = None,
    teacher_steps: int = 0,
) -> Tensor:
    """A student's samples [B,C,H,W] from unit noise [B,C,H,W].

    Args:
        levels: descending, one for each step.
        source: source of the noise that the rule `sde` adds.
        teacher: takes the first `teacher_steps` of the steps, which are the student's own unless given.
    """
    noise = noise.contiguous(memory_format=torch.channels_last)
    student = denoiser(network)
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
) -> Tensor:
    """`count` samples [count,C,H,W] (pictures in [-1, 1], or latents) of class `number`, by the student's own rule.

    Sample k depends on the seed, the class and k alone, not on `count`.

    Args:
        teacher: takes the first `teacher_steps` of the steps, which are the student's own unless given.
    """
    device = next(network.parameters()).device
    image = network.image
    own = derive_seed("sample", seed, number)
    noise = sample_noise(own, range(count), image.shape).to(device)
    cond = torch.full((count,), number, device=device)
    source = SampleSource(range(count), "sample-sde", own)
    few = sample_few(network, noise, cond, levels, rule, source, teacher=teacher, teacher_steps=teacher_steps)
    return few.cpu()

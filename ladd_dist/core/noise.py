"""Noise levels, preconditioning and sampling steps of EDM (Karras et al. 2022, arXiv 2206.00364)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ladd_dist.core.rng import NoiseSource
from ladd_dist.core.types import DenoiseFn

SIGMA_DATA = 0.5
Precondition = Literal["edm", "ddpm"]
Rescale = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(guided [B,C,H,W], its conditional half, x [B,C,H,W], sigma [B]) -> guided, scaled anew."""


class Coefficients(NamedTuple):
    """D(x; sigma) = skip x + out F(in_ x; noise), each [B]."""

    skip: Tensor
    out: Tensor
    in_: Tensor
    noise: Tensor


def karras_levels(num_steps: int, *, sigma_min: float, sigma_max: float, rho: float) -> tuple[float, ...]:
    """Descending levels sigma_0 = sigma_max .. sigma_{N-1} = sigma_min (eq. 5), without the final 0; float64.

    Raises:
        ValueError: there is fewer than one step, or the levels would not descend.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(f"need 0 < sigma_min < sigma_max, both finite, got {sigma_min} and {sigma_max}")
    if not 0 < rho < math.inf:
        raise ValueError(f"rho must be a finite number > 0, got {rho}")
    if num_steps == 1:
        return (float(sigma_max),)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    inner = tuple((high + i / (num_steps - 1) * (low - high)) ** rho for i in range(1, num_steps - 1))
    return (float(sigma_max), *inner, float(sigma_min))


def precondition(sigma: Tensor, kind: Precondition, sigma_data: float = SIGMA_DATA) -> Coefficients:
    """Coefficients [B] of the denoiser for levels sigma [B] > 0.

    `edm`: table 1 of Karras et al. `ddpm`: epsilon-prediction as a denoiser, D = x - sigma F(c_in x; c_noise).
    """
    total = torch.sqrt(sigma**2 + sigma_data**2)
    if kind == "edm":
        skip, out = sigma_data**2 / total**2, sigma * sigma_data / total
    else:
        skip, out = torch.ones_like(sigma), -sigma
    return Coefficients(skip, out, 1 / total, torch.log(sigma) / 4)


def edm_loss_weight(sigma: Tensor, sigma_data: float = SIGMA_DATA) -> Tensor:
    """Weight [B] of ||D - x0||^2 in teacher training: (sigma^2 + sd^2) / (sigma sd)^2 (table 1, lambda)."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def guided(denoise: DenoiseFn, scale: float, null_class: int, rescaled: Rescale | None = None) -> DenoiseFn:
    """Classifier-free guidance D_w = D_uncond + w (D_cond - D_uncond), both halves in one batched call.

    (Ho and Salimans 2022, arXiv 2207.12598.) At scale 1 the unconditional half would cancel, so it is not computed.

    Args:
        rescaled: a network's own `Denoiser.rescaled`, applied to the result.
    """
    if scale == 1.0:
        return denoise

    def both(x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
        null = torch.full_like(cond, null_class)
        conditional, unconditional = denoise(
            torch.cat([x, x]), torch.cat([sigma, sigma]), torch.cat([cond, null])
        ).chunk(2)
        found = unconditional + scale * (conditional - unconditional)
        return found if rescaled is None else rescaled(found, conditional, x, sigma)

    return both


def few_step_sample(
    denoise: DenoiseFn,
    noise: Tensor,
    cond: Tensor,
    levels: tuple[float, ...],
    rule: Literal["sde", "ode"],
    source: NoiseSource | None = None,
) -> Tensor:
    """Samples [B,C,H,W] in `len(levels)` calls from unit noise [B,C,H,W].

    `sde`: x' = x0^ + sigma' n with new noise n each step (matches students trained on fresh noise).
    `ode`: x' = x0^ + sigma'/sigma (x - x0^), the noise keeps its direction (stored and path coupling; also Euler's
    method for the probability-flow ODE). Mixing them loses quality silently.

    Args:
        source: source of the new noise, needed by `sde` when there is more than one level. A sample's noise must not
            depend on the batch it is in, so this is no plain generator: a `SampleSource`, or a `RowSource` in training.

    Raises:
        ValueError: there is no level, or no source for `sde`.
    """
    if not levels:
        raise ValueError("a sampler needs at least one level")
    x = noise
    for x in few_step_inputs(denoise, noise * levels[0], cond, levels, rule, source):  # noqa: B007  the last one
        pass
    return denoise(x, torch.full((len(x),), levels[-1], device=x.device, dtype=x.dtype), cond)


def few_step_inputs(
    denoise: DenoiseFn,
    x: Tensor,
    cond: Tensor,
    levels: tuple[float, ...],
    rule: Literal["sde", "ode"],
    source: NoiseSource | None = None,
) -> Iterator[Tensor]:
    """Inputs [B,C,H,W] of the network in `few_step_sample`, one at each level, beginning with `x`.

    `len(levels)` inputs take one call less.
    """
    yield x
    for level, following in itertools.pairwise(levels):
        x0 = denoise(x, torch.full((len(x),), level, device=x.device, dtype=x.dtype), cond)
        if rule == "sde":
            if source is None:
                raise ValueError("the sde rule re-noises between steps and needs a source of noise")
            x = x0 + following * source.normal(*x.shape[1:]).to(x.device, x.dtype)
        else:
            x = x0 + following / level * (x - x0)
        yield x


def hybrid_sample(
    teacher: DenoiseFn,
    student: DenoiseFn,
    noise: Tensor,
    cond: Tensor,
    levels: tuple[float, ...],
    rule: Literal["sde", "ode"],
    source: NoiseSource | None = None,
    *,
    teacher_steps: int,
) -> Tensor:
    """`few_step_sample` with two denoisers: `teacher` at the first `teacher_steps` levels, `student` at the others.

    Diversity distillation (Gandikota and Bau 2025, arXiv 2503.10637): the first of the student's steps, one call each,
    are the teacher's, because they decide what a sample shows. Levels and rule are the student's.

    Raises:
        ValueError: as `few_step_sample`, or `teacher_steps` is not 0 to `len(levels)`.
    """
    if not 0 <= teacher_steps <= len(levels):
        raise ValueError(f"the teacher can take 0 to {len(levels)} of {len(levels)} steps, got {teacher_steps}")
    turns = iter([teacher] * teacher_steps + [student] * (len(levels) - teacher_steps))  # a sampler calls once a level
    return few_step_sample(lambda x, sigma, cond: next(turns)(x, sigma, cond), noise, cond, levels, rule, source)


def ode_step(x: Tensor, x0: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """Euler step [B,C,H,W] of dx/dsigma = (x - x0) / sigma from sigma to sigma_next (algorithm 1, line 5)."""
    return x + (sigma_next - sigma) * (x - x0) / sigma


def log_normal(num: int, mean: float, std: float, generator: torch.Generator) -> Tensor:
    """Levels [num] with ln sigma ~ N(mean, std^2), on the generator's device."""
    return torch.exp(mean + std * torch.randn(num, generator=generator, device=generator.device))


def is_descending(levels: tuple[float, ...]) -> bool:
    """Whether levels descend strictly and stay above 0."""
    positive = all(level > 0 and math.isfinite(level) for level in levels)
    return positive and all(a > b for a, b in itertools.pairwise(levels))

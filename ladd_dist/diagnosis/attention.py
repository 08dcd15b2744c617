"""What the heads look at: saliency maps, the gradient of each head's logit with respect to its input image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ladd_dist.builders.step import build_critic, build_heads, level_code
from ladd_dist.core.errors import UserError
from ladd_dist.core.rng import generator
from ladd_dist.core.rundir import RunDir
from ladd_dist.core.types import Batch, Denoiser
from ladd_dist.engine.checkpoint import Checkpoints
from ladd_dist.engine.discriminator import FrozenCritic, Heads
from ladd_dist.engine.shard_reader import ShardReader, to_device
from ladd_dist.recipe import Recipe
from ladd_dist.reports.grids import Line, write_tiles
from ladd_dist.workspace.run import Run

NUM_PAIRS = 3
QUANTILES = (0.16, 0.84)
"""Quantiles of the distribution of re-noising levels: a typical low and a typical high level."""
INK = 0.0
"""A pixel whose brightest channel is above this, half of full brightness, is ink."""


class SaliencyMap(NamedTuple):
    """The input gradient of one head at one noise level."""

    tap: str
    tau: float
    heat: Tensor  # [2n,H,W] norm over channels of d mean logit / d input; real samples first
    logits: Tensor  # [2n] mean logit


class HeadAttention(NamedTuple):
    """One head at one noise level in numbers, as `heads` of attention.json has it."""

    tap: str
    tau: float
    logit_real: float
    """Mean logit of the real samples."""
    logit_fake: float
    on_ink: float | None
    """Share of the squared gradient that lies on ink; None where the gradient is 0."""
    ink_area: float
    """Share of the pixels that are ink: `on_ink` of a head without preference."""


def trained_heads(recipe: Recipe, run: RunDir, critic: Denoiser) -> Heads:
    """The heads of the run's newest checkpoint, in eval mode.

    Raises:
        UserError: the run has no checkpoint, or one of another recipe.
    """
    saved = Checkpoints(run.checkpoints, identity=recipe.distill_signature(), keep=1).latest()
    if saved is None:
        raise UserError(f"no checkpoint in {run.checkpoints}, which would have the heads")
    heads = build_heads(recipe, critic)
    saved.fill_module("heads", heads)
    return heads.to(next(critic.parameters()).device).eval().requires_grad_(False)


def input_gradients(
    critic: FrozenCritic, heads: Heads, x0: Tensor, cond: Tensor, tau: float, sigma: float
) -> list[SaliencyMap]:
    """Saliency maps of every head at level tau: the gradient of its mean logit with respect to its input x0 + tau eps.

    One sample's logit depends on that sample alone (the contract of heads), so one backward pass serves the batch.

    Args:
        x0: [B,C,H,W]; `cond` [B] are its classes.
        sigma: level from which the student made its samples, for heads that see it.
    """
    noised = _noise(x0, tau).detach().requires_grad_(True)
    level = torch.full((len(x0),), tau, device=x0.device)
    start = torch.full_like(level, sigma)
    seen = critic.features(noised, cond, level, torch.zeros_like(x0), start)
    maps = []
    for tap, logits in heads(seen.features, seen.cond_vec).items():
        mean = logits.mean(dim=1)
        (gradient,) = torch.autograd.grad(mean.sum(), noised, retain_graph=True)
        maps.append(SaliencyMap(tap, tau, gradient.square().sum(dim=1).sqrt().cpu(), mean.detach().cpu()))
    return maps


def shown_pairs(recipe: Recipe, reader: ShardReader, student: Denoiser, device: torch.device) -> tuple[Tensor, Tensor]:
    """Stored samples and the student's one-call samples from their highest level: [2n,C,H,W], and classes [2n].

    The student's are fakes as the heads saw them in training, at the level where they are worst.
    """
    batch: Batch = to_device(reader.take(np.arange(min(NUM_PAIRS, len(reader)))), device)
    sigma = torch.full((len(batch.x0),), recipe.student_levels()[0], device=device)
    eps = torch.randn(batch.x0.shape, generator=generator("attention-start")).to(device)
    with torch.no_grad():
        fake = student(recipe.start(batch, sigma, eps), sigma, batch.cond).denoised
    return torch.cat([batch.x0, fake]), batch.cond.repeat(2)


def typical_taus(recipe: Recipe) -> list[float]:
    """A low and a high level of those at which the heads compare; 0 for heads that see samples without noise."""
    if not recipe.critic.renoises:
        return [0.0]
    drawn = recipe.renoise_sigma(4096, 0, generator("attention-taus"), levels=recipe.student_levels()).double().cpu()
    return sorted({float(f"{float(drawn.quantile(share)):.3g}") for share in QUANTILES})


def saliency_maps(
    run: Run, folder: RunDir, teacher: Denoiser, student: Denoiser, reader: ShardReader
) -> tuple[list[SaliencyMap], Tensor]:
    """Saliency maps of every head at each of the typical levels, and the samples [2n,C,H,W] that they belong to.

    Raises:
        UserError: the run has no checkpoint, or one of another recipe.
    """
    recipe = run.recipe
    device = next(teacher.parameters()).device
    critic = build_critic(recipe, teacher, run).to(device)
    heads = trained_heads(recipe, folder, critic)
    # Its inputs are noised below, because they are drawn too.
    frozen, top = FrozenCritic(critic, heads.taps, level_code=level_code(recipe)), recipe.student_levels()[0]
    images, cond = shown_pairs(recipe, reader, student, device)
    maps = [item for tau in typical_taus(recipe) for item in input_gradients(frozen, heads, images, cond, tau, top)]
    return maps, images.cpu()


def attention_figures(maps: list[SaliencyMap], images: Tensor) -> list[HeadAttention]:
    """The figures of each map.

    Args:
        images: [2n,C,H,W] in [-1, 1], under the maps.
    """
    ink = images.amax(dim=1) > INK
    half = len(images) // 2
    rows = []
    for item in maps:
        energy = item.heat.double().square()
        total = float(energy.sum())
        rows.append(
            HeadAttention(
                tap=item.tap,
                tau=item.tau,
                logit_real=float(item.logits[:half].mean()),
                logit_fake=float(item.logits[half:].mean()),
                on_ink=float(energy[ink].sum()) / total if total > 0 else None,
                ink_area=float(ink.double().mean()),
            )
        )
    return rows


def _noise(x0: Tensor, tau: float) -> Tensor:
    """Samples [B,C,H,W] re-noised to level tau, all with the same noise."""
    return x0 + tau * torch.randn(x0.shape[1:], generator=generator("attention", f"{tau:.6g}")).to(x0.device)


def noised(maps: list[SaliencyMap], samples: Tensor) -> dict[float, Tensor]:
    """The heads' inputs [2n,C,H,W] at each level of the maps."""
    return {tau: _noise(samples, tau) for tau in dict.fromkeys(item.tau for item in maps)}


def upsampled(maps: list[SaliencyMap], images: Tensor) -> list[SaliencyMap]:
    """The maps with heat [2n,h,w] over latents resized to heat [2n,H,W] over the decoded images [2n,C,H,W]."""
    size = images.shape[2:]
    return [item._replace(heat=functional.interpolate(item.heat[:, None], size=size)[:, 0]) for item in maps]


def draw_saliency(path: Path, maps: list[SaliencyMap], images: Tensor, inputs: Mapping[float, Tensor]) -> None:
    """Draw a group for each level: the heads' inputs, then a row of heat for each head.

    The colours of each image's heat run from 0 to its own maximum, so they do not compare strength between images.

    Args:
        images: [2n,C,H,W], under the heat.
        inputs: level -> images with noise [2n,C,H,W].
    """
    half = len(images) // 2
    groups = []
    for tau, noisy in inputs.items():
        group = [Line(f"input, {tau:g}", dict(enumerate(noisy.clamp(-1, 1))), {})]
        for item in (item for item in maps if item.tau == tau):
            group.append(Line(item.tap, dict(enumerate(_overlay(images, item.heat))), {}))
        groups.append(group)
    write_tiles(path, groups, ["real"] * half + ["fake"] * half)


def _overlay(images: Tensor, heat: Tensor) -> Tensor:
    """Heat [N,H,W] as colours over darkened grey images [N,C,H,W]; returns [N,3,H,W] in [-1, 1]."""
    from matplotlib import colormaps

    scaled = (heat / heat.amax(dim=(1, 2), keepdim=True).clamp_min(1e-30)).numpy()
    colours = torch.from_numpy(colormaps["inferno"](scaled)[..., :3]).movedim(-1, 1).float() * 2 - 1
    grey = images.clamp(-1, 1).amax(dim=1, keepdim=True).expand(-1, 3, -1, -1) * 0.5 - 0.5
    opacity = torch.from_numpy(scaled)[:, None].sqrt() * 0.85
    return grey * (1 - opacity) + colours * opacity

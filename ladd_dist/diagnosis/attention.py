"""What the heads look at: the gradient of each head's logit with respect to the picture it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ladd_dist.builders.step import build_critic, build_heads
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
"""Of the law that re-noising levels are drawn from: where the heads usually look."""
INK = 0.0
"""A pixel whose brightest channel is above this, half of full brightness, is ink."""


class Map(NamedTuple):
    """One head at one level."""

    tap: str
    tau: float
    heat: Tensor  # [2n,H,W] length over channels of d mean logit / d input; the real ones first
    logits: Tensor  # [2n] mean logit


def trained_heads(recipe: Recipe, run: RunDir, critic: Denoiser) -> Heads:
    """The heads of the run's newest checkpoint, in eval mode.

    Raises:
        UserError: no checkpoint, or one of another recipe.
    """
    saved = Checkpoints(run.checkpoints, identity=recipe.distill_signature(), keep=1).latest()
    if saved is None:
        raise UserError(f"no checkpoint in {run.checkpoints}, which would have the heads")
    heads = build_heads(recipe, critic)
    saved.fill_module("heads", heads)
    return heads.to(next(critic.parameters()).device).eval().requires_grad_(False)


def input_gradients(critic: FrozenCritic, heads: Heads, x0: Tensor, cond: Tensor, tau: float) -> list[Map]:
    """For each head the gradient of its mean logit with respect to its input x0 + tau eps, [B,H,W] by length.

    One sample's logit depends on that sample alone (the contract of heads), so one backward serves the batch.
    """
    noised = _noise(x0, tau).detach().requires_grad_(True)
    level = torch.full((len(x0),), tau, device=x0.device)
    seen = critic.features(noised, cond, level, torch.zeros_like(x0))
    maps = []
    for tap, logits in heads(seen.features, seen.cond_vec).items():
        mean = logits.mean(dim=1)
        (gradient,) = torch.autograd.grad(mean.sum(), noised, retain_graph=True)
        maps.append(Map(tap, tau, gradient.square().sum(dim=1).sqrt().cpu(), mean.detach().cpu()))
    return maps


def shown_pairs(recipe: Recipe, reader: ShardReader, student: Denoiser, device: torch.device) -> tuple[Tensor, Tensor]:
    """Stored samples and what the student makes of them in one call from its highest level: [2n,C,H,W], classes [2n].

    That is a fake as the heads saw them, at the level where it is worst.
    """
    batch: Batch = to_device(reader.take(np.arange(min(NUM_PAIRS, len(reader)))), device)
    sigma = torch.full((len(batch.x0),), recipe.student_levels()[0], device=device)
    eps = torch.randn(batch.x0.shape, generator=generator("attention-start")).to(device)
    with torch.no_grad():
        fake = student(recipe.start(batch, sigma, eps), sigma, batch.cond).denoised
    return torch.cat([batch.x0, fake]), batch.cond.repeat(2)


def usual_taus(recipe: Recipe) -> list[float]:
    """A low and a high level of those at which the heads compare; 0 where they look at samples as they are."""
    if not recipe.critic.renoises:
        return [0.0]
    drawn = recipe.renoise_sigma(4096, 0, generator("attention-taus"), levels=recipe.student_levels()).double().cpu()
    return sorted({float(f"{float(drawn.quantile(share)):.3g}") for share in QUANTILES})


def attend(
    run: Run, folder: RunDir, teacher: Denoiser, student: Denoiser, reader: ShardReader
) -> tuple[list[Map], Tensor]:
    """The maps of every head at each of the usual levels, and the samples [2n,C,H,W] they belong to."""
    recipe = run.recipe
    device = next(teacher.parameters()).device
    critic = build_critic(recipe, teacher, run).to(device)
    heads = trained_heads(recipe, folder, critic)
    frozen = FrozenCritic(critic, heads.taps)  # what it sees is noised below, to be shown
    images, cond = shown_pairs(recipe, reader, student, device)
    maps = [item for tau in usual_taus(recipe) for item in input_gradients(frozen, heads, images, cond, tau)]
    return maps, images.cpu()


def describe_maps(maps: list[Map], images: Tensor) -> list[dict[str, Any]]:
    """For each head and level: mean logit of real and fake, and the share of the squared gradient that lies on ink.

    `ink_area`: the share of the pixels that are ink, what a head without preference would give.
    """
    ink = images.amax(dim=1) > INK
    half = len(images) // 2
    rows = []
    for item in maps:
        energy = item.heat.double().square()
        total = float(energy.sum())
        rows.append(
            {
                "tap": item.tap,
                "tau": item.tau,
                "logit_real": float(item.logits[:half].mean()),
                "logit_fake": float(item.logits[half:].mean()),
                "on_ink": float(energy[ink].sum()) / total if total > 0 else None,
                "ink_area": float(ink.double().mean()),
            }
        )
    return rows


def _noise(x0: Tensor, tau: float) -> Tensor:
    """Samples [B,C,H,W] as heads are shown them at a level: the same noise for all."""
    return x0 + tau * torch.randn(x0.shape[1:], generator=generator("attention", f"{tau:.6g}")).to(x0.device)


def noised(maps: list[Map], samples: Tensor) -> dict[float, Tensor]:
    """What the heads were shown at each level of the maps."""
    return {tau: _noise(samples, tau) for tau in dict.fromkeys(item.tau for item in maps)}


def enlarged(maps: list[Map], size: int) -> list[Map]:
    """Heat [2n,h,w] over latents as heat [2n,size,size] over the pictures that they stand for."""
    return [item._replace(heat=functional.interpolate(item.heat[:, None], size=size)[:, 0]) for item in maps]


def draw_maps(path: Path, maps: list[Map], images: Tensor, inputs: Mapping[float, Tensor]) -> None:
    """A group for each level: the pictures as the heads were shown them, then a line of heat for each head.

    Each picture's heat is drawn from 0 to its own largest value: how strong it is, is not shown.

    Args:
        images: [2n,C,H,W], under the heat.
        inputs: level -> the pictures with noise.
    """
    half = len(images) // 2
    groups = []
    for tau, shown in inputs.items():
        group = [Line(f"input, {tau:g}", dict(enumerate(shown.clamp(-1, 1))), {})]
        for item in (item for item in maps if item.tau == tau):
            group.append(Line(item.tap, dict(enumerate(_overlay(images, item.heat))), {}))
        groups.append(group)
    write_tiles(path, groups, ["real"] * half + ["fake"] * half)


def _overlay(images: Tensor, heat: Tensor) -> Tensor:
    """Heat [N,H,W] as colours over darkened grey pictures [N,C,H,W], both [N,3,H,W] in [-1, 1]."""
    from matplotlib import colormaps

    scaled = (heat / heat.amax(dim=(1, 2), keepdim=True).clamp_min(1e-30)).numpy()
    colours = torch.from_numpy(colormaps["inferno"](scaled)[..., :3]).movedim(-1, 1).float() * 2 - 1
    grey = images.clamp(-1, 1).amax(dim=1, keepdim=True).expand(-1, 3, -1, -1) * 0.5 - 0.5
    opacity = torch.from_numpy(scaled)[:, None].sqrt() * 0.85
    return grey * (1 - opacity) + colours * opacity

"""A small run that reads texts: its recipe, its workspace and its prompts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from ladd_dist.codecs.vae import Vae
from ladd_dist.datasets.prompts import Prompts
from ladd_dist.levels.named import Karras
from ladd_dist.networks.diffusers import Diffusers
from ladd_dist.recipe import Recipe, validate
from ladd_dist.samplers.karras import Euler
from ladd_dist.workspace.workspace import Workspace
from plugins.taps.named import Named
from recipes._base import SMOKE

PROMPTS = ("a cat", "a dog on a mat", "a cat")


def recipe_in(folder: Path, checkpoint: Path, **changes: object) -> Recipe:
    prompts = folder / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS))
    recipe = dataclasses.replace(
        SMOKE,
        dataset=Prompts(file=str(prompts), size=16),
        network=Diffusers(source=str(checkpoint)),
        codec=Vae(source=str(checkpoint)),
        taps=Named(names=("middle",)),
        shards=dataclasses.replace(
            SMOKE.shards, num_samples=6, samples_per_chunk=2, sampler=Euler(steps=2, sigma_min=0.03, sigma_max=14.0)
        ),
        levels=Karras(sigma_min=0.03, sigma_max=14.0),
        train=dataclasses.replace(SMOKE.train, batch_size=2),
    )
    return validate(dataclasses.replace(recipe, **changes))


def workspace_in(folder: Path) -> Workspace:
    return Workspace(folder / "runs", folder / "cache", torch.device("cpu"))

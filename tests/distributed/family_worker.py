"""Runs checkpoints of diffusers through shards, distillation and evaluation under several strategies.

`python -m torch.distributed.run --standalone --nproc-per-node 2 -m tests.distributed.family_worker FOLDER JOB...`
with jobs FAMILY/STRATEGY.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch

from ladd_dist import stages
from ladd_dist.codecs.vae import Vae
from ladd_dist.core.plugin import create
from ladd_dist.datasets.prompts import Prompts
from ladd_dist.levels.named import Karras
from ladd_dist.metrics.matched import Matched
from ladd_dist.networks.diffusers import Diffusers
from ladd_dist.networks.diffusers.texts import BATCH
from ladd_dist.parallel.ranks import join
from ladd_dist.recipe import Recipe, validate
from ladd_dist.samplers.karras import Euler
from ladd_dist.stages.distill import distill
from ladd_dist.stages.evaluate import evaluate
from ladd_dist.stages.shards import make_shards
from ladd_dist.stages.teacher import train_teacher
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace
from plugins.taps.named import Named
from recipes._base import SMOKE
from tests.distributed.distill_worker import SmoothHead

stages.texts.FILE_TEXTS = BATCH  # a file a rank
TAPS = {
    "sd": ("down0", "middle"),
    "pixart": ("block00", "block01"),
    "z_image": ("refiner00", "block00"),
    "kandinsky3": ("down0", "down2"),
}
STEPS = {"kandinsky3": 2}
"""Training steps of a family whose steps take long."""
MANY_STEPS = 20
"""Those of the others."""
WIDE = ("pixart", "kandinsky3")
"""Families whose pictures are 16 x 32 in place of 16 x 16."""


FIXED = ("sd", "kandinsky3")
"""Families whose texts have one length."""


def family_recipe(folder: Path, family: str, parallel: str) -> Recipe:
    """The recipe of a family's checkpoint in `folder`, which every strategy computes alike."""
    source = str(folder / family)
    strategy: Any = create("parallel", parallel)
    steps = STEPS.get(family, MANY_STEPS)
    recipe = validate(
        dataclasses.replace(
            SMOKE,
            name=family,
            dataset=Prompts(file=str(folder / "prompts.txt"), size=16),
            network=Diffusers(source=source, tokens=0 if family in FIXED else 12),
            codec=Vae(source=source),
            taps=Named(names=TAPS[family]),
            shards=dataclasses.replace(
                SMOKE.shards,
                num_samples=16,
                samples_per_chunk=4,
                sampler=Euler(steps=4, sigma_min=0.03, sigma_max=14.0),
            ),
            levels=Karras(sigma_min=0.03, sigma_max=14.0),
            train=dataclasses.replace(
                SMOKE.train, steps=steps, batch_size=4, lr_student=1e-4, lr_heads=5e-5, dump_every=steps
            ),
            evaluate=dataclasses.replace(SMOKE.evaluate, num_samples=8, metrics=(Matched(),), steps=(2,)),
            student_steps=2,
            parallel=strategy,
        )
    )
    dataset: Any = dataclasses.replace(recipe.dataset, size=(16, 32) if family in WIDE else 16)
    return dataclasses.replace(
        recipe, dataset=dataset, head=SmoothHead()
    )  # not registered, so that `validate` would not find it


def run(folder: Path, family: str, parallel: str, workspace: Workspace) -> None:
    """Every stage; each strategy has runs and a cache of its own."""
    recipe = family_recipe(folder, family, parallel)
    if workspace.ranks.is_first:
        Run(recipe, workspace).folder.create()
    workspace.ranks.barrier()
    train_teacher(Run(recipe, workspace))
    make_shards(Run(recipe, workspace))
    distill(Run(recipe, workspace))
    evaluate(Run(recipe, workspace))


def main(folder: Path, jobs: list[str]) -> None:
    torch.set_num_threads(1)
    with join("gloo", 120.0, needs_group=True) as ranks:
        for job in jobs:
            family, _, name = job.partition("/")
            workspace = Workspace(folder / name / "runs", folder / name / "cache", torch.device("cpu"), ranks)
            run(folder, family, name, workspace)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

"""Trains a teacher and a student in fp16 with a loss scale that overflows at first and again when it has grown.

`python -m torch.distributed.run --standalone --nproc-per-node 2 -m tests.distributed.fp16_worker FOLDER cpu ddp`
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

from ladd_dist.core.plugin import create
from ladd_dist.parallel import Adam
from ladd_dist.parallel.compute import Compute
from ladd_dist.parallel.ranks import Ranks, join
from ladd_dist.recipe import Recipe, load_recipe
from ladd_dist.stages.distill import distill
from ladd_dist.stages.shards import make_shards
from ladd_dist.stages.teacher import train_teacher
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace
from plugins.schedules import Constant

STEPS, HALF = 12, 5
FP16 = Compute(precision="fp16")
SCALER = functools.partial(torch.amp.GradScaler, init_scale=2.0**23, growth_interval=2)


def recipe_of(parallel: str) -> Recipe:
    """A small recipe whose trainings are in fp16."""
    base = load_recipe(Path("recipes/exp4_specnorm.py"), "smoke")
    teacher = dataclasses.replace(base.teacher, steps=2 * STEPS, log_every=1, compute=FP16)
    train = dataclasses.replace(
        base.train, steps=STEPS, batch_size=8, log_every=1, dump_every=1_000, evaluate_every=0, compute=FP16,
        checkpoint_every=1_000, keep_checkpoints=1, keep_steps=(HALF,),
    )  # fmt: skip
    return dataclasses.replace(
        base, name="fp16", teacher=teacher, train=train, distill_weight=Constant(value=1.0),
        shards=dataclasses.replace(base.shards, num_samples=32, batch_size=16),
        guard=dataclasses.replace(base.guard, every=1, samples=4),  # type: ignore[type-var]
        parallel=create("parallel", parallel),  # type: ignore[arg-type]
    )  # fmt: skip


def train_all(folder: Path, device: torch.device, ranks: Ranks, parallel: str) -> None:
    """Train under `folder/whole`, and from the state after HALF steps again under `folder/resumed`."""
    recipe = recipe_of(parallel)
    for name in ("whole", "resumed"):
        run = Run(recipe, Workspace(folder / name, folder / "cache", device, ranks))
        if ranks.is_first:
            run.folder.create()
            if name == "resumed":
                step = f"step-{HALF:08d}"
                other = Run(recipe, dataclasses.replace(run.workspace, runs=folder / "whole")).folder
                shutil.copytree(other.checkpoints / step, run.folder.checkpoints / step)
        ranks.barrier()
        train_teacher(run)
        make_shards(run)
        distill(run)


def overflow_on_the_last_rank(device: torch.device, ranks: Ranks, parallel: str) -> list[Any]:
    """What each update says of itself and the weight after it, where the last rank's first gradient overflows."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.ones_(module.weight)
    adam = Adam(0.1, (0.5, 0.9), 0.0, 0.0)
    strategy: Any = create("parallel", parallel)
    trainable = strategy.build(module, role="student", adam=adam, compute=FP16, ranks=ranks, device=device)
    found = []
    fits = 1e-4  # at the scale it begins with
    for factor in (float("inf") if ranks.rank == ranks.size - 1 else fits, fits):
        trainable.update(lambda _, factor=factor: factor * trainable(torch.ones(1, 1, device=device)).float().mean())
        found.append([bool(trainable.skipped), float(module.weight.detach()), trainable.counters()])
    return found


def main(folder: Path, device: torch.device, parallel: str) -> None:
    """Both; what each rank saw is left in `folder/overflow-RANK.json`."""
    torch.set_num_threads(1)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.use_deterministic_algorithms(True, warn_only=True)
    backend = "nccl" if device.type == "cuda" else "gloo"
    with (
        mock.patch.object(torch.amp, "GradScaler", SCALER),
        join(backend, 120.0, device=device, needs_group=True) as ranks,
    ):
        found = overflow_on_the_last_rank(device, ranks, parallel)
        (folder / f"overflow-{ranks.rank}.json").write_text(json.dumps(found))
        train_all(folder, device, ranks, parallel)


if __name__ == "__main__":
    main(Path(sys.argv[1]), torch.device(sys.argv[2]), sys.argv[3])

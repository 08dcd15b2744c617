"""Tunes a student under several strategies: `python -m tests.distributed.tune_worker FOLDER NAME...` as ranks."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch

from ladd_dist.core.plugin import create
from ladd_dist.parallel.ranks import join
from ladd_dist.recipe import EarlyStop
from ladd_dist.stages.distill import distill
from ladd_dist.stages.old_samples import make_old_samples
from ladd_dist.stages.shards import make_shards
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace
from tests.distributed.distill_worker import SmoothHead
from tests.tuned import tune_recipe


def main(folder: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    with join("gloo", 120.0, needs_group=True) as ranks:
        for name in names:
            strategy: Any = create("parallel", name)
            early = EarlyStop(every=3, patience=1, num_samples=8)
            recipe = tune_recipe(folder, log_every=1, early_stop=early, lr_student=1e-4, lr_heads=5e-5)
            recipe = dataclasses.replace(recipe, parallel=strategy, head=SmoothHead())
            run = Run(recipe, Workspace(folder / name, folder / name / "cache", torch.device("cpu"), ranks))
            if ranks.is_first:
                run.folder.create()
            ranks.barrier()
            make_shards(run)
            make_old_samples(run)
            distill(run)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

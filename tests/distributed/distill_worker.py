"""Runs stage `distill` under several strategies, one after another, in the processes it is started in.

`python -m torch.distributed.run --standalone --nproc-per-node 2 -m tests.distributed.distill_worker JOBS.json`
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from ladd_dist.core.plugin import create
from ladd_dist.critics.pixels import Pixels
from ladd_dist.heads import Head
from ladd_dist.parallel.compute import Compute
from ladd_dist.parallel.ranks import join
from ladd_dist.recipe import Recipe, load_recipe
from ladd_dist.rollouts.policies import EveryStep, OnPolicy
from ladd_dist.stages.distill import distill
from ladd_dist.starts.couplings import Fresh
from ladd_dist.targets.pulls import TeacherDenoised
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace
from plugins.taps import Named

STEPS, HALF = 50, 25
METHODS: dict[str, dict[str, Any]] = {
    "ladd": {},
    "every_step": {
        "critic": Pixels(), "taps": Named(("conv1", "conv3")), "target": TeacherDenoised(), "rollout": EveryStep()
    },
    "mismatched": {},
    "heads_see_level": {},
    "on_policy": {"start": Fresh(), "target": TeacherDenoised(), "rollout": OnPolicy(share=0.5)},
}  # fmt: skip


@dataclass(frozen=True)
class SmoothHead(Head):
    """Spectral norm without a kink.

    LeakyReLU and the maximum over space switch at rounding errors, and Adam turns a switched slope into a visible
    difference within a few steps, whatever computes it. Not registered: the name table is the whole test session's.
    """

    name = "smooth_test_head"
    width: int = 16

    def build(self, *, channels: int, cond_dim: int) -> nn.Module:
        return SmoothModule(channels, cond_dim, self.width)


class SmoothModule(nn.Module):
    def __init__(self, channels: int, cond_dim: int, width: int) -> None:
        super().__init__()
        self.conv = spectral_norm(nn.Conv2d(channels, width, 3, padding=1))
        self.project = nn.Linear(cond_dim, width)
        self.logit = spectral_norm(nn.Linear(width, 1))

    def forward(self, features: Tensor, cond_vec: Tensor) -> Tensor:
        maps = functional.silu(self.conv(features))
        pooled: Tensor = self.logit(maps.mean(dim=(2, 3)) + self.project(cond_vec))
        return pooled


def recipe_of(job: dict[str, Any]) -> Recipe:
    """A small recipe that differs from job to job in nothing but how it is computed, unless the job says so."""
    base = load_recipe(Path("recipes/exp6_stored_noise.py"), "smoke")
    compute = Compute(accumulate=job.get("accumulate", 1))
    train = dataclasses.replace(
        base.train, steps=job.get("steps", STEPS), batch_size=16, log_every=1, dump_every=1_000,
        mode=job.get("mode", "fused"), mismatched=0.5 * (job.get("method") == "mismatched"),
        heads_see_level=job.get("method") == "heads_see_level",
        lr_student=1e-4, lr_heads=5e-5,  # the report's
        checkpoint_every=1_000, keep_checkpoints=1, keep_steps=(HALF,), compute=compute,
    )  # fmt: skip
    parallel: Any = dataclasses.replace(create("parallel", job["parallel"]), **job.get("settings", {}))
    student: Any = dataclasses.replace(create("student", job.get("student", "full")), init=job.get("init", ""))
    return dataclasses.replace(
        base, name="parity", train=train, parallel=parallel, head=SmoothHead(), student=student,
        **METHODS[job.get("method", "ladd")],
    )  # fmt: skip


def main(jobs_file: Path) -> None:
    """Run the jobs; each has a folder of its own for runs, all share the cache."""
    jobs = json.loads(jobs_file.read_text())
    torch.set_num_threads(1)
    with join("gloo", 120.0, needs_group=True) as ranks:
        for job in jobs["jobs"]:
            recipe = recipe_of(job)
            workspace = Workspace(Path(jobs["runs"]) / job["name"], Path(jobs["cache"]), torch.device("cpu"), ranks)
            run = Run(recipe, workspace).folder
            if ranks.is_first:
                run.create()
                if "resume" in job:  # the state in the middle of another run
                    elsewhere = dataclasses.replace(workspace, runs=Path(jobs["runs"]) / job["resume"])
                    other = Run(recipe, elsewhere).folder
                    step = f"step-{HALF:08d}"
                    shutil.copytree(other.checkpoints / step, run.checkpoints / step)
            ranks.barrier()
            distill(Run(recipe, workspace))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

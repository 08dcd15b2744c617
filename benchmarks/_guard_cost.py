"""What the guard of a recipe costs, in FLOPs and in time."""

from __future__ import annotations

import copy
import dataclasses
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from ladd_dist.builders.shards import open_shards
from ladd_dist.builders.step import Frozen, build_heads, build_step
from ladd_dist.builders.teacher import load_teacher
from ladd_dist.costs.flops import count_flops
from ladd_dist.engine.checkpoint import Checkpoints
from ladd_dist.engine.head_statistics import HeadSums
from ladd_dist.engine.ladd_step import LaddStep
from ladd_dist.engine.loop import Figures
from ladd_dist.engine.shard_reader import to_device
from ladd_dist.guards.judge import GuardState
from ladd_dist.parallel import Adam
from ladd_dist.parallel.ranks import SINGLE
from ladd_dist.recipe import load_recipe
from ladd_dist.stages.guard_actions import Guarding
from ladd_dist.stages.shards import make_shards
from ladd_dist.stages.teacher import train_teacher
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace

ROOT = Path(__file__).resolve().parent.parent


def measure(scale: str, pairs: int, cache: Path) -> dict[str, Any]:
    """Shares of the step: FLOPs, counted over one round of checks, and processor time, the median over rounds.

    A round is as many updates as lie between two full checks. Each update is made with the guard and without it, and
    who begins alternates, so that whatever else the machine does hits both.
    """
    recipe: Any = load_recipe(ROOT / "recipes" / "exp7_stored_smooth_l1.py", scale)  # type: ignore[arg-type]
    recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, steps=10_000_000))
    workspace = Workspace(cache, cache, torch.device("cpu"))
    train_teacher(Run(recipe, workspace))
    make_shards(Run(recipe, workspace))
    reader = open_shards(Run(recipe, workspace))
    batch = to_device(reader.batch(0, recipe.train.batch_size, 0), workspace.device)
    step = make_step(Run(recipe, workspace))
    round_steps = recipe.guard.every * recipe.guard.full_every
    plain = count_flops(lambda: step(batch, 1000)) * round_steps
    summed = dataclasses.replace(step, head_sums=HeadSums(step.critic.taps))
    guarding = guard_of(Run(recipe, workspace), reader, summed)
    checks = count_flops(lambda: [look(guarding, step, number) for number in range(round_steps)])

    heads: Any = step.heads
    groups = heads.groups
    spent: dict[str, list[float]] = {"with": [], "without": []}
    for number in range(-2, pairs * round_steps):
        for kind in ("with", "without")[:: 1 if number % 2 else -1]:
            heads.groups = groups if kind == "with" else {}
            started = time.process_time()
            figures = (summed if kind == "with" else step)(batch, 1000)
            if kind == "with":
                look(guarding, step, number % round_steps, figures)
            if number >= 0:
                spent[kind].append(time.process_time() - started)
    rounds = [slice(n * round_steps, (n + 1) * round_steps) for n in range(pairs)]
    ratios = [sum(spent["with"][own]) / sum(spent["without"][own]) for own in rounds]
    return {
        "scale": scale, "updates between full checks": round_steps, "flops share": checks / plain,
        "processor seconds a step without": statistics.median(spent["without"]),
        "ratio (median over rounds)": statistics.median(ratios), "ratios": ratios,
    }  # fmt: skip


def look(guarding: Guarding, step: LaddStep, number: int, figures: Figures | None = None) -> None:
    """What the guard does after update `number` + 1; its verdicts are forgotten, so that every round is alike."""
    assert guarding.monitor is not None
    guarding.monitor.after(number + 1, figures or {}, step.student)
    guarding.monitor.state = GuardState()


def guard_of(run: Run, reader: Any, step: LaddStep) -> Guarding:
    """The recipe's guard on a step's networks."""
    unused = Checkpoints(run.workspace.runs / "unused", identity="", keep=1)
    assert step.head_sums is not None
    return Guarding(run, reader, step.head_sums, unused)


def make_step(run: Run) -> LaddStep:
    """A training step as the stage makes it."""
    recipe = run.recipe
    teacher, train = load_teacher(run), recipe.train
    common: dict[str, Any] = {"compute": train.compute, "ranks": SINGLE, "device": run.device}
    student = copy.deepcopy(teacher).train().requires_grad_(True)
    adam = Adam(train.lr_student, train.betas_student, train.weight_decay, train.clip)
    heads = recipe.parallel.build(build_heads(recipe, teacher), role="heads", adam=adam, **common)
    frozen = Frozen(teacher, None)
    return build_step(recipe, recipe.parallel.build(student, role="student", adam=adam, **common), heads, frozen)

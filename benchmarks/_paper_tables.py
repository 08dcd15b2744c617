"""The tables of `paper_scale`: what its runs gave, and the FLOPs and minutes of an H100 that they need on paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ladd_dist.recipe import Recipe
from ladd_dist.stages.dry_run import describe_run
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace

PEAK_FLOPS, SHARE = 989e12, 0.10
"""FLOP/s of an H100 (SXM) in dense bf16, and the share of them that the estimate assumes."""
STAGES = ("teacher", "shards", "distill", "evaluate")


def work_of(recipe: Recipe, scale: str, done: set[str]) -> dict[str, float]:
    """FLOPs of each stage of a run, of shared ones only where `done` lacks their signature, which it then has."""
    flops = describe_run(Run(recipe, Workspace(Path("runs"), Path("cache"), torch.device("cpu"))), scale).flops
    forward, settings, sampler = flops["student_forward"], recipe.evaluate, recipe.shards.sampler
    num = settings.num_samples * len(settings.noise_seeds())
    guided = 2 if recipe.shards.guidance != 1 else 1
    reference = guided * forward * (sampler.num_calls() + 4 * len(recipe.teacher_levels()))
    sampled = recipe.with_teacher_samples()  # the dataset's pictures cost nothing, what they are compared with does
    shared = {
        "teacher": (recipe.teacher_signature(), 3 * forward * recipe.teacher.batch_size * recipe.teacher.steps),
        "shards": (sampled.shards_signature(), guided * forward * sampler.num_calls() * sampled.shards.num_samples),
        "reference": (recipe.reference_signature(), reference * num),
    }
    found = {stage: 0 if signature in done else count for stage, (signature, count) in shared.items()}
    done |= {signature for signature, _ in shared.values()}
    found["distill"] = flops["step"] * recipe.train.steps
    found["evaluate"] = forward * num * (sum(settings.steps) + recipe.student_steps) + found.pop("reference")
    return {stage: float(found[stage]) for stage in STAGES}


def estimate(recipes: dict[str, Recipe], scale: str) -> str:
    """A Markdown table: PFLOP of each stage, and minutes at the assumed share of an H100."""
    done = set[str]()
    works = {name: work_of(recipe, scale, done) for name, recipe in recipes.items()}
    works["all"] = {stage: sum(work[stage] for work in works.values()) for stage in STAGES}
    lines = [f"| run | {' | '.join(STAGES)} | PFLOP | minutes |", "|---|---|---|---|---|---|---|"]
    for name, work in works.items():
        whole = sum(work.values())
        cells = [f"{work[stage] / 1e15:.3g}" for stage in STAGES]
        lines.append(f"| {name} | {' | '.join(cells)} | {whole / 1e15:.3g} | {whole / (PEAK_FLOPS * SHARE) / 60:.3g} |")
    needed = sum(works["all"].values()) / 3600 / PEAK_FLOPS
    return "\n".join([*lines, "", f"All within an hour needs {needed:.1%} of the peak, without a pause."])


def summary(entries: dict[str, Any]) -> str:
    """A table of what is kept, as Markdown."""
    headings = ("run", "updates", "steps/s", "TFLOP/s", "minutes", "fd_real @4", "fd_teacher @4", "colour variance @4")
    lines = [f"| {' | '.join(headings)} | alarm |", "|---" * (len(headings) + 1) + "|"]
    for name, entry in entries.items():
        own = entry["figures"].get("student@4", {})
        figures = [own.get("fd_real", own.get("fd")), own.get("fd_teacher"), own.get("colour_variance")]
        cells = [entry["updates"], entry["steps_per_s"], entry["tflop_per_s"]]
        cells += [round(sum(entry["seconds"].values()) / 60, 1), *(value and f"{value:.3f}" for value in figures)]
        alarm = entry["alarms"][0]["headline"] if entry["alarms"] else "none"
        lines.append(f"| {name} | {' | '.join('' if cell is None else str(cell) for cell in cells)} | {alarm} |")
    return "\n".join(lines)

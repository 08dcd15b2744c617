"""Views of a finished run that need its networks: made once, kept beside its samples, and shown on its page."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypedDict

from ladd_dist.builders.codec import decoded
from ladd_dist.builders.shards import open_shards
from ladd_dist.builders.student import load_student
from ladd_dist.builders.teacher import load_teacher
from ladd_dist.core.door import read_typed
from ladd_dist.core.errors import UserError
from ladd_dist.core.rundir import RunDir, write_json
from ladd_dist.core.types import Denoiser
from ladd_dist.diagnosis.attention import (
    attention_figures,
    draw_saliency,
    noised,
    saliency_maps,
    upsampled,
)
from ladd_dist.diagnosis.trajectories import (
    decode_trajectories,
    draw_trajectories,
    find_decisions,
    record_trajectories,
)
from ladd_dist.recipe import Recipe
from ladd_dist.reports.page import write_report
from ladd_dist.workspace.run import Run

FORMAT = 1


def write_page(run: Run) -> Path:
    """Run the stage `report`: make missing views, then the page; returns its path. A view that fails is left out."""
    for line in make_views(run, run.folder):
        print(f"report: left out: {line}", file=sys.stderr)
    return write_report(run.folder.path)


def make_views(run: Run, folder: RunDir, *, again: bool = False) -> list[str]:
    """Make samples/strips.* and samples/attention.* unless they exist; returns a line for each view that failed.

    Args:
        again: make them even if they exist.
    """
    wanted = [
        (name, make) for name, make in (("strips", _strips), ("attention", _attention))
        if again or not _is_made(run.recipe, folder.samples / f"{name}.json")
    ]  # fmt: skip
    missing = []
    for name, make in wanted:
        try:
            teacher = load_teacher(run)
            student = load_student(run, folder.student)
            make(run, folder, teacher, student)
        except (ValueError, KeyError, RuntimeError) as error:  # the page is worth more than one of its pictures
            missing.append(f"{name} ({error.args[0] if error.args else error!r})")
    return missing


class _Made(TypedDict):
    """The part of a view's JSON file that says what it was made for."""

    made_for: list[object]


def _is_made(recipe: Recipe, path: Path) -> bool:
    """Whether a view's JSON file is there, whole, and of this recipe's student."""
    try:
        found = read_typed(path, _Made)
    except UserError:
        return False
    return found["made_for"] == _identity(recipe)


def _identity(recipe: Recipe) -> list[object]:
    return [FORMAT, recipe.distill_signature(), recipe.reference_signature()]


Make = Callable[[Run, RunDir, Denoiser, Denoiser], None]


def _strips(run: Run, folder: RunDir, teacher: Denoiser, student: Denoiser) -> None:
    recipe = run.recipe
    found = decode_trajectories(record_trajectories(recipe, teacher, student), partial(decoded, run))
    decisions = find_decisions(recipe, found)
    draw_trajectories(folder.samples / "strips.png", found, decisions)
    write_json(folder.samples / "strips.json", {"made_for": _identity(recipe), "samplers": decisions})


def _attention(run: Run, folder: RunDir, teacher: Denoiser, student: Denoiser) -> None:
    maps, samples = saliency_maps(run, folder, teacher, student, open_shards(run))
    to_images = partial(decoded, run)
    images = to_images(samples)
    maps = upsampled(maps, images)
    inputs = {tau: to_images(noisy) for tau, noisy in noised(maps, samples).items()}
    draw_saliency(folder.samples / "attention.png", maps, images, inputs)
    heads = [row._asdict() for row in attention_figures(maps, images)]
    write_json(folder.samples / "attention.json", {"made_for": _identity(run.recipe), "heads": heads})

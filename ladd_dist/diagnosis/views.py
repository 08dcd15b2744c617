"""The views of a finished run that need its networks: made once, kept beside its samples, shown by its page."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ladd_dist.builders.codec import decoded
from ladd_dist.builders.shards import open_shards
from ladd_dist.builders.student import load_student
from ladd_dist.builders.teacher import load_teacher
from ladd_dist.core.rundir import RunDir, read_json, write_json
from ladd_dist.core.types import Denoiser
from ladd_dist.diagnosis.attention import attend, describe_maps, draw_maps, enlarged, noised
from ladd_dist.diagnosis.trajectories import draw_strips, judge_strips, shown, strips
from ladd_dist.recipe import Recipe
from ladd_dist.reports.page import write_report
from ladd_dist.workspace.run import Run

FORMAT = 1


def write_page(run: Run) -> Path:
    """The stage `report`: the views that are missing, then the page. A view that cannot be made is left out."""
    for line in make_views(run, run.folder):
        print(f"report: left out: {line}", file=sys.stderr)
    return write_report(run.folder.path)


def make_views(run: Run, folder: RunDir, *, again: bool = False) -> list[str]:
    """Make samples/strips.* and samples/attention.* where they are not there yet; returns what could not be made, why.

    Args:
        again: also where they are there.
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


def _is_made(recipe: Recipe, path: Path) -> bool:
    """Whether it is there, whole, and of this recipe's student."""
    try:
        found = read_json(path)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("made_for") == _identity(recipe)


def _identity(recipe: Recipe) -> list[object]:
    return [FORMAT, recipe.distill_signature(), recipe.reference_signature()]


Make = Callable[[Run, RunDir, Denoiser, Denoiser], None]


def _strips(run: Run, folder: RunDir, teacher: Denoiser, student: Denoiser) -> None:
    recipe = run.recipe
    found = shown(strips(recipe, teacher, student), partial(decoded, run))
    figures = judge_strips(recipe, found)
    draw_strips(folder.samples / "strips.png", found, figures)
    write_json(folder.samples / "strips.json", {"made_for": _identity(recipe), "samplers": figures})


def _attention(run: Run, folder: RunDir, teacher: Denoiser, student: Denoiser) -> None:
    maps, samples = attend(run, folder, teacher, student, open_shards(run))
    show = partial(decoded, run)
    images = show(samples)
    maps = enlarged(maps, images.shape[-1])
    draw_maps(
        folder.samples / "attention.png", maps, images, {tau: show(x) for tau, x in noised(maps, samples).items()}
    )
    heads = describe_maps(maps, images)
    write_json(folder.samples / "attention.json", {"made_for": _identity(run.recipe), "heads": heads})

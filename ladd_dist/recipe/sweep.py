"""`Sweep`: many runs from one file, `SWEEP = Sweep(name, base, axes, seeds)`, and their expansion into recipes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladd_dist.core.names import require_name
from ladd_dist.core.ranges import AnyInteger
from ladd_dist.core.serialize import RecipeError, check, signature
from ladd_dist.recipe.axes import WHOLE, Axis, Grid, Point, Points, Random, Range, draw, grid
from ladd_dist.recipe.loading import load_module, load_recipe, validate
from ladd_dist.recipe.point import Labels, in_words, labels_of, put
from ladd_dist.recipe.recipe import Recipe
from ladd_dist.recipe.scales import Scale, Scales

__all__ = ["Axis", "Grid", "Points", "Random", "Range", "Sweep", "SweepRun", "expand", "load_sweep"]


@dataclass(frozen=True)
class Sweep:
    """Runs that belong together: every point of the axes with every seed."""

    name: str
    base: Scales | Recipe | None = None
    """Recipe that the axes change; None where the axis `recipe` gives it."""
    axes: tuple[Axis, ...] = ()
    seeds: tuple[AnyInteger, ...] = (0,)
    mode: Grid | Points | Random = Grid()


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep."""

    recipe: Recipe
    axes: Labels
    """Axes, each with the label of its value."""

    @property
    def label(self) -> str:
        """Label of the run, like `head=max_pool train.lr_heads=0.0001 seed=1`."""
        return " ".join([*(f"{axis}={label}" for axis, label in self.axes), f"seed={self.recipe.seed}"])


def load_sweep(path: Path) -> Sweep:
    """Read the `SWEEP` of a Python file.

    Raises:
        RecipeError: the file does not exist, fails, or has no `SWEEP`.
    """
    module = load_module(path)
    found = getattr(module, "SWEEP", None)
    if not isinstance(found, Sweep):
        other = f"it is a single recipe: `ladd launch {path}`" if hasattr(module, "RECIPE") else f"it has {found!r}"
        raise RecipeError(f"{path} must define SWEEP (a ladd_dist.recipe.Sweep); {other}")
    return found


def expand(sweep: Sweep, scale: Scale) -> tuple[list[SweepRun], list[str]]:
    """Runs of a sweep in the order of axes and seeds, and notes for the user.

    Raises:
        RecipeError: the sweep is empty, an axis names no field, a value does not fit, or runs would share a folder.
    """
    _check_sweep(sweep)
    points, notes = _points(sweep, scale)
    values = _values(sweep)
    runs: list[SweepRun] = []
    for point in points:
        base = _at(sweep, point, scale)
        for seed in sweep.seeds:
            recipe = dataclasses.replace(base, seed=seed)
            runs.append(SweepRun(recipe, labels_of(recipe, point, values)))
    kept, more = _merge(runs)
    return kept, notes + more


def _check_sweep(sweep: Sweep) -> None:
    check(Sweep, dataclasses.replace(sweep, base=None, axes=(), mode=Grid()), "SWEEP")
    if " " in require_name(sweep.name, "SWEEP.name"):
        raise RecipeError(f"SWEEP.name: names a folder and the jobs, so it has no blanks: {sweep.name!r}")
    if not sweep.seeds:
        raise RecipeError("SWEEP.seeds: an empty sweep; give at least one seed, like seeds=(0,)")
    if len(set(sweep.seeds)) < len(sweep.seeds):
        raise RecipeError(f"SWEEP.seeds: a seed stands there twice: {sweep.seeds}")
    if not isinstance(sweep.axes, tuple) or not all(isinstance(axis, Axis) for axis in sweep.axes):
        raise RecipeError(f"SWEEP.axes: expected a tuple of Axis, got {sweep.axes!r}")
    fields = [axis.field for axis in sweep.axes]
    if "seed" in _values(sweep):
        raise RecipeError("axis 'seed': the seeds of a sweep are its own field, like seeds=(0, 1)")
    for axis in sweep.axes:
        if fields.count(axis.field) > 1:
            raise RecipeError(f"SWEEP.axes: {axis.field!r} is there twice")
        _check_axis(axis, sweep.mode)
    if isinstance(sweep.mode, Random) and not sweep.axes:
        raise RecipeError("SWEEP.axes: Random draws from axes, and there are none")
    if isinstance(sweep.mode, Points) and sweep.axes:
        raise RecipeError("SWEEP: either axes, or mode=Points((...)) and no axes")
    if isinstance(sweep.mode, Points) and not sweep.mode.points:
        raise RecipeError("SWEEP.mode: an empty sweep; Points needs at least one point")


def _check_axis(axis: Axis, mode: Grid | Points | Random) -> None:
    if isinstance(axis.values, Range):
        if not isinstance(mode, Random):
            raise RecipeError(f"axis {axis.field!r}: a Range needs mode=Random(budget=...); a grid needs values")
        return
    if not isinstance(axis.values, tuple):
        raise RecipeError(f"axis {axis.field!r}: expected a tuple of values, got {axis.values!r}")
    if not axis.values:
        raise RecipeError(f"axis {axis.field!r}: an empty sweep; give at least one value")
    for i, value in enumerate(axis.values):
        if value in axis.values[:i]:
            raise RecipeError(f"axis {axis.field!r}: the value {value!r} is there twice")


def _points(sweep: Sweep, scale: Scale) -> tuple[list[Point], list[str]]:
    if isinstance(sweep.mode, Points):
        return list(sweep.mode.points), []
    if isinstance(sweep.mode, Random):
        return draw(sweep.axes, sweep.mode, lambda point: _at(sweep, point, scale).evaluate_signature())
    return list(grid(sweep.axes)), []


def _at(sweep: Sweep, point: Point, scale: Scale) -> Recipe:
    return _validated(put(_base(sweep, point, scale), point), point)


def _base(sweep: Sweep, point: Mapping[str, object], scale: Scale) -> Recipe:
    if WHOLE in point:
        file = point[WHOLE]
        if not isinstance(file, str | Path):
            raise RecipeError(f"axis 'recipe': expected files like recipes/exp1_smallconv.py, got {file!r}")
        return load_recipe(Path(file), scale)
    found = getattr(sweep.base, scale) if isinstance(sweep.base, Scales) else sweep.base
    if not isinstance(found, Recipe):
        raise RecipeError(f"SWEEP.base: expected a Scales or Recipe (or an axis 'recipe'), got {sweep.base!r}")
    return found


def _validated(recipe: Recipe, point: Point) -> Recipe:
    try:
        return validate(recipe)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"sweep point {in_words(point) or 'the base'}: {error}") from error


def _values(sweep: Sweep) -> dict[str, list[Any]]:
    """Values of each axis that are listed one by one."""
    values: dict[str, list[Any]] = {}
    for point in sweep.mode.points if isinstance(sweep.mode, Points) else ():
        for field, value in point.items():
            values.setdefault(field, []).append(value)
    for axis in sweep.axes:
        values[axis.field] = [] if isinstance(axis.values, Range) else list(axis.values)
    return values


def _merge(runs: list[SweepRun]) -> tuple[list[SweepRun], list[str]]:
    """Runs without duplicates, and a note on each; refuse runs that differ in measurement only and share a folder."""
    kept: dict[str, SweepRun] = {}
    notes = []
    for run in runs:
        own = run.recipe.distill_signature()
        first = kept.setdefault(own, run)
        if first is run:
            continue
        if first.recipe.evaluate_signature() != run.recipe.evaluate_signature():
            raise RecipeError(
                f"sweep: {first.label!r} and {run.label!r} train the same student and differ in `evaluate` alone: they "
                "would share a folder; measure them in two sweeps, with two folders --out"
            )
        notes.append(f"{run.label!r} is the same run as {first.label!r} (signature {own}): it is run once")
    labels = [run.label for run in kept.values()]
    for run in kept.values():
        if labels.count(run.label) > 1:
            raise RecipeError(f"sweep: two different runs have the label {run.label!r}; name their values apart")
    return list(kept.values()), notes


def sweep_signature(runs: list[SweepRun]) -> str:
    """Signature of a sweep: that of its runs, in any order."""
    return signature("sweep-1", sorted(run.recipe.evaluate_signature() for run in runs))

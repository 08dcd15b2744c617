"""`Sweep`: many runs from one file, `SWEEP = Sweep(name, base, axes, seeds)`, and their expansion into recipes."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladd_dist.core.plugin import Plugin, PluginError
from ladd_dist.core.serialize import RecipeError, check, from_data, signature, to_data
from ladd_dist.recipe.loading import load_module, load_recipe, validate
from ladd_dist.recipe.recipe import Recipe
from ladd_dist.recipe.scales import Scale, Scales
from ladd_dist.recipe.swap import swap

__all__ = ["Axis", "Grid", "Points", "Random", "Range", "Sweep", "SweepRun", "expand", "load_sweep"]

WHOLE = "recipe"
"""The axis whose values are recipe files."""
MOST_TRIES = 100
"""Draws for one new point before a random sweep is said to have no more."""


@dataclass(frozen=True)
class Range:
    """Numbers between two, for the mode `Random`; `log` draws their logarithm evenly."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise RecipeError(f"{self}: needs low < high{', and low > 0' if self.log else ''}")

    def draw(self, source: random.Random) -> float:
        """A number of the range, to three digits: more would only make labels long."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        drawn = source.uniform(low, high)
        return float(f"{math.exp(drawn) if self.log else drawn:.3g}")


@dataclass(frozen=True)
class Axis:
    """One thing that varies: `Axis("head", (SpectralNorm(), "max_pool"))`, `Axis("train.lr_heads", (1e-4, 5e-4))`.

    `Axis("recipe", ("recipes/exp1_smallconv.py", ...))` varies the whole recipe, in place of the sweep's base.
    """

    field: str
    """A field of the recipe, with dots for what is inside one; or `recipe`."""
    values: tuple[Any, ...] | Range
    """Plug-ins, or names of plug-ins; numbers or text for a plain field; files for `recipe`."""


@dataclass(frozen=True)
class Grid:
    """Every combination of the axes' values."""


@dataclass(frozen=True)
class Points:
    """These alone: each `{"head": "max_pool", "train.lr_heads": 1e-4}`, or the same with plug-ins."""

    points: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Random:
    """`budget` points, drawn from the axes' values and ranges; the same for the same seed."""

    budget: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise RecipeError(f"Random.budget: must be at least 1, got {self.budget}")


@dataclass(frozen=True)
class Sweep:
    """Runs that belong together: every point of the axes with every seed."""

    name: str
    base: Scales | Recipe | None = None
    """What the axes change; None where the axis `recipe` gives it."""
    axes: tuple[Axis, ...] = ()
    seeds: tuple[int, ...] = (0,)
    mode: Grid | Points | Random = Grid()


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep."""

    recipe: Recipe
    axes: tuple[tuple[str, str], ...]
    """Axis and the label of its value."""

    @property
    def label(self) -> str:
        """`head=max_pool train.lr_heads=0.0001 seed=1`."""
        return " ".join([*(f"{axis}={label}" for axis, label in self.axes), f"seed={self.recipe.seed}"])


def load_sweep(path: Path) -> Sweep:
    """The `SWEEP` of a Python file.

    Raises:
        RecipeError: no such file, it does not run, or has no `SWEEP`.
    """
    module = load_module(path)
    found = getattr(module, "SWEEP", None)
    if not isinstance(found, Sweep):
        other = f"it is a single recipe: `ladd launch {path}`" if hasattr(module, "RECIPE") else f"it has {found!r}"
        raise RecipeError(f"{path} must define SWEEP (a ladd_dist.sweeps.Sweep); {other}")
    return found


def expand(sweep: Sweep, scale: Scale) -> tuple[list[SweepRun], list[str]]:
    """The runs, in the order of axes and seeds, and what there is to tell about them.

    Raises:
        RecipeError: an empty sweep, an axis that names no field, a value that does not fit, or runs that would share a
            folder.
    """
    _check_sweep(sweep)
    runs: list[SweepRun] = []
    for point in _points(sweep):
        recipe = _base(sweep, point, scale)
        for axis, value in point.items():
            recipe = recipe if axis == WHOLE else _set(recipe, axis, value)
        labels = tuple((axis, _label(sweep, axis, value)) for axis, value in point.items())
        runs += [SweepRun(_validated(dataclasses.replace(recipe, seed=seed), labels), labels) for seed in sweep.seeds]
    return _merge(runs)


def _check_sweep(sweep: Sweep) -> None:
    check(Sweep, dataclasses.replace(sweep, base=None, axes=(), mode=Grid()), "SWEEP")
    if not sweep.name or any(character in sweep.name for character in "/\\ "):
        raise RecipeError(f"SWEEP.name: names a folder, so neither empty nor with blanks or slashes: {sweep.name!r}")
    if not sweep.seeds:
        raise RecipeError("SWEEP.seeds: an empty sweep; give at least one seed, like seeds=(0,)")
    if len(set(sweep.seeds)) < len(sweep.seeds):
        raise RecipeError(f"SWEEP.seeds: a seed stands there twice: {sweep.seeds}")
    if not isinstance(sweep.axes, tuple) or not all(isinstance(axis, Axis) for axis in sweep.axes):
        raise RecipeError(f"SWEEP.axes: expected a tuple of Axis, got {sweep.axes!r}")
    fields = [axis.field for axis in sweep.axes]
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


def _points(sweep: Sweep) -> Iterator[dict[str, Any]]:
    if isinstance(sweep.mode, Points):
        yield from (dict(point) for point in sweep.mode.points)
    elif isinstance(sweep.mode, Random):
        yield from _drawn(sweep.axes, sweep.mode)
    else:
        values = [axis.values for axis in sweep.axes if not isinstance(axis.values, Range)]
        for chosen in itertools.product(*values):
            yield {axis.field: value for axis, value in zip(sweep.axes, chosen, strict=True)}


def _drawn(axes: tuple[Axis, ...], mode: Random) -> Iterator[dict[str, Any]]:
    source = random.Random(mode.seed)
    seen: list[dict[str, Any]] = []
    for _ in range(mode.budget):
        for _ in range(MOST_TRIES):
            point = {
                axis.field: axis.values.draw(source) if isinstance(axis.values, Range) else source.choice(axis.values)
                for axis in axes
            }
            if point not in seen:
                break
        else:
            return  # the axes have no more points than these
        seen.append(point)
        yield point


def _base(sweep: Sweep, point: Mapping[str, Any], scale: Scale) -> Recipe:
    if WHOLE in point:
        file = point[WHOLE]
        if not isinstance(file, str | Path):
            raise RecipeError(f"axis 'recipe': expected files like recipes/exp1_smallconv.py, got {file!r}")
        return load_recipe(Path(file), scale)
    found = getattr(sweep.base, scale) if isinstance(sweep.base, Scales) else sweep.base
    if not isinstance(found, Recipe):
        raise RecipeError(f"SWEEP.base: expected a Scales or Recipe (or an axis 'recipe'), got {sweep.base!r}")
    return found


def _set(recipe: Recipe, field: str, value: Any) -> Recipe:
    """The recipe with one field changed: a plug-in, the name of one, or a plain value."""
    try:
        hint = _hint(recipe, field.split("."), field)
        if isinstance(hint, type) and issubclass(hint, Plugin) and isinstance(value, str):
            return swap(recipe, f"{field}={value}")
        if not isinstance(value, Plugin) and not dataclasses.is_dataclass(value):
            value = from_data(hint, list(value) if isinstance(value, tuple) else value, f"axis {field!r}")
        check(hint, value, f"axis {field!r}")
    except PluginError as error:
        raise RecipeError(f"axis {field!r}: {error}") from error
    return typing.cast(Recipe, _replace(recipe, field.split("."), value))


def _hint(node: Any, path: list[str], where: str) -> Any:
    hints = typing.get_type_hints(type(node)) if dataclasses.is_dataclass(node) else {}
    names = [field.name for field in dataclasses.fields(node)] if dataclasses.is_dataclass(node) else []
    if path[0] not in names:
        of = node.name if isinstance(node, Plugin) else type(node).__name__
        fields = f"fields of {of}: {', '.join(names)}" if names else f"{of} has no fields"
        own = "" if isinstance(node, Recipe) is False else "; or 'recipe' with files as values"
        raise RecipeError(f"axis {where!r}: no field {path[0]!r}; {fields}{own}")
    return hints[path[0]] if len(path) == 1 else _hint(getattr(node, path[0]), path[1:], where)


def _replace(node: Any, path: list[str], value: Any) -> Any:
    if len(path) > 1:
        value = _replace(getattr(node, path[0]), path[1:], value)
    return dataclasses.replace(node, **{path[0]: value})


def _validated(recipe: Recipe, labels: tuple[tuple[str, str], ...]) -> Recipe:
    try:
        return validate(recipe)
    except (TypeError, ValueError) as error:
        point = " ".join(f"{axis}={label}" for axis, label in labels) or "the base"
        raise RecipeError(f"sweep point {point}: {error}") from error


def _label(sweep: Sweep, field: str, value: Any) -> str:
    """Short text for a value: a plug-in's name, with its settings where another value has the same name."""
    if field == WHOLE:
        return Path(value).stem
    if not isinstance(value, Plugin):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(sweep.mode, Points):
        others = [point[field] for point in sweep.mode.points if field in point]
    else:
        others = [
            v for axis in sweep.axes if axis.field == field and isinstance(axis.values, tuple) for v in axis.values
        ]
    names = {(other.name if isinstance(other, Plugin) else other, str(other)) for other in others}
    if sum(name == value.name for name, _ in names) < 2:
        return value.name
    own = to_data(value)
    return f"{value.name}({','.join(f'{key}={item}' for key, item in own.items() if key != 'plugin')})"


def _merge(runs: list[SweepRun]) -> tuple[list[SweepRun], list[str]]:
    """Equal runs once; runs that only their measurement tells apart would share a folder, which is refused."""
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
    return list(kept.values()), notes


def sweep_signature(runs: list[SweepRun]) -> str:
    """Identifies a sweep: the runs that belong to it, in any order."""
    return signature("sweep-1", sorted(run.recipe.evaluate_signature() for run in runs))

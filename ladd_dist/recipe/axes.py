"""The axes of a sweep, and the three ways to pick points on them: `Grid`, `Points`, `Random`."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ladd_dist.core.ranges import AnyInteger, Count, Ranged
from ladd_dist.core.serialize import RecipeError

WHOLE = "recipe"
"""The axis whose values are recipe files."""
MOST_TRIES = 100
"""Most draws in a row that may repeat earlier points."""
MOST_POINTS = 10_000
"""Most points of a grid that are looked through for those that were never drawn."""

Point = Mapping[str, Any]
"""Axis -> value."""


@dataclass(frozen=True)
class Range:
    """Interval of numbers for the mode `Random`; `log` draws uniformly on a logarithmic scale."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf or (self.log and self.low <= 0):
            raise RecipeError(f"{self}: needs low < high, both finite{', and low > 0' if self.log else ''}")

    def draw(self, source: random.Random) -> float:
        """Draw a number of the range, rounded to keep labels short: to three digits, or as few as stay inside."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        drawn = source.uniform(low, high)
        exact = math.exp(drawn) if self.log else drawn
        rounded = (float(f"{exact:.{digits}g}") for digits in range(3, 18))
        return next((number for number in rounded if self.low <= number <= self.high), self.low)


@dataclass(frozen=True)
class Axis:
    """Field that varies: `Axis("head", (SpectralNorm(), "max_pool"))`, `Axis("train.lr_heads", (1e-4, 5e-4))`.

    `Axis("recipe", ("recipes/exp1_smallconv.py", ...))` varies the whole recipe, instead of the sweep's base.
    """

    field: str
    """Field of the recipe, with dots for nested fields; or `recipe`."""
    values: tuple[Any, ...] | Range
    """Plug-ins, or names of plug-ins; numbers or text for a plain field; files for `recipe`."""


@dataclass(frozen=True)
class Grid:
    """Every combination of the axes' values."""


@dataclass(frozen=True)
class Points:
    """Explicit points: each `{"head": "max_pool", "train.lr_heads": 1e-4}`, with names of plug-ins or plug-ins."""

    points: tuple[Point, ...]


@dataclass(frozen=True)
class Random(Ranged):
    """`budget` points, drawn from the axes' values and ranges; the same for the same seed.

    No run is drawn twice. Where the axes have fewer different runs than the budget, each is drawn once.
    """

    budget: Count
    seed: AnyInteger = 0


def grid(axes: tuple[Axis, ...]) -> Iterator[Point]:
    """Every combination of the axes' values, the last axis the fastest."""
    values = [axis.values for axis in axes if not isinstance(axis.values, Range)]
    for chosen in itertools.product(*values):
        yield {axis.field: value for axis, value in zip(axes, chosen, strict=True)}


def draw(axes: tuple[Axis, ...], mode: Random, run_of: Callable[[Point], str]) -> tuple[list[Point], list[str]]:
    """Points of different runs, `budget` of them or all there are, and a note if there are fewer.

    Args:
        run_of: what tells the run of a point from others: its signature.
    """
    source, found = random.Random(mode.seed), dict[str, Point]()
    new: Point | None = {}
    while len(found) < mode.budget and new is not None:
        tries = (_draw_one(axes, source) for _ in range(MOST_TRIES))
        new = next((point for point in tries if found.setdefault(run_of(point), point) is point), None)
    if len(found) < mode.budget:
        rest = _whole_grid(axes)
        source.shuffle(rest)
        for point in rest:
            if len(found) < mode.budget:
                found.setdefault(run_of(point), point)
    if len(found) == mode.budget:
        return list(found.values()), []
    note = f"Random.budget: {mode.budget} runs, but the axes gave only {len(found)} different ones: each is run once"
    return list(found.values()), [note]


def _draw_one(axes: tuple[Axis, ...], source: random.Random) -> Point:
    return {
        axis.field: axis.values.draw(source) if isinstance(axis.values, Range) else source.choice(axis.values)
        for axis in axes
    }


def _whole_grid(axes: tuple[Axis, ...]) -> list[Point]:
    """All points, if there are not too many to look at each; none where an axis is a range."""
    numbers = [math.inf if isinstance(axis.values, Range) else len(axis.values) for axis in axes]
    return list(grid(axes)) if math.prod(numbers) <= MOST_POINTS else []

"""Training curves of variants: mean and range over seeds at each logged step, thinned until a page can hold them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ladd_dist.comparison.variants import Variant
from ladd_dist.reports.run_files import Metrics

MAX_POINTS = 200
"""Of a curve; more cannot be told apart at the width of a chart."""

Array = NDArray[np.float64]


class Table(NamedTuple):
    """Logged rows as numbers: steps [N], keys, values [N, keys] with NaN where a row has no such figure."""

    steps: Array
    keys: tuple[str, ...]
    values: Array


class Band(NamedTuple):
    """One metric of a variant: mean, lowest and highest seed at each step."""

    steps: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


def tabulate(rows: Metrics) -> Table:
    """Logged rows as a table; figures that are no numbers become NaN."""
    if not rows:
        return Table(np.empty(0), (), np.empty((0, 0)))
    first = tuple(rows[0])
    try:
        if first[0] == "step" and all(tuple(row) == first for row in rows):  # how every run that did not resume looks
            whole = np.array([list(row.values()) for row in rows], dtype=np.float64)
            return Table(whole[:, 0], first[1:], whole[:, 1:])
    except (TypeError, ValueError):
        pass
    keys = tuple(dict.fromkeys(key for row in rows for key in row if key != "step" and not is_binned(key)))
    values = np.array([[_number(row.get(key)) for key in keys] for row in rows], dtype=np.float64)
    steps = np.array([_number(row.get("step")) for row in rows])
    return Table(steps, keys, values.reshape(len(rows), len(keys)))


def is_binned(key: str) -> bool:
    """Whether a figure is that of one head at one noise level: too many for curves, and not in every row."""
    return "@" in key and key.startswith(("accuracy/", "gap/"))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def bands(variant: Variant, max_points: int = MAX_POINTS, max_rows: int | None = None) -> dict[str, Band]:
    """The band of every metric over the seeds that logged it; of each seed about `max_rows` logged steps are read."""
    tables = [table for run in variant.runs if (table := tabulate(run.rows(max_rows))).keys]
    if not tables:
        return {}
    steps = max(tables, key=lambda table: (len(table.steps), table.steps[-1])).steps
    keys = tuple(dict.fromkeys(key for table in tables for key in table.keys))
    stack = np.full((len(tables), len(steps), len(keys)), np.nan)
    for seed, table in zip(stack, tables, strict=True):
        seed[:, [keys.index(key) for key in table.keys]] = _at(steps, table)
    stack[~np.isfinite(stack)] = np.nan
    steps, stack = _thin(steps, stack, max_points)
    return {key: band for index, key in enumerate(keys) if (band := _band(steps, stack[:, :, index])) is not None}


def _at(steps: Array, table: Table) -> Array:
    """A table's values at other steps, between its own by straight lines, NaN beyond them.

    Seeds that logged at other steps (unfinished, or thinned otherwise) would otherwise turn the mean into a saw.
    """
    if np.array_equal(steps, table.steps):
        return table.values
    inside = (steps >= table.steps[0]) & (steps <= table.steps[-1])
    values = np.full((len(steps), len(table.keys)), np.nan)
    for index, column in enumerate(table.values.T):
        there = np.isfinite(column)
        if there.any():
            values[inside, index] = np.interp(steps[inside], table.steps[there], column[there])
    return values


def _thin(steps: Array, stack: Array, max_points: int) -> tuple[Array, Array]:
    """Means of neighbouring steps, seed by seed, so that at most `max_points` are left."""
    width = -(-len(steps) // max_points)
    if width <= 1:
        return steps, stack
    padding = -len(steps) % width
    steps = np.pad(steps, (0, padding), constant_values=np.nan).reshape(-1, width)
    stack = np.pad(stack, ((0, 0), (0, padding), (0, 0)), constant_values=np.nan)
    return _mean(steps, 1), _mean(stack.reshape(stack.shape[0], -1, width, stack.shape[2]), 2)


def _mean(values: Array, axis: int) -> Array:
    """The mean of what is there; NaN where nothing is (without numpy's warning)."""
    count = np.isfinite(values).sum(axis=axis)
    total = np.nansum(values, axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _band(steps: Array, values: Array) -> Band | None:
    """values [seeds, N] -> the band at the steps where some seed has a figure."""
    there = np.isfinite(values).any(axis=0)
    if not there.any():
        return None
    values = values[:, there]
    mean = _mean(values, 0)
    low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    return Band(*(_short(array) for array in (steps[there], mean, low, high)))


def _short(values: Array) -> list[float]:
    """Four significant digits: more cannot be seen, and every digit is on the page a hundred thousand times."""
    return [float(f"{value:.4g}") if abs(value) < 1e4 or value % 1 else float(value) for value in values.tolist()]

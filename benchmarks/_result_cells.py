"""Rows of the result tables, and their cells as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks._runs import Kept
from ladd_dist.comparison.statistics import ALPHA, Called, pool, t_quantile

STEPS = (4, 2, 1)
TEACHER = "teacher@50"
REAL_FLOOR = "floor@real"
"""The entry with the distance between two sets of real images; missing in evaluations of earlier versions."""


class Row(NamedTuple):
    """A row: its runs, one a seed, and what its recipe says."""

    runs: Sequence[Kept]
    guidance: float
    adds_noise: bool
    """Whether its students are sampled with new noise before every step but the first."""


def line(*cells: str) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def cell(runs: Sequence[Kept], entry: str, name: str, *, by_teacher: bool = False) -> str:
    """Mean ± half-width of a figure over the runs, or of its share of the teacher's; empty where one lacks it."""
    values = values_of(runs, entry, name, by_teacher=by_teacher)
    return mean_cell(values) if values else ""


def values_of(runs: Sequence[Kept], entry: str, name: str, *, by_teacher: bool = False) -> list[float]:
    """A figure of each run, or its share of the teacher's; empty where a run lacks it."""
    found = []
    for run in runs:
        own, teacher = run.get(entry, {}).get(name), run.get(TEACHER, {}).get(name)
        if own is None or (by_teacher and not teacher):
            return []
        found.append(own / teacher if by_teacher else own)
    return found


def mean_cell(values: Sequence[float]) -> str:
    """Mean ± half-width of the 95 % interval."""
    found = pool(values)
    return f"{found.mean:.3f} ± {math.nan if found.high is None else found.high - found.mean:.3f}"


def half_width(item: Called) -> float:
    """Half of the 95 % interval of a difference, that of this difference alone; NaN where one seed gives none."""
    _, error, df = item.difference[:3]
    return math.nan if error is None else t_quantile(1 - ALPHA / 2, df) * error

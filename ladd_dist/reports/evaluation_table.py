"""Terminal tables of the figures that `ladd evaluate` finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Column, Table

from ladd_dist.core.run_forms import HybridRow
from ladd_dist.metrics.interval import HIGH, LOW, is_bound
from ladd_dist.reports.distances import to_real, to_teacher
from ladd_dist.reports.table import figure
from ladd_dist.reports.tunings import KID_HELD_OUT, KID_OLD
from ladd_dist.reports.verdict import best_teacher

HYBRID = ("fd_real", "fd_teacher", "s_per_image", "recall", "pairwise_distance", "accuracy")
"""Figures that the table of hybrids shows where they were measured."""


def table_of(figures: Mapping[str, Mapping[str, float]], features: Mapping[str, str] | None = None) -> Table:
    """The table of students, untrained and trained, of the teacher at the most steps, and of the floors.

    Distances come first: of a tuning to held-out pictures and old samples, then to real images and to the teacher's
    samples. The file has the rest.

    Args:
        features: name of the features that a figure was measured in, which its row has too.
    """
    entries = [key for key in figures if key.startswith(("student@", "untrained@"))]
    teacher = best_teacher(figures)
    entries += [teacher] if teacher else []
    entries += [key for key in figures if key.startswith(("floor@", "reconstruction"))]
    measured = dict.fromkeys(key for entry in entries for key in figures[entry] if not is_bound(key))
    distances = [key for find in (to_real, to_teacher) if (key := find(measured))]
    tuned = [key for key in (KID_HELD_OUT, KID_OLD) if key in measured]
    names = dict.fromkeys([*tuned, *distances, *measured])
    table = Table(Column("figure", no_wrap=True), *entries)
    for name in names:
        label = f"{name} [{features[name]}]" if features and name in features else name
        table.add_row(label, *(_cell(figures[entry], name) for entry in entries))
    return table


def hybrid_table(rows: Sequence[HybridRow], figures: Mapping[str, Mapping[str, float]]) -> Table:
    """The table with a row for each split of the steps: its cost, quality and variety; the file has the rest."""
    own = [figures.get(row["entry"], {}) for row in rows]
    names = [name for name in HYBRID if any(name in found for found in own)]
    table = Table(Column("hybrid", no_wrap=True), "steps", "teacher_steps", "forwards", *names)
    for row, found in zip(rows, own, strict=True):
        cells = (_cell(found, name) for name in names)
        table.add_row(row["entry"], str(row["steps"]), str(row["teacher_steps"]), str(row["forwards"]), *cells)
    return table


def _cell(figures: Mapping[str, float], name: str) -> str:
    if name not in figures:
        return "–"
    if name in ("num_samples", "num_seeds", "seed", "timed_turns"):
        return f"{figures[name]:.0f}"
    if name + LOW not in figures:
        return figure(figures[name])
    if name == "times_faster":  # its bounds are the turns' extremes, and far from even
        return f"{figure(figures[name])} ({figure(figures[name + LOW])} to {figure(figures[name + HIGH])})"
    return f"{figure(figures[name])} ±{(figures[name + HIGH] - figures[name + LOW]) / 2:.2g}"

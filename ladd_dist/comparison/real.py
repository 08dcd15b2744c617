"""Variants held against real pictures: whether training, or the teacher itself, leads away from them. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ladd_dist.comparison.runs import Run
from ladd_dist.comparison.variants import Variant
from ladd_dist.core.figure_names import name_now
from ladd_dist.reports.distances import GUIDANCE, to_real, untrained_of
from ladd_dist.reports.tuned_verdict import new_distance
from ladd_dist.reports.tunings import KID_HELD_OUT
from ladd_dist.reports.verdict import best_teacher, few_step_teacher


class Farther(NamedTuple):
    """An entry that is nearer to real pictures than what was held against it: means over the same runs."""

    entry: str
    metric: str
    own: float
    theirs: float


def deciding(runs: Iterable[Run], sampler: str, metric: str = "") -> str:
    """The metric that decides: the one asked for, else the distance to real that any run has, else `fd_teacher`.

    Where all are tunings it is the distance to held-out new pictures: near the others a student that copies is best.
    """
    runs = list(runs)
    if metric:
        return name_now(metric)
    finished = [run.figures[sampler] for run in runs if sampler in run.figures]
    if finished and all(KID_HELD_OUT in own for own in finished):
        return KID_HELD_OUT
    measured = dict.fromkeys(name for run in runs for name in run.figures.get(sampler, {}))
    return to_real(measured) or "fd_teacher"


def farther(variant: Variant, sampler: str) -> tuple[Farther, ...]:
    """The untrained student in as many steps and the teacher in as few, where they are nearer to real pictures.

    Each is held against the runs that have it, so a teacher's figures are those of the run's own teacher. That of a
    tuning has not seen the new pictures and is left out.
    """
    found: dict[str, list[tuple[str, float, float]]] = {}
    for run in variant.runs:
        if sampler not in run.figures:
            continue
        before, rival = untrained_of(run.figures, sampler), few_step_teacher(run.figures, sampler)
        for entry in (before, None if run.is_tuning else rival):
            if entry is not None and (pair := _pair(run, sampler, entry)):
                found.setdefault(entry, []).append(pair)
    return _nearer(found)


def far_teachers(variants: Sequence[Variant], sampler: str) -> list[str]:
    """A sentence where the teacher in many steps is farther from real pictures than the untrained student.

    That of a tuning has not seen the new pictures, so nothing is said of it.
    """
    texts: dict[str, list[str]] = {}
    for variant in variants:
        found: dict[str, list[tuple[str, float, float]]] = {}
        teacher = ""
        for run in variant.runs:
            if run.is_tuning:
                continue
            own, before = best_teacher(run.figures), untrained_of(run.figures, sampler)
            if own is not None and before is not None and (pair := _pair(run, own, before)):
                teacher = own
                found.setdefault(before, []).append(pair)
        for item in _nearer(found):
            text = (
                f"the teacher itself is farther from real pictures than the untrained student: {item.metric} "
                f"{item.own:.3g} of {teacher} against {item.theirs:.3g} of {item.entry}"
            )
            texts.setdefault(text, []).append(variant.label)
    return [
        f"{text}{'' if len(labels) == len(variants) else f' ({_some(labels)})'}. {GUIDANCE}"
        for text, labels in texts.items()
    ]


def _pair(run: Run, entry: str, other: str) -> tuple[str, float, float] | None:
    """The distance's name, the entry's and the other's, where both are finite."""
    key = new_distance(run.figures[entry])
    if key is None:
        return None
    own, theirs = run.figures[entry].get(key), run.figures[other].get(key)
    if own is None or theirs is None or not (math.isfinite(own) and math.isfinite(theirs)):
        return None
    return key, own, theirs


def _nearer(found: dict[str, list[tuple[str, float, float]]]) -> tuple[Farther, ...]:
    items = []
    for entry, pairs in found.items():
        own, theirs = (math.fsum(column) / len(pairs) for column in zip(*(pair[1:] for pair in pairs), strict=True))
        if theirs < own:
            items.append(Farther(entry, pairs[0][0], own, theirs))
    return tuple(items)


def _some(labels: Sequence[str]) -> str:
    return ", ".join([*labels[:3], *([f"{len(labels) - 3} more"] if len(labels) > 3 else [])])

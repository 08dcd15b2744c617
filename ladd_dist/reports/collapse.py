"""The step from which on a run's student had lost its colours, read from the samples it dumped while it trained."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from ladd_dist.core.door import require_regular
from ladd_dist.reports.verdict import VARIANCE_COLLAPSED


class Onset(NamedTuple):
    """The beginning of a collapse: the step of the first dump from which on all dumps lie below the threshold.

    `step` is None for a run whose last dump is healthy; `known` is False where no dump can be read.
    """

    known: bool
    step: int | None


DUMP = re.compile(r"step-(\d+)\.safetensors")
UNKNOWN = Onset(False, None)
NONE = -1.0


def as_number(found: Onset) -> float | None:
    """An onset as a number, for trackers: the step, -1 without a collapse, None where nothing is known."""
    return None if not found.known else NONE if found.step is None else float(found.step)


def from_number(value: float | None) -> Onset:
    """The onset that `as_number` made a number of."""
    return UNKNOWN if value is None else Onset(True, None if value == NONE else int(value))


def onset(run: Path) -> Onset:
    """The onset of a run's collapse.

    Dumps are read from the last one back until one is healthy: for most runs that is a single file.
    """
    dumps = run / "dumps"
    names = os.listdir(dumps) if dumps.is_dir() else []  # noqa: PTH208  # names alone: a path each would take longer
    found = sorted((int(match[1]), dumps / name) for name in names if (match := DUMP.fullmatch(name)))
    first: int | None = None
    known = False
    for step, path in reversed(found):
        share = variance_share(path)
        if share is None:
            continue  # a dump that cannot be read says nothing; its neighbours may
        known = True
        if share >= VARIANCE_COLLAPSED:
            break
        first = step
    return Onset(known, first)


def variance_share(dump: Path) -> float | None:
    """Colour variance of the student's samples as a share of the teacher's at the same noise; the verdict's measure.

    None for a damaged dump, for pictures without colour, and for a teacher whose samples have one colour.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    from ladd_dist.metrics.color import mean_colour

    try:
        require_regular(dump)
        with safe_open(dump, framework="pt") as file:
            images = [file.get_tensor(name) for name in ("student", "teacher")]
        colours = torch.split(mean_colour(torch.cat(images)).double(), [len(part) for part in images])
        student, teacher = (float(part.var(dim=0, correction=0).mean()) for part in colours)
    except (SafetensorError, OSError, ValueError, RuntimeError):
        return None
    return student / teacher if teacher > 0 else None

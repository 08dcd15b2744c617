"""`early_stop.json` of a run: the step whose student an early stop kept, and what it measured."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from ladd_dist.core.door import read_typed
from ladd_dist.core.run_forms import Number, Step

FILE = "early_stop.json"


class EarlyStopFile(TypedDict):
    """The content of the file."""

    format: int
    figure: str
    """Name of the distance to held-out pictures that decides."""
    kept: Step
    last: Step
    """The step at which the training ended."""
    measured: list[tuple[Step, Number]]
    """Step and distance of each measurement, in order."""


def kept_step(folder: Path) -> str:
    """A sentence on the step that an early stop of the run in `folder` kept; empty where it had none.

    Raises:
        UserError: the file is damaged.
    """
    if not (folder / FILE).exists():
        return ""
    told = read_typed(folder / FILE, EarlyStopFile)
    return f"step {told['kept']:,} of {told['last']:,} is kept: there {told['figure']} to held-out pictures is least"

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


def read_early_stop(folder: Path) -> EarlyStopFile | None:
    """What an early stop of the run in `folder` measured; None where it had none.

    Raises:
        UserError: the file is damaged.
    """
    return read_typed(folder / FILE, EarlyStopFile) if (folder / FILE).exists() else None


def kept_in_words(told: EarlyStopFile) -> str:
    """A sentence on the step that was kept."""
    return f"step {told['kept']:,} of {told['last']:,} is kept: there {told['figure']} to held-out pictures is least"

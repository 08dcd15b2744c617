"""Checks of settings that the schedules share."""

from __future__ import annotations

import math


def require_finite(schedule: str, **values: float) -> None:
    """Check that settings are finite.

    Raises:
        ValueError: a value is infinite or not a number.
    """
    for field, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{schedule}: {field} must be a finite number, got {value}")


def require_steps(schedule: str, minimum: int, **steps: int) -> None:
    """Check numbers of steps.

    Raises:
        ValueError: a number is below `minimum`.
    """
    for field, value in steps.items():
        if value < minimum:
            raise ValueError(f"{schedule}: {field} must be an integer >= {minimum}, got {value}")

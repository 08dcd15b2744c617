"""Schedules at their corners and half-way."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from ladd_dist.schedules import Schedule
from plugins.schedules import Constant, Cosine, LinearWarmup, Piecewise


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (Constant(value=0.3), {0: 0.3, 10**6: 0.3}),
        (LinearWarmup(value=0.1, steps=10), {0: 0, 5: 0.05, 10: 0.1, 11: 0.1, 10**6: 0.1}),
        (LinearWarmup(value=2.0, steps=4, start_step=100), {0: 0, 100: 0, 101: 0.5, 104: 2.0, 200: 2.0}),
        (LinearWarmup(value=1.0, steps=1, start_step=3), {3: 0, 4: 1}),
        (Cosine(start=1.0, end=0.2, steps=100), {0: 1, 25: 0.6 + 0.4 * math.sqrt(0.5), 50: 0.6, 100: 0.2, 999: 0.2}),
        (Cosine(start=0.0, end=1.0, steps=2), {0: 0, 1: 0.5, 2: 1}),
        (Piecewise(points=((10, 1.0), (20, 3.0), (30, 0.5))), {0: 1, 10: 1, 15: 2, 20: 3, 25: 1.75, 30: 0.5, 31: 0.5}),
        (Piecewise(points=((5, 0.7),)), {0: 0.7, 5: 0.7, 6: 0.7}),
    ],
    ids=str,
)  # fmt: skip
def test_a_schedule_passes_through_its_corners(schedule: Schedule, values: dict[int, float]) -> None:
    for step, value in values.items():
        assert schedule(step) == pytest.approx(value, abs=1e-12), step


@pytest.mark.parametrize("schedule", [LinearWarmup(steps=7), Cosine(start=0.0, end=1.0, steps=7), Piecewise()], ids=str)
def test_a_rising_schedule_never_falls(schedule: Schedule) -> None:
    values = [schedule(step) for step in range(1200)]
    assert values == sorted(values)
    assert values[0] == 0
    assert values[-1] == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(value=math.nan), "Constant.value: must be finite and at least 0, got nan"),
        (lambda: LinearWarmup(steps=0), "LinearWarmup.steps: must be at least 1, got 0"),
        (lambda: LinearWarmup(start_step=-1), "LinearWarmup.start_step: must be at least 0, got -1"),
        (lambda: LinearWarmup(value=math.inf), "LinearWarmup.value: must be finite"),
        (lambda: Cosine(steps=0), "Cosine.steps: must be at least 1, got 0"),
        (lambda: Cosine(end=math.nan), "Cosine.end: must be finite"),
        (lambda: Piecewise(points=()), "piecewise: points must hold at least one"),
        (lambda: Piecewise(points=((0, 0.0), (0, 1.0))), "steps must strictly increase, got 0 then 0"),
        (lambda: Piecewise(points=((5, 0.0), (2, 1.0))), "steps must strictly increase, got 5 then 2"),
        (lambda: Piecewise(points=((-1, 0.0),)), r"points\[0\]\[0\]: must be at least 0, got -1"),
        (lambda: Piecewise(points=((0, math.nan),)), r"points\[0\]\[1\]: must be finite"),
    ],
)
def test_bad_settings_name_the_field_and_the_range(make: Callable[[], Schedule], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()

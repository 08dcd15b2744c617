"""The rule of collapse over the report's time axis, and what its claims are held against."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from benchmarks import time_axis
from benchmarks._time_axis_page import Course, alarm, course, judged, ratio_lines, text_of
from recipes._base import PAPER

STEPS = [500, 1_000, 5_000, 20_000]


def run(shares: list[float], far: float = 2.0) -> dict[str, Any]:
    """A run with these shares of the teacher's colour variance at `STEPS`; the last is that of the finished student."""
    points = [
        {"step": step, "fd_real": far, "accuracy": 1.0, "colour_variance": 0.1 * shares[-1]} for step in (0, 20_000)
    ]
    teacher = {"fd_real": 1.0, "accuracy": 1.0, "colour_variance": 0.1}
    watched = [[step, share] for step, share in zip(STEPS, shares, strict=True)]
    one = {"fd_real": 9.0, "colour_variance": 0.03}
    own = {"watched": watched, "points": points, "teacher@50": teacher, "student@1": one, "guard": []}
    return {**own, "commit": "0", "device": "cpu", "run": "gone"}


def test_a_collapse_begins_where_no_later_share_is_above_the_threshold() -> None:
    assert Course(STEPS, [0.4, 0.9, 0.4, 0.3]).onset() == 5_000
    assert Course(STEPS, [0.4, 0.4, 0.4, 0.5]).onset() is None
    assert Course(STEPS, [0.1, 0.1, 0.1, 0.1]).onset() == 500
    assert Course(STEPS, [0.9, 0.1, 0.9, 0.9]).at(4_999) == 0.1 and Course(STEPS, [0.1] * 4).at(499) == 1.0


@pytest.mark.parametrize(
    ("name", "shares", "seen"),
    [
        ("exp1", [0.9, 0.9, 0.9, 0.1], True),
        ("exp1", [0.1, 0.1, 0.1, 0.9], False),
        ("exp2", [0.9, 0.9, 0.9, 0.1], True),
        ("exp2", [0.9, 0.9, 0.1, 0.1], False),
        ("exp2", [0.9, 0.9, 0.9, 0.9], False),
        ("exp3", [0.9, 0.1, 0.1, 0.1], True),
        ("exp3", [0.9, 0.9, 0.1, 0.1], False),
        ("exp4", [0.9, 0.9, 0.1, 0.1], True),
        ("exp5", [0.9, 0.9, 0.9, 0.1], False),
        ("exp6", [0.9, 0.9, 0.9, 0.9], True),
        ("exp6", [0.9, 0.4, 0.9, 0.9], False),
    ],
)
def test_each_claim_is_seen_only_in_a_run_that_behaves_so(name: str, shares: list[float], seen: bool) -> None:
    assert judged(name, Course(STEPS, shares), 20_000)[1] is seen
    short = Course([step // 100 for step in STEPS], shares)
    assert judged(name, short, 200)[1] is seen


def test_a_measured_student_counts_before_the_few_samples_of_a_dump() -> None:
    own = run([0.9, 0.9, 0.9, 0.9])
    own["points"][-1]["colour_variance"] = 0.02
    assert course(own).at(20_000) == pytest.approx(0.2) and course(own).steps == STEPS


def test_the_ratio_of_distances_is_seen_within_a_factor_of_two() -> None:
    assert "| **no** | 2.0 times, 2.00 and 1.00 |" in ratio_lines(run([0.9] * 4))[0]
    assert "| yes | 3.0 times, 3.00 and 1.00 |" in ratio_lines(run([0.9] * 4, far=3.0))[0]


def test_an_alarm_is_the_first_verdict_that_names_such_students() -> None:
    told = {
        "guard": [
            {"step": 400, "level": "warning", "says": ["student@4 x"]},
            {"step": 500, "level": "collapsed", "says": ["student@1 colour variance 0.1"]},
            {"step": 900, "level": "collapsed", "says": ["student@1 colour variance 0.1", "student@4 hue entropy 0.1"]},
        ]
    }
    assert (alarm(told, "student@1 "), alarm(told, "student@4 "), alarm(told)) == (500, 900, 500)
    assert alarm({"guard": []}) is None


def test_the_page_has_a_row_for_every_run_and_says_so_without_any() -> None:
    assert text_of({}, 20_000) == "Not measured yet."
    text = text_of({"exp1": run([0.9, 0.9, 0.9, 0.1]), "exp6": run([0.9] * 4)}, 20_000)
    assert (
        "| exp1 | collapse to one colour | yes | collapsed from 20,000 on; colour variance 0.90 at 5,000, 0.10" in text
    )
    assert "| exp6 | 2.00 | 2.00 | 2.00 | 1.000 | 9.00 | 0.30 | - | - | cpu | `0` |" in text


def test_the_settings_are_the_reports_but_for_network_and_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    for name, recipe in ((n, time_axis.recipe_of(time_axis.Options(), n)) for n in ("exp1", "exp2", "exp6")):
        assert recipe.levels == PAPER.levels and recipe.renoise_sigma == PAPER.renoise_sigma
        assert recipe.shards.guidance == PAPER.shards.guidance and recipe.shards.num_samples == time_axis.SAMPLES[name]
        same = ("steps", "lr_student", "lr_heads", "lr_final", "betas_student", "betas_heads", "ema", "batch_size")
        assert all(getattr(recipe.train, field) == getattr(PAPER.train, field) for field in same)
        assert recipe.adversarial == PAPER.adversarial and recipe.distance == PAPER.distance
        assert name == "exp1" or recipe.adv_weight == PAPER.adv_weight
        assert recipe.guard.neutral  # it watches and acts on nothing
    longer = dataclasses.replace(time_axis.Options(), updates=40_000)
    assert time_axis.measured_steps(longer)[0] == 2_000

"""The named choices of few-step levels."""

from __future__ import annotations

import pytest

from ladd_dist.core.noise import is_descending
from ladd_dist.core.plugin import registered
from ladd_dist.levels import Levels
from ladd_dist.levels.named import Good, Karras
from ladd_dist.samplers.karras import Euler


def test_karras_levels_are_the_reports() -> None:
    assert Karras()(4) == pytest.approx((80, 9.7232, 0.47, 0.002), abs=1e-4)
    assert Karras()(50) == Euler(steps=50).levels()


def test_good_levels_are_the_searched_ones_for_1_2_and_4_steps() -> None:
    assert Good()(4) == (80.0, 3.92, 1.29, 0.34)
    assert Good()(2) == (80.0, 1.29)
    assert Good()(1) == (80.0,)


@pytest.mark.parametrize("num_steps", [0, 3, 5, -1])
def test_good_levels_of_another_number_of_steps_are_refused_with_a_way_out(num_steps: int) -> None:
    with pytest.raises(ValueError, match=rf"1, 2 and 4 steps, not {num_steps}; use levels=karras"):
        Good()(num_steps)


@pytest.mark.parametrize("num_steps", [0, -1])
def test_karras_levels_of_no_steps_are_refused(num_steps: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Karras()(num_steps)


@pytest.mark.parametrize("wrong", [{"four": (1.0, 2.0, 3.0, 4.0)}, {"four": (80.0, 1.0)}, {"two": (80.0, 0.0)}])
def test_good_levels_must_descend_and_be_as_many_as_promised(wrong: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ValueError, match=r"descending numbers|Good\.two\[1\]: must be above 0"):
        Good(**wrong)


@pytest.mark.parametrize("name", ["karras", "good"])
def test_every_named_choice_starts_at_the_teachers_highest_level_and_descends(name: str) -> None:
    levels = registered()["levels"][name]()
    assert isinstance(levels, Levels)
    for num_steps in (1, 2, 4):
        found = levels(num_steps)
        assert len(found) == num_steps
        assert found[0] == Euler().sigma_max
        assert is_descending(found)

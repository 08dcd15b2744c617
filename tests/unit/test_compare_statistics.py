"""The choice of method against SciPy's whole tests; Holm's procedure against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from ladd_dist.comparison.statistics import (
    Difference,
    difference,
    difference_to,
    holm,
    pool,
)

RNG = np.random.default_rng(7)


@pytest.mark.parametrize("n", [2, 3, 40])
def test_the_pooled_interval_is_scipys(n: int) -> None:
    values = RNG.standard_normal(n).tolist()
    low, high = scipy.stats.t.interval(0.95, n - 1, np.mean(values), scipy.stats.sem(values))
    found = pool(values)
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(values), low, high), rel=1e-9)


def test_one_seed_has_a_mean_and_no_interval() -> None:
    assert pool([3.5]) == (3.5, None, None, 1)


def seeds(values: object) -> dict[int, float]:
    return dict(enumerate(np.asarray(values, dtype=float).tolist()))


def test_the_paired_difference_is_scipys_and_blind_to_what_seeds_have_in_common() -> None:
    shared = 100 * RNG.standard_normal(6)
    a, b = seeds(RNG.standard_normal(6)), seeds(RNG.standard_normal(6))
    plain = difference(a, b)
    test = scipy.stats.ttest_rel(list(a.values()), list(b.values()))
    assert (plain.method, plain.pairs) == ("paired", 6)
    assert plain.p == pytest.approx(test.pvalue, rel=1e-9)
    assert plain.mean == pytest.approx(np.mean([a[seed] - b[seed] for seed in a]))
    moved = difference(*({seed: value + shared[seed] for seed, value in x.items()} for x in (a, b)))
    assert moved.p == pytest.approx(plain.p, rel=1e-6)


def test_other_seeds_are_compared_by_welch() -> None:
    a, b = RNG.standard_normal(5), 3 * RNG.standard_normal(9)
    found = difference(seeds(a), {seed + 100: value for seed, value in seeds(b).items()})
    test = scipy.stats.ttest_ind(a, b, equal_var=False)
    assert found.method == "welch"
    assert (found.p, found.df) == pytest.approx((test.pvalue, test.df), rel=1e-9)
    assert found.mean == pytest.approx(a.mean() - b.mean())


def test_a_few_shared_seeds_of_many_do_not_throw_the_others_away() -> None:
    a = seeds(RNG.standard_normal(10))
    b = {seed + 8: value for seed, value in a.items()}  # shares 8 and 9
    assert difference(a, b).method == "welch"
    assert difference(a, {seed + 5: value for seed, value in a.items()}).method == "paired"


def test_two_shared_seeds_do_not_throw_away_the_runs_of_the_larger_side() -> None:
    """Two of two on one side are two of ten on the other: eight runs would count for nothing."""
    many = seeds(RNG.standard_normal(10))
    few = {seed: many[seed] + 1 for seed in list(many)[:2]}
    assert difference(many, few).method == difference(few, many).method == "welch"


def test_relabelling_the_seeds_of_both_sides_alike_changes_nothing() -> None:
    a, b = seeds(RNG.standard_normal(5)), seeds(RNG.standard_normal(5))
    renamed = [{(7 * seed + 3) % 11: value for seed, value in x.items()} for x in (a, b)]
    assert difference(*renamed)[:3] == pytest.approx(difference(a, b)[:3])


def test_a_constant_is_held_against_the_mean_by_the_one_sample_test() -> None:
    values = RNG.standard_normal(7)
    test = scipy.stats.ttest_1samp(values, 0.4)
    assert difference_to(0.4, seeds(values)).p == pytest.approx(test.pvalue, rel=1e-9)


def test_equal_runs_do_not_differ_and_a_constant_gap_does() -> None:
    a = seeds([1.0, 2.0, 3.0])
    assert difference(a, a).p == 1.0
    assert difference({seed: value + 1 for seed, value in a.items()}, a).p == 0.0


def made(p: float) -> Difference:
    t = scipy.stats.t.isf(p / 2, 9)
    return Difference(t, 1.0, 9, "paired", 10, p)


@pytest.mark.parametrize(
    ("ps", "called"),
    [
        ((0.01, 0.02, 0.04), (True, True, True)),  # .01 <= .05/3, .02 <= .05/2, .04 <= .05
        ((0.02, 0.001, 0.04), (True, True, True)),
        ((0.017, 0.001, 0.06), (True, True, False)),
        ((0.018, 0.02, 0.03), (False, False, False)),  # .018 > .05/3, and all after it fail too
        ((0.001, 0.03, 0.04), (True, False, False)),
    ],
)
def test_holm_holds_the_smallest_p_against_the_strictest_level(ps: tuple[float, ...], called: tuple[bool, ...]) -> None:
    found = holm([made(p) for p in ps])
    assert tuple(item.distinguishable for item in found) == called
    for item in found:
        assert item.low is not None and item.high is not None
        assert (item.low > 0 or item.high < 0) == item.distinguishable, "interval and verdict are the same thing"


def test_without_an_interval_nothing_is_distinguishable() -> None:
    one = difference({0: 1.0}, {0: 5.0})
    assert (one.method, one.error) == ("none", None)
    called = holm([one])[0]
    assert (called.low, called.high, called.distinguishable) == (None, None, False)
    assert math.isclose(called.level, 0.95)

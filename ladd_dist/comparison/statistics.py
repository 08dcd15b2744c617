"""Means and differences over seeds, with intervals. Pure; Student's t is computed here, so that no SciPy is needed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

ALPHA = 0.05
Method = Literal["paired", "welch", "one-sample", "none"]


class Pooled(NamedTuple):
    """Mean over seeds and its 95 % interval; with one seed there is none."""

    mean: float
    low: float | None
    high: float | None
    n: int


class Difference(NamedTuple):
    """Mean of other minus best; `error` is its standard error, None where one seed leaves it unknown."""

    mean: float
    error: float | None
    df: float
    method: Method
    pairs: int
    p: float


class Called(NamedTuple):
    """A difference after correction: the interval at the level that Holm's procedure gave it, and whether it counts."""

    difference: Difference
    level: float
    low: float | None
    high: float | None
    distinguishable: bool


def pool(values: Sequence[float]) -> Pooled:
    """Mean and Student's 95 % interval.

    Raises:
        ValueError: no values.
    """
    mean, error = mean_and_error(values)
    if error is None:
        return Pooled(mean, None, None, len(values))
    half = t_quantile(1 - ALPHA / 2, len(values) - 1) * error
    return Pooled(mean, mean - half, mean + half, len(values))


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean and its standard error."""
    if not values:
        raise ValueError("no values to take a mean of")
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))


def difference(other: Mapping[int, float], best: Mapping[int, float]) -> Difference:
    """Other minus best, by seed where seeds match, else Welch's.

    Paired when at least two seeds are shared and they are at least half of each side's: runs of one seed share noise
    and order of samples, so that much of what they differ by cancels. With fewer, pairing would throw most runs away.
    """
    shared = sorted(set(other) & set(best))
    if len(shared) >= 2 and 2 * len(shared) >= max(len(other), len(best)):
        mean, error = mean_and_error([other[seed] - best[seed] for seed in shared])
        return _test(mean, error, len(shared) - 1, "paired", len(shared))
    (mean_other, error_other), (mean_best, error_best) = (mean_and_error(list(x.values())) for x in (other, best))
    mean = mean_other - mean_best
    if error_other is None or error_best is None:
        return Difference(mean, None, 0.0, "none", len(shared), 1.0)
    squares = (error_other**2, error_best**2)
    total = sum(squares)
    parts = sum(square**2 / (len(side) - 1) for square, side in zip(squares, (other, best), strict=True))
    return _test(mean, math.sqrt(total), total**2 / parts if parts else len(other) + len(best) - 2, "welch", 0)


def difference_to(constant: float, best: Mapping[int, float]) -> Difference:
    """A figure without seeds (the teacher's) minus best's mean: Student's one-sample test."""
    mean, error = mean_and_error(list(best.values()))
    if error is None:
        return Difference(constant - mean, None, 0.0, "none", 0, 1.0)
    return _test(constant - mean, error, len(best) - 1, "one-sample", 0)


def _test(mean: float, error: float | None, df: float, method: Method, pairs: int) -> Difference:
    if error is None:
        return Difference(mean, None, 0.0, "none", pairs, 1.0)
    if error == 0:
        return Difference(mean, 0.0, df, method, pairs, 0.0 if mean else 1.0)
    return Difference(mean, error, df, method, pairs, t_two_sided(mean / error, df))


def holm(differences: Sequence[Difference], alpha: float = ALPHA) -> list[Called]:
    """Holm's step-down procedure: the chance of calling even one of these differences wrongly stays below `alpha`.

    The smallest of m p-values is held against alpha/m, the next against alpha/(m-1), and so on until one fails; all
    larger ones then fail at that level too. Each interval is drawn at the level its difference was held against, so
    "zero is outside" and "distinguishable" are the same thing.
    """
    order = sorted(range(len(differences)), key=lambda index: differences[index].p)
    called: dict[int, Called] = {}
    level, open_ = alpha, True
    for rank, index in enumerate(order):
        item = differences[index]
        if open_:
            level = alpha / (len(differences) - rank)
            open_ = item.p <= level
        if item.error is None:
            called[index] = Called(item, 1 - level, None, None, False)
        else:
            half = t_quantile(1 - level / 2, item.df) * item.error if item.error else 0.0
            called[index] = Called(item, 1 - level, item.mean - half, item.mean + half, open_)
    return [called[index] for index in range(len(differences))]


# --- Student's t ---


@lru_cache(maxsize=4096)
def t_two_sided(t: float, df: float) -> float:
    """P(|T| > |t|) of Student's t with `df` degrees of freedom."""
    return incomplete_beta(df / 2, 0.5, df / (df + t * t))


@lru_cache(maxsize=4096)
def t_quantile(q: float, df: float) -> float:
    """The t with P(T < t) = q, for q in [0.5, 1)."""
    wanted = 2 * (1 - q)
    if wanted >= 1:
        return 0.0
    low, high = 0.0, 1.0
    while t_two_sided(high, df) > wanted:
        low, high = high, 2 * high
    for _ in range(200):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (middle, high) if t_two_sided(middle, df) > wanted else (low, middle)
    return (low + high) / 2


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    if x < (a + 1) / (a + b + 2):  # where the fraction converges fast; elsewhere its mirror image does
        return math.exp(front) * _beta_fraction(a, b, x) / a
    return 1 - math.exp(front) * _beta_fraction(b, a, 1 - x) / b


def _beta_fraction(a: float, b: float, x: float) -> float:
    """Lentz's evaluation of the continued fraction of the incomplete beta function."""
    tiny = 1e-300
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > tiny else tiny)
    result = d
    for m in range(1, 500):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d, c = 1 + term * d, 1 + term / c
            d, c = 1 / (d if abs(d) > tiny else tiny), c if abs(c) > tiny else tiny
            result *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return result

"""Means and differences over seeds, with intervals by Student's t. Pure."""

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
    """The mean over seeds and Student's 95 % interval.

    Raises:
        ValueError: no values.
    """
    mean, error = mean_and_error(values)
    if error is None:
        return Pooled(mean, None, None, len(values))
    half = t_quantile(1 - ALPHA / 2, len(values) - 1) * error
    return Pooled(mean, mean - half, mean + half, len(values))


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean and its standard error, None for a single value."""
    if not values:
        raise ValueError("no values to take a mean of")
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))


def difference(other: Mapping[int, float], best: Mapping[int, float]) -> Difference:
    """The mean of other minus best, tested by seed where seeds match, else by Welch's test.

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
    """A figure without seeds (the teacher's) minus the mean of the best, tested by Student's one-sample test."""
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


# --- Student's t, by SciPy's special functions ---


@lru_cache(maxsize=4096)
def t_two_sided(t: float, df: float) -> float:
    """P(|T| > |t|) of Student's t with `df` degrees of freedom."""
    from scipy.special import betainc

    return float(betainc(df / 2, 0.5, df / (df + t * t)))  # stdtr, its other name, errs by 3e-10 next to t = 0


@lru_cache(maxsize=4096)
def t_quantile(q: float, df: float) -> float:
    """The t with P(T < t) = q."""
    from scipy.special import stdtrit

    return float(stdtrit(df, q))

"""Bootstrap intervals of figures, from the part that each sample adds to them.

A figure of N samples is, to first order, a mean of one part per sample: exactly for an accuracy, by its influence
function for a Frechet distance (Hampel 1974, "The influence curve and its role in robust estimation"). The bootstrap
(Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapters 13 and 22) draws N of the parts with replacement,
again and again. That costs one matrix product; computing the figure itself on every draw would cost hundreds of
eigendecompositions. It also keeps the interval around the figure: a draw with replacement leaves out a third of the
samples, which makes a Frechet distance larger, so the percentiles of recomputed figures would lie above the figure.

A share of rows (`Share`) has Wilson's interval instead (Wilson 1927, "Probable inference, the law of succession, and
statistical inference"): drawing 1,500 rows of which all or nearly all count gives hardly any spread, so near 0 and 1
the bootstrap's interval is too narrow, and at 1 it has no width at all (Brown, Cai & DasGupta 2001, "Interval
estimation for a binomial proportion").
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ladd_dist.core.rng import generator

LEVEL = 0.95
NUM_DRAWS = 400
_NORMAL = 1.959963984540054
"""Quantile (1 + LEVEL) / 2 of the standard normal law."""
LOW, HIGH = "_low", "_high"


class Estimate(NamedTuple):
    """Figure, and the part that each sample adds to it."""

    value: float
    parts: Tensor  # [N]; only differences between them count


class Share(NamedTuple):
    """Share of rows, and the number of independent rows that would leave as much doubt."""

    value: float
    rows: float
    """The number of rows; divided by the design effect (Kish 1965, "Survey Sampling") where rows depend on others."""


def share_of(rows: Tensor) -> Share:
    """The share of independent rows [N], N >= 1, that are true."""
    return Share(float(rows.detach().cpu().double().mean()), len(rows))


def with_intervals(estimates: Mapping[str, Estimate | Share], *, at_least: float | None = None) -> dict[str, float]:
    """Figures by name, each NAME with its 95 % interval NAME_low, NAME_high over the choice of the samples.

    The references are fixed, unless the one who made the estimate widened it for them. All estimates of the same number
    of samples share their draws, which makes their errors comparable.

    Args:
        at_least: smallest value of a bound, for a distance that cannot be negative.

    Raises:
        ValueError: an estimate does not have one part per sample.
    """
    figures: dict[str, float] = {}
    for name, estimate in estimates.items():
        if isinstance(estimate, Share):
            low, high = _wilson(estimate)
            figures |= {name: estimate.value, f"{name}{LOW}": low, f"{name}{HIGH}": high}
            continue
        parts = estimate.parts.detach().cpu().double()
        if parts.ndim != 1 or len(parts) == 0:
            raise ValueError(f"the interval of {name!r} needs one part a sample, got {list(parts.shape)}")
        spread = _counts(len(parts)) @ (parts - parts.mean()) / len(parts)
        edges = torch.quantile(spread, torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64))
        low, high = (estimate.value + float(edge) for edge in edges)
        if at_least is not None:
            low, high = max(low, at_least), max(high, at_least)
        figures |= {name: estimate.value, f"{name}{LOW}": low, f"{name}{HIGH}": high}
    return figures


def is_bound(name: str) -> bool:
    """Whether a figure's name is that of a bound of an interval."""
    return name.endswith((LOW, HIGH))


def _wilson(share: Share) -> tuple[float, float]:
    """Wilson's interval: the shares p from which the observed one is less than 1.96 of p's standard errors away."""
    value, rows = share
    square = _NORMAL**2 / rows
    middle = (value + square / 2) / (1 + square)
    half = math.sqrt(square * value * (1 - value) + square**2 / 4) / (1 + square)
    return min(value, max(0.0, middle - half)), max(value, min(1.0, middle + half))  # 0 and 1 despite rounding


@functools.lru_cache(maxsize=3)
def _counts(num: int) -> Tensor:
    """Counts of each of `num` samples in each of the draws, float64 [draws, num]."""
    drawn = torch.randint(num, (NUM_DRAWS, num), generator=generator("bootstrap", num))
    return torch.zeros(NUM_DRAWS, num, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn).double())

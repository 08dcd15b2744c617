"""Distances to nearest neighbours, in blocks, so memory does not grow with the square of the number of samples."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_ELEMENTS = 4_000_000
"""Number of distances computed at a time: 16 MB."""


def blocks(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Euclidean distances of x [N,D] to y [M,D], as a slice of rows and their distances [n,M] at a time.

    Computed in float32 as |x|^2 + |y|^2 - 2 x.y, ten times faster than by differences. Rounding makes distances that
    are much smaller than the features' norm uncertain by about 1e-3 of it; centring both on y's mean keeps that small.

    Raises:
        ValueError: x and y are empty or not [N,D] and [M,D] of one D.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not len(x) or not len(y):
        raise ValueError(f"distances need features [N,D] and [M,D] of one D, got {list(x.shape)} and {list(y.shape)}")
    centre = y.float().mean(dim=0)
    x, y = x.float() - centre, y.float() - centre
    squared = y.square().sum(dim=1)
    height = max(1, _ELEMENTS // len(y))
    for start in range(0, len(x), height):
        rows = x[start : start + height]
        away = torch.addmm(squared[None, :], rows, y.T, alpha=-2.0).add_(rows.square().sum(dim=1, keepdim=True))
        yield slice(start, start + len(rows)), away.clamp_min_(0.0).sqrt_()


def radii(x: Tensor, k: int) -> Tensor:
    """Distances [N] of the rows of x [N,D] to their k-th nearest other row.

    Raises:
        ValueError: there are no more than k rows.
    """
    if not 1 <= k < len(x):
        raise ValueError(f"the {k}th nearest neighbour needs more than {k} samples, got {len(x)}")
    found = torch.empty(len(x))
    for rows, away in blocks(x, x):
        own = torch.arange(rows.start, rows.stop)
        away[own - rows.start, own] = torch.inf  # itself, whose distance rounding may make more than a neighbour's
        found[rows] = away.topk(k, dim=1, largest=False, sorted=True).values[:, -1].cpu()
    return found


def nearest(x: Tensor, y: Tensor, *, same: bool = False) -> Tensor:
    """Distances [N] of the rows of x [N,D] to the nearest row of y [M,D], exact: a copy has distance 0.

    Args:
        same: x and y are the same rows in the same order, and none is its own neighbour.
    """
    found = []
    for rows, away in blocks(x, y):
        if same:
            own = torch.arange(rows.start, rows.stop)
            away[own - rows.start, own] = torch.inf
        found.append((x[rows] - y[away.argmin(dim=1)]).norm(dim=1).cpu())
    return torch.cat(found)

"""Kernel distance (KID) between two sets of features (Binkowski et al. 2018, arXiv 1801.01401, section 4).

The estimate of the squared maximum mean discrepancy under the kernel k(x, y) = (x.y / D + 1)^3 is unbiased. Unlike that
of a Frechet distance, its mean does not depend on the number of samples. It is 0 on average for two sets of one
distribution, so it can be slightly negative.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ladd_dist.core.errors import UserError
from ladd_dist.metrics.interval import Estimate

_ELEMENTS = 1_000_000
"""Number of entries of the kernel matrix computed at a time: 8 MB, which stay in a processor's cache."""


class KernelReference(NamedTuple):
    """Reference side of a kernel distance."""

    features: Tensor  # [M,D] float64
    within: float  # mean of k over pairs of different rows


def kernel_reference(features: Tensor) -> KernelReference:
    """Prepare the reference side of `kernel_estimate` from features [M,D].

    Raises:
        UserError: there are fewer than two rows, or a value is not finite.
    """
    rows = _checked(features)
    within = sums(rows, rows).sum() - diagonal(rows).sum()
    return KernelReference(rows, float(within) / (len(rows) * (len(rows) - 1)))


def kernel_estimate(features: Tensor, reference: KernelReference) -> Estimate:
    """Unbiased estimate from all pairs of features [N,D] and the reference, with the part that each sample adds.

    A sample adds 2 (its mean kernel with the other samples - its mean kernel with the reference), the first-order
    (Hajek) projection of the U-statistic.

    Raises:
        UserError: there are fewer than two rows, a value is not finite, or D is not the reference's.
    """
    rows = _checked(features)
    if rows.shape[1] != reference.features.shape[1]:
        raise UserError(f"features of one length are needed, got {rows.shape[1]} and {reference.features.shape[1]}")
    own = (sums(rows, rows) - diagonal(rows)) / (len(rows) - 1)
    across = sums(rows, reference.features) / len(reference.features)
    value = float(own.mean()) + reference.within - 2.0 * float(across.mean())
    return Estimate(value, 2.0 * (own - across))


def subset_kernel_distance(
    features: Tensor, reference: Tensor, *, num_subsets: int = 100, subset_size: int = 1_000, seed: int = 0
) -> float:
    """Kernel distance as clean-fid estimates it, the mean over random subsets, to compare with published KIDs.

    The subsets are those that clean-fid's `kernel_distance(reference, features)` draws after `numpy.random.seed(seed)`.
    """
    import numpy as np

    source = np.random.RandomState(seed)  # the global generator's algorithm, without its state
    ours, theirs = _checked(features), _checked(reference)
    size = min(len(ours), len(theirs), subset_size)
    total = 0.0
    for _ in range(num_subsets):
        x = ours[torch.from_numpy(source.choice(len(ours), size, replace=False))]
        y = theirs[torch.from_numpy(source.choice(len(theirs), size, replace=False))]
        within = sum(float(sums(part, part).sum() - diagonal(part).sum()) for part in (x, y))
        total += within / (size - 1) - 2.0 * float(sums(x, y).sum()) / size
    return total / num_subsets / size


def sums(x: Tensor, y: Tensor) -> Tensor:
    """Sums [N] of k(x_i, y_j) over j for x [N,D] and y [M,D], computed a few rows at a time."""
    one = torch.ones(1, dtype=x.dtype)
    height = max(1, _ELEMENTS // len(y))
    parts = [torch.addmm(one, rows, y.T, alpha=1.0 / x.shape[1]).pow_(3).sum(dim=1) for rows in torch.split(x, height)]
    return torch.cat(parts)


def diagonal(x: Tensor) -> Tensor:
    """Diagonal [N] of the kernel matrix, k(x_i, x_i), for x [N,D]."""
    return (x.square().sum(dim=1) / x.shape[1] + 1.0).pow(3)


def _checked(features: Tensor) -> Tensor:
    if features.ndim != 2 or len(features) < 2:
        raise UserError(f"a kernel distance needs features [N,D] of 2 samples or more, got {list(features.shape)}")
    rows = features.detach().cpu().double()
    bad = int((~rows.isfinite().all(dim=1)).sum())
    if bad:
        raise UserError(f"the features of {bad} of {len(rows)} samples are NaN or infinite: look at the samples")
    return rows

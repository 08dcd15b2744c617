"""Frechet distance between Gaussians fitted to two sets of features (Heusel et al. 2017, arXiv 1706.08500, eq. 6)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ladd_dist.core.errors import UserError
from ladd_dist.metrics.interval import Estimate

# Largest negative eigenvalue, relative to the largest one, that rounding explains.
_ROUNDING = 1e-8
_ROWS = 2_000
"""Number of rows processed at a time."""


class Moments(NamedTuple):
    """Mean and covariance of a set of features, float64 on the CPU."""

    mean: Tensor  # [D]
    cov: Tensor  # [D,D] unbiased


def moments(features: Tensor) -> Moments:
    """Mean and unbiased covariance of features [N,D], in float64.

    Raises:
        UserError: there are fewer than two rows, or a value is not finite.
    """
    if features.ndim != 2 or len(features) < 2:
        raise UserError(f"a covariance needs features [N,D] of at least 2 samples, got shape {list(features.shape)}")
    # On the CPU, because not every accelerator has float64.
    rows = features.detach().cpu().double()
    bad = int((~rows.isfinite().all(dim=1)).sum())
    if bad:
        raise UserError(f"the features of {bad} of {len(rows)} samples are NaN or infinite: look at the samples")
    mean = rows.mean(dim=0)
    centred = rows - mean
    return Moments(mean, centred.T @ centred / (len(rows) - 1))


def frechet_distance(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> float:
    """Squared Frechet (2-Wasserstein) distance of N(mean1, cov1) and N(mean2, cov2): means [D], covariances [D,D].

        |mean1 - mean2|^2 + Tr cov1 + Tr cov2 - 2 Tr sqrt(cov1^.5 cov2 cov1^.5)

    The symmetric form needs eigenvalues of symmetric matrices only: it is exact for singular covariances (fewer samples
    than features), where the square root of the product cov1 cov2 turns complex.

    Raises:
        UserError: the shapes do not agree, or a matrix is no covariance (clearly negative eigenvalues).
    """
    mean1, cov1, mean2, cov2 = (part.detach().cpu().double() for part in (mean1, cov1, mean2, cov2))
    dim = len(mean1)
    if mean2.shape != (dim,) or cov1.shape != (dim, dim) or cov2.shape != (dim, dim):
        shapes = ", ".join(str(list(part.shape)) for part in (mean1, cov1, mean2, cov2))
        raise UserError(f"means [D] and covariances [D,D] of one D are needed, got {shapes}")
    _eigenvalues(cov2, "cov2")
    values, vectors = torch.linalg.eigh(cov1)
    _check_positive(values, "cov1")
    root: Tensor = (vectors * values.clamp_min(0.0).sqrt()) @ vectors.T
    inner = root @ cov2 @ root
    trace_root = _eigenvalues((inner + inner.T) / 2.0, "cov1^.5 cov2 cov1^.5").clamp_min(0.0).sqrt().sum()
    distance = (mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2.0 * trace_root
    # A distance is never negative: below zero there is only rounding.
    return max(float(distance), 0.0)


class FrechetReference(NamedTuple):
    """Reference side of a Frechet distance."""

    moments: Moments
    root: Tensor  # [D,D] symmetric square root of the covariance


def frechet_reference(features: Tensor) -> FrechetReference:
    """Prepare the reference side of `frechet_estimate` from features [N,D].

    Raises:
        UserError: there are fewer than two rows, or a value is not finite.
    """
    own = moments(features)
    return FrechetReference(own, _root(own.cov))


def frechet_estimate(features: Tensor, reference: FrechetReference) -> Estimate:
    """Squared Frechet distance >= 0 of features [N,D] to a reference, with the part that each of the N samples adds.

    With T = R^.5 C R^.5 of the reference's covariance R and the samples' C, a change dC moves Tr sqrt(T) by
    Tr(A dC)/2 with A = R^.5 T^-.5 R^.5, so a sample at d from the samples' mean adds

        2 (mean - mean_R) d + d (I - A) d

    up to a constant: the influence function. A leaves out directions in which T vanishes (fewer samples than
    features), as a pseudo-inverse does.

    Raises:
        UserError: there are fewer than two rows, a value is not finite, or D is not the reference's.
    """
    own, (theirs, root) = moments(features), reference
    if len(own.mean) != len(theirs.mean):
        raise UserError(f"features of one length are needed, got {len(own.mean)} and {len(theirs.mean)}")
    inner = root @ own.cov @ root
    values, vectors = torch.linalg.eigh((inner + inner.T) / 2.0)
    shift = own.mean - theirs.mean
    trace_root = values.clamp_min(0.0).sqrt().sum()
    value = float(shift.square().sum() + own.cov.trace() + theirs.cov.trace() - 2.0 * trace_root)
    kept = values > _ROUNDING * values.abs().max().clamp_min(1e-300)
    inverse = torch.where(kept, values.clamp_min(1e-300).rsqrt(), torch.zeros_like(values))
    half = root @ vectors
    weight = torch.eye(len(values), dtype=torch.float64) - (half * inverse) @ half.T
    parts = []
    for rows in torch.split(features.detach().cpu(), _ROWS):
        away = rows.double() - own.mean
        parts.append(2.0 * away @ shift + ((away @ weight) * away).sum(dim=1))
    return Estimate(max(value, 0.0), torch.cat(parts))


def _root(cov: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(cov)
    root: Tensor = (vectors * values.clamp_min(0.0).sqrt()) @ vectors.T
    return root


def _eigenvalues(matrix: Tensor, name: str) -> Tensor:
    values: Tensor = torch.linalg.eigvalsh(matrix)
    _check_positive(values, name)
    return values


def _check_positive(values: Tensor, name: str) -> None:
    if float(values.min()) < -_ROUNDING * max(float(values.abs().max()), 1e-300):
        raise UserError(f"{name} is no covariance: its smallest eigenvalue is {float(values.min()):.3g}")

"""Metric `manifold`: precision, recall, density and coverage between two sets of features."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import Count
from ladd_dist.core.rng import generator
from ladd_dist.core.types import ImageSpec
from ladd_dist.metrics import Measure, Metric, References, Samples
from ladd_dist.metrics.extract import Features, extract, features_misfit, features_name
from ladd_dist.metrics.interval import Estimate, Share, with_intervals
from ladd_dist.metrics.neighbours import blocks, radii

_HALVINGS = 20
"""Number of times that both sets are halved for the design effect."""
_HALF = 500
"""Most rows of such a half."""
_UNCERTAIN = 1.15
"""Factor for a variance that is itself only known to a third: (2.10 / 1.96)^2, Student's t over the normal quantile."""


class Shares(NamedTuple):
    """Each row's part of the four figures, whose means they are."""

    precision: Tensor  # [N] whether a sample is in a ball of the reference
    recall: Tensor  # [M] whether a row of the reference is in a ball of the samples
    density: Tensor  # [N] number of balls of the reference around a sample, over k
    coverage: Tensor  # [M] whether a sample is in the ball of a row of the reference


def shares(samples: Tensor, reference: Tensor, k: int, reference_radii: Tensor) -> Shares:
    """Parts of four figures of samples [N,D] against a reference [M,D] whose rows have the k-th neighbour radii [M].

    With a ball around each row, of its radius: `precision`, the share of samples in a ball of the reference; `recall`,
    the share of the reference in a ball of the samples (Kynkaanniemi et al. 2019, arXiv 1904.06991, eq. 1-2);
    `density`, the mean number of balls of the reference around a sample, over k; `coverage`, the share of the
    reference's balls with a sample in them (Naeem et al. 2020, arXiv 2002.09797, eq. 3 and 5).

    Raises:
        ValueError: there are no more than k samples.
    """
    own_radii = radii(samples, k).to(samples.device)
    reference_radii = reference_radii.to(samples.device)
    inside = torch.zeros(len(samples), device=samples.device)  # balls of the reference that a sample lies in
    recalled = torch.zeros(len(reference), dtype=torch.bool, device=samples.device)
    covered = torch.zeros_like(recalled)
    for rows, away in blocks(samples, reference):
        hits = away <= reference_radii
        inside[rows] = hits.sum(dim=1).float()
        covered |= hits.any(dim=0)
        recalled |= (away <= own_radii[rows, None]).any(dim=0)
    return Shares(*(part.cpu().double() for part in (inside > 0, recalled, inside / k, covered)))


def manifold_figures(samples: Tensor, reference: Tensor, k: int, reference_radii: Tensor) -> dict[str, float]:
    """The four figures of `shares`, each with its interval over the choice of both sets.

    A ball that one set's rows share makes the other's rows depend on each other: an interval that took them for
    independent would hold the truth in about 80 % of cases. So it is widened by the design effect. Sets with fewer than
    2 (k + 1) rows have no interval.

    Raises:
        UserError: a value is not finite.
        ValueError: there are no more than k samples.
    """
    for part in (samples, reference):
        if not bool(part.isfinite().all()):
            raise UserError("features are NaN or infinite: look at the samples")
    found = shares(samples, reference, k, reference_radii)
    if min(len(samples), len(reference)) < 2 * (k + 1):
        return {name: float(rows.mean()) for name, rows in found._asdict().items()}
    estimates: dict[str, Estimate | Share] = {}
    for (name, rows), effect in zip(found._asdict().items(), design_effects(samples, reference, k), strict=True):
        value = float(rows.mean())
        wider = Estimate(value, (rows - value) * math.sqrt(effect))
        estimates[name] = wider if name == "density" else Share(value, len(rows) / effect)
    return with_intervals(estimates)


def _to_real(name: str) -> str:
    """The name of a figure, or of its bound, against real images."""
    figure, _, bound = name.partition("_")
    return f"{figure}_real{'_' * bool(bound)}{bound}"


def design_effects(samples: Tensor, reference: Tensor, k: int) -> tuple[float, ...]:
    """How many times larger each figure's variance is than that of independent rows, 1 or more, in `Shares`' order.

    Both sets are halved at random, again and again. Two halves of the samples against two halves of the reference are
    two measurements that share no row, so half of their squared difference has the mean of the variance at that size
    (subsampling: Politis & Romano 1994, "Large sample confidence regions based on subsamples"). Of large sets a part is
    enough: neighbours are near, so the ratio hardly depends on the size.
    """
    part = min(0.5, _HALF / max(len(samples), len(reference)))
    source = generator("manifold-halves", len(samples), len(reference))
    seen, independent = torch.zeros(2, 4, dtype=torch.float64)
    for _ in range(_HALVINGS):
        x, y = (_two_parts(rows, max(k + 1, int(len(rows) * part)), source) for rows in (samples, reference))
        one, other = (shares(*half, k, radii(half[1], k)) for half in zip(x, y, strict=True))
        for index, (rows, others) in enumerate(zip(one, other, strict=True)):
            seen[index] += (rows.mean() - others.mean()).square() / 2
            independent[index] += torch.cat([rows, others]).var(correction=0) / len(rows)
    effects = torch.where(independent > 0, _UNCERTAIN * seen / independent, 1.0)
    return tuple(effects.clamp_min(1.0).tolist())


def _two_parts(rows: Tensor, size: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two parts [size,D] of rows [N,D], drawn at random, that have none in common."""
    drawn = torch.randperm(len(rows), generator=source)[: 2 * size].to(rows.device)
    return rows[drawn[:size]], rows[drawn[size:]]


@register("manifold")
@dataclass(frozen=True)
class Manifold(Metric):
    """Precision, recall, density and coverage against the teacher's samples (or `real` images), of equal number.

    `precision` and `density` fall when samples lie outside the reference, `recall` and `coverage` when they miss parts
    of it. `density` can exceed 1; unlike precision, it is not fooled by a single outlier of the reference. Against real
    images the figures are `precision_real`, `recall_real`, `density_real` and `coverage_real`.
    """

    features: Features = "digit_color"
    """Space of the distances: features of the shipped network for the data, pixels, or features of the network that
    the metric `class_features` trains on the data."""
    against: Literal["teacher", "real"] = "teacher"
    """Reference: the teacher's samples, or real images."""
    neighbours: Count = 5
    """Number k: the radius of a ball is the distance to the k-th nearest neighbour."""

    def misfit(self, image: ImageSpec, shows: tuple[str, ...]) -> str:
        return features_misfit(self.features, image, shows)

    def space(self, samples: Samples) -> str:
        return features_name(samples, self.features)

    def of_real(self) -> tuple[str, ...]:
        return tuple(map(_to_real, Shares._fields)) if self.against == "real" else ()

    def needs(self) -> int:
        return self.neighbours + 1

    def build(self, *, references: References) -> Measure:
        chosen = references.teacher if self.against == "teacher" else references.real
        extract(chosen, self.features)  # images that cannot be read fail now

        def measure(samples: Samples) -> dict[str, float]:
            # An equal number of the reference: with more, its balls are smaller, and the figures depend on the ratio.
            same_number = chosen.first(len(samples))
            reference = extract(same_number, self.features)
            known = same_number.once(
                f"radii {self.features} {self.neighbours}", lambda: radii(reference, self.neighbours)
            )
            found = manifold_figures(extract(samples, self.features), reference, self.neighbours, known)
            return found if self.against == "teacher" else {_to_real(name): value for name, value in found.items()}

        return measure

"""Metric `manifold`: precision, recall, density and coverage between two sets of features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import Count
from ladd_dist.core.types import ImageSpec
from ladd_dist.metrics import Measure, Metric, References, Samples
from ladd_dist.metrics.extract import Features, extract, features_misfit
from ladd_dist.metrics.interval import Estimate, with_intervals
from ladd_dist.metrics.neighbours import blocks, radii


def manifold_estimates(samples: Tensor, reference: Tensor, k: int, reference_radii: Tensor) -> dict[str, Estimate]:
    """Four figures of samples [N,D] against a reference [M,D] whose rows have the k-th neighbour radii [M].

    With a ball around each row, of its radius: `precision`, the share of samples in a ball of the reference; `recall`,
    the share of the reference in a ball of the samples (Kynkaanniemi et al. 2019, arXiv 1904.06991, eq. 1-2);
    `density`, the mean number of balls of the reference around a sample, over k; `coverage`, the share of the
    reference's balls with a sample in them (Naeem et al. 2020, arXiv 2002.09797, eq. 3 and 5).

    Precision and density have one part per sample; recall and coverage, which are shares of the reference, have one
    part per row of the reference.

    Raises:
        UserError: a value is not finite.
        ValueError: there are no more than k samples.
    """
    for part in (samples, reference):
        if not bool(part.isfinite().all()):
            raise UserError("features are NaN or infinite: look at the samples")
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
    parts = {"precision": inside > 0, "recall": recalled, "density": inside.cpu().double() / k, "coverage": covered}
    return {name: Estimate(float(part.cpu().double().mean()), part) for name, part in parts.items()}


@register("manifold")
@dataclass(frozen=True)
class Manifold(Metric):
    """Precision, recall, density and coverage against the teacher's samples (or `real` images), of equal number.

    `precision` and `density` fall when samples lie outside the reference, `recall` and `coverage` when they miss parts
    of it. `density` can exceed 1; unlike precision, it is not fooled by a single outlier of the reference.
    """

    features: Features = "digit_color"
    """Space of the distances: features of the digit-and-colour network, or pixels."""
    against: Literal["teacher", "real"] = "teacher"
    """Reference: the teacher's samples, or real images."""
    neighbours: Count = 5
    """Number k: the radius of a ball is the distance to the k-th nearest neighbour."""

    def misfit(self, image: ImageSpec, shows: tuple[str, ...]) -> str:
        return features_misfit(self.features, image, shows)

    def of_real(self) -> tuple[str, ...]:
        return ("precision", "recall", "density", "coverage") if self.against == "real" else ()

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
            own = extract(samples, self.features)
            return with_intervals(manifold_estimates(own, reference, self.neighbours, known))

        return measure

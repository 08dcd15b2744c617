"""Metric `diversity`: distances between samples of one class, against the teacher's of the same class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import register
from ladd_dist.core.types import ImageSpec
from ladd_dist.metrics import Measure, Metric, Part, References, Samples
from ladd_dist.metrics.extract import Features, extract, features_misfit, features_name
from ladd_dist.metrics.interval import Estimate, with_intervals
from ladd_dist.metrics.neighbours import blocks


def pairwise_estimate(features: Tensor, cond: Tensor) -> Estimate:
    """Mean distance of two samples of one class, for features [N,D] and classes [N]; mean over classes with two.

    Raises:
        UserError: no class has two samples.
    """
    means: list[float] = []
    parts = torch.zeros(len(features), dtype=torch.float64)
    for number in sorted(set(cond.tolist())):
        members = (cond == number).nonzero()[:, 0].cpu()
        if len(members) < 2:
            continue
        rows = features[members.to(features.device)]
        sums = torch.cat([away.cpu().double().sum(dim=1) for _, away in blocks(rows, rows)]) / (len(members) - 1)
        means.append(float(sums.mean()))
        parts[members] = 2.0 * (sums - sums.mean()) / len(members)
    if not means:
        raise UserError("the distance within a class needs a class with two samples")
    return Estimate(sum(means) / len(means), parts * len(features) / len(means))


@register("diversity")
@dataclass(frozen=True)
class Diversity(Metric):
    """Mean distance between two samples of one class (`pairwise_distance`), and its ratio to the teacher's.

    The ratio `pairwise_share` is 1 for a student as varied as the teacher's samples of the same classes, and 0 for one
    that makes one image per class. Both figures are absent if no class has two samples.
    """

    features: Features = "digit_color"
    """Space of the distances: features of the shipped network for the data, pixels, or features of the network that
    the metric `class_features` trains on the data."""
    few: ClassVar[tuple[str, ...]] = ("pairwise_share",)

    def misfit(self, image: ImageSpec, shows: tuple[str, ...]) -> str:
        return features_misfit(self.features, image, shows)

    def space(self, samples: Samples) -> str:
        return features_name(samples, self.features)

    def build(self, *, references: References) -> Measure:
        extract(references.teacher, self.features)

        def measure(samples: Samples) -> dict[str, float]:
            asked = torch.isin(references.teacher.cond.cpu(), samples.cond.cpu())
            same = Part(references.teacher, asked.nonzero()[:, 0])
            if not (_has_pair(samples.cond) and _has_pair(same.cond)):
                return {}
            theirs = pairwise_estimate(extract(same, self.features), same.cond).value
            own = pairwise_estimate(extract(samples, self.features), samples.cond)
            figures = {"pairwise_distance": own}
            if theirs > 0:
                figures["pairwise_share"] = Estimate(own.value / theirs, own.parts / theirs)
            return with_intervals(figures)

        return measure


def _has_pair(cond: Tensor) -> bool:
    """Whether a class appears twice."""
    return len(set(cond.tolist())) < len(cond)

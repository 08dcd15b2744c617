"""Metric `kid`: kernel distances in the features that ship with the package."""

from __future__ import annotations

from dataclasses import dataclass

from ladd_dist.core.plugin import register
from ladd_dist.core.types import ImageSpec
from ladd_dist.metrics import Measure, Metric, References, Samples
from ladd_dist.metrics.extract import Features, extract, features_misfit, features_name
from ladd_dist.metrics.interval import with_intervals
from ladd_dist.metrics.kernel import kernel_estimate, kernel_reference


@register("kid")
@dataclass(frozen=True)
class Kid(Metric):
    """Kernel distance to the real set (`kid`) and to the teacher's samples (`kid_teacher`), over all pairs.

    The formula is KID's, but on other features, so the figures compare only with each other; the metric `clean_fid`
    gives the KID of the literature. The estimate is unbiased: two sets of one distribution have 0 on average.
    """

    features: Features = "digit_color"
    """Space of the distances: features of the shipped network for the data, pixels, or features of the network that
    the metric `class_features` trains on the data."""

    def misfit(self, image: ImageSpec, shows: tuple[str, ...]) -> str:
        return features_misfit(self.features, image, shows)

    def space(self, samples: Samples) -> str:
        return features_name(samples, self.features)

    def of_real(self) -> tuple[str, ...]:
        return ("kid",)

    def build(self, *, references: References) -> Measure:
        real, teacher = (
            kernel_reference(extract(part, self.features)) for part in (references.real, references.teacher)
        )

        def measure(samples: Samples) -> dict[str, float]:
            own = extract(samples, self.features)
            return with_intervals({"kid": kernel_estimate(own, real), "kid_teacher": kernel_estimate(own, teacher)})

        return measure

"""Metric `memorising`: are samples copies of training images?"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ladd_dist.core.plugin import register
from ladd_dist.core.types import ImageSpec
from ladd_dist.metrics import Measure, Metric, References, Samples
from ladd_dist.metrics.extract import Features, extract, features_misfit, features_name
from ladd_dist.metrics.interval import Estimate, with_intervals
from ladd_dist.metrics.neighbours import nearest


@register("memorising")
@dataclass(frozen=True)
class Memorising(Metric):
    """Distance to the nearest training sample, and its ratio to the usual distance between training samples.

    `nearest_train_distance` is to the dataset's images, on which the teacher was trained; `nearest_teacher_distance` is
    to the teacher's stored samples, on which the student was trained. Both are means over samples. The ratios
    (`nearest_train_share`, `nearest_teacher_share`) divide by the mean distance of a training sample to its nearest
    neighbour among the others: about 1 for new samples of the same distribution, 0 for copies.
    """

    features: Features = "digit_color"
    """Space of the distances: features of the shipped network for the data, pixels, or features of the network that
    the metric `class_features` trains on the data."""

    def misfit(self, image: ImageSpec, shows: tuple[str, ...]) -> str:
        return features_misfit(self.features, image, shows)

    def space(self, samples: Samples) -> str:
        return features_name(samples, self.features)

    def of_real(self) -> tuple[str, ...]:
        return ("nearest_train_distance", "nearest_train_share")

    def build(self, *, references: References) -> Measure:
        sets = {"train": references.real, "teacher": references.teacher}
        held = {name: extract(part, self.features) for name, part in sets.items()}

        def within(name: str) -> Tensor:
            rows = held[name]
            return sets[name].once(f"nearest {self.features}", lambda: nearest(rows, rows, same=True))

        def measure(samples: Samples) -> dict[str, float]:
            own = extract(samples, self.features)
            figures = {}
            for name, rows in held.items():
                away = nearest(own, rows)
                usual = float(within(name).mean())
                figures[f"nearest_{name}_distance"] = Estimate(float(away.mean()), away)
                if usual > 0:
                    figures[f"nearest_{name}_share"] = Estimate(float(away.mean()) / usual, away / usual)
            return with_intervals(figures)

        return measure

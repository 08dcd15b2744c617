"""Metric `digit_color`: Frechet distances and class accuracy by a small network of class and colour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ladd_dist.core.errors import UserError
from ladd_dist.core.features import NUM_DIGITS, network_for
from ladd_dist.core.plugin import register
from ladd_dist.core.types import ImageSpec
from ladd_dist.metrics import Measure, Metric, References, Samples
from ladd_dist.metrics.extract import KNOWN, digit_color, features_name
from ladd_dist.metrics.frechet import frechet_estimate, frechet_reference
from ladd_dist.metrics.interval import share_of, with_intervals


@register("digit_color")
@dataclass(frozen=True)
class DigitColor(Metric):
    """Frechet distance to the real set (`fd_real`) and to the teacher's samples (`fd_teacher`), and class accuracy.

    The features are those of a small classifier of class and hue (`core/features.py`), made for colour digits or, where
    the dataset shows these, colour clothes: the figures compare samples of one data only, and are no FID. `accuracy`:
    share of samples that the classifier assigns to the requested class.
    """

    few: ClassVar[tuple[str, ...]] = ("accuracy",)

    def misfit(self, image: ImageSpec, shows: tuple[str, ...]) -> str:
        return "" if network_for(image, shows) else f"it reads classes and hues, with networks made for {KNOWN}"

    def space(self, samples: Samples) -> str:
        return features_name(samples, "digit_color")

    def of_real(self) -> tuple[str, ...]:
        return ("fd_real",)

    def build(self, *, references: References) -> Measure:
        real = frechet_reference(digit_color(references.real)["features"])
        teacher = frechet_reference(digit_color(references.teacher)["features"])

        def measure(samples: Samples) -> dict[str, float]:
            seen = digit_color(samples)
            if int(samples.cond.min()) < 0 or int(samples.cond.max()) >= NUM_DIGITS:
                raise UserError(
                    f"the metric 'digit_color' knows classes 0 to {NUM_DIGITS - 1}, the samples were asked for "
                    f"{int(samples.cond.min())} to {int(samples.cond.max())}"
                )
            right = seen["digit"] == samples.cond.to(seen["digit"].device)
            distances = {
                "fd_real": frechet_estimate(seen["features"], real),
                "fd_teacher": frechet_estimate(seen["features"], teacher),
            }
            figures = with_intervals(distances, at_least=0.0)
            return figures | with_intervals({"accuracy": share_of(right)})

        return measure

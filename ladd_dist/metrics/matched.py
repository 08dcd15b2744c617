"""Metric `matched`: distance of samples from the teacher's own at the same noise and class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import register
from ladd_dist.metrics import Measure, Metric, References, Samples
from ladd_dist.metrics.interval import Estimate, with_intervals


@register("matched")
@dataclass(frozen=True)
class Matched(Metric):
    """Mean squared difference of pixels (in [-1, 1]) to the teacher's many-step sample from the same noise and class.

    `matched_error` is 0 for the teacher itself, so sampling adds no floor to it. A student trained with fresh noise has
    no reason to make the same image: its error can be large although its samples are good.
    """

    few: ClassVar[tuple[str, ...]] = ("matched_error",)

    def space(self, samples: Samples) -> str:
        return "pixels"

    def needs(self) -> int:
        return 1

    def build(self, *, references: References) -> Measure:
        matched = references.matched
        if matched is None:
            raise UserError(
                "the metric 'matched' needs the teacher's samples at the same noise, and there are none: leave it out"
            )

        def measure(samples: Samples) -> dict[str, float]:
            if len(samples) != len(matched) or bool((samples.cond.cpu() != matched.cond.cpu()).any()):
                raise UserError(
                    f"the metric 'matched' compares row by row: {len(samples)} samples and {len(matched)} of the "
                    "teacher's must have the same classes in the same order"
                )
            away = samples.images.float() - matched.images.to(samples.images.device).float()
            error = away.square().flatten(1).mean(dim=1).cpu().double()
            return with_intervals({"matched_error": Estimate(float(error.mean()), error)}, at_least=0.0)

        return measure

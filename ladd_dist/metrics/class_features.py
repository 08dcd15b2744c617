"""Metric `class_features`: Frechet distances and class accuracy by a network trained on the data set's own pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from ladd_dist.core.class_net import NAME
from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import AnyInteger, Count, Within
from ladd_dist.metrics import Measure, Metric, References, Samples
from ladd_dist.metrics.extract import features_name, trained
from ladd_dist.metrics.frechet import frechet_estimate, frechet_reference
from ladd_dist.metrics.interval import share_of, with_intervals


@register(NAME)
@dataclass(frozen=True)
class ClassFeatures(Metric):
    """Frechet distance to the real set (`fd_real`) and to the teacher's samples (`fd_teacher`), and class accuracy.

    The features are those of a small network that the stage `features` trains on the data set's own pictures: on their
    classes where there are two or more, else on telling by how many right angles a picture is turned, and on the coarse
    colours in both cases. Figures compare within one network alone, and are no FID. `accuracy`: share of samples that
    the network assigns to the requested class; there is none without classes. The metrics `kid`, `manifold`,
    `diversity` and `memorising` take the same features with `features="class_features"`.
    """

    size: Annotated[int, Within("[16, 256]")] = 32
    """Side length in pixels to which the network resizes pictures of any shape."""
    steps: Count = 500
    """Number of updates."""
    batch_size: Annotated[int, Within("[2, 65536]")] = 128
    """Pictures per update."""
    most_pictures: Count = 20_000
    """Most training pictures that it learns from, drawn by the seed."""
    seed: AnyInteger = 0
    """Seed of weights, pictures and their distortions."""
    few: ClassVar[tuple[str, ...]] = ("accuracy",)

    def of_real(self) -> tuple[str, ...]:
        return ("fd_real",)

    def space(self, samples: Samples) -> str:
        return features_name(samples, "class_features")

    def build(self, *, references: References) -> Measure:
        real = frechet_reference(trained(references.real)["features"])
        teacher = frechet_reference(trained(references.teacher)["features"])

        def measure(samples: Samples) -> dict[str, float]:
            seen = trained(samples)
            distances = {
                "fd_real": frechet_estimate(seen["features"], real),
                "fd_teacher": frechet_estimate(seen["features"], teacher),
            }
            figures = with_intervals(distances, at_least=0.0)
            if samples.trained is None or not samples.trained.by_classes:
                return figures
            right = seen["group"] == samples.cond.to(seen["group"].device)
            return figures | with_intervals({"accuracy": share_of(right)})

        return measure


def trained_by(metrics: Sequence[Metric]) -> ClassFeatures | None:
    """The metric whose network is trained on the data; None where there is none."""
    return next((metric for metric in metrics if isinstance(metric, ClassFeatures)), None)


def uses_trained(metric: Metric) -> bool:
    """Whether a metric compares in the features of that network, which it may train or not."""
    return isinstance(metric, ClassFeatures) or getattr(metric, "features", "") == NAME
